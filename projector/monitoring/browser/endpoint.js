/* The page of one endpoint: asks again every few seconds, rarely while it is hidden. */

import { ask, inWords, parseExactly, Refusal, report, root } from "./daemon.js";
import { byId, say } from "./dom.js";
import { Changes } from "./changes.js";
import { Letters } from "./letters.js";
import { Sessions } from "./sessions.js";
import { showState, showSummary } from "./state.js";
import { ago, now, plain, setClock } from "./text.js";

const POLL_MS = 5_000;
const HIDDEN_POLL_MS = 60_000;
const POLLS_BETWEEN_LETTERS = 6;

/* The id, and its address in the API, which says what is wrong with an id that cannot be decoded. */
function addressed() {
  const segment = location.pathname.slice(new URL("endpoints/", root).pathname.length);
  const path = `api/endpoints/${segment}`;
  try {
    return { id: decodeURIComponent(segment), path };
  } catch {
    return { id: segment, path };
  }
}

const endpoint = addressed();
const lists = {
  sessions: new Sessions(`${endpoint.path}/sessions`),
  changes: new Changes(`${endpoint.path}/changes`),
  letters: new Letters(`${endpoint.path}/dead-letters`),
};

/* `text` is the state as JSON, to tell whether anything has changed. */
const known = { state: null, text: null, isMissing: false };

let timer = 0;
let polls = 0;
let asking = false;

async function askState() {
  try {
    const [state] = await ask(endpoint.path, parseExactly);
    Object.assign(known, { state, isMissing: false });
  } catch (error) {
    if (!(error instanceof Refusal) || error.code !== 404) throw error;
    Object.assign(known, { state: null, isMissing: true });
  }
  const text = JSON.stringify(known.state);
  const isNews = text !== known.text;
  known.text = text;
  return isNews;
}

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const [said, found] = await Promise.allSettled([ask("status"), askState()]);
  if (said.status === "fulfilled") {
    const [status, saidAt] = said.value;
    setClock(saidAt);
    report.status = status;
  }
  if (found.status === "fulfilled") {
    report.answeredAt = now();
    report.failure = null;
    await refresh(found.value);
  } else {
    report.failure = inWords(found.reason);
  }
  polls += 1;
  asking = false;
  timer = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
  show();
}

/* A list that failed is asked for again at the next poll. */
async function refresh(isNews) {
  const { sessions, changes, letters } = lists;
  for (const list of [sessions, changes]) {
    if (isNews || list.failure) await list.refresh();
  }
  if (isNews || letters.failure || polls % POLLS_BETWEEN_LETTERS === 0) await letters.refresh();
}

function show() {
  if (report.status) {
    byId("stream").hidden = false;
    say(byId("stream"), plain(report.status.stream));
  }
  showSummary(endpoint.id, known);
  showState(known.state);
  for (const list of Object.values(lists)) list.show(known);
}

function tick() {
  if (document.hidden) return;
  showSummary(endpoint.id, known);
  for (const node of document.querySelectorAll("time")) say(node, ago(Date.parse(node.dateTime)));
}

for (const [link, rest] of [["as-json", ""], ["sessions-as-json", "/sessions"], ["changes-as-json", "/changes"],
  ["letters-as-json", "/dead-letters"]]) {
  byId(link).href = new URL(`${endpoint.path}${rest}`, root).href;
}
document.addEventListener("visibilitychange", () => document.hidden || poll());
setInterval(tick, 1_000);
poll();
