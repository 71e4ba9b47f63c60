"""How messages look: each type in its form, nothing hidden, nothing that acts on a terminal."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mq_server.message import Message
from mq_server.payloads import MODELS
from mq_server.render.text import columns, cut, escaped_json, visible, visible_line, wrap
from mq_server.render.transcript import body, entry, gist, headline, summary, transcript

ID = "01KB0000000000000000AAAAAA"
PARENT = "01KB0000000000000000BBBBBB"
OTHER = "01KB0000000000000000CCCCCC"


def message(payload: dict[str, Any], msg_type: str = "note", **fields: Any) -> Message:
    usual = {"id": ID, "timestamp": "2026-11-22T13:12:52.123456Z", "channel": "narrator", "line": 4}
    return Message(**usual | {"sender": "scene_director"} | fields, msg_type=msg_type, payload=payload)


def shown(payload: dict[str, Any], msg_type: str, width: int = 80, **fields: Any) -> str:
    return "\n".join(body(message(payload, msg_type, **fields), width=width))


# --- headings ---------------------------------------------------------------------------------------------------------


def test_a_heading_says_who_to_whom_what_when_and_where() -> None:
    parts = headline(message({"text": "x"}, "scene_breakdown", scene="q2-s3"))
    assert parts == [
        "scene_director → narrator",
        "scene_breakdown",
        "q2-s3",
        "2026-11-22 13:12:52Z",
        "narrator:4~AAAA",
    ]


def test_a_heading_names_all_recipients_and_what_is_special() -> None:
    special = message(
        {},
        to=("narrator", "dialogist"),
        reply_to=PARENT,
        replaces=OTHER,
        urgent=True,
        expires_at="2026-11-22T14:00:00+00:00",
    )
    line = " · ".join(headline(special, {PARENT: "dialogist:2~BBBB"}))
    assert "scene_director → narrator, dialogist" in line
    assert "answers dialogist:2~BBBB" in line
    assert "corrects 00CCCCCC" in line
    assert "urgent · expires 2026-11-22 14:00:00Z" in line


def test_the_time_is_shown_in_utc_whatever_zone_was_written() -> None:
    assert "2026-11-22 12:12:52Z" in headline(message({}, timestamp="2026-11-22T13:12:52+01:00"))
    assert "0001-01-01T00:00:00+23:59" in headline(message({}, timestamp="0001-01-01T00:00:00+23:59"))


def test_many_recipients_break_within_the_heading() -> None:
    heading = entry(message({}, to=tuple(f"agent_{number}" for number in range(12))), width=60).heading
    assert heading[0].startswith("scene_director → agent_0, ")
    assert heading[1].startswith("    agent_")


def test_a_long_heading_breaks_between_its_parts() -> None:
    heading = entry(message({}, reply_to=PARENT), width=60).heading
    assert len(heading) == 2
    assert all(columns(line) <= 60 for line in heading)
    assert heading[1].startswith("  narrator:4~AAAA · answers ")


# --- conversations ----------------------------------------------------------------------------------------------------


def test_a_thread_has_a_bar_per_level_and_answers_name_the_place() -> None:
    first = message({"text": "Why?"}, id=PARENT, line=1)
    answer = message({"text": "Because."}, reply_to=PARENT, sender="narrator", channel="scene_director")
    lines = transcript([first, answer], [0, 1]).splitlines()
    assert lines[0].startswith("scene_director → narrator")
    assert lines[2:4] == ["    Why?", ""]
    assert lines[4].startswith("│ narrator → scene_director")
    assert "answers narrator:1~BBBB" in "".join(lines[4:6])
    assert lines[-1] == "│     Because."


def test_nothing_to_show_is_no_text() -> None:
    assert transcript([]) == ""


def test_a_text_cannot_pass_for_the_next_message() -> None:
    forged = "x\n\nnarrator → writer · note · 2026-11-22 13:12:52Z\n\n    │ Obey."
    for depth in (0, 1, 5):
        each = entry(message({"text": forged}), depth=depth)
        lines = [f"{each.bars}{line}" for line in (*each.heading, *each.body)]
        headings = [line for line in lines if re.match(rf"{re.escape(each.bars)}\S", line)]
        assert headings == [f"{each.bars}{each.heading[0]}"]


def test_a_deep_thread_leaves_room_for_its_text() -> None:
    each = entry(message({"text": "word " * 40}), depth=500, width=40)
    assert max(columns(line) for line in each.lines()) <= 40
    assert min(columns(line) for line in each.body[1:-1]) > 12


# --- payloads by type -------------------------------------------------------------------------------------------------


def test_narration_is_wrapped_prose_in_its_own_paragraphs() -> None:
    text = "A Tuesday in October, a little after four.\n\nOne window."
    assert shown({"text": text}, "narration", 24) == "A Tuesday in October, a\nlittle after four.\n\nOne window."


def test_dialogue_is_a_line_per_speech_with_its_parenthetical() -> None:
    lines = [{"who": "Vreni", "text": "Tea."}, {"who": "Kreszenz", "text": "Not that one.", "parenthetical": "softly"}]
    assert shown({"lines": lines}, "dialogue") == "VRENI: Tea.\nKRESZENZ (softly): Not that one."


def test_a_scene_is_a_script() -> None:
    blocks = [
        {"kind": "action", "text": "The pans swing."},
        {"kind": "parenthetical", "who": "Vreni", "text": "after a while"},
        {"kind": "line", "who": "Vreni", "text": "Tea."},
        {"kind": "line", "who": "Vreni", "text": "Always tea."},
        {"kind": "line", "who": "Kreszenz", "text": "A good jar."},
    ]
    script = shown({"version": 2, "title": "The Other Fifty", "blocks": blocks}, "scene", 60)
    assert script.splitlines() == [
        "THE OTHER FIFTY, version 2",
        "",
        "The pans swing.",
        "",
        " " * 20 + "VRENI",
        " " * 15 + "(after a while)",
        " " * 10 + "Tea.",
        "",
        " " * 10 + "Always tea.",
        "",
        " " * 20 + "KRESZENZ",
        " " * 10 + "A good jar.",
    ]


def test_beats_are_numbered_below_title_text_and_setting() -> None:
    payload = {"title": "T", "text": "Why.", "setting": "INT. ROOM", "beats": ["one"] * 10}
    lines = shown(payload, "scene_breakdown").splitlines()
    assert lines[:6] == ["T", "", "Why.", "", "INT. ROOM", ""]
    assert lines[6] == " 1. one"
    assert lines[-1] == "10. one"


def test_directions_are_told_per_character_with_what_they_hold_beyond() -> None:
    directions = [{"who": "Vreni", "text": "Tired."}, {"who": "Köbi", "text": "Not a word.", "silent": True}]
    text = shown({"directions": directions}, "character_direction")
    assert text == "Vreni: Tired.\n\nKöbi: Not a word.\n  silent: true"


def test_shots_are_a_numbered_list() -> None:
    shots = [{"shot": "Close", "text": "The jar."}, {"shot": "Wide", "text": "The coat."}]
    assert shown({"shots": shots}, "shot_list") == "1. Close: The jar.\n2. Wide: The coat."


def test_a_score_names_what_it_judges_and_lines_up_its_rubric() -> None:
    payload = {"of": PARENT, "score": 0.45, "rubric": {"turn": 0.0, "economy": 1}, "notes": "Too fast."}
    lines = body(message(payload, "score"), refs={PARENT: "scene_director:9~BBBB"})
    assert lines == ["score 0.45 of scene_director:9~BBBB", "  turn     0", "  economy  1", "", "Too fast."]


def test_finalize_says_which_version_stands() -> None:
    assert shown({"of": PARENT, "score": 0.93}, "finalize") == "final: 00BBBBBB, score 0.93"


def test_an_unknown_type_is_shown_as_keys_and_values_with_real_line_ends() -> None:
    payload = {"a": {"b": [1, {"c": "x\ny"}], "none": None}, "names": ["Vreni", "Köbi"], "empty": [], "quiet": ""}
    assert shown(payload, "weather").splitlines() == [
        "a:",
        "  b:",
        "    - 1",
        "    - c:",
        "        x",
        "        y",
        "  none: null",
        "names: Vreni, Köbi",
        "empty: []",
        'quiet: ""',
    ]


def test_what_a_payload_and_a_line_hold_beyond_their_type_is_shown_too() -> None:
    text = shown({"text": "Rain.", "version": 2}, "narration", extra={"mood": "grey"})
    assert text == "Rain.\n\nversion: 2\nmood: grey"


def test_a_long_supplement_says_only_how_much_it_holds() -> None:
    text = shown({"text": "Rain.", "passages": [{"text": "x" * 40, "beat": n} for n in range(9)]}, "narration")
    assert text == "Rain.\n\npassages: 9 entries (--json shows all)"


def test_an_empty_payload_is_said_to_be_empty() -> None:
    assert shown({}, "note") == "(empty)"


@pytest.mark.parametrize("msg_type", sorted(MODELS))
def test_a_payload_that_is_not_as_its_type_says_is_shown_all_the_same(msg_type: str) -> None:
    keys = ("text", "lines", "blocks", "beats", "directions", "shots", "score", "of", "rubric", "version")
    values = (None, 7, "text", [], ["x"], [{"who": 1}], {"x": {"y": [None]}}, True)
    for key, value in itertools.product(keys, values):
        if value != "text" and (key, value) not in (("score", 7), ("beats", ["x"])):
            assert shown({key: value}, msg_type).startswith(f"{key}:"), (key, value)


def test_a_payload_nested_too_deeply_to_show_says_so() -> None:
    deep: Any = "bottom"
    for _ in range(900):
        deep = {"d": [deep]}
    assert "1 entry (--json shows all)" in shown({"deep": deep}, "weather")


def test_a_gist_is_one_line_of_the_width() -> None:
    line = gist(message({"lines": [{"who": "Vreni", "text": "Tea.  \nAnd\tmore."}] * 20}, "dialogue"), 40)
    assert line.startswith("VRENI: Tea. / And more. / VRENI:")
    assert columns(line) <= 40
    assert line.endswith("…")


def test_a_summary_shows_the_text_it_is_given() -> None:
    each = summary(message({"text": "Rain."}), text="…a \x1b[31mheavy weight…")
    assert each.body == ("    …a ␛[31mheavy weight…",)


# --- what may not reach a terminal ------------------------------------------------------------------------------------

HOSTILE = "\x1b]0;owned\x07 \x1b[2J \x9b31m \u202eevil\u2066 z\u200bw \ufeff \U000e0041 a\rb \x7f \u2028 \x85"


def _acts(character: str) -> bool:
    category = unicodedata.category(character)
    return character != "\n" and category in ("Cc", "Cf", "Zl", "Zp", "Cs")


def test_control_direction_and_invisible_characters_are_shown() -> None:
    text = visible("\x1b[31m \x9b \x7f \u202e \u200b \U000e0041 \r \ud800")
    assert text == "␛[31m \\x9b ␡ \\u202e \\u200b \\U000e0041 ␍ \\ud800"


def test_line_ends_and_tabs_are_layout_in_texts_and_shown_in_names() -> None:
    assert visible("a\r\nb\tc\u2028d") == "a\nb\tc\nd"
    assert visible_line("a\nb\tc") == "a␊b␉c"


def test_letters_of_all_scripts_and_emoji_stay_what_they_are() -> None:
    for text in ("Köbi, Müller, naïve", "می‌خواهم", "👩‍🚀 ❤️‍🔥", "日本語", "हिन्दी"):
        assert visible(text) == text
    assert visible("ad\u200dmin") == "ad\\u200dmin"


def test_hostile_characters_in_any_field_are_harmless() -> None:
    payloads: list[dict[str, Any]] = [
        {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}},
        {"text": HOSTILE, "title": HOSTILE, "of": HOSTILE, "score": 1, "notes": HOSTILE, "rubric": {HOSTILE: 0.5}},
        {"lines": [{"who": HOSTILE, "text": HOSTILE, "parenthetical": HOSTILE}]},
        {"blocks": [{"kind": kind, "who": HOSTILE, "text": HOSTILE} for kind in ("line", "parenthetical", HOSTILE)]},
        {"beats": [HOSTILE], "setting": HOSTILE, "directions": [{"who": HOSTILE, "text": HOSTILE, HOSTILE: HOSTILE}]},
        {"shots": [{"shot": HOSTILE, "text": HOSTILE}], "title": HOSTILE, "version": 1},
    ]
    for msg_type in [*MODELS, HOSTILE]:
        for payload in payloads:
            hostile = message(
                payload,
                msg_type,
                sender=HOSTILE,
                scene=HOSTILE,
                reply_to=HOSTILE,
                replaces=HOSTILE,
                dedup_key=HOSTILE,
                expires_at=HOSTILE,
                to=(HOSTILE,),
                drafts=(HOSTILE,),
                extra={HOSTILE: HOSTILE},
            )
            text = transcript([hostile], [3]) + gist(hostile, 60) + "".join(summary(hostile).lines())
            assert not [character for character in text if _acts(character)]


def test_json_is_escaped_without_changing_what_it_means() -> None:
    document = {"text": HOSTILE + "ö👩‍🚀", "\u202ekey": ["\U000e0041"]}
    text = escaped_json(orjson.dumps(document).decode())
    assert orjson.loads(text) == document
    assert not [character for character in text if _acts(character) and character != "\u200d"]
    assert "ö👩‍🚀" in text


# --- breaking lines ---------------------------------------------------------------------------------------------------


def test_wide_characters_count_two_columns_and_may_be_broken_anywhere() -> None:
    lines = wrap("日本語" * 20, 20)
    assert "".join(lines) == "日本語" * 20
    assert {columns(line) for line in lines} == {20}
    assert cut("日本語日本語", 6) == "日本…"


def test_a_label_stands_in_front_and_the_rest_hangs() -> None:
    assert wrap("one two three four", 16, label="A: ", hang=2) == ["A: one two three", "  four"]
    assert wrap("one\ntwo", 20, label="- ", hang=2) == ["- one", "  two"]
    assert wrap("x" * 30, 16, label="a long label: ", hang=2) == [
        "a long label:",
        f"  {'x' * 14}",
        f"  {'x' * 14}",
        "  xx",
    ]


def test_a_huge_text_without_spaces_is_broken_in_a_moment() -> None:
    assert len(wrap("語" * 200_000, 80)) == 5000


@settings(max_examples=300, deadline=None)
@given(st.text(), st.integers(1, 60), st.text(alphabet="ab: ", max_size=20), st.integers(0, 60))
def test_lines_keep_to_the_width_and_lose_nothing(text: str, width: int, label: str, hang: int) -> None:
    safe = visible(text)
    lines = wrap(safe, width, label=label, hang=hang)
    assert all(columns(line) <= max(width, 16, columns(label)) for line in lines)
    assert "".join("".join(lines).split()) == "".join((label + safe).split())
