"""Rows about growth: a post into a mailbox that holds a whole production, beside one into an empty mailbox."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.bench.corpus import CHANNELS
from tools.bench.measuring import OURS, Figure, Row, Sample, Site, WrongResult, check
from tools.bench.posting import MailroomPoster, ids_in
from tools.bench.serving import POST, measure_command

EMPTY = "mq empty"
_CHANNEL = CHANNELS[0]
_WARM_UP_POSTS = 5


def measure_posts(posts: int, site: Site) -> Sample:
    """Durable posts per second of one caller into whatever the mailbox holds."""

    async def work() -> tuple[list[str], float]:
        poster = MailroomPoster(site.folder, True)
        ids = [await poster.post(_CHANNEL, number) for number in range(_WARM_UP_POSTS)]
        started = time.perf_counter()
        ids += [await poster.post(_CHANNEL, number) for number in range(site.count(posts))]
        elapsed_s = time.perf_counter() - started
        await poster.close()
        return ids, elapsed_s

    before = _size(site.folder)
    ids, elapsed_s = asyncio.run(work())
    with _mailbox(site.folder).open("rb") as file:
        file.seek(before)
        (site.folder / "new").mkdir()
        (site.folder / "new" / "new.jsonl").write_bytes(file.read())
    check(ids, ids_in(site.folder / "new"))
    return {"per_s": site.count(posts) / elapsed_s}


def measure_first_post(site: Site) -> Sample:
    """How long the first post of a process takes that finds the mailbox as it is, without a stamp of ours."""

    async def work() -> float:
        poster = MailroomPoster(site.folder, True)
        started = time.perf_counter()
        await poster.post(_CHANNEL, 0)
        elapsed_s = time.perf_counter() - started
        await poster.close()
        return elapsed_s

    before = _size(site.folder)
    elapsed_s = asyncio.run(work())
    if _size(site.folder) <= before:
        raise WrongResult("the post is not in the mailbox")
    return {"ms": elapsed_s * 1000}


def in_full(measure: Callable[[Site], Sample], site: Site) -> Sample:
    """A measure in a folder whose one mailbox holds all messages of the production."""
    with _mailbox(site.folder).open("wb") as mailbox:
        for path in sorted(site.known().root.glob("*.jsonl")):
            with path.open("rb") as file:
                shutil.copyfileobj(file, mailbox, 1 << 20)
    return measure(site)


def _mailbox(folder: Path) -> Path:
    return folder / f"{_CHANNEL}.jsonl"


def _size(folder: Path) -> int:
    return _mailbox(folder).stat().st_size if _mailbox(folder).exists() else 0


def _row(name: str, title: str, figure: Figure, measure: Callable[[Site], Sample]) -> Row:
    return Row(
        name=name,
        title=title,
        chapter="Growth",
        figures=(figure,),
        contenders={OURS: partial(in_full, measure), EMPTY: measure},
        peers={EMPTY: "the same with an empty mailbox"},
        reads_corpus=True,
    )


ROWS = (
    _row(
        "full-post",
        "durable post, one caller, into a mailbox of the whole production",
        Figure("per_s", "msgs/s", more_is_better=True),
        partial(measure_posts, 2_000),
    ),
    _row("full-first", "the first post to a mailbox that others wrote", Figure("ms", "ms"), measure_first_post),
    _row(
        "full-command",
        "`mq post`, the whole process, into a mailbox of the whole production",
        Figure("p50_ms", "ms", "p50"),
        partial(measure_command, POST, True),
    ),
)
