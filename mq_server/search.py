"""Text search: what a query wants, whether a message has it, and the words around it. No I/O."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, Self

from mq_server.errors import InvalidRequest
from mq_server.message import Message

_WORDS = re.compile(r'"([^"]+)"|(\S+)')
_ESCAPABLE = re.compile(r'["\\/\x00-\x1f]')  # what JSON may write otherwise, or what stands between two texts
_SNIPPET_CHARACTERS = 160
_ELLIPSIS = "…"
_SPELLINGS = 8
_LAST_CASED = 0x20000  # no character beyond changes when it is folded


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


class Sieve:
    """A quick test of many lines, which lets through every one whose message matches, and some that do not.

    What a word must hold is looked for in the bytes: without what JSON may write with an escape, and with its ASCII
    letters in lower case, a tenth of the work of folding the text. That finds a word unless one of its
    characters is written as \\u…, or stems from a character that folds to several (ß) or from a foreign one to an ASCII
    one (the Kelvin sign): lines with such odd ones are let through.
    """

    def __init__(self, query: Query) -> None:
        parts = [part for word in query.words for part in _ESCAPABLE.split(word) if part]
        looked_for = [(_spellings(part), [b"\\u", *map(str.encode, _odd_ones(part))]) for part in parts]
        looked_for.sort(key=lambda each: len(each[0][0]) / len(each[0]), reverse=True)
        self._rarest, self._odd = looked_for[0] if looked_for else ([], [])
        self._others = [spellings + odd for spellings, odd in looked_for[1:]]

    def lines(self, block: bytes, base: int, starts: Sequence[int]) -> list[int]:
        """Which lines of a block may match.

        Args:
            block: The bytes of some lines.
            base: Where the block begins.
            starts: Where each line begins; what lies between two belongs to the first.

        Returns:
            Their numbers, in order.
        """
        if not self._rarest:
            return list(range(len(starts)))

        def end(line: int) -> int:
            return (starts[line + 1] if line + 1 < len(starts) else base + len(text)) - base

        def holding(sequence: bytes) -> Iterator[int]:
            at = text.find(sequence)
            while at >= 0:
                line = bisect_right(starts, base + at) - 1
                yield line
                at = text.find(sequence, end(line))

        text = block
        odd = {
            line
            for sequence in self._odd
            if sequence[0] in text  # one byte is found ten times as fast as two
            for line in holding(sequence)
        }
        text = block.lower()
        found = {line for spelling in self._rarest for line in holding(spelling)}
        for others in self._others:
            found = {
                line for line in found if any(text.find(each, starts[line] - base, end(line)) >= 0 for each in others)
            }
        return sorted(found | odd)


def _spellings(part: str) -> list[bytes]:
    """How a part of a word may stand in a line whose ASCII letters are lower; of a long one in a foreign script only
    how it may begin.
    """
    spellings = [b""]
    for character in part:
        each = [character.encode()]
        if not character.isascii():
            each = [single.encode() for single in _singles().get(character, character)]
        if len(spellings) * len(each) > _SPELLINGS and spellings[0]:
            break
        spellings = [before + after for before in spellings for after in each]
    return spellings


def _odd_ones(part: str) -> Iterator[str]:
    """The characters that may have a share in a part of a word without being a letter of it in either case."""
    for character, folded in _folds().items():
        if len(folded) > 1:
            cuts = range(1, len(folded))
            if (
                folded in part
                or part in folded
                or any(part.startswith(folded[cut:]) or part.endswith(folded[:cut]) for cut in cuts)
            ):
                yield character
        elif folded.isascii() and not character.isascii() and folded in part:
            yield character


@cache
def _folds() -> dict[str, str]:
    """What each character that is not its own folded form becomes."""
    return {
        character: folded for character in map(chr, range(_LAST_CASED)) if (folded := character.casefold()) != character
    }


@cache
def _singles() -> dict[str, str]:
    """By a folded character, those that become it alone, and itself."""
    singles: dict[str, str] = {}
    for character, folded in _folds().items():
        if len(folded) == 1:
            singles[folded] = singles.get(folded, folded) + character
    return singles


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
