"""The commands that write: `mq init` and `mq post`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mq_server.cli.edge import TIMED_OUT
from mq_server.cli.options import json_option, rooted, seconds
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import with_room

if TYPE_CHECKING:
    from mq_server.mailroom import Mailroom
    from mq_server.outcomes import Posted, Recipient

EXAMPLE_ROSTER = {
    "writer": "The human. Sends briefs, reads along, posts notes.",
    "story_architect": "Turns a brief into a scene plan.",
    "scene_director": "Breaks a plan down; assembles direction, narration and dialogue into scenes.",
    "character_director": "Tells each character what they want and hide.",
    "narrator": "Writes what is seen.",
    "dialogist": "Writes what is said.",
    "shot_composer": "Turns scenes into shots.",
    "quality_assessor": "Scores scenes from 0 to 1, sends them back with reasons, finalizes.",
    "continuity_service": "Remembers what earlier scenes established; ask it.",
}
"""The roster that a new production's mq.toml shows as an example."""


@click.command()
@rooted
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.pass_context
def init(ctx: click.Context, folder: Path | None) -> None:
    """Make a production's folder.

    DIR (by default --root) gets what git must know of it, and an mq.toml that explains every setting.

    Files that exist are left alone.
    """
    from mq_server.config import FILE_NAME, annotated_toml
    from mq_server.store import Store

    root: Path = folder or ctx.obj
    files = [root / ".gitattributes", root / ".gitignore", root / FILE_NAME]
    kept = [path for path in files if path.exists()]
    Store(root).prepare()
    if files[-1] not in kept:
        with files[-1].open("x", encoding="utf-8", newline="\n") as file:
            file.write(annotated_toml(EXAMPLE_ROSTER))
    for path in files:
        print(f"{'kept' if path in kept else 'made'}  {path}")
    option = f" --root {quoted(root)}" if root != ctx.find_root().obj or folder else ""
    print("\nNext:")
    print(f'  mq{option} post narrator --sender writer --type note --text "Good morning."')
    print(f"  mq{option} show")
    print(f"  mq{option} serve")
    if _is_in_repository(root):
        print(f"  mq{option} git-setup")


@click.command()
@rooted
@click.argument("channels", nargs=-1, metavar="[CHANNEL]...")
@click.option("--sender", "--from", "sender", required=True, metavar="NAME", help="Who posts.")
@click.option("--type", "msg_type", required=True, metavar="TYPE", help="The kind of message, such as note.")
@click.option("--text", metavar="TEXT", help="The payload {text: TEXT}; - reads it from stdin.")
@click.option(
    "--payload", metavar="JSON|@FILE|-", help="The payload: JSON, @ and a file that holds it, or - for stdin."
)
@click.option("--reply-to", metavar="M", help="The message that is answered; without CHANNEL it goes to its sender.")
@click.option("--scene", metavar="SLUG", help="The scene; by default that of the message answered.")
@click.option("--urgent", is_flag=True, help="Readers get it before the rest.")
@click.option(
    "--expires-in", type=seconds, metavar="SECONDS", help="Not delivered any more after that: seconds, or 10m, 2h, 1d."
)
@click.option(
    "--dedup-key", metavar="KEY", help="Makes the call safe to repeat: the sender's next post under it is the same one."
)
@click.option(
    "--draft", "drafts", multiple=True, metavar="PATH", help="What it was written from: a file, or FILE#L10-L20."
)
@click.option(
    "--wait-reply", "wait_reply_s", type=seconds, metavar="SECONDS", help="Then wait for the reply and show it."
)
@json_option
@click.pass_obj
def post(
    root: Path,
    channels: tuple[str, ...],
    sender: str,
    msg_type: str,
    text: str | None,
    payload: str | None,
    reply_to: str | None,
    scene: str | None,
    urgent: bool,
    expires_in: float | None,
    dedup_key: str | None,
    drafts: tuple[str, ...],
    wait_reply_s: float | None,
    as_json: bool,
) -> None:
    """Post a message.

    To each CHANNEL, or to '*' for everybody but the sender. When this returns, it is on disk. With --wait-reply the
    exit code is 4 if nobody answered in time.
    """
    if (text is None) == (payload is None):
        raise click.UsageError("Give the payload either as --text TEXT or as --payload JSON.")
    if not channels and reply_to is None:
        raise click.UsageError("Name a CHANNEL, or give --reply-to M to answer its sender.")
    content: dict[str, Any] = {"text": given_text(text)} if text is not None else given_payload(payload or "")
    to = "*" if channels == ("*",) else channels or None
    sources: list[str] = []
    if drafts:
        from mq_server.git.drafts import stamped

        sources = [stamped(draft) for draft in drafts]

    async def send(room: Mailroom) -> Posted:
        return await room.post(
            to,
            sender=sender,
            msg_type=msg_type,
            payload=content,
            reply_to=reply_to,
            scene=scene,
            urgent=urgent,
            expires_in_s=expires_in,
            dedup_key=dedup_key,
            drafts=sources,
            wait_reply_s=wait_reply_s,
        )

    posted = with_room(root, send)
    if as_json:
        print_json(posted.as_json())
    else:
        show_posted(posted)
    if posted.unanswered is not None:
        raise click.exceptions.Exit(TIMED_OUT)


