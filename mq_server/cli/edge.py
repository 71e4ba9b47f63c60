"""The edge to the operating system: streams, exit codes, and errors as one line on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

import click

from mq_server.errors import MailError
from mq_server.render.text import visible_line

PROBLEMS = 1
USAGE = 2
FAILED = 3
TIMED_OUT = 4
INTERRUPTED = 130
READER_LEFT = 141


def prepare_streams() -> None:
    """Make stdout and stderr UTF-8 with plain line feeds, whatever the console or the locale says."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
        elif stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - stays open


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what ends a command early into a line on stderr and an exit code.

    Raises:
        click.exceptions.Exit: With the code.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _discard_output()
        raise click.exceptions.Exit(READER_LEFT) from None
    except MailError as error:
        complain(str(error))
        raise click.exceptions.Exit(FAILED) from error
    except OSError as error:
        complain(_words(error))
        _discard_output()
        raise click.exceptions.Exit(FAILED) from error


def complain(text: str) -> None:
    """Say something on stderr, in one line."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"mq: {visible_line(text)}", err=True)


def _words(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _discard_output() -> None:
    """Let what is still buffered for stdout go nowhere, so that the interpreter's last flush does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
