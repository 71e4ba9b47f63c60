"""A call's arguments: checked against the tool's schema, every fault at once, with a call that would work."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson

from mq_server.errors import InvalidRequest
from mq_server.payloads import fields_of
from mq_server.schemas import KINDS
from mq_server.server.tools import BY_NAME

_PLACEHOLDERS: dict[str, Any] = {
    "channel": "narrator",
    "msg_type": "note",
    "payload": {"text": "…"},
    "message_id": "narrator:42",
    "query": "lantern",
    "sender": "narrator",
}
_ALIASES = {
    "id": ("message_id",),
    "to": ("channel",),
    "from": ("sender",),
    "type": ("msg_type",),
    "body": ("payload",),
    "agent": ("sender", "reader"),
}
"""Names that models give to arguments out of habit."""
_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
}
_SETTLEMENTS = {"ack", "release", "reject", "reopen", "extend", "seek"}
_SHOWN_CHARACTERS = 60


def check_arguments(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, if the call is right. An argument given as null counts as left out.

    Raises:
        InvalidRequest: Every fault of the call, and a corrected one.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    given |= _parsed_payload(given)
    faults = list(_faults(tool, given))
    if faults:
        raise InvalidRequest(sorted(faults), corrected_call(tool, given))
    return given


def _parsed_payload(given: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of a model that has written it as JSON within a text."""
    text = given.get("payload")
    if isinstance(text, str) and text.lstrip().startswith("{"):
        with suppress(ValueError):
            return {"payload": orjson.loads(text)}
    return {}


def corrected_call(tool: str, given: Mapping[str, Any]) -> str:
    """The call with what was right kept, misspelt names put right and what is missing filled in."""
    schema = BY_NAME[tool].input_schema
    known, required = schema["properties"], schema.get("required", [])
    kept: dict[str, Any] = {}
    for name, value in given.items():
        right_name = name if name in known else _near(name, known)
        if right_name and right_name not in kept:
            if not _fault(right_name, known[right_name], value):
                kept[right_name] = value
            elif right_name in required:
                kept[right_name] = _PLACEHOLDERS[right_name]
    for name in required:
        kept.setdefault(name, _PLACEHOLDERS[name])
    if tool == "post_message" and not kept.keys() & {"channel", "reply_to"}:
        kept = {"channel": _PLACEHOLDERS["channel"], **kept}
    if tool == "settle_messages" and not kept.keys() & _SETTLEMENTS:
        kept["ack"] = ["narrator:42"]
    return f"{tool}({', '.join(f'{name}={_shown(value)}' for name, value in kept.items())})"


def _faults(tool: str, given: Mapping[str, Any]) -> Iterator[str]:
    schema = BY_NAME[tool].input_schema
    known = schema["properties"]
    for name, value in given.items():
        if name in known:
            fault = _fault(name, known[name], value)
            if fault:
                yield fault
        else:
            near = _near(name, known)
            hint = f"did you mean {near!r}?" if near else f"it takes {', '.join(known)}"
            yield f"{tool} has no argument {name!r}: {hint}"
    for name in schema.get("required", ()):
        if name not in given:
            yield f"{name} is missing"


def _fault(name: str, schema: Mapping[str, Any], value: Any) -> str:
    """What is wrong with a value, by the few keywords that the tools' schemas use; empty when nothing is."""
    choices = schema.get("anyOf") or (schema,)
    fitting = next((choice for choice in choices if _is(choice["type"], value)), None)
    if fitting is None:
        return f"{name} must be {' or '.join(KINDS[choice['type']] for choice in choices)}, not {_shown(value)}"
    if "maximum" in fitting and value > fitting["maximum"]:
        return f"{name} must be at most {fitting['maximum']}, not {_shown(value)}"
    if "items" in fitting:
        faults = (_fault(f"{name}.{number}", fitting["items"], item) for number, item in enumerate(value))
        return next(filter(None, faults), "")
    return ""


def _is(kind: str, value: Any) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _near(name: str, known: Mapping[str, Any]) -> str | None:
    for alias in _ALIASES.get(name, ()):
        if alias in known:
            return alias
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def with_example(error: InvalidRequest, tool: str, arguments: Mapping[str, Any]) -> InvalidRequest:
    """The error with a call that leaves out what it faults and shows the fields of the payload's type."""
    faulted = {re.split(r"[ .:]", fault, maxsplit=1)[0] for fault in error.faults}
    kept = {name: value for name, value in arguments.items() if name not in faulted}
    if "sender" in faulted and "sender" not in arguments:
        kept["sender"] = _PLACEHOLDERS["sender"]
    call = corrected_call(tool, kept)
    told = f"a {arguments.get('msg_type')!r} payload is "
    fields = next((fault.removeprefix(told) for fault in error.faults if fault.startswith(told)), "")
    fields = fields or fields_of(str(arguments.get("msg_type", "")))
    if "payload" in faulted and fields:
        call = call.replace(f"payload={_shown(_PLACEHOLDERS['payload'])}", f"payload={fields}")
    return InvalidRequest(error.faults, call)
