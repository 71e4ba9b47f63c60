// The feed: a window on the timeline, at most WINDOW messages long, that slides as one scrolls, so that a hundred
// thousand messages cost no more than a few hundred. What comes in keeps the place of what is being read.

import { get } from "./api.js";
import { amount, byId, el, fragment, toast } from "./dom.js";

const PAGE = 60;
const WINDOW = 240;
const NEAR_PX = 900;
const PINNED_PX = 48;

const before = (one, other) => one.time_us - other.time_us || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);

export class Feed {
  constructor(node, button, onchange) {
    this.node = node;
    this.button = button;
    this.onchange = onchange;
    this.items = [];
    this.known = new Map();
    this.question = { channel: [], sender: "", type: "" };
    this.older = this.newer = false;
    this.unseen = 0;
    this.turn = 0;
    this.loading = false;
    node.addEventListener("scroll", () => this.scrolled(), { passive: true });
    button.addEventListener("click", () => this.newest());
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
    return !this.newer && this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < PINNED_PX;
  }

  // --- loading -------------------------------------------------------------------------------------------------------

  /** Show other messages: channels, sender, type. */
  async ask(question) {
    this.question = { ...this.question, ...question };
    await this.newest();
  }

  async newest() {
    const found = await this.fetch({});
    if (found) this.replace(found.messages, found.older, false, () => this.toBottom());
  }

  /** Show the messages from a time on. */
  async at(time) {
    const found = await this.fetch({ at: time });
    if (!found) return;
    if (!found.messages.length) {
      toast("Nothing was said since then; these are the newest");
      return this.newest();
    }
    this.replace(found.messages, found.older, found.newer, () => (this.node.scrollTop = 0));
  }

  /** Show a message among its neighbours. */
  async around(message) {
    if (!this.known.has(message.id)) {
      const turn = ++this.turn;
      const [above, below] = await Promise.all([
        get("feed", { ...this.question, before: message.id, limit: PAGE / 2 }),
        get("feed", { ...this.question, at: message.timestamp, limit: PAGE / 2 }),
      ]);
      if (turn !== this.turn) return;
      this.replace([...above.messages, ...below.messages], above.older, below.newer, () => {});
    }
    const item = this.known.get(message.id);
    if (!item) return;
    item.node.scrollIntoView({ block: "center" });
    this.mark(item);
    this.scrolled();
  }

  async fetch(parameters) {
    const turn = ++this.turn;
    this.node.setAttribute("aria-busy", "true");
    try {
      const found = await get("feed", { ...this.question, limit: PAGE, ...parameters });
      return turn === this.turn ? found : null;
    } catch (error) {
      toast(error.message, true);
      return null;
    } finally {
      if (turn === this.turn) this.node.setAttribute("aria-busy", "false");
    }
  }

  replace(messages, older, newer, place) {
    this.items = [];
    this.known.clear();
    this.older = older;
    this.newer = newer;
    this.unseen = 0;
    this.node.replaceChildren();
    this.insert(messages);
    this.tidy();
    place();
    this.tellUnseen();
  }

  async scrolled() {
    this.tellUnseen();
    if (this.loading || !this.items.length) return;
    const { scrollTop, scrollHeight, clientHeight } = this.node;
    if (this.older && scrollTop < NEAR_PX) await this.extend("before", this.items[0].message.id);
    else if (this.newer && scrollHeight - scrollTop - clientHeight < NEAR_PX)
      await this.extend("after", this.items.at(-1).message.id);
  }

  async extend(side, id) {
    this.loading = true;
    const turn = this.turn;
    try {
      const found = await get("feed", { ...this.question, limit: PAGE, [side]: id });
      if (turn !== this.turn) return;
      this.keepingPlace(() => {
        this.insert(found.messages);
        if (side === "before") {
          this.older = found.older;
          if (this.items.length > WINDOW) {
            this.drop(this.items.splice(WINDOW));
            this.newer = true;
          }
        } else {
          this.newer = found.newer;
          if (this.items.length > WINDOW) {
            this.drop(this.items.splice(0, this.items.length - WINDOW));
            this.older = true;
          }
        }
      });
    } catch (error) {
      toast(error.message, true);
    } finally {
      this.loading = false;
    }
    if (turn === this.turn) {
      this.tidy();
      requestAnimationFrame(() => this.scrolled());
    }
  }

  // --- what comes in -------------------------------------------------------------------------------------------------

  /** Take in new messages. */
  take(messages) {
    const fresh = messages.filter((message) => this.wants(message) && !this.known.has(message.id));
    if (!fresh.length) return;
    if (this.newer) {
      this.unseen += fresh.length;
      return this.tellUnseen();
    }
    const pinned = this.pinned;
    this.keepingPlace(() => {
      this.insert(fresh);
      if (pinned && this.items.length > WINDOW) {
        this.drop(this.items.splice(0, this.items.length - WINDOW));
        this.older = true;
      }
    });
    if (!pinned) this.unseen += fresh.length;
    this.tidy();
    if (pinned) this.toBottom();
  }

