"""mq-server: the mailroom of a swarm of AI agents, on plain files.

`Mailroom` is the one façade; everything else is reached through it. It is imported on first use, so that
`import mq_server` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mq_server.errors import MailError, Problem
    from mq_server.mailroom import Mailroom
    from mq_server.message import Message

__all__ = ["MailError", "Mailroom", "Message", "Problem"]
__version__ = "0.1.0"

_HOMES = {"Mailroom": "mailroom", "Message": "message", "MailError": "errors", "Problem": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
