"""`mq export`: what goes into a document, where it goes, and the examples in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mq_server.cli import main
from tests.support import known_id, line, write

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "mailboxes"
DOCUMENTS = ROOT / ".docs"
FORMATS = ("md", "fountain", "html", "json")
SCENE = "q2-s3"


def export(root: Path, *arguments: str, code: int = 0) -> Result:
    """Run the command within this process and check its exit code."""
    result = CliRunner().invoke(main, ["--root", str(root), "export", *arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def said(number: int, msg_type: str, scene: str | None = SCENE, **payload: Any) -> bytes:
    own = {key: payload.pop(key) for key in ("sender", "reply_to") if key in payload}
    return line(number, id=known_id(number), msg_type=msg_type, payload=payload, scene=scene, **own)


def version(number: int, text: str) -> bytes:
    return said(number, "scene", version=number, blocks=[{"kind": "action", "text": text}])


def ids(result: Result) -> list[str]:
    return [message["id"] for message in json.loads(result.stdout)["messages"]]


# --- the documentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["md", "fountain", "html"])
def test_the_documents_in_the_documentation_are_what_the_command_makes(form: str) -> None:
    final = ["--final"] if form == "fountain" else []
    made = export(EXAMPLE, "--format", form, "--scene", SCENE, *final).stdout
    assert (DOCUMENTS / f"{SCENE}.{form}").read_text(encoding="utf-8") == made


def test_the_excerpts_in_the_readme_stand_in_the_documents() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for form in ("md", "fountain"):
        found = re.search(rf"<!-- export {form} -->\n````?\w*\n(.*?)````?\n<!-- /export {form} -->", readme, re.S)
        assert found, form
        assert found[1] in (DOCUMENTS / f"{SCENE}.{form}").read_text(encoding="utf-8")
    for linked in re.findall(r"\]\((\.docs/[^)]+)\)", readme):
        assert (ROOT / linked).is_file(), linked
    assert (DOCUMENTS / "export.png").stat().st_size < 200_000


# --- what is exported -------------------------------------------------------------------------------------------------


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """Two scenes in two mailboxes, and a note of neither."""
    write(
        tmp_path / "narrator.jsonl",
        said(1, "brief", text="Begin.", sender="writer"),
        version(2, "Take two."),
        said(3, "note", text="Why?", reply_to=known_id(1)),
        said(4, "score", of=known_id(2), score=0.7),
    )
    write(
        tmp_path / "dialogist.jsonl",
        version(5, "Take five."),
        said(6, "score", of=known_id(5), score=0.5, reply_to=known_id(5)),
        said(7, "narration", "q2-s4", text="Elsewhere."),
        said(8, "note", None, text="No scene."),
    )
    return tmp_path


def test_without_a_name_it_is_the_whole_production(production: Path) -> None:
    document = json.loads(export(production, "--format", "json").stdout)
    assert [message["id"] for message in document["messages"]] == [known_id(number) for number in range(1, 9)]
    assert [state["scene"] for state in document["scenes"]] == [SCENE, "q2-s4"]
    assert document["pass_score"] == 0.8
    assert document["messages"][0] == {
        "id": known_id(1),
        "ref": f"narrator:1~{known_id(1)[-4:]}",
        **json.loads(said(1, "brief", text="Begin.", sender="writer")),
    }
    text = export(production, "--format", "md").stdout
    assert [row for row in text.splitlines() if row.startswith("## ")] == [
        "## Scene q2-s3",
        "## Scene q2-s4",
        "## Without a scene",
    ]


def test_a_channel_a_thread_or_a_scene_can_be_exported(production: Path) -> None:
    assert ids(export(production, "dialogist", "--format", "json")) == [known_id(number) for number in (5, 6, 7, 8)]
    assert ids(export(production, "narrator:3", "--format", "json")) == [known_id(1), known_id(3)]
    assert ids(export(production, "--scene", "q2-s4", "--format", "json")) == [known_id(7)]
    assert ids(export(production, "dialogist", "--scene", SCENE, "--format", "json")) == [known_id(5), known_id(6)]
    thread = export(production, "narrator:3", "--format", "html").stdout
    assert "depth-1 a" in thread
    assert "<title>Begin.</title>" in thread
    assert "the thread of narrator:3 · 2 messages" in thread
    assert "channel dialogist · 4 messages" in export(production, "dialogist", "--format", "md").stdout
    both = export(production, "dialogist", "--scene", SCENE, "--format", "md").stdout
    assert "scene q2-s3 in channel dialogist · 2 messages" in both


@pytest.mark.parametrize("form", FORMATS)
def test_final_is_the_finalised_version_alone(production: Path, form: str) -> None:
    with (production / "narrator.jsonl").open("ab") as mailbox:
        mailbox.write(said(9, "finalize", of=known_id(2), score=0.7))
    text = export(production, "--format", form, "--scene", SCENE, "--final").stdout
    assert "Take two." in text
    assert "Take five." not in text
    assert "Begin." not in text


@pytest.mark.parametrize("form", FORMATS)
def test_without_a_finalised_version_the_best_scored_is_named(production: Path, form: str) -> None:
    failed = export(production, "--format", form, "--scene", SCENE, "--final", code=3)
    assert failed.stdout == ""
    assert f"Best so far: version 2 (narrator:2~{known_id(2)[-4:]}) with 0.70" in failed.stderr


def test_a_scene_without_scores_or_versions_has_no_best(production: Path) -> None:
    assert "It has no version yet" in export(production, "--format", "md", "--scene", "q2-s4", "--final", code=3).stderr
    write(production / "narrator.jsonl", version(2, "Take two."))
    write(production / "dialogist.jsonl")
    failed = export(production, "--format", "md", "--scene", SCENE, "--final", code=3)
    assert "No version of it is scored" in failed.stderr


def test_final_needs_a_scene_and_nothing_else(production: Path) -> None:
    assert "--final goes with --scene" in export(production, "--format", "md", "--final", code=2).stderr
    export(production, "narrator", "--scene", SCENE, "--final", "--format", "md", code=2)
    export(production, "narrator", code=2)


def test_what_is_not_there_is_a_failure_that_names_the_likely_one(production: Path) -> None:
    assert "Did you mean 'q2-s3'?" in export(production, "--format", "md", "--scene", "q2-s33", code=3).stderr
    assert "Did you mean 'narrator'?" in export(production, "narator", "--format", "md", code=3).stderr
    assert "takes messages of type scene" in export(production, "narrator:3", "--format", "fountain", code=3).stderr


def test_what_cannot_be_read_is_told_beside_the_document(production: Path) -> None:
    with (production / "narrator.jsonl").open("ab") as mailbox:
        mailbox.write(b"{torn\n")
    result = export(production, "--format", "md")
    assert "narrator.jsonl:5: torn line" in result.stderr
    assert "torn" not in result.stdout


# --- where it goes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_gets_what_stdout_would_get(production: Path, form: str) -> None:
    target = production / f"x.{form}"
    target.write_text("old")
    told = export(production, "--format", form, "-o", str(target))
    assert told.stdout == ""
    assert f"x.{form}: 8 messages" in told.stderr
    assert target.read_bytes().decode() == export(production, "--format", form).stdout
    assert [each.name for each in production.glob(".x*")] == []


def test_a_document_that_cannot_be_written_leaves_the_old_one(production: Path) -> None:
    missing = production / "no" / "x.md"
    assert "No such file" in export(production, "--format", "md", "-o", str(missing), code=3).stderr


def test_a_production_without_messages_is_an_empty_document(tmp_path: Path) -> None:
    assert json.loads(export(tmp_path, "--format", "json").stdout) == {"messages": [], "pass_score": 0.8, "scenes": []}
    assert export(tmp_path, "--format", "md").stdout.endswith("the whole production · 0 messages\n")
    assert "There are no messages." in export(tmp_path, "--format", "html").stdout
    export(tmp_path, "--format", "fountain", code=3)


def test_more_messages_than_a_page_of_the_mailroom_are_all_there_once(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *(said(number, "note", text=f"{number}") for number in range(1, 2502)))
    found = ids(export(tmp_path, "--format", "json"))
    assert found == [known_id(number) for number in range(1, 2502)]
