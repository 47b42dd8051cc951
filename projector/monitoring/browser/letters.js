/* The dead letters whose payload names the endpoint. */

import { byId, element, headings, say, when } from "./dom.js";
import { extendWith, keep, List } from "./list.js";
import { count, counted, plain } from "./text.js";

const LIMIT = 20;
const keyOf = ({ position }) => `${position}`;

export class Letters extends List {
  constructor(path) {
    super(path, "dead_letters", LIMIT, keyOf);
    extendWith(byId("older-letters"), this, () => this.show());
    this.searched = 0;
  }

  async refresh() {
    await super.refresh();
    this.searched = Math.max(this.searched, this.answer?.searched ?? 0);
  }

  async extend() {
    await super.extend();
    if (!this.failure) this.searched += this.answer.searched ?? 0;
  }

  show() {
    const { answer, failure, rows, next, searched } = this;
    byId("letters").hidden = !answer && !failure;
    byId("older-letters").hidden = !next;
    const bounds = next ? `searched the newest ${counted(searched, "dead letter")}` : "";
    say(byId("letters-note"), failure ? `The dead letters cannot be read: ${failure}` : bounds);
    if (!rows.length) {
      byId("letter-rows").replaceChildren(element("p", { class: "empty" }, next ? "None among these." : "None."));
      this.body = null;
      return;
    }
    if (!this.body) {
      this.body = element("tbody");
      const command = element("code", {}, "projector dead-letters show <POSITION>");
      byId("letter-rows").replaceChildren(
        element("table", { class: "rows" },
          headings("parked", "position", "state", "reason", "detail", "subject"), this.body),
        element("p", { class: "note" }, "To inspect one: ", command));
    }
    keep(this.body, rows, keyOf, draw);
  }
}

function draw({ parked_at: parkedAt, position, state, reason, detail, subject, note }) {
  const closed = note ? `${state}: ${plain(note)}` : state;
  return element("tr", {},
    element("td", { class: "when" }, when(parkedAt)),
    element("th", { scope: "row" }, count(position)),
    element("td", { class: "reason" }, closed),
    element("td", { class: "reason" }, plain(reason)),
    element("td", { class: "text" }, element("bdi", {}, plain(detail))),
    element("td", { class: "text" }, element("code", {}, element("bdi", {}, plain(subject)))));
}
