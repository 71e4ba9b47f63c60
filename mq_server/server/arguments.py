"""A call's arguments: checked against the tool's schema, every fault at once, with a call that would work."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator, ValidationError

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
_SETTLEMENTS = {"ack", "release", "reject", "reopen", "extend", "seek"}
_SHOWN_CHARACTERS = 60


def check_arguments(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, if the call is right. An argument given as null counts as left out.

    Raises:
        InvalidRequest: Every fault of the call, and a corrected one.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    given |= _parsed_payload(given)
    faults = [fault for error in _validator(tool).iter_errors(given) for fault in _faults(tool, given, error)]
    if faults:
        raise InvalidRequest(sorted(set(faults)), corrected_call(tool, given))
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
            if not list(Draft202012Validator(known[right_name]).iter_errors(value)):
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


@cache
def _validator(tool: str) -> Draft202012Validator:
    return Draft202012Validator(BY_NAME[tool].input_schema)


def _faults(tool: str, given: Mapping[str, Any], error: ValidationError) -> Iterator[str]:
    schema = BY_NAME[tool].input_schema
    properties = schema["properties"]
    where = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        for name in sorted(given.keys() - properties.keys()):
            near = _near(name, properties)
            hint = f"did you mean {near!r}?" if near else f"it takes {', '.join(properties)}"
            yield f"{tool} has no argument {name!r}: {hint}"
    elif error.validator == "required":
        for name in sorted(set(schema["required"]) - given.keys()):
            yield f"{name} is missing"
    elif error.validator in ("type", "anyOf"):
        yield f"{where} must be {_expected(properties[where.partition('.')[0]])}, not {_shown(error.instance)}"
    else:
        yield f"{where}: {error.message}"


def _expected(schema: Mapping[str, Any]) -> str:
    choices = schema.get("anyOf", [schema])
    return " or ".join(KINDS[choice["type"]] for choice in choices)


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
