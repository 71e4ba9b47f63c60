"""How everyday calls take as a production grows: from a thousand messages to a million, from 8 channels to 500.

Each size is measured in a process of its own, with one Mailroom whose index stands: durable posts, waits that a post
ends, and the queries. The larger productions are also changed by an editor, which saves one mailbox anew: how long the
next answer about it takes, and for how long it keeps other callers of the process from running.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mq_server import Mailroom
from tools.bench.chart import STYLE, text
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, Corpus, payload
from tools.bench.libraries import ACTIVITY, HISTORY
from tools.bench.lookups import Ask, ask_activity, ask_history, ask_thread
from tools.bench.machine import Machine
from tools.bench.measuring import WrongResult, shown_number

_CHANNEL = CHANNELS[3]
_TICK_S = 0.001
_PAUSE_S = 0.005  # lets the reader begin to wait
_WORD = b"lantern"
_CALLS = 200
_WARM_UP_CALLS = 2
CALLS = ("post", "wait", "history", "thread", "activity")
TITLES = {
    "post": "durable post",
    "wait": "post to wake",
    "history": f"newest {HISTORY} of a channel",
    "thread": "thread of 20",
    "activity": f"newest {ACTIVITY} of all",
    "answer": "first answer after an editor's save",
    "stall": "longest stall of others meanwhile",
}


class Size(NamedTuple):
    """How large a production is."""

    messages: int
    channels: int


class Growth(NamedTuple):
    """Medians in milliseconds by call, for each size; `answer` and `stall` follow an editor's save of one mailbox."""

    by_messages: dict[Size, dict[str, float]]
    by_channels: dict[Size, dict[str, float]]


BY_MESSAGES = tuple(Size(messages, len(CHANNELS)) for messages in (1_000, 10_000, 100_000, 1_000_000))
BY_CHANNELS = tuple(Size(100_000, channels) for channels in (len(CHANNELS), 32, 128, 500))


