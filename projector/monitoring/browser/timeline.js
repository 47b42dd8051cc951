/* The time line: sessions as bars between a moment and now. */

import { shape } from "./dom.js";
import { clock, known, utc } from "./text.js";

export const HEIGHT = 62;
const BAR = { top: 8, height: 26 };
const AXIS = BAR.top + BAR.height + 5;
const THINNEST = 2;
const MOST_TICKS = 7;
const PIXELS_PER_TICK = 90;
const DAY_S = 86_400;
const ROUND_S = [1, 5, 15, 60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, DAY_S, 2 * DAY_S, 7 * DAY_S, 30 * DAY_S,
  90 * DAY_S, 365 * DAY_S];

const startOf = (session) => Date.parse(session.connected_at);
const endOf = (session, now) => (known(session.disconnected_at) ? Date.parse(session.disconnected_at) : now);

/* The parts of sessions that are in a window, the earliest first; times in Unix ms. */
export function visible(sessions, from, now) {
  return [...sessions].reverse()
    .map((session) => ({ session, start: Math.max(from, startOf(session)), end: endOf(session, now) }))
    .filter(({ start, end }) => end >= from && start <= now)
    .map((part) => ({ ...part, end: Math.max(part.start, part.end) }));
}

/* The time since which every session is known. */
export function knownSince(sessions, { next, changes_since: since }, now) {
  const oldest = sessions.length ? startOf(sessions[sessions.length - 1]) : now;
  return next || !known(since) ? oldest : Math.min(oldest, Date.parse(since));
}

function ticks(from, now, width) {
  const most = Math.max(2, Math.min(MOST_TICKS, Math.floor(width / PIXELS_PER_TICK)));
  const seconds = (now - from) / 1000;
  const step = 1000 * (ROUND_S.find((size) => seconds / size <= most) ?? seconds / most);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= now; at += step) found.push(at);
  return found;
}

function label(at, from, now) {
  const isMidnight = at % (DAY_S * 1000) === 0;
  if (isMidnight && now - from > DAY_S * 500) return utc(at).slice(5, 10);
  return now - from < 600_000 ? clock(at) : clock(at).slice(0, 5);
}

/* Return the shapes of a time line of some width, and the places of its bars. */
export function draw(parts, { from, now, since, width, selected }) {
  const x = (at) => ((Math.min(now, Math.max(from, at)) - from) / (now - from)) * width;
  const shapes = [shape("rect", { class: "idle", x: 0, y: BAR.top, width, height: BAR.height })];
  if (since > from) shapes.push(shape("rect", { class: "gap", x: 0, y: BAR.top, width: x(since), height: BAR.height }));
  const places = parts.map(({ start, end }) => {
    const wide = Math.max(THINNEST, x(end) - x(start));
    return { left: Math.min(x(start), width - wide), width: wide };
  });
  parts.forEach(({ session }, index) => {
    const { left, width: wide } = places[index];
    const kind = [index === selected ? "selected" : "", known(session.disconnected_at) ? "" : "open"].join(" ");
    const box = { x: left.toFixed(1), y: BAR.top, width: wide.toFixed(1), height: BAR.height };
    shapes.push(shape("rect", { class: `session ${kind}`, ...box }));
    // Where one session follows the other at once, a line divides them.
    if (session.ended_by === "superseded" && wide > 2 * THINNEST) {
      const end = left + wide - 0.5;
      shapes.push(shape("line", { class: "division", x1: end, x2: end, y1: BAR.top, y2: BAR.top + BAR.height }));
    }
  });
  shapes.push(shape("line", { class: "base", x1: 0, x2: width, y1: AXIS, y2: AXIS }));
  for (const at of ticks(from, now, width)) {
    const place = Math.round(x(at));
    shapes.push(shape("line", { class: "base", x1: place, x2: place, y1: AXIS, y2: AXIS + 4 }));
    if (place < 20 || place > width - 44) continue; // no room
    shapes.push(shape("text", { x: place, y: HEIGHT - 3, "text-anchor": "middle" }, label(at, from, now)));
  }
  shapes.push(shape("text", { x: width, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
  return { shapes, places };
}
