"""Any JSON value as indented, readable lines, for payloads that have no form of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mq_server.render.text import columns, visible, visible_line, wrap

_STEP = 2
_DEEPEST = 12
_CAP_LINES = 6
_HINT = " (--json shows all)"


def prose(text: str, width: int) -> list[str]:
    """Text with its own paragraphs and line ends, broken to `width` columns."""
    return wrap(visible(text), width)


def readable(fields: Mapping[str, Any], width: int) -> list[str]:
    """Keys and values, one below the other, all of them."""
    return _members(fields, width, 0)


def capped(fields: Mapping[str, Any], width: int, *, hint: str = _HINT) -> list[str]:
    """The same, but a value that takes more than six lines only says how much it holds, and where it is shown."""
    lines = []
    for key, value in fields.items():
        shown = _member(key, value, width, 0)
        lines += shown if len(shown) <= _CAP_LINES else [f"{visible_line(key)}: {_amount(value)}{hint}"]
    return lines


def _members(fields: Mapping[str, Any], width: int, level: int) -> list[str]:
    return [line for key, value in fields.items() for line in _member(key, value, width, level)]


def _member(key: str, value: Any, width: int, level: int) -> list[str]:
    if not isinstance(value, dict | list) or not value:
        return _scalar(f"{visible_line(key)}:", value, width)
    row = _row(value)
    if row:
        return _scalar(f"{visible_line(key)}:", row, width)
    if level >= _DEEPEST:
        return [f"{visible_line(key)}: {_amount(value)}{_HINT}"]
    return [f"{visible_line(key)}:", *(f"  {line}" for line in _below(value, width - _STEP, level + 1))]


def _below(value: dict[str, Any] | list[Any], width: int, level: int) -> list[str]:
    if isinstance(value, dict):
        return _members(value, width, level)
    lines = []
    for item in value:
        if not isinstance(item, dict | list) or not item:
            lines += _scalar("-", item, width)
        elif level >= _DEEPEST:
            lines.append(f"- {_amount(item)}{_HINT}")
        else:
            first, *rest = _below(item, width - _STEP, level + 1)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
    return lines


def _scalar(label: str, value: Any, width: int) -> list[str]:
    if not isinstance(value, str) or not value:
        return [f"{label} {orjson.dumps(value).decode()}"]
    text = visible(value)
    if "\n" in text and label != "-":
        return [label, *(f"  {line}".rstrip() for line in wrap(text, width - _STEP))]
    return wrap(text, width, label=f"{label} ", hang=_STEP)


def _row(value: dict[str, Any] | list[Any]) -> str:
    """A list of short texts and numbers in a row; empty if it is none."""
    if isinstance(value, dict) or any(isinstance(item, dict | list | None) for item in value):
        return ""
    items = [visible_line(item) if isinstance(item, str) else orjson.dumps(item).decode() for item in value]
    return ", ".join(items) if all(item and "," not in item and columns(item) <= 32 for item in items) else ""


def _amount(value: Any) -> str:
    unit = "characters" if isinstance(value, str) else "entry" if len(value) == 1 else "entries"
    return f"{len(value):,} {unit}"
