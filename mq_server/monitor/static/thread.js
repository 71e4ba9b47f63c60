// A conversation as a tree, the chosen message in full with its delivery ladder.

import { get, post, session } from "./api.js";
import { agent, amount, clock, copier, el, fragment, toast, when } from "./dom.js";

const FINAL = new Set(["acked", "rejected", "passed", "expired"]);
const RUNGS = ["stored", "fetched", "acked"];

export class Thread {
  constructor(act) {
    this.title = "Thread";
    this.node = el("section", {});
    this.act = act;
    this.id = null;
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

  async refresh() {
    if (!this.id) return;
    const turn = ++this.turn;
    try {
      const [thread, status] = await Promise.all([get("thread", { id: this.id }), get("status", { id: this.id })]);
      if (turn === this.turn) this.draw(thread, status);
    } catch (error) {
      if (turn === this.turn) this.node.replaceChildren(el("p", { class: "hint bad" }, error.message));
    }
  }

  draw(thread, status) {
    const top = this.node.scrollTop;
    const others = thread.channels.length > 1 ? ` in ${amount(thread.channels.length, "mailbox").replace(/xs$/, "xes")}` : "";
    const root = el("ol", { class: "tree" });
    const path = [root];
    for (const message of thread.messages) {
      const depth = Math.min(message.depth, path.length - 1);
      path.length = depth + 1;
      const below = el("ol", {});
      const chosen = message.id === status.message.id || message.id === this.id;
      path[depth].append(el("li", {}, chosen ? this.full(message, status) : this.row(message), below));
      path.push(below);
    }
    for (const list of root.querySelectorAll("ol")) if (!list.children.length) list.remove();
    this.node.replaceChildren(
      el("header", { class: "panel-head" }, el("p", {}, `${amount(thread.total, "message")}${others}`)),
      thread.missing_parent ? el("p", { class: "hint" }, `It answers ${thread.missing_parent}, which stands in no mailbox.`) : "",
      thread.remaining ? el("p", { class: "hint" }, `${amount(thread.remaining, "earlier message")} left out.`) : "",
      root,
    );
    this.node.scrollTop = top;
    this.node.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
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
