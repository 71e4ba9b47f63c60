// The page put together: what is shown where, and what one part tells the others.

import { Activity } from "./activity.js";
import * as api from "./api.js";
import { Channels } from "./channels.js";
import { Compose } from "./compose.js";
import { amount, byId, copy, el, toast } from "./dom.js";
import { feedOf } from "./feed.js";
import { listen } from "./keys.js";
import { Live } from "./live.js";
import { Panels, pane } from "./panels.js";
import { Problems } from "./problems.js";
import { Scenes } from "./scenes.js";
import { Search } from "./search.js";
import * as theme from "./theme.js";
import { Thread } from "./thread.js";

const SOON_MS = 150;
const SELDOM_MS = 2000;
const RARELY_MS = 6000;
const SAID_MS = 4000;
const SETTLED_MS = 2500; // what is missing for a moment only, while git goes in steps, has not vanished

const act = {
  me: () => compose.me,
  names: () => channels.names,
  thread: (id) => panels.open("thread", id),
  problems: () => panels.open("problems", null),
  reply(message) {
    pane("feed");
    compose.reply(message);
  },
  async show(message) {
    if (!feed.wants(message)) await choose({ channel: [], sender: "", type: "" });
    if (matchMedia("(max-width: 60rem)").matches) pane("feed");
    await feed.around(message);
  },
  filter(question) {
    pane("feed");
    return choose(question);
  },
  signedIn: () => drawInbox(),
  askWho() {
    if (matchMedia("(max-width: 60rem)").matches) pane("channels");
    byId("me").focus();
  },
};

const feed = feedOf((shown) => drawAbout(shown));
const channels = new Channels((names) => {
  pane("feed");
  compose.address(names);
  drawTitle();
  return feed.ask({ channel: names });
});
const compose = new Compose(act);
const problems = new Problems(act);
const panels = new Panels({
  thread: new Thread(act),
  scenes: new Scenes(act),
  activity: new Activity(act),
  search: new Search(act),
  problems,
});

// --- the feed's heading ------------------------------------------------------------------------------------------------

async function choose(question) {
  await feed.ask({ channel: [], sender: "", type: "", ...question });
  channels.selected = feed.question.channel;
  channels.draw();
  compose.address(channels.selected);
  drawTitle();
}

function drawTitle() {
  const names = channels.selected;
  byId("feed-title").textContent = !names.length ? "Everything" : names.length < 3 ? names.join(", ") : `${names.length} channels`;
  const chips = [];
  for (const [key, word] of [["sender", "from"], ["type", "of type"]]) {
    const value = feed.question[key];
    if (value) chips.push(el("button", { type: "button", class: "chip", title: "Show all again", onclick: () => choose({ ...feed.question, [key]: "" }) }, `${word} ${value} ×`));
  }
  byId("filters").replaceChildren(...chips);
}

function drawAbout() {
  const chosen = channels.states.filter((state) => !channels.selected.length || channels.selected.includes(state.channel));
  const alone = chosen.length === 1 && channels.selected.length ? chosen[0] : null;
  const total = chosen.reduce((sum, state) => sum + state.messages, 0);
  byId("feed-about").textContent = alone?.description || (total ? `${amount(total, "message")}${channels.selected.length === 1 ? "" : " in the mailboxes"}` : "");
}

// --- what the server says ----------------------------------------------------------------------------------------------

/** A function that runs soon, and not again before `pause` is over, however often it is called. */
function paced(work, pause) {
  let timer = 0;
  let last = -Infinity;
  return () => {
    if (timer) return;
    timer = setTimeout(
      async () => {
        timer = 0;
        last = performance.now();
        try {
          await work();
        } catch (error) {
          if (!(error instanceof TypeError)) toast(error.message, true); // a server that is away is shown elsewhere
        }
      },
      Math.max(SOON_MS, last + pause - performance.now()),
    );
  };
}

const lookAtChannels = paced(async () => {
  const found = await api.get("channels");
  channels.show(found.channels);
  compose.offer(channels.names);
  drawAbout();
  drawInbox();
}, 500);
const lookAtThread = paced(() => (["activity", "problems"].includes(panels.now) ? null : panels.refresh()), SELDOM_MS);
const lookAtActivity = paced(() => (panels.now === "activity" ? panels.refresh() : null), RARELY_MS);
const lookAtContext = () => (lookAtThread(), lookAtActivity());
const lookAtProblems = paced(() => problems.refresh(), SELDOM_MS);
const lookAgain = paced(() => feed.reconcile(), SELDOM_MS);

