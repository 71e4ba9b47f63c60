"""The page by keyboard and by screen reader, in a real browser: names, roles, focus, what is announced."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browsing import NARROW, a_scene, chromium, expect, needs_chromium, opened, say, write_many
from tests.monitoring import background

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

browser = pytest.fixture(scope="module")(chromium)
pytestmark = needs_chromium
NAMED = {
    "article",
    "button",
    "checkbox",
    "combobox",
    "complementary",
    "Date",
    "dialog",
    "feed",
    "image",
    "link",
    "navigation",
    "searchbox",
    "slider",
    "spinbutton",
    "tab",
    "tablist",
    "tabpanel",
    "textbox",
}
"""The roles whose elements mean nothing without a name."""


def tree(page: Page) -> list[tuple[str, str, dict[str, Any]]]:
    """The role, the name and the properties of all that a screen reader is told of."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        (
            str(node["role"]["value"]),
            str(node.get("name", {}).get("value", "")).strip(),
            {each["name"]: each["value"].get("value") for each in node.get("properties", [])},
        )
        for node in nodes
        if not node["ignored"]
    ]


def focused(page: Page) -> str:
    """What has the focus, in brief."""
    found = "(node => `${node.tagName} ${node.id} ${node.className} ${node.name ?? ''} ${node.dataset.key ?? ''}`)"
    return str(page.evaluate(f"() => {found}(document.activeElement)"))


def test_everything_has_a_role_and_a_name(tmp_path: Path, browser: Browser) -> None:
    a_scene(tmp_path)
    say(tmp_path, "x")
    with background(tmp_path) as url, opened(browser, url) as page:

        def check(view: str) -> list[tuple[str, str, dict[str, Any]]]:
            found = tree(page)
            assert [(role, props) for role, name, props in found if role in NAMED and not name] == [], view
            levels = [props["level"] for role, _, props in found if role == "heading"]
            assert all(below - above <= 1 for above, below in pairwise(levels)), (view, levels)
            return found

        feed = check("feed")
        assert {name for role, name, _ in feed if role == "feed"} == {"Messages"}
        articles = [name for role, name, _ in feed if role == "article"]
        assert articles[-1] == "note from scene_director"
        assert len(articles) == page.locator("#feed .message").count()
        assert sum(role == "main" for role, _, _ in feed) == 1
        assert [name for role, name, _ in feed if role == "navigation"] == ["Channels"]
        page.locator("#feed .message").first.click()
        expect(page.locator("#panel-thread .chosen")).to_be_visible()
        check("thread")
        for name in ("Scenes", "Activity", "Search", "Problems"):
            page.get_by_role("tab", name=name).click()
            expect(page.locator("#panels .panel:visible")).not_to_be_empty()
            check(name)
        for msg_type in ("dialogue", "score", "scene"):
            page.locator("#compose [name=type]").fill(msg_type)
            expect(page.locator("#compose .asked")).to_be_visible()
            check(msg_type)
        page.locator("#help").click()
        check("keys")


def test_what_comes_in_is_announced_once_and_politely(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "old")
    with background(tmp_path) as url, opened(browser, url) as page:
        heard = page.locator("#heard")
        expect(heard).to_have_attribute("aria-live", "polite")
        expect(heard).to_be_empty()
        say(tmp_path, "Rain.")
        expect(heard).to_have_text("note from scene_director to narrator: Rain.")
        for number in range(3):
            say(tmp_path, f"{number}")
        expect(heard).to_have_text("3 new messages, the last note from scene_director to narrator: 2")
        assert page.locator("#feed").get_attribute("aria-live") is None


def test_the_focus_comes_back_and_is_never_trapped(tmp_path: Path, browser: Browser) -> None:
    for number in range(3):
        say(tmp_path, f"note {number}")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.keyboard.press("k")
        page.keyboard.press("k")
        current = page.locator("#feed .message[aria-current=true]")
        expect(current).to_contain_text("note 1")
        expect(current).to_be_focused()
        page.keyboard.press("t")
        expect(page.locator("#panel-thread [aria-current=true] .chosen")).to_be_visible()
        page.locator("#panel-thread .copy").focus()
        page.keyboard.press("Escape")
        expect(current).to_be_focused()
        page.locator("#help").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#help")).to_be_focused()
        # What is drawn anew when something comes in keeps the focus.
        page.locator("button.channel[data-key=narrator]").focus()
        say(tmp_path, "note 3")
        expect(page.locator("button.channel[data-key=narrator]")).to_have_attribute("aria-label", "narrator, 4 unread")
        expect(page.locator("button.channel[data-key=narrator]")).to_be_focused()
        page.evaluate("document.activeElement.blur()")
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.append(focused(page))
        for part in ("skip", "me", "message", "channel", "send", "tab-thread", "panel-thread"):
            assert any(part in each for each in seen), part
        assert seen.count(seen[0]) > 1  # all the way round


def test_on_a_phone_the_focus_goes_along_with_what_is_shown(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "x")
    with background(tmp_path) as url, opened(browser, url, NARROW) as page:
        page.keyboard.press("j")
        page.keyboard.press("t")
        expect(page.locator("#panel-thread")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#feed .message")).to_be_focused()


def test_the_chart_is_zoomed_by_the_keyboard(tmp_path: Path, browser: Browser) -> None:
    write_many(tmp_path, 30, channels=1)
    with background(tmp_path) as url, opened(browser, url) as page:
        page.get_by_role("tab", name="Activity").click()
        slider = page.get_by_role("slider", name="Time to look closer at")
        last = slider.get_attribute("aria-valuemax")
        expect(slider).to_have_attribute("aria-valuenow", str(last))
        slider.press("ArrowLeft")
        expect(slider).to_have_attribute("aria-valuenow", str(int(last or 0) - 1))
        slider.press("End")
        slider.press("Enter")
        expect(page.locator("#panel-activity .zoom-out")).to_be_visible()


def test_nothing_moves_where_less_motion_is_wanted(tmp_path: Path, browser: Browser) -> None:
    moving = """() => [...document.querySelectorAll("*")].filter(node => {
        const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(node);
        return (transitionDuration !== "0s" && getComputedStyle(node).transitionProperty !== "none") ||
            animationName !== "none" || scrollBehavior !== "auto";
    }).length"""
    with background(tmp_path) as url, opened(browser, url, reduced_motion="reduce") as page:
        assert page.evaluate(moving) == 0
