/* The page of the daemon: asks again every few seconds, rarely while it is hidden. */

import { ask, inWords, report } from "./daemon.js";
import { byId, say } from "./dom.js";
import { showDaemon, showEndpoints, showFigures, showLetters, showRebuild } from "./panels.js";
import { WINDOW_S, showMinutes, showPlots } from "./plots.js";
import { showShards } from "./shards.js";
import { ago, now, plain, setClock } from "./text.js";
import { showVerdict } from "./verdict.js";

const POLL_MS = 5_000;
const HIDDEN_POLL_MS = 60_000;

let timer = 0;
let asking = false;

function show() {
  showVerdict();
  if (report.status) {
    byId("stream").hidden = false;
    say(byId("stream"), plain(report.status.stream));
    showRebuild();
    showFigures();
    showEndpoints();
    showLetters();
    showShards();
    showDaemon();
  }
  showPlots();
  showMinutes();
}

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const [said, remembered] = await Promise.allSettled([ask("status"), ask("history")]);
  if (said.status === "fulfilled") {
    const [fresh, saidAt] = said.value;
    setClock(saidAt);
    report.status = fresh;
    report.answeredAt = now();
    report.failure = null;
  } else {
    report.failure = inWords(said.reason);
  }
  if (remembered.status === "fulfilled") {
    const [fresh] = remembered.value;
    report.everyS = fresh.every_s;
    report.points = fresh.points.filter(([at]) => at >= now() / 1000 - WINDOW_S);
  }
  asking = false;
  timer = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
  show();
}

function tick() {
  if (document.hidden) return;
  showVerdict();
  for (const node of document.querySelectorAll("time")) say(node, ago(Date.parse(node.dateTime)));
  if (report.failure) showPlots();
}

document.addEventListener("visibilitychange", () => document.hidden || poll());
setInterval(tick, 1_000);
poll();
