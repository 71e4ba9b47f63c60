"""Productions to measure on: messages of the usual length, and folders with many of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Self

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
    def written(cls, root: Path, messages: int) -> Self:
        """Write one.

        Args:
            root: The folder, which must not exist.
            messages: How many; a multiple of 200.
        """
        root.mkdir(parents=True)
        random = Random(7)
        heads: list[str] = []
        threads: dict[int, list[str]] = {}
        rare_id, size_bytes = "", 0
        with ExitStack() as files:
            boxes = [files.enter_context((root / f"{name}.jsonl").open("wb")) for name in CHANNELS]
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
                    sender=CHANNELS[(number + 3) % len(CHANNELS)],
                    msg_type=MSG_TYPE,
                    payload=body,
                    scene=f"q{thread // 100}-s{thread % 100}",
                    reply_to=random.choice(earlier[-3:]) if earlier else None,
                )
                if not earlier:
                    heads.append(message_id)
                earlier.append(message_id)
                box = random.randrange(len(CHANNELS))
                line = encode_line(draft.message(message_id, time_us, CHANNELS[box], 0).stored())
                size_bytes += boxes[box].write(line)
        return cls(root, messages, size_bytes, tuple(heads), rare_id)
