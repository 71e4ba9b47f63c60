"""The commands as people and scripts use them: real processes, their output and their exit codes."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from mq_server import config
from mq_server.cli import DEFAULT_ROOT, main
from mq_server.cli.options import moment, seconds
from mq_server.cli.writing import EXAMPLE_ROSTER
from mq_server.mailroom import DEFAULT_ROOT as MAILROOM_ROOT
from mq_server.names import parse_time
from tests.support import write

MQ = [sys.executable, "-m", "mq_server"]
DEADLINE_S = 30.0
posix_only = pytest.mark.skipif(os.name == "nt", reason="signals and pipes as POSIX has them")


def mq(root: Path, *arguments: str, code: int = 0) -> Result:
    """Run a command within this process and check its exit code."""
    result = CliRunner().invoke(main, ["--root", str(root), *arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def answer(root: Path, *arguments: str, code: int = 0) -> Any:
    """The JSON document of a command."""
    return json.loads(mq(root, *arguments, "--json", code=code).stdout)


def post(root: Path, channel: str = "narrator", text: str = "Rain.", *options: str, sender: str = "writer") -> str:
    """Post a note; its ref."""
    arguments = [channel] if channel else []
    posted = answer(root, "post", *arguments, "--sender", sender, "--type", "note", "--text", text, *options)
    return str(posted["ref"])


def process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of its own."""
    settings = {"capture_output": True, "timeout": DEADLINE_S, "check": False} | options
    return subprocess.run([*MQ, *map(str, arguments)], **settings)


@contextmanager
def running(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on, with its output to be read line by line."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"} | options
    started = subprocess.Popen([*MQ, *map(str, arguments)], **settings)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


# --- what starts, and how ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_settings", [False, True])
def test_a_post_starts_without_what_it_does_not_need(tmp_path: Path, with_settings: bool) -> None:
    if with_settings:
        mq(tmp_path, "init")
    heavy = {"mcp", "mcp_types", "pydantic_ai", "starlette", "uvicorn", "watchfiles", "rich", "httpx2"}
    arguments = [sys.executable, "-X", "importtime", "-m", "mq_server", "--root", str(tmp_path)]
    arguments += ["post", "narrator", "--sender", "writer", "--type", "note", "--text", "Rain."]
    finished = subprocess.run(arguments, capture_output=True, encoding="utf-8", timeout=DEADLINE_S, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.splitlines()}
    assert "orjson" in imported
    assert not imported & heavy


def test_the_default_folder_is_the_mailrooms() -> None:
    assert DEFAULT_ROOT == MAILROOM_ROOT


def test_help_lists_every_command_in_a_line() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    for name in main.list_commands(click.Context(main)):
        assert re.search(rf"^  {name} +\S.*\.$", text, flags=re.MULTILINE), name
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_the_folder_may_be_named_before_or_after_the_command_or_by_the_environment(tmp_path: Path) -> None:
    post(tmp_path, text="Here.")
    for arguments in (["--root", str(tmp_path), "show"], ["show", "--root", str(tmp_path)]):
        assert "Here." in CliRunner().invoke(main, arguments).stdout
    assert "Here." in CliRunner(env={"MQ_ROOT": str(tmp_path)}).invoke(main, ["show"]).stdout


def test_a_question_about_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert f"no folder {missing}" in mq(missing, "channels").stderr
    assert f"no folder {missing}" in mq(missing, "check", code=3).stderr
    assert not missing.exists()


# --- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["posst"], 2, "Did you mean 'post'?"),
        (["post", "narrator", "--sender", "writer", "--type", "note"], 2, "--text TEXT or as --payload JSON"),
        (["post", "--sender", "writer", "--type", "note", "--text", "x"], 2, "--reply-to M"),
        (["post", "narrator", "--sender", "writer", "--type", "note", "--payload", "{x"], 2, "not JSON"),
        (["post", "narrator", "--sender", "writer", "--type", "note", "--payload", "@none.json"], 2, "none.json"),
        (["post", "narrator", "--sender", "writer", "--type", "note", "--payload", "[1]"], 3, "must be a JSON object"),
        (["post", "narrator", "--sender", "writer", "--type", "score", "--payload", '{"score":2}'], 3, "payload.of"),
        (["post", "Narr/ator", "--sender", "writer", "--type", "note", "--text", "x"], 3, "not a valid name"),
        (["post", "narrator", "--sender", "w", "--type", "note", "--text", "x", "--expires-in", "soon"], 2, "10m"),
        (["read", "narrator", "--since", "zzzz"], 3, "No message is named 'zzzz'"),
        (["read", "narrator", "--since", "2026-13-01"], 2, "is no time"),
        (["read", "narrator", "--since", "1h", "--ack"], 2, "--ack-id"),
        (["read", "narrator", "--limit", "0"], 3, "limit is 0"),
        (["wait", "narrator", "--timeout", "0.05"], 4, "nothing came within 0.05 s"),
        (["thread", "narrator:7"], 3, "narrator:7"),
        (["search", " "], 3, "query is empty"),
        (["show", "narator"], 3, "Did you mean 'narrator'?"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "narrator.jsonl").touch()
    result = mq(tmp_path, *arguments, code=code)
    assert said in result.stderr
    assert not result.stdout
    assert code == 2 or re.fullmatch(r"mq: .*\n", result.stderr)


