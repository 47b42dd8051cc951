/* A list that is read page by page, the newest first, and that newer rows do not disturb. */

import { ask, inWords, parseExactly, Refusal } from "./daemon.js";

export class List {
  /* `name` is the key of the rows in an answer; `keyOf` tells one row from another. */
  constructor(path, name, limit, keyOf) {
    Object.assign(this, { path, name, limit, keyOf, rows: [], next: null, answer: null, failure: null });
  }

  /* Read the newest rows, and keep older ones that are known, unless there may be others in between. */
  async refresh() {
    const answer = await this.read({});
    if (!answer) return;
    const fresh = answer[this.name];
    const last = fresh.length ? this.keyOf(fresh[fresh.length - 1]) : null;
    const place = this.rows.findLastIndex((row) => this.keyOf(row) === last);
    const older = this.rows.slice(place + 1);
    if (place >= 0 && older.length) {
      this.rows = [...fresh, ...older];
    } else {
      this.rows = fresh;
      this.next = answer.next;
    }
  }

  /* Read the rows after the last one. */
  async extend() {
    const answer = await this.read({ before: this.next });
    if (!answer) return;
    this.rows = [...this.rows, ...answer[this.name]];
    this.next = answer.next;
  }

  async read(parameters) {
    try {
      const given = new URLSearchParams({ limit: this.limit, ...parameters });
      [this.answer] = await ask(`${this.path}?${given}`, parseExactly);
      this.failure = null;
      return this.answer;
    } catch (error) {
      const isMissing = error instanceof Refusal && error.code === 404;
      this.failure = isMissing ? null : inWords(error);
      return isMissing ? { [this.name]: [], next: null } : null;
    }
  }
}

/* Let a button read more of a list, and show it. */
export function extendWith(button, list, show) {
  let reading = false; // a disabled button would lose the focus
  button.addEventListener("click", async () => {
    if (reading) return;
    reading = true;
    await list.extend();
    reading = false;
    show();
  });
}

const drawn = new WeakMap();

/* Make the children of a node those of some rows; what did not change stays, so that nothing on the page jumps. */
export function keep(node, rows, keyOf, draw) {
  const before = drawn.get(node) ?? new Map();
  const after = new Map();
  let place = node.firstChild;
  for (const row of rows) {
    const text = JSON.stringify(row);
    let key = keyOf(row);
    while (after.has(key)) key += "+";
    const known = before.get(key);
    const made = known?.text === text ? known : { text, child: draw(row) };
    after.set(key, made);
    if (made.child === place) place = place.nextSibling;
    else node.insertBefore(made.child, place);
  }
  while (place) {
    const following = place.nextSibling;
    place.remove();
    place = following;
  }
  drawn.set(node, after);
}