function drawInbox() {
  const mine = channels.states.find((state) => state.channel === compose.me);
  const node = byId("inbox");
  node.hidden = !mine?.unread;
  document.title = `${mine?.unread ? `(${mine.unread}) ` : ""}${byId("production").textContent} · mailroom`;
  if (mine?.unread)
    node.replaceChildren(
      el("button", { type: "button", class: "link", onclick: () => channels.select([mine.channel]) }, `${mine.unread} unread for you`),
      " ",
      el("button", { type: "button", class: "mark-all", onclick: () => readAll(mine.channel) }, "Mark as read"),
    );
}

async function readAll(channel) {
  try {
    const { read } = await api.post("read", { channel, reader: channel });
    toast(`${amount(read, "message")} marked as read`);
    lookAtChannels();
  } catch (error) {
    toast(error.message, true);
  }
}

/** Say to a screen reader what has come in, in one sentence every few seconds. */
let unsaid = [];
const sayHeard = paced(() => {
  const last = unsaid.at(-1);
  const more = unsaid.length > 1 ? `${amount(unsaid.length, "new message")}, the last ` : "";
  byId("heard").textContent = `${more}${last.type} from ${last.by} to ${last.to.join(", ")}: ${last.gist}`;
  unsaid = [];
}, SAID_MS);

function heard(messages) {
  unsaid.push(...messages);
  if (unsaid.length) sayHeard();
}

let loaded = false;
const handlers = {
  async hello() {
    lookAtChannels();
    lookAtProblems();
    if (loaded) return;
    loaded = true;
    await feed.newest();
  },
  messages({ messages, again }) {
    feed.take(messages, again);
    if (!again) heard(messages.filter((message) => feed.wants(message) && message.sender !== compose.me));
    const told = new Set(messages.flatMap((message) => message.to));
    handlers.told = told;
    lookAtChannels();
    lookAtContext();
    if (again || messages.some((message) => message.replaces)) lookAgain();
    document.dispatchEvent(new CustomEvent("monitor:messages", { detail: messages.length }));
  },
  changed({ channels: names }) {
    lookAtChannels();
    lookAtContext();
    lookAtProblems();
    setTimeout(lookAtProblems, SETTLED_MS);
    if (names.some((name) => !handlers.told?.has(name))) lookAgain();
    handlers.told = null;
  },
  merged() {
    lookAtChannels();
    lookAtContext();
    lookAgain();
  },
  lost() {
    feed.newest();
  },
  beat({ looked_s }) {
    problems.beat(looked_s);
  },
  state(state) {
    const node = byId("link-state");
    if (node.dataset.state === state) return;
    node.dataset.state = state;
    node.textContent = { live: "live", resting: "resting" }[state] ?? "no connection; trying again";
  },
};

// --- what people do ----------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const link = event.target.closest(".message a[href^='#m-']");
  const message = event.target.closest(".message[data-id]");
  if (link) {
    event.preventDefault();
    return act.thread(link.hash.slice(3));
  }
  if (!message || event.target.closest("a, button, summary, input") || String(getSelection())) return;
  const item = feed.known.get(message.dataset.id);
  if (!item || !message.closest("#feed")) return;
  feed.mark(item);
  act.thread(item.message.id);
});

const withCurrent = (work) => () => {
  if (!feed.current) feed.step(1);
  const item = feed.current;
  if (item) work(item.message);
};

listen({
  "/": () => panels.open("search", null),
  j: () => feed.step(1),
  k: () => feed.step(-1),
  t: withCurrent((message) => act.thread(message.id)),
  Enter: withCurrent((message) => act.thread(message.id)),
  r: withCurrent((message) => api.session.read_only || act.reply(message)),
  c: withCurrent((message) => copy(message.ref.split("~")[0])),
  n: () => api.session.read_only || compose.focus(),
  g: () => feed.at("1970-01-01T00:00:00Z"),
  G: () => feed.newest(),
  s: () => panels.open("scenes", null),
  a: () => panels.open("activity", null),
  p: () => panels.open("problems", null),
  digit: (number) => (number ? channels.names[number - 1] && channels.select([channels.names[number - 1]]) : channels.select([])),
  Escape() {
    pane("feed");
    feed.focus();
  },
});

byId("theme").addEventListener("click", theme.toggle);
byId("jump-date").addEventListener("change", (event) => event.target.value && feed.at(`${event.target.value}T00:00:00Z`));
for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => pane(button.dataset.show));

panels.open("thread");
try {
  const session = await api.begin();
  byId("production").textContent = session.production;
  compose.begin();
} catch (error) {
  toast(error.message, true);
}
new Live(handlers);
