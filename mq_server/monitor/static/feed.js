// The feed: a stretch of the timeline, at most WINDOW messages long, that slides as one scrolls, so that a hundred
// thousand messages cost no more than a few hundred. Where one drags the scrollbar to, a page is loaded there. What
// comes in keeps the place of what is being read.

import { get } from "./api.js";
import { amount, byId, toast } from "./dom.js";
import { Stretch } from "./stretch.js";

const PAGE = 60;
const GLANCE = 30;
const WINDOW = 240;
const MOST = 900;
const NEAR_PX = 900;
const PINNED_PX = 48;
const END_PX = 2;

export class Feed {
  constructor(node, button, onchange) {
    this.node = node;
    this.button = button;
    this.onchange = onchange;
    this.stretch = new Stretch(node);
    this.question = { channel: [], sender: "", type: "" };
    this.unseen = 0;
    this.turn = 0;
    this.loading = this.stale = false;
    this.flights = 0;
    this.heard = [];
    node.addEventListener("scroll", () => this.scrolled(), { passive: true });
    button.addEventListener("click", () => this.newest());
  }

  get known() {
    return this.stretch.known;
  }

  /** Whether a message belongs to what is shown. */
  wants(message) {
    const { channel, sender, type } = this.question;
    return (
      (!channel.length || channel.includes(message.channel) || message.to.some((name) => channel.includes(name))) &&
      (!sender || message.sender === sender) &&
      (!type || message.type === type)
    );
  }

  get pinned() {
    return !this.stretch.newer && this.stretch.left < PINNED_PX;
  }

  // --- loading -------------------------------------------------------------------------------------------------------

  /** Show other messages: channels, sender, type. */
  async ask(question) {
    this.question = { ...this.question, ...question };
    await this.newest();
  }

  async newest() {
    const found = await this.fetch({});
    if (found) this.replace(found, () => this.toBottom());
  }

  /** Show the messages from a time on. */
  async at(time) {
    const found = await this.fetch({ at: time });
    if (!found) return;
    if (!found.messages.length) {
      toast("Nothing was said since then; these are the newest");
      return this.newest();
    }
    this.replace(found, () => this.toTop());
  }

  /** Show a message among its neighbours. */
  async around(message) {
    if (!this.known.has(message.id)) {
      const [above, below] = await Promise.all([
        this.fetch({ before: message.id, limit: PAGE / 2 }, ++this.turn),
        this.fetch({ at: message.timestamp, limit: PAGE / 2 }, this.turn),
      ]);
      if (!above || !below) return;
      const rows = { total: below.rows.total, first: (above.messages.length ? above : below).rows.first, last: below.rows.last };
      this.replace({ messages: [...above.messages, ...below.messages], older: above.older, newer: below.newer, rows }, () => {});
    }
    const item = this.known.get(message.id);
    if (!item) return;
    item.node.scrollIntoView({ block: "center" });
    this.mark(item);
    this.scrolled();
  }

  /** A page; null if it failed, or if by now something else is wanted. */
  async fetch(parameters, turn = ++this.turn) {
    this.node.setAttribute("aria-busy", "true");
    this.flights++;
    try {
      const found = await get("feed", { ...this.question, limit: PAGE, ...parameters });
      return turn === this.turn ? found : null;
    } catch (error) {
      toast(error.message, true);
      return null;
    } finally {
      this.flights--;
      if (turn === this.turn) this.node.setAttribute("aria-busy", "false");
    }
  }

  /** Show a page in place of what is shown, and go to a place in it. */
  replace({ messages, older, newer, rows }, go, rowPx = 0) {
    this.stretch.clear();
    Object.assign(this.stretch, { older, newer, rowPx });
    this.unseen = 0;
    this.stretch.insert(messages, rows);
    this.stretch.tidy();
    go();
    this.hearAgain();
    this.changed();
  }

  async scrolled() {
    this.stretch.note();
    this.tellUnseen();
    const { first, last, older, newer, left } = this.stretch;
    if (this.loading || !first) return;
    const row = this.stretch.missing();
    const top = this.node.getBoundingClientRect().top;
    if (row !== null) await this.load(() => this.seek(left < END_PX ? null : row));
    else if (older && first.node.getBoundingClientRect().top > top - NEAR_PX) await this.load(() => this.extend("before", first.message.id));
    else if (newer && left - this.stretch.below.clientHeight < NEAR_PX) await this.load(() => this.extend("after", last.message.id));
  }

  /** One at a time, since each changes what the next one starts from; then it is looked again where one is by now. */
  async load(work) {
    this.loading = true;
    this.flights++;
    const turn = this.turn;
    try {
      const put = await work().finally(() => this.flights--);
      if (turn === this.turn) put();
    } catch (error) {
      toast(error.message, true);
      return;
    } finally {
      this.loading = false;
    }
    this.hearAgain();
    this.changed();
    requestAnimationFrame(() => (this.stale ? this.reconcile() : this.scrolled()));
  }

  async extend(side, id) {
    const found = await get("feed", { ...this.question, limit: PAGE, [side]: id });
    return () =>
      this.stretch.keepingPlace(() => {
        this.stretch.insert(found.messages, found.rows);
        this.stretch[side === "before" ? "older" : "newer"] = side === "before" ? found.older : found.newer;
        this.stretch.trim(WINDOW, side);
      });
  }