  /** Look again at what is shown: lines were edited, a file was replaced. */
  async reconcile() {
    if (!this.items.length) return this.newest();
    const turn = this.turn;
    const first = this.items[0].message;
    const found = await get("feed", { ...this.question, at: first.timestamp, limit: Math.min(this.items.length + PAGE, 900) });
    if (turn !== this.turn) return;
    const standing = new Map(found.messages.map((message) => [message.id, message]));
    const pinned = this.pinned;
    const last = found.messages.at(-1);
    this.keepingPlace(() => {
      const gone = this.items.filter(
        (item) => !standing.has(item.message.id) || standing.get(item.message.id).html !== item.message.html,
      );
      const within = gone.filter((item) => !found.newer || !last || before(item.message, last) <= 0);
      this.items = this.items.filter((item) => !within.includes(item));
      this.drop(within);
      const shown = this.items.at(-1)?.message;
      this.insert(found.messages.filter((each) => !this.newer || !shown || before(each, shown) < 0 || within.some((item) => item.message.id === each.id)));
    });
    this.tidy();
    if (pinned) this.toBottom();
  }

  // --- the window ----------------------------------------------------------------------------------------------------

  insert(messages) {
    for (const message of messages) {
      if (this.known.has(message.id)) continue;
      const node = fragment(message.html).firstElementChild;
      node.dataset.id = message.id;
      node.tabIndex = -1;
      const item = { message, node };
      let position = this.items.length;
      while (position && before(this.items[position - 1].message, message) > 0) position--;
      this.node.insertBefore(node, this.items[position]?.node ?? null);
      this.items.splice(position, 0, item);
      this.known.set(message.id, item);
    }
  }

  drop(items) {
    for (const { message, node } of items) {
      node.remove();
      this.known.delete(message.id);
    }
  }

  /** Change the window while what is in sight stays where it is. */
  keepingPlace(change) {
    const top = this.node.getBoundingClientRect().top;
    const seen = this.items.filter(({ node }) => node.getBoundingClientRect().bottom > top).slice(0, 12);
    const tops = seen.map(({ node }) => node.getBoundingClientRect().top);
    change();
    const stays = seen.findIndex(({ node }) => node.isConnected);
    if (stays >= 0) this.node.scrollTop += seen[stays].node.getBoundingClientRect().top - tops[stays];
  }

  toBottom() {
    this.node.scrollTop = this.node.scrollHeight;
    this.tellUnseen();
  }

  /** Days, the empty sign, and how many are unseen. */
  tidy() {
    for (const each of this.node.querySelectorAll(".nothing, .edge")) each.remove();
    let day = this.older ? this.items[0]?.message.timestamp.slice(0, 10) : "";
    for (const { message, node } of this.items) {
      const own = message.timestamp.slice(0, 10);
      if (own !== day) node.dataset.day = own;
      else delete node.dataset.day;
      day = own;
    }
    if (!this.items.length) this.node.append(el("p", { class: "nothing" }, "Nothing has been said here yet."));
    else if (!this.older) this.node.prepend(el("p", { class: "edge" }, "The beginning"));
    this.tellUnseen();
    this.onchange(this);
  }

  tellUnseen() {
    if (this.pinned) this.unseen = 0;
    const away = this.newer || this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight > 3 * this.node.clientHeight;
    this.button.hidden = !this.unseen && !away;
    this.button.textContent = this.unseen ? `${amount(this.unseen, "new message")} ↓` : "To the newest ↓";
  }

  // --- the message one is at -----------------------------------------------------------------------------------------

  get current() {
    return this.known.get(this.node.querySelector(".message.current")?.dataset.id) ?? null;
  }

  mark(item, focus = false) {
    this.node.querySelector(".message.current")?.classList.remove("current");
    item.node.classList.add("current");
    if (focus) item.node.focus({ preventScroll: true });
  }

  /** Go to the next message down (1) or up (-1). */
  step(by) {
    const current = this.current;
    let position = current ? this.items.indexOf(current) + by : this.inSight();
    position = Math.max(0, Math.min(position, this.items.length - 1));
    const item = this.items[position];
    if (!item) return;
    this.mark(item, true);
    const long = item.node.clientHeight > this.node.clientHeight;
    item.node.scrollIntoView({ block: long ? "start" : "nearest" });
  }

  inSight() {
    const { top, bottom } = this.node.getBoundingClientRect();
    for (let position = this.items.length - 1; position >= 0; position--) {
      const box = this.items[position].node.getBoundingClientRect();
      if (box.top >= top && box.top < bottom) return position;
    }
    return this.items.length - 1;
  }
}

export const feedOf = (onchange) => new Feed(byId("feed"), byId("newer"), onchange);
