/* The sessions of an endpoint, as a time line and as a table. */

import { byId, element, headings, renew, say, shape, when } from "./dom.js";
import { extendWith, keep, List } from "./list.js";
import { draw, HEIGHT, knownSince, visible } from "./timeline.js";
import { counted, duration, known, now, plain, sentence, share, utc } from "./text.js";

const LIMIT = 100;
const NEAR_PIXELS = 8;
const LEAST_MS = 60_000;

const keyOf = ({ connected_at: start, originator, replica }) => `${start} ${originator} ${replica}`;
const holder = ({ originator, replica }) => [originator, replica].filter(known).map(plain).join(" / ");
const ENDS = {
  disconnected: "ended by a disconnect",
  superseded: "superseded by a later connect",
  unregistered: "ended by an unregistration",
};
const endOf = ({ ended_by: ended }) => (known(ended) ? ENDS[ended] ?? plain(ended) : "open");

function lengthOf({ connected_at: start, disconnected_at: end }) {
  return Math.max(0, ((known(end) ? Date.parse(end) : now()) - Date.parse(start)) / 1000);
}

export class Sessions extends List {
  constructor(path) {
    super(path, "sessions", LIMIT, keyOf);
    Object.assign(this, { windowMs: null, isChosen: false, parts: [], places: [], selected: null, isMissing: false });
    extendWith(byId("older-sessions"), this, () => this.show(this));
    this.listen(byId("timeline"));
    byId("window").addEventListener("change", (event) => this.choose(event.target.value));
    new ResizeObserver(() => this.drawLine()).observe(byId("timeline"));
  }

  show({ isMissing }) {
    this.isMissing = isMissing;
    const { answer, failure, rows } = this;
    byId("sessions").hidden = isMissing || (!answer && !failure);
    if (byId("sessions").hidden) return;
    say(byId("sessions-note"), failure ? `The sessions cannot be read: ${failure}` : rows.length ? this.note() : "");
    byId("no-sessions").hidden = Boolean(failure || rows.length);
    say(byId("no-sessions"), failure || rows.length ? "" : this.note());
    byId("older-sessions").hidden = !this.next;
    for (const id of ["window", "timeline", "reading", "keys"]) byId(id).hidden = !rows.length;
    byId("session-rows").closest("details").hidden = !rows.length;
    if (rows.length && !this.isChosen) this.choose(this.fitting());
    this.drawLine();
    this.drawTable();
  }

  note() {
    const { answer, rows } = this;
    if (answer.changes_state === "on") {
      const since = utc(Date.parse(answer.changes_since));
      return rows.length ? `recorded since ${since}` : `None since ${since}.`;
    }
    return sentence(`${rows.length ? "only the latest is known; " : ""}${answer.detail ?? ""}`);
  }

  get oldest() {
    return Date.parse(this.rows[this.rows.length - 1].connected_at);
  }

  /* The shortest window that shows every session that has been read. */
  fitting() {
    const choices = [...byId("window").querySelectorAll("input")].map((input) => input.value);
    return choices.find((value) => Number(value) * 1000 >= now() - this.oldest) ?? "all";
  }

  choose(value) {
    byId("window").querySelector(`[value="${value}"]`).checked = true;
    this.windowMs = value === "all" ? null : Number(value) * 1000;
    Object.assign(this, { isChosen: true, selected: null });
    this.drawLine();
  }

  drawLine() {
    const node = byId("timeline");
    const width = node.clientWidth;
    const { answer, rows, selected } = this;
    if (!width || !rows.length) return;
    const end = now();
    const start = end - (this.windowMs ?? Math.max(LEAST_MS, end - this.oldest));
    const since = knownSince(rows, { next: this.next, changes_since: answer?.changes_since }, end);
    this.parts = visible(rows, start, end);
    const drawing = draw(this.parts, { from: start, now: end, since, width, selected });
    this.places = drawing.places;
    const summary = this.summary(start, since, end);
    const picture = { role: "img", "aria-label": summary, viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT };
    const svg = shape("svg", picture);
    svg.append(...drawing.shapes);
    node.replaceChildren(svg);
    byId("unrecorded").hidden = since <= start;
    say(byId("reading"), selected === null ? summary : this.reading(this.parts[selected]));
  }

  summary(start, since, end) {
    const from = Math.max(start, since);
    const connected = covered(this.parts, from);
    const portion = end > from ? `, connected ${share(connected, end - from)} of the time` : "";
    return `${counted(this.parts.length, "session")} in the last ${duration((end - from) / 1000)}${portion}`;
  }

  reading(part) {
    if (!part) return "";
    const { session } = part;
    const from = utc(Date.parse(session.connected_at));
    const to = known(session.disconnected_at) ? utc(Date.parse(session.disconnected_at)) : "now";
    return `${from} to ${to}: ${duration(lengthOf(session))}, over ${holder(session)}, ${endOf(session)}`;
  }

  listen(node) {
    node.addEventListener("pointermove", (event) => {
      const at = event.clientX - node.getBoundingClientRect().left;
      this.select(this.nearest(at));
    });
    node.addEventListener("pointerleave", () => this.select(null));
    node.addEventListener("blur", () => this.select(null));
    node.addEventListener("keydown", (event) => {
      const last = this.parts.length - 1;
      const here = this.selected ?? last + 1;
      const target = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") {
        this.select(null);
      } else if (target !== undefined && last >= 0) {
        event.preventDefault();
        this.select(Math.min(last, Math.max(0, target)));
        say(byId("spoken"), this.reading(this.parts[this.selected]));
      }
    });
  }

  select(index) {
    if (index === this.selected) return;
    this.selected = index;
    this.drawLine();
  }

  nearest(at) {
    const distances = this.places.map(({ left, width }) => Math.max(left - at, at - left - width, 0));
    const least = Math.min(...distances);
    return least <= NEAR_PIXELS ? distances.lastIndexOf(least) : null;
  }

  drawTable() {
    if (!this.body) {
      this.body = element("tbody");
      const heads = headings("connected", "disconnected", "duration", "over", "end");
      byId("session-rows").replaceChildren(element("table", { class: "rows" }, heads, this.body));
    }
    keep(this.body, this.rows, keyOf, drawRow);
  }
}

/* For how long after a moment at least one session was open; a late disconnect can make two overlap. */
function covered(parts, from) {
  let [sum, reached] = [0, from];
  for (const { start, end } of parts) {
    sum += Math.max(0, end - Math.max(start, reached));
    reached = Math.max(reached, end);
  }
  return sum;
}

function drawRow(session) {
  const { connected_at: start, disconnected_at: end } = session;
  return element("tr", {},
    element("th", { scope: "row" }, utc(Date.parse(start)), " ", when(start)),
    element("td", {}, known(end) ? utc(Date.parse(end)) : "–"),
    element("td", { class: "number" }, known(end) ? duration(lengthOf(session)) : "open"),
    element("td", {}, element("bdi", {}, holder(session))),
    element("td", {}, endOf(session)));
}
