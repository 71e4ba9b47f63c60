"""`mq git-setup`, and what git calls once it is set up: `mq textconv` and `mq merge-driver`.

The last two are for git and not for people; `mq --help` does not list them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mq_server.cli.edge import PROBLEMS, complain
from mq_server.cli.options import json_option, rooted
from mq_server.cli.output import print_json, remark

if TYPE_CHECKING:
    from mq_server.git.setup import Step

CRASHED = 129
"""What a merge driver exits with when it has not merged: git then gives up instead of taking it for a conflict."""


@click.command("git-setup")
@click.option("--undo", "undoing", is_flag=True, help="Take away what it added, and leave the rest.")
@json_option
@rooted
@click.pass_obj
def git_setup(root: Path, undoing: bool, as_json: bool) -> None:
    """Tell git of mailboxes: readable diffs, merges by message.

    For this clone only: how to show mailboxes (git diff, log -p, show), how to merge them and their receipts, and a
    hook that checks them before a commit. Settings and hooks of your own are left alone. Safe to repeat: do so when the
    Python environment has moved or mq was updated.
    """
    from mq_server.git.setup import set_up, undo
    from mq_server.repository import Repository

    repository = Repository.around(root)
    steps = undo(repository) if undoing else set_up(repository)
    if as_json:
        print_json({"repository": str(repository.top), "steps": [_document(step) for step in steps]})
        return
    names = [_shown(step.what, repository.top) for step in steps]
    width = max(map(len, names), default=0)
    for step, name in zip(steps, names, strict=True):
        does = "" if undoing else _does(step.what)
        print(f"{step.state:<7}  {name:<{width}}  {does}".rstrip())
    sys.stdout.flush()
    for step, name in zip(steps, names, strict=True):
        if step.advice:
            remark(f"{name}: {step.advice}")
    if not steps:
        remark("there is nothing to undo")


def _does(what: str) -> str:
    from mq_server.git import setup

    known = {
        setup.DIFF: "git diff, log -p and show print messages as people read them",
        setup.MERGE: "merges go message by message",
        setup.ATTRIBUTES: "for the mailboxes and receipts of this production",
        setup.HOOK: "a commit of mailboxes with problems is refused",
    }
    return next((text for name, text in known.items() if Path(what).as_posix().endswith(name)), "")


def _document(step: Step) -> dict[str, str]:
    return {key: value for key, value in step._asdict().items() if value}


def _shown(what: str, top: Path) -> str:
    """A path from the uppermost folder on, as git commands take it."""
    path = Path(what)
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else what


@click.command(hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--by", metavar="VERSION", help="Makes the command another one after an update. Has no effect.")
def textconv(file: Path, by: str | None) -> None:
    """Print a mailbox as text that git can compare.

    What `diff.mailbox.textconv` names; FILE holds a version of a mailbox.
    """
    from mq_server.git.textconv import readable

    for line in readable(file.read_bytes()):
        print(line)


@click.command("merge-driver", hidden=True)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("theirs", type=click.Path(path_type=Path))
@click.argument("marker_size", type=int)
@click.argument("path")
def merge_driver(base: Path, ours: Path, theirs: Path, marker_size: int, path: str) -> None:
    """Merge two versions of a mailbox or its receipts into OURS.

    What `merge.mailbox.driver` names, as `%O %A %B %L %P`. Exit code 1 if there are conflicts, 129 if it failed.
    """
    from mq_server.git.merging import merge

    try:
        merged = merge(base.read_bytes(), ours.read_bytes(), theirs.read_bytes(), marker_size=marker_size)
        ours.write_bytes(merged.data)
    except Exception as error:  # the edge to git, which would take any other exit code for a conflict
        complain(f"{path} could not be merged: {error!r}")
        raise click.exceptions.Exit(CRASHED) from error
    if merged.conflicts:
        messages = "1 message" if merged.conflicts == 1 else f"{merged.conflicts:,} messages"
        complain(f"{path}: {messages} changed on both sides; keep one version of each and take the markers out")
        raise click.exceptions.Exit(PROBLEMS)
