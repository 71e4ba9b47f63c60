"""What the tests of versions share: repositories with an identity of their own, and productions in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mq_server.cli import main
from mq_server.repository import run_git

FOLDER = "season 1/mäilboxes"


def repository(folder: Path) -> Path:
    """A new repository with an identity and no other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "Tester")
    git(folder, "config", "user.email", "tester@example.org")
    return folder


def production(folder: Path, name: str = FOLDER) -> Path:
    """The folder of a production in a new repository."""
    root = repository(folder) / name
    root.mkdir(parents=True, exist_ok=True)
    return root


def git(folder: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run git; what it prints."""
    return run_git(arguments, folder, codes=codes).decode("utf-8")


def commit(folder: Path, message: str = "go on") -> str:
    """Commit everything; the id of the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()


def mq(root: Path, *arguments: str, code: int = 0) -> Result:
    """Run a command within this process and check its exit code."""
    result = CliRunner().invoke(main, ["--root", str(root), *arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def answer(root: Path, *arguments: str, code: int = 0) -> Any:
    """The JSON document of a command."""
    return json.loads(mq(root, *arguments, "--json", code=code).stdout)


def post(
    root: Path, channel: str, text: str = "Rain.", *options: str, sender: str = "writer", kind: str = "note"
) -> str:
    """Post a text; its ref."""
    arguments = ["post", channel, "--sender", sender, "--type", kind, "--text", text, *options]
    return str(answer(root, *arguments)["ref"])
