// A conversation as a tree, the chosen message in full with its delivery ladder.

import { get, post, session } from "./api.js";
import { agent, amount, clock, copier, el, fragment, keepingFocus, toast, when } from "./dom.js";

const FINAL = new Set(["acked", "rejected", "passed", "expired"]);
const NEW = 60;
const MOST = 1000;
const RUNGS = ["stored", "fetched", "acked"];

export class Thread {
  constructor(act) {
    this.title = "Thread";
    this.node = el("section", {});
    this.act = act;
    this.id = null;
    this.messages = [];
    this.drawn = "";
    this.turn = 0;
    this.hint();
  }

  hint() {
    this.node.replaceChildren(
      el("p", { class: "hint" }, "Choose a message to see its whole conversation, and how far it has come. ", el("kbd", {}, "j"), " ", el("kbd", {}, "k"), " move, ", el("kbd", {}, "t"), " opens."),
    );
  }

  async open(id) {
    if (id) this.id = id;
    await this.refresh();
  }

  /** Look again at what is shown: the part around the message, or all that was loaded of its thread. */
  async refresh() {
    if (!this.id) return;
    const turn = ++this.turn;
    const { messages } = this;
    const part = messages.some((message) => message.id === this.id) ? { start: messages[0].id, limit: Math.min(messages.length + NEW, MOST) } : {};
    try {
      const [thread, status] = await Promise.all([get("thread", { id: this.id, ...part }), get("status", { id: this.id })]);
      if (turn !== this.turn) return;
      const drawn = JSON.stringify([thread, status]);
      if (drawn === this.drawn) return;
      this.drawn = drawn;
      this.messages = thread.messages;
      const same = this.thread?.chosen.id === thread.chosen.id;
      keepingFocus(this.node, () => this.draw(thread, status, same));
    } catch (error) {
      if (turn === this.turn) this.node.replaceChildren(el("p", { class: "hint bad" }, error.message));
      [this.messages, this.drawn] = [[], ""];
    }
  }

  /** Load what comes before or after the messages that are shown. */
  async more(side) {
    const turn = ++this.turn;
    const { messages, thread } = this;
    try {
      const found = await get("thread", { id: this.id, ...(side === "earlier" ? { before: messages[0].id } : { start: messages.at(-1).id }) });
      if (turn !== this.turn) return;
      const known = new Set(messages.map((message) => message.id));
      const fresh = found.messages.filter((message) => !known.has(message.id));
      this.messages = side === "earlier" ? [...fresh, ...messages] : [...messages, ...fresh];
      const end = this.node.scrollHeight - this.node.scrollTop;
      this.draw({ ...thread, total: found.total, [side]: found[side] }, this.status, true);
      if (side === "earlier") this.node.scrollTop = this.node.scrollHeight - end;
      (this.node.querySelector(`.${side}`) ?? this.node.querySelector(".chosen .copy"))?.focus({ preventScroll: true });
    } catch (error) {
      toast(error.message, true);
    }
  }

  draw(thread, status, keeping = false) {
    [this.thread, this.status] = [thread, status];
    const top = this.node.scrollTop;
    const others = thread.channels.length > 1 ? ` in ${amount(thread.channels.length, "mailbox").replace(/xs$/, "xes")}` : "";
    const root = el("ol", { class: "tree", "aria-label": "Thread" });
    // The lists above, each with its depth: of a part of a thread, the ancestors may not be loaded.
    const path = [{ depth: -1, list: root }];
    for (const message of this.messages) {
      while (path.at(-1).depth >= message.depth) path.pop();
      const below = el("ol", {});
      const chosen = message.id === thread.chosen.id;
      path.at(-1).list.append(el("li", chosen ? { "aria-current": "true" } : {}, chosen ? this.full(thread.chosen, status) : this.row(message), below));
      path.push({ depth: message.depth, list: below });
    }
    for (const list of root.querySelectorAll("ol")) if (!list.children.length) list.remove();
    const rest = (side) => (thread[side] ? el("button", { type: "button", class: `more ${side}`, onclick: () => this.more(side) }, `${amount(thread[side], `${side} message`)}`) : "");
    this.node.replaceChildren(
      el("header", { class: "panel-head" }, el("p", {}, `${amount(thread.total, "message")}${others}`)),
      thread.missing_parent ? el("p", { class: "hint" }, `It answers ${thread.missing_parent}, which stands in no mailbox.`) : "",
      rest("earlier"),
      root,
      rest("later"),
    );
    this.node.scrollTop = top;
    if (!keeping) this.node.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }

