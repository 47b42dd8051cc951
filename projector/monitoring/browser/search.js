/* The search for endpoints: what is typed is the beginning of their id. */

import { ask, inWords, root } from "./daemon.js";
import { byId, element, headings, say, when } from "./dom.js";
import { counted, plain } from "./text.js";

const PAUSE_MS = 200;
const LIMIT = 20;
const PARAMETER = "find";

const box = byId("prefix");
const panel = byId("found");

let shown = null;
let timer = 0;
let latest = 0;

/* A browser takes these two for steps in the path, even where they are percent-encoded. */
const isStep = (id) => id === "." || id === "..";
const pageOf = (id) => new URL(`endpoints/${encodeURIComponent(id)}`, root).href;
const named = (id) => element("bdi", {}, plain(id));

function row({ endpoint_id: id, connectivity_status: status, config_status: config, ...rest }) {
  const name = isStep(id) ? named(id) : element("a", { href: pageOf(id) }, named(id));
  return element("tr", {},
    element("th", { scope: "row" }, element("code", {}, name)),
    element("td", {}, element("span", { class: "status", "data-status": status }, status)),
    element("td", {}, element("span", { class: "status", "data-status": config }, `configuration ${config}`)),
    element("td", { class: "text" }, element("bdi", {}, plain(rest.app_version ?? "–"))),
    element("td", { class: "when" }, when(rest.last_event_at)));
}

function draw({ prefix, endpoints, next, failure }) {
  panel.hidden = !prefix;
  if (!prefix) return;
  const more = element("button", { type: "button" }, "More");
  more.addEventListener("click", async () => {
    await find(prefix, next);
    byId("found-rows").querySelectorAll("tbody tr")[endpoints.length]?.querySelector("a")?.focus();
  });
  const number = `${next ? "the first " : ""}${counted(endpoints.length, "endpoint")}`;
  const summary = `${number} beginning with “${plain(prefix)}”`;
  say(byId("found-note"), failure ? `The search failed: ${failure}` : summary);
  byId("found-rows").replaceChildren(...(endpoints.length ? [
    element("table", { class: "rows" },
      headings("endpoint", "status", "configuration", "version", "last event"),
      element("tbody", {}, ...endpoints.map(row))),
    ...(next ? [more] : []),
  ] : []));
}

/* Find endpoints, or more of them; return what was found, unless something else has been typed since. */
async function find(prefix, after = null) {
  clearTimeout(timer);
  latest += 1;
  const number = latest;
  const before = after ? shown.endpoints : [];
  if (!prefix) {
    shown = { prefix, endpoints: [], next: null };
  } else {
    const given = new URLSearchParams({ prefix, limit: LIMIT, ...(after ? { after } : {}) });
    try {
      const [{ endpoints, next }] = await ask(`api/endpoints?${given}`);
      if (number !== latest) return null;
      shown = { prefix, endpoints: [...before, ...endpoints], next };
    } catch (error) {
      if (number !== latest) return null;
      shown = { prefix, endpoints: before, next: after, failure: inWords(error) };
    }
  }
  remember(prefix);
  draw(shown);
  return shown;
}

/* Keep the prefix in the address, so that the results are there again after going back. */
function remember(prefix) {
  const address = new URL(location.href);
  if ((address.searchParams.get(PARAMETER) ?? "") === prefix) return;
  if (prefix) address.searchParams.set(PARAMETER, prefix);
  else address.searchParams.delete(PARAMETER);
  history.replaceState(null, "", address);
}

async function follow(event) {
  event.preventDefault();
  const prefix = box.value;
  const found = shown?.prefix === prefix && !shown.failure ? shown : await find(prefix);
  if (!found || !prefix) return;
  const ids = found.endpoints.map((endpoint) => endpoint.endpoint_id);
  const id = ids.includes(prefix) || ids.length !== 1 ? prefix : ids[0];
  if (ids.includes(id) && !isStep(id)) location.assign(pageOf(id));
}

box.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => find(box.value), PAUSE_MS);
});
byId("search").addEventListener("submit", follow);
box.value = new URLSearchParams(location.search).get(PARAMETER) ?? box.value;
if (box.value) find(box.value);
