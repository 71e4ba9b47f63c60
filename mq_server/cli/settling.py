"""The commands that settle messages and tell what became of them: `mq settle` and `mq status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mq_server.cli.options import asks, consumer_option, moment, reader_option, seconds
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import note_missing, with_room
from mq_server.render.text import visible_line

if TYPE_CHECKING:
    from mq_server.mailroom import Mailroom
    from mq_server.outcomes import ChannelStatus, Settled, Status


def _ids(option: str, explanation: str) -> Any:
    return click.option(option, multiple=True, metavar="M", help=f"{explanation}; repeatable.")


def _start(text: str) -> str:
    return text if text in ("beginning", "now") else moment(text)


@click.command()
@click.argument("channel")
@asks(
    _ids("--ack", "Done with this message"),
    _ids("--release", "Give it back, claimed as it is"),
    _ids("--reject", "Refuse it for good; it is copied to dead_letters"),
    _ids("--reopen", "Make it unread again. Of dead_letters: send it back to where it came from"),
    _ids("--extend", "Keep it claimed for another --lease"),
    click.option(
        "--seek", type=_start, metavar="WHEN", help="Start anew: at the beginning, now, a message, a time, or 2h ago."
    ),
    reader_option,
    consumer_option,
    click.option("--reason", metavar="TEXT", help="Why it is rejected."),
    click.option(
        "--delay", "delay_s", type=seconds, default=0, metavar="SECONDS", help="How long what is released rests."
    ),
    click.option("--lease", "lease_s", type=seconds, metavar="SECONDS", help="For how long to extend."),
)
@click.pass_obj
def settle(root: Path, /, channel: str, as_json: bool, **options: Any) -> None:
    """Say what became of messages.

    Acknowledge, release, reject, reopen or extend them, or let a reader start anew. A message may also be named by the
    lease that `mq read --lease` showed.
    """
    note_missing(root)
    settled = with_room(root, lambda room: room.settle(channel, **options))
    if as_json:
        print_json(settled.as_json())
    else:
        _show_settled(settled)


def _show_settled(settled: Settled) -> None:
    from mq_server.outcomes import DONE

    for op, ids in settled.done.items():
        for message_id in ids:
            print(f"{DONE[op]}  {message_id}")
    if settled.seek is not None:
        whose = settled.channel if settled.reader == settled.channel else f"{settled.reader} in {settled.channel}"
        since = "everything" if settled.seek.startswith("1970") else f"what is stamped from {settled.seek} on"
        print(f"{whose}: {since} is unread")
    for letter in settled.dead_letters:
        print(f"dead letter  {letter}")
    flush()
    for refusal in settled.refused:
        remark(f"{refusal.id}: {refusal.why}")


@click.command()
@click.argument("what", metavar="M|CHANNEL")
@asks()
@click.pass_obj
def status(root: Path, what: str, as_json: bool) -> None:
    """Tell what became of a message.

    Stored, fetched, claimed, acked or rejected, by whom and when. Of a CHANNEL: how far its readers are, and what is
    held by whom.
    """
    note_missing(root)

    from mq_server.store import SUFFIX

    async def look(room: Mailroom) -> Status | ChannelStatus:
        is_channel = what in room.config.channels or (root / f"{what}{SUFFIX}").is_file()
        return await (room.channel_status(what) if is_channel else room.status(what))

    found = with_room(root, look)
    if as_json:
        print_json(found.as_json())
        return
    from mq_server.outcomes import Status

    screen = Screen()
    if isinstance(found, Status):
        _show_status(screen, found)
    else:
        _show_channel(screen, found)


def _show_status(screen: Screen, found: Status) -> None:
    screen.summary(found.message)
    for progress in found.progress:
        whose = progress.channel if progress.reader == progress.channel else f"{progress.reader} in {progress.channel}"
        details = [f"for another {progress.left_s:.0f} s"] if progress.left_s else []
        details += [f"delivered {progress.deliveries} times"] if progress.deliveries > 1 else []
        details += ["waiting now"] if progress.waiting and progress.state == "stored" else []
        text = ", ".join([progress.state, *details])
        screen.line(visible_line(f"  {whose}: {text}"), "bold")
        screen.line(f"    {found.message.timestamp}  stored as {progress.ref}")
        for step in progress.steps:
            reason = f": {step.reason}" if step.reason else ""
            screen.line(visible_line(f"    {step.timestamp}  {step.did} by {step.consumer}{reason}"))


def _show_channel(screen: Screen, found: ChannelStatus) -> None:
    waiting = f", {found.waiting} waiting now" if found.waiting else ""
    screen.line(f"{found.channel}: {found.messages:,} messages{waiting}", "bold")
    for reader in found.readers:
        last = f", last read {reader.last_read}" if reader.last_read else ""
        screen.line(visible_line(f"  {reader.reader}: {reader.unread:,} unread{last}"))
    for holding in found.held:
        held = f"held by {holding.consumer}" if holding.consumer else "withheld"
        times = f", delivered {holding.deliveries} times" if holding.deliveries > 1 else ""
        whose = f" of {holding.reader}" if holding.reader != found.channel else ""
        text = f"  {holding.message.ref}  {held}{whose} for another {holding.left_s:.0f} s{times}"
        screen.line(visible_line(text))
