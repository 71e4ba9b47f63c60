"""The commands beside git: `mq git` holds the mailboxes still, `mq recover` is for what was lost without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mq_server.cli.options import asks, rooted
from mq_server.cli.output import flush, print_json, remark
from mq_server.cli.session import note_missing, with_room
from mq_server.render.text import visible_line

if TYPE_CHECKING:
    from mq_server.mailroom import Mailroom
    from mq_server.outcomes import Vanished

_LEAVE_FILES_ALONE = ("blame", "diff", "fetch", "grep", "log", "ls-files", "push", "rev-parse", "show", "status")
_HOLD_S = 60.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@rooted
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="ARGS...")
@click.pass_obj
def git(root: Path, arguments: tuple[str, ...]) -> None:
    """Run a git command with the mailboxes held still.

    Agents go on posting meanwhile: their posts wait until git is done, and nothing is overwritten. Commands that leave
    the files alone, such as log or push, hold nothing. The exit code is git's.
    """
    from mq_server.repository import Repository, git_program
    from mq_server.store import Store

    top = Repository.around(root).top
    here = Path.cwd()
    folder = here if here == top or top in here.resolve().parents else root
    command = [git_program(), *arguments]
    if arguments[0] in _LEAVE_FILES_ALONE:
        code = _run(command, folder)
    else:
        with Store(root).held_still(_HOLD_S):
            code = _run(command, folder)
    raise click.exceptions.Exit(code)


def _run(command: list[str], folder: Path) -> int:
    flush()
    # The message of a merge is git's own: an editor that opens while the mailboxes are held would keep agents waiting.
    with subprocess.Popen(command, cwd=folder, env=os.environ | {"GIT_MERGE_AUTOEDIT": "no"}) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # git got it as well, and knows best how to end


@click.command()
@click.argument("ids", nargs=-1, metavar="[M]...")
@asks(
    click.option("--restore", is_flag=True, help="Append what has vanished again."),
    click.option("--accept", is_flag=True, help="Take it as meant, and forget it."),
)
@click.pass_obj
def recover(root: Path, ids: tuple[str, ...], restore: bool, accept: bool, as_json: bool) -> None:
    """List what has vanished from the files.

    Messages and receipts that this machine wrote, that are in their file no more, and that git has in no commit, stash
    or reflog either. --restore or --accept decides about all of them, or about the M that are named.
    """
    if restore and accept:
        raise click.UsageError("Either --restore or --accept.")
    if ids and not (restore or accept):
        raise click.UsageError("Say --restore or --accept of what is named.")
    note_missing(root)

    async def decide(room: Mailroom) -> list[Vanished]:
        if restore:
            return await room.restore(ids)
        return await (room.accept(ids) if accept else room.vanished())

    found = with_room(root, decide)
    if as_json:
        done = "restored" if restore else "accepted" if accept else "vanished"
        print_json({done: [each.as_json() for each in found]})
        return
    for each in found:
        state = "restored" if restore else "forgotten" if accept else "read before" if each.delivered else "never read"
        print(visible_line(f"{each.file}  {each.id}  {each.what}  ({state})"))
    flush()
    if not found:
        remark("nothing has vanished")
    elif not (restore or accept):
        remark("--restore appends it again, --accept forgets it")
