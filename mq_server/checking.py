"""What is wrong, and what messages may say: `check` and the message types."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mq_server.answers import Report
from mq_server.aside import aside
from mq_server.columns import ChannelIndex, Place
from mq_server.errors import InvalidRequest, Problem, SchemaError, Stale, UnknownType, Unsteady
from mq_server.recent import Line
from mq_server.recovering import Recovering
from mq_server.schemas import FOLDER as SCHEMAS
from mq_server.schemas import Schema, Schemas
from mq_server.store import ARCHIVE, RECEIPTS, SUFFIX

_BATCH = 1000
_ATTEMPTS = 20


class Checking(Recovering):
    """The part of the façade that looks for problems and knows the message types."""

    async def check(self, paths: Iterable[str | Path] = ()) -> Report:
        """Read every file anew, whatever its stamp says, and report every problem.

        That is what answers show as problems, and besides: payloads that their type's model or schema finds wrong,
        types that `strict_types` does not know, and schemas that are none. A message that has been corrected in its
        mailbox (`replaces`) is left out: its line stays wrong for ever, but nobody is given it any more, and to correct
        it is what one does about such a problem.

        Args:
            paths: Only these files: paths, or names of channels.

        Raises:
            InvalidRequest: One of them is no file of this production.
            Unsteady: A mailbox was replaced again and again meanwhile.
        """
        await self._shelf.reread()
        await self.vanished()  # it becomes a problem of its file
        wanted = {self._relative(path) for path in paths}
        found = await asyncio.to_thread(self._schemas.problems)
        for channel in sorted(self._index.channels):
            if not wanted or any(path.rpartition("/")[2] == f"{channel}{SUFFIX}" for path in wanted):
                found += await self._payload_problems(channel)
        problems = sorted([*self._shelf.problems(), *found])
        return Report(
            channels=len(self._index.channels),
            messages=len(self._index),
            problems=tuple(problem for problem in problems if not wanted or problem.path in wanted),
        )

    async def _payload_problems(self, channel: str) -> list[Problem]:
        """What is wrong with the payloads of a mailbox; read in parts, and checked off the event loop."""
        found: list[Problem] = []
        reading: ChannelIndex | None = None
        begun = stop = 0

        def batch() -> list[Line]:
            nonlocal reading, begun, stop
            index = self._index.channels.get(channel)
            if index is not reading:  # the file has been replaced, or this is the beginning
                reading, stop = index, 0
                begun += 1
                found.clear()
            if index is None or begun > _ATTEMPTS:
                return []
            rows = range(stop, min(stop + _BATCH, len(index)))
            superseded = self._index.superseded_in(channel)
            lines = self._shelf.lines([Place(channel, row) for row in rows if index.identity(row) not in superseded])
            stop = rows.stop
            return lines

        lines = await self._shelf.consistent([channel], batch)
        while lines or (reading is not None and stop < len(reading)):
            try:
                found += await aside(_wrong, lines, self._schemas, self.config.strict_types)
            except Stale:
                self._shelf.distrust(channel)
            if begun > _ATTEMPTS:
                raise Unsteady(self.root)
            lines = await self._shelf.consistent([channel], batch)
        return found

    def _relative(self, path: str | Path) -> str:
        for candidate in (Path(path), self.root / path, self.root / f"{path}{SUFFIX}"):
            if candidate.is_file():
                folder = candidate.resolve().parent
                if candidate.suffix == SUFFIX and folder == self.root.resolve():
                    return candidate.name
                if candidate.suffix == SUFFIX and folder == (self.root / RECEIPTS).resolve():
                    return f"{RECEIPTS}/{candidate.name}"
                if candidate.suffix == SUFFIX and folder.parent == (self.root / ARCHIVE).resolve():
                    return f"{ARCHIVE}/{folder.name}/{candidate.name}"
                if candidate.suffix == ".json" and folder == (self.root / SCHEMAS).resolve():
                    return f"{SCHEMAS}/{candidate.name}"
        raise InvalidRequest([f"{str(path)!r} is no mailbox, receipts or schema file of {self.root}"])

    async def types(self, msg_type: str | None = None) -> dict[str, str]:
        """The message types whose fields are laid down, and their fields in one line each.

        Args:
            msg_type: Only this one.

        Raises:
            UnknownType: It has neither a model nor a schema.
            SchemaError: Its schema cannot be used. In the list of all types that stands in place of the fields.
        """
        return await asyncio.to_thread(_types, self._schemas, msg_type)

    async def schema(self, msg_type: str) -> dict[str, Any]:
        """The whole JSON Schema of a type; when it has both a model and a schema, one that demands both.

        Args:
            msg_type: The type.

        Raises:
            UnknownType: It has neither.
            SchemaError: Its schema cannot be used.
        """
        from mq_server.payloads import json_schema

        return await asyncio.to_thread(json_schema, msg_type, self._schemas)


def _types(schemas: Schemas, msg_type: str | None) -> dict[str, str]:
    from mq_server.payloads import fields_of, known_types

    if msg_type is not None:
        fields = fields_of(msg_type, schemas.get(msg_type))
        if not fields:
            raise UnknownType(msg_type, known_types(schemas))
        return {msg_type: fields}
    shown = {}
    for name in known_types(schemas):
        try:
            shown[name] = fields_of(name, schemas.get(name))
        except SchemaError as error:
            shown[name] = "; ".join(map(str, error.problems))
    return shown


def _wrong(lines: Iterable[Line], schemas: Schemas, strict: bool) -> list[Problem]:
    from mq_server.payloads import expected, is_known, payload_faults, unknown_type

    found: list[Problem] = []
    usable: dict[str, Schema | None] = {}
    broken: set[str] = set()

    def schema_of(msg_type: str) -> Schema | None:
        if msg_type not in usable:
            try:
                usable[msg_type] = schemas.get(msg_type)
            except SchemaError:  # a problem of its own
                usable[msg_type] = None
                broken.add(msg_type)
        return usable[msg_type]

    for line in lines:
        message = line.message()
        msg_type, path = message.msg_type, line.path
        schema = schema_of(msg_type)
        if strict and msg_type not in broken and not is_known(msg_type, schema):
            found.append(Problem(path, line.number, unknown_type(msg_type, schemas)))
            continue
        try:
            faults = payload_faults(msg_type, message.payload, schema)
        except SchemaError as error:
            faults = ["; ".join(map(str, error.problems))]
        if faults:
            found.append(Problem(path, line.number, f"{'; '.join(faults)} ({expected(msg_type, schema)})"))
    return found
