"""The command that moves old lines to the archive, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mq_server.cli.options import asks, moment
from mq_server.cli.output import flush, print_json, remark
from mq_server.cli.session import note_missing, with_room
from mq_server.render.text import visible_line

if TYPE_CHECKING:
    from mq_server.mailroom import Mailroom
    from mq_server.moving import Moved


@click.command()
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@asks(
    click.option(
        "--before",
        type=moment,
        metavar="WHEN",
        help="What is older than a day or time (2026-10-01), an age (90d) or a message.",
    ),
    click.option("--keep", type=int, metavar="N", help="All but the newest N lines of each mailbox, at least 100."),
    click.option("--restore", is_flag=True, help="Move archived lines back."),
    click.option("--dry-run", is_flag=True, help="Only say what would be moved."),
)
@click.pass_obj
def archive(
    root: Path,
    channels: tuple[str, ...],
    before: str | None,
    keep: int | None,
    restore: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move old lines of mailboxes to archive/YYYY-MM/.

    Threads, history, search and every other query still show them. What somebody has yet to read stays, and so do the
    newest 100 lines of a mailbox. Interrupted at any point, nothing is lost; run it again.
    """
    if restore and (before or keep is not None):
        raise click.UsageError("--restore moves everything back: leave --before and --keep out.")
    if not restore and (before is None) == (keep is None):
        raise click.UsageError("Either --before or --keep.")
    note_missing(root)

    async def move(room: Mailroom) -> list[Moved]:
        if restore:
            return await room.restore_archive(channels, dry_run=dry_run)
        return await room.archive(before=before, keep=keep, channels=channels, dry_run=dry_run)

    found = with_room(root, move)
    if as_json:
        print_json({"restored" if restore else "archived": [each.as_json() for each in found]})
        return
    for each in found:
        for text in _lines(each, restore=restore, dry_run=dry_run):
            print(visible_line(text))
    flush()
    if not any(each.moved or each.tidied for each in found):
        remark("nothing is to be moved")


def _lines(moved: Moved, *, restore: bool, dry_run: bool) -> list[str]:
    """What to tell of a mailbox; nothing if there is nothing old in it."""
    verb = "would move" if dry_run else "moved"
    way = "back from" if restore else "to"
    told = [f"{moved.channel}: {_count(count)} {verb} {way} archive/{month}" for month, count in moved.months.items()]
    if moved.tidied:
        where = "mailbox" if restore else "archive"
        told.append(f"{moved.channel}: {_count(moved.tidied)} stood in the {where} already")
    told += [f"{moved.channel}: {_count(count)} {_stays(count)}, {why}" for why, count in moved.stayed.items()]
    return told


def _count(number: int) -> str:
    return f"{number:,} line{'' if number == 1 else 's'}"


def _stays(number: int) -> str:
    return "stays" if number == 1 else "stay"
