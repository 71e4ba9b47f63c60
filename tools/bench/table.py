"""The results as a Markdown table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tools.bench.corpus import CHANNELS
from tools.bench.machine import Machine
from tools.bench.measuring import FLOOR, NATS, OURS, REDIS, SQLITE, Figure, Outcome, Row, shown_number

_COLUMNS = (OURS, FLOOR, REDIS, NATS, SQLITE)


def markdown(outcomes: Sequence[Outcome], machine: Machine, *, quick: bool, messages: int) -> str:
    """A table for each chapter, a line for each figure: medians, ranges, and our speed as a multiple of the others'."""
    repeats = max((len(samples) for outcome in outcomes for samples in outcome.samples.values()), default=0)
    chapters = dict.fromkeys(outcome.row.chapter for outcome in outcomes)
    text = [
        f"**{chapter}**\n\n{_table([outcome for outcome in outcomes if outcome.row.chapter == chapter])}"
        for chapter in chapters
    ]
    text += [
        f"Medians of {repeats} samples (lowest to highest); each sample in a process of its own and checked. The last "
        "columns compare speeds, sample by sample: 2.0 means that mq is twice as fast. A message is a line of about "
        "637 bytes.",
        f"{machine}.",
    ]
    if any(outcome.row.reads_corpus for outcome in outcomes):
        text.append(f"The large production has {messages:,} messages in {len(CHANNELS)} channels.")
    if quick:
        text.append("A quick run: a tenth of the work, and therefore rough.")
    floors: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.row.floor:
            floors.setdefault(outcome.row.floor, []).append(outcome.row.title)
    if floors:
        text.append("The floor:\n" + "\n".join(f"- {'; '.join(titles)}: {does}" for does, titles in floors.items()))
    peers = dict.fromkeys(
        (o.row.chapter, f"{name}: {what}") for o in outcomes for name, what in o.row.peers.items() if name in o.samples
    )
    if peers:
        text.append("The peers:\n" + "\n".join(f"- {chapter}: {peer}" for chapter, peer in peers))
    missing = dict.fromkeys(f"- {name}: {why}" for o in outcomes for name, why in o.left_out.items())
    if missing:
        text.append("Left out:\n" + "\n".join(missing))
    return "\n\n".join(text)


def _table(outcomes: Sequence[Outcome]) -> str:
    contenders = list(dict.fromkeys(name for outcome in outcomes for name in outcome.samples))
    contenders.sort(key=lambda name: _COLUMNS.index(name) if name in _COLUMNS else len(_COLUMNS))
    others = [name for name in contenders if name != OURS]
    head = ["work", "unit", *contenders, *(f"{OURS} : {name}" for name in others)]
    lines = [_line(head), _line(["---", "---", *["---:"] * (len(head) - 2)])]
    for outcome in outcomes:
        for figure in outcome.row.figures:
            if not any(outcome.values(name, figure) for name in contenders):
                continue
            title = f"{outcome.row.title}, {figure.label}" if figure.label else outcome.row.title
            cells = [title, figure.unit]
            cells += [_median_and_range(outcome.values(name, figure)) for name in contenders]
            cells += [_ratio(outcome.ratios(name, figure)) for name in others]
            lines.append(_line(cells))
    return "\n".join(lines)


def as_json(outcomes: Sequence[Outcome], machine: Machine, *, quick: bool, messages: int) -> dict[str, Any]:
    """Everything that was measured, unrounded."""
    return {
        "machine": machine._asdict(),
        "quick": quick,
        "messages": messages,
        "rows": [
            {
                "name": outcome.row.name,
                "title": outcome.row.title,
                "chapter": outcome.row.chapter,
                "floor": outcome.row.floor,
                "peers": dict(outcome.row.peers),
                "reads_corpus": outcome.row.reads_corpus,
                "figures": [figure._asdict() for figure in outcome.row.figures],
                "samples": outcome.samples,
                "left_out": outcome.left_out,
            }
            for outcome in outcomes
        ],
    }


def from_json(document: dict[str, Any]) -> tuple[list[Outcome], Machine]:
    """What `as_json` made of some outcomes, to be shown again."""
    outcomes = []
    for saved in document["rows"]:
        row = Row(
            name=saved["name"],
            title=saved["title"],
            chapter=saved["chapter"],
            figures=tuple(Figure(**figure) for figure in saved["figures"]),
            contenders={},
            floor=saved["floor"],
            peers=saved["peers"],
            reads_corpus=saved["reads_corpus"],
        )
        outcomes.append(Outcome(row, saved["samples"], saved["left_out"]))
    return outcomes, Machine(**document["machine"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _median_and_range(values: Sequence[float]) -> str:
    if not values:
        return "—"
    median = shown_number(statistics.median(values))
    return f"{median} ({shown_number(min(values))} to {shown_number(max(values))})" if len(values) > 1 else median


def _ratio(values: Sequence[float]) -> str:
    if not values:
        return "—"
    median = statistics.median(values)
    return f"{median:.2f}" if median >= 0.01 else f"{median:.1g}"