def test_a_folder_that_cannot_be_used_is_a_failure_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finished = process("--root", tmp_path / "file", "post", "a", "--sender", "b", "--type", "c", "--text", "d")
    assert finished.returncode == 3
    assert re.fullmatch(rb"mq: .*\n", finished.stderr)


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "mq.toml").write_text('durabilty = "os"\n[channels]\nNarrator = ""\n')
    error = mq(tmp_path, "channels", code=3).stderr
    assert "durabilty: there is no such key" in error
    assert "'Narrator' is not a valid name" in error
    assert "Known keys: durability" in error
    assert [place in error for place in ("mq.toml:1: ", "mq.toml:3: ")] == [True, True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    post(tmp_path)
    with Path("/dev/full").open("wb") as full:
        finished = process("--root", tmp_path, "read", "narrator", "--ack", stdout=full, capture_output=False)
        assert finished.returncode == 3
        finished = process("--root", tmp_path, "show", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert finished.returncode == 3
    assert b"No space left" in finished.stderr
    assert b"Traceback" not in finished.stderr
    assert len(answer(tmp_path, "read", "narrator")["messages"]) == 1  # what could not be shown is still unread


@posix_only
@pytest.mark.parametrize("command", [["show", "--follow"], ["show", "--follow", "--json"]])
def test_an_interrupt_ends_it_quietly(tmp_path: Path, command: list[str]) -> None:
    post(tmp_path)
    with running("--root", tmp_path, *command) as shown:
        assert shown.stdout is not None
        assert "writer" in shown.stdout.readline()
        shown.send_signal(signal.SIGINT)
        _, errors = shown.communicate(timeout=DEADLINE_S)
    assert shown.returncode == 130
    assert errors == ""


@posix_only
def test_a_follower_ends_when_its_reader_has_gone_though_nothing_comes(tmp_path: Path) -> None:
    post(tmp_path)
    with running("--root", tmp_path, "show", "--follow") as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        assert "writer" in shown.stdout.readline()
        shown.stdout.close()
        assert shown.wait(DEADLINE_S) == 141
        assert shown.stderr.read() == ""


@posix_only
def test_long_output_into_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    post(tmp_path, text="Rain. " * 30_000)
    with running("--root", tmp_path, "show") as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        assert "writer" in shown.stdout.readline()
        shown.stdout.close()
        assert shown.wait(DEADLINE_S) == 141
        assert shown.stderr.read() == ""


def test_output_is_utf8_with_plain_line_ends_whatever_the_locale(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    text = "Köbi: „Tee“ 日本語"
    posted = process(
        *["--root", tmp_path, "post", "narrator", "--sender", "writer", "--type", "note", "--text", "-"],
        input=f"\ufeff{text}\r\n".encode(),
        env=environment,
    )
    assert posted.stdout.decode().startswith("narrator:1~")
    shown = process("--root", tmp_path, "show", env=environment).stdout
    assert f"    {text}\n".encode() in shown
    assert b"\r" not in shown
    document = json.loads(process("--root", tmp_path, "read", "narrator", "--json", env=environment).stdout)
    assert document["messages"][0]["payload"] == {"text": text}


# --- init and post ----------------------------------------------------------------------------------------------------


def test_init_makes_a_production_and_says_how_to_go_on(tmp_path: Path) -> None:
    root = tmp_path / "my production"
    said = CliRunner().invoke(main, ["init", str(root)]).stdout
    assert sorted(path.name for path in root.iterdir()) == [".gitattributes", ".gitignore", "mq.toml"]
    assert said.count("made") == 3
    assert f'mq --root "{root}" serve' in said
    assert config.load(root) == config.Config()


def test_init_leaves_what_is_there_alone(tmp_path: Path) -> None:
    (tmp_path / "mq.toml").write_text('durability = "os"\n')
    said = mq(tmp_path, "init").stdout
    assert f"kept  {tmp_path / 'mq.toml'}" in said
    assert config.load(tmp_path).durability == "os"
    assert mq(tmp_path, "init").stdout.count("kept") == 3


def test_the_settings_explain_themselves_and_hold_once_uncommented(tmp_path: Path) -> None:
    text = config.annotated_toml(EXAMPLE_ROSTER)
    assert tomllib.loads(text) == {}
    uncommented = re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE)
    (tmp_path / "mq.toml").write_text(uncommented, encoding="utf-8")
    loaded = config.load(tmp_path)
    assert {name: channel.description for name, channel in loaded.channels.items()} == EXAMPLE_ROSTER
    assert asdict(loaded) | {"channels": {}} == asdict(config.Config())
    in_force = config.annotated_toml({"narrator": 'Says "what" is seen. ä \\'}, in_force=True)
    assert tomllib.loads(in_force) == {"channels": {"narrator": 'Says "what" is seen. ä \\'}}


def test_a_post_goes_to_several_channels_and_says_which_are_new(tmp_path: Path) -> None:
    post(tmp_path)
    said = mq(tmp_path, "post", "narrator", "dialogist", "--from", "writer", "--type", "note", "--text", "x").stdout
    assert re.fullmatch(r"narrator:2~\w{4} → narrator, dialogist \(new\)\n", said)


def test_a_post_to_everybody_and_an_answer_to_a_sender_need_no_names(tmp_path: Path) -> None:
    for name in ("writer", "narrator", "dialogist"):
        post(tmp_path, name)
    posted = answer(tmp_path, "post", "*", "--sender", "writer", "--type", "note", "--text", "All.")
    assert [recipient["channel"] for recipient in posted["recipients"]] == ["dialogist", "narrator"]
    reply = answer(
        tmp_path, "post", "--sender", "narrator", "--type", "note", "--text", "Me.", "--reply-to", "narrator:2"
    )
    assert [recipient["channel"] for recipient in reply["recipients"]] == ["writer"]


def test_a_payload_comes_from_the_command_line_a_file_or_stdin(tmp_path: Path) -> None:
    payload = {"beats": ["Regen", "Tee – und „mehr“"], "n": 1.5}
    file = tmp_path / "payload.json"
    file.write_text(json.dumps(payload), encoding="utf-8-sig")
    arguments = ["post", "narrator", "--sender", "a", "--type", "plan", "--scene", "q2-s3", "--urgent", "--payload"]
    mq(tmp_path, *arguments, json.dumps(payload))
    mq(tmp_path, *arguments, f"@{file}")
    process("--root", tmp_path, *arguments, "-", input=json.dumps(payload, ensure_ascii=False).encode(), check=True)
    messages = answer(tmp_path, "read", "narrator")["messages"]
    assert [message["payload"] for message in messages] == [payload] * 3
    assert {message["scene"] for message in messages} == {"q2-s3"}
    assert all(message["urgent"] for message in messages)


def test_a_payload_that_powershell_saved_as_utf16_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"text": "x"}', encoding="utf-16")
    error = mq(tmp_path, "post", "a", "--sender", "b", "--type", "c", "--payload", f"@{file}", code=2).stderr
    assert "UTF-16" in error


# --- read, wait, follow -----------------------------------------------------------------------------------------------


def test_reading_marks_nothing_unless_asked(tmp_path: Path) -> None:
    refs = [post(tmp_path, text=text) for text in ("one", "two", "three")]
    assert len(answer(tmp_path, "read", "narrator")["messages"]) == 3
    mq(tmp_path, "read", "narrator", "--limit", "1", "--ack")
    assert [each["ref"] for each in answer(tmp_path, "read", "narrator")["messages"]] == refs[1:]
    mq(tmp_path, "read", "narrator", "--ack-id", refs[2])
    assert [each["ref"] for each in answer(tmp_path, "wait", "narrator", "--ack")["messages"]] == [refs[1]]
    assert "nothing unread for narrator" in mq(tmp_path, "read", "narrator").stderr
    assert len(answer(tmp_path, "read", "narrator", "--reader", "writer")["messages"]) == 3


def test_reading_since_a_place_goes_on_after_it(tmp_path: Path) -> None:
    refs = [post(tmp_path, text=text) for text in ("one", "two", "three")]
    result = mq(tmp_path, "read", "narrator", "--since", "1h", "--limit", "2")
    assert f"1 more: --since {refs[1]} goes on" in result.stderr
    page = answer(tmp_path, "read", "narrator", "--since", refs[1])
    assert [each["ref"] for each in page["messages"]] == [refs[2]]
    assert "messages" in answer(tmp_path, "read", "narrator", "--since", page["next"])


def test_reading_filters_by_type_and_sender(tmp_path: Path) -> None:
    post(tmp_path, text="from the writer")
    post(tmp_path, text="from the director", sender="scene_director")
    assert "director" not in mq(tmp_path, "read", "narrator", "--from", "writer").stdout.splitlines()[2]
    assert answer(tmp_path, "read", "narrator", "--type", "score")["messages"] == []


def test_a_problem_in_the_file_is_told_beside_what_is_readable(tmp_path: Path) -> None:
    post(tmp_path, text="whole")
    with (tmp_path / "narrator.jsonl").open("a") as file:
        file.write('{"id": "torn')
    result = mq(tmp_path, "read", "narrator")
    assert "whole" in result.stdout
    assert result.stderr.count("narrator.jsonl:2: torn line") == 1


def test_a_wait_that_nothing_ends_is_a_time_out_in_json_too(tmp_path: Path) -> None:
    post(tmp_path)
    page = answer(tmp_path, "wait", "dialogist", "scene_*", "--timeout", "0.05", code=4)
    assert page == {"messages": [], "timed_out": True, "remaining": 0}


def test_a_wait_ends_with_the_message_it_waits_for(tmp_path: Path) -> None:
    post(tmp_path, "dialogist", "noise")
    question = post(tmp_path, "dialogist", "Why?", sender="narrator")
    with running("--root", tmp_path, "wait", "narrator", "--reply-to", question, "--timeout", "30") as waiting:
        post(tmp_path, text="no answer")
        post(tmp_path, "", "Because.", "--reply-to", question, sender="dialogist")
        output, errors = waiting.communicate(timeout=DEADLINE_S)
    assert waiting.returncode == 0, errors
    assert "Because." in output
    assert "no answer" not in output


def test_follow_shows_each_message_once_as_it_comes(tmp_path: Path) -> None:
    with running("--root", tmp_path, "follow", "--json") as following:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert following.stdout is not None
        threading.Thread(target=lambda output: [lines.put(line) for line in output], args=[following.stdout]).start()
        deadline = time.monotonic() + DEADLINE_S
        number = 0
        while lines.empty():  # it says nothing until it has begun to follow
            assert time.monotonic() < deadline
            number += 1
            mq(tmp_path, "post", "narrator", "dialogist", "--from", "a", "--type", "n", "--text", f"{number}")
        mq(tmp_path, "post", "narrator", "--from", "a", "--type", "n", "--text", "last")
        texts = [""]
        while texts[-1] != "last":
            texts.append(json.loads(lines.get(timeout=DEADLINE_S))["payload"]["text"])
    assert texts[1:] == [*map(str, range(int(texts[1]), number + 1)), "last"]


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """A small conversation over three channels."""
    post(tmp_path, "story_architect", "The second weight.", "--scene", "q2-s3")
    post(tmp_path, "", "Who knows of it?", "--reply-to", "story_architect:1", sender="story_architect")
    post(tmp_path, "narrator", "Something else: rain.", sender="scene_director")
    post(tmp_path, "", "Kreszenz does.", "--reply-to", "writer:1")
    return tmp_path


def test_history_pages_back(production: Path) -> None:
    result = mq(production, "history", "story_architect", "--limit", "1")
    assert "Kreszenz does." in result.stdout
    before = re.search(r"1 older: --before (\S+) shows", result.stderr)
    assert before
    assert "The second weight." in mq(production, "history", "story_architect", "--before", before[1]).stdout


def test_a_thread_is_indented_by_bars(production: Path) -> None:
    lines = mq(production, "thread", "writer:1").stdout.splitlines()
    assert next(line for line in lines if "→" in line).startswith("writer → story_architect")
    assert "│ story_architect → writer" in "\n".join(lines)
    assert "│ │     Kreszenz does." in lines
    thread = answer(production, "thread", "writer:1")
    assert [each["depth"] for each in thread["messages"]] == [0, 1, 2]
    assert thread["participants"] == ["story_architect", "writer"]


def test_activity_shows_the_newest_in_brief_and_goes_on_from_a_place(production: Path) -> None:
    result = mq(production, "activity", "--limit", "2")
    assert "Kreszenz does." in result.stdout
    assert "The second weight." not in result.stdout
    assert "there is more before this" in result.stderr
    first = answer(production, "activity", "--since", "1h", "--limit", "1")
    rest = answer(production, "activity", "--since", first["next"])
    assert len(first["messages"]) + len(rest["messages"]) == 4
    assert len(answer(production, "activity", "--scene", "q2-s3", "--channel", "story_*")["messages"]) == 2


def test_search_finds_words_and_shows_where(production: Path) -> None:
    result = mq(production, "search", "second weight")
    assert "    The second weight." in result.stdout
    assert [hit["ref"][:8] for hit in answer(production, "search", "e", "--until", "writer:1")["hits"]] == ["story_ar"]
    assert "nothing found" in mq(production, "search", "snow").stderr


def test_channels_are_listed_with_what_they_are_for(production: Path) -> None:
    (production / "mq.toml").write_text('[channels]\nnarrator = "Writes what is seen."\n')
    lines = mq(production, "channels", "--reader", "writer").stdout.splitlines()
    assert re.match(r"narrator +1 +1 +\d{4}-", lines[1])
    assert lines[2] == "    Writes what is seen."
    assert "Last posts of writer:" in lines
    assert answer(production, "channels")["channels"][0]["unread"] == 1


def test_the_types_are_listed_with_their_fields(tmp_path: Path) -> None:
    write(tmp_path / "schemas" / "prop_list.json", b'{"required": ["props"]}')
    lines = mq(tmp_path, "types").stdout.splitlines()
    assert "narration            {text}" in lines
    assert lines[-1] == "prop_list            {props: any}"
    assert answer(tmp_path, "types", "prop_list") == {"types": {"prop_list": "{props: any}"}}
    assert "Did you mean 'prop_list'?" in mq(tmp_path, "types", "prop_lst", code=3).stderr


def test_show_gathers_everything_a_channel_a_thread_or_a_scene(production: Path) -> None:
    everything = mq(production, "show").stdout
    assert [line.strip() for line in everything.splitlines() if line.startswith("    ")] == [
        "The second weight.",
        "Who knows of it?",
        "Something else: rain.",
        "Kreszenz does.",
    ]
    assert "rain" not in mq(production, "show", "--scene", "q2-s3").stdout
    assert "Who knows" not in mq(production, "show", "story_architect").stdout
    assert "│ │     Kreszenz does." in mq(production, "show", "writer:1").stdout
    assert "second" not in mq(production, "show", "--limit", "1").stdout
    assert len(answer(production, "show", "writer:1", "--limit", "2")["messages"]) == 2
    assert len(answer(production, "show", "s*")["messages"]) == 2


def test_show_follow_goes_on_with_what_comes(production: Path) -> None:
    for what in ([], ["story_architect"], ["writer:1"]):
        with running("--root", production, "show", *what, "--follow", "--limit", "1") as shown:
            assert shown.stdout is not None
            while "Kreszenz" not in shown.stdout.readline():
                pass
            post(production, "story_architect", "And then?", "--reply-to", "story_architect:1")
            line = ""
            while "And then?" not in line:
                line = shown.stdout.readline()
                assert "second weight" not in line
        mailbox = production / "story_architect.jsonl"
        mailbox.write_bytes(b"".join(mailbox.read_bytes().splitlines(keepends=True)[:2]))


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_counts_what_is_well(production: Path) -> None:
    result = mq(production, "check")
    assert result.stdout == ""
    assert result.stderr == "3 channels, 4 messages, no problems\n"


def test_check_lists_problems_as_an_editor_opens_them(production: Path) -> None:
    with (production / "narrator.jsonl").open("a") as file:
        file.write("<<<<<<< HEAD\n[]\n")
    result = mq(production, "check", code=1)
    assert result.stdout.splitlines()[0].startswith(f"{production / 'narrator.jsonl'}:2: git conflict marker")
    assert result.stdout.count("\n") == 2
    assert result.stderr == "3 channels, 4 messages, 2 problems\n"
    assert len(answer(production, "check", code=1)["problems"]) == 2
    mq(production, "check", "writer", str(production / "story_architect.jsonl"))
    mq(production, "check", "narrator", code=1)
    assert "is no mailbox" in mq(production, "check", "nobody", code=3).stderr


# --- safety, times ----------------------------------------------------------------------------------------------------


def test_no_escape_sequence_gets_from_a_message_to_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x9b31m\u202e"
    fields = {"sender": hostile, "msg_type": hostile, "scene": hostile, "payload": {"text": hostile, hostile: hostile}}
    line = {"id": "01KB0000000000000000AAAAAA", "timestamp": "2026-11-22T13:12:52Z", "channel": "a", **fields}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / f"b{hostile}.jsonl").touch()
    for command in (
        ["show"],
        ["read", "a"],
        ["activity"],
        ["search", "2J"],
        ["channels"],
        ["thread", "a:1"],
        ["check"],
    ):
        for options in ([], ["--json"]):
            result = CliRunner().invoke(main, ["--root", str(tmp_path), *command, *options])
            assert result.exit_code in (0, 1)
            assert not re.search("[\x1b\x9b\u202e]", result.stdout + result.stderr), command
    assert answer(tmp_path, "read", "a")["messages"][0]["payload"]["text"] == hostile


