"""The command: `python -m tools.bench [ROW…] [--quick] [--json]`. The table goes to stdout, progress to stderr."""

from __future__ import annotations

import fnmatch
import json
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import click

from tools.bench import chart, claiming, growth, indexing, lookups, posting, scaling, serving, waking
from tools.bench.machine import Machine, describe
from tools.bench.measuring import Row, WrongResult, run
from tools.bench.table import as_json, from_json, markdown

ROWS: tuple[Row, ...] = (
    *posting.ROWS,
    *claiming.ROWS,
    *waking.ROWS,
    *indexing.ROWS,
    *lookups.ROWS,
    *growth.ROWS,
    *serving.ROWS,
)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    help="Measure the mailroom beside plain files and its peers: Redis, NATS JetStream and SQLite.\n\n"
    "ROWS are names or globs; all by default. A peer that is not installed is left out."
)
@click.argument("rows", nargs=-1)
@click.option("--quick", is_flag=True, help="A tenth of the work and three samples.")
@click.option("--million", is_flag=True, help="A large production of 1,000,000 messages instead of 100,000.")
@click.option(
    "--growth", "grows", is_flag=True, help="Instead: calls from 1,000 messages to a million, 8 channels to 500."
)
@click.option("--repeats", type=click.IntRange(1), help="Samples of each; 5 by default.")
@click.option("--json", "wants_json", is_flag=True, help="One JSON document instead of the table.")
@click.option("--chart", "chart_file", type=_FILE, help="Also draw the comparison with the peers, as an SVG.")
@click.option("--from", "saved", type=click.File("rb"), help="Measure nothing: show what --json saved in this file.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=tempfile.gettempdir(),
    show_default=True,
    help="Where the files go: a folder on the disk that is to be measured.",
)
@click.option("--list", "lists", is_flag=True, help="Show the names of the rows.")
def main(
    rows: tuple[str, ...],
    quick: bool,
    million: bool,
    grows: bool,
    repeats: int | None,
    wants_json: bool,
    chart_file: Path | None,
    saved: IO[bytes] | None,
    folder: Path,
    lists: bool,
) -> None:
    """Choose, measure, show."""
    if lists:
        for row in ROWS:
            print(f"{row.name:22} {row.title}")
        return
    document = json.load(saved) if saved is not None else None
    if grows or (document is not None and "growth" in document):
        _show_growth(document, folder, chart_file, quick=quick, wants_json=wants_json)
        return
    if document is not None:
        outcomes, machine = from_json(document)
        quick, messages = document["quick"], document["messages"]
    else:
        machine = describe(folder)
        messages = 1_000_000 if million else 10_000 if quick else 100_000
        repeats = repeats or (3 if quick else 5)
        try:
            outcomes = run(
                _chosen(rows), folder=folder, repeats=repeats, quick=quick, messages=messages, progress=_progress
            )
        except WrongResult as fault:
            raise click.ClickException(str(fault)) from fault
    if chart_file is not None:
        chart_file.write_text(chart.svg(outcomes, machine), encoding="utf-8")
    if wants_json:
        document = as_json(outcomes, machine, quick=quick, messages=messages)
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print(markdown(outcomes, machine, quick=quick, messages=messages))


def _show_growth(
    document: dict[str, Any] | None, folder: Path, chart_file: Path | None, *, quick: bool, wants_json: bool
) -> None:
    """Measure growth, unless it was saved, and show it."""
    if document is None:
        try:
            found = scaling.run(folder, quick=quick, progress=_progress)
        except WrongResult as fault:
            raise click.ClickException(str(fault)) from fault
        document = {"machine": describe(folder)._asdict(), "growth": scaling.as_json(found)}
    found, machine = scaling.from_json(document["growth"]), Machine(**document["machine"])
    if chart_file is not None:
        chart_file.write_text(scaling.svg(found, machine), encoding="utf-8")
    print(json.dumps(document, ensure_ascii=False, indent=2) if wants_json else scaling.markdown(found))


def _chosen(names: tuple[str, ...]) -> list[Row]:
    unknown = [name for name in names if not any(fnmatch.fnmatch(row.name, name) for row in ROWS)]
    if unknown:
        raise click.UsageError(f"no row is named {', '.join(unknown)}; see --list")
    return [row for row in ROWS if not names or any(fnmatch.fnmatch(row.name, name) for name in names)]


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
