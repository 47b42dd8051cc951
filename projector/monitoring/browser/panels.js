/* What the daemon has made of the stream: figures, counts, dead letters; and the daemon itself. */

import { report } from "./daemon.js";
import { byId, element, headings, renew, say, when } from "./dom.js";
import { areSeveral, leader } from "./shards.js";
import { count, duration, known, plain, share, stamp } from "./text.js";

const LONG_LIST = 12;

let rebuildSeen = null;

function fact(name, value, note) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value, element("small", {}, note)));
}

export function showFigures() {
  const { endpoints, by_status: byStatus, last_event_stored_at: newest, last_commit_at: commit } = report.status;
  const { checkpoint_seq: checkpoint, stream_last_seq: end, dead_letters: letters } = report.status;
  const connected = byStatus ? `${share(byStatus.connected ?? 0, endpoints)} connected` : "counting …";
  renew(byId("figures"), [endpoints, byStatus, newest, commit, checkpoint, end, letters], () => [
    fact("Endpoints", count(endpoints), connected),
    fact("Newest event in the table", when(newest), stamp(newest)),
    fact("Last commit", when(commit), stamp(commit)),
    fact("Checkpoint", count(checkpoint), `of ${count(end)} in the stream`),
    fact("Dead letters", count(letters), letters ? "need attention" : "none"),
  ]);
}

/* The usual names come first, in their own order; then the most frequent; what was summed up comes last. */
function ordered(counts, usual) {
  const places = new Map([...usual.map((name, place) => [name, place]), ["(other)", Infinity]]);
  const place = ([name]) => places.get(name) ?? usual.length;
  const absent = usual.filter((name) => !Object.hasOwn(counts, name)).map((name) => [name, 0]);
  const all = [...absent, ...Object.entries(counts)];
  return all.sort((a, b) => place(a) - place(b) || b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

function barRow(name, value, total, largest) {
  const label = plain(name) || "(empty)";
  const bar = element("div");
  bar.style.width = `${(100 * value) / largest}%`;
  bar.hidden = !value;
  return element("tr", name === "(other)" ? { class: "rest" } : {},
    element("th", { scope: "row", title: label }, label),
    element("td", {}, element("div", { class: "track" }, bar)),
    element("td", { class: "number" }, count(value)),
    element("td", { class: "number share" }, share(value, total)));
}

function showBars(id, head, counts, usual = []) {
  renew(byId(id), counts, () => {
    if (!counts) return [element("p", { class: "empty" }, "Counting …")];
    const rows = ordered(counts, usual);
    if (!rows.length) return [element("p", { class: "empty" }, "No endpoints yet.")];
    const total = rows.reduce((sum, [, value]) => sum + value, 0);
    const largest = Math.max(1, ...rows.map(([, value]) => value));
    const half = rows.length > LONG_LIST ? Math.ceil(rows.length / 2) : rows.length;
    return [rows.slice(0, half), rows.slice(half)].filter((part) => part.length).map((part) =>
      element("table", { class: "bars" },
        headings(head, "bar", "endpoints", "share"),
        element("tbody", {}, ...part.map(([name, value]) => barRow(name, value, total, largest)))));
  });
}

export function showEndpoints() {
  showBars("by-status", "status", report.status.by_status, ["connected", "disconnected", "unknown"]);
  showBars("by-version", "version", report.status.by_version);
  showBars("by-config", "configuration status", report.status.by_config_status, ["applied", "pending", "none"]);
  for (const node of document.querySelectorAll(".counted")) {
    renew(node, report.status.counted_at, (at) => (known(at) ? ["counted ", when(at)] : []));
  }
}

export function showLetters() {
  const letters = report.status.latest_dead_letters ?? [];
  const reasons = Object.entries(report.status.dead_letters_by_reason ?? {}).sort((a, b) => b[1] - a[1]);
  say(byId("letters-note"), reasons.map(([reason, number]) => `${count(number)} ${plain(reason)}`).join(", "));
  renew(byId("letters"), letters, () => {
    if (!letters.length) return [element("p", { class: "empty" }, "None.")];
    const rows = letters.map(({ parked_at: parkedAt, position, reason, detail, subject }) => element("tr", {},
      element("td", { class: "when" }, when(parkedAt)),
      element("th", { scope: "row" }, count(position)),
      element("td", { class: "reason" }, plain(reason)),
      element("td", { class: "text" }, element("bdi", {}, plain(detail))),
      element("td", { class: "text" }, element("code", {}, element("bdi", {}, plain(subject))))));
    const command = element("code", {}, "projector dead-letters show <POSITION>");
    const heads = headings("parked", "position", "reason", "detail", "subject");
    return [
      element("table", { class: "rows" }, heads, element("tbody", {}, ...rows)),
      element("p", { class: "note" }, "To inspect one: ", command),
    ];
  });
}

export function showRebuild() {
  const { rebuild } = report.status;
  byId("rebuild").hidden = !rebuild;
  if (!rebuild) {
    rebuildSeen = null;
    return;
  }
  const { position, target, since } = rebuild;
  if (rebuildSeen === null || rebuildSeen.since !== since || position < rebuildSeen.position) {
    rebuildSeen = { since, position, at: report.answeredAt };
  }
  const pace = (position - rebuildSeen.position) / ((report.answeredAt - rebuildSeen.at) / 1000);
  const toGo = pace > 0 ? `, about ${duration(Math.max(1, Math.round((target - position) / pace)))} to go` : "";
  const reached = `position ${count(position)} of ${count(target)}, ${share(position, target)}`;
  renew(byId("rebuild"), rebuild, () => [
    element("div", { class: "head" },
      element("h2", { id: "rebuild-title" }, "Rebuild or verification in progress"),
      element("p", {}, "begun ", when(since))),
    element("progress", { max: Math.max(1, target), value: position, "aria-labelledby": "rebuild-title" }),
    element("p", { class: "note" }, reached + toGo),
  ]);
}

const since = (iso) => (known(iso) ? [`${stamp(iso)}, `, when(iso)] : ["–"]);

export function showDaemon() {
  const { daemon, active, stream, projection_version: rules, skipped: types } = report.status;
  const { stream_first_seq: first, stream_last_seq: end, changes_since: changesSince } = report.status;
  const skipped = Object.entries(types ?? {}).map(([type, number]) => `${plain(type)} ${count(number)}`);
  const facts = [
    ["State", daemon.state],
    ["Active since", ...since(daemon.active_since)],
    ["Heartbeat", `${duration(daemon.heartbeat_age_s)} before the answer`],
    ["Started", ...since(daemon.started_at)],
    ["Version", daemon.version],
    ["Rules", element("code", {}, plain(rules ?? "–"))],
    ...(areSeveral() ? [] : [["Leader", active ? leader(active) : "none"]]),
    ["Stream", `${plain(stream)}, positions ${count(first)} to ${count(end)}`],
    ["Types skipped", skipped.join(", ") || "none"],
    ["Changes", ...(known(changesSince) ? ["recorded since ", ...since(changesSince)] : ["not recorded"])],
  ];
  renew(byId("daemon"), [daemon, active, areSeveral(), stream, first, end, rules, skipped, changesSince], () =>
    facts.map(([name, ...value]) => element("div", {}, element("dt", {}, name), element("dd", {}, ...value))));
}
