// A form for a payload, made of the fields that the server has read from the type's schema. Every control can be read,
// filled, and shown what is wrong with it. What is left empty is left out.

import { el } from "./dom.js";

let numbered = 0;

export class Form {
  constructor(fields) {
    this.group = new Group({ name: "", fields });
    this.node = el("div", { class: "asked" }, this.group.node);
    this.extra = {};
  }

  /** The payload. Throws a SyntaxError of a field for JSON. */
  read() {
    return { ...this.extra, ...this.group.read() };
  }

  /** Show a payload; what has no field is kept. */
  fill(payload) {
    this.group.fill(payload);
    const names = new Set(this.group.controls.map((control) => control.field.name));
    this.extra = Object.fromEntries(Object.entries(payload).filter(([name]) => !names.has(name)));
  }

  /** Show each fault (`payload.lines[0].who: field required`) at its field; gives those that have none. */
  blame(faults) {
    for (const each of this.node.querySelectorAll(".fault")) each.remove();
    for (const each of this.node.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
    let first = null;
    const left = faults.filter((fault) => {
      const [, path, what] = /^payload((?:\.[^.[\]:]+|\[\d+\])+): ([^]*)$/.exec(fault) ?? [];
      const control = path && this.group.at(path.match(/[^.[\]]+/g));
      if (!control) return true;
      first ??= control;
      control.blame(what);
      return false;
    });
    first?.input?.focus();
    return left;
  }
}

class Control {
  constructor(field, label = true) {
    this.field = field;
    this.id = `field-${++numbered}`;
    this.label = `${field.title ?? field.name.replaceAll("_", " ")}${field.required || !label ? "" : " (optional)"}`;
  }

  /** The control in a box with its name above, or without one in a row whose heading says it. */
  boxed(...content) {
    const hint = this.field.hint ? el("span", { class: "faint hint-of" }, this.field.hint) : null;
    this.node = el("div", { class: `field ${this.field.kind}` }, el("label", { for: this.id }, this.label), hint, ...content);
    return this.node;
  }

  at(path) {
    return path.length ? null : this;
  }

  blame(what) {
    const said = el("p", { class: "fault", id: `${this.id}-fault` }, what);
    this.node.append(said);
    this.input?.setAttribute("aria-invalid", "true");
    this.input?.setAttribute("aria-describedby", said.id);
  }
}

class Text extends Control {
  constructor(field) {
    super(field);
    this.input = field.long
      ? el("textarea", { id: this.id, rows: 2, oninput: () => this.grow() })
      : el("input", { id: this.id, autocomplete: "off" });
    this.fill(field.default ?? "");
    this.boxed(this.input);
  }

