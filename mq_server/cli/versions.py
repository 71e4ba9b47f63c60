"""The commands about versions in git: `mq diff` and `mq commit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mq_server.cli.edge import PROBLEMS
from mq_server.cli.options import asks
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import problems
from mq_server.render.text import columns, padded, visible_line

if TYPE_CHECKING:
    from mq_server.git.comparison import Comparison


@click.command()
@click.argument("revisions", metavar="[REV[..REV]]", required=False)
@asks(
    click.option("--stat", is_flag=True, help="Only how much, by channel, sender and type."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "md"]),
        default="text",
        help="md: Markdown for a pull request's text, short enough for hosting sites.",
    ),
)
@click.pass_obj
def diff(root: Path, revisions: str | None, stat: bool, form: str, as_json: bool) -> None:
    """Show what was said since a revision, in all mailboxes, as one conversation.

    REV: from there to the files as they are now; by default from HEAD. A..B: from one to the other. A...B: what B has
    said since it left A. Messages are compared, not lines: new ones are shown in full, then what was edited, before and
    after, what is gone, and how much was read.
    """
    from mq_server.git.ranges import difference

    problems.told.clear()
    found = difference(root, revisions)
    comparison = found.comparison
    if as_json:
        about = {"since": found.since.commit, "until": found.until and found.until.commit}
        print_json(about | (comparison.stat_json() if stat else comparison.as_json()))
        return
    if form == "md":
        from mq_server.git.markdown import markdown

        print(markdown(comparison, found.words, found.argument, stat=stat), end="")
    elif stat:
        _stat(Screen(), comparison)
    else:
        _conversation(Screen(), comparison)
    flush()
    problems.tell(comparison.problems)
    if not comparison:
        remark(f"nothing was said {found.words}")


@click.command()
@asks(
    click.option("-m", "--message", metavar="TEXT", help="Subject and body; by default both tell the content."),
    click.option("--force", is_flag=True, help="Commit problems too."),
)
@click.pass_obj
def commit(root: Path, message: str | None, force: bool, as_json: bool) -> None:
    """Commit mailboxes and receipts as they are at one moment.

    Agents go on posting: the files are held still for milliseconds only, and what is posted later is of the next
    commit. Nothing else is committed, whatever is staged. Refused when there are problems. Exit code 1 if there are, or
    if there is nothing to commit.
    """
    from mq_server.git import committing

    problems.told.clear()
    try:
        made = committing.commit(root, message=message, force=force)
    except (committing.CheckFailed, committing.NothingToCommit) as error:
        found = error.problems if isinstance(error, committing.CheckFailed) else ()
        if as_json:
            print_json({"commit": None, "problems": [str(problem) for problem in found]})
        problems.tell(found)
        remark(str(error))
        raise click.exceptions.Exit(PROBLEMS) from error
    if as_json:
        print_json(made.as_json())
        return
    Screen().line(visible_line(f"[{made.branch or 'detached HEAD'} {made.commit[:7]}] {made.subject}"))
    flush()
    problems.tell((*made.problems, *made.torn))
    if made.uncommitted:
        remark(f"not committed, since they are neither mailboxes nor receipts: {', '.join(made.uncommitted)}")
    if made.unstaged:
        remark(f"the commit stands, but git's index is behind (`git reset -q` mends that): {made.unstaged}")


def _conversation(screen: Screen, comparison: Comparison) -> None:
    for message in comparison.messages:
        screen.entry(message)
    for before, after in comparison.edited:
        _title(screen, f"{after.ref} was edited. Before:")
        screen.entry(before)
        _title(screen, "After:")
        screen.entry(after)
    for title, entries in (
        ("Gone:", comparison.gone),
        ("Copied to further mailboxes:", comparison.copied),
    ):
        if entries:
            _title(screen, title)
        for message in entries:
            screen.summary(message)
    if comparison.settled:
        _title(screen, "Settled:")
    for settled in comparison.settled:
        screen.line(visible_line(f"    {settled.name}: {settled.words()}"))


def _title(screen: Screen, text: str) -> None:
    if screen.used:
        screen.line()
    screen.line(visible_line(text), "bold")
    screen.used = True


def _stat(screen: Screen, comparison: Comparison) -> None:
    changed = any(each.edited or each.gone for each in comparison.counts)
    heads = ("channel", "new", *(("edited", "gone") if changed else ()))
    rows = [
        (each.channel, *(f"{number:,}" for number in (each.messages, each.edited, each.gone)[: len(heads) - 1]))
        for each in comparison.counts
    ]
    _table(screen, heads, rows, 1)
    senders = [
        (visible_line(sender), visible_line(msg_type), f"{number:,}")
        for sender, msg_type, number in comparison.by_sender()
    ]
    _table(screen, ("sender", "type", "new"), senders, 2)
    _table(screen, ("reader", "settled"), [(each.name, each.words()) for each in comparison.settled], 2)
    if comparison:
        screen.line(comparison.total())


def _table(screen: Screen, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], texts: int) -> None:
    """A table whose first columns are texts and the others numbers; nothing if it has no rows."""
    if not rows:
        return
    widths = [max(map(columns, column)) for column in zip(heads, *rows, strict=True)]
    for number, row in enumerate((heads, *rows)):
        cells = [
            padded(cell, width) if place < texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        screen.line("  ".join(cells).rstrip(), "" if number else "bold")
    screen.line()
