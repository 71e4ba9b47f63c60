"""The commands that serve: `mq serve`, and `mq demo`, which plays a scene against a server of its own."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from mq_server.cli.options import rooted, seconds
from mq_server.cli.output import SafeFormatter, Screen, flush, remark
from mq_server.cli.writing import quoted
from mq_server.errors import MailError
from mq_server.render.text import visible_line, wrap

_LEVELS = ("debug", "info", "warning", "error")
DEMO_FOLDER = "demo-production"


@click.command()
@rooted
@click.option("--stdio", is_flag=True, help="Serve one client over stdin and stdout instead.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8004, show_default=True, help="0 takes a free one.")
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A name by which others reach it; repeatable."
)
@click.option("--as", "identity", metavar="AGENT", help="Who the caller is; messages bear this sender.")
@click.option("--read-only", is_flag=True, help="The monitor in the browser only shows.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="warning", show_default=True, help="Logged to stderr.")
@click.pass_obj
def serve(
    root: Path,
    stdio: bool,
    host: str,
    port: int,
    allow_hosts: tuple[str, ...],
    identity: str | None,
    read_only: bool,
    log_level: str,
) -> None:
    """Run the MCP server, and the monitor for people.

    Over streamable HTTP, or with --stdio for one client. Agents connect to the URL it prints, people open the other
    one in a browser.
    """
    import asyncio

    from mq_server.server import fast_loop, run_http, run_stdio
    from mq_server.server.http import MCP_PATH

    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=log_level.upper(), handlers=[handler])
    if stdio:
        asyncio.run(run_stdio(root, identity=identity))
        return

    def started(url: str) -> None:
        made = "" if root.exists() else ", made by the first post"
        page = f"{url.removesuffix(MCP_PATH)}/"
        print(f"Serving {url}\nMonitor: {page}\nMailboxes: {root}{made}\nCtrl+C stops it.", file=sys.stderr)

    serving = run_http(
        root,
        host=host,
        port=port,
        allow_hosts=allow_hosts,
        identity=identity,
        read_only=read_only,
        started=started,
    )
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serving)


class NothingToPlay(MailError):
    """The demo's agents cannot be imported."""

    def __init__(self, missing: str | None) -> None:
        super().__init__(
            f"the demo's agents are built on Pydantic AI, and {missing or 'part of it'} is not installed: "
            'pip install "mq-server[demo]", or in a clone: pip install -e ".[demo]"'
        )


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=DEMO_FOLDER,
    show_default=True,
    help="Where the production is made; if something is there, a numbered folder beside it.",
)
@click.option(
    "--pace",
    type=seconds,
    metavar="SECONDS",
    default=0,
    show_default=True,
    help="How long an agent takes over a message.",
)
def demo(folder: Path, pace: float) -> None:
    """Watch eight agents write a scene together.

    Over MCP, with a server of their own; no network and no language model. The folder stays: it is a production
    like any other.
    """
    import asyncio

    # Pydantic AI greets whoever runs an agent at a terminal; here that would be in the middle of the play.
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    try:
        from tools import swarm
    except ImportError as error:
        raise NothingToPlay(error.name) from error
    root = _fresh(folder)
    if root != folder:
        remark(f"{folder} is not empty; this performance goes into {root}")
    asyncio.run(_perform(root, pace, dict(swarm.ROSTER)))
    option = f"--root {quoted(root)}"
    print(f"\nThe files are in {root}: a mailbox per agent, one message a line. To look further:")
    print(f"  mq {option} channels")
    print(f"  mq {option} show --scene {swarm.SCENE}")
    print(f"  mq {option} show quality_assessor")
    print(f"  mq {option} thread quality_assessor:1")
    print(f"  mq {option} serve")


def _fresh(folder: Path) -> Path:
    """The folder, or one beside it with the first free number."""
    number, candidate = 1, folder
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


async def _perform(root: Path, pace_s: float, roster: dict[str, str]) -> None:
    from mq_server.config import FILE_NAME, annotated_toml
    from mq_server.server import serving
    from mq_server.store import Store
    from tools import swarm

    Store(root).prepare()
    (root / FILE_NAME).write_text(annotated_toml(roster, in_force=True), encoding="utf-8", newline="\n")
    screen = Screen()

    def report(line: str) -> None:
        # What goes into a file or a program stays one line.
        shown = visible_line(line)
        for each in wrap(shown, screen.width, hang=4) if screen.is_terminal else [shown]:
            screen.line(each)
        flush()

    async with serving(root) as url:
        report(f"{len(roster)} mailboxes, served at {url}")
        screen.line()

        scene = await swarm.play(url, report, pace_s=pace_s)
    await _present(screen, root, scene)


async def _present(screen: Screen, root: Path, scene: str) -> None:
    """Print the version of the scene that was made final."""
    from mq_server.mailroom import Mailroom
    from mq_server.render.transcript import body

    async with Mailroom(root) as room:
        final = await room.activity(scene=scene, msg_type="finalize", limit=1)
        message = await room.message(final.messages[-1].payload["of"])
    screen.line()
    screen.line(f"{visible_line(message.ref)}, the final scene:", "bold")
    screen.line()
    for line in body(message, width=screen.width):
        screen.line(line)
