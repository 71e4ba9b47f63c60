"""What several commands take: options, and the forms in which people write times and seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGE = re.compile(r"([0-9]{1,5})([smhd])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}")


def moment(text: str) -> str:
    """A place in time: a message, a `next`, an RFC 3339 time (UTC if it has no zone), or an age such as 30m, 2h, 7d.

    Ages are in small letters; an end of an id that looks like one is written in capitals, as ids are.

    Returns:
        The reference, token or time that the mailroom takes.

    Raises:
        click.BadParameter: It looks like a time and is none.
    """
    age = _AGE.fullmatch(text)
    if age:
        return (datetime.now(UTC) - timedelta(seconds=int(age[1]) * _UNITS_S[age[2]])).isoformat()
    if not _DATE.match(text):
        return text
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "write 2026-11-22, 2026-11-22T13:12:52Z, or an age such as 2h"
        raise click.BadParameter(f"{text!r} is no time; {hint}") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def seconds(given: str | float) -> float:
    """A length of time: seconds, or a number with a unit: 90, 1.5, 10m, 2h.

    Raises:
        click.BadParameter: It is none.
    """
    text = str(given)
    number, unit_s = (text[:-1], _UNITS_S[text[-1]]) if text[-1:] in _UNITS_S else (text, 1)
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", number):
        raise click.BadParameter(f"{text!r} is no length of time; write seconds, or 10m, 2h, 1d")
    return float(number) * unit_s


def rooted(command: F) -> F:
    """Let `--root` stand after the command's name too."""

    def take(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.obj = Path(value)

    return click.option(
        "--root", metavar="FOLDER", expose_value=False, is_eager=True, callback=take, help="The production's folder."
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, as the tool answers.")
sender_option = click.option("--sender", "--from", "sender", metavar="NAME", help="Only from this sender.")
type_option = click.option("--type", "msg_type", metavar="TYPE", help="Only this message type.")
scene_option = click.option("--scene", metavar="SLUG", help="Only of this scene.")
before_option = click.option("--before", metavar="M", help="Only what stands before this message.")
channel_option = click.option("--channel", metavar="NAME", help="Only this channel; a pattern such as 'scene_*' works.")
reader_option = click.option(
    "--reader", metavar="NAME", help="Whose unread messages; by default those of the channel's own reader."
)
consumer_option = click.option(
    "--consumer", metavar="NAME", help="Which of several that share the reader; by default the reader."
)
since_option = click.option(
    "--since",
    type=moment,
    metavar="WHEN",
    help="What comes after a message, or from a time on: 2026-11-22T13:12:52Z, or an age: 2h.",
)

at_option = click.option(
    "--at",
    metavar="REV",
    help="As it stood at a git revision: a commit, a branch, a tag, HEAD~3. No checkout; the files are not looked at.",
)


def limit_option(default: int) -> Callable[[F], F]:
    """`--limit`, with the command's own default."""
    return click.option("--limit", type=int, metavar="N", default=default, show_default=True, help="At most so many.")


def asks(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options at once, in the order of the help page; `--json` and `--root` come last."""

    def decorate(command: F) -> F:
        every: list[Callable[[Any], Any]] = [*options, json_option, rooted]
        for option in reversed(every):
            command = option(command)
        return command

    return decorate
