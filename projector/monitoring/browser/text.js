/* Words and figures. */

let skewMs = 0;

/* The clock of the daemon: every time on the page is its own. */
export const now = () => Date.now() + skewMs;

/* The header has whole seconds. */
export function setClock(saidAt) {
  const skew = saidAt - Date.now();
  skewMs = Math.abs(skew) > 2_000 ? skew : 0;
}

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const known = (value) => value !== null && value !== undefined;
export const count = (value) => (known(value) ? integers.format(value) : "–");
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

export function rate(value) {
  if (!known(value)) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : integers.format(value);
}

export function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds > 0 && seconds < 0.95) return `${Math.ceil(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1).replace(".0", "")} s`;
  const units = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  const largest = units.findIndex(([size]) => seconds >= size * (size === 60 ? 1.5 : 1));
  if (largest < 0 || largest === 3) return `${Math.round(seconds)} s`;
  const [[size, name], [smaller, smallerName]] = units.slice(largest);
  const rounded = Math.round(seconds / smaller) * smaller;
  const rest = Math.floor((rounded % size) / smaller);
  return `${Math.floor(rounded / size)} ${name}${rest ? ` ${rest} ${smallerName}` : ""}`;
}

export function ago(ms) {
  const seconds = Math.max(0, Math.round((now() - ms) / 1000));
  return seconds < 1 ? "just now" : `${duration(seconds)} ago`;
}

export function share(value, total) {
  const percent = total ? (100 * value) / total : 0;
  return value && percent < 0.1 ? "<0.1 %" : `${percent.toFixed(1)} %`;
}

export const utc = (ms) => new Date(ms).toISOString().replace("T", " ").replace(/\.000Z$|Z$/, " UTC");
export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

/* When, in as few characters as leave no doubt. */
export function stamp(iso) {
  const ms = Date.parse(iso);
  if (Number.isNaN(ms)) return "unknown";
  const recent = Math.abs(now() - ms) < 12 * 3_600_000;
  return recent ? clock(ms) : utc(ms).slice(0, 16);
}

/* Invisible characters, and those that reverse the text, are written as escapes: they can disguise a text. */
export const plain = (text) =>
  String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16).toUpperCase()}}`);

export function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}` : "";
}
