// The messages that stand in the page: a stretch of the timeline, between two gaps that are as tall as what isn't
// loaded is likely to be. So the scrollbar spans everything, and what is loaded stays small.
//
// Rows say where a message is in the whole: how many stand before it in the chosen channels, as the server counts.
// Between the first and the last of a page they are reckoned; only the height of the gaps hangs on them.

import { el, fragment } from "./dom.js";

const MOST_PX = 4_000_000; // browsers scroll in single precision: here to a quarter of a pixel; beyond, gaps are drawn lower
const SEEN = 12;

export const before = (one, other) => one.time_us - other.time_us || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);

export class Stretch {
  constructor(node) {
    this.node = node;
    this.above = el("div", { class: "gap", "aria-hidden": "true" });
    this.below = el("div", { class: "gap", "aria-hidden": "true" });
    this.items = [];
    this.known = new Map();
    this.older = this.newer = false;
    this.total = 0;
    this.rowPx = 0;
    node.replaceChildren(this.above, this.below);
    new ResizeObserver(() => this.resized()).observe(node);
  }

  get first() {
    return this.items[0];
  }

  get last() {
    return this.items.at(-1);
  }

  /** How far the end is below what is in sight, in pixels. */
  get left() {
    return this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight;
  }

  // --- what stands in it ---------------------------------------------------------------------------------------------

  clear() {
    this.drop(this.items.splice(0));
    this.older = this.newer = false;
    this.total = this.rowPx = 0;
  }

  /** Put messages where they belong. `rows` has the total, and the rows of the first and the last of them. */
  insert(messages, rows = null) {
    const each = rows && messages.length > 1 ? (rows.last - rows.first) / (messages.length - 1) : 0;
    for (const [number, message] of messages.entries()) {
      const row = rows && rows.first + Math.round(number * each);
      const known = this.known.get(message.id);
      if (known) {
        known.row = row ?? known.row;
        continue;
      }
      const node = fragment(message.html).firstElementChild;
      node.dataset.id = message.id;
      node.tabIndex = -1;
      let position = this.items.length;
      while (position && before(this.items[position - 1].message, message) > 0) position--;
      const item = { message, node, row: row ?? (position ? this.items[position - 1].row + 1 : 0) };
      this.node.insertBefore(node, this.items[position]?.node ?? this.below);
      this.items.splice(position, 0, item);
      this.known.set(message.id, item);
    }
    if (rows) this.total = rows.total;
  }

  /** Whether a message stands where nothing is loaded. */
  misses(message) {
    return (this.older && before(message, this.first.message) < 0) || (this.newer && before(message, this.last.message) > 0);
  }

  drop(items) {
    for (const { message, node } of items) {
      node.remove();
      this.known.delete(message.id);
    }
  }

  /** Keep so many, and let go of those at the other end of "before" or "after". */
  trim(most, side) {
    if (this.items.length <= most) return;
    if (side === "before") {
      this.drop(this.items.splice(most));
      this.newer = true;
    } else {
      this.drop(this.items.splice(0, this.items.length - most));
      this.older = true;
    }
  }

  // --- how it looks --------------------------------------------------------------------------------------------------

  /** Days, the ends, the gaps. Whatever has changed, this comes last, before the place is looked at again. */
  tidy() {
    for (const each of this.node.querySelectorAll(":scope > :is(.nothing, .edge)")) each.remove();
    let day = this.older ? this.first?.message.timestamp.slice(0, 10) : "";
    for (const { message, node, row } of this.items) {
      const own = message.timestamp.slice(0, 10);
      if (own !== day) node.dataset.day = own;
      else delete node.dataset.day;
      day = own;
      node.setAttribute("aria-posinset", row + 1);
      node.setAttribute("aria-setsize", Math.max(this.total, row + 1));
    }
    if (!this.items.length) this.below.before(el("p", { class: "nothing" }, "Nothing has been said here yet."));
    else if (!this.older) this.above.after(el("p", { class: "edge" }, "The beginning"));
    if (!this.rowPx && this.items.length) {
      const height = this.last.node.getBoundingClientRect().bottom - this.first.node.getBoundingClientRect().top;
      this.rowPx = Math.min(height / (this.last.row - this.first.row + 1), MOST_PX / Math.max(this.total, 1));
    }
    this.above.style.height = `${this.older ? Math.max(this.first.row, 1) * this.rowPx : 0}px`;
    this.below.style.height = `${this.newer ? Math.max(this.total - 1 - this.last.row, 1) * this.rowPx : 0}px`;
  }

  /** Change the stretch while what is in sight stays where it is. */
  keepingPlace(change) {
    const top = this.node.getBoundingClientRect().top;
    const seen = this.items.filter(({ node }) => node.getBoundingClientRect().bottom > top).slice(0, SEEN);
    const tops = seen.map(({ node }) => node.getBoundingClientRect().top);
    change();
    this.tidy();
    const stays = seen.findIndex(({ node }) => node.isConnected);
    if (stays >= 0) this.shift(seen[stays].node.getBoundingClientRect().top - tops[stays]);
    this.note();
  }

  shift(by) {
    if (by) this.node.scrollTop += by;
  }

  /** Remember what is in sight, for when the page is laid out anew: turned, resized, with another font. */
  note() {
    this.atEnd = !this.newer && this.left < 48;
    this.seen = this.inSight();
    this.seenTop = this.seen?.node.getBoundingClientRect().top ?? 0;
  }

  resized() {
    if (!this.node.clientHeight) return;
    if (this.atEnd) this.node.scrollTop = this.node.scrollHeight;
    else if (this.seen?.node.isConnected) this.shift(this.seen.node.getBoundingClientRect().top - this.seenTop);
    this.note();
  }

  /** The first message whose end is in sight. */
  inSight() {
    const { top } = this.node.getBoundingClientRect();
    let [low, high] = [0, this.items.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.items[middle].node.getBoundingClientRect().bottom > top) high = middle;
      else low = middle + 1;
    }
    return this.items[low];
  }

  /** The row that one has scrolled to where nothing is loaded; null while something loaded is in sight. */
  missing() {
    const { top, bottom } = this.node.getBoundingClientRect();
    if (this.older && this.first.node.getBoundingClientRect().top >= bottom) return Math.floor(this.node.scrollTop / this.rowPx);
    const end = this.last.node.getBoundingClientRect().bottom;
    if (!this.newer || end > top) return null;
    return Math.min(this.last.row + 1 + Math.floor((top - end) / this.rowPx), this.total - 1);
  }
}
