// The scene board: versions and their scores against the line that passes, what is open, what stands.

import { get, session } from "./api.js";
import { amount, byId, el, fragment, keepingFocus, svg, toast } from "./dom.js";

const WIDTH = 260;
const HEIGHT = 72;
const LEFT = 26;
const EDGE = 10;

export class Scenes {
  constructor(act) {
    this.title = "Scenes";
    this.node = el("section", {});
    this.act = act;
  }

  open() {
    return this.refresh();
  }

  async refresh() {
    try {
      const board = await get("scenes");
      keepingFocus(this.node, () => this.draw(board));
    } catch (error) {
      this.node.replaceChildren(el("p", { class: "hint bad" }, error.message));
    }
  }

  draw(board) {
    const top = this.node.scrollTop;
    const notes = board.notes?.length ? [el("details", { class: "notes" }, el("summary", {}, amount(board.notes.length, "message") + " of no scene left out"), el("ul", {}, board.notes.map((note) => el("li", {}, note))))] : [];
    this.node.replaceChildren(
      ...(board.scenes.length ? board.scenes.map((scene) => this.card(scene)) : [el("p", { class: "hint" }, "No message bears a scene yet. Messages with a scene, and scores of its versions, appear here.")]),
      ...notes,
    );
    this.node.scrollTop = top;
  }

  card(scene) {
    const cap = scene.max_iterations ? `${scene.iterations} of ${scene.max_iterations} iterations` : amount(scene.iterations, "version");
    const stands = scene.finalised ?? scene.best;
    return el(
      "article",
      { class: "card", "data-scene": scene.scene, "aria-label": `Scene ${scene.title ?? scene.scene}` },
      el("header", {}, el("h3", { dir: "auto" }, scene.title ?? scene.scene), el("p", { class: "faint" }, `${scene.scene} · ${cap}`), el("span", { class: `standing ${scene.status.replaceAll(" ", "-")}` }, scene.status)),
      scene.versions.some((version) => version.score !== null) ? this.chart(scene) : null,
      scene.advice ? el("p", { class: "advice" }, scene.advice) : null,
      el("ol", { class: "versions" }, scene.versions.map((version) => this.version(scene, version))),
      ...scene.open_feedback.map((feedback) => this.feedback(feedback)),
      stands ? el("p", { class: "actions" }, el("button", { type: "button", class: "read-script", onclick: () => this.read(stands.id) }, scene.finalised ? "Read the final version" : "Read the best version")) : null,
      scene.notes?.length ? el("ul", { class: "faint notes" }, scene.notes.map((note) => el("li", {}, note))) : null,
    );
  }

  version(scene, version) {
    const marks = [];
    if (scene.finalised?.id === version.id) marks.push("final");
    else if (scene.best?.id === version.id) marks.push("best");
    const scorers = version.scored_by.map((each) => `${each.sender} ${each.score.toFixed(2)}`).join(", ");
    return el(
      "li",
      {},
      el("button", { type: "button", class: "link", title: `${version.ref}\n${scorers}`, onclick: () => this.act.thread(version.id) }, `version ${version.version}`),
      version.gauge ? fragment(version.gauge) : el("span", { class: "faint" }, "no score yet"),
      ...marks.map((mark) => el("span", { class: "mark" }, mark)),
    );
  }

  feedback(feedback) {
    return el(
      "blockquote",
      { class: "open-feedback" },
      el("p", { class: "faint" }, "Open feedback by ", el("bdi", {}, feedback.sender), " ", el("button", { type: "button", class: "link", onclick: () => this.act.thread(feedback.id) }, feedback.ref)),
      el("p", { dir: "auto" }, feedback.text),
    );
  }

  chart(scene) {
    const pass = session.pass_score;
    const y = (score) => EDGE + (1 - score) * (HEIGHT - 2 * EDGE);
    const step = (WIDTH - LEFT - 2 * EDGE) / Math.max(scene.versions.length - 1, 1);
    const x = (place) => LEFT + EDGE + (scene.versions.length === 1 ? (WIDTH - LEFT) / 2 - EDGE : place * step);
    const points = scene.versions.map((version, place) => ({ ...version, x: x(place), y: version.score === null ? null : y(version.score) })).filter((point) => point.y !== null);
    const said = points.map((point) => `version ${point.version}: ${point.score.toFixed(2)}`).join(", ");
    return svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "scores", role: "img", "aria-label": `${said}; ${pass} passes` },
      svg("rect", { class: "passing", x: LEFT, y: y(1), width: WIDTH - LEFT, height: y(pass) - y(1) }),
      svg("line", { class: "pass", x1: LEFT, x2: WIDTH, y1: y(pass), y2: y(pass) }),
      ...[0, pass, 1].map((value) => svg("text", { x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end" }, value === pass ? String(pass) : String(value))),
      svg("polyline", { points: points.map((point) => `${point.x},${point.y}`).join(" ") }),
      ...points.map((point) => svg("circle", { cx: point.x, cy: point.y, r: 4, class: point.score >= pass ? "passed" : "failed" }, svg("title", {}, `version ${point.version}: ${point.score}`))),
    );
  }

  async read(id) {
    try {
      const message = await get("message", { id });
      const article = fragment(message.html).firstElementChild;
      article.removeAttribute("id");
      const dialog = byId("reader");
      dialog.replaceChildren(el("form", { method: "dialog" }, el("button", { class: "icon close", "aria-label": "Close" }, "×")), article.querySelector(".payload"));
      dialog.showModal();
    } catch (error) {
      toast(error.message, true);
    }
  }
}
