// The keyboard. Nothing here fires while one writes.

import { byId, el } from "./dom.js";

const KEYS = [
  ["/", "search"],
  ["j  k", "next, previous message"],
  ["t  Enter", "its thread"],
  ["r", "reply to it"],
  ["c", "copy its channel:line"],
  ["n", "write a message"],
  ["g  G", "the beginning, the newest"],
  ["0  1 … 9", "everything; a channel"],
  ["s  a  p", "scenes, activity, problems"],
  ["Esc", "back to the messages"],
  ["?", "this help"],
];

/** `actions` maps a key to what it does. */
export function listen(actions) {
  const dialog = byId("keys");
  dialog.append(
    el("form", { method: "dialog" }, el("h2", { id: "keys-title" }, "Keyboard"), el("button", { class: "icon close", "aria-label": "Close" }, "×")),
    el("dl", {}, KEYS.map(([keys, does]) => el("div", {}, el("dt", {}, keys.split("  ").map((key) => el("kbd", {}, key))), el("dd", {}, does)))),
  );
  const help = () => dialog.showModal();
  byId("help").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog[open]");
    if (event.key === "Escape" && !event.target.closest?.("dialog")) {
      event.target.blur?.();
      return actions.Escape();
    }
    if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && !event.target.matches?.(".message, #feed, body")) return;
    const act = event.key === "?" ? help : /^[0-9]$/.test(event.key) ? () => actions.digit(Number(event.key)) : actions[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
