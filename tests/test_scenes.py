"""The scene board's rules: what versions, scores, feedback and finalizes come to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.message import Message
from mq_server.names import format_time, id_number
from mq_server.scenes import PASS_SCORE, Board, Contribution, Judged, SceneState, derive, figure
from tests.support import START_US, known_id

SCENE = "q2-s3"


def said(
    number: int, msg_type: str, of: int | None = None, payload: dict[str, Any] | None = None, **keys: Any
) -> Message:
    """Message `number` at its own moment, or at `moment`; what is no field of a message goes into its payload."""
    own = {key: keys.pop(key) for key in ("sender", "scene", "channel") if key in keys}
    time = format_time(START_US + keys.pop("moment", number) * 1000)
    said_of = {} if of is None else {"of": known_id(of)}
    usual: dict[str, Any] = {"channel": "narrator", "sender": "quality_assessor", "scene": SCENE, "line": number}
    return Message(
        id=known_id(number), timestamp=time, msg_type=msg_type, payload=said_of | keys | (payload or {}), **usual | own
    )


def version(number: int, of: int = 1, **keys: Any) -> Message:
    """Version `of`, as message `number`."""
    return said(number, "scene", sender="scene_director", **{"version": of, "blocks": [{}, {}]} | keys)


def board(*messages: Message, **options: Any) -> Board:
    """The board of messages that correct nothing."""
    scenes = {each.id: each.scene if each.msg_type == "scene" else None for each in messages}
    return derive(
        [Contribution(each, each.id, (each.time_us, id_number(each.id))) for each in messages],
        lambda of: Judged(of, scenes[of]) if of in scenes else None,
        **options,
    )


def state(*messages: Message, **options: Any) -> SceneState:
    (only,) = board(*messages, **options).scenes
    return only


def scores(*messages: Message) -> list[float | None]:
    return [each.score for each in state(*messages).versions]


# --- versions ---------------------------------------------------------------------------------------------------------


def test_versions_stand_in_the_order_of_time_with_their_authors_numbers_and_the_newest_title() -> None:
    shown = state(version(3, 7, title="Later"), version(1, 4, title="Earlier"), version(5, 9))
    assert [(each.version, each.id) for each in shown.versions] == [
        (4, known_id(1)),
        (7, known_id(3)),
        (9, known_id(5)),
    ]
    assert (shown.title, shown.iterations, shown.versions[0].blocks) == ("Later", 3, 2)
    assert shown.versions[0].ref == "narrator:1~" + known_id(1)[-4:]


def test_two_versions_of_one_number_are_two_versions() -> None:
    shown = state(version(1, 1), version(2, 1), said(3, "score", 2, score=0.9))
    assert [(each.version, each.score) for each in shown.versions] == [(1, None), (1, 0.9)]
    assert shown.best is not None
    assert shown.best.id == known_id(2)


@pytest.mark.parametrize("number", [None, "2", True, 0, -1, 2.0, [2], {}])
def test_a_version_without_a_usable_number_counts_by_its_place(number: Any) -> None:
    shown = state(version(1, 5), version(2, number))
    assert [each.version for each in shown.versions] == [5, 2]
    assert len(shown.notes) == 1
    assert shown.notes[0].startswith(f"{shown.versions[1].ref}: 'version' is ")


def test_a_version_of_no_scene_is_left_out_and_noted() -> None:
    shown = board(version(1, scene=None))
    assert shown.scenes == ()
    assert "it has no 'scene'" in shown.notes[0]


def test_a_known_scene_without_a_version_is_a_draft() -> None:
    shown = board(version(1), known=["q2-s4"])
    assert [(each.scene, each.status, each.iterations) for each in shown.scenes] == [
        ("q2-s3", "waiting for a score", 1),
        ("q2-s4", "draft", 0),
    ]
    assert shown.scenes[1].as_json()["best"] is None


# --- scores -----------------------------------------------------------------------------------------------------------


def test_of_each_scorer_the_latest_score_counts_and_they_are_averaged() -> None:
    shown = state(
        version(1),
        said(4, "score", 1, score=0.7, sender="writer"),
        said(2, "score", 1, score=0.3, sender="writer"),
        said(3, "score", 1, score=0.9),
    )
    assert shown.versions[0].score == 0.8
    assert [(each.sender, each.score) for each in shown.versions[0].scored_by] == [
        ("quality_assessor", 0.9),
        ("writer", 0.7),
    ]


def test_three_scores_whose_mean_is_to_pass_do_so_whatever_binary_fractions_say() -> None:
    given_scores = (0.7, 0.8, 0.9)
    assert sum(given_scores) / 3 != PASS_SCORE
    messages = [said(2 + n, "score", 1, score=each, sender=f"scorer{n}") for n, each in enumerate(given_scores)]
    shown = state(version(1), *messages)
    assert (shown.versions[0].score, shown.versions[0].passed, shown.status) == (0.8, True, "passed")


@pytest.mark.parametrize(("score", "passes"), [(0.79, False), (0.8, True), (0, False), (1, True)])
def test_a_version_passes_from_080_on(score: float, passes: bool) -> None:
    shown = state(version(1), said(2, "score", 1, score=score))
    assert shown.versions[0].passed is passes
    assert shown.status == ("passed" if passes else "in revision")


@pytest.mark.parametrize("score", [None, "0.9", True, [0.9], {}, 1.1, -0.1, 10**30])
def test_a_score_that_is_no_number_from_0_to_1_is_left_out_and_noted(score: Any) -> None:
    shown = state(version(1), said(2, "score", 1, score=0.5), said(3, "score", 1, score=score))
    assert shown.versions[0].score == 0.5
    assert len(shown.notes) == 1
    assert "no number from 0 to 1" in shown.notes[0]


def test_a_score_belongs_to_the_version_it_names_whatever_scene_it_bears() -> None:
    messages = [version(1), version(2, scene="q2-s4"), said(3, "score", 1, score=0.4, scene="q2-s4")]
    messages.append(said(4, "score", 2, score=0.6, scene=None))
    first, second = board(*messages).scenes
    assert (first.versions[0].score, second.versions[0].score) == (0.4, 0.6)
    assert board(*messages, only="q2-s4").scenes == (second,)


def test_a_score_of_another_kind_of_message_is_no_score_of_a_version_and_no_fault() -> None:
    shown = state(version(1), said(2, "feedback", text="So far."), said(3, "score", 2, score=0.9))
    assert (shown.versions[0].score, shown.notes) == (None, ())


@pytest.mark.parametrize("kind", ["score", "finalize"])
def test_a_judgement_of_what_stands_nowhere_is_left_out_and_noted(kind: str) -> None:
    shown = state(version(1), said(2, kind, 77, score=0.9))
    assert (shown.status, shown.finalised) == ("waiting for a score", None)
    assert "stands in no mailbox" in shown.notes[0]
    assert "stands in no mailbox" in board(version(1), said(2, kind, 77, score=0.9, scene=None)).notes[0]


def test_a_score_is_shown_to_as_many_places_as_tell_whether_it_passes() -> None:
    assert [figure(score) for score in (0.45, 0.8, 0.796, 0.7999, 1.0)] == ["0.45", "0.80", "0.796", "0.7999", "1.00"]


# --- the best, the final one, the cap -------------------------------------------------------------------------------


def test_the_best_is_the_highest_score_and_of_equals_the_later() -> None:
    messages = [version(1), version(2, 2), version(3, 3), *(said(3 + n, "score", n, score=0.6) for n in (1, 2))]
    best = state(*messages, said(6, "score", 3, score=0.5)).best
    assert best is not None
    assert best.version == 2


def test_the_newest_finalize_that_names_a_version_wins() -> None:
    messages = [version(1), version(2, 2), said(5, "finalize", 1, sender="writer"), said(3, "finalize", 2)]
    shown = state(*messages, said(6, "finalize", 5), said(7, "finalize", 99), said(8, "finalize", of=None))
    assert shown.finalised is not None
    assert (shown.finalised.version.version, shown.finalised.sender) == (1, "writer")
    assert shown.status == "finalised"
    assert len(shown.notes) == 3
    assert shown.as_json()["finalised"] | {"ref": "", "by_ref": ""} == {
        "version": 1,
        "ref": "",
        "id": known_id(1),
        "score": None,
        "by": "writer",
        "by_ref": "",
        "timestamp": format_time(START_US + 5000),
    }


def test_a_version_after_the_finalize_changes_nothing_by_itself() -> None:
    shown = state(version(1), said(2, "finalize", 1), version(3, 2))
    assert shown.status == "finalised"
    assert shown.finalised is not None
    assert shown.finalised.version.id == known_id(1)


def test_every_status_has_its_moment() -> None:
    story = [
        version(1),
        said(2, "score", 1, score=0.45),
        version(3, 2),
        said(4, "score", 3, score=0.6),
        said(5, "score", 3, score=0.9),
        said(6, "finalize", 3),
    ]
    told = [state(*story[: count + 1], max_iterations=2).status for count in range(6)]
    assert told == ["waiting for a score", "in revision", "waiting for a score", "cap reached", "passed", "finalised"]


def test_at_the_cap_the_best_scored_version_is_named() -> None:
    story = [version(n, n) for n in range(1, 6)] + [
        said(5 + n, "score", n, score=score) for n, score in enumerate((0.5, 0.6, 0.7, 0.78, 0.77), 1)
    ]
    ref = f"narrator:4~{known_id(4)[-4:]}"
    shown = state(*story, max_iterations=5)
    assert shown.cap_reached
    assert shown.advice == f"scene q2-s3 has had 5 of 5 versions; best: version 4 ({ref}) with 0.78: finalize it"
    assert shown.as_json()["advice"] == shown.advice
    assert state(*story, max_iterations=6).advice is None
    assert state(*story).advice is None
    assert not state(*story).cap_reached
    assert state(*story, said(11, "finalize", 4), max_iterations=5).advice is None


def test_at_the_cap_a_version_without_a_score_is_to_be_scored_first_unless_one_has_passed() -> None:
    first, second = version(1, 1), version(2, 2)
    unscored = state(first, second, max_iterations=2).advice
    assert unscored == "scene q2-s3 has had 2 of 2 versions, none of them scored: score them and finalize the best"
    newest_unscored = state(first, second, said(3, "score", 1, score=0.4), max_iterations=2)
    assert newest_unscored.status == "waiting for a score"
    assert newest_unscored.advice == (
        f"scene q2-s3 has had 2 of 2 versions; best so far: version 1 ({first.ref}) with 0.40. "
        f"Score version 2 ({second.ref}), then finalize the best"
    )
    passed = state(first, second, said(3, "score", 1, score=0.9), max_iterations=2).advice
    assert passed == f"scene q2-s3 has had 2 of 2 versions; best: version 1 ({first.ref}) with 0.90: finalize it"


# --- feedback ---------------------------------------------------------------------------------------------------------


def open_feedback(*messages: Message) -> list[str]:
    return [each.text for each in state(*messages).open_feedback]


def test_feedback_is_open_until_a_later_version_or_a_later_finalize() -> None:
    before, about = said(1, "feedback", text="Shorter."), said(3, "feedback", 2, text="No tea.")
    assert open_feedback(before) == ["Shorter."]
    assert open_feedback(before, version(2)) == []
    assert open_feedback(before, version(2), about) == ["No tea."]
    assert open_feedback(before, version(2), about, version(4)) == []
    assert open_feedback(before, version(2), about, said(4, "finalize", 2)) == []
    late = said(5, "feedback", 2, text="One word more.")
    assert open_feedback(version(2), version(4), late) == ["One word more."]
    assert open_feedback(version(2), about, said(4, "finalize", 2), late) == ["One word more."]


def test_feedback_about_a_version_comes_after_it_whatever_the_clocks_said() -> None:
    early = said(3, "feedback", 2, text="No tea.", moment=1)
    shown = state(version(2, moment=5), early)
    assert [each.of for each in shown.open_feedback] == [shown.versions[0].ref]
    assert open_feedback(version(2, moment=5), early, version(4, moment=6)) == []


@pytest.mark.parametrize("payload", [{"text": 5}, {"text": " "}, {}, {"text": "x", "of": 7}])
def test_feedback_that_says_nothing_is_left_out_and_noted(payload: dict[str, Any]) -> None:
    shown = state(version(1), said(2, "feedback", payload=payload))
    assert (shown.open_feedback, len(shown.notes)) == ((), 1)


def test_a_long_feedback_is_cut_in_the_answer() -> None:
    (shown,) = state(version(1), said(2, "feedback", 1, text="é" * 5000)).as_json()["open_feedback"]
    assert len(shown["text"]) < 300
    assert shown["text"].endswith("…")


# --- anything at all --------------------------------------------------------------------------------------------------

_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 4), st.floats(-0.5, 1.5), st.text(max_size=3), st.just([1]), st.just({})
)
_OF = st.one_of(st.integers(0, 12).map(known_id), _VALUES)


@st.composite
def stories(draw: st.DrawFn) -> list[Message]:
    """Messages of every kind that judge each other, some of them nonsense."""
    count = draw(st.integers(1, 10))
    return [
        said(
            number,
            draw(st.sampled_from(["scene", "score", "feedback", "finalize"])),
            moment=draw(st.integers(0, 6)),
            sender=draw(st.sampled_from(["a", "b"])),
            scene=draw(st.sampled_from([SCENE, SCENE, "q2-s4", None])),
            payload=draw(
                st.fixed_dictionaries(
                    {},
                    optional={"of": _OF, "score": st.one_of(st.floats(0, 1), _VALUES), "version": _VALUES}
                    | {"text": _VALUES, "blocks": _VALUES, "title": _VALUES},
                )
            ),
        )
        for number in range(count)
    ]


@given(stories(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_no_message_stops_the_board_and_their_order_does_not_matter(
    story: list[Message], random: Any, max_iterations: int
) -> None:
    shown = board(*story, max_iterations=max_iterations)
    shuffled = list(story)
    random.shuffle(shuffled)
    assert board(*shuffled, max_iterations=max_iterations) == shown
    for each in shown.scenes:
        assert board(*story, max_iterations=max_iterations, only=each.scene).scenes == (each,)
        assert each.as_json()["status"] == each.status
        assert (each.advice is not None) == (each.cap_reached and each.finalised is None)
