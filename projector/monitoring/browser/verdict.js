/* The verdict on the daemon: one word, why, and the problems. */

import { report } from "./daemon.js";
import { byId, element, renew, say } from "./dom.js";
import { areSeveral, withoutLeader } from "./shards.js";
import { ago, clock, counted, duration, known, now, plain, rate } from "./text.js";

const TREND_S = 30;
const FRESH_S = 15;

const LEVELS = {
  ok: { sign: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M8 12.5l2.8 2.8L16 9.5", colour: "#17784a" },
  busy: { sign: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 7.5V12l3 2", colour: "#2458b8" },
  attention: { sign: "M12 4L2.8 20h18.4zM12 10v4.5M12 17.2v.1", colour: "#b87a08" },
  bad: { sign: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M9 9l6 6M15 9l-6 6", colour: "#bb271a" },
  quiet: { sign: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M10 9v6M14 9v6", colour: "#59626f" },
};

function trend() {
  const recent = report.points.filter(([at, , lag]) => known(lag) && at >= now() / 1000 - TREND_S);
  if (recent.length < 3) return null;
  const [first, last] = [recent[0], recent[recent.length - 1]];
  return (last[2] - first[2]) / (last[0] - first[0]);
}

function behind() {
  const { lag_messages: messages, lag_seconds: seconds } = report.status;
  if (!known(messages) && !known(seconds)) return "The lag is unknown.";
  if (!messages && !seconds) return `The table was up to date ${ago(Date.parse(report.status.sampled_at))}.`;
  const parts = [];
  if (known(seconds)) parts.push(`The table is ${duration(seconds)} behind the stream`);
  if (known(messages)) parts.push(`${counted(messages, "message")} to fold`);
  return `${parts.join(", ")}.`;
}

function outlook(slope) {
  if (slope === null) return "";
  if (slope === 0) return " The lag is not shrinking.";
  if (slope > 0) return ` Each second, ${rate(slope)} more arrive than are folded.`;
  return ` About ${duration(Math.max(1, Math.round(report.status.lag_messages / -slope)))} to go.`;
}

const isOld = () => report.status.sample_error !== null || now() - sampledAt() > FRESH_S * 1000;
const isStale = () => report.failure !== null || isOld();
const sampledAt = () => Date.parse(report.status.sampled_at ?? new Date(report.answeredAt).toISOString());
const age = () => duration(Math.round((now() - sampledAt()) / 1000));

function judge() {
  if (report.failure) return judgeSilence();
  if (!report.status) return { level: "quiet", word: "Loading …", lede: "", problems: [] };
  const { daemon, problems } = report.status;
  const verdict = (level, word, lede) => ({ level, word, lede, problems });
  const old = isStale() ? `The figures below are ${age()} old.` : "";

  if (daemon.state === "stopped") return verdict("bad", "Stopped", "The daemon has stopped.");
  if (!daemon.healthy) {
    return verdict("bad", "Stuck", "Nothing is folded. If this lasts, restart the daemon.");
  }
  if (daemon.state === "retrying") {
    return verdict("bad", "Interrupted", `The daemon retries, and loses nothing. ${old}`.trim());
  }
  if (daemon.state === "starting" || !known(report.status.sampled_at)) return verdict("busy", "Starting", behind());
  if (daemon.state === "standby") {
    const others = areSeveral()
      ? "Other projectors lead; this one takes over if one"
      : "Another projector leads; this one takes over if it";
    const lede = `${others} stops. ${old || behind()}`;
    return verdict(problems.length ? "attention" : "quiet", "Standing by", lede);
  }
  if (isStale()) return verdict("attention", "Unknown", old);
  if (withoutLeader().length) return verdict("attention", "Needs attention", behind());
  if (!daemon.ready) {
    const slope = trend();
    const [level, word] = slope === null || slope < 0 ? ["busy", "Catching up"] : ["attention", "Falling behind"];
    return verdict(level, word, behind() + outlook(slope));
  }
  return problems.length ? verdict("attention", "Needs attention", behind()) : verdict("ok", "Healthy", behind());
}

function judgeSilence() {
  const { failure } = report;
  const verdict = (lede, problem) => ({ level: "bad", word: "No answer", lede, problems: [`${problem}: ${failure}`] });
  return report.status
    ? verdict(
        `The figures below are ${age()} old; newer ones are not available.`,
        `The daemon has not answered since ${clock(report.answeredAt)} UTC`,
      )
    : verdict("There are no figures yet.", "The daemon does not answer");
}

/* Read out when the text changes, but not when only a number in it does. */
let announced = "";

function announce(text) {
  const gist = text.replace(/\d+/g, "");
  if (gist === announced) return;
  announced = gist;
  say(byId("announcement"), text);
}

export function showVerdict() {
  const { level, word, lede, problems } = judge();
  byId("verdict").dataset.level = level;
  byId("main").toggleAttribute("data-stale", Boolean(report.status && isStale()));
  byId("sign").setAttribute("d", LEVELS[level].sign);
  say(byId("word"), word);
  say(byId("lede"), lede);
  byId("problems").hidden = !problems.length;
  renew(byId("problems"), problems, (texts) => texts.map((text) => element("li", {}, plain(text))));
  announce([word, ...problems.map(plain)].join(". "));
  say(byId("updated"), report.answeredAt === null ? "" : `answered ${ago(report.answeredAt)}`);
  const title = report.status ? `${word} · ${plain(report.status.stream)}` : "Projector";
  if (document.title !== title) document.title = title;
  const dot = `<circle cx="8" cy="8" r="6" fill="${LEVELS[level].colour}"/>`;
  const picture = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">${dot}</svg>`;
  const icon = `data:image/svg+xml,${encodeURIComponent(picture)}`;
  if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
}
