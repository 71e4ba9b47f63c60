"""`mq note`, `mq amend` and the drafts of a post, as a writer uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import commit, git
from tests.test_cli import answer, mq, post


def test_a_note_stands_in_the_thread_and_wakes_nobody(tmp_path: Path) -> None:
    ref = post(tmp_path, "narrator", "Rain.")
    assert mq(tmp_path, "note", ref, "Too loud.").stdout.startswith("notes:1~")
    thread = answer(tmp_path, "thread", ref)["messages"]
    assert [(each["sender"], each["channel"], each["payload"]["text"]) for each in thread] == [
        ("writer", "narrator", "Rain."),
        ("writer", "notes", "Too loud."),
    ]
    assert len(answer(tmp_path, "read", "narrator")["messages"]) == 1


def test_a_note_reaches_whom_it_is_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = post(tmp_path, "narrator", "Rain.")
    monkeypatch.setenv("MQ_SENDER", "producer")
    mq(tmp_path, "note", ref, "Louder!", "--to", "narrator", "--to", "sound")
    note = answer(tmp_path, "read", "sound")["messages"][0]
    assert (note["sender"], note["to"]) == ("producer", ["notes", "narrator", "sound"])
    assert "No message is named" in mq(tmp_path, "note", "narrator:9", "x", code=3).stderr


def test_a_correction_takes_the_place_of_the_message(tmp_path: Path) -> None:
    question = ("--sender", "narrator", "--type", "feedback", "--scene", "q2-s3")
    mq(tmp_path, "post", "dialogist", *question, "--payload", '{"text": "Too lond.", "tone": "dry"}')
    mq(tmp_path, "amend", "dialogist:1", "--text", "Too loud.")
    shown = answer(tmp_path, "history", "dialogist")["messages"]
    assert [(each["sender"], each["msg_type"], each["scene"]) for each in shown] == [("narrator", "feedback", "q2-s3")]
    assert (shown[0]["payload"], shown[0]["amended"]) == ({"text": "Too loud.", "tone": "dry"}, True)
    assert len((tmp_path / "dialogist.jsonl").read_bytes().splitlines()) == 2, "the old line stays"
    mq(tmp_path, "amend", "dialogist:2", "--payload", '{"text": "Far too loud."}', "--sender", "writer")
    shown = answer(tmp_path, "history", "dialogist")["messages"]
    assert [(each["sender"], each["payload"]) for each in shown] == [("writer", {"text": "Far too loud."})]


def test_a_text_for_what_has_none_is_refused(tmp_path: Path) -> None:
    mq(tmp_path, "post", "narrator", "--sender", "a", "--type", "prop", "--payload", '{"what": "tin", "count": 1}')
    told = mq(tmp_path, "amend", "narrator:1", "--text", "A jar.", code=3).stderr
    assert "has no text, but what, count: give --payload" in told
    assert len((tmp_path / "narrator.jsonl").read_bytes().splitlines()) == 1


def test_a_correction_of_a_copied_message_goes_to_all_its_mailboxes(tmp_path: Path) -> None:
    mq(tmp_path, "post", "narrator", "dialogist", "--sender", "a", "--type", "note", "--text", "x")
    mq(tmp_path, "amend", "narrator:1", "--text", "y")
    for channel in ("narrator", "dialogist"):
        assert [each["payload"]["text"] for each in answer(tmp_path, "read", channel)["messages"]] == ["y"]


def test_an_editor_opens_with_the_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post(tmp_path, "narrator", "Rain.")
    monkeypatch.setattr("click.edit", lambda text, extension: text.replace("Rain", "Snow"))
    mq(tmp_path, "amend", "narrator:1")
    assert answer(tmp_path, "history", "narrator")["messages"][0]["payload"] == {"text": "Snow."}
    for left in (None, "same"):
        monkeypatch.setattr("click.edit", lambda text, extension, left=left: text if left else None)
        assert "Nothing was changed" in mq(tmp_path, "amend", "narrator:1", code=2).stderr
    monkeypatch.setattr("click.edit", lambda text, extension: "{")
    assert "not JSON" in mq(tmp_path, "amend", "narrator:1", code=2).stderr
    assert len((tmp_path / "narrator.jsonl").read_bytes().splitlines()) == 2


def test_a_post_names_the_drafts_it_was_written_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    draft = repository / "scenes" / "q2 s3.fountain"
    draft.parent.mkdir(parents=True)
    draft.write_text("INT. MÜRGEN", encoding="utf-8")
    git(repository, "init", "-q")
    commit(repository)
    head = git(repository, "rev-parse", "HEAD").strip()[:12]
    monkeypatch.chdir(repository / "scenes")
    root = repository / "mailboxes"
    posting = ("post", "narrator", "--sender", "a", "--type", "note", "--text", "x")
    mq(root, *posting, "--draft", "q2 s3.fountain#L10-L20", "--draft", "elsewhere.md@3f2a91c")
    stored = answer(root, "history", "narrator")["messages"][0]
    assert stored["drafts"] == [f"scenes/q2 s3.fountain#L10-L20@{head}", "elsewhere.md@3f2a91c"]
    assert f"from scenes/q2 s3.fountain#L10-L20@{head}" in " ".join(mq(root, "show", "narrator").stdout.split())
    assert "there is no file nowhere.md" in mq(root, *posting, "--draft", "nowhere.md", code=3).stderr
    assert len(answer(root, "history", "narrator")["messages"]) == 1


def test_a_draft_outside_a_repository_cannot_be_stamped(tmp_path: Path) -> None:
    (tmp_path / "draft.md").write_text("x", encoding="utf-8")
    posting = ("post", "narrator", "--sender", "a", "--type", "note", "--text", "x")
    told = mq(tmp_path / "p", *posting, "--draft", str(tmp_path / "draft.md"), code=3).stderr
    assert "not a git repository" in told
    assert not (tmp_path / "p").exists()
