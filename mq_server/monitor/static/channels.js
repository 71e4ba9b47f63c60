// The channels at the left: what lies unread in each, who waits, and which of them the feed shows.

import { amount, byId, el, keepingFocus, when } from "./dom.js";

const SEEN = "mq-seen";

export class Channels {
  constructor(onselect) {
    this.onselect = onselect;
    this.states = [];
    this.selected = [];
    this.seen = JSON.parse(localStorage.getItem(SEEN) ?? "{}");
  }

  get names() {
    return this.states.map((state) => state.channel);
  }

  show(states) {
    this.states = states;
    this.draw();
  }

  /** Show these in the feed; none means everything. */
  select(names) {
    this.selected = names;
    this.note();
    this.draw();
    this.onselect(names);
  }

  /** What is shown now has been seen. */
  note() {
    for (const { channel, last } of this.states)
      if (last && (!this.selected.length || this.selected.includes(channel))) this.seen[channel] = last;
    localStorage.setItem(SEEN, JSON.stringify(this.seen));
  }

  draw() {
    keepingFocus(byId("channels"), () => this.drawn());
  }

  drawn() {
    if (!document.hidden) this.note();
    const groups = new Map([["", []]]);
    for (const state of this.states) groups.set(state.group, [...(groups.get(state.group) ?? []), state]);
    const total = this.states.reduce((sum, state) => sum + state.messages, 0);
    const all = el(
      "button",
      { type: "button", class: "channel all", "data-key": "*", "aria-pressed": String(!this.selected.length), onclick: () => this.select([]) },
      el("span", { class: "name" }, "Everything"),
      el("span", { class: "faint" }, this.states.length ? `${this.states.length} channels` : total ? "" : "no channels yet"),
    );
    const lists = [...groups].filter(([, states]) => states.length).map(([group, states]) => [
      group && el("h2", {}, group),
      el("ul", {}, states.map((state) => this.row(state))),
    ]);
    byId("channels").replaceChildren(all, ...lists.flat().filter(Boolean));
  }

  row(state) {
    const { channel, by, hue, initials, unread, waiting, description, messages, last } = state;
    const shown = this.selected.includes(channel);
    const fresh = last && (this.seen[channel] ?? "") < last;
    const about = [description, amount(messages, "message"), last && `the last ${when(last)}`].filter(Boolean).join("\n");
    const label = [by, unread && `${unread} unread`, waiting && `${waiting} waiting`, fresh && "new"].filter(Boolean).join(", ");
    const button = el(
      "button",
      {
        type: "button",
        class: `channel${fresh ? " fresh" : ""}`,
        "data-key": channel,
        "aria-pressed": String(shown),
        "aria-label": label,
        title: about,
        onclick: (event) => (event.ctrlKey || event.metaKey ? this.toggle(channel) : this.select([channel])),
      },
      el("span", { class: `avatar small hue-${hue}`, "aria-hidden": "true" }, initials),
      el("bdi", { class: "name" }, by),
      waiting ? el("span", { class: "waiting", title: `${waiting} waiting for a message` }) : null,
      unread ? el("span", { class: "unread", title: `${unread} that ${by} has not acknowledged` }, unread.toLocaleString("en")) : null,
    );
    const also = el("input", { type: "checkbox", "data-key": `also-${channel}`, "aria-label": `Show ${by} too`, title: "Show together with others", onchange: () => this.toggle(channel) });
    also.checked = shown;
    return el("li", { class: this.selected.length > 1 ? "several" : "" }, button, also);
  }

  toggle(channel) {
    const chosen = this.selected.includes(channel)
      ? this.selected.filter((name) => name !== channel)
      : [...this.selected, channel];
    this.select(chosen);
  }
}
