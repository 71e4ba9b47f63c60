"""What a payload must be before it is stored; asks the models of `payloads` where one may have something to say.

Those bring pydantic, which takes as long to import as all the rest of a post that a new process makes. Most posts of
such processes, `mq post --text` and the like, hold what every model of their type takes, or have a type without one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mq_server.errors import InvalidRequest
from mq_server.message import plain_payload
from mq_server.schemas import Schemas, kind_of

_MODELS = "mq_server.payloads"
_MAPPINGS = (dict, Mapping)  # a dict is told from a class at once, from an abstract one by way of a function
TEXT_TYPES = frozenset({"brief", "narration", "note", "feedback", "query", "answer"})
"""The types whose models take a payload that is nothing but a `text`."""
MODEL_TYPES = TEXT_TYPES | {
    "scene_plan",
    "scene_breakdown",
    "character_direction",
    "dialogue",
    "scene",
    "shot_list",
    "score",
    "finalize",
}
"""The types that have a model before anybody adds one."""


def checked_payload(
    msg_type: str | None, payload: object, schemas: Schemas | None = None, *, strict: bool = False
) -> tuple[str, dict[str, Any]]:
    """The type and the plain payload that are to be stored.

    Args:
        msg_type: The type; may be left out when `payload` is a model.
        payload: A `Payload` model, another pydantic model, or a mapping.
        schemas: The production's own schemas.
        strict: Whether a type with neither a model nor a schema is refused.

    Raises:
        InvalidRequest: Every field that is wrong, and the fields of the type.
        SchemaError: The type's schema cannot be used.
    """
    if not isinstance(payload, _MAPPINGS):
        from mq_server import payloads

        msg_type, payload = payloads.dumped(msg_type, payload)
    if not isinstance(msg_type, str) or not msg_type.strip():
        raise InvalidRequest(["msg_type is missing: name the kind of message, such as 'note'"])
    if not isinstance(payload, _MAPPINGS):
        hint = '; write {"text": …} for plain text' if isinstance(payload, str) else ""
        raise InvalidRequest([f"payload must be a JSON object, not {kind_of(payload)}{hint}"])
    plain = plain_payload(payload)
    schema = schemas.get(msg_type) if schemas else None
    if schema is None and _needs_no_model(msg_type, plain, strict):
        return msg_type, plain

    from mq_server import payloads

    if strict and not payloads.is_known(msg_type, schema):
        raise InvalidRequest([f"{payloads.unknown_type(msg_type, schemas)}; or add schemas/{msg_type}.json"])
    faults = payloads.payload_faults(msg_type, plain, schema)
    if faults:
        raise InvalidRequest([*faults, payloads.expected(msg_type, schema)])
    return msg_type, plain


def _needs_no_model(msg_type: str, plain: Mapping[str, Any], strict: bool) -> bool:
    """Whether a payload is known to be right without a look at the models."""
    if _MODELS in sys.modules:
        return False  # nothing is left to be saved, and there may be models of somebody's own
    if msg_type not in MODEL_TYPES:
        return not strict
    text = plain.get("text")
    return msg_type in TEXT_TYPES and len(plain) == 1 and isinstance(text, str) and text != ""
