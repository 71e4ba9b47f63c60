"""Taking part in a real browser: posting, forms, settling what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browsing import chromium, elsewhere, expect, needs_chromium, opened, say
from tests.monitoring import background

if TYPE_CHECKING:
    from playwright.sync_api import Browser

browser = pytest.fixture(scope="module")(chromium)
pytestmark = needs_chromium


def test_a_writer_posts_replies_and_marks_as_read(tmp_path: Path, browser: Browser) -> None:
    question = say(tmp_path, "Rain or snow?", "writer", msg_type="query", sender="narrator")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.locator("#compose textarea").fill("Snow.")
        page.locator("#compose .send").click()
        expect(page.locator("#toast")).to_have_text("Say first who you are")
        page.locator("#me").fill("writer")
        page.locator("#me").press("Tab")
        expect(page.locator("#inbox")).to_contain_text("1 unread for you")
        page.locator("#feed .message").click()
        page.locator("#panel-thread .reply").click()
        expect(page.locator("#compose .answering")).to_contain_text("Answering writer:1")
        page.locator("#compose textarea").press("Control+Enter")
        expect(page.locator("#feed .payload")).to_have_text(["Rain or snow?", "Snow."])
        page.locator("#panel-thread .mark-read").click()
        expect(page.locator("#inbox")).to_be_hidden()
        page.locator("#compose [name=type]").fill("something of our own")
        page.locator("#compose textarea").fill('{"of": 3')
        page.locator("#compose .send").click()
        expect(page.locator("#toast")).to_contain_text("That is no JSON")
        expect(page.locator("#compose textarea")).to_have_value('{"of": 3')
    (answer,) = elsewhere(tmp_path, lambda room: room.read("narrator")).messages
    assert (answer.sender, answer.msg_type, answer.reply_to) == ("writer", "answer", question.id)


def test_a_type_with_fields_is_written_in_a_form(tmp_path: Path, browser: Browser) -> None:
    asked = say(tmp_path, "Write it.", "dialogist")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.locator("#me").fill("writer")
        page.locator("#feed .message").click()
        page.locator("#panel-thread .reply").click()
        form = page.locator("#compose")
        expect(form.locator("[name=text]")).to_be_visible()
        form.locator("[name=type]").fill("dialogue")
        expect(form.locator("[name=text]")).to_have_count(0)
        line = form.get_by_label("line 1")
        line.get_by_label("who").fill("Vreni")
        form.locator(".send").click()
        fault = line.locator(".field", has=page.get_by_label("text")).locator(".fault")
        expect(fault).to_have_text("field required")
        expect(line.get_by_label("text", exact=True)).to_be_focused()
        expect(line.get_by_label("text", exact=True)).to_have_attribute("aria-invalid", "true")
        line.get_by_label("text", exact=True).fill("Tea.")
        form.get_by_role("button", name="Add line").click()
        form.get_by_role("button", name="Add line").click()
        form.get_by_label("line 3").get_by_label("who").fill("Anton")
        form.get_by_label("line 3").get_by_label("text", exact=True).fill("Again?")
        form.get_by_label("line 3").get_by_label("parenthetical").fill("tired")
        form.locator(".send").click()  # the empty second line is left out
        expect(page.locator("#feed .message").last.locator(".speeches dd")).to_have_count(2)
        # What stands in the fields goes along into JSON, and back with what has no field.
        form.locator("[name=type]").fill("score")
        form.get_by_label("score", exact=True).fill("0.9")
        form.get_by_role("button", name="Write JSON").click()
        form.locator("[name=text]").fill('{"score": 1.5, "of": "dialogist:1", "rubric": {"pace": 0.5}, "mood": "dry"}')
        form.get_by_role("button", name="Fill in fields").click()
        expect(form.get_by_label("of", exact=True)).to_have_value("dialogist:1")
        expect(form.get_by_label("entry 1").get_by_label("name")).to_have_value("pace")
        form.locator(".send").click()
        expect(form.locator(".fault")).to_have_text("input should be less than or equal to 1")
        form.get_by_label("score", exact=True).fill("0.8")
        form.locator("[name=channel]").fill("narrator")
        form.locator(".send").click()
        expect(page.locator("#feed .message").last).to_contain_text("pace")
    (dialogue,) = elsewhere(tmp_path, lambda room: room.read("scene_director")).messages
    assert dialogue.payload == {
        "lines": [
            {"who": "Vreni", "text": "Tea."},
            {"who": "Anton", "text": "Again?", "parenthetical": "tired"},
        ]
    }
    (score,) = elsewhere(tmp_path, lambda room: room.read("narrator")).messages
    assert score.payload == {"of": asked.id, "score": 0.8, "rubric": {"pace": 0.5}, "mood": "dry"}


def test_a_schema_of_ones_own_makes_a_form(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "schemas").mkdir()
    properties = {
        "weather": {"enum": ["rain", "snow"]},
        "takes": {"type": "integer", "minimum": 1},
        "night": {"type": "boolean"},
        "when": {"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "a day or its number"},
    }
    schema = {"type": "object", "properties": properties, "required": ["weather", "night"]}
    (tmp_path / "schemas" / "set_up.json").write_text(json.dumps(schema), encoding="utf-8")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.locator("#me").fill("writer")
        form = page.locator("#compose")
        form.locator("[name=channel]").fill("narrator")
        form.locator("[name=type]").fill("set_up")
        form.get_by_label("night").check()
        form.get_by_label("takes (optional)").fill("3")
        form.get_by_label("when (optional)").fill("{")
        form.locator(".send").click()
        expect(form.locator(".fault")).to_contain_text("That is no JSON")
        form.get_by_label("when (optional)").fill('"tomorrow"')
        form.locator(".send").click()
        expect(form.locator(".field", has=page.get_by_label("weather")).locator(".fault")).to_have_text(
            "field required"
        )
        form.get_by_label("weather").select_option("snow")
        form.locator(".send").click()
        expect(page.locator("#feed .message")).to_have_count(1)
    (message,) = elsewhere(tmp_path, lambda room: room.read("narrator")).messages
    assert message.payload == {"weather": "snow", "takes": 3, "night": True, "when": "tomorrow"}


def test_read_only_offers_nothing_to_write(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "x")
    with background(tmp_path, read_only=True) as url, opened(browser, url) as page:
        page.locator("#feed .message").click()
        expect(page.locator("#panel-thread .copy")).to_be_visible()
        expect(page.locator("#compose")).to_be_hidden()
        expect(page.locator("#me")).to_be_hidden()
        expect(page.locator("#panel-thread .reply")).to_have_count(0)
        elsewhere(tmp_path, lambda room: room.settle("narrator", reject="narrator:1", reason="no"))
        page.locator("#alarm button").click()
        expect(page.locator("#panel-problems .copy")).to_contain_text("mq settle dead_letters --reopen")
        expect(page.locator("#panel-problems li .actions")).to_have_count(0)


def test_the_keyboard_goes_everywhere(tmp_path: Path, browser: Browser) -> None:
    for number in range(3):
        say(tmp_path, f"note {number}")
    with background(tmp_path) as url, opened(browser, url) as page:
        page.keyboard.press("k")
        expect(page.locator(".message.current")).to_contain_text("note 2")
        page.keyboard.press("k")
        page.keyboard.press("t")
        expect(page.locator("#panel-thread .chosen")).to_contain_text("note 1")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("#panel-thread .chosen")).to_contain_text("note 2")
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#keys")).to_be_hidden()
        page.keyboard.press("r")
        page.keyboard.type("j/?")
        expect(page.locator("#compose textarea")).to_have_value("j/?")
        page.keyboard.press("Escape")
        for key, name in (("s", "Scenes"), ("a", "Activity"), ("p", "Problems"), ("/", "Search")):
            page.keyboard.press(key)
            expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")


def test_a_dead_letter_is_sent_back_or_acknowledged_by_a_button(tmp_path: Path, browser: Browser) -> None:
    first, second = say(tmp_path, "one"), say(tmp_path, "two")
    elsewhere(tmp_path, lambda room: room.settle("narrator", reject=[first.id, second.id], reason="no rain here"))
    with background(tmp_path) as url, opened(browser, url) as page:
        page.locator("#alarm button").click()
        letters = page.locator("#panel-problems li")
        expect(letters).to_have_count(2)
        expect(letters.first).to_contain_text("from narrator: no rain here")
        letters.first.get_by_role("button", name="Send back to narrator").click()
        expect(page.locator("#toast")).to_have_text("Say first who you are")
        page.locator("#me").fill("writer")
        letters.first.get_by_role("button", name="Send back to narrator").click()
        expect(letters).to_have_count(1)
        letters.get_by_role("button", name="Acknowledge").click()
        expect(page.locator("#alarm")).to_be_hidden()
        expect(page.locator("#panel-problems")).to_contain_text("All is well")
        expect(page.get_by_role("tab", name="Problems")).to_be_focused()
    assert len(elsewhere(tmp_path, lambda room: room.read("narrator")).messages) == 1


def test_vanished_messages_are_put_back_or_forgotten_by_a_button(tmp_path: Path, browser: Browser) -> None:
    say(tmp_path, "stays")
    path = tmp_path / "narrator.jsonl"
    kept = path.read_bytes()
    for text in ("wanted", "meant to go"):
        say(tmp_path, text)
    elsewhere(tmp_path, lambda room: room.read("narrator", ack=True))  # else it would be put back at once
    with background(tmp_path) as url, opened(browser, url) as page:
        expect(page.locator("#feed .message")).to_have_count(3)
        path.write_bytes(kept)
        expect(page.locator("#alarm")).to_contain_text("2 vanished messages")
        expect(page.locator("#feed .payload")).to_have_text(["stays"])
        page.locator("#alarm button").click()
        page.locator("#me").fill("writer")
        panel = page.locator("#panel-problems")
        expect(panel.locator("li")).to_have_count(2)
        expect(panel.locator("li").first).to_contain_text("A reader had it before.")
        expect(panel.locator(".copy")).to_have_text(["mq recover", "mq recover --restore", "mq recover --accept"])
        panel.locator("li").first.get_by_role("button", name="Put back").click()
        expect(panel.locator("li")).to_have_count(1)
        expect(page.locator("#feed .payload")).to_have_text(["stays", "wanted"])
        panel.get_by_role("button", name="Forget").click()
        panel.get_by_role("button", name="Forget for good?").click()
        expect(page.locator("#alarm")).to_be_hidden()
    assert elsewhere(tmp_path, lambda room: room.vanished()) == []
    assert b"meant to go" not in path.read_bytes()
