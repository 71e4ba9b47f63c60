"""The commands that look things up: `mq history`, `thread`, `activity`, `search`, `channels`, `types` and `check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mq_server.cli.edge import PROBLEMS
from mq_server.cli.options import (
    asks,
    at_option,
    before_option,
    channel_option,
    json_option,
    limit_option,
    moment,
    rooted,
    scene_option,
    sender_option,
    since_option,
    type_option,
)
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import looking, problems, with_room
from mq_server.errors import MailError
from mq_server.render.text import visible, visible_line, wrap

if TYPE_CHECKING:
    from mq_server.answers import ChannelState


@click.command()
@click.argument("channel")
@asks(limit_option(50), before_option, at_option)
@click.pass_obj
def history(root: Path, channel: str, limit: int, before: str | None, at: str | None, as_json: bool) -> None:
    """Show the newest messages of a channel, read or not."""
    page = looking(root, at, lambda room: room.history(channel, limit=limit, before=before))
    if as_json:
        print_json(page.as_json())
        return
    screen = Screen()
    for message in page.messages:
        screen.entry(message)
    flush()
    problems.tell(page.problems)
    if page.next is not None:
        remark(f"{page.remaining:,} older: --before {page.messages[0].ref} shows them")
    if not page.messages:
        remark(f"nothing in {channel}")


@click.command()
@click.argument("message", metavar="M")
@asks(limit_option(50), before_option, at_option)
@click.pass_obj
def thread(root: Path, message: str, limit: int, before: str | None, at: str | None, as_json: bool) -> None:
    """Show the conversation a message belongs to.

    All of it, across channels, with answers below what they answer.
    """
    page = looking(root, at, lambda room: room.thread(message, limit=limit, before=before))
    if as_json:
        print_json(page.as_json())
        return
    screen = Screen()
    for entry, depth in zip(page.messages, page.depths, strict=True):
        screen.entry(entry, depth)
    flush()
    problems.tell(page.problems)
    if page.missing_parent is not None:
        remark(f"the first answers {page.missing_parent}, which stands in no mailbox")
    if page.next is not None:
        remark(f"{page.remaining:,} above: --before {page.messages[0].ref} shows them, or a greater --limit")


@click.command()
@asks(since_option, limit_option(100), channel_option, sender_option, type_option, scene_option, at_option)
@click.pass_obj
def activity(root: Path, /, at: str | None, as_json: bool, **options: Any) -> None:
    """Show what happened everywhere, in brief.

    The newest, or what came --since a message or a time.
    """
    page = looking(root, at, lambda room: room.activity(**options))
    if as_json:
        print_json(page.as_json())
        return
    screen = Screen()
    for message in page.messages:
        screen.summary(message)
    flush()
    problems.tell(page.problems)
    if page.merged:
        remark("a merge has moved the place asked for; some of this may have been shown before")
    if page.more and options["since"]:
        remark(f"there is more: --since {page.messages[-1].ref} goes on")
    elif page.more:
        remark("there is more before this: a greater --limit shows it, or --since")


@click.command()
@click.argument("query")
@asks(
    limit_option(20),
    channel_option,
    sender_option,
    type_option,
    scene_option,
    since_option,
    click.option("--until", type=moment, metavar="WHEN", help="Only what came before a message or a time."),
    at_option,
)
@click.pass_obj
def search(root: Path, /, query: str, at: str | None, as_json: bool, **options: Any) -> None:
    """Find messages by their text, newest first.

    All words of QUERY must occur; words in double quotes stand together.
    """
    found = looking(root, at, lambda room: room.search(query, **options))
    if as_json:
        print_json(found.as_json())
        return
    from mq_server.search import Query

    screen = Screen()
    for hit in found.hits:
        screen.summary(hit.message, hit.snippet, Query.parse(query).words)
    flush()
    problems.tell(found.problems)
    if found.next is not None:
        remark(f"there are older ones: --until {found.hits[-1].message.ref} goes on")
    if not found.hits:
        remark("nothing found")


@click.command()
@asks(click.option("--reader", metavar="NAME", help="Who asks: shows what they hold, asked and posted too."), at_option)
@click.pass_obj
def channels(root: Path, reader: str | None, at: str | None, as_json: bool) -> None:
    """List the channels.

    What each is for, how much is in it, how much its own reader has not read.
    """
    directory = looking(root, at, lambda room: room.directory(reader))
    if as_json:
        print_json(directory.as_json())
        return
    screen = Screen()
    _table(screen, directory.channels)
    for title, entries in (
        ("Held", [holding.message for holding in directory.holds]),
        ("Unanswered questions", directory.unanswered),
    ):
        if entries:
            screen.line()
            screen.line(f"{title} by {visible_line(str(directory.you))}:", "bold")
        for message in entries:
            screen.summary(message)
    if directory.last_posts:
        screen.line()
        screen.line(f"Last posts of {visible_line(str(directory.you))}:", "bold")
    for message in directory.last_posts:
        screen.summary(message)
    flush()
    problems.tell(directory.problems)
    if not directory.channels:
        remark("there are no channels yet: the first post to one makes it")


def _table(screen: Screen, states: tuple[ChannelState, ...]) -> None:
    from mq_server.render.transcript import shown_time

    if not states:
        return
    names = max(len("channel"), *(len(state.channel) for state in states))
    screen.line(f"{'channel':<{names}}  messages  unread  last", "bold")
    for state in states:
        when = shown_time(state.last) if state.last else "-"
        screen.line(f"{state.channel:<{names}}  {state.messages:>8,}  {state.unread:>6,}  {when}")
        group = f"[{state.group}] " if state.group else ""
        for line in wrap(visible(f"{group}{state.description}"), screen.width - 4):
            if line:
                screen.line(f"    {line}", "dim")


@click.command()
@click.argument("msg_type", metavar="[TYPE]", required=False)
@asks()
@click.pass_obj
def types(root: Path, msg_type: str | None, as_json: bool) -> None:
    """List the message types and their fields.

    Those that come with mq, and the production's own, which stand in its folder schemas/.
    """
    shown = with_room(root, lambda room: room.types(msg_type))
    if as_json:
        print_json({"types": shown})
        return
    screen = Screen()
    width = max(map(len, shown))
    for name, fields in shown.items():
        screen.line(visible_line(f"{name:<{width}}  {fields}"))


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@json_option
@rooted
@click.pass_obj
def check(root: Path, paths: tuple[str, ...], as_json: bool) -> None:
    """List every problem in the files.

    Reads all mailboxes and receipts anew, and checks every payload; a problem is shown as `path:line: what is wrong`.
    PATH may be a file or the name of a channel. Exit code 1 if there are problems.
    """
    if not root.is_dir():
        raise MailError(f"there is no folder {root} to check; --root or MQ_ROOT names another")
    report = with_room(root, lambda room: room.check(paths))
    if as_json:
        print_json(report.as_json())
    else:
        for problem in report.problems:
            print(visible_line(str(problem._replace(path=str(root / problem.path)))))
        flush()
        counted = [_count(report.channels, "channel"), _count(report.messages, "message")]
        counted.append(_count(len(report.problems), "problem") if report.problems else "no problems")
        print(", ".join(counted), file=sys.stderr)
    if report.problems:
        raise click.exceptions.Exit(PROBLEMS)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
