// What is wrong and what to do about it: damaged lines, vanished messages, dead letters, a watcher that doesn't look.

import { get } from "./api.js";
import { amount, byId, copier, el } from "./dom.js";

const STALLED_S = 15;

export class Problems {
  constructor(act) {
    this.title = "Problems";
    this.node = el("section", {});
    this.act = act;
  }

  open() {
    return this.refresh();
  }

  async refresh() {
    let found;
    try {
      found = await get("problems");
    } catch (error) {
      this.node.replaceChildren(el("p", { class: "hint bad" }, error.message));
      return;
    }
    const stalled = found.looked_s !== null && found.looked_s > STALLED_S;
    const count = found.damaged.length + found.vanished.length + found.dead_letters.unread + (stalled ? 1 : 0);
    this.tab.replaceChildren(this.title, ...(count ? [el("span", { class: "unread bad" }, String(count))] : []));
    const alarm = byId("alarm");
    const said = [
      found.damaged.length && amount(found.damaged.length, "damaged line"),
      found.vanished.length && amount(found.vanished.length, "vanished message"),
      found.dead_letters.unread && amount(found.dead_letters.unread, "dead letter"),
      stalled && "the watcher has stalled",
    ].filter(Boolean);
    alarm.hidden = !said.length;
    const words = said.join(", ");
    if (alarm.dataset.said !== words) {
      alarm.dataset.said = words;
      alarm.replaceChildren(words ? `${words[0].toUpperCase()}${words.slice(1)}. ` : "", el("button", { type: "button", class: "link", onclick: () => this.act.problems() }, "What to do"));
    }
    this.draw(found, stalled);
  }

  draw(found, stalled) {
    this.node.replaceChildren(
      stalled ? part("The watcher has stalled", `It last looked at the files ${Math.round(found.looked_s)} s ago, and should every second. Changes by git and editors are noticed late. Is the folder's disk or network mount answering? If so, restart the server; agents come back by themselves.`, []) : "",
      found.damaged.length ? part("Damaged lines", "They are left out until somebody mends them; the rest of the file counts. Open the file in an editor at the line, mend or remove it, and save.", found.damaged.map((each) => el("li", {}, this.place(each), el("span", {}, each.what)))) : "",
      found.vanished.length ? part("Vanished messages", "They stood in a mailbox that git or an editor has overwritten, and stand in no commit.", [...found.vanished.map((each) => el("li", {}, el("span", {}, `${each.file}: ${each.what}`), el("span", { class: "faint" }, each.delivered ? " delivered before" : " never delivered"))), el("li", {}, copier("mq recover"), " lists them, ", copier("mq recover --restore"), " puts them back.")]) : "",
      found.dead_letters.unread ? part("Dead letters", `${amount(found.dead_letters.unread, "message")} rejected, or claimed too often without being settled. Read why, mend the cause, then reopen it or acknowledge the letter.`, found.dead_letters.messages.map((each) => el("li", {}, el("button", { type: "button", class: "link", onclick: () => this.act.thread(each.id) }, each.ref), " ", el("span", {}, each.gist), " ", copier(`mq settle dead_letters --reopen ${each.id.slice(-8)}`)))) : "",
    );
    if (!this.node.textContent) this.node.replaceChildren(el("p", { class: "hint good" }, "All is well: every line can be read, nothing has vanished, nothing was rejected, and the watcher looks."));
  }

  place({ path, line }) {
    const text = line ? `${path}:${line}` : path;
    return copier(text);
  }
}

function part(title, what, items) {
  return el("section", { class: "problem" }, el("h3", {}, title), el("p", {}, what), items.length ? el("ul", {}, items) : null);
}
