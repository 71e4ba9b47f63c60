"""How an agent is told apart at a glance: a colour and initials that depend on its name alone."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2s

from mq_server.render.text import visible_line

HUES = 24
"""How many colours there are; the style sheet has a class for each, `hue-0` to `hue-23`."""
_SEED = b"1815:"  # spreads the nine agents of a production over the circle, at least two steps apart
_WORDS = re.compile(r"[^\W_]+")


@lru_cache(maxsize=4096)
def hue_of(name: str) -> int:
    """Which of the colours an agent has, in every export and on every machine."""
    return blake2s(_SEED + name.encode(errors="surrogatepass")).digest()[0] % HUES


@lru_cache(maxsize=4096)
def initials(name: str) -> str:
    """Two letters: `SD` for scene_director, `Na` for narrator."""
    words = _WORDS.findall(name)
    if len(words) > 1:
        return f"{words[0][0]}{words[1][0]}".upper()
    return words[0][:2].capitalize() if words else visible_line(name)[:2]
