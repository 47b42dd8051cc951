/* What the daemon says of itself, and when it said it. */

export const PATIENCE_MS = 4_000;

/* Where the daemon answers, also behind a proxy that adds a prefix. */
export const root = new URL("../", import.meta.url);

/* `failure` says why the daemon has not answered since. */
export const report = { status: null, points: [], everyS: 5, answeredAt: null, failure: null };

export async function ask(path) {
  const response = await fetch(new URL(path, root), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!response.ok) throw new Error(`it answered with ${response.status}`);
  const saidAt = Date.parse(response.headers.get("date"));
  return [await response.json(), saidAt];
}

export function inWords(error) {
  if (error.name === "TimeoutError") return `it took more than ${PATIENCE_MS / 1000} s`;
  if (error instanceof SyntaxError) return "what came was not JSON";
  return error instanceof TypeError ? "it cannot be reached" : error.message;
}
