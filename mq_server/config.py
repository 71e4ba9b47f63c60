"""`mq.toml`: a production's roster and limits. Every key is optional; without the file the defaults hold."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mq_server.errors import ConfigError, InvalidName
from mq_server.message import check_name

FILE_NAME = "mq.toml"


class Channel(BaseModel):
    """One entry of the roster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(default="", description="What the agent does; `list_channels` shows it to the others.")
    group: str = Field(default="", description="A name that several channels share.")


class Config(BaseModel):
    """The settings of a production."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    durability: Literal["disk", "os"] = Field(
        default="disk",
        description='"disk": a post that returned survives a power cut. "os": it survives a crash of the process only, '
        "and posts are several times faster.",
    )
    max_message_bytes: int = Field(
        default=256 * 1024, ge=1024, le=1024 * 1024, description="The longest line, in bytes."
    )
    lock_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="How long a post waits for a mailbox, in seconds."
    )
    channels: dict[str, Channel] = Field(
        default_factory=dict,
        description="The roster: name to description, or a table with `description` and `group`. With a roster only "
        "its names (and `notes` and `dead_letters`) can be posted to.",
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _text_is_a_description(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            for name in value:
                check_name("channel", name)
        except InvalidName as error:
            raise ValueError(str(error)) from error
        return {name: {"description": entry} if isinstance(entry, str) else entry for name, entry in value.items()}


def load(root: Path) -> Config:
    """The settings of the production in `root`.

    Raises:
        ConfigError: The file is no TOML, or has an unknown key or a wrong value; every fault is named.
    """
    path = root / FILE_NAME
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return Config()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'file'}: {_words(fault['msg'])}" for fault in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(faults)}. Known keys: {', '.join(Config.model_fields)}") from error


def _words(message: str) -> str:
    return "there is no such key" if message.startswith("Extra inputs") else message.removeprefix("Value error, ")
