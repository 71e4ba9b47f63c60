"""What a command imports before it does its work: each millisecond of that is paid by every call of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, line, write

ROSTER = b"[channels]\nnarrator = 'tells'\nscene_director = 'asks'\nwriter = 'reads along'\n"
HEAVY = {
    "difflib",  # 1 ms: for who misspelled something
    "email",  # 4 ms: what importlib.metadata reads versions with
    "hashlib",  # 2 ms: for dead letters and keys
    "importlib.metadata",  # 11 ms
    "jsonschema",  # 60 ms: for who has schemas
    "mcp",  # 600 ms
    "mq_server.git",
    "mq_server.monitor",
    "mq_server.payloads",  # 100 ms with pydantic: for payloads that are more than a text
    "mq_server.scenes",  # 4 ms
    "mq_server.server",
    "portalocker",  # 20 ms, and 90 where redis is installed
    "pydantic",
    "redis",
    "rich",  # 60 ms: for terminals
    "shutil",  # 3 ms: for who runs git
    "sqlite3",
    "starlette",
    "tempfile",
    "uvicorn",
    "watchfiles",  # 10 ms: for who waits
    "zipfile",
}
"""What the usual commands do without, and what it costs, roughly."""
BEYOND_HELP = HEAVY - {"shutil"} | {"asyncio", "mq_server.message", "orjson"}
"""What help and completion do without; click asks shutil how wide the terminal is."""
COMMANDS = [
    "post narrator --sender writer --type note --text Rain.",
    "post --reply-to narrator:2 --sender narrator --type weather --text Rain.",
    "post narrator --sender writer --type note --text Rain. --dedup-key k",
    "read narrator",
    "read narrator --since narrator:1 --limit 1 --json",
    "read narrator --ack",
    "history narrator",
    "history narrator --json",
    "settle narrator --ack narrator:1",
    "status narrator:1",
    "thread narrator:2",
    "activity",
    "search Regen",
    "channels",
]


def imported(*arguments: str) -> set[str]:
    """The modules that a command imports, and the packages that they are in."""
    command = [sys.executable, "-X", "importtime", "-m", "mq_server", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    told = [text for text in done.stderr.splitlines() if text.startswith("import time:")]
    return {text.rpartition("|")[2].strip() for text in told}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_usual_command_imports_what_it_needs_and_nothing_else(tmp_path: Path, command: str) -> None:
    write(tmp_path / "mq.toml", ROSTER)
    write(tmp_path / "narrator.jsonl", line(1), line(2))
    needed = {"hashlib"} if "--dedup-key" in command else set[str]()
    assert sorted(imported("--root", str(tmp_path), *command.split()) & HEAVY - needed) == []


@pytest.mark.parametrize("command", ["--help", "--version", "post --help", "scenes --help", "serve --help"])
def test_help_imports_the_command_line_only(command: str) -> None:
    assert sorted(imported(*command.split()) & BEYOND_HELP) == []


def test_completion_imports_the_command_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MQ_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "mq po")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert sorted(imported() & BEYOND_HELP) == []


def test_a_wait_brings_the_watcher_too(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(1))
    watcher = {"shutil", "watchfiles"}
    assert sorted(imported("--root", str(tmp_path), "wait", "narrator") & (HEAVY - watcher)) == []