  row(message) {
    return el(
      "button",
      { type: "button", class: `row hue-${message.hue}`, onclick: () => this.act.thread(message.id), title: `${message.ref} · ${when(message.timestamp)}` },
      el("span", { class: "avatar small", "aria-hidden": "true" }, message.initials),
      el("span", { class: "row-text" }, el("bdi", { class: "agent" }, message.by), " ", el("span", { class: "type" }, message.type), el("span", { class: "gist" }, message.gist)),
      el("span", { class: "faint" }, clock(message.timestamp)),
    );
  }

  full(message, status) {
    const article = fragment(message.html).firstElementChild;
    article.removeAttribute("id");
    article.dataset.id = message.id;
    const place = message.ref.split("~")[0];
    const actions = el(
      "div",
      { class: "actions" },
      copier(place),
      el("button", { type: "button", onclick: () => this.act.show(message) }, "Show in feed"),
      session.read_only ? null : el("button", { type: "button", class: "reply", onclick: () => this.act.reply(message) }, "Reply"),
    );
    return el("div", { class: "chosen" }, article, actions, this.ladder(message, status));
  }

  ladder(message, status) {
    const rows = status.progress.map((each) => this.steps(message, each));
    return el("section", { class: "ladder", "aria-label": "Delivery" }, el("h3", {}, "Delivery"), ...rows);
  }

  steps(message, progress) {
    const { reader, channel, state, steps, waiting, left_s: left, deliveries } = progress;
    const done = [{ did: "stored", timestamp: message.timestamp, by: "" }, ...steps];
    const names = new Set(done.map((step) => step.did));
    if (!names.has(state) && !RUNGS.includes(state)) done.push({ did: state, timestamp: "", by: "" });
    const ahead = FINAL.has(state) ? [] : RUNGS.filter((rung) => !names.has(rung) && !(rung === "fetched" && names.has("claimed")));
    const who = el("p", { class: "reader" }, agent({ by: reader, hue: progress.hue, initials: "" }, true), reader === channel ? null : el("span", { class: "faint" }, ` in ${channel}`), waiting ? el("span", { class: "waiting", title: "waiting for a message" }) : null);
    const rungs = el(
      "ol",
      { class: "rungs" },
      done.map((step) =>
        el("li", { class: step.did === "rejected" ? "done bad" : "done" }, el("span", { class: "did" }, step.did), step.timestamp ? el("time", { datetime: step.timestamp, title: step.timestamp }, clock(step.timestamp)) : null, step.by && step.by !== reader ? el("span", { class: "faint" }, ` by ${step.by}`) : null, step.reason ? el("span", { class: "faint" }, ` ${step.reason}`) : null),
      ),
      ahead.map((rung) => el("li", { class: "ahead" }, el("span", { class: "did" }, `not ${rung}`))),
    );
    const more = [deliveries > 1 && `${deliveries} deliveries`, left && `${Math.round(left)} s left`].filter(Boolean).join(", ");
    const mine = reader === this.act.me() && !FINAL.has(state) && !session.read_only;
    const mark = mine ? el("button", { type: "button", class: "mark-read", onclick: () => this.read(channel, message.id) }, "Mark as read") : null;
    return el("div", { class: "delivery" }, who, rungs, more ? el("p", { class: "faint" }, more) : null, mark);
  }

  async read(channel, id) {
    try {
      await post("read", { channel, reader: this.act.me(), ids: [id] });
      await this.refresh();
    } catch (error) {
      toast(error.message, true);
    }
  }
}
