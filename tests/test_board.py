"""The scene board of real files: copies, corrections, merges, hand edits, the cap."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.errors import UnknownScene
from mq_server.mailroom import Mailroom
from mq_server.scenes import Board, SceneState
from tests.support import append, ask, examples, known_id, line, merged_both_ways, new_log, write

EXAMPLE = Path(__file__).parents[1] / "mailboxes"
SCENE = "q2-s3"


def board(root: Path, scene: str | None = None) -> Board:
    shown: Board = ask(root, lambda room: room.scenes(scene))
    return shown


def state(root: Path, scene: str = SCENE) -> SceneState:
    (only,) = board(root, scene).scenes
    return only


def said(number: int, msg_type: str, of: int | None = None, **keys: Any) -> bytes:
    """Message `number`; what is no key of a line goes into its payload. `replaces` is given as a number."""
    own = {key: keys.pop(key) for key in ("sender", "scene", "channel", "to") if key in keys}
    if "replaces" in keys:
        own["replaces"] = known_id(keys.pop("replaces"))
    payload = keys if of is None else {"of": known_id(of)} | keys
    return line(number, id=known_id(number), msg_type=msg_type, payload=payload, **{"scene": SCENE} | own)


def version(number: int, of: int, **keys: Any) -> bytes:
    """Version `of`, as message `number`."""
    return said(number, "scene", version=of, blocks=[{"kind": "action", "text": "Rain."}], **keys)


def test_the_example_production_went_from_045_to_093_and_is_final() -> None:
    shown = state(EXAMPLE)
    assert [(each.version, each.score) for each in shown.versions] == [(1, 0.45), (2, 0.93)]
    assert (shown.title, shown.status, shown.open_feedback, shown.notes) == ("The Other Fifty", "finalised", (), ())
    assert shown.finalised is not None
    assert shown.finalised.version == shown.best == shown.versions[1]
    assert [each.scene for each in board(EXAMPLE).scenes] == [SCENE]


def test_a_message_to_several_mailboxes_is_one(tmp_path: Path) -> None:
    first, score = version(1, 1, to=["narrator", "dialogist"]), said(2, "score", 1, score=0.5)
    feedback = said(3, "feedback", 1, text="Shorter.")
    write(tmp_path / "narrator.jsonl", said(0, "note", text="x"), first, score, feedback)
    write(tmp_path / "dialogist.jsonl", first.replace(b'"narrator"', b'"dialogist"', 1), feedback)
    shown = state(tmp_path)
    assert [each.ref for each in shown.versions] == [f"dialogist:1~{known_id(1)[-4:]}"]
    assert [each.ref for each in shown.open_feedback] == [f"dialogist:2~{known_id(3)[-4:]}"]
    assert (shown.iterations, shown.versions[0].score) == (1, 0.5)


def test_a_corrected_version_stays_in_its_place_and_keeps_its_scores(tmp_path: Path) -> None:
    lines = [version(1, 1, title="Slip"), said(2, "score", 1, score=0.6), version(3, 2)]
    lines += [said(4, "feedback", 1, text="Of the first, late."), version(5, 1, title="Right", replaces=1)]
    lines += [said(6, "score", 5, score=0.9, sender="writer"), said(7, "score", 3, score=0.5)]
    write(tmp_path / "narrator.jsonl", *lines)
    shown = state(tmp_path)
    assert [(each.version, each.id, each.score) for each in shown.versions] == [
        (1, known_id(5), 0.75),
        (2, known_id(3), 0.5),
    ]
    assert [each.of for each in shown.open_feedback] == [shown.versions[0].ref]
    assert (shown.title, shown.iterations) == ("Right", 2)
    append(new_log(tmp_path), said(8, "finalize", 1))
    finalised = state(tmp_path).finalised
    assert finalised is not None
    assert finalised.version.id == known_id(5)


def test_a_version_moved_to_another_scene_takes_its_scores_along(tmp_path: Path) -> None:
    lines = [version(1, 1, scene="q3-s3"), said(2, "score", 1, score=0.9, scene="q3-s3"), version(3, 1, replaces=1)]
    write(tmp_path / "narrator.jsonl", *lines)
    assert [each.score for each in state(tmp_path).versions] == [0.9]
    assert state(tmp_path, "q3-s3").status == "draft"


def test_a_corrected_score_counts_as_corrected_and_no_later_than_it_was_given(tmp_path: Path) -> None:
    lines = [version(1, 1), said(2, "score", 1, score=0.3), said(4, "score", 1, score=0.4, replaces=2)]
    write(tmp_path / "narrator.jsonl", *lines)
    assert state(tmp_path).versions[0].score == 0.4
    append(new_log(tmp_path), said(3, "score", 1, score=0.9))
    assert state(tmp_path).versions[0].score == 0.9


def test_a_scene_is_known_by_any_message_unless_that_was_corrected(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", said(1, "brief", text="x"), said(2, "note", text="x", scene="q3-s3"))
    assert [(each.scene, each.status) for each in board(tmp_path).scenes] == [("q2-s3", "draft"), ("q3-s3", "draft")]
    append(new_log(tmp_path), said(3, "note", text="x", scene="q2-s4", replaces=2))
    assert [each.scene for each in board(tmp_path).scenes] == ["q2-s3", "q2-s4"]


def test_an_unknown_scene_is_refused_and_the_likely_one_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownScene, match="No message bears a scene yet"):
        board(tmp_path, SCENE)
    write(tmp_path / "narrator.jsonl", said(1, "brief", text="x"))
    with pytest.raises(UnknownScene, match=re.escape("no scene 'Q2-S33' in this production. Did you mean 'q2-s3'?")):
        board(tmp_path, "Q2-S33")


def test_files_changed_by_hand_are_read_as_they_stand_and_nonsense_stops_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "narrator.jsonl", version(1, 1), said(2, "score", 1, score=0.4))
    other = write(tmp_path / "writer.jsonl", said(3, "score", 1, score=0.5, sender="writer"))

    async def story(room: Mailroom) -> None:
        (before,) = (await room.scenes()).scenes
        assert (before.versions[0].score, before.notes) == (0.45, ())
        path.write_bytes(path.read_bytes().replace(b'"score":0.4', b'"score":"high"') + b"<<<<<<< HEAD\n")
        other.write_bytes(other.read_bytes().replace(known_id(1).encode(), b"narrator:1"))
        shown = await room.scenes()
        (after,) = shown.scenes
        assert (after.versions[0].score, after.status) == (None, "waiting for a score")
        assert [note.partition(": ")[0] for note in after.notes] == [
            f"narrator:2~{known_id(2)[-4:]}",
            f"writer:1~{known_id(3)[-4:]}",
        ]
        assert [str(problem).partition(": ")[0] for problem in shown.problems] == ["narrator.jsonl:3"]
        assert "narrator.jsonl:3" in shown.as_json()["problems"][0]

    ask(tmp_path, story)


def test_the_cap_comes_from_the_settings_and_reaches_whoever_asks(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", version(1, 1), said(2, "score", 1, score=0.7))

    def advice() -> Any:
        return ask(tmp_path, lambda room: room.iteration_advice(SCENE))

    assert advice() is None
    (tmp_path / "mq.toml").write_text("max_iterations = 2\n")
    assert advice() is None
    assert (state(tmp_path).cap_reached, state(tmp_path).max_iterations) == (False, 2)
    append(new_log(tmp_path), version(3, 2))
    assert "has had 2 of 2 versions; best so far: version 1" in advice()
    append(new_log(tmp_path), said(4, "score", 3, score=0.75))
    assert advice().endswith(f"best: version 2 (narrator:3~{known_id(3)[-4:]}) with 0.75: finalize it")
    assert state(tmp_path).status == "cap reached"
    append(new_log(tmp_path), said(5, "finalize", 3))
    assert advice() is None
    assert ask(tmp_path, lambda room: room.iteration_advice("q9-s9")) is None


def test_versions_of_other_scenes_do_not_matter_to_a_scene_and_are_not_named_as_missing(tmp_path: Path) -> None:
    lines = [version(1, 1), version(2, 1, scene="q2-s4"), said(3, "finalize", 2), said(4, "score", 2, score=0.9)]
    write(tmp_path / "narrator.jsonl", *lines)
    everything = board(tmp_path)
    assert [each.status for each in everything.scenes] == ["waiting for a score", "finalised"]
    for each in everything.scenes:
        assert board(tmp_path, each.scene).scenes == (each,)
        assert each.notes == ()


# --- merges -----------------------------------------------------------------------------------------------------------


def essence(shown: Board) -> Any:
    """The board without refs, which hold line numbers."""

    def without_refs(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_refs(item) for key, item in value.items() if key not in ("ref", "of", "by_ref")}
        if isinstance(value, list):
            return [without_refs(item) for item in value]
        return re.sub(r"\w+:\d+~", "", value) if isinstance(value, str) else value

    document = without_refs(shown.as_json())
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


STORY = [
    version(1, 1),
    said(2, "score", 1, score=0.4),
    said(3, "score", 1, score=0.6, sender="writer"),
    said(4, "feedback", 1, text="Shorter."),
    version(5, 2),
    version(6, 2),
    said(7, "score", 5, score=0.7),
    version(8, 1, replaces=1),
    said(9, "score", 8, score=0.5, sender="writer"),
    said(10, "feedback", 6, text="No tea."),
    said(11, "score", 5, score=0.9, replaces=7),
    said(12, "finalize", 77),
    said(13, "score", 6, score="high"),
]


@examples(25)
@given(st.data())
def test_the_board_does_not_depend_on_which_files_hold_what_in_which_order(data: st.DataObject) -> None:
    mailboxes: dict[str, list[bytes]] = {}
    for text in data.draw(st.permutations(STORY)):
        for name in data.draw(st.lists(st.sampled_from(["narrator", "dialogist", "writer"]), min_size=1, unique=True)):
            mailboxes.setdefault(name, []).append(text)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as straight:
        write(Path(straight) / "narrator.jsonl", *STORY)
        for name, lines in mailboxes.items():
            write(Path(folder) / f"{name}.jsonl", *lines)
        shown = board(Path(folder))
        assert essence(shown) == essence(board(Path(straight)))
        assert shown.scenes == board(Path(folder), SCENE).scenes


def test_both_directions_of_a_merge_give_the_same_board(tmp_path: Path) -> None:
    def adds(lines: Iterable[bytes]) -> Callable[[Path], object]:
        return lambda folder: append(new_log(folder), b"".join(lines))

    clones = merged_both_ways(tmp_path, [adds(STORY[1::2]), adds(STORY[2::2])], adds(STORY[:1]))
    forth, back = (board(clone) for clone in clones)
    assert essence(forth) == essence(back)
    assert [each.score for each in forth.scenes[0].versions] == [0.45, 0.9, None]
