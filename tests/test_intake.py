"""Lines on their way into the index: the same faults, in many and alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.intake import taken_in
from mq_server.message import MAX_DEPTH, Unreadable, parse_fields
from mq_server.names import id_number, is_id, parse_ids, parse_time, parse_times
from tests.support import fields, known_id

DEEP: dict[str, Any] = {}
for _ in range(MAX_DEPTH):
    DEEP = {"a": DEEP, "b": [1, {"c": "d"}]}
VALUES = st.sampled_from(
    [None, "", "x", "8" * 26, "1" * 26, "_" * 26, 1, 0.5, True, [], ["a"], [1], {}, {"a": [{}]}, DEEP]
)
KEYS = ["id", "timestamp", "channel", "sender", "msg_type", "scene", "reply_to", "to", "urgent", "expires_at"]
TIMES = st.sampled_from(["2026-11-22", "2026-11-22T13:12:52", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "x"])
MESSAGES = st.builds(
    lambda changes, missing: orjson.dumps(
        {key: value for key, value in (fields(1, id=known_id(1)) | changes).items() if key not in missing}
    ),
    st.dictionaries(st.sampled_from([*KEYS, "dedup_key", "replaces", "drafts", "payload", "other"]), VALUES, max_size=2)
    | st.builds(lambda text: {"timestamp": text}, TIMES),
    st.sets(st.sampled_from(KEYS), max_size=1),
)
LINES = st.lists(MESSAGES | st.sampled_from([b"{", b"=======", b"[]", b"1", b"{}"]), max_size=8)


def joined(highs: Sequence[int], lows: Sequence[int]) -> list[int]:
    return [high << 64 | low for high, low in zip(highs, lows, strict=True)]


def fault(line: bytes) -> str:
    try:
        parse_fields(line)
    except Unreadable as error:
        return str(error)
    return ""


@given(LINES)
def test_many_lines_have_the_faults_that_each_has_alone(lines: list[bytes]) -> None:
    batch, faults = taken_in([(0, number, line) for number, line in enumerate(lines)])
    assert faults == [(number, fault(line)) for number, line in enumerate(lines) if fault(line)]
    readable = [line for line in lines if not fault(line)]
    assert [line for _, _, line in batch.lines] == readable
    assert list(batch.fields) == list(map(parse_fields, readable))
    assert joined(batch.highs, batch.lows) == [id_number(each["id"]) for each in batch.fields]
    assert batch.times_us == [parse_time(each["timestamp"]) for each in batch.fields]
    named = zip(batch.senders, batch.types, batch.scenes, batch.replies_to, strict=True)
    assert list(named) == [
        (each["sender"], each["msg_type"], each.get("scene"), each.get("reply_to")) for each in batch.fields
    ]


def test_a_line_is_decoded_once_though_another_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    real = orjson.loads
    monkeypatch.setattr(orjson, "loads", lambda line: decoded.append(line) or real(line))
    lines = [orjson.dumps(fields(number)) for number in range(50)] + [b"{}", b"{", b"[]"]
    _, faults = taken_in([(0, number, line) for number, line in enumerate(lines)])
    assert [number for number, _ in faults] == [50, 51, 52]
    assert len(decoded) == len(lines)


IDS = st.lists(st.from_regex(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", fullmatch=True), max_size=5)


@given(IDS, st.text(max_size=27) | st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ_ +8IilouöZ", min_size=25, max_size=27))
def test_ids_together_are_the_ids_one_by_one(ids: list[str], other: str) -> None:
    assert joined(*parse_ids(ids)) == list(map(id_number, ids))
    if is_id(other):
        assert joined(*parse_ids([other, *ids])) == list(map(id_number, [other, *ids]))
    else:
        for mixed in ([other, *ids], [*ids, other]):
            with pytest.raises(ValueError, match=r"ULID|invalid literal|codec"):
                parse_ids(mixed)


@given(st.lists(st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"), max_size=5))
def test_times_together_are_the_times_one_by_one(texts: list[str]) -> None:
    try:
        expected = list(map(parse_time, texts))
    except ValueError:
        with pytest.raises(ValueError, match="lies before 1970"):
            parse_times(texts)
    else:
        assert parse_times(texts) == expected
