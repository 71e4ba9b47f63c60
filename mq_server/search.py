"""Text search: what a query wants, whether a message has it, and the words around it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

from mq_server.errors import InvalidRequest
from mq_server.message import Message

_WORDS = re.compile(r'"([^"]+)"|(\S+)')
_ESCAPABLE = re.compile(r'["\\/\x00-\x1f]')  # what JSON may write otherwise, or what stands between two texts
_SNIPPET_CHARACTERS = 160
_ELLIPSIS = "…"


class Query(NamedTuple):
    """Words and phrases that must all occur, whatever their case."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Words, and phrases in double quotes.

        Raises:
            InvalidRequest: There is no word in it.
        """
        words = tuple((phrase or word).strip('"').casefold() for phrase, word in _WORDS.findall(text))
        words = tuple(word for word in words if word)
        if not words:
            raise InvalidRequest(["query is empty: give one or more words"])
        return cls(words)

    def matches(self, message: Message) -> bool:
        """Whether every word occurs in the texts of the payload."""
        text = "\n".join(texts(message.payload)).casefold()
        return all(word in text for word in self.words)

    def sieve(self) -> Callable[[bytes], bool]:
        """A quick test of a message's line, which lets through every one that matches, and some that do not."""
        if any(map(_ESCAPABLE.search, self.words)):
            return lambda line: True

        def may_match(line: bytes) -> bool:
            folded = line.decode("utf-8", "replace").casefold()
            return b"\\u" in line or all(word in folded for word in self.words)

        return may_match

    def snippet(self, message: Message) -> str:
        """The text around the first place where a word occurs, on one line."""
        for text in texts(message.payload):
            folded = text.casefold()
            starts = [start for start in map(folded.find, self.words) if start >= 0]
            if starts:
                start = max(0, _unfolded(text, folded, min(starts)) - _SNIPPET_CHARACTERS // 3)
                cut = text[start : start + _SNIPPET_CHARACTERS]
                before = _ELLIPSIS if start else ""
                after = _ELLIPSIS if start + _SNIPPET_CHARACTERS < len(text) else ""
                return before + " ".join(cut.split()) + after
        return ""


def _unfolded(text: str, folded: str, position: int) -> int:
    """Where in a text stands what stands at `position` in its folded form; ß becomes two letters there."""
    if len(text) == len(folded):
        return position
    passed = 0
    for number, character in enumerate(text):
        passed += len(character.casefold())
        if passed > position:
            return number
    return len(text)


def texts(value: Any) -> Iterator[str]:
    """Every text in a payload, in order; not the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
