"""`mq.toml`: a production's roster and limits. Every key is optional; without the file the defaults hold.

The settings are plain dataclasses, and pydantic, which checks a file against them, is imported when there is something
to check: a reader of a production without settings starts without it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from textwrap import wrap
from typing import Any, ClassVar, Literal

from mq_server.errors import ConfigError, InvalidName
from mq_server.names import check_name

FILE_NAME = "mq.toml"
_CHECKED: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Channel:
    """One entry of the roster."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CHECKED

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
    """The settings of a production. A field's metadata is what pydantic's `Field` takes: bounds and description."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CHECKED

    durability: Literal["disk", "os"] = field(
        default="disk",
        metadata={
            "description": '"disk": a post that returned survives a power cut. "os": it survives a crash of the '
            "process only, and posts are several times faster."
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
            "description": "A channel with so many unread messages gets no more until its reader has caught up; 0 means "
            "no limit.",
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
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return Config()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return _checked(path, data) if data else Config()


def _checked(path: Path, data: dict[str, Any]) -> Config:
    from pydantic import TypeAdapter, ValidationError

    faults: list[str] = []
    roster = data.get("channels")
    if isinstance(roster, dict):
        for name in roster:
            try:
                check_name("channel", name)
            except InvalidName as error:
                faults.append(f"channels: {error}")
        entries = {name: {"description": text} if isinstance(text, str) else text for name, text in roster.items()}
        data = data | {"channels": entries}
    config = Config()
    try:
        config = TypeAdapter(Config).validate_python(data)
    except ValidationError as error:
        for fault in error.errors():
            known = fault["type"] != "unexpected_keyword_argument"
            setting = ".".join(map(str, fault["loc"]))
            faults.append(f"{setting}: {fault['msg'] if known else 'there is no such key'}")
    if faults:
        keys = ", ".join(setting.name for setting in fields(Config))
        raise ConfigError(f"{path}: {'; '.join(faults)}. Known keys: {keys}")
    return config


def annotated_toml(roster: Mapping[str, str], *, in_force: bool = False) -> str:
    """An mq.toml that explains itself: every setting commented out, with its default and what it means.

    Args:
        roster: Names and descriptions for the `[channels]` table.
        in_force: Whether the roster holds, or is an example to uncomment.
    """
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
    bounds = {"ge": "at least", "gt": "more than", "le": "at most"}
    said = [f"{words} {metadata[bound]:,}" for bound, words in bounds.items() if bound in metadata]
    return f"{metadata['description']} {', '.join(said).capitalize()}{'.' if said else ''}".strip()