  grow() {
    if (!this.field.long) return;
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, 160)}px`;
  }

  read() {
    return this.input.value.trim() ? this.input.value : undefined;
  }

  fill(value) {
    this.input.value = String(value ?? "");
  }
}

class Amount extends Control {
  constructor(field) {
    super(field);
    const { least, most, whole } = field;
    this.input = el("input", { id: this.id, type: "number", step: whole ? 1 : "any", min: least ?? null, max: most ?? null });
    this.fill(field.default ?? "");
    this.boxed(this.input, least !== undefined && most !== undefined ? el("span", { class: "faint" }, `${least} to ${most}`) : null);
  }

  read() {
    return this.input.value === "" ? undefined : Number(this.input.value);
  }

  fill(value) {
    this.input.value = value ?? "";
  }
}

class Choice extends Control {
  constructor(field) {
    super(field);
    const none = field.required && field.default === undefined ? "choose" : "none";
    this.input = el("select", { id: this.id }, el("option", { value: "" }, none), field.choices.map((each, place) => el("option", { value: place }, String(each))));
    this.fill(field.default ?? (field.required && field.choices.length === 1 ? field.choices[0] : undefined));
    this.boxed(this.input);
  }

  read() {
    return this.input.value === "" ? undefined : this.field.choices[Number(this.input.value)];
  }

  fill(value) {
    const place = this.field.choices.indexOf(value);
    this.input.value = place < 0 ? "" : String(place);
  }
}

class Check extends Control {
  constructor(field) {
    super(field);
    this.input = el("input", { id: this.id, type: "checkbox", onchange: () => (this.touched = true) });
    this.fill(field.default);
    this.node = el("div", { class: "field check" }, this.input, el("label", { for: this.id }, field.title ?? field.name.replaceAll("_", " ")), field.hint ? el("span", { class: "faint" }, field.hint) : null);
  }

  read() {
    return this.input.checked || this.touched || this.field.required ? this.input.checked : undefined;
  }

  fill(value) {
    this.input.checked = value === true;
    this.touched = value !== undefined;
  }
}

class Json extends Control {
  constructor(field) {
    super(field);
    this.input = el("textarea", { id: this.id, rows: 2, placeholder: "JSON", spellcheck: "false", class: "raw" });
    this.fill(field.default);
    this.boxed(this.input);
  }

  read() {
    if (!this.input.value.trim()) return undefined;
    try {
      return JSON.parse(this.input.value);
    } catch (error) {
      throw Object.assign(new SyntaxError(error.message), { control: this });
    }
  }

  fill(value) {
    this.input.value = value === undefined ? "" : JSON.stringify(value);
  }
}

class Group extends Control {
  constructor(field, inRow = false) {
    super(field);
    // In a row the short fields stand beside each other, above the long ones.
    this.controls = (inRow ? field.fields.toSorted((one, other) => Number(one.long ?? 0) - Number(other.long ?? 0)) : field.fields).map(controlOf);
    const nodes = this.controls.map((control) => control.node);
    this.node = field.name && !inRow ? el("fieldset", { class: "field group" }, el("legend", {}, this.label), ...nodes) : el("div", { class: "group" }, ...nodes);
    this.input = this.controls[0]?.input;
  }

  read() {
    const read = this.controls.map((control) => [control.field.name, control.read()]).filter(([, value]) => value !== undefined);
    return read.length || this.field.required ? Object.fromEntries(read) : undefined;
  }

  fill(value) {
    for (const control of this.controls) control.fill(value?.[control.field.name]);
  }

  at([name, ...rest]) {
    if (name === undefined) return this;
    return this.controls.find((control) => control.field.name === name)?.at(rest) ?? null;
  }
}

/** What rows and named values share: lines that can be added and removed. */
class Lines extends Control {
  constructor(field, one) {
    super(field);
    this.one = one;
    this.lines = [];
    this.list = el("ol", { class: "lines" });
    this.input = el("button", { type: "button", class: "add", onclick: () => this.add().focus() }, `Add ${one}`);
    this.node = el("fieldset", { class: `field ${field.kind}` }, el("legend", {}, this.label), field.hint ? el("p", { class: "faint" }, field.hint) : null, this.list, this.input);
  }

  put(line, ...nodes) {
    line.node = el("li", {}, ...nodes, el("button", { type: "button", class: "icon remove", title: `Remove this ${this.one}`, onclick: () => this.remove(line) }, "×"));
    this.lines.push(line);
    this.list.append(line.node);
    this.number();
  }

  remove(line) {
    line.node.remove();
    this.lines = this.lines.filter((each) => each !== line);
    this.number();
    this.input.focus();
  }

  number() {
    for (const [place, line] of this.lines.entries()) {
      line.node.setAttribute("aria-label", `${this.one} ${place + 1}`);
      line.node.lastElementChild.setAttribute("aria-label", `Remove ${this.one} ${place + 1}`);
    }
  }

  clear() {
    this.lines = [];
    this.list.replaceChildren();
  }
}

class Rows extends Lines {
  constructor(field) {
    super(field, field.name.replaceAll("_", " ").replace(/s$/, "") || "row");
    if (field.required) this.add();
  }

  add(value) {
    const { row } = this.field;
    const control = row.kind === "group" ? new Group(row, true) : controlOf({ ...row, title: this.one });
    if (value !== undefined) control.fill(value);
    const line = { control };
    this.put(line, control.node);
    return control.input;
  }

  read() {
    this.filled = this.lines.filter(({ control }) => {
      const value = control.read();
      return value !== undefined && !(control instanceof Group && !Object.keys(value).length);
    });
    return this.filled.length || this.field.required ? this.filled.map(({ control }) => control.read()) : undefined;
  }

  fill(values) {
    this.clear();
    for (const value of Array.isArray(values) ? values : []) this.add(value);
    if (!this.lines.length && this.field.required) this.add();
  }

  at([number, ...rest]) {
    if (number === undefined) return this;
    return this.filled?.[Number(number)]?.control.at(rest) ?? null;
  }
}

class Named extends Lines {
  constructor(field) {
    super(field, "entry");
  }

  add(name = "", value = undefined) {
    const key = new Text({ name: "name", kind: "text", required: true });
    const control = controlOf({ ...this.field.value, name: "value", required: true });
    key.fill(name);
    control.fill(value);
    const line = { key, control };
    this.put(line, el("div", { class: "group" }, key.node, control.node));
    return key.input;
  }

  read() {
    const read = this.lines.map(({ key, control }) => [key.read(), control.read()]).filter(([name, value]) => name !== undefined && value !== undefined);
    return read.length || this.field.required ? Object.fromEntries(read) : undefined;
  }

  fill(values) {
    this.clear();
    for (const [name, value] of Object.entries(values ?? {})) this.add(name, value);
  }

  at([name, ...rest]) {
    if (name === undefined) return this;
    return this.lines.find(({ key }) => key.read() === name)?.control.at(rest) ?? null;
  }
}

const KINDS = { text: Text, number: Amount, choice: Choice, check: Check, group: Group, rows: Rows, named: Named, json: Json };
const controlOf = (field) => new KINDS[field.kind](field);