def show_posted(posted: Posted) -> None:
    """What a post came to, for people."""
    names = ", ".join(f"{to.channel}{_met(to)}" for to in posted.recipients)
    print(f"{posted.ref} → {names}")
    flush()
    if posted.duplicate:
        remark(f"posted before under this key{', and with another content' if posted.differs else ''}")
    if posted.advice is not None:
        remark(posted.advice)
    if posted.reply is not None:
        screen = Screen()
        screen.line()
        screen.entry(posted.reply)
    unanswered = posted.unanswered
    if unanswered is not None:
        remark(f"no reply yet: mq wait {unanswered.asker} --reply-to {unanswered.question} --ack goes on waiting")
        if unanswered.unread:
            remark(f"{unanswered.unread:,} unread in {unanswered.asker} meanwhile: somebody may be waiting for you")


def _met(recipient: Recipient) -> str:
    """How the message met a mailbox, in brackets."""
    met = ["new"] if recipient.created else []
    met += ["waiting"] if recipient.waiting else []
    return f" ({', '.join(met)})" if met else ""


def _is_in_repository(root: Path) -> bool:
    from mq_server.repository import GitError, Repository

    try:
        Repository.around(root)
    except GitError:
        return False
    return True


def quoted(path: Path) -> str:
    """A path as one writes it in a shell, PowerShell included."""
    text = str(path)
    return text if all(character.isalnum() or character in r"._-/\:~" for character in text) else f'"{text}"'


def given_text(text: str) -> str:
    """The text of an option or argument; - reads it from stdin."""
    return _from_stdin("--text").replace("\r\n", "\n").removesuffix("\n") if text == "-" else text


def given_payload(given: str) -> Any:
    """The payload; whether it is an object and has the fields of its type is the mailroom's business."""
    if given == "-":
        source, text = "stdin", _from_stdin("--payload")
    elif given.startswith("@"):
        source = given[1:]
        try:
            text = _decoded(Path(source).read_bytes(), "--payload", source)
        except OSError as error:
            raise click.BadParameter(f"{source}: {error.strerror}", param_hint="--payload") from error
    else:
        source, text = "it", given
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{source} is not JSON: {error}", param_hint="--payload") from error
    except RecursionError as error:
        raise click.BadParameter(f"{source} is nested too deeply", param_hint="--payload") from error


def _from_stdin(option: str) -> str:
    if sys.stdin is None:
        raise click.BadParameter("stdin is closed", param_hint=option)
    return _decoded(sys.stdin.buffer.read(), option, "stdin")


def _decoded(data: bytes, option: str, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise click.BadParameter(f"{source} is not UTF-8 text{hint}", param_hint=option) from error
