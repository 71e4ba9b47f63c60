// The context at the right: tabs, one panel in sight at a time. A panel loads when it is opened and when told to.

import { byId, el } from "./dom.js";

export class Panels {
  /** `panels` maps a name to { title, node, open(argument), refresh() }. */
  constructor(panels) {
    this.panels = panels;
    this.now = "";
    for (const [name, panel] of Object.entries(panels)) {
      panel.tab = el(
        "button",
        { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, onclick: () => this.open(name) },
        panel.title,
      );
      panel.node.id = `panel-${name}`;
      panel.node.setAttribute("role", "tabpanel");
      panel.node.setAttribute("aria-labelledby", `tab-${name}`);
      panel.node.tabIndex = 0; // it scrolls
      panel.node.classList.add("panel", name);
      byId("tabs").append(panel.tab);
      byId("panels").append(panel.node);
    }
    byId("tabs").addEventListener("keydown", (event) => this.arrows(event));
  }

  open(name, argument) {
    this.now = name;
    for (const [each, { tab, node }] of Object.entries(this.panels)) {
      tab.setAttribute("aria-selected", String(each === name));
      tab.tabIndex = each === name ? 0 : -1;
      node.hidden = each !== name;
    }
    if (document.body.dataset.pane !== "context" && argument !== undefined) {
      pane("context");
      if (!document.activeElement.checkVisibility()) this.panels[name].node.focus(); // the feed has made room for it
    }
    return this.panels[name].open(argument);
  }

  /** Something has changed: what is in sight is looked up again. */
  refresh() {
    return this.panels[this.now]?.refresh?.();
  }

  arrows(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const names = Object.keys(this.panels);
    const next = names[(names.indexOf(this.now) + by + names.length) % names.length];
    this.open(next);
    this.panels[next].tab.focus();
  }
}

/** Which of the three columns is in sight where there is room for one. */
export function pane(name) {
  document.body.dataset.pane = name;
  for (const button of document.querySelectorAll("[data-show]"))
    button.setAttribute("aria-pressed", String(button.dataset.show === name));
}
