"""`mq`, the command line: the only place that prints.

The commands live in modules that are imported when one of theirs is called, and those import the mailroom, the server
and the rest within the commands: `mq post` starts with what it needs and nothing else.

Exit codes
    0 done; 1 problems found (`check`); 2 the command line makes no sense (an unknown option, a missing argument, JSON
    that cannot be parsed); 3 the operation was refused or failed, whether the mailroom or the system did it; 4 timed
    out (`wait`); 130 interrupted; 141 whoever read the output went away (`mq follow | head`).
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from mq_server import __version__
from mq_server.cli.edge import INTERRUPTED, exit_codes, prepare_streams
from mq_server.errors import did_you_mean

DEFAULT_ROOT = "mailboxes"
_MODULES = {
    "init": "writing",
    "post": "writing",
    "note": "noting",
    "amend": "noting",
    "read": "reading",
    "wait": "reading",
    "follow": "reading",
    "settle": "settling",
    "status": "settling",
    "history": "looking",
    "thread": "looking",
    "activity": "looking",
    "search": "looking",
    "channels": "looking",
    "scenes": "scenes",
    "show": "showing",
    "export": "exporting",
    "types": "looking",
    "check": "looking",
    "git": "recovering",
    "recover": "recovering",
    "archive": "archiving",
    "diff": "versions",
    "commit": "versions",
    "git-setup": "gitting",
    "serve": "serving",
    "demo": "serving",
}
"""The commands in the order of `mq --help`, and the module that has each."""
_HIDDEN = {"textconv": "gitting", "merge-driver": "gitting"}
"""What only git calls."""


class Program(click.Group):
    """The group of all commands, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        module = (_MODULES | _HIDDEN).get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), cmd_name.replace("-", "_"))
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that is meant; says which one might have been."""
        if args[0] not in _MODULES | _HIDDEN and not args[0].startswith("-"):
            ctx.fail(f"There is no command {args[0]!r}.{did_you_mean(args[0], _MODULES)}")
        return super().resolve_command(ctx, args)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `mq` with the arguments of this process, and exit."""
        prepare_streams()
        # On Windows click would expand a pattern such as `scene_*` to the files of that name.
        try:
            return super().__call__(*args, prog_name="mq", windows_expand_args=False, **kwargs)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; whatever goes wrong becomes a line on stderr and an exit code."""
        with exit_codes():
            return super().invoke(ctx)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 problems found, 2 usage, 3 the operation failed, 4 timed out. "
    "A message is named by its id, the end of it (4 characters or more), channel:line, or a ref such as "
    "narrator:42~K3QF.",
)
@click.option(
    "--root",
    metavar="FOLDER",
    envvar="MQ_ROOT",
    default=DEFAULT_ROOT,
    show_default=True,
    help="The production's folder; MQ_ROOT sets it too. May also follow the command.",
)
@click.version_option(__version__, prog_name="mq-server")
@click.pass_context
def main(ctx: click.Context, root: str) -> None:
    """The mailroom of a swarm of AI agents: post, read and wait for messages in a folder of text files."""
    ctx.obj = Path(root)
