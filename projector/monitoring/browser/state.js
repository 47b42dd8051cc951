/* The state of an endpoint: a summary, and every column by facet. */

import { report } from "./daemon.js";
import { byId, element, renew, say, when } from "./dom.js";
import { ago, clock, count, counted, known, plain, stamp, utc } from "./text.js";

const FACETS = {
  Connectivity: ["connectivity_status", "connectivity_changed_at", "connected_at", "disconnected_at",
    "connected_originator", "connected_replica"],
  Registration: ["registration_status", "registered_at", "unregistered_at"],
  Application: ["app_version", "app_version_changed_at", "previous_app_version"],
  Configuration: ["config_status", "config_available_id", "config_available_at", "config_applied_id",
    "config_applied_at", "config_pending_id", "config_failed_id", "config_failed_at", "config_failure_code",
    "config_failure_reason"],
  "Last event": ["last_event_seq", "last_event_at"],
};

const holder = ({ connected_originator: originator, connected_replica: replica }) =>
  [originator, replica].filter(known).map(plain).join(" / ");
const at = (iso) => `${stamp(iso)} UTC, ${ago(Date.parse(iso))}`.replace(" UTC UTC", " UTC");

function connectivity(state) {
  const since = state.connectivity_changed_at;
  switch (state.connectivity_status) {
    case "connected":
      return ["ok", "Connected", `Since ${at(since)}, over ${holder(state)}.`];
    case "disconnected":
      return ["quiet", "Disconnected", `Since ${at(since)}.`];
    default:
      return ["quiet", "Connectivity unknown", "No connect or disconnect is known."];
  }
}

function rest(state) {
  const version = known(state.app_version) ? `Runs ${plain(state.app_version)}` : "The version is unknown";
  const registration = { registered: "registered", unregistered: "unregistered" }[state.registration_status];
  const config = { none: "no configuration", pending: "configuration pending", applied: "configuration applied",
    failed: "configuration failed" }[state.config_status];
  return `${[version, registration, config].filter(known).join(", ")}.`;
}

function failed(state) {
  if (state.config_status !== "failed") return [];
  const { config_failed_id: id, config_failure_code: code, config_failure_reason: reason } = state;
  const why = [known(code) ? ` with ${code}` : "", known(reason) ? `: ${plain(reason)}` : ""].join("");
  return [`Configuration ${plain(id)} failed${why}`];
}

function judge({ state, isMissing }) {
  const silence = report.failure ? [`The state cannot be read: ${report.failure}`] : [];
  const daemon = report.status?.daemon;
  const late = daemon && !daemon.ready ? [`The table may be behind the stream: ${plain(daemon.ready_reason)}`] : [];
  const verdict = (level, word, lede, problems) => ({ level, word, lede, problems });
  if (isMissing) return verdict("quiet", "No such endpoint", "No event has named it.", [...silence, ...late]);
  if (!state && silence.length) return verdict("bad", "No answer", "", silence);
  if (!state) return verdict("quiet", "Loading …", "", []);
  const old = silence.length ? [`The state below is that of ${clock(report.answeredAt)} UTC`] : [];
  const problems = [...silence, ...old, ...late, ...failed(state)];
  const [level, word, since] = connectivity(state);
  const worst = silence.length ? "bad" : "attention";
  return verdict(problems.length ? worst : level, word, `${since} ${rest(state)}`, problems);
}

let announced = "";

export function showSummary(id, found) {
  const { level, word, lede, problems } = judge(found);
  byId("verdict").dataset.level = level;
  renew(byId("id"), id, () => [element("bdi", {}, plain(id))]);
  say(byId("word"), word);
  byId("word").dataset.status = found.state?.connectivity_status ?? "none";
  say(byId("lede"), lede);
  byId("problems").hidden = !problems.length;
  renew(byId("problems"), problems, (texts) => texts.map((text) => element("li", {}, text)));
  const gist = [word, ...problems].join(". ");
  if (gist !== announced) say(byId("announcement"), gist);
  announced = gist;
  say(byId("updated"), report.answeredAt === null ? "" : `answered ${ago(report.answeredAt)}`);
  const title = `${plain(id)} · ${word}`;
  if (document.title !== title) document.title = title;
}

const timed = (iso) => element("span", { title: utc(Date.parse(iso)) }, `${stamp(iso)}, `, when(iso));

export function valueOf(name, value) {
  if (!known(value)) return [element("span", { class: "none" }, "–")];
  if (name.endsWith("_at")) return [timed(value)];
  if (name.endsWith("_status")) return [element("span", { class: "status", "data-status": value }, value)];
  if (value === "") return [element("span", { class: "none" }, "(empty)")];
  return [element("bdi", {}, plain(value))];
}

function row(name, value) {
  return element("div", {}, element("dt", {}, element("code", {}, name)), element("dd", {}, ...valueOf(name, value)));
}

function metadataRow(key, value) {
  return element("div", {},
    element("dt", {}, element("bdi", {}, plain(key))),
    element("dd", {}, element("code", {}, element("bdi", {}, plain(JSON.stringify(value))))));
}

/* Rows with the event that set them: those of one event together, and those without a known event last. */
function byEvent(names, setBy, draw) {
  const groups = new Map();
  for (const name of names) {
    const by = setBy?.[name] ?? null;
    const key = by ? JSON.stringify(by) : "";
    groups.set(key, { by, names: [...(groups.get(key)?.names ?? []), name] });
  }
  const sorted = [...groups.values()].sort((a, b) => Boolean(b.by) - Boolean(a.by));
  return sorted.flatMap((group) => [
    element("dl", {}, ...group.names.map(draw)),
    ...(group.by ? [element("p", { class: "by" }, ...source(group.by))] : []),
  ]);
}

function source({ event, position, originator, replica }) {
  const from = [originator, replica].filter(known).map(plain).join(" / ");
  const name = known(event) ? element("code", {}, plain(event)) : "an event";
  return ["by ", name, ` at position ${count(position)}`, ...(from ? [", from ", element("bdi", {}, from)] : [])];
}

/* Each card is drawn again only if its own values have changed, so that a selection elsewhere stays. */
function card(title) {
  const id = `facet-${title.toLowerCase().replace(" ", "-")}`;
  if (!byId(id)) {
    byId("facets").append(element("section", { class: "panel facet", "aria-label": title },
      element("div", { class: "head" }, element("h2", {}, title), element("p", { id: `${id}-note` })),
      element("div", { id })));
  }
  return id;
}

export function showState(state) {
  byId("facets").hidden = !state;
  if (!state) return;
  const { set_by: setBy, metadata, metadata_set_by: keysSetBy } = state;
  for (const [title, names] of Object.entries(FACETS)) {
    renew(byId(card(title)), names.map((name) => [state[name], setBy?.[name]]), () =>
      byEvent(names, setBy, (name) => row(name, state[name])));
  }
  const id = card("Metadata");
  const keys = Object.keys(metadata).sort();
  say(byId(`${id}-note`), counted(keys.length, "key"));
  renew(byId(id), [metadata, keysSetBy, state.metadata_changed_at], () => [
    ...byEvent(keys, keysSetBy, (key) => metadataRow(key, metadata[key])),
    ...byEvent(["metadata_changed_at"], setBy, (name) => row(name, state[name])),
  ]);
}
