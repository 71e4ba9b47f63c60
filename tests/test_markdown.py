"""Transcripts in Markdown: they read well, their links lead somewhere, and no text in them is markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mq_server.message import Message
from mq_server.render.markdown import inline, markdown, paragraphs
from mq_server.render.text import visible
from mq_server.scenes import GivenScore, SceneState, SceneVersion
from tests.rendering import HOSTILE, SCENE, edition_of, everything_hostile, markup, said
from tests.support import examples, known_id

OURS = {"<sub>", "</sub>", "<br>"}


def parsed(text: str) -> list[Token]:
    """The tokens, inline ones too, as a hosting site reads them."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return [each for token in reader.parse(text) for each in (token, *(token.children or []))]


def shown(tokens: list[Token]) -> str:
    """The text that a reader sees."""
    kinds = {"text": None, "code_inline": None, "softbreak": "\n", "hardbreak": "\n", "paragraph_close": "\n\n"}
    return "".join(token.content if token.type == "text" else kinds.get(token.type) or "" for token in tokens)


def links(tokens: list[Token]) -> Iterator[str]:
    return (str(token.attrs["href"]) for token in tokens if token.type == "link_open")


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading; GitLab's differs where hyphens follow each other."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(tokens: list[Token]) -> list[str]:
    starts = [number for number, token in enumerate(tokens) if token.type == "heading_open"]
    return [shown(list(tokens[number + 1].children or [])) for number in starts]


def conversation() -> list[Message]:
    return [
        said(1, "brief", {"title": "The Other Fifty", "text": "Two women.\nOne table."}, sender="writer"),
        said(2, "scene_breakdown", {"setting": "INT. ROOM", "beats": ["They weigh."]}, reply_to=known_id(1)),
        said(3, "dialogue", {"lines": [{"who": "Vreni", "text": "Tea.", "parenthetical": "softly"}], "version": 1}),
        said(4, "shot_list", {"shots": [{"shot": "Close", "text": "The jar | the lid.", "lens": 50}]}),
        said(5, "score", {"of": known_id(3), "score": 0.45, "rubric": {"turn": 0}, "notes": "Too fast."}),
        said(6, "scene", {"version": 1, "blocks": [{"kind": "line", "who": "Vreni", "text": "Tea."}]}),
        said(7, "feedback", {"of": known_id(6), "text": "1. Shorter.\n2. Now."}, reply_to=known_id(5), urgent=True),
        said(8, "note", {"text": "Elsewhere."}, scene=None),
    ]


def test_a_transcript_has_a_heading_per_message_and_its_payload_by_type() -> None:
    text = markdown(edition_of(conversation(), title="The Other Fifty"))
    assert text.startswith("# The Other Fifty\n\nscene q2-s3 · 8 messages · 2026-09-21 14:13:21Z to 14:13:28Z\n")
    assert "- [Scene q2-s3](#scene-q2-s3), The Other Fifty: 7 messages\n- [Without a scene](#without-a-scene)" in text
    assert "## Scene q2-s3\n" in text
    ref = inline(conversation()[0].ref)
    assert f"### writer: brief, {ref}\n\n*to narrator · 2026-09-21 14:13:21Z*\n\n**The Other Fifty**\n" in text
    assert "Two women.\\\nOne table.\n" in text
    assert "**INT. ROOM**\n\n1. They weigh.\n" in text
    assert "**Vreni** *(softly)*: Tea.\n\n<sub>version: 1</sub>\n" in text
    assert "| 1 | Close | The jar \\| the lid.<br>lens: 50 |\n" in text
    assert "> **Vreni**\\\n> Tea.\n" in text
    assert "1\\. Shorter.\\\n2\\. Now.\n" in text
    assert "| turn | 0 |\n\nToo fast.\n" in text
    assert " · about [narrator:6" in text
    assert " · urgent*" in text


def test_links_lead_to_the_headings_of_what_is_answered() -> None:
    tokens = parsed(markdown(edition_of(conversation())))
    anchors = {f"#{slug(heading)}" for heading in headings(tokens)}
    found = list(links(tokens))
    assert len(found) == 6
    assert set(found) <= anchors
    assert all("--" not in link for link in found)