  /** Load what stands at a row that the scrollbar was dragged to; null is the end. */
  async seek(row) {
    const asked = this.node.scrollTop;
    let found = await get("feed", { ...this.question, limit: GLANCE, row });
    if (!found.messages.length) found = await get("feed", { ...this.question, limit: GLANCE, row: (row = null) });
    return () => {
      const { unseen } = this;
      const moved = this.node.scrollTop - asked;
      this.replace(found, () => (row === null ? this.toBottom() : this.toTop(moved)), this.stretch.rowPx);
      if (found.newer) this.unseen = unseen;
    };
  }

  // --- what comes in -------------------------------------------------------------------------------------------------

  /** Take in new messages. With `again`, some of them may have come before, and `reconcile` counts them. */
  take(messages, again = false) {
    const { stretch, pinned } = this;
    const fresh = messages.filter((message) => this.wants(message) && !this.known.has(message.id));
    if (this.flights) this.heard.push(...fresh);
    const near = fresh.filter((message) => !stretch.misses(message));
    const count = again ? near.length : fresh.length;
    if (!count) return;
    stretch.keepingPlace(() => {
      stretch.insert(near);
      stretch.total += count;
      if (pinned) stretch.trim(WINDOW, "after");
    });
    if (pinned) this.toBottom();
    else this.unseen += count;
    this.changed();
  }

  /** A page that was asked for before a message came does not have it: what came meanwhile is taken in once more. */
  hearAgain() {
    if (this.flights || !this.heard.length) return;
    const { heard, unseen } = this;
    this.heard = [];
    this.take(heard, true);
    this.unseen = unseen;
  }

  /** Look again at what is shown: lines were edited, a file was replaced, git has merged. */
  async reconcile() {
    this.stale = this.loading;
    if (this.stale) return;
    if (!this.stretch.first) await this.newest();
    else await this.load(() => this.lookAgain());
  }

  async lookAgain() {
    const { stretch } = this;
    const found = await get("feed", { ...this.question, at: stretch.first.message.timestamp, limit: Math.min(stretch.items.length + PAGE, MOST) });
    const standing = new Map(found.messages.map((message) => [message.id, message]));
    return () => {
      const { pinned } = this;
      stretch.keepingPlace(() => {
        const gone = stretch.items.filter(({ message }) => standing.get(message.id)?.html !== message.html);
        stretch.items = stretch.items.filter((item) => !gone.includes(item));
        stretch.drop(gone);
        stretch.insert(found.messages, found.rows);
        Object.assign(stretch, { older: found.older, newer: found.newer });
        stretch.trim(WINDOW + PAGE, pinned ? "after" : "before");
      });
      if (!stretch.first) this.newest();
      else if (pinned) this.toBottom();
    };
  }

  // --- the place -----------------------------------------------------------------------------------------------------

  toBottom() {
    this.node.scrollTop = this.node.scrollHeight;
    this.stretch.note();
  }

  /** Put the first loaded message at the top, or so far above it. */
  toTop(by = 0) {
    const { first, node } = this.stretch;
    if (first) this.stretch.shift(first.node.getBoundingClientRect().top - node.getBoundingClientRect().top + by);
    if (!this.stretch.older && !by) node.scrollTop = 0;
    this.stretch.note();
  }

  changed() {
    this.tellUnseen();
    this.onchange(this);
  }

  tellUnseen() {
    const day = byId("feed-day");
    day.hidden = this.stretch.left < this.node.clientHeight || !this.stretch.seen;
    if (!day.hidden) day.textContent = `${this.stretch.seen.message.timestamp.slice(0, 16).replace("T", " ")} UTC`;
    if (this.pinned) this.unseen = 0;
    const away = this.stretch.newer || this.stretch.left > 3 * this.node.clientHeight;
    this.button.hidden = !this.unseen && !away;
    this.button.textContent = this.unseen ? `${amount(this.unseen, "new message")} ↓` : "To the newest ↓";
  }

  // --- the message one is at -----------------------------------------------------------------------------------------

  get current() {
    return this.known.get(this.node.querySelector(".message.current")?.dataset.id) ?? null;
  }

  mark(item, focus = false) {
    const old = this.current?.node;
    old?.classList.remove("current");
    old?.removeAttribute("aria-current");
    if (old) old.tabIndex = -1;
    item.node.classList.add("current");
    item.node.setAttribute("aria-current", "true");
    item.node.tabIndex = 0;
    if (focus) item.node.focus({ preventScroll: true });
  }

  /** Come back to where one was. */
  focus() {
    (this.current?.node ?? this.node).focus({ preventScroll: true });
  }

  /** Go to the next message down (1) or up (-1). */
  step(by) {
    const { items } = this.stretch;
    const current = this.current;
    let position = current ? items.indexOf(current) + by : this.lastInSight();
    position = Math.max(0, Math.min(position, items.length - 1));
    const item = items[position];
    if (!item) return;
    this.mark(item, true);
    const long = item.node.clientHeight > this.node.clientHeight;
    item.node.scrollIntoView({ block: long ? "start" : "nearest" });
  }

  lastInSight() {
    const { top, bottom } = this.node.getBoundingClientRect();
    const boxes = this.stretch.items.map(({ node }) => node.getBoundingClientRect());
    const position = boxes.findLastIndex((box) => box.top >= top && box.top < bottom);
    return position < 0 ? boxes.length - 1 : position;
  }
}

export const feedOf = (onchange) => new Feed(byId("feed"), byId("newer"), onchange);
