"""`mq.toml`: a production's roster and limits. Every key is optional; without the file the defaults hold.

The settings are plain dataclasses whose metadata says what a file may give them. They are checked here and not by
pydantic, whose import takes longer than all that most commands do.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mq_server.errors import ConfigError, InvalidName, did_you_mean
from mq_server.names import check_name

FILE_NAME = "mq.toml"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = (
    r'''"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!\')|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[A-Za-z0-9_-]+|.'''
)
"""What a line's meaning hangs on in TOML: texts, which may hold any other sign, comments, names, single signs."""
Key = tuple[str, ...]
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
}
"""What a file may hold for a setting annotated so, and what that is called. An annotation is text here."""
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "more than"),
    "le": (operator.le, "at most"),
}
"""The bounds that a setting's metadata may have, and what they are called."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One entry of the roster."""

    description: str = field(
        default="", metadata={"description": "What the agent does; `list_channels` shows it to the others."}
    )
    group: str = field(default="", metadata={"description": "A name that several channels share."})
    max_unread: int | None = field(default=None, metadata={"ge": 0, "description": "This channel's own `max_unread`."})
    max_deliveries: int | None = field(
        default=None, metadata={"ge": 0, "description": "This channel's own `max_deliveries`."}
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a production. A field's metadata has its description, bounds (`_BOUNDS`) and `choices`."""

    durability: Literal["disk", "os"] = field(
        default="disk",
        metadata={
            "choices": ("disk", "os"),
            "description": '"disk": a post that returned survives a power cut. "os": it survives a crash of the '
            "process only, and posts are several times faster.",
        },
    )
    max_message_bytes: int = field(
        default=256 * 1024, metadata={"ge": 1024, "le": 1024 * 1024, "description": "The longest line, in bytes."}
    )
    lock_timeout_s: float = field(
        default=10.0, metadata={"gt": 0, "le": 300, "description": "How long a post waits for a mailbox, in seconds."}
    )
    max_lease_s: float = field(
        default=3600.0, metadata={"gt": 0, "le": 86400, "description": "The longest lease of a claim, in seconds."}
    )
    max_deliveries: int = field(
        default=5,
        metadata={
            "ge": 0,
            "description": "A message claimed so often without being settled is rejected and copied to `dead_letters`; "
            "0 means never.",
        },
    )
    max_reply_depth: int = field(
        default=0,
        metadata={
            "ge": 0,
            "description": "A reply below so many others is refused, against agents that answer each other for ever; "
            "0 means no limit.",
        },
    )
    max_unread: int = field(
        default=0,
        metadata={
            "ge": 0,
            "description": "A channel with so many unread messages gets no more until its reader has caught up; 0 "
            "means no limit.",
        },
    )
    max_iterations: int = field(
        default=0,
        metadata={
            "ge": 0,
            "description": "After so many versions of a scene the scene board says that the best-scored one wins; 0 "
            "means no limit.",
        },
    )
    strict_types: bool = field(
        default=False,
        metadata={"description": "Whether a message of a type that has neither a model nor a schema is refused."},
    )
    channels: dict[str, Channel] = field(
        default_factory=dict,
        metadata={
            "description": "The roster: name to description, or a table with `description` and `group`. With a roster "
            "only its names (and `notes` and `dead_letters`) can be posted to."
        },
    )


def load(root: Path) -> Config:
    """The settings of the production in `root`.

    Raises:
        ConfigError: The file is no TOML, or has an unknown key or a wrong value; every fault is named.
    """
    path = root / FILE_NAME
    try:
        return parsed(path, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Config()


def parsed(path: Path, content: bytes) -> Config:
    """The settings that a file holds.

    Args:
        path: What errors call it.
        content: Its bytes.

    Raises:
        ConfigError: It is no TOML, or has an unknown key or a wrong value; every fault is named.
    """
    import tomllib

    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not valid TOML: its text is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at ")  # line 3, column 7), or: end of document)
        number = re.match(r"line ([0-9]+)", place)
        line = int(number[1]) if number else len(text.rstrip().split("\n"))
        raise ConfigError(f"{path}:{line}: not valid TOML: {what}") from error
    return _checked(path, text, data) if data else Config()


def _checked(path: Path, text: str, data: dict[str, Any]) -> Config:
    roster = data.get("channels", {})
    given, faults = _fitting(Config, {key: value for key, value in data.items() if key != "channels"}, ())
    given["channels"] = entries = {}
    if not isinstance(roster, dict):
        faults.append((("channels",), "channels: must be a table"))
        roster = {}
    for name, entry in roster.items():
        try:
            check_name("channel", name)
        except InvalidName as error:
            faults.append((("channels", name), f"channels: {error}"))
        if isinstance(entry, str | dict):
            said = {"description": entry} if isinstance(entry, str) else entry
            fitting, wrong = _fitting(Channel, said, ("channels", name))
            entries[name] = Channel(**fitting)
            faults += wrong
        else:
            faults.append((("channels", name), f"channels.{name}: must be a text or a table"))
    if faults:
        raise ConfigError(_located(path, faults, key_lines(text)))
    return Config(**given)


def _fitting(
    table: type[Config] | type[Channel], data: Mapping[str, Any], place: Key
) -> tuple[dict[str, Any], list[tuple[Key, str]]]:
    """The settings that a table gives as they should be, and what is wrong with the others."""
    known = {setting.name: setting for setting in fields(table)}
    given: dict[str, Any] = {}
    faults: list[tuple[Key, str]] = []
    for name, value in data.items():
        fault = _fault(known[name], value) if name in known else _no_such_key(name, table)
        if fault:
            key = (*place, name)
            faults.append((key, f"{'.'.join(key)}: {fault}"))
        else:
            given[name] = float(value) if known[name].type == "float" else value
    return given, faults


def _fault(setting: Field[Any], value: Any) -> str:
    """What is wrong with a value; empty if nothing is."""
    choices = setting.metadata.get("choices")
    if choices:
        return "" if value in choices else f"must be {' or '.join(map(repr, choices))}"
    kind, called = _KINDS[str(setting.type)]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return f"must be {called}"
    for bound, (holds, words) in _BOUNDS.items():
        if bound in setting.metadata and not holds(value, setting.metadata[bound]):
            return f"must be {words} {setting.metadata[bound]:,}"
    return ""


def _no_such_key(key: str, table: type[Config] | type[Channel]) -> str:
    known = [setting.name for setting in fields(table)]
    return f"there is no such key.{did_you_mean(key, known)} Known keys: {', '.join(known)}"


def _located(path: Path, faults: Iterable[tuple[Key, str]], lines: Mapping[Key, int]) -> str:
    """The faults in order of their lines; a key whose own line is not known has that of what it stands in."""
    found = [
        (next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 0), text) for key, text in faults
    ]
    return "; ".join(f"{path}:{line}: {text}" if line else f"{path}: {text}" for line, text in sorted(found))


def key_lines(text: str) -> dict[Key, int]:
    """The line of every key and table of a TOML document, but for keys of inline tables.

    Args:
        text: A valid document, with plain line feeds.
    """
    import tomllib

    lines: dict[Key, int] = {}
    table: Key = ()
    key: list[str] = []
    in_value, depth, number = False, 0, 1
    for match in re.finditer(_TOKEN, text, re.DOTALL):
        token = match[0]
        if token == "\n" and not depth:
            in_value, key = False, []
        elif in_value:
            depth += (token in "[{") - (token in "]}")
        elif token in "=]":
            if key:
                path = (*table, *key) if token == "=" else tuple(key)
                for length in range(1, len(path) + 1):
                    lines.setdefault(path[:length], number)
                table, key = (table if token == "=" else path), []
            in_value = token == "="
        elif token[0] in "\"'":
            key += tomllib.loads(f"key = {token}").values()
        elif _BARE_KEY.fullmatch(token):
            key.append(token)
        number += token.count("\n")
    return lines


def annotated_toml(roster: Mapping[str, str], *, in_force: bool = False) -> str:
    """An mq.toml that explains itself: every setting commented out, with its default and what it means.

    Args:
        roster: Names and descriptions for the `[channels]` table.
        in_force: Whether the roster holds, or is an example to uncomment.
    """
    import json
    from textwrap import wrap

    lines = ["# The settings of this production. A line counts once the # in front of it is gone."]
    # Tables come last in TOML: a key below `[channels]` would be a channel.
    for setting in sorted(fields(Config), key=lambda setting: setting.name == "channels"):
        lines += ["", *(f"# {line}" for line in wrap(_explanation(setting.metadata), 98))]
        if setting.default is not MISSING:
            lines.append(f"# {setting.name} = {json.dumps(setting.default)}")
    mark = "" if in_force else "# "
    lines.append(f"{mark}[channels]")
    lines += [f"{mark}{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in roster.items()]
    return "\n".join(lines) + "\n"


def _explanation(metadata: Mapping[str, Any]) -> str:
    said = [f"{words} {metadata[bound]:,}" for bound, (_, words) in _BOUNDS.items() if bound in metadata]
    return f"{metadata['description']} {', '.join(said).capitalize()}{'.' if said else ''}".strip()
