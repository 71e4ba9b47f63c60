// Taking part: who one is, what one says, to whom, in answer to what. A message is written as text, in the fields of
// its type, or as JSON.

import { get, post, session } from "./api.js";
import { byId, el, toast } from "./dom.js";
import { Form } from "./form.js";

const ME = "mq-me";

const newKey = () => crypto.randomUUID?.() ?? String(Math.random());

export class Compose {
  constructor(act) {
    this.act = act;
    this.parent = null;
    this.fields = null;
    this.inForm = false;
    this.key = newKey();
    this.form = byId("compose");
    this.form.noValidate = true; // the server knows what is wrong, and it is shown at the field
    this.to = el("input", { name: "channel", list: "addressees", placeholder: "channel", "aria-label": "To", autocomplete: "off", spellcheck: "false", oninput: () => (this.touched = true) });
    this.type = el("input", { name: "type", list: "types", value: "note", "aria-label": "Type of message", autocomplete: "off", spellcheck: "false", oninput: () => this.retyped() });
    this.text = el("textarea", { name: "text", rows: 1, placeholder: "Write a message", "aria-label": "Message", oninput: () => this.grow() });
    this.payload = new Form([]);
    this.said = el("p", { class: "said faint", id: "said" });
    this.answering = el("p", { class: "answering", hidden: true });
    this.change = el("button", { type: "button", class: "link change", hidden: true, onclick: () => this.turn() });
    this.send = el("button", { type: "submit", class: "send" }, "Post");
    this.body = el("div", { class: "line body" }, this.text, this.send);
    this.form.append(
      this.answering,
      el("div", { class: "line" }, el("label", {}, "to ", this.to), el("label", {}, "as ", this.type), this.said, this.change),
      this.body,
      el("datalist", { id: "addressees" }),
      el("datalist", { id: "types" }),
    );
    this.form.addEventListener("keydown", (event) => this.pressed(event));
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
    this.retyped();
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
    this.answering.replaceChildren(`Answering ${message.ref} by ${message.by} `, el("button", { type: "button", class: "icon", "aria-label": "Not an answer", onclick: () => (this.forget(), this.focus()) }, "×"));
    if (message.type === "query") this.type.value = "answer";
    this.retyped();
    this.focus();
  }

  forget() {
    this.parent = null;
    this.answering.hidden = true;
  }

  focus() {
    (this.inForm ? this.payload.group.input : this.text)?.focus();
  }

  // --- text or fields ------------------------------------------------------------------------------------------------

  /** Another type: its fields are asked for, unless a text says it all. */
  async retyped() {
    const type = this.type.value.trim();
    this.said.textContent = this.me ? "" : "Say who you are, at the left below the channels.";
    if (type === this.asked) return;
    this.asked = type;
    let fields = null;
    let said = "";
    try {
      if (session?.types[type] !== undefined) ({ fields } = await get("form", { type }));
    } catch (error) {
      said = error.message;
    }
    if (type !== this.asked) return;
    if (said) this.said.textContent = said;
    const kept = this.inForm ? this.payload.extra : {};
    this.fields = fields;
    this.payload = new Form(fields ?? []);
    this.payload.extra = kept;
    const texts = fields?.some((field) => field.name === "text" && field.kind === "text");
    this.show(Boolean(fields) && !(texts && fields.every((field) => field.name === "text" || !field.required)));
  }

  show(inForm) {
    this.inForm = inForm;
    if (inForm && this.parent && this.fields.some((field) => field.name === "of")) this.payload.fill({ of: this.parent.id, ...read(() => this.payload.read()) });
    this.body.replaceChildren(inForm ? this.payload.node : this.text, this.send);
    const plain = this.fields?.length === 1 && this.fields[0].name === "text";
    this.change.hidden = !this.fields || plain;
    this.change.textContent = inForm ? "Write JSON" : "Fill in fields";
    this.grow();
  }

  /** From fields to text or JSON, or back; what stands there goes along. */
  turn() {
    try {
      if (this.inForm) {
        const payload = this.payload.read();
        const onlyText = Object.keys(payload).every((name) => name === "text");
        this.text.value = onlyText ? payload.text ?? "" : JSON.stringify(payload, null, 2);
      } else this.payload.fill(this.text.value.trim() ? payloadOf(this.text.value) : {});
      this.show(!this.inForm);
      this.focus();
    } catch (error) {
      this.failed(error);
    }
  }

  grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight + 2, 240)}px`;
  }

  pressed(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
  }

  async submit() {
    if (!this.me) {
      this.act.askWho();
      return toast("Say first who you are", true);
    }
    if (!this.inForm && !this.text.value.trim()) return;
    this.send.disabled = true;
    try {
      this.payload.blame([]);
      const channel = this.to.value.split(/[\s,]+/).filter(Boolean);
      const posted = await post("post", {
        sender: this.me,
        channel: channel.length > 1 ? channel : channel[0],
        type: this.type.value.trim(),
        payload: this.inForm ? this.payload.read() : payloadOf(this.text.value),
        reply_to: this.parent?.id,
        dedup_key: this.key,
      });
      this.key = newKey();
      this.text.value = "";
      this.touched = false;
      this.forget();
      if (this.inForm) {
        this.payload.extra = {};
        this.payload.fill({});
      }
      this.grow();
      toast(`Posted ${posted.ref}${posted.advice ? `: ${posted.advice}` : ""}`);
    } catch (error) {
      this.failed(error);
    } finally {
      this.send.disabled = false;
    }
  }

  /** Say what is wrong where it is wrong. */
  failed(error) {
    if (error.control) {
      error.control.blame(`That is no JSON: ${error.message}`);
      return error.control.input.focus();
    }
    if (error instanceof SyntaxError) return toast(`That is no JSON: ${error.message}`, true);
    const all = error.faults ?? [error.message];
    const left = this.inForm ? this.payload.blame(all).filter((fault) => all.length === 1 || !/ payload is /.test(fault)) : all;
    if (left.length) toast(left.length === all.length ? error.message : left.join("; "), true);
  }
}

/** What a text says: JSON if it looks like an object. */
function payloadOf(text) {
  return text.trimStart().startsWith("{") ? JSON.parse(text) : { text };
}

function read(work) {
  try {
    return work();
  } catch {
    return {};
  }
}
