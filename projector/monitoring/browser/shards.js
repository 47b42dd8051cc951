/* The shards, if there are several: how far each is, and who leads it. */

import { report } from "./daemon.js";
import { byId, element, headings, renew, say } from "./dom.js";
import { count, counted, known, plain } from "./text.js";

const shards = () => report.status.shards ?? [];

export const areSeveral = () => shards().length > 1;
export const withoutLeader = () => (areSeveral() ? shards().filter(({ active }) => !active) : []);

export function leader({ application, address, backend_pid: pid }) {
  return [application, address, known(pid) ? `Postgres process ${pid}` : null].filter(known).map(plain).join(", ");
}

/* The lag is as the leader has seen it: without a leader it is not known. */
function row({ shard, checkpoint_seq: position, lag_messages: lag, active }) {
  return element("tr", {},
    element("th", { scope: "row" }, count(shard)),
    element("td", { class: "number" }, count(position)),
    element("td", { class: "number" }, count(active ? lag : null)),
    active ? element("td", {}, leader(active)) : element("td", { class: "lacking" }, "no leader"));
}

export function showShards() {
  byId("shards").hidden = !areSeveral();
  const free = withoutLeader().length;
  say(byId("shards-note"), counted(shards().length, "shard") + (free ? `, ${count(free)} without a leader` : ""));
  renew(byId("shard-rows"), shards(), (all) => [
    element("table", { class: "shards" },
      headings("shard", "position", "lag in messages", "leader"),
      element("tbody", {}, ...all.map(row))),
  ]);
}
