"""HTML built from elements, so that text can't become markup: whatever is not `Html` is escaped.

Characters that are invisible or change the direction of others are shown (`render.text`), in text and in attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from mq_server.render.text import visible, visible_line

_VOID = frozenset({"br", "hr", "input", "link", "meta"})


class Html(str):
    """Markup, which stands in a page as it is. Only this package makes it, and never from a message's content."""

    __slots__ = ()


def text(content: str) -> Html:
    """Text as markup that shows it."""
    if isinstance(content, Html):
        return content
    # Most text of a page is short and plain, and a page of 10,000 messages has a million of them.
    if content.isascii() and content.isprintable():
        return Html(escape(content))
    return Html(escape(visible(content)))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Several in a row."""
    return Html(text(between).join([text(part) for part in parts]))


def element(name: str, /, *content: str, **attributes: str | float | bool | None) -> Html:
    """An element.

    Args:
        name: Its name.
        content: Markup, or text that is escaped.
        attributes: By their names, with `_` for `-` and one at the end where Python keeps the word (`class_`). True
            stands alone; None and False are left out.
    """
    given = []
    for key, value in attributes.items():
        if value is not None and value is not False:
            called = key.rstrip("_").replace("_", "-")
            given.append(f" {called}" if value is True else f' {called}="{text(visible_line(str(value)))}"')
    start = f"<{name}{''.join(given)}>"
    return Html(start if name in _VOID else f"{start}{join(content)}</{name}>")
