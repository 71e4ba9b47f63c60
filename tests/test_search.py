"""Text search: queries, matches, snippets."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.errors import InvalidRequest
from mq_server.message import Message
from mq_server.search import _LAST_CASED, Query, Sieve, texts


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


# --- the sieve -------------------------------------------------------------------------------------------------------

ODD = (
    "ß\u1e9e\u017f\u212a\u0130\u0131\ufb01\ufb05\u0149\u01f0\u0307\u00e9\u00c9\u00b5\u03bc\u03a3\u03c2\u03c3\u1f80\u0390"
    "\U0001e900\U0001e922\U0001f600"
)
AWKWARD = st.text(st.sampled_from('aAsSkKiIfFtTnNjJhH "\\/\n\t' + ODD), max_size=12)
PAYLOADS = st.lists(AWKWARD, min_size=1, max_size=3)


def sifted(query: Query, lines: list[bytes], base: int = 0) -> list[int]:
    starts, at = [], base
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    return Sieve(query).lines(b"\n".join(lines), base, starts)


def escaped(line: bytes, chance: int) -> bytes:
    """The same JSON, as others may write it: with some of its characters as \\u…, and with \\/."""
    text = "".join(
        orjson.dumps(each).decode()[1:-1]
        if each.isascii() or (position + chance) % 3
        else "".join(f"\\u{ord(unit):04x}" for unit in utf_16(each))
        for position, each in enumerate(orjson.loads(line))
    )
    return f'"{text}"'.replace("/", "\\/" if chance % 2 else "/").encode()


def utf_16(character: str) -> str:
    data = character.encode("utf-16-be")
    return "".join(chr(int.from_bytes(data[at : at + 2], "big")) for at in range(0, len(data), 2))


@given(st.lists(PAYLOADS, max_size=6), AWKWARD, st.data())
def test_the_sieve_lets_through_whatever_matches(payloads: list[list[str]], words: str, data: st.DataObject) -> None:
    if payloads and data.draw(st.booleans()):  # what is there, in another case
        text = data.draw(st.sampled_from(data.draw(st.sampled_from(payloads))))
        words = data.draw(st.sampled_from([str.upper, str.lower, str.casefold, str.title]))(
            text[data.draw(st.integers(0, 3)) : data.draw(st.integers(3, 12))]
        )
    try:
        query = Query.parse(data.draw(st.sampled_from(["{}", '"{}"'])).format(words))
    except InvalidRequest:
        return
    chance = data.draw(st.integers(0, 5))
    lines = [
        b'{"payload":{"t":[%s]}}' % b",".join(escaped(orjson.dumps(text), chance) for text in payload)
        for payload in payloads
    ]
    for line, payload in zip(lines, payloads, strict=True):
        assert orjson.loads(line)["payload"] == {"t": payload}
    passed = sifted(query, lines, base=1000)
    matching = [number for number, payload in enumerate(payloads) if query.matches(message(t=payload))]
    assert set(matching) <= set(passed)
    assert passed == sorted(set(passed))


def test_the_sieve_lets_little_else_through() -> None:
    stored = ("The Sea Wall", "a lamp", "die Straße", "KÖBI")
    lines = [b'{"payload":{"text":"%s"}}' % text.encode() for text in stored]
    assert sifted(Query.parse("wall"), lines) == [0]
    assert sifted(Query.parse("WALL sea"), lines) == [0]
    assert sifted(Query.parse("wall lamp"), lines) == []
    assert sifted(Query.parse("strasse"), lines) == [2]
    assert sifted(Query.parse("köbi"), lines) == [3]
    assert sifted(Query.parse("wall/lamp"), lines) == []
    assert sifted(Query.parse("\\\\"), lines) == [0, 1, 2, 3], "nothing to look for"


def test_no_character_beyond_those_looked_at_changes_when_it_is_folded() -> None:
    assert all(chr(code).casefold() == chr(code) for code in range(_LAST_CASED, sys.maxunicode + 1))
