// Taking part: who one is, what one says, to whom, in answer to what.

import { post, session } from "./api.js";
import { byId, el, toast } from "./dom.js";

const ME = "mq-me";
const TEXT_TYPES = ["note", "feedback", "query", "answer", "narration", "brief"];

export class Compose {
  constructor(act) {
    this.act = act;
    this.parent = null;
    this.key = crypto.randomUUID?.() ?? String(Math.random());
    this.form = byId("compose");
    this.to = el("input", { name: "channel", list: "addressees", placeholder: "channel", "aria-label": "To", autocomplete: "off", spellcheck: "false", oninput: () => (this.touched = true) });
    this.type = el("input", { name: "type", list: "types", value: "note", "aria-label": "Type of message", autocomplete: "off", spellcheck: "false", oninput: () => this.hint() });
    this.text = el("textarea", { name: "text", rows: 1, placeholder: "Write a message", "aria-label": "Message", oninput: () => this.grow(), onkeydown: (event) => this.pressed(event) });
    this.said = el("p", { class: "said faint" });
    this.answering = el("p", { class: "answering", hidden: true });
    this.send = el("button", { type: "submit", class: "send" }, "Post");
    this.form.append(
      this.answering,
      el("div", { class: "line" }, el("label", {}, "to ", this.to), el("label", {}, "as ", this.type), this.said),
      el("div", { class: "line" }, this.text, this.send),
      el("datalist", { id: "addressees" }),
      el("datalist", { id: "types" }),
    );
    this.form.addEventListener("submit", (event) => (event.preventDefault(), this.submit()));
    byId("me").value = localStorage.getItem(ME) ?? "";
    byId("me").addEventListener("change", () => this.signIn());
  }

  get me() {
    return session?.read_only ? "" : byId("me").value.trim();
  }

  begin() {
    byId("roster").replaceChildren(...session.roster.map((name) => el("option", { value: name })));
    byId("types").replaceChildren(...Object.keys(session.types).map((name) => el("option", { value: name })));
    this.form.hidden = session.read_only;
    document.querySelector(".me").hidden = session.read_only;
    this.signIn();
  }

  signIn() {
    localStorage.setItem(ME, byId("me").value.trim());
    this.text.placeholder = this.me ? `Write as ${this.me}` : "Write a message";
    this.hint();
    this.act.signedIn();
  }

  offer(names) {
    byId("addressees").replaceChildren(...names.map((name) => el("option", { value: name })));
  }

  /** The feed shows these channels: what is said goes there. */
  address(names) {
    if (!this.touched && !this.parent) this.to.value = names.length === 1 ? names[0] : "";
  }

  reply(message) {
    this.parent = message;
    this.to.value = message.sender;
    this.touched = false;
    this.answering.hidden = false;
    this.answering.replaceChildren(`Answering ${message.ref} by ${message.by} `, el("button", { type: "button", class: "icon", "aria-label": "Not an answer", onclick: () => this.forget() }, "×"));
    if (message.type === "query") this.type.value = "answer";
    this.hint();
    this.text.focus();
  }

  forget() {
    this.parent = null;
    this.answering.hidden = true;
  }

  hint() {
    const fields = session?.types[this.type.value.trim()];
    this.said.textContent = !this.me ? "Say who you are, at the left below the channels." : fields && !TEXT_TYPES.includes(this.type.value.trim()) ? `JSON: ${fields}` : "";
    this.said.title = fields ?? "";
  }

  grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight + 2, 240)}px`;
  }

  pressed(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
    if (event.key === "Escape") this.text.blur();
  }

  payload(text) {
    if (!text.trimStart().startsWith("{")) return { text };
    return JSON.parse(text);
  }

  async submit() {
    const text = this.text.value;
    if (!this.me) {
      this.act.askWho();
      return toast("Say first who you are", true);
    }
    if (!text.trim()) return;
    this.send.disabled = true;
    try {
      const channel = this.to.value.split(/[\s,]+/).filter(Boolean);
      const posted = await post("post", {
        sender: this.me,
        channel: channel.length > 1 ? channel : channel[0],
        type: this.type.value.trim(),
        payload: this.payload(text),
        reply_to: this.parent?.id,
        dedup_key: this.key,
      });
      this.key = crypto.randomUUID?.() ?? String(Math.random());
      this.text.value = "";
      this.touched = false;
      this.forget();
      this.grow();
      toast(`Posted ${posted.ref}${posted.advice ? `: ${posted.advice}` : ""}`);
    } catch (error) {
      toast(error instanceof SyntaxError ? `That is no JSON: ${error.message}` : error.message, true);
    } finally {
      this.send.disabled = false;
    }
  }
}
