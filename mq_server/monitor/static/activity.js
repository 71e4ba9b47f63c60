// Messages over time by agent, to zoom into, and who writes to whom, to filter the feed by. The bars are SVG of the
// server's own drawing, the same as in an export: no library to ship, load and keep up to date.

import { get } from "./api.js";
import { agent, amount, el, fragment, keepingFocus } from "./dom.js";

export class Activity {
  constructor(act) {
    this.title = "Activity";
    this.node = el("section", {});
    this.act = act;
    this.spans = [];
    this.turn = 0;
  }

  open() {
    return this.refresh();
  }

  async refresh() {
    const turn = ++this.turn;
    try {
      const width = Math.round(this.node.clientWidth - 32) || "";
      const found = await get("traffic", { width, ...this.spans.at(-1) });
      if (turn === this.turn && !this.dragging) keepingFocus(this.node, () => this.draw(found));
    } catch (error) {
      this.node.replaceChildren(el("p", { class: "hint bad" }, error.message));
    }
  }

  draw(found) {
    const top = this.node.scrollTop;
    const span = this.spans.at(-1);
    const zoomed = span ? `${span.since.slice(0, 19).replace("T", " ")} to ${span.until.slice(0, 19).replace("T", " ")} UTC` : "All of it, UTC";
    this.node.replaceChildren(
      el(
        "header",
        { class: "panel-head" },
        el("p", {}, `${amount(found.total, "message")} · ${zoomed}`),
        span ? el("button", { type: "button", class: "zoom-out", onclick: () => this.zoom(null) }, "Zoom out") : null,
      ),
      found.total ? this.chart(found) : el("p", { class: "hint" }, span ? "Nothing was said in that time." : "Nothing has been said yet."),
      found.total ? el("p", { class: "hint" }, span ? "Click a bar or drag to look closer." : "Click a bar or drag over several to look closer.") : "",
      found.total ? this.legend(found) : "",
      found.total ? this.matrix(found) : "",
    );
    this.node.scrollTop = top;
  }

  chart({ chart, bars }) {
    const holder = el("div", { class: "zoomable" }, fragment(chart));
    const band = el("div", { class: "band", hidden: true });
    holder.append(band);
    const barAt = (event) => {
      const box = holder.getBoundingClientRect();
      const place = ((event.clientX - box.left) / box.width) * bars.width - bars.left;
      return Math.max(0, Math.min(bars.number - 1, Math.floor((place / (bars.width - bars.left)) * bars.number)));
    };
    let from = null;
    const time = (bar) => new Date((bars.start_s + bar * bars.step_s) * 1000).toISOString();
    const mark = (to) => {
      const share = (bars.width - bars.left) / bars.number / bars.width;
      band.hidden = false;
      band.style.left = `${(bars.left / bars.width + Math.min(from, to) * share) * 100}%`;
      band.style.width = `${(Math.abs(to - from) + 1) * share * 100}%`;
    };
    holder.addEventListener("pointerdown", (event) => {
      this.dragging = true;
      from = barAt(event);
      holder.setPointerCapture(event.pointerId);
      mark(from);
    });
    holder.addEventListener("pointermove", (event) => from !== null && mark(barAt(event)));
    holder.addEventListener("pointercancel", () => (from = null, this.dragging = false, band.hidden = true));
    holder.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = barAt(event);
      const [first, last] = [Math.min(from, to), Math.max(from, to) + 1];
      from = null;
      this.dragging = false;
      this.zoom({ since: time(first), until: time(last) });
    });
    // By the keyboard a bar is chosen like the value of a slider.
    let at = bars.number - 1;
    const choose = (bar) => {
      at = Math.max(0, Math.min(bars.number - 1, bar));
      holder.ariaValueNow = at + 1;
      holder.ariaValueText = `${time(at).slice(0, 19).replace("T", " ")} UTC`;
    };
    for (const [name, value] of Object.entries({ role: "slider", tabindex: 0, "aria-label": "Time to look closer at", "aria-valuemin": 1, "aria-valuemax": bars.number })) holder.setAttribute(name, value);
    choose(at);
    holder.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -at, End: bars.number }[event.key];
      if (by !== undefined) {
        event.preventDefault();
        choose(at + by);
        from = at;
        mark(at);
        from = null;
      }
      if (event.key === "Enter") this.zoom({ since: time(at), until: time(at + 1) });
    });
    return holder;
  }

  zoom(span) {
    if (span) this.spans.push(span);
    else this.spans.pop();
    return this.refresh();
  }

  legend({ agents, left_out: more }) {
    return el("ul", { class: "legend" }, agents.map((each) => el("li", {}, el("button", { type: "button", title: "Show only these in the feed", onclick: () => this.act.filter({ sender: each.name, channel: [] }) }, el("span", { class: `dot hue-${each.hue}` }), el("bdi", {}, each.by)))), more ? el("li", { class: "faint" }, `and ${more} more`) : null);
  }

  matrix({ agents, channels, pairs }) {
    const most = Math.max(1, ...pairs.flat());
    const head = el("tr", {}, el("td", {}), channels.map((each) => el("th", { scope: "col", title: each.by }, el("span", { class: `avatar small hue-${each.hue}`, "aria-hidden": "true" }, each.initials), el("span", { class: "unseen" }, `to ${each.by}`))));
    const rows = agents.map((from, row) =>
      el("tr", {}, el("th", { scope: "row" }, agent(from, true)), channels.map((to, column) => el("td", {}, this.cell(from, to, pairs[row][column], most)))),
    );
    return el("figure", { class: "matrix" }, el("figcaption", {}, "Who writes to whom"), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))));
  }

  cell(from, to, count, most) {
    if (!count) return el("span", { class: "none" }, "·");
    const label = `${amount(count, "message")} from ${from.by} to ${to.by}`;
    const button = el("button", { type: "button", class: `hue-${from.hue}`, title: label, "aria-label": label, onclick: () => this.act.filter({ sender: from.name, channel: [to.name] }) }, count.toLocaleString("en"));
    button.style.setProperty("--share", String(Math.sqrt(count / most)));
    return button;
  }
}
