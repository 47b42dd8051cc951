/* Elements. Whatever comes from outside becomes text nodes, never markup. */

import { ago, known, plain, utc } from "./text.js";

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter(known));
  return made;
}

export function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (known(text)) made.textContent = text;
  return made;
}

export const headings = (...names) =>
  element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name))));

export function when(iso) {
  if (!known(iso)) return "–";
  const ms = Date.parse(iso);
  if (Number.isNaN(ms)) return plain(iso);
  return element("time", { datetime: iso, title: utc(ms) }, ago(ms));
}

/* Text is replaced only if it changed, so that selections stay and screen readers do not repeat it. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const drawn = new Map();

export function renew(node, data, draw) {
  const key = JSON.stringify(data);
  if (drawn.get(node) === key) return;
  drawn.set(node, key);
  node.replaceChildren(...draw(data));
}
