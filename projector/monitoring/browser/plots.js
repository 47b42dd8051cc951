/* The last minutes of the daemon, as charts and as a table. */

import { report } from "./daemon.js";
import { byId, element, headings, renew, say, shape } from "./dom.js";
import { clock, compact, count, counted, duration, known, now, rate } from "./text.js";

export const WINDOW_S = 15 * 60;
const LEAST_TOP = 10;
const ROUND_S = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14_400, 28_800, 86_400];

let cursor = null;

/* In the unit of the step, so that a scale reads 20 min, 40 min, 60 min. */
function roundDuration(seconds, step) {
  const [size, name] = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]].find(([unit]) => step >= unit);
  return `${count(seconds / size)} ${name}`;
}

const short = { tick: compact.format, steps: [] };
const PLOTS = [
  { id: "rate", column: 1, figure: (status) => status.daemon.events_per_second, format: rate, ...short },
  { id: "messages", column: 2, figure: (status) => status.lag_messages, format: count, ...short },
  {
    id: "seconds",
    column: 3,
    figure: (status) => status.lag_seconds,
    format: duration,
    tick: roundDuration,
    steps: ROUND_S,
  },
];
const MARGIN = { top: 6, right: 6, bottom: 20, left: 46 };

/* The scale: at most four steps of a round size. */
function scale(largest, steps) {
  const reach = Math.max(largest, LEAST_TOP);
  const power = 10 ** Math.floor(Math.log10(reach / 4));
  const step = [...steps, power, 2 * power, 5 * power, 10 * power].find((size) => size >= reach / 4);
  return { step, top: Math.ceil(reach / step) * step };
}

/* Where the figure is known: runs of points without a gap, and the gaps between and after them. */
function runs(column, end) {
  const found = [];
  const gaps = [];
  let previous = null;
  for (const point of report.points) {
    if (!known(point[column])) continue;
    if (previous === null || point[0] - previous[0] > 2.5 * report.everyS) {
      if (previous !== null) gaps.push([previous[0], point[0]]);
      found.push([]);
    }
    found[found.length - 1].push(point);
    previous = point;
  }
  if (previous !== null && end - previous[0] > 4 * report.everyS) gaps.push([previous[0], end]);
  return { found, gaps };
}

function drawPlot(plot, end) {
  const figure = byId(plot.id);
  const svg = figure.querySelector("svg");
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  if (!width) return [];
  const { column, format } = plot;
  const figures = report.points.filter((point) => known(point[column]));
  const highest = figures.reduce((best, point) => (best === null || point[column] > best[column] ? point : best), null);
  const last = figures[figures.length - 1] ?? null;
  const { step, top } = scale(highest ? highest[column] : 0, plot.steps);
  const x = (at) => MARGIN.left + (Math.max(0, at - end + WINDOW_S) / WINDOW_S) * (width - MARGIN.left - MARGIN.right);
  const base = height - MARGIN.bottom;
  const y = (value) => base - (value / top) * (base - MARGIN.top);
  const parts = [];

  const { found, gaps } = runs(column, end);
  for (const [from, to] of gaps) {
    const box = { x: x(from), y: MARGIN.top, width: x(to) - x(from), height: base - MARGIN.top };
    parts.push(shape("rect", { class: "gap", ...box }));
  }
  for (let value = 0; value <= top; value += step) {
    const level = Math.round(y(value));
    const ends = { x1: MARGIN.left, x2: width - MARGIN.right, y1: level, y2: level };
    const label = value ? plot.tick(value, step) : "0";
    parts.push(shape("line", { class: value ? "grid" : "base", ...ends }));
    parts.push(shape("text", { x: MARGIN.left - 7, y: level + 4, "text-anchor": "end" }, label));
  }
  for (const [minutes, anchor, shift] of [[15, "start", -4], [10, "middle", 0], [5, "middle", 0], [0, "end", 4]]) {
    const at = Math.round(x(end - minutes * 60));
    const label = minutes ? `−${minutes} min` : "now";
    parts.push(shape("line", { class: "base", x1: at, x2: at, y1: base, y2: base + 4 }));
    parts.push(shape("text", { x: at + shift, y: height - 3, "text-anchor": anchor }, label));
  }
  for (const run of found) {
    const line = run.map((point) => `${x(point[0]).toFixed(1)} ${y(point[column]).toFixed(1)}`).join("L");
    const ends = [x(run[0][0]), x(run[run.length - 1][0])].map((at) => at.toFixed(1));
    parts.push(shape("path", { class: "area", d: `M${ends[0]} ${base}L${line}L${ends[1]} ${base}Z` }));
    parts.push(shape("path", { class: "curve", d: `M${line}${run.length === 1 ? "h0" : ""}` }));
  }
  const marked = cursor === null ? last : figures.find((point) => point[0] === cursor) ?? null;
  if (cursor !== null) {
    const at = Math.round(x(cursor));
    parts.push(shape("line", { class: "cursor", x1: at, x2: at, y1: MARGIN.top, y2: base }));
  }
  if (marked) parts.push(shape("circle", { class: "dot", cx: x(marked[0]), cy: y(marked[column]), r: 3.5 }));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...parts);

  const current = report.status && plot.figure(report.status);
  say(figure.querySelector("figcaption p"), format(cursor === null ? current : marked && marked[column]));
  const peak = highest ? `highest ${format(highest[column])} at ${clock(highest[0] * 1000)}` : "no figures yet";
  say(figure.querySelector(".note"), cursor === null ? peak : `at ${clock(cursor * 1000)}`);
  const title = figure.querySelector("h2").textContent;
  const present = known(current) ? format(current) : "unknown";
  svg.setAttribute("aria-label", `${title} over the last 15 minutes: now ${present}, ${peak}.`);
  return gaps;
}