def test_an_answer_to_what_was_corrected_leads_to_the_correction() -> None:
    messages = [said(2, "note", {"text": "New."}, replaces=known_id(1)), said(3, "note", {}, reply_to=known_id(1))]
    assert f"answers [{inline(messages[0].ref)}](#" in markdown(edition_of(messages))
    assert f"answers {known_id(1)[-8:]}" in markdown(edition_of(messages[1:]))


def test_a_scene_opens_with_the_scores_of_its_versions() -> None:
    message = conversation()[5]
    given_score = GivenScore(sender="quality_assessor", score=0.93, ref="x")
    version = SceneVersion(
        version=1,
        ref=message.ref,
        id=message.id,
        sender=message.sender,
        timestamp=message.timestamp,
        score=0.93,
        scored_by=(given_score,),
    )
    board = SceneState(scene=SCENE, title="The Other Fifty", versions=(version,))
    text = markdown(edition_of(conversation(), board))
    assert "**The Other Fifty** · passed · 1 version\n" in text
    assert re.search(r"\| \[version 1\]\(#scene_director-scene-narrator6\w+\) \| 0\.93 ≥ 0\.80 \| quality_", text)
    final = markdown(edition_of(conversation(), board, final=version))
    assert final.startswith("# A title\n\nscene q2-s3 · version 1, final, 0.93\n\n**INT. ROOM**\n")
    assert "###" not in final


def test_what_a_payload_holds_beyond_is_in_a_row_or_in_a_block_of_code() -> None:
    text = markdown(edition_of([said(1, "anything", {"a": 1, "b": {"c": "x\n```\ny"}})]))
    assert "````text\na: 1\nb:\n  c:\n    x\n    ```\n    y\n````\n" in text
    assert "*(empty)*" in markdown(edition_of([said(1, "anything", {})]))


def test_nothing_to_show_is_a_title() -> None:
    assert markdown(edition_of([])) == "# A title\n\nscene q2-s3 · 0 messages\n"


def check_harmless(text: str) -> None:
    tokens = parsed(text)
    for token in tokens:
        assert token.type != "html_block", token
        assert token.type != "html_inline" or token.content in OURS, token
        assert token.type not in ("image", "code_inline", "code_block"), token
        assert token.type != "fence" or token.info == "text"
    assert all(link.startswith("#") for link in links(tokens))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u200b]", text)


@pytest.mark.parametrize(
    "text", [HOSTILE, "x\n# y\n\n- z\n===\n> q", "| a |\n|---|\n| b |", "    code", "```\nx\n```", "***"]
)
def test_hostile_text_anywhere_is_text(text: str) -> None:
    document = markdown(edition_of(everything_hostile(text), title=text))
    check_harmless(document)
    tokens = parsed(document)
    levels = [token.tag for token in tokens if token.type == "heading_open"]
    assert levels == ["h1", "h2", *["h3"] * 14]
    lists = sum(token.type in ("bullet_list_open", "ordered_list_open") for token in tokens)
    assert lists == 2  # the beats of the plan and of the breakdown
    assert sum(token.type == "table_open" for token in tokens) == 2


@examples(150)
@given(text=markup)
@example(text="a\n---")
@example(text="[a]: http://x\n\n[a]")
@example(text="1) a\n+ b\n=")
def test_any_text_is_shown_as_it_is(text: str) -> None:
    tokens = parsed(paragraphs(text))
    assert {token.type for token in tokens} <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special", "hardbreak")
    }
    read = "".join(token.content if token.type in ("text", "text_special") else "" for token in tokens)
    assert re.sub(r"\s", "", read) == re.sub(r"\s", "", visible(text))


@examples(60)
@given(text=markup)
def test_any_name_can_stand_in_bold_in_a_table_and_in_a_list(text: str) -> None:
    check_harmless(markdown(edition_of(everything_hostile(text), title=text)))
