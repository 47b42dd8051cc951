/* The changes of an endpoint: what each event did to each facet, or why it did nothing. */

import { byId, element, headings, say, when } from "./dom.js";
import { extendWith, keep, List } from "./list.js";
import { valueOf } from "./state.js";
import { count, known, plain, sentence, utc } from "./text.js";

const LIMIT = 20;

const keyOf = ({ commit_no: commit, position, facet }) => `${commit} ${position} ${facet}`;

export class Changes extends List {
  constructor(path) {
    super(path, "changes", LIMIT, keyOf);
    extendWith(byId("older-changes"), this, () => this.show());
  }

  show() {
    const { answer, failure, rows } = this;
    byId("changes").hidden = !answer && !failure;
    if (byId("changes").hidden) return;
    say(byId("changes-note"), failure ? `The changes cannot be read: ${failure}` : this.note());
    byId("older-changes").hidden = !this.next;
    if (!rows.length) {
      const nothing = answer?.changes_state === "on" ? "None since then." : answer?.detail ?? "";
      byId("change-rows").replaceChildren(element("p", { class: "empty" }, sentence(nothing)));
      this.body = null;
      return;
    }
    if (!this.body) {
      this.body = element("tbody");
      const heads = headings("time", "verdict", "facet", "change", "event");
      byId("change-rows").replaceChildren(element("table", { class: "rows" }, heads, this.body));
    }
    keep(this.body, rows, keyOf, draw);
  }

  note() {
    const { answer } = this;
    const since = answer?.changes_since;
    return known(since) ? `in the order of commits, recorded since ${utc(Date.parse(since))}` : "";
  }
}

function draw(change) {
  const { verdict, facet, occurred_at: occurredAt, committed_at: committedAt } = change;
  const time = occurredAt ?? committedAt;
  return element("tr", {},
    element("td", { class: "when" }, utc(Date.parse(time)).replace(" UTC", ""), " ", when(time)),
    element("td", { class: "verdict" }, element("span", { class: "status", "data-status": verdict }, verdict)),
    element("td", { class: "facet" }, facet),
    element("td", { class: "text" }, ...what(change)),
    element("td", { class: "text source" }, ...source(change)));
}

/* Which columns changed, and why none did. */
function what(change) {
  const { before, after, reason, verdict } = change;
  const lines = [];
  if (!known(before) && known(after)) lines.push(["The row is new."]);
  if (known(before) && !known(after)) lines.push(["The row was deleted."]);
  const names = Object.keys(after ?? before ?? {});
  const times = names.filter((name) => name.endsWith("_at"));
  for (const name of names.filter((other) => !times.includes(other))) {
    if (name === "metadata") lines.push(...keys(before?.[name], after?.[name]));
    else lines.push([element("code", {}, name), ...arrow(name, change)]);
  }
  if (known(after)) lines.push(...timesOf(times, change));
  if (known(reason) && verdict !== "corrected") lines.push([sentence(plain(reason).replace(`${verdict}: `, ""))]);
  const nothing = verdict === "applied" ? "Nothing visible." : "–";
  if (!lines.length) lines.push([element("span", { class: "none" }, nothing)]);
  return lines.map((line) => element("p", {}, ...line));
}

function arrow(name, { before, after }) {
  const [old, fresh] = [before?.[name], after?.[name]];
  return [" ", ...(known(old) ? [...valueOf(name, old), " "] : []), "→ ", ...valueOf(name, fresh)];
}

function keys(before, after) {
  const has = (values, key) => Object.hasOwn(values ?? {}, key);
  const shown = (values, key) => (has(values, key) ? JSON.stringify(values[key]) : null);
  return [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].sort()
    .filter((key) => shown(before, key) !== shown(after, key))
    .map((key) => [
      element("code", {}, "metadata ", element("bdi", {}, plain(key))),
      ...arrow("", { before: { "": shown(before, key) }, after: { "": shown(after, key) } }),
    ]);
}

/* Columns that were set to the same time are named together. */
function timesOf(names, { after, occurred_at: occurredAt }) {
  const values = [...new Set(names.map((name) => after[name]))];
  return values.map((value) => {
    const same = names.filter((name) => after[name] === value).join(", ");
    const isOwn = known(value) && Date.parse(value) === Date.parse(occurredAt);
    const shown = isOwn ? "time of the event" : known(value) ? utc(Date.parse(value)) : "–";
    return [element("span", { class: "none" }, element("code", {}, same), ` → ${shown}`)];
  });
}

function source({ event, position, originator, replica, committed_at: committedAt }) {
  if (!known(event)) return [element("p", {}, "a rebuild or a retry"), `committed ${utc(Date.parse(committedAt))}`];
  return [element("p", {}, element("code", {}, plain(event))), `position ${count(position)}, `,
    element("bdi", {}, [originator, replica].filter(known).map(plain).join(" / "))];
}
