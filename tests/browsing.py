"""What the tests of the page in a real browser share: Chromium, an open page, and productions to look at."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from tests.rendering import said

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium on this machine: apt-get install chromium"
)
expect = playwright.expect
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 400, "height": 800}
TIMEOUT_MS = 15_000
expect.set_options(timeout=TIMEOUT_MS)
MANY = 100_000
CHANNELS = ("narrator", "dialogist", "writer", "shot_composer")


def chromium() -> Iterator[Browser]:
    """Chromium, for a fixture of the module."""
    with playwright.sync_playwright() as runner:
        # As root, as in most containers, Chromium runs only without its sandbox.
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        started = runner.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, url: str, viewport: Any = WIDE, **options: Any) -> Iterator[Page]:
    """The page of a server, once it is live; nothing may go wrong in it, and nothing be asked of anybody else."""
    context = browser.new_context(viewport=viewport, **options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    wrong: list[str] = []
    base = url.removesuffix("mcp")
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: None if request.url.startswith(base) else wrong.append(request.url))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.goto(base)
    expect(page.locator("#link-state")).to_have_text("live")
    expect(page.locator("#feed")).to_have_attribute("aria-busy", "false")
    yield page
    assert wrong == []
    context.close()


def elsewhere(root: Path, work: Callable[[Mailroom], Awaitable[Any]]) -> Any:
    """Do something in the production's folder beside the server."""

    async def worked() -> Any:
        async with Mailroom(root) as room:
            return await work(room)

    # Playwright has an event loop on this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, worked()).result()


def say(root: Path, text: str, channel: str = "narrator", **options: Any) -> Any:
    """Post a note."""
    options = {"sender": "scene_director", "msg_type": "note", "payload": {"text": text}} | options
    return elsewhere(root, lambda room: room.post(channel, **options))


def write_many(root: Path, count: int, *, channels: int) -> None:
    """Write so many messages, as an editor would."""
    for part in range(channels):
        lines = (
            encode_line(said(number, "note", {"text": f"message {number}"}, sender=f"agent_{number % 8}").stored())
            for number in range(part + 1, count + 1, channels)
        )
        (root / f"{CHANNELS[part]}.jsonl").write_bytes(b"".join(lines))


def top_of(page: Page, text: str) -> float:
    """How far down the screen the message with that text stands, in pixels."""
    box = page.locator("#feed .message").filter(has=page.get_by_text(text, exact=True)).bounding_box()
    assert box
    return float(box["y"])


def a_scene(root: Path) -> str:
    """A scene that failed, was told why, and passed; the id of the second version."""

    async def play(room: Mailroom) -> str:
        last = ""
        for number, score in ((1, 0.45), (2, 0.9)):
            blocks = [
                {"kind": "action", "text": f"Rain, take {number}."},
                {"kind": "line", "who": "Vreni", "text": "Tea."},
            ]
            version = await room.post(
                "quality_assessor",
                sender="scene_director",
                msg_type="scene",
                scene="q2-s3",
                payload={"version": number, "title": "The Other Fifty", "blocks": blocks},
            )
            last = version.id
            judged = {"of": last, "score": score}
            await room.post(reply_to=last, sender="quality_assessor", msg_type="score", payload=judged)
            if number == 1:
                why = {"of": last, "text": "They both explain."}
                await room.post(reply_to=last, sender="quality_assessor", msg_type="feedback", payload=why)
        final = {"of": last, "score": 0.9}
        await room.post(reply_to=last, sender="quality_assessor", msg_type="finalize", payload=final)
        return last

    return str(elsewhere(root, play))


def drag_to(page: Page, share: float) -> None:
    """Put the scrollbar of the feed to a share of its way, and wait until messages stand there."""
    move = """async share => {
        const node = document.getElementById("feed");
        node.scrollTop = Math.round((node.scrollHeight - node.clientHeight) * share);
        const given_up = performance.now() + 15_000;
        do await new Promise(requestAnimationFrame);
        while (!(IN_SIGHT)() && performance.now() < given_up);
    }"""
    page.evaluate(move.replace("IN_SIGHT", IN_SIGHT), share)


def number_in_sight(page: Page) -> int:
    """The number of the first message that is wholly in sight."""
    return int(str(page.evaluate(f"({IN_SIGHT})().querySelector('.payload').innerText")).split()[-1])


IN_SIGHT = """() => {
    const { top, bottom } = document.getElementById("feed").getBoundingClientRect();
    const boxes = [...document.querySelectorAll("#feed .message")].map((node) => [node, node.getBoundingClientRect()]);
    return boxes.find(([, box]) => box.top >= top && box.bottom <= bottom)?.[0];
}"""
