"""What a row of the table is, and how its samples are taken.

A row is one kind of work with several contenders: the mailroom (`mq`), the `floor`, and whatever else does the same
work. Each sample runs in a fresh process and an empty folder. The contenders take turns, so that a slow spell of the
machine hits all of them, and ratios are taken within a turn.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tools.bench.corpus import Corpus

OURS = "mq"
FLOOR = "floor"
REDIS, NATS, SQLITE = "redis", "nats", "sqlite"
Sample = dict[str, float]
"""What one measurement gives: a value for each of its row's figures."""


class LeftOut(Exception):
    """A contender that is not there on this machine; the text says what is missing."""


class WrongResult(Exception):
    """What was measured did not do its work."""


class Figure(NamedTuple):
    """One number of a row, such as a median latency; `more_is_better` for rates."""

    key: str
    unit: str
    label: str = ""
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """Where a sample is taken: an empty folder, a production to read, and how long to work."""

    folder: Path
    corpus: Corpus | None
    quick: bool

    def count(self, full: int) -> int:
        """How often to do something: a tenth of it when it is to be quick."""
        return max(1, full // 10) if self.quick else full

    def known(self) -> Corpus:
        """The production to read; for rows that asked for one."""
        if self.corpus is None:
            raise WrongResult("this row has no corpus")
        return self.corpus


Measure = Callable[[Site], Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of work.

    Args:
        name: What the command line calls it.
        title: What the table calls it.
        chapter: Which table it stands in.
        figures: What it measures.
        contenders: Who does it; the measures are module-level functions, since they run in other processes. A sample
            may lack figures that only others have.
        floor: What the floor does, in a few words.
        peers: What other software each further contender is, and how it does the work.
        reads_corpus: Whether it reads a large production.
    """

    name: str
    title: str
    chapter: str
    figures: tuple[Figure, ...]
    contenders: Mapping[str, Measure]
    floor: str = ""
    peers: Mapping[str, str] = field(default_factory=dict)
    reads_corpus: bool = False


@dataclass(slots=True)
class Outcome:
    """A row's samples by contender, and who was left out and why."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def values(self, contender: str, figure: Figure) -> list[float]:
        """What one contender reached for one figure, in the order taken."""
        return [sample[figure.key] for sample in self.samples.get(contender, []) if figure.key in sample]

    def ratios(self, contender: str, figure: Figure) -> list[float]:
        """Our speed as a multiple of a contender's, turn by turn: over 1 when we are faster.

        Of what comes before the moment it is counted from, as a reader's wake may before a post returns, there is none.
        """
        pairs = [*zip(self.values(OURS, figure), self.values(contender, figure), strict=False)]
        if any(min(pair) <= 0 for pair in pairs):
            return []
        return [ours / theirs if figure.more_is_better else theirs / ours for ours, theirs in pairs]


def run(
    rows: Sequence[Row], *, folder: Path, repeats: int, quick: bool, messages: int, progress: Callable[[str], None]
) -> list[Outcome]:
    """Take all samples.

    Args:
        rows: What to measure.
        folder: Where the files go; on the disk that is to be measured.
        repeats: How many samples of each.
        quick: Whether to work a tenth as long.
        messages: How many the production has that some rows read.
        progress: Is told each result as it comes.

    Raises:
        WrongResult: A contender lost, doubled or mixed up messages.
    """
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mq-bench-", dir=folder) as work:
        corpus = None
        if any(row.reads_corpus for row in rows):
            corpus = Corpus.written(Path(work) / "corpus", messages=messages)
            progress(f"corpus: {corpus.messages:,} messages, {corpus.size_bytes / corpus.messages:.0f} bytes each")
        for number, row in enumerate(rows, start=1):
            outcome = Outcome(row)
            for turn in range(repeats):
                for contender, measure in row.contenders.items():
                    if contender in outcome.left_out:
                        continue
                    label = f"[{number}/{len(rows)}] {row.name} {contender} {turn + 1}/{repeats}"
                    try:
                        sample = _sample(measure, Path(work) / "sample", corpus, quick)
                    except LeftOut as reason:
                        outcome.left_out[contender] = str(reason)
                        progress(f"{label}: left out: {reason}")
                        continue
                    except WrongResult as fault:
                        raise WrongResult(f"{row.name} {contender}: {fault}") from fault
                    outcome.samples.setdefault(contender, []).append(sample)
                    progress(f"{label}: {_shown(row, sample)}")
            outcomes.append(outcome)
    return outcomes


def _shown(row: Row, sample: Sample) -> str:
    figures = (figure for figure in row.figures if figure.key in sample)
    return ", ".join(f"{shown_number(sample[figure.key])} {figure.unit} {figure.label}".strip() for figure in figures)


def _sample(measure: Measure, folder: Path, corpus: Corpus | None, quick: bool) -> Sample:
    folder.mkdir()
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(measure, Site(folder, corpus, quick)).result()
    finally:
        shutil.rmtree(folder)


def check(expected: Iterable[str], found: Sequence[str]) -> None:
    """Refuse a result that is not exactly what was put in, in any order.

    Raises:
        WrongResult: Something is missing, doubled or foreign.
    """
    wanted = set(expected)
    if len(found) != len(wanted) or set(found) != wanted:
        missing, foreign = len(wanted - set(found)), len(set(found) - wanted)
        raise WrongResult(f"{len(found)} messages for {len(wanted)} posts: {missing} missing, {foreign} foreign")


def percentiles(seconds: Sequence[float], prefix: str = "") -> Sample:
    """Median and 95th percentile, in milliseconds, as `p50_ms` and `p95_ms`."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.95))]
    return {f"{prefix}p50_ms": statistics.median(ordered) * 1000, f"{prefix}p95_ms": p95 * 1000}


def shown_number(value: float) -> str:
    """A number with three significant digits, at least all of its whole ones: 0.0123, 4.56, 12,345."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.4f}"
