"""Tokens for the next page."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.errors import InvalidRequest
from mq_server.names import id_number
from mq_server.paging import Place, make_token, open_token, resume
from tests.support import known_id

IDS = st.lists(st.integers(0, 999).map(lambda number: id_number(known_id(number))), unique=True, max_size=60)


def row_sums(ids: list[int]) -> list[int]:
    return [0, *accumulate(ids)]


def resumed(token_text: str, ids: list[int]) -> tuple[Place, bool]:
    token, sums = open_token(token_text), row_sums(ids)
    assert token is not None
    return resume(token, lambda place: sums[place[0]] if place[0] < len(sums) else -1)


@given(IDS, st.data())
def test_what_only_grew_goes_on_where_it_was(ids: list[int], data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, len(ids)))
    sums = row_sums(ids[:seen])
    text = make_token("file", (seen, 0), lambda place: sums[place[0]])
    assert resumed(text, ids) == ((seen, 0), False)


@given(IDS, st.data())
def test_whatever_a_merge_did_nothing_is_skipped(ids: list[int], data: st.DataObject) -> None:
    kept = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    before = [identity for identity in ids if identity in kept]
    seen = data.draw(st.integers(0, len(before)))
    sums = row_sums(before)
    text = make_token("file", (seen, 0), lambda place: sums[place[0]])
    merged = data.draw(st.permutations(ids))
    place, moved = resumed(text, merged)
    assert set(merged[: place[0]]) <= set(before[:seen]), "only what was given may lie in front"
    if merged[:seen] == before[:seen]:
        assert (place, moved) == ((seen, 0), False)


def test_a_restart_is_at_the_newest_place_that_still_holds() -> None:
    ids = list(range(1, 101))
    text = make_token("file", (100, 0), lambda place: row_sums(ids)[place[0]])
    assert resumed(text, [*ids[:97], 1000, *ids[97:]]) == ((96, 0), True)
    assert resumed(text, [*ids[:5], 1000, *ids[5:]]) == ((0, 0), True)
    assert resumed(text, ids[:50]) == ((36, 0), True)


def test_a_token_for_the_beginning_holds_always() -> None:
    text = make_token("file", (0, 0), lambda _: 0)
    assert resumed(text, [7, 8, 9]) == ((0, 0), False)


@given(st.text(max_size=40))
def test_no_text_at_all_makes_a_token_fail_in_another_way(text: str) -> None:
    for candidate in (text, f"n.{text}", f"n.file.{text}", f"n.file.1.2.3_{text}"):
        try:
            open_token(candidate)
        except InvalidRequest as error:
            assert "is not a whole `next` token: pass it on just as it was given" in str(error)


@pytest.mark.parametrize("text", ["n.file.", "n.file.1.2", "n.file.1.2.3.4", "n.file.-1.0.0", "n.file.x.0.0", "n."])
def test_a_damaged_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        open_token(text)


def test_an_id_is_no_token() -> None:
    assert open_token("01KB3Q5R6S7T8V9W0X1Y2Z3A4B") is None
    assert open_token("narrator:3") is None
