"""Hash tables over arrays, beside dicts that say the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import chains
from mq_server.chains import LOW, Chains, NumberOf, RowOf, RowsOf

# Few different ends, so that buckets and whole low halves are shared, as ids written on purpose may do.
NUMBERS = st.builds(
    lambda high, low: high << 64 | low,
    st.integers(0, 3) | st.integers(0, LOW),
    st.sampled_from([0, 1, 8, 16, 1 << 63]) | st.integers(0, 40) | st.integers(0, LOW),
)
PARTS = st.lists(st.lists(NUMBERS, max_size=40), max_size=6)


@pytest.fixture(autouse=True, params=[0, 1 << 16], ids=["shared buckets", "rehashed"])
def _growth(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small tables grow both ways."""
    usual, chains._REHASHED_ENTRIES = chains._REHASHED_ENTRIES, request.param
    yield
    chains._REHASHED_ENTRIES = usual


def halves(number: int) -> tuple[int, int]:
    return number >> 64, number & LOW


def halves_of(numbers: list[int]) -> tuple[list[int], list[int]]:
    return [number >> 64 for number in numbers], [number & LOW for number in numbers]


@given(PARTS, st.lists(NUMBERS, max_size=10), st.integers(0, 130))
def test_all_entries_of_a_number_are_found_and_no_others(parts: list[list[int]], others: list[int], bits: int) -> None:
    table, model = Chains(), list[int]()
    for part in parts:
        table.put(*halves_of(part))
        table.chain()
        model += part
        for number in {*model, *others}:
            expected = [entry for entry, each in enumerate(model) if each == number]
            assert table.entries(*halves(number)) == expected
            assert table.newest(*halves(number)) == (expected[-1] if expected else -1)
            mask = (1 << bits) - 1
            alike = [entry for entry, each in enumerate(model) if each & mask == number & mask]
            assert table.ending(number & mask, bits) == alike
    assert [table.number(entry) for entry in range(len(table))] == model


@given(PARTS, NUMBERS)
def test_the_row_of_each_number_is_that_of_the_first_that_came(parts: list[list[int]], other: int) -> None:
    rows, model = RowOf(), dict[int, int]()
    for part in parts:
        places = rows.unknown(*halves_of(part))
        for number in part:
            model.setdefault(number, len(model))
        rows.put(*halves_of([part[place] for place in places]))
        rows.chain()
        assert rows == model
        assert list(rows) == list(model)
        assert (other in rows, rows.get(other), rows.get(other, -7)) == (
            other in model,
            model.get(other),
            model.get(other, -7),
        )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.none() | st.sampled_from([5, 5 | 1 << 64, 6]))))
def test_the_rows_of_a_number_follow_every_change(steps: list[tuple[bool, int, int | None]]) -> None:
    table, model, count = RowsOf(), dict[int, int](), 0
    for is_new, row, number in steps:
        if is_new:
            row, count = count, count + 1
        elif row >= count:
            continue
        table.discard(row)
        model.pop(row, None)
        if number is not None:
            table.add(number, row)
            model[row] = number
        assert {each: sorted(rows) for each, rows in table.items()} == {
            each: [row for row in sorted(model) if model[row] == each] for each in model.values()
        }
        assert NumberOf(table) == model
        assert [NumberOf(table).get(row) for row in range(count)] == [model.get(row) for row in range(count)]


@pytest.fixture
def chained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries each step has put into chains."""
    counts: list[int] = []
    real = Chains._chain

    def counting(self: Chains, lows: list[int], first: int) -> None:
        counts.append(len(lows))
        real(self, lows, first)

    monkeypatch.setattr(Chains, "_chain", counting)
    return counts


def test_a_large_table_grows_without_being_rehashed(chained: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "_REHASHED_ENTRIES", 1 << 8)
    table = Chains()
    for number in range(5000):
        table.put([0], [number * 0x9E37_79B9_7F4A_7C15 & LOW])
        table.chain()
    assert sum(chained) < 5000 + 4 * (1 << 8)
    assert all(table.newest(0, number * 0x9E37_79B9_7F4A_7C15 & LOW) == number for number in range(5000))


def test_entries_that_come_together_are_chained_once(chained: list[int]) -> None:
    table = Chains()
    for first in range(0, 5000, 100):
        table.put([0] * 100, range(first, first + 100))
    assert not chained
    table.chain()
    assert sum(chained) == 5000
    assert all(table.newest(0, number) == number for number in range(5000))
