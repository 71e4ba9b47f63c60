"""Productions to measure on: messages of the usual length, and folders with many of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple, Self

import orjson

from mq_server.message import Draft, encode_line
from mq_server.names import mint_id

CHANNELS = (
    "story_architect",
    "scene_director",
    "character_director",
    "narrator",
    "dialogist",
    "shot_composer",
    "quality_assessor",
    "continuity_service",
)
SENDER = "scene_director"
MSG_TYPE = "narration"
THREAD_LENGTH = 20
RARE_WORD = "heliotrope"
_SENTENCE = "Köbi sets the lamp on the sill, looks at nobody, and lets the fifty lie where Vreni left it. "
_TEXT_CHARACTERS = 462
_LINK_CHARACTERS = 69  # what scene and reply_to add to a line
_FIRST_US = 1_767_225_600_000_000  # 2026-01-01
_STEP_US = 1_000_000
_THREADS_AT_ONCE = 10


def payload(number: int, *, linked: bool = False) -> dict[str, str]:
    """A payload that makes a line of about 637 bytes, different for each number.

    Args:
        number: Stands in its text.
        linked: Whether the line also has a scene and a `reply_to`.
    """
    length = _TEXT_CHARACTERS - _LINK_CHARACTERS * linked
    text = f"{number:09d} " + _SENTENCE * (length // len(_SENTENCE) + 1)
    return {"text": text[:length]}


def lines(count: int) -> Iterator[tuple[str, bytes]]:
    """Ids and lines of messages to one mailbox, as they are stored; all of one length."""
    for number in range(count):
        time_us = _FIRST_US + number * _STEP_US
        message_id = mint_id(time_us)
        draft = Draft(sender=SENDER, msg_type=MSG_TYPE, payload=payload(number))
        yield message_id, encode_line(draft.message(message_id, time_us, CHANNELS[0], 0).stored())


class Stored(NamedTuple):
    """A message as others store it."""

    id: str
    channel: str
    head: str
    """The id of its thread's first message."""
    time_ms: int
    """Each message has its own."""
    line: bytes


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of mailboxes: `messages` over all channels, in threads of 20, the rare word in one of them."""

    root: Path
    messages: int
    size_bytes: int
    heads: tuple[str, ...]
    """The ids of the messages that head the threads."""
    rare_id: str

    @classmethod
    def written(cls, root: Path, messages: int, channels: Sequence[str] = CHANNELS) -> Self:
        """Write one.

        Args:
            root: The folder, which must not exist.
            messages: How many; a multiple of 200.
            channels: The mailboxes they are spread over.
        """
        root.mkdir(parents=True)
        random = Random(7)
        heads: list[str] = []
        threads: dict[int, list[str]] = {}
        rare_id, size_bytes = "", 0
        with ExitStack() as files:
            boxes = [files.enter_context((root / f"{name}.jsonl").open("wb")) for name in channels]
            for number in range(messages):
                # Ten threads go on at a time, as scenes do; each message answers one of the thread's last three.
                block, within = divmod(number, _THREADS_AT_ONCE * THREAD_LENGTH)
                thread = block * _THREADS_AT_ONCE + within % _THREADS_AT_ONCE
                earlier = threads.setdefault(thread, [])
                time_us = _FIRST_US + number * _STEP_US
                message_id = mint_id(time_us)
                body = payload(number, linked=True)
                if number == messages // 3:
                    rare_id, body = message_id, {"text": f"{body['text']} {RARE_WORD}"}
                draft = Draft(
                    sender=channels[(number + 3) % len(channels)],
                    msg_type=MSG_TYPE,
                    payload=body,
                    scene=f"q{thread // 100}-s{thread % 100}",
                    reply_to=random.choice(earlier[-3:]) if earlier else None,
                )
                if not earlier:
                    heads.append(message_id)
                earlier.append(message_id)
                box = random.randrange(len(channels))
                line = encode_line(draft.message(message_id, time_us, channels[box], 0).stored())
                size_bytes += boxes[box].write(line)
        return cls(root, messages, size_bytes, tuple(heads), rare_id)

    def in_order(self) -> Iterator[Stored]:
        """All messages, oldest first."""

        def box(channel: str) -> Iterator[tuple[str, str, str | None, bytes]]:
            with (self.root / f"{channel}.jsonl").open("rb") as file:
                for line in file:
                    message = orjson.loads(line)
                    yield message["id"], channel, message.get("reply_to"), line[:-1]

        heads: dict[str, str] = {}
        for number, (message_id, channel, reply_to, line) in enumerate(merge(*map(box, CHANNELS))):
            heads[message_id] = head = heads[reply_to] if reply_to else message_id
            yield Stored(message_id, channel, head, (_FIRST_US + number * _STEP_US) // 1000, line)

    def in_batches(self, size: int) -> Iterator[list[Stored]]:
        """The same, so many at a time."""
        messages = self.in_order()
        while some := list(islice(messages, size)):
            yield some

    def kept_for(self, name: str, fill: Callable[[Corpus, Path], None]) -> Path:
        """A folder beside the mailboxes where a peer keeps the same messages; filled when it is first asked for."""
        folder = self.root.parent / name
        if not folder.exists():
            print(f"{name}: taking in {self.messages:,} messages", file=sys.stderr, flush=True)
            making = self.root.parent / f"{name}.making"
            making.mkdir()
            fill(self, making)
            making.rename(folder)
        return folder
