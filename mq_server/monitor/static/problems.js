// What is wrong and what to do about it: damaged lines, vanished messages, dead letters, a watcher that doesn't look.
// What can be done from here has a button; the commands stand beside it.

import { get, post, session } from "./api.js";
import { amount, byId, copier, el, keepingFocus, toast } from "./dom.js";

const STALLED_S = 15;
const SURE_MS = 4000;

export class Problems {
  constructor(act) {
    this.title = "Problems";
    this.node = el("section", {});
    this.act = act;
    this.found = null;
    this.drawn = "";
  }

  open() {
    return this.refresh();
  }

  async refresh() {
    try {
      this.found = await get("problems");
    } catch (error) {
      this.drawn = "";
      this.node.replaceChildren(el("p", { class: "hint bad" }, error.message));
      return;
    }
    this.show();
  }

  /** The watcher looked so many seconds ago. Looks up the rest only while something is wrong. */
  beat(looked_s) {
    if (!this.found || this.count) return this.refresh();
    this.found.looked_s = looked_s;
    this.show();
  }

  show() {
    const { damaged, vanished, dead_letters: letters, looked_s } = this.found;
    const stalled = looked_s !== null && looked_s > STALLED_S;
    this.count = damaged.length + vanished.length + letters.unread + (stalled ? 1 : 0);
    this.tab.replaceChildren(this.title, ...(this.count ? [" ", el("span", { class: "unread bad" }, String(this.count))] : []));
    const said = [
      damaged.length && amount(damaged.length, "damaged line"),
      vanished.length && amount(vanished.length, "vanished message"),
      letters.unread && amount(letters.unread, "dead letter"),
      stalled && "the watcher has stalled",
    ].filter(Boolean);
    const words = said.join(", ");
    const alarm = byId("alarm");
    alarm.hidden = !words;
    if (alarm.dataset.said !== words) {
      alarm.dataset.said = words;
      alarm.replaceChildren(words ? `${words[0].toUpperCase()}${words.slice(1)}. ` : "", el("button", { type: "button", class: "link", onclick: () => this.act.problems() }, "What to do"));
    }
    // What has not changed is not drawn again: somebody may be about to press a button.
    const drawn = JSON.stringify([damaged, vanished, letters, stalled, session?.read_only]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const focused = this.node.contains(document.activeElement);
    keepingFocus(this.node, () => this.draw(stalled));
    if (focused && !this.node.contains(document.activeElement)) this.tab.focus();
  }

  draw(stalled) {
    const { damaged, vanished, dead_letters: letters, looked_s } = this.found;
    this.node.replaceChildren(
      stalled ? part("The watcher has stalled", `It last looked at the files ${Math.round(looked_s)} s ago, and should every second. Changes by git and editors are noticed late. Is the folder's disk or network mount answering? If so, restart the server; agents come back by themselves.`, []) : "",
      damaged.length ? part("Damaged lines", "They are left out until somebody mends them; the rest of the file counts. Open the file in an editor at the line, mend or remove it, and save.", damaged.map((each) => el("li", {}, el("p", {}, place(each)), el("p", {}, each.what)))) : "",
      vanished.length ? part("Vanished messages", "They stood in a file that git or an editor has overwritten, and stand in no commit. Put them back, or forget them if that was meant.", vanished.map((each) => this.vanished(each)), ["mq recover", "mq recover --restore", "mq recover --accept"]) : "",
      letters.unread ? part("Dead letters", `${amount(letters.unread, "message")} rejected, or claimed too often without being settled. Read why, mend the cause, then send it back; or acknowledge the letter and leave it at that.`, letters.messages.map((each) => this.letter(each)), [`mq settle dead_letters --reopen ${letters.messages[0].id.slice(-8)}`]) : "",
    );
    if (!this.count) this.node.replaceChildren(el("p", { class: "hint good" }, "All is well: every line can be read, nothing has vanished, nothing was rejected, and the watcher looks."));
  }

  vanished(each) {
    const decide = (op) => this.decide("vanished", { op, ids: [each.id] }, op === "restore" ? `Put back into ${each.file}` : "Forgotten");
    return el(
      "li",
      {},
      el("p", {}, el("span", { class: "place" }, each.file), ` ${each.what}`),
      el("p", { class: "faint" }, each.delivered ? "A reader had it before." : "No reader ever had it."),
      this.actions(["Put back", () => decide("restore")], ["Forget", () => decide("accept"), true]),
    );
  }

  letter(each) {
    const decide = (op) => this.decide("letters", { op, ids: [each.id], caller: this.act.me() }, op === "reopen" ? `Unread again in ${each.from}` : "Acknowledged");
    return el(
      "li",
      {},
      el("p", {}, el("button", { type: "button", class: "link", onclick: () => this.act.thread(each.id) }, each.ref), ` from ${each.from}: ${each.reason}`),
      this.actions([`Send back to ${each.from}`, () => decide("reopen")], ["Acknowledge", () => decide("ack")]),
    );
  }

  /** Buttons for who may write. What cannot be undone is pressed twice. */
  actions(...actions) {
    if (session.read_only) return null;
    return el("p", { class: "actions" }, actions.map(([label, work, final]) => el("button", { type: "button", onclick: (event) => (final && !sure(event.currentTarget, label) ? null : work()) }, label)));
  }

  async decide(name, fields, done) {
    if (!this.act.me()) {
      this.act.askWho();
      return toast("Say first who you are", true);
    }
    try {
      await post(name, fields);
      toast(done);
    } catch (error) {
      toast(error.message, true);
    }
    return this.refresh();
  }
}

/** Whether a button was pressed for the second time; the first asks. */
function sure(button, label) {
  if (button.dataset.asked) return true;
  button.dataset.asked = "asked";
  button.textContent = `${label} for good?`;
  setTimeout(() => {
    delete button.dataset.asked;
    button.textContent = label;
  }, SURE_MS);
  return false;
}

const place = ({ path, line }) => copier(line ? `${path}:${line}` : path);

function part(title, what, items, commands = []) {
  const typed = commands.length ? el("p", { class: "typed" }, "In a terminal: ", commands.map((command) => copier(command))) : null;
  return el("section", { class: "problem" }, el("h3", {}, title), el("p", {}, what), items.length ? el("ul", {}, items) : null, typed);
}
