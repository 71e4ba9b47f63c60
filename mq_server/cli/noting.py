"""The commands of people who read along: `mq note` and `mq amend`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mq_server.cli.options import json_option, rooted
from mq_server.cli.output import print_json
from mq_server.cli.session import with_room
from mq_server.cli.writing import given_payload, given_text, show_posted
from mq_server.errors import InvalidRequest

if TYPE_CHECKING:
    from mq_server.mailroom import Mailroom
    from mq_server.outcomes import Posted

NOTES = "notes"
"""The channel of notes in the margin; nobody waits for it."""
WRITER = "writer"
"""Whom a production calls its human."""

_sender_option = click.option(
    "--sender", "--from", "sender", envvar="MQ_SENDER", metavar="NAME", help="Who writes; MQ_SENDER sets it too."
)


@click.command()
@rooted
@click.argument("message", metavar="M")
@click.argument("text")
@_sender_option
@click.option("--to", "to", multiple=True, metavar="CHANNEL", help="Whom it is to reach as mail too; repeatable.")
@json_option
@click.pass_obj
def note(root: Path, message: str, text: str, sender: str | None, to: tuple[str, ...], as_json: bool) -> None:
    """Write a note on a message.

    It stands in the message's thread, and in the channel `notes`, where nobody waits for it; --to sends it to others as
    well. TEXT may be - for stdin. The sender is `writer` unless somebody else is named.
    """
    content = {"text": given_text(text)}

    async def send(room: Mailroom) -> Posted:
        return await room.post(
            [NOTES, *to], sender=sender or WRITER, msg_type="note", payload=content, reply_to=message
        )

    _posted(root, send, as_json)


@click.command()
@rooted
@click.argument("message", metavar="M")
@click.option("--text", metavar="TEXT", help="The payload's text, changed to this; - reads it from stdin.")
@click.option("--payload", metavar="JSON|@FILE|-", help="The whole payload: JSON, @ and a file, or - for stdin.")
@_sender_option
@json_option
@click.pass_obj
def amend(root: Path, message: str, text: str | None, payload: str | None, sender: str | None, as_json: bool) -> None:
    """Correct a message.

    A new one is posted that takes its place wherever it is shown; the old line stays. Without --text or --payload an
    editor opens with the payload. The sender is that of the original unless somebody else is named.
    """
    if text is not None and payload is not None:
        raise click.UsageError("Give the payload either as --text TEXT or as --payload JSON.")
    content = given_payload(payload) if payload is not None else None
    words = given_text(text) if text is not None else None

    async def send(room: Mailroom) -> Posted:
        original = await room.message(message)
        plain = content
        if words is not None:
            if "text" not in original.payload:
                fields = ", ".join(original.payload)
                raise InvalidRequest([f"{original.ref} has no text, but {fields}: give --payload, or use the editor"])
            plain = original.payload | {"text": words}
        elif plain is None:
            plain = _edited(original.payload)
        return await room.post(
            sender=sender or original.sender, msg_type=original.msg_type, payload=plain, replaces=original.id
        )

    _posted(root, send, as_json)


def _posted(root: Path, send: Any, as_json: bool) -> None:
    posted = with_room(root, send)
    if as_json:
        print_json(posted.as_json())
    else:
        show_posted(posted)


def _edited(payload: dict[str, Any]) -> Any:
    """The payload as somebody leaves it in an editor.

    Raises:
        click.ClickException: It was not changed.
    """
    import json

    before = json.dumps(payload, ensure_ascii=False, indent=2) + "\n"
    after = click.edit(before, extension=".json")
    if after is None or after == before:
        raise click.UsageError("Nothing was changed, so nothing is posted.")
    return given_payload(after)
