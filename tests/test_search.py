"""Text search: queries, matches, snippets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.errors import InvalidRequest
from mq_server.message import Message
from mq_server.search import Query, texts


def message(**payload: Any) -> Message:
    return Message(id="", timestamp="", channel="a", sender="b", msg_type="note", payload=payload)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Sea wall", ("sea", "wall")),
        ('"Sea wall" gull', ("sea wall", "gull")),
        ('sea "open', ("sea", "open")),
        ("  ÄRGER\tStraße ", ("ärger", "strasse")),
        ('""  gull', ("gull",)),
    ],
)
def test_a_query_is_words_and_phrases(query: str, words: tuple[str, ...]) -> None:
    assert Query.parse(query).words == words


@pytest.mark.parametrize("query", ["", "  ", '""', '" "'[:2]])
def test_a_query_without_a_word_is_refused(query: str) -> None:
    with pytest.raises(InvalidRequest, match="query is empty: give one or more words"):
        Query.parse(query)


@pytest.mark.parametrize("query", ["gull", "GULL", "wall gull", '"the sea wall"', "straße", "STRASSE", "wal"])
def test_every_word_must_occur_somewhere_whatever_its_case(query: str) -> None:
    assert Query.parse(query).matches(message(text="The sea wall", lines=[{"text": "A Gull, in der Straße."}]))


@pytest.mark.parametrize("query", ["gull boat", '"sea gull"', "text", "narrator"])
def test_names_of_fields_and_words_apart_do_not_match(query: str) -> None:
    assert not Query.parse(query).matches(message(text="The sea wall", lines=[{"text": "A gull."}]))


def test_texts_are_those_of_the_payload_in_order() -> None:
    assert list(texts({"a": "x", "b": [1, "y", {"c": "z"}], "d": None})) == ["x", "y", "z"]


def test_a_snippet_is_one_line_around_the_first_place() -> None:
    text = "far\nbefore " * 40 + "the GULL\ncries" + " far after" * 40
    snippet = Query.parse("gull cries").snippet(message(text=text))
    assert "the GULL cries far after" in snippet
    assert snippet.startswith("…") and snippet.endswith("…") and "\n" not in snippet
    assert len(snippet) <= 162
    assert Query.parse("gull").snippet(message(text="a gull")) == "a gull"
    assert Query.parse("gull").snippet(message(text="nothing")) == ""


@given(st.text(st.sampled_from("aßİxŉ "), max_size=400), st.text(st.sampled_from("aßİxŉ "), max_size=400))
def test_a_snippet_holds_the_word_though_folding_changes_lengths(before: str, after: str) -> None:
    found = message(text=f"{before} gull {after}")
    assert "gull" in Query.parse("GULL").snippet(found)
