/* What the daemon says of itself, and how to ask it. */

const PATIENCE_MS = 4_000;

/* Where the daemon answers, also behind a proxy that adds a prefix. */
export const root = new URL("../", import.meta.url);

/* `failure` says why the daemon has not answered since `answeredAt`. */
export const report = { status: null, points: [], everyS: 5, answeredAt: null, failure: null };

/* The daemon has answered with an error. */
export class Refusal extends Error {
  constructor(code, detail) {
    super(detail ?? `it answered with ${code}`);
    this.code = code;
  }
}

/* Return an answer, and when the daemon gave it. */
export async function ask(path, parse = JSON.parse) {
  const response = await fetch(new URL(path, root), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const text = await response.text();
  const saidAt = Date.parse(response.headers.get("date"));
  if (response.ok) return [parse(text), saidAt];
  throw new Refusal(response.status, detailOf(text));
}

function detailOf(text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return undefined;
  }
}

/* Parse JSON whose numbers keep all digits, if the browser can do that; such a number is for JSON.stringify only. */
export function parseExactly(text) {
  if (!JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && String(value) !== context.source ? JSON.rawJSON(context.source) : value);
}

export function inWords(error) {
  if (error.name === "TimeoutError") return `it took more than ${PATIENCE_MS / 1000} s`;
  if (error instanceof SyntaxError) return "the answer was not JSON";
  return error instanceof TypeError ? "it cannot be reached" : error.message;
}
