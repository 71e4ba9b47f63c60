"""The chart: how many times as fast as each peer we are, a line for each row, on a logarithmic axis. One SVG without
scripts; its colours follow the reader's light or dark page.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from tools.bench.machine import Machine
from tools.bench.measuring import FLOOR, NATS, OURS, REDIS, SQLITE, Outcome

_NAMES = {REDIS: "Redis", NATS: "NATS JetStream", SQLITE: "SQLite", FLOOR: "the floor"}
_SPEEDS = ("msgs/s", "calls/s", "s", "ms")
_WIDTH, _LEFT, _RIGHT = 900, 370, 24
_TOP, _LINE, _BOTTOM = 64, 24, 58
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.rule { stroke: #d1d9e0 } .one { stroke: #59636e; stroke-width: 1.5 }
.redis { fill: #cf222e } .nats { fill: #0969da } .sqlite { fill: #1a7f37 }
.floor { fill: none; stroke: #59636e; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 }
  .rule { stroke: #3d444d } .one { stroke: #9198a1 }
  .redis { fill: #ff7b72 } .nats { fill: #58a6ff } .sqlite { fill: #3fb950 } .floor { stroke: #9198a1 }
}
"""


class Line(NamedTuple):
    """A row of the chart: its title, and our speed as a multiple of each contender's."""

    title: str
    ratios: dict[str, float]


def lines_of(outcomes: Sequence[Outcome]) -> list[Line]:
    """The first figure of each row that has a peer, if it tells a speed."""
    lines = []
    for outcome in outcomes:
        figure = outcome.row.figures[0]
        if figure.unit not in _SPEEDS:
            continue
        found = {name: outcome.ratios(name, figure) for name in _NAMES}
        ratios = {name: statistics.median(values) for name, values in found.items() if values}
        if ratios.keys() - {FLOOR}:
            lines.append(Line(outcome.row.title, ratios))
    return lines


def svg(outcomes: Sequence[Outcome], machine: Machine) -> str:
    """The chart of some outcomes; rows without a peer are not on it."""
    lines = lines_of(outcomes)
    every = [ratio for line in lines for ratio in line.ratios.values()]
    low = math.floor(math.log10(min([*every, 0.1])))
    high = math.ceil(math.log10(max([*every, 10])))
    height = _TOP + _LINE * len(lines) + _BOTTOM
    end = height - _BOTTOM

    def x(ratio: float) -> float:
        return _LEFT + (math.log10(ratio) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="Speed of {OURS} as a multiple of its peers\'">',
        f"<style>{STYLE}</style>",
        *_legend([name for name in _NAMES if any(name in line.ratios for line in lines)]),
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line class="{"rule" if power else "one"}" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{end}"/>')
        parts.append(text(at, end + 16, f"{10.0**power:g}×", "small", "middle"))
    for number, line in enumerate(lines):
        y = _TOP + _LINE * (number + 0.5)
        parts.append(text(_LEFT - 14, y + 4, line.title.replace("`", ""), "", "end"))
        parts.append(
            f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke-dasharray="1 4"/>'
        )
        for name, ratio in line.ratios.items():
            parts.append(f"<g><title>{escape(_NAMES[name])}: {ratio:.2f}×</title>{_mark(name, x(ratio), y)}</g>")
    parts.append(text(x(1) - 10, end + 34, "← slower than the peer", "small", "end"))
    parts.append(text(x(1) + 10, end + 34, f"{OURS} is faster →", "small", "start"))
    parts.append(
        text(_WIDTH - _RIGHT, height - 6, f"{machine.cpu}, {machine.cores} cores; {machine.system}", "small", "end")
    )
    return "\n".join([*parts, "</svg>", ""])


def _legend(names: Sequence[str]) -> list[str]:
    parts = [text(16, 24, f"Speed of {OURS} (medians) as a multiple of", "", "start")]
    at = 310.0
    for name in names:
        parts += [_mark(name, at, 20), text(at + 12, 24, _NAMES[name], "", "start")]
        at += 40 + 8 * len(_NAMES[name])
    return parts


def _mark(name: str, x: float, y: float) -> str:
    """A shape for each contender, so that colour is not all that tells them apart."""
    if name == REDIS:
        return f'<circle class="{name}" cx="{x:.1f}" cy="{y}" r="5.5"/>'
    corners = {
        NATS: ((-5, -5), (5, -5), (5, 5), (-5, 5)),
        SQLITE: ((0, -6.5), (6.5, 5), (-6.5, 5)),
        FLOOR: ((0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)),
    }[name]
    return (
        f'<polygon class="{name}" points="{" ".join(f"{x + across:.1f},{y + down:g}" for across, down in corners)}"/>'
    )


def text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    """Some words at a place: `kind` is their class, `anchor` the end of them that stands there."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'
