"""The command: `python -m tools.bench [ROW…] [--quick] [--json]`. The table goes to stdout, progress to stderr."""

from __future__ import annotations

import fnmatch
import json
import sys
import tempfile
from pathlib import Path

import click

from tools.bench import indexing, lookups, posting, serving, waking
from tools.bench.machine import describe
from tools.bench.measuring import Row, WrongResult, run
from tools.bench.table import as_json, markdown

ROWS: tuple[Row, ...] = posting.ROWS + waking.ROWS + indexing.ROWS + lookups.ROWS + serving.ROWS


@click.command(help="Measure the mailroom beside what plain files allow.\n\nROWS are names or globs; all by default.")
@click.argument("rows", nargs=-1)
@click.option("--quick", is_flag=True, help="A tenth of the work and three samples.")
@click.option("--repeats", type=click.IntRange(1), help="Samples of each; 5 by default.")
@click.option("--json", "wants_json", is_flag=True, help="One JSON document instead of the table.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=tempfile.gettempdir(),
    show_default=True,
    help="Where the files go: a folder on the disk that is to be measured.",
)
@click.option("--list", "lists", is_flag=True, help="Show the names of the rows.")
def main(rows: tuple[str, ...], quick: bool, repeats: int | None, wants_json: bool, folder: Path, lists: bool) -> None:
    """Choose, measure, show."""
    if lists:
        for row in ROWS:
            print(f"{row.name:22} {row.title}")
        return
    unknown = [name for name in rows if not any(fnmatch.fnmatch(row.name, name) for row in ROWS)]
    if unknown:
        raise click.UsageError(f"no row is named {', '.join(unknown)}; see --list")
    chosen = [row for row in ROWS if not rows or any(fnmatch.fnmatch(row.name, name) for name in rows)]
    machine = describe(folder)
    try:
        outcomes = run(chosen, folder=folder, repeats=repeats or (3 if quick else 5), quick=quick, progress=_progress)
    except WrongResult as fault:
        raise click.ClickException(str(fault)) from fault
    if wants_json:
        print(json.dumps(as_json(outcomes, machine, quick=quick), ensure_ascii=False, indent=2))
    else:
        print(markdown(outcomes, machine, quick=quick))


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
