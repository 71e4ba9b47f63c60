"""The monitor in a real browser: what people see, and that no message can do anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from tests.browsing import (
    MANY,
    NARROW,
    a_scene,
    chromium,
    drag_to,
    elsewhere,
    expect,
    needs_chromium,
    number_in_sight,
    opened,
    say,
    top_of,
    write_many,
)
from tests.monitoring import background, write_hostile
from tests.rendering import HOSTILE, said
from tests.support import loaded
from tests.test_serve import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

browser = pytest.fixture(scope="module")(chromium)
pytestmark = needs_chromium


# --- looking ----------------------------------------------------------------------------------------------------------


def test_the_feed_is_live_and_keeps_its_place(tmp_path: Path, browser: Browser) -> None:
    write_many(tmp_path, 30, channels=1)
    with background(tmp_path) as url, opened(browser, url) as page:
        feed = page.locator("#feed")
        expect(feed.locator(".message")).to_have_count(30)
        expect(feed.locator(".message").last).to_be_in_viewport()
        say(tmp_path, "somebody else’s process")
        expect(feed.locator(".message").last).to_contain_text("somebody else’s process")
        expect(feed.locator(".message").last).to_be_in_viewport()
        feed.evaluate("node => { node.scrollTop = 400; }")
        before = top_of(page, "message 6")
        say(tmp_path, "while reading above")
        expect(feed.locator(".message")).to_have_count(32)
        assert abs(top_of(page, "message 6") - before) <= 1
        expect(page.locator("#newer")).to_have_text("1 new message ↓")
        page.locator("#newer").click()
        expect(feed.get_by_text("while reading above")).to_be_in_viewport()
        path = tmp_path / "narrator.jsonl"
        path.write_bytes(path.read_bytes().replace(b"while reading above", b"mended in an editor"))
        expect(feed.locator(".message").last).to_contain_text("mended in an editor")


def test_it_catches_up_after_the_server_was_away(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "before")
    with served(tmp_path) as (process, url):
        port = url.split(":")[2].split("/")[0]
        with opened(browser, url) as page:
            expect(page.locator("#feed .message")).to_have_count(1)
            process.kill()
            process.wait()
            expect(page.locator("#link-state")).to_contain_text("no connection")
            say(tmp_path, "meanwhile")
            with served(tmp_path, "--port", port):
                expect(page.locator("#link-state")).to_have_text("live")
                expect(page.locator("#feed .message")).to_have_count(2)
                say(tmp_path, "after")
                expect(page.locator("#feed .payload")).to_have_text(["before", "meanwhile", "after"])
                page.locator("#me").fill("writer")
                page.locator("#compose [name=channel]").fill("narrator")
                page.locator("#compose textarea").fill("with the new server’s token")
                page.locator("#compose textarea").press("Control+Enter")
                expect(page.locator("#feed .message").last).to_contain_text("with the new server’s token")


def test_channels_show_what_waits_and_choose_what_is_seen(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "for the narrator")
    say(tmp_path, "for the dialogist", "dialogist")
    with background(tmp_path) as url, opened(browser, url) as page:
        narrator = page.locator("button.channel[data-key=narrator]")
        expect(narrator).to_have_attribute("aria-label", "narrator, 1 unread")
        narrator.click()
        expect(page.locator("#feed .payload")).to_have_text(["for the narrator"])
        page.get_by_label("Show dialogist too").check(force=True)
        expect(page.locator("#feed .message")).to_have_count(2)
        expect(page.locator("#feed-title")).to_have_text("narrator, dialogist")
        narrator.click()
        say(tmp_path, "more for the dialogist", "dialogist")
        expect(page.locator("button.channel[data-key=dialogist]")).to_have_class("channel fresh")
        expect(page.locator("#feed .message")).to_have_count(1)


def test_a_thread_is_a_tree_with_the_delivery_of_its_message(tmp_path: Path, browser: Browser) -> None:
    first = say(tmp_path, "Why?", msg_type="query", payload={"text": "Why?"})
    reply = say(tmp_path, "So.", "scene_director", sender="narrator", reply_to=first.id)
    elsewhere(tmp_path, lambda room: room.read("narrator", ack=True))
    with background(tmp_path) as url, opened(browser, url, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.locator("#feed .message").first.click()
        panel = page.locator("#panel-thread")
        expect(panel.locator(".chosen .payload")).to_have_text("Why?")
        expect(panel.locator(".tree > li > ol > li .gist")).to_have_text("So.")
        expect(panel.locator(".rungs .did")).to_have_text(["stored", "acked"])
        panel.locator(".copy").click()
        assert page.evaluate("navigator.clipboard.readText()") == "narrator:1"
        panel.locator(".row").click()
        expect(panel.locator(".chosen")).to_contain_text("So.")
        expect(panel.locator(".rungs .did")).to_have_text(["stored", "not fetched", "not acked"])
        elsewhere(tmp_path, lambda room: room.settle("scene_director", ack=reply.id))
        expect(panel.locator(".rungs .did")).to_have_text(["stored", "acked"])


def test_a_long_thread_loads_its_parts(tmp_path: Path, browser: Browser) -> None:
    root = said(1, "query", {"text": "Why?"})
    replies = [said(number, "note", {"text": f"reply {number}"}, reply_to=root.id) for number in range(2, 1002)]
    answer = said(1002, "answer", {"text": "deeper"}, reply_to=replies[499].id)
    messages = [root, *replies, answer]
    (tmp_path / "narrator.jsonl").write_bytes(b"".join(encode_line(each.stored()) for each in messages))
    with background(tmp_path) as url, opened(browser, url) as page:
        page.keyboard.press("/")
        page.keyboard.type('"reply 500"')
        page.locator(".hit").click()
        expect(page.locator("#feed .message.current")).to_contain_text("reply 500")
        page.keyboard.press("Escape")
        page.keyboard.press("t")
        panel = page.locator("#panel-thread")
        expect(panel.locator(".chosen .payload")).to_have_text("reply 500")
        expect(panel.locator(".panel-head")).to_contain_text("1,002 messages")
        earlier, later = panel.locator(".more.earlier"), panel.locator(".more.later")
        expect(earlier).to_have_text("299 earlier messages")
        expect(later).to_have_text("303 later messages")
        expect(panel.locator(".row, .chosen")).to_have_count(400)
        later.click()
        expect(later).to_have_text("104 later messages")
        expect(later).to_be_focused()
        later.click()
        expect(later).to_have_count(0)
        expect(panel.locator(".row").last).to_contain_text("reply 1001")
        # An answer hangs below what it answers, also where that is the first of a part.
        expect(panel.locator(".tree > li:has(> .row:has-text('reply 501')) > ol .gist")).to_have_text("deeper")
        earlier.scroll_into_view_if_needed()
        before = panel.evaluate("node => node.scrollHeight - node.scrollTop")
        earlier.click()
        expect(earlier).to_have_text("99 earlier messages")
        assert abs(panel.evaluate("node => node.scrollHeight - node.scrollTop") - before) <= 1
        earlier.click()
        expect(panel.locator(".row, .chosen")).to_have_count(1002)
        say(tmp_path, "one more", reply_to=root.id, sender="narrator", channel="writer")
        expect(panel.locator(".panel-head")).to_contain_text("1,003 messages")


def test_the_scene_board_shows_versions_scores_and_the_script(tmp_path: Path, browser: Browser) -> None:
    a_scene(tmp_path)
    with background(tmp_path) as url, opened(browser, url) as page:
        page.get_by_role("tab", name="Scenes").click()
        card = page.locator(".card")
        expect(card.locator("h3")).to_have_text("The Other Fifty")
        expect(card.locator(".standing")).to_have_text("finalised")
        expect(card.locator(".versions .figure")).to_have_text(["0.45", "0.90"])
        expect(card.get_by_role("img", name="version 1: 0.45, version 2: 0.90; 0.8 passes")).to_be_visible()
        card.get_by_role("button", name="Read the final version").click()
        expect(page.locator("#reader .action")).to_have_text("Rain, take 2.")
        page.keyboard.press("Escape")
        expect(page.locator("#reader")).to_be_hidden()
        page.locator(".card .versions .link").first.click()
        expect(page.locator("#panel-thread .chosen")).to_contain_text("Rain, take 1.")


def test_activity_can_be_zoomed_and_filters_the_feed(tmp_path: Path, browser: Browser) -> None:
    a_scene(tmp_path)
    say(tmp_path, "something else")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.get_by_role("tab", name="Activity").click()
        panel = page.locator("#panel-activity")
        expect(panel.locator(".chart rect").first).to_be_attached()
        panel.get_by_role("button", name="1 message from scene_director to narrator").click()
        expect(page.locator("#feed .payload")).to_have_text(["something else"])
        expect(page.locator(".chip")).to_have_text("from scene_director ×")
        page.locator(".chip").click()
        box = panel.locator(".zoomable").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 40)
        page.mouse.up()
        expect(panel.locator(".zoom-out")).to_be_visible()
        panel.locator(".zoom-out").click()
        expect(panel.locator(".panel-head")).to_contain_text("All of it")


def test_search_marks_the_words_and_leads_to_the_message(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "A tin stands on the shelf.")
    for number in range(5):
        say(tmp_path, f"nothing {number}", "dialogist", sender="narrator")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.locator("button.channel[data-key=dialogist]").click()
        page.keyboard.press("/")
        expect(page.locator(".search [name=q]")).to_be_focused()
        page.keyboard.type("TIN shelf")
        expect(page.locator(".hit mark")).to_have_text(["tin", "shelf"])
        page.locator(".search [name=sender]").select_option("narrator")
        expect(page.locator(".hit")).to_have_count(0)
        page.locator(".search [name=sender]").select_option("")
        page.locator(".hit").click()
        expect(page.locator("#feed .message.current")).to_contain_text("A tin stands on the shelf.")


def test_what_is_wrong_is_seen_at_once_with_what_to_do(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "fine")
    with background(tmp_path) as url, opened(browser, url) as page:
        expect(page.locator("#alarm")).to_be_hidden()
        with (tmp_path / "narrator.jsonl").open("ab") as file:
            file.write(b"<<<<<<< HEAD\n")
        elsewhere(tmp_path, lambda room: room.settle("narrator", reject="narrator:1", reason="no rain here"))
        expect(page.locator("#alarm")).to_contain_text("1 damaged line, 1 dead letter")
        page.locator("#alarm button").click()
        panel = page.locator("#panel-problems")
        expect(panel.locator(".copy").first).to_have_text("narrator.jsonl:2")
        expect(panel).to_contain_text("mq settle dead_letters --reopen")


def test_a_stalled_watcher_is_said(tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    say(tmp_path, "x")
    looked_s = 1.0
    monkeypatch.setattr(Mailroom, "last_look_s", lambda _: looked_s)
    monkeypatch.setattr("mq_server.monitor.events.BEAT_S", 0.1)
    with background(tmp_path) as url, opened(browser, url) as page:
        expect(page.locator("#alarm")).to_be_hidden()
        looked_s = 42.0
        expect(page.locator("#alarm")).to_contain_text("The watcher has stalled.")
        page.locator("#alarm button").click()
        expect(page.locator("#panel-problems h3")).to_have_text("The watcher has stalled")
        expect(page.locator("#panel-problems")).to_contain_text("42 s ago")
        looked_s = 0.5
        expect(page.locator("#alarm")).to_be_hidden()


# --- safety, width, size ----------------------------------------------------------------------------------------------


def test_no_message_runs_script_or_loads_anything(tmp_path: Path, browser: Browser) -> None:
    count = write_hostile(tmp_path, HOSTILE)
    with background(tmp_path) as url, opened(browser, url) as page:  # which watches for script, requests, dialogs
        messages = page.locator("#feed .message")
        expect(messages.first).to_be_visible()
        assert messages.count() > count // 2
        assert page.locator("#feed :is(script, img, iframe, object, style, link)").count() == 0
        page.evaluate("document.querySelectorAll('#feed .message').forEach(node => node.click())")
        expect(page.locator("#panel-thread .chosen")).to_be_visible()
        assert page.locator("#panels :is(script, img, iframe)").count() == 0
        for name in ("Scenes", "Activity", "Problems"):
            page.get_by_role("tab", name=name).click()
        page.keyboard.press("/")
        page.keyboard.type("alert")
        expect(page.locator(".hit mark").first).to_have_text("alert")
        assert "\u202e" not in page.locator("body").inner_text()
        assert page.evaluate("typeof window.hacked") == "undefined"
        # Nor could the page's own code be tricked into it: markup enters by one policy alone.
        refused = "() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken'; } catch { return 'refused'; } }"
        assert page.evaluate(refused) == "refused"


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_fits_on_a_phone(tmp_path: Path, browser: Browser, scheme: Any) -> None:
    a_scene(tmp_path)
    with background(tmp_path) as url, opened(browser, url, NARROW, color_scheme=scheme) as page:

        def fits() -> None:
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]

        expect(page.locator("#feed .message").last).to_be_in_viewport()
        fits()
        page.locator("#feed .message").last.click()
        expect(page.locator("#panel-thread .chosen")).to_be_visible()
        expect(page.locator("#feed")).to_be_hidden()
        for name in ("Scenes", "Activity", "Search", "Problems"):
            page.get_by_role("tab", name=name).click()
            fits()
        page.get_by_role("button", name="Channels").click()
        fits()
        page.locator("button.channel[data-key=scene_director]").click()
        expect(page.locator("#feed")).to_be_visible()


def test_light_or_dark_is_the_systems_until_it_is_chosen(tmp_path: Path, browser: Browser) -> None:
    paper = "() => getComputedStyle(document.documentElement).getPropertyValue('--paper').trim()"
    with background(tmp_path) as url, opened(browser, url, color_scheme="dark") as page:
        assert page.evaluate(paper) == "#15171b"
        page.locator("#theme").click()
        assert page.evaluate(paper) == "#fdfcfa"
        page.reload()
        assert page.evaluate(paper) == "#fdfcfa"
        page.locator("#theme").click()
        assert page.evaluate(paper) == "#15171b"


def test_a_hundred_thousand_messages_paint_at_once_and_scroll(tmp_path: Path, browser: Browser) -> None:
    write_many(tmp_path, MANY, channels=4)
    with background(tmp_path) as url, opened(browser, url) as page:
        feed = page.locator("#feed")
        expect(feed.locator(".message").last).to_contain_text(f"message {MANY}")
        page.reload()
        expect(feed.locator(".message").last).to_contain_text(f"message {MANY}")
        painted_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert painted_ms < 300 * loaded()
        for expected in range(MANY - 60, MANY - 601, -60):
            # Up to the first that is loaded.
            feed.evaluate("node => { node.scrollTop = node.querySelector('.message').offsetTop - node.offsetTop; }")
            expect(feed.get_by_text(f"message {expected}", exact=True)).to_be_attached()
        assert feed.locator(".message").count() <= 300
        page.keyboard.press("g")
        expect(feed.get_by_text("message 1", exact=True)).to_be_in_viewport()
        page.locator("#newer").click()
        expect(feed.get_by_text(f"message {MANY}", exact=True)).to_be_in_viewport()


def test_the_scrollbar_spans_everything_and_loads_where_one_drags_it(tmp_path: Path, browser: Browser) -> None:
    write_many(tmp_path, MANY, channels=4)
    with background(tmp_path) as url, opened(browser, url) as page:
        feed = page.locator("#feed")
        expect(feed.locator(".message").last).to_contain_text(f"message {MANY}")
        for share in (0.5, 0.2, 0.9):
            drag_to(page, share)
            expect(feed.locator(f".message[aria-posinset='{number_in_sight(page)}']")).to_be_in_viewport()
            assert abs(number_in_sight(page) / MANY - share) < 0.01
            assert feed.locator(".message").count() <= 300
        # What comes in, at the end or by a merge into the past, moves nothing of what is read.
        text = f"message {number_in_sight(page) + 1}"
        before = top_of(page, text)
        say(tmp_path, "at the end")
        expect(page.locator("#newer")).to_have_text("1 new message ↓")
        late = encode_line(
            said(MANY + 1, "note", {"text": "from a branch"}, timestamp=said(1, "note", {}).timestamp).stored()
        )
        path = tmp_path / "narrator.jsonl"
        path.write_bytes(late + path.read_bytes())
        expect(feed.locator(f"[aria-setsize='{MANY + 2}']").first).to_be_attached()
        # Far down as well: where a browser's scrolling is coarse, what each change moves would add up.
        for number in range(3, 9):
            say(tmp_path, f"at the end, {number}")
            expect(feed.locator(f"[aria-setsize='{MANY + number}']").first).to_be_attached()
        assert abs(top_of(page, text) - before) <= 0.25
        drag_to(page, 1)
        expect(feed.get_by_text("at the end, 8", exact=True)).to_be_in_viewport()
        drag_to(page, 0)
        expect(feed.get_by_text("message 1", exact=True)).to_be_in_viewport()
        expect(feed.get_by_text("from a branch", exact=True)).to_be_in_viewport()


def test_what_comes_in_while_a_page_is_on_its_way_is_shown(tmp_path: Path, browser: Browser) -> None:
    write_many(tmp_path, 300, channels=1)
    with background(tmp_path) as url, opened(browser, url) as page:
        drag_to(page, 0)
        held: list[Any] = []
        page.route("**/api/feed?*", lambda route: held.append((route, route.fetch())), times=1)
        page.locator("#newer").click()
        while not held:
            page.evaluate("new Promise(requestAnimationFrame)")
        say(tmp_path, "meanwhile")
        expect(page.locator("#heard")).to_contain_text("meanwhile")
        ((route, response),) = held
        route.fulfill(response=response)
        expect(page.locator("#feed").get_by_text("message 300", exact=True)).to_be_in_viewport()
        expect(page.locator("#feed .message").last).to_contain_text("meanwhile")


def test_the_scrollbar_of_a_filtered_feed_spans_what_it_shows(tmp_path: Path, browser: Browser) -> None:
    write_many(tmp_path, 2000, channels=2)
    with background(tmp_path) as url, opened(browser, url) as page:
        feed = page.locator("#feed")
        whole = feed.evaluate("node => node.scrollHeight")
        page.get_by_role("tab", name="Activity").click()
        page.locator(".legend button").filter(has_text="agent_1").click()
        expect(page.locator(".chip")).to_have_text("from agent_1 ×")
        expect(feed.locator(".message").last).to_contain_text("message 1993")
        assert 0.5 < 8 * feed.evaluate("node => node.scrollHeight") / whole < 2
        drag_to(page, 0.5)
        assert abs(number_in_sight(page) / 2000 - 0.5) < 0.05
        assert feed.locator(".message:not([data-sender=agent_1])").count() == 0
        drag_to(page, 0)
        expect(feed.get_by_text("message 1", exact=True)).to_be_in_viewport()
