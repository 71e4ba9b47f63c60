"""The results as a Markdown table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tools.bench.corpus import CHANNELS
from tools.bench.machine import Machine
from tools.bench.measuring import OURS, Outcome, corpus_messages, shown_number


def markdown(outcomes: Sequence[Outcome], machine: Machine, *, quick: bool) -> str:
    """A table with a line for each figure: medians, ranges, and our speed as a multiple of the others'."""
    contenders = list(dict.fromkeys(name for outcome in outcomes for name in outcome.samples))
    contenders.sort(key=lambda name: name != OURS)
    others = [name for name in contenders if name != OURS]
    head = ["work", "unit", *contenders, *(f"{OURS} : {name}" for name in others)]
    lines = [_line(head), _line(["---", "---", *["---:"] * (len(head) - 2)])]
    for outcome in outcomes:
        for figure in outcome.row.figures:
            title = f"{outcome.row.title}, {figure.label}" if figure.label else outcome.row.title
            cells = [title, figure.unit]
            cells += [_median_and_range(outcome.values(name, figure)) for name in contenders]
            cells += [_ratio(outcome.ratios(name, figure)) for name in others]
            lines.append(_line(cells))
    repeats = max((len(samples) for outcome in outcomes for samples in outcome.samples.values()), default=0)
    text = [
        "\n".join(lines),
        f"Medians of {repeats} samples (lowest to highest); each sample in a process of its own and checked. The last "
        "columns compare speeds, sample by sample: 2.0 means that mq is twice as fast.",
        f"{machine}.",
    ]
    if any(outcome.row.reads_corpus for outcome in outcomes):
        text.append(
            f"Index and queries: a production of {corpus_messages(quick):,} messages in {len(CHANNELS)} channels."
        )
    if quick:
        text.append("A quick run: a tenth of the work, and therefore rough.")
    floors = dict.fromkeys(f"{o.row.title}: {o.row.floor}" for o in outcomes if o.row.floor)
    if floors:
        text.append("The floor:\n" + "\n".join(f"- {floor}" for floor in floors))
    missing = [f"- {o.row.title}: {name}: {why}" for o in outcomes for name, why in o.left_out.items()]
    if missing:
        text.append("Left out:\n" + "\n".join(missing))
    return "\n\n".join(text)


def as_json(outcomes: Sequence[Outcome], machine: Machine, *, quick: bool) -> dict[str, Any]:
    """Everything that was measured, unrounded."""
    return {
        "machine": machine._asdict(),
        "quick": quick,
        "rows": [
            {
                "name": outcome.row.name,
                "title": outcome.row.title,
                "floor": outcome.row.floor,
                "figures": [figure._asdict() for figure in outcome.row.figures],
                "samples": outcome.samples,
                "left_out": outcome.left_out,
            }
            for outcome in outcomes
        ],
    }


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _median_and_range(values: Sequence[float]) -> str:
    if not values:
        return ""
    median = shown_number(statistics.median(values))
    return f"{median} ({shown_number(min(values))} to {shown_number(max(values))})" if len(values) > 1 else median


def _ratio(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}" if values else ""