export function showPlots() {
  const end = now() / 1000;
  const gaps = PLOTS.flatMap((plot) => drawPlot(plot, end));
  byId("key").hidden = !gaps.length;
}

function moment(point) {
  const [at, perSecond, messages, seconds] = point;
  const lag = `lag ${counted(messages, "message")}, ${duration(seconds)}`;
  return `${clock(at * 1000)}: ${rate(perSecond)} events per second, ${lag}`;
}

function moveCursor(at) {
  cursor = at;
  showPlots();
}

export function showMinutes() {
  if (!byId("minutes").closest("details").open) return;
  const minutes = new Map();
  for (const point of report.points) {
    const minute = Math.floor(point[0] / 60);
    minutes.set(minute, [...(minutes.get(minute) ?? []), point]);
  }
  const column = (rows, index) => rows.map((row) => row[index]).filter(known);
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
  const highest = (values) => (values.length ? Math.max(...values) : null);
  const rows = [...minutes].reverse().map(([minute, all]) => [
    clock(minute * 60_000).slice(0, 5),
    rate(mean(column(all, 1))),
    count(highest(column(all, 2))),
    duration(highest(column(all, 3))),
  ]);
  renew(byId("minutes"), rows, () => [
    element("caption", {}, "In each minute: the mean of the rate, and the highest lag."),
    headings("minute", "events per second", "lag in messages", "lag in time"),
    element("tbody", {}, ...rows.map(([minute, ...figures]) => element("tr", {},
      element("th", { scope: "row" }, minute),
      ...figures.map((figure) => element("td", { class: "number" }, figure))))),
  ]);
}

const plots = byId("plots");

plots.addEventListener("pointermove", (event) => {
  const svg = event.target.closest("svg");
  if (!svg || !report.points.length) return moveCursor(null);
  const box = svg.getBoundingClientRect();
  const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
  const at = now() / 1000 - WINDOW_S * (1 - share);
  const times = report.points.map(([time]) => time);
  moveCursor(times.reduce((best, time) => (Math.abs(time - at) < Math.abs(best - at) ? time : best)));
});
plots.addEventListener("pointerleave", () => moveCursor(null));
plots.addEventListener("blur", () => moveCursor(null));
plots.addEventListener("keydown", (event) => {
  const last = report.points.length - 1;
  const here = cursor === null ? last + 1 : report.points.findIndex(([at]) => at === cursor);
  const target = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
  if (event.target !== plots || last < 0) return;
  if (event.key === "Escape") {
    moveCursor(null);
  } else if (target !== undefined) {
    event.preventDefault();
    const point = report.points[Math.min(last, Math.max(0, target))];
    moveCursor(point[0]);
    say(byId("reading"), moment(point));
  }
});
byId("minutes").closest("details").addEventListener("toggle", showMinutes);
new ResizeObserver(showPlots).observe(plots);
