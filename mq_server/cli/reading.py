"""The commands that read a mailbox: `mq read`, `mq wait` and `mq follow`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mq_server.cli.edge import TIMED_OUT
from mq_server.cli.options import (
    asks,
    consumer_option,
    limit_option,
    reader_option,
    seconds,
    sender_option,
    since_option,
    type_option,
)
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import note_missing, problems, until_reader_leaves, with_room

if TYPE_CHECKING:
    from mq_server.answers import Page
    from mq_server.mailroom import Mailroom

_READING = (
    since_option,
    type_option,
    sender_option,
    reader_option,
    click.option("--ack", is_flag=True, help="Mark what is shown as read."),
    click.option(
        "--ack-id", "ack_ids", multiple=True, metavar="M", help="Mark this message as read first; repeatable."
    ),
    click.option(
        "--lease",
        "lease_s",
        type=seconds,
        metavar="SECONDS",
        help="Claim what is shown: no other consumer gets it meanwhile, and it comes again unless it is settled.",
    ),
    consumer_option,
    limit_option(50),
)


@click.command()
@click.argument("channel")
@asks(*_READING)
@click.pass_obj
def read(root: Path, /, channel: str, **options: Any) -> None:
    """Show what is unread in a channel.

    Urgent messages come first. --since shows what stands there after a message or from a time on, read or not.
    Nothing is marked as read unless --ack or --ack-id says so.
    """
    note_missing(root)
    _read(root, channel, options, None)


@click.command()
@click.argument("channels", nargs=-1, required=True, metavar="CHANNEL...")
@asks(
    *_READING,
    click.option("--reply-to", metavar="M", help="Only answers to this message."),
    click.option(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        default=25,
        show_default=True,
        help="How long: seconds, or 10m, 2h.",
    ),
)
@click.pass_obj
def wait(root: Path, /, channels: tuple[str, ...], timeout: float, **options: Any) -> None:
    """The same, but wait if there is nothing yet.

    Exit code 4 if nothing came. A CHANNEL may be a pattern such as 'scene_*'.
    """
    note_missing(root)
    channel = channels[0] if len(channels) == 1 else list(channels)
    page = _read(root, channel, options, timeout)
    if page.timed_out:
        raise click.exceptions.Exit(TIMED_OUT)


@click.command()
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@asks(type_option, sender_option)
@click.pass_obj
def follow(root: Path, channels: tuple[str, ...], msg_type: str | None, sender: str | None, as_json: bool) -> None:
    """Show messages as they come.

    Those of the channels, or of all. With --json one document per line. Marks nothing as read. A CHANNEL may be a
    pattern such as 'scene_*'. Ctrl+C ends it.
    """
    note_missing(root)
    screen = Screen()
    scope = channels[0] if len(channels) == 1 else list(channels) or None

    async def show(room: Mailroom) -> None:
        async with contextlib.aclosing(room.follow(scope, msg_type=msg_type, sender=sender)) as messages:
            async for message in messages:
                if as_json:
                    print_json(message.as_json(), one_line=True)
                else:
                    screen.entry(message)
                flush()

    with_room(root, lambda room: until_reader_leaves(show(room)))


def _read(root: Path, channel: str | Sequence[str], options: dict[str, Any], timeout_s: float | None) -> Page:
    """Read, or wait if there is a time for that; show it; then mark what was shown as read."""
    as_json, ack, ack_ids = (options.pop(name) for name in ("as_json", "ack", "ack_ids"))
    if ack and options["since"] is not None:
        raise click.UsageError("--ack marks what is unread; together with --since name the messages by --ack-id.")
    if ack and options["lease_s"] is not None:
        raise click.UsageError("--lease claims what is shown, to be settled later; --ack settles it at once.")

    async def answer(room: Mailroom) -> Page:
        if timeout_s is not None:
            page = await room.wait(channel, ack=list(ack_ids), timeout_s=timeout_s, **options)
        else:
            page = await room.read(str(channel), ack=list(ack_ids), **options)
        if as_json:
            print_json(page.as_json())
        else:
            _show(page, options["since"] is not None, ack)
        flush()
        if ack and page.messages:
            # Only now: what could not be shown stays unread.
            whose = {"reader": options["reader"], "consumer": options["consumer"]}
            await room.acknowledge(channel, [message.id for message in page.messages], **whose)
        return page

    page = with_room(root, answer)
    if page.timed_out and not as_json:
        remark(f"nothing came within {timeout_s:g} s")
    elif not page.messages and not as_json:
        remark("nothing there" if options["since"] else f"nothing unread for {options['reader'] or channel}")
    return page


def _show(page: Page, by_position: bool, ack: bool) -> None:
    screen = Screen()
    for message, lease in zip_longest(page.messages, page.leases):
        screen.entry(message)
        if lease is not None:
            again = f", delivery {lease.deliveries}" if lease.deliveries > 1 else ""
            screen.line(f"claimed for {lease.lease_s:g} s as {lease.name}{again}", "dim")
    flush()
    problems.tell(page.problems)
    if page.merged:
        remark("a merge has moved the place asked for; some of this may have been shown before")
    if page.remaining:
        place = f"--since {page.messages[-1].ref} goes on, " if by_position else ""
        rest = "--ack marks these as read, " if not by_position and not ack else ""
        remark(f"{page.remaining:,} more: {place}{rest}--limit shows more at once")