def test_times_are_ages_dates_and_whatever_names_a_message() -> None:
    now_us = time.time_ns() // 1000
    assert abs(parse_time(moment("2h")) - (now_us - 7200_000_000)) < 5_000_000
    assert moment("2026-11-22") == "2026-11-22T00:00:00+00:00"
    assert moment("2026-11-22 13:12:52Z") == "2026-11-22T13:12:52+00:00"
    assert moment("2026-11-22T13:12:52+01:00") == "2026-11-22T13:12:52+01:00"
    for name in ("narrator:42~K3QF", "K3QF", "100M", "n.file.1.0.0"):
        assert moment(name) == name


def test_lengths_of_time_have_units() -> None:
    assert [seconds(text) for text in ("25", "1.5", "10m", "2h", "1d")] == [25, 1.5, 600, 7200, 86400]
    for text in ("", "m", "-1", "soon", "1e3"):
        with pytest.raises(click.BadParameter):
            seconds(text)


# --- a terminal -------------------------------------------------------------------------------------------------------


@posix_only
def test_a_terminal_gets_its_width_and_colours_unless_it_wants_none(production: Path) -> None:
    def on_terminal(*arguments: str, **environment: str) -> str:
        import pty

        reading, writing = pty.openpty()
        settings = {**os.environ, "COLUMNS": "50", "TERM": "xterm", **environment}
        finished = process("--root", production, *arguments, stdout=writing, capture_output=False, env=settings)
        os.close(writing)
        assert finished.returncode == 0
        chunks = []
        try:
            while chunk := os.read(reading, 65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that the other end is closed
            pass
        finally:
            os.close(reading)
        return b"".join(chunks).decode()

    coloured = on_terminal("show")
    assert re.search(r"\x1b\[1;\d+mwriter → story_architect", coloured)
    assert "\r\n    The second weight.\r\n" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert max(map(len, plain.splitlines())) <= 50
    assert "writer → story_architect" in plain
    assert "second \x1b[1mweight\x1b[0m." in on_terminal("search", "weight")
    assert "\x1b[3" not in on_terminal("show", NO_COLOR="1")


# --- demo -------------------------------------------------------------------------------------------------------------


def test_the_demo_plays_a_scene_and_leaves_its_production(tmp_path: Path) -> None:
    folder = tmp_path / "demo-production"
    folder.mkdir()
    (folder / "notes.txt").touch()
    finished = process("demo", "--dir", folder, timeout=100)
    output, errors = finished.stdout.decode(), finished.stderr.decode()
    assert finished.returncode == 0, errors
    played = tmp_path / "demo-production-2"
    assert f"{folder} is not empty; this performance goes into {played}" in errors
    assert "quality_assessor → " in output
    assert "THE OTHER FIFTY, version 2" in output
    for command in re.findall(r"^  mq (.*)$", output, flags=re.MULTILINE):
        arguments = command.split()
        assert arguments[:2] == ["--root", str(played)]
        if arguments[2] != "serve":
            mq(played, *arguments[2:])
    mq(played, "check")
    assert not answer(played, "read", "narrator")["messages"]


def test_the_demo_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pydantic_ai'] = None; sys.argv[1:] = ['demo']; from mq_server.cli import main; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 3
    assert 'pip install "mq-server[demo]"' in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
