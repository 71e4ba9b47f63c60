"""The command that shows how the scenes stand: `mq scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mq_server.cli.options import asks, at_option
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import looking, problems
from mq_server.render.text import columns, cut, padded, visible_line, wrap

if TYPE_CHECKING:
    from mq_server.scenes import SceneState, SceneVersion

_CELLS = 10
_STYLES = {"finalised": "bold green", "passed": "bold green", "cap reached": "bold red"}


@click.command()
@click.argument("scene", required=False)
@asks(at_option)
@click.pass_obj
def scenes(root: Path, scene: str | None, at: str | None, as_json: bool) -> None:
    """Show how the scenes stand.

    Versions with their scores, the best and the final one, feedback that nobody has answered. All scenes, or one.
    """
    board = looking(root, at, lambda room: room.scenes(scene))
    if as_json:
        print_json(board.as_json())
        return
    screen = Screen()
    for number, state in enumerate(board.scenes):
        if number:
            screen.line()
        _show(screen, state)
    flush()
    problems.tell(board.problems)
    for note in (*board.notes, *(note for state in board.scenes for note in state.notes)):
        remark(f"left out or mended: {note}")
    if not board.scenes:
        remark("there are no scenes yet: a message with --scene makes one")


def _show(screen: Screen, state: SceneState) -> None:
    of = f" of {state.max_iterations:,}" if state.max_iterations else ""
    counted = f"{state.iterations:,}{of} version{'s' if of or state.iterations != 1 else ''}"
    heading = [state.scene, *([state.title] if state.title else []), state.status, counted]
    for line in wrap(visible_line(" · ".join(heading)), screen.width, hang=4):
        screen.line(line, _STYLES.get(state.status, "bold"))
    names = [f"v{version.version}" for version in state.versions]
    scores = [_score(version) for version in state.versions]
    name_columns, score_columns = max(map(len, names), default=0), max(map(columns, scores), default=0)
    for version, name, score in zip(state.versions, names, scores, strict=True):
        label = f"  {name:<{name_columns}}  {padded(score, score_columns)}  "
        scored_by = ", ".join(given.sender for given in version.scored_by)
        text = f"{version.ref}{f' · by {scored_by}' if scored_by else ''}"
        for line in wrap(visible_line(text), screen.width, label=label, hang=columns(label)):
            screen.line(line)
        for line in wrap(visible_line(_marks(state, version)), screen.width - name_columns - 4):
            if line:
                screen.line(f"{' ' * (name_columns + 4)}{line}", "bold")
    for feedback in state.open_feedback:
        text = f"  open: {feedback.ref} by {feedback.sender}: {' '.join(feedback.text.split())}"
        screen.line(cut(visible_line(text), screen.width))
    if state.advice is not None:
        for line in wrap(visible_line(state.advice), screen.width, label="  ", hang=2):
            screen.line(line, "bold")


def _score(version: SceneVersion) -> str:
    """The score as a bar and a figure beside what it takes to pass: `█████████░ 0.93 ≥ 0.80`."""
    from mq_server.scenes import PASS_SCORE, figure

    if version.score is None:
        return f"{'░' * _CELLS} no score yet"
    full = int(version.score * _CELLS)
    bar = "█" * full + "░" * (_CELLS - full)
    return f"{bar} {figure(version.score)} {'≥' if version.passed else '<'} {PASS_SCORE:.2f}"


def _marks(state: SceneState, version: SceneVersion) -> str:
    """What is special about a version."""
    from mq_server.render.transcript import utc

    marks = ["best"] if state.best is not None and version.id == state.best.id else []
    final = state.finalised
    if final is not None and version.id == final.version.id:
        marks.append(f"finalised by {final.sender} at {utc(final.timestamp)}")
    return ", ".join(marks)
