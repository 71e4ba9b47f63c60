// Search, with filters. What is found stands newest first, the words marked.

import { get, session } from "./api.js";
import { agent, el, when } from "./dom.js";

export class Search {
  constructor(act) {
    this.title = "Search";
    this.act = act;
    this.turn = 0;
    this.query = el("input", { type: "search", name: "q", placeholder: "Words, or “a phrase” in quotes", "aria-label": "Search for", autocomplete: "off", spellcheck: "false" });
    this.sender = el("select", { name: "sender", "aria-label": "From" });
    this.type = el("select", { name: "type", "aria-label": "Type" });
    this.since = el("input", { type: "date", name: "since", "aria-label": "Not before" });
    this.until = el("input", { type: "date", name: "until", "aria-label": "Not after" });
    this.hits = el("ol", { class: "hits" });
    this.said = el("p", { class: "hint", role: "status" });
    const form = el(
      "form",
      { role: "search", onsubmit: (event) => (event.preventDefault(), this.run(), this.hits.querySelector("button")?.focus()), oninput: () => this.soon() },
      this.query,
      el("div", { class: "fields-row" }, this.sender, this.type),
      el("div", { class: "fields-row" }, el("label", {}, "from ", this.since), el("label", {}, "to ", this.until)),
    );
    this.node = el("section", {}, form, this.said, this.hits);
  }

  /** Who and what may be searched for. */
  offer(names, types) {
    const keep = [this.sender.value, this.type.value];
    this.sender.replaceChildren(el("option", { value: "" }, "from anybody"), ...names.map((name) => el("option", { value: name }, name)));
    this.type.replaceChildren(el("option", { value: "" }, "of any type"), ...types.map((name) => el("option", { value: name }, name)));
    [this.sender.value, this.type.value] = keep;
  }

  open() {
    if (!this.sender.options.length) this.offer(this.act.names(), Object.keys(session.types));
    if (matchMedia("(min-width: 60rem)").matches || document.body.dataset.pane === "context") this.query.focus();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(), 200);
  }

  async run(until = "") {
    clearTimeout(this.timer);
    const turn = ++this.turn;
    const text = this.query.value.trim().replace(/[“”„]/g, '"');
    if (!until) this.more?.remove();
    if (!text) {
      this.hits.replaceChildren();
      this.said.textContent = "";
      return;
    }
    const day = (value, add) => value && new Date(Date.parse(`${value}T00:00:00Z`) + add * 86_400_000).toISOString();
    this.controller?.abort();
    this.controller = new AbortController();
    const slow = setTimeout(() => (this.said.textContent = "Searching …"), 250);
    try {
      const found = await get("search", { q: text, sender: this.sender.value, type: this.type.value, since: day(this.since.value, 0), until: until || day(this.until.value, 1) }, { signal: this.controller.signal });
      if (turn !== this.turn) return;
      const words = [...text.matchAll(/"([^"]+)"|(\S+)/g)].map((match) => match[1] ?? match[2]);
      const items = found.hits.map((hit) => this.hit(hit, words));
      if (until) this.hits.append(...items);
      else this.hits.replaceChildren(...items);
      this.said.textContent = this.hits.children.length ? "" : "Nothing found.";
      this.more?.remove();
      if (found.next) {
        this.more = el("button", { type: "button", class: "more", onclick: () => this.run(found.next) }, "Older ones");
        this.node.append(this.more);
      }
    } catch (error) {
      if (error.name !== "AbortError" && turn === this.turn) this.said.textContent = error.message;
    } finally {
      clearTimeout(slow);
    }
  }

  hit(hit, words) {
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", class: "hit", onclick: () => this.act.show(hit), title: hit.ref },
        el("span", { class: "hit-head" }, agent(hit), el("span", { class: "type" }, hit.type), el("span", { class: "faint" }, when(hit.timestamp))),
        el("span", { class: "snippet", dir: "auto" }, ...marked(hit.snippet || hit.gist, words)),
      ),
    );
  }
}

/** A text with the words in it marked. */
function marked(text, words) {
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).filter(Boolean);
  if (!escaped.length) return [text];
  return text.split(new RegExp(`(${escaped.join("|")})`, "giu")).map((part, place) => (place % 2 ? el("mark", {}, part) : part));
}
