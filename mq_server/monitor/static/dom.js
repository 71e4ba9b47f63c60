// Building the page. Text goes in as text; the only markup that goes in as markup is what the server has rendered.

const policy = globalThis.trustedTypes?.createPolicy("fragments", { createHTML: (html) => html }) ?? { createHTML: (html) => html };
const SVG = "http://www.w3.org/2000/svg";

/** The elements of a fragment that the server has rendered from a message. Nothing else may come here. */
export function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(html);
  return template.content;
}

/** An element: `el("p", { class: "x", onclick: f }, "text", node)`. Strings are text. */
export function el(name, attributes = {}, ...content) {
  return fill(document.createElement(name), attributes, content);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...content) {
  return fill(document.createElementNS(SVG, name), attributes, content);
}

function fill(node, attributes, content) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...content.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return node;
}

/** Draw a part of the page anew; who was at one of its controls stays there. */
export function keepingFocus(node, draw) {
  const said = (control) => control.dataset.key ?? (control.getAttribute("aria-label") || control.textContent || control.name);
  const at = node.contains(document.activeElement) ? document.activeElement : null;
  const what = at && at !== node && said(at);
  draw();
  if (what) [...node.querySelectorAll("button, input, select, summary")].find((control) => said(control) === what)?.focus({ preventScroll: true });
}

export const byId = (id) => document.getElementById(id);

/** An agent's name in its colour, after its initials; `who` has `by`, `hue` and `initials`. */
export function agent(who, small = false) {
  const avatar = el("span", { class: "avatar small", "aria-hidden": "true" }, who.initials);
  return el("span", { class: `who-is hue-${who.hue}` }, small ? null : avatar, el("bdi", { class: `agent hue-${who.hue}` }, who.by));
}

let fading = 0;
/** Say something in passing. */
export function toast(text, bad = false) {
  const node = byId("toast");
  node.textContent = text;
  node.classList.toggle("bad", bad);
  node.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => node.classList.remove("shown"), bad ? 8000 : 2500);
}

/** A button that copies a text, which is its label. */
export function copier(text) {
  const sheets = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3" }));
  return el("button", { type: "button", class: "copy", title: "Copy, to paste into an editor, a terminal or a reply", "aria-label": `Copy ${text}`, onclick: () => copy(text) }, sheets, text);
}

/** Copy a text, and say so. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Away from localhost there is no clipboard without TLS; a selection works everywhere.
    const field = el("textarea", { class: "unseen" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  toast(`Copied ${text}`);
}

/** `2 messages`, `1 message`. */
export const amount = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** The time of day of a timestamp, in UTC as everywhere. */
export const clock = (timestamp) => timestamp.slice(11, 19) + "Z";

/** When it was: the time today, else the date too. */
export function when(timestamp) {
  const today = new Date().toISOString().slice(0, 10);
  return timestamp.startsWith(today) ? clock(timestamp) : `${timestamp.slice(0, 10)} ${clock(timestamp)}`;
}
