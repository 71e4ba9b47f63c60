"""Messages over time as a chart: a bar per span of time, stacked by agent. SVG, drawn here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from mq_server.render.agents import hue_of
from mq_server.render.markup import Html, element
from mq_server.render.text import visible_line

_BAR_WIDTH = 12
_WIDTH, _HEIGHT = 720, 150
_LEFT, _TOP, _BOTTOM = 34, 8, 26
_GAP = 1.5
_LABEL_WIDTH = 88
_STEPS_S = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(86_400 * days for days in (1, 2, 7, 14, 28, 91, 364, 3640)),
)
_DAY_S = 86_400


class Dated(Protocol):
    """What a bar is built of: a message, or what is known of it."""

    @property
    def time_us(self) -> int:
        """When it was sent, in microseconds since 1970."""

    @property
    def sender(self) -> str:
        """Who sent it."""


class Bars(NamedTuple):
    """What the bars stand for: the first begins at `start_s`, each spans `step_s`; and where the first is drawn.

    `left` and `width` are in the units of the chart's view box.
    """

    start_s: int
    step_s: int
    number: int
    width: int
    left: int = _LEFT


def bars_of(messages: Sequence[Dated], width: int = _WIDTH) -> Bars:
    """The bars of a chart of these messages, at least one.

    Args:
        messages: At least one, in any order.
        width: Of the chart, in the units of its view box.
    """
    times_s = [message.time_us // 1_000_000 for message in messages]
    step_s = next((step for step in _STEPS_S if _bars(times_s, step) <= width // _BAR_WIDTH), _STEPS_S[-1])
    return Bars(min(times_s) // step_s * step_s, step_s, _bars(times_s, step_s), width)


def activity_chart(messages: Sequence[Dated], width: int = _WIDTH) -> Html:
    """The chart; empty if there is nothing to draw.

    Args:
        messages: In any order.
        width: In the units of its view box; for a pixel each, its letters have their usual size.
    """
    if not messages:
        return Html()
    start_s, step_s, count, *_ = bars_of(messages, width)
    first = start_s // step_s
    stacks: list[Counter[str]] = [Counter() for _ in range(count)]
    for message in messages:
        stacks[message.time_us // 1_000_000 // step_s - first][message.sender] += 1
    top = _round_up(max(stack.total() for stack in stacks))
    agents = sorted({message.sender for message in messages})
    bars = (
        _bar(stack, agents, n, (width - _LEFT) / count, top, (first + n) * step_s, step_s)
        for n, stack in enumerate(stacks)
    )
    label = f"{len(messages):,} messages over time, in bars of {_span(step_s)}, by agent"
    return element(
        "svg",
        element("title", label),
        *_scale(top, width),
        *bars,
        *_times(first * step_s, step_s, count, width),
        viewBox=f"0 0 {width} {_HEIGHT}",
        role="img",
        class_="chart",
    )


def _bars(times_s: Sequence[int], step_s: int) -> int:
    return max(times_s) // step_s - min(times_s) // step_s + 1


def _bar(
    stack: Counter[str], agents: Iterable[str], place: int, width: float, top: int, start_s: int, step_s: int
) -> Html:
    """One span of time."""
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    base = float(_HEIGHT - _BOTTOM)
    pieces = []
    for name in agents:
        if stack[name]:
            height = stack[name] * scale
            base -= height
            pieces.append(
                element(
                    "rect",
                    element("title", f"{_time(start_s, step_s)}: {visible_line(name)}, {stack[name]:,}"),
                    class_=f"hue-{hue_of(name)}",
                    x=round(_LEFT + place * width + _GAP / 2, 2),
                    y=round(base, 2),
                    width=round(max(min(width, 40) - _GAP, 0.5), 2),
                    height=round(height, 2),
                )
            )
    return element("g", *pieces) if pieces else Html()


def _scale(top: int, width: int) -> Iterable[Html]:
    for value in sorted({0, top // 2, top}):
        y = _HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM) / top
        yield element("line", x1=_LEFT, x2=width, y1=round(y, 2), y2=round(y, 2))
        yield element("text", f"{value:,}", x=_LEFT - 6, y=round(y + 4, 2), text_anchor="end")


def _times(start_s: int, step_s: int, count: int, width: int) -> Iterable[Html]:
    """Times below the bars, as many as there is room for."""
    bar = (width - _LEFT) / count
    every = max(1, -(-_LABEL_WIDTH // int(max(bar, 1))))
    for place in range(0, count, every):
        x = _LEFT + place * bar
        if x + _LABEL_WIDTH * 0.8 <= width or place == 0:
            yield element("text", _time(start_s + place * step_s, step_s), x=round(x, 2), y=_HEIGHT - 6, class_="time")


def _time(time_s: int, step_s: int) -> str:
    try:
        moment = datetime.fromtimestamp(time_s, UTC)
    except (OverflowError, ValueError, OSError):
        return str(time_s)
    if step_s >= _DAY_S:
        return moment.strftime("%Y-%m-%d")
    return moment.strftime("%H:%M:%S" if step_s < 60 else "%m-%d %H:%M")


def _span(step_s: int) -> str:
    for unit_s, name in ((_DAY_S, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if step_s % unit_s == 0:
            number = step_s // unit_s
            one = "an hour" if name == "hour" else f"a {name}"
            return one if number == 1 else f"{number:,} {name}s"
    return ""


def _round_up(value: int) -> int:
    """The next number that is good for a scale and can be halved."""
    for power in range(20):
        for digit in (2, 4, 6, 8, 10, 20):
            if digit * 10**power >= value:
                return int(digit * 10**power)
    return value
