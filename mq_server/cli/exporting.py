"""`mq export`: a conversation as a document for people: Markdown, Fountain, HTML, or JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mq_server.cli.options import rooted, scene_option
from mq_server.cli.output import remark
from mq_server.cli.session import note_missing, problems, with_room
from mq_server.errors import MailError

if TYPE_CHECKING:
    from mq_server.mailroom import Mailroom
    from mq_server.message import Message
    from mq_server.render.edition import Entry
    from mq_server.scenes import Board, SceneState, SceneVersion

FORMATS = ("md", "fountain", "html", "json")


class NotFinal(MailError):
    """A scene has no finalised version."""

    def __init__(self, state: SceneState) -> None:
        from mq_server.scenes import figure

        best = state.best
        if best is not None and best.score is not None:
            hint = f"Best so far: version {best.version} ({best.ref}) with {figure(best.score)}; post a finalize of it"
        else:
            hint = "No version of it is scored" if state.versions else "It has no version yet"
        super().__init__(f"Scene {state.scene} has no finalised version. {hint}, or export it without --final")


class NothingToExport(MailError):
    """The format takes nothing of what there is."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Nothing in {what} is script: fountain takes messages of type scene, narration and dialogue; "
            "--format md takes all"
        )


class Gathered(NamedTuple):
    """What is exported: the messages, how the scenes stand, and what it is called."""

    entries: list[Entry]
    board: Board
    title: str
    what: str
    final: SceneVersion | None = None


@click.command()
@click.argument("what", required=False, metavar="[CHANNEL|M]")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), required=True, help="Markdown, a screenplay, a web page, or data."
)
@scene_option
@click.option("--final", is_flag=True, help="With --scene: only the version of it that was finalised.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to.")
@rooted
@click.pass_obj
def export(root: Path, what: str | None, form: str, scene: str | None, final: bool, output: Path | None) -> None:
    """Export the conversation as a document.

    All of it, that of a CHANNEL, the thread of message M, or a scene. Without -o it goes to stdout.
    """
    if final and (scene is None or what is not None):
        raise click.UsageError("--final goes with --scene, and with nothing else")
    note_missing(root)
    gathered = with_room(root, lambda room: _gather(room, root, what, scene, final))
    document = _FORMS[form](gathered)
    if output is None:
        sys.stdout.write(document)
    else:
        _write(output, document.encode())
        count = 1 if final else len(gathered.entries)
        remark(f"wrote {output}: {count:,} {'message' if count == 1 else 'messages'}")


async def _gather(room: Mailroom, root: Path, what: str | None, scene: str | None, final: bool) -> Gathered:
    """The messages of a production, a channel, a thread or a scene.

    Raises:
        NotFinal: The scene has no finalised version.
        NothingNamed, UnknownScene: There is no such thing.
    """
    from mq_server.cli.showing import Thread, Timeline, is_channel
    from mq_server.render.edition import Entry

    source: Timeline | Thread
    is_thread = what is not None and not await is_channel(room, what)
    source = Thread(room, str(what), scene, None) if is_thread else Timeline(room, what, scene, None)
    board = await room.scenes(scene)
    problems.tell(board.problems)
    for note in (*board.notes, *(note for state in board.scenes for note in state.notes)):
        remark(f"left out of the scene board: {note}")
    entries = []
    while fresh := await source.more():
        entries += [Entry(message=shown.message, depth=shown.depth) for shown in fresh]
    if is_thread:
        about = f"the thread of {what}"
        title = _title(entries[0].message) if entries else about
    else:
        about = f"channel {what}" if what else "the whole production"
        title = what or _name(root)
    if scene is not None:
        about = f"scene {scene} in {about}" if what else f"scene {scene}"
        title = title if is_thread else next((state.title for state in board.scenes if state.title), scene)
    return Gathered(entries, board, title, about, _final(board) if final else None)


def _title(root: Message) -> str:
    """What a thread is called: as its first message calls itself, or as it begins."""
    from mq_server.render.transcript import gist

    title = root.payload.get("title")
    return title if isinstance(title, str) and title.strip() else gist(root, 80)


def _final(board: Board) -> SceneVersion:
    (state,) = board.scenes
    if state.finalised is None:
        raise NotFinal(state)
    return state.finalised.version


def _name(root: Path) -> str:
    """What a production is called: its folder, or the one around it if that has the usual name."""
    folder = root.resolve()
    return folder.parent.name if folder.name == "mailboxes" else folder.name


def _edition(gathered: Gathered) -> Any:
    from mq_server.render.edition import edition

    return edition(
        gathered.entries, gathered.board.scenes, title=gathered.title, what=gathered.what, final=gathered.final
    )


def _markdown(gathered: Gathered) -> str:
    from mq_server.render.markdown import markdown

    return markdown(_edition(gathered))


def _fountain(gathered: Gathered) -> str:
    from mq_server.render.fountain import fountain

    screenplay = fountain(_edition(gathered))
    if not screenplay:
        raise NothingToExport(gathered.what)
    return screenplay


def _html(gathered: Gathered) -> str:
    from mq_server.render.page import page

    return page(_edition(gathered))


def _json(gathered: Gathered) -> str:
    import orjson

    from mq_server.render.text import escaped_json

    final = gathered.final
    messages = [each.message for each in gathered.entries if final is None or each.message.id == final.id]
    scenes = {message.scene for message in messages}
    board = gathered.board.as_json()
    board["scenes"] = [state for state in board["scenes"] if state["scene"] in scenes]
    document = {"messages": [message.as_json() for message in messages]} | board
    return escaped_json(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()) + "\n"


_FORMS: dict[str, Callable[[Gathered], str]] = {
    "md": _markdown,
    "fountain": _fountain,
    "html": _html,
    "json": _json,
}


def _write(path: Path, data: bytes) -> None:
    """Put a file in place as a whole; a device or a pipe is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