def run(folder: Path, *, quick: bool, progress: Callable[[str], None]) -> Growth:
    """Measure all sizes.

    Args:
        folder: Where the files go.
        quick: Whether to leave out the million, and to take a tenth of the calls.
        progress: Is told each result as it comes.

    Raises:
        WrongResult: An answer was wrong.
    """
    by_messages = BY_MESSAGES[:-1] if quick else BY_MESSAGES
    by_channels = tuple(Size(size.messages // 10, size.channels) for size in BY_CHANNELS) if quick else BY_CHANNELS
    found: dict[Size, dict[str, float]] = {}
    for size in dict.fromkeys(by_messages + by_channels):
        with (
            TemporaryDirectory(prefix="mq-bench-", dir=folder) as work,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
        ):
            found[size] = process.submit(measure, Path(work) / "production", size, quick).result()
        shown = ", ".join(f"{name} {shown_number(value)}" for name, value in found[size].items())
        progress(f"{size.messages:,} messages, {size.channels} channels: {shown} ms")
    return Growth({size: found[size] for size in by_messages}, {size: found[size] for size in by_channels})


def measure(root: Path, size: Size, quick: bool) -> dict[str, float]:
    """What the calls take in a production of some size, in milliseconds."""
    names = CHANNELS + tuple(f"voice_{number}" for number in range(len(CHANNELS), size.channels))
    corpus = Corpus.written(root, size.messages, names)
    return asyncio.run(_measured(corpus, _CALLS // 10 if quick else _CALLS))


async def _measured(corpus: Corpus, calls: int) -> dict[str, float]:
    # What is asked reads the files itself, so it is made before anything is posted.
    questions = {"history": ask_history(corpus), "thread": ask_thread(corpus), "activity": ask_activity(corpus)}
    async with Mailroom(corpus.root) as room:
        await room.directory()
        found = {name: await _median_ms(partial(_answered, room, ask), calls) for name, ask in questions.items()}
        found["post"] = await _median_ms(partial(_posted, room), calls)
        found["wait"] = await _median_ms(partial(_woken, room), calls)
        found["answer"], found["stall"] = await _saved_by_an_editor(room, corpus)
    return {name: found[name] for name in TITLES}


async def _median_ms(seconds_of: Callable[[int], Awaitable[float]], calls: int) -> float:
    """The median of some calls; each says how long it took, given its number."""
    seconds = [await seconds_of(number) for number in range(calls + _WARM_UP_CALLS)]
    return statistics.median(seconds[_WARM_UP_CALLS:]) * 1000


async def _answered(room: Mailroom, ask: Ask, number: int) -> float:
    started = time.perf_counter()
    is_right = await ask(room, number)
    elapsed = time.perf_counter() - started
    if not is_right:
        raise WrongResult("a query gave a wrong answer")
    return elapsed


async def _posted(room: Mailroom, number: int) -> float:
    started = time.perf_counter()
    await room.post(_CHANNEL, sender=SENDER, msg_type=MSG_TYPE, payload=payload(number))
    return time.perf_counter() - started


async def _woken(room: Mailroom, number: int) -> float:
    """The time from a post to the end of the wait for it."""
    newest = (await room.history(_CHANNEL, limit=1)).messages[-1]
    waiting = asyncio.create_task(room.wait(_CHANNEL, since=newest.id))
    await asyncio.sleep(_PAUSE_S)
    started = time.perf_counter()
    await _posted(room, number)
    page = await waiting
    elapsed = time.perf_counter() - started
    if len(page.messages) != 1:
        raise WrongResult("a wait ended without the message")
    return elapsed


async def _saved_by_an_editor(room: Mailroom, corpus: Corpus) -> tuple[float, float]:
    """How long the first answer takes after a word was changed in one mailbox; the longest stall, in milliseconds."""
    mailbox = corpus.root / f"{_CHANNEL}.jsonl"
    saved = corpus.root / "saved.tmp"
    saved.write_bytes(mailbox.read_bytes().replace(b"lamp", _WORD, 1))
    ticker = _Ticker()
    ticking = asyncio.create_task(ticker.tick())
    await asyncio.sleep(0)
    started = time.perf_counter()
    await asyncio.to_thread(saved.replace, mailbox)  # to give back the old file's blocks takes the system its time
    message = await room.message(f"{_CHANNEL}:1")
    elapsed = time.perf_counter() - started
    await room.history(_CHANNEL, limit=HISTORY)
    await asyncio.sleep(_TICK_S)
    ticking.cancel()
    if _WORD.decode() not in message.payload["text"]:
        raise WrongResult("an answer does not know of an editor's save")
    return elapsed * 1000, ticker.longest_s * 1000


class _Ticker:
    """A task that wants to run every millisecond, and the longest time that it had to wait."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def tick(self) -> None:
        """Tick until cancelled."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - last - _TICK_S)
            last = now


# --- showing ------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 900, 360
_LEFT, _RIGHT, _TOP, _BOTTOM, _BETWEEN = 56, 170, 48, 68, 40
_COLOURS = {
    "post": ("#cf222e", "#ff7b72"),
    "wait": ("#0969da", "#58a6ff"),
    "history": ("#1a7f37", "#3fb950"),
    "thread": ("#8250df", "#be8fff"),
    "activity": ("#9a6700", "#d29922"),
}
"""By call, on a light page and on a dark one."""
_LINES = "polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round }\n" + "\n".join(
    f"polyline.{name} {{ stroke: {light} }} text.{name} {{ fill: {light} }}\n"
    f"@media (prefers-color-scheme: dark) {{ polyline.{name} {{ stroke: {dark} }} text.{name} {{ fill: {dark} }} }}"
    for name, (light, dark) in _COLOURS.items()
)


def markdown(growth: Growth) -> str:
    """A table for each direction of growth: a line for each call, a column for each size."""
    by_messages, by_channels = growth
    return "\n\n".join(
        [
            _table(_messages_in(by_messages), {f"{size.messages:,}": found for size, found in by_messages.items()}),
            _table(_channels_of(by_channels), {f"{size.channels}": found for size, found in by_channels.items()}),
        ]
    )


def _messages_in(sizes: Mapping[Size, object]) -> str:
    return f"messages, in {next(iter(sizes)).channels} channels"


def _channels_of(sizes: Mapping[Size, object]) -> str:
    return f"channels, with {next(iter(sizes)).messages:,} messages"


def _table(what: str, columns: dict[str, dict[str, float]]) -> str:
    head = [f"ms, by {what}", *columns]
    rows = [[title, *(shown_number(found[name]) for found in columns.values())] for name, title in TITLES.items()]
    rule = ["---", *["---:"] * len(columns)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def as_json(growth: Growth) -> list[list[dict[str, Any]]]:
    """Everything that was measured, unrounded."""
    return [[size._asdict() | {"ms": found} for size, found in direction.items()] for direction in growth]


def from_json(document: list[list[dict[str, Any]]]) -> Growth:
    """What `as_json` made, to be shown again."""
    return Growth(*({Size(one["messages"], one["channels"]): one["ms"] for one in each} for each in document))


def svg(growth: Growth, machine: Machine) -> str:
    """A chart: a line for each call, once over the number of messages and once over that of channels, both
    logarithmic.
    """
    values = [found[name] for direction in growth for found in direction.values() for name in CALLS]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    width = (_WIDTH - _LEFT - _RIGHT - _BETWEEN) / 2
    bottom = _HEIGHT - _BOTTOM

    def y(milliseconds: float) -> float:
        return bottom - (math.log10(milliseconds) - low) / (high - low) * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-label="What calls take as a production grows">',
        f"<style>{STYLE}{_LINES}</style>",
        text(_LEFT, 24, "Median time of a call as a production grows", "", "start"),
    ]
    panels = (
        (_messages_in(growth.by_messages), [(size.messages, found) for size, found in growth.by_messages.items()]),
        (_channels_of(growth.by_channels), [(size.channels, found) for size, found in growth.by_channels.items()]),
    )
    ends: dict[str, float] = {}
    for number, (what, points) in enumerate(panels):
        left = _LEFT + number * (width + _BETWEEN)
        first, last = math.log10(points[0][0]), math.log10(points[-1][0])
        for power in range(low, high + 1):
            at = y(10.0**power)
            parts.append(f'<line class="rule" x1="{left}" x2="{left + width:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
            if not number:
                parts.append(text(left - 6, at + 4, f"{10.0**power:g} ms", "small", "end"))
        across = [left + (math.log10(count) - first) / (last - first) * width for count, _ in points]
        for x, (count, _) in zip(across, points, strict=True):
            parts.append(text(x, bottom + 16, f"{count:,}", "small", "middle"))
        parts.append(text(left + width / 2, bottom + 34, what, "", "middle"))
        for name in CALLS:
            line = " ".join(f"{x:.1f},{y(found[name]):.1f}" for x, (_, found) in zip(across, points, strict=True))
            told = ", ".join(f"{shown_number(found[name])} ms at {count:,}" for count, found in points)
            title = f"<title>{TITLES[name]}: {told}</title>"
            parts.append(f'<polyline class="{name}" points="{line}">{title}</polyline>')
            ends[name] = y(points[-1][1][name])
    last_y = 0.0
    for name in sorted(ends, key=ends.__getitem__):
        last_y = max(ends[name] + 4, last_y + 15)  # names below each other, however close their lines end
        parts.append(text(_WIDTH - _RIGHT + 8, last_y, TITLES[name], name, "start"))
    parts.append(
        text(_WIDTH - 8, _HEIGHT - 4, f"{machine.cpu}, {machine.cores} cores; {machine.system}", "small", "end")
    )
    return "\n".join([*parts, "</svg>", ""])
