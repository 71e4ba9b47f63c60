"""The scene board: what the messages of each scene come to. No I/O, no clock.

Everything is in the order of (timestamp, id), so that a board depends on what was said and not on files or merges. A
message that was corrected counts as its correction says, at the place of the original.

Rules
    Version: a `scene` message with a scene, in any number of mailboxes. Its number is the author's; without a usable
        one it is the version's place in the order. Two versions may bear one number; their refs tell them apart.
    Iterations: how many versions there are, corrections not counted.
    Whose: `score`, `feedback` and `finalize` belong to the scene of the version that `of` names, whatever scene they
        bear themselves, and to their own scene where `of` names no version.
    Score: of each scorer the latest counts; a version's score is the mean of these. It passes at `PASS_SCORE`.
    Best: the version with the highest score; of equals the later one.
    Finalised: the version that the newest `finalize` names. Later versions change nothing until one of them is
        finalised.
    Open feedback: feedback since the newest version, or about it, until a later version or a later `finalize` answers
        it.
    Cap: with `max_iterations` of them a scene should get no more versions; the best-scored one wins.
    Bad data: a message whose fields are of the wrong kind, or that judges what stands in no mailbox, is left out and
        noted. A score of something else than a version is none of the board's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any, NamedTuple

from mq_server.answers import ABBREVIATED_CHARACTERS, problems_json
from mq_server.errors import Problem
from mq_server.message import Message

PASS_SCORE = 0.8
"""The score from which on a version passes."""
VERSION, SCORE, FEEDBACK, FINALIZE = "scene", "score", "feedback", "finalize"
KINDS = (VERSION, SCORE, FEEDBACK, FINALIZE)
"""The types of messages that the board is derived from."""
_DECIMALS = 9  # a mean of 0.7, 0.8 and 0.9 is to be 0.8

# --- what it is derived from ------------------------------------------------------------------------------------------


class Contribution(NamedTuple):
    """A message as it is shown now, and where it belongs.

    `original` is the id of the message that it corrects in the end, or its own; `place` is that one's (timestamp, id).
    """

    message: Message
    original: str
    place: tuple[int, int]


class Judged(NamedTuple):
    """What `of` names: the original's id, and its scene if it is a version of one."""

    original: str
    scene: str | None = None


# --- what is derived --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenScore:
    """The latest score of one scorer."""

    sender: str
    score: float
    ref: str

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer."""
        return {"sender": self.sender, "score": self.score, "ref": self.ref}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneVersion:
    """One version of a scene: its number as the author gave it, where it stands, how it was scored.

    `blocks` is None where the payload has no list of blocks, `score` where nobody has scored the version.
    """

    version: int
    ref: str
    id: str
    sender: str
    timestamp: str
    blocks: int | None = None
    score: float | None = None
    scored_by: tuple[GivenScore, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether its score is high enough."""
        return self.score is not None and self.score >= PASS_SCORE

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer."""
        return {
            "version": self.version,
            "ref": self.ref,
            "id": self.id,
            "sender": self.sender,
            "timestamp": self.timestamp,
            "blocks": self.blocks,
            "score": self.score,
            "scored_by": [given.as_json() for given in self.scored_by],
            "passed": self.passed,
        }

    def named(self) -> dict[str, Any]:
        """The version in brief, where something is said of it."""
        return {"version": self.version, "ref": self.ref, "id": self.id, "score": self.score}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFeedback:
    """Feedback that no version has answered yet; `of` is the ref of the version it is about, if it says so."""

    ref: str
    id: str
    sender: str
    timestamp: str
    text: str
    of: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer; a long text is cut short."""
        text = self.text if len(self.text) <= ABBREVIATED_CHARACTERS else f"{self.text[:ABBREVIATED_CHARACTERS]}…"
        shown = {"ref": self.ref, "id": self.id, "sender": self.sender, "timestamp": self.timestamp}
        return shown | ({} if self.of is None else {"of": self.of}) | {"text": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalised:
    """Which version stands, and the message that says so."""

    version: SceneVersion
    ref: str
    sender: str
    timestamp: str

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer."""
        return self.version.named() | {"by": self.sender, "by_ref": self.ref, "timestamp": self.timestamp}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneState:
    """How one scene stands. `versions` are oldest first; `max_iterations` is 0 where there is no limit."""

    scene: str
    title: str | None = None
    versions: tuple[SceneVersion, ...] = ()
    max_iterations: int = 0
    finalised: Finalised | None = None
    open_feedback: tuple[OpenFeedback, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def iterations(self) -> int:
        """How many versions there were."""
        return len(self.versions)

    @property
    def cap_reached(self) -> bool:
        """Whether the scene has had as many versions as it may."""
        return 0 < self.max_iterations <= self.iterations

    @property
    def best(self) -> SceneVersion | None:
        """The version with the highest score, the later one of equals; None while nothing is scored."""
        best: SceneVersion | None = None
        for version in self.versions:
            if version.score is not None and (best is None or best.score is None or version.score >= best.score):
                best = version
        return best

    @property
    def status(self) -> str:
        """One of `draft` (no version yet), `waiting for a score`, `in revision`, `passed`, `cap reached`, `finalised`.

        A scene has passed when any version has. The newest version's score is waited for though the cap is reached.
        """
        if not self.versions:
            return "draft"
        if self.finalised is not None:
            return "finalised"
        if self.best is not None and self.best.passed:
            return "passed"
        if self.versions[-1].score is None:
            return "waiting for a score"
        return "cap reached" if self.cap_reached else "in revision"

    @property
    def advice(self) -> str | None:
        """What to do, in a sentence, when the cap is reached and the scene is not finalised."""
        if not self.cap_reached or self.finalised is not None:
            return None
        best, newest = self.best, self.versions[-1]
        had = f"scene {self.scene} has had {self.iterations} of {self.max_iterations} versions"
        if best is None or best.score is None:
            return f"{had}, none of them scored: score them and finalize the best"
        named = f"version {best.version} ({best.ref}) with {figure(best.score)}"
        if newest.score is None and not best.passed:
            return f"{had}; best so far: {named}. Score version {newest.version} ({newest.ref}), then finalize the best"
        return f"{had}; best: {named}: finalize it"

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer."""
        best, advice = self.best, self.advice
        shown: dict[str, Any] = {
            "scene": self.scene,
            "title": self.title,
            "status": self.status,
            "iterations": self.iterations,
            "max_iterations": self.max_iterations,
            "cap_reached": self.cap_reached,
            "best": None if best is None else best.named(),
            "finalised": None if self.finalised is None else self.finalised.as_json(),
            "versions": [version.as_json() for version in self.versions],
            "open_feedback": [feedback.as_json() for feedback in self.open_feedback],
        }
        if advice is not None:
            shown["advice"] = advice
        if self.notes:
            shown["notes"] = list(self.notes)
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The scenes by name. `notes` are about messages left out that belong to no scene."""

    scenes: tuple[SceneState, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The shape of the answer."""
        shown: dict[str, Any] = {"pass_score": PASS_SCORE, "scenes": [state.as_json() for state in self.scenes]}
        if self.notes:
            shown["notes"] = list(self.notes)
        return shown | problems_json(self.problems)


def figure(score: float) -> str:
    """A score to two places, or to as many as it takes to tell on which side of passing it is."""
    text = f"{score:.2f}"
    return text if (float(text) >= PASS_SCORE) == (score >= PASS_SCORE) else f"{score:.{_DECIMALS}g}"


# --- the derivation ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Gathered:
    """What was said of one scene, oldest first, and what of it was left out."""

    versions: list[Contribution] = field(default_factory=list)
    judgements: list[tuple[Contribution, Judged | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def derive(
    contributions: Iterable[Contribution],
    find: Callable[[str], Judged | None],
    *,
    known: Iterable[str] = (),
    only: str | None = None,
    max_iterations: int = 0,
    problems: tuple[Problem, ...] = (),
) -> Board:
    """The board.

    Args:
        contributions: Messages of `KINDS` in any order, each once and no superseded ones.
        find: What an `of` names; None if that stands in no mailbox.
        known: Scenes that are on the board whether or not they have a version.
        only: Leave out the other scenes, of which the versions need not be given.
        max_iterations: How many versions a scene may have; 0 for any number.
        problems: Of the files, to be carried along.
    """
    scenes = {scene: _Gathered() for scene in known}
    stray: list[str] = []
    for contribution in sorted(contributions, key=lambda contribution: contribution.place):
        message = contribution.message
        of = message.payload.get("of") if message.msg_type != VERSION else None
        judged = find(of) if isinstance(of, str) else None
        scene = (judged.scene if judged else None) or message.scene
        gathered = scenes.setdefault(scene, _Gathered()) if scene else None
        fault = _fault(message, judged)
        if fault:
            (stray if gathered is None else gathered.notes).append(f"{message.ref}: {fault}")
        elif gathered is not None and message.msg_type == VERSION:
            gathered.versions.append(contribution)
        elif gathered is not None:
            gathered.judgements.append((contribution, judged))
    wanted = sorted(scenes) if only is None else [only] if only in scenes else []
    states = tuple(_state(scene, scenes[scene], max_iterations) for scene in wanted)
    return Board(scenes=states, notes=tuple(stray) if only is None else (), problems=problems)


def _fault(message: Message, judged: Judged | None) -> str:
    """Why a message cannot count; empty if it can."""
    payload, kind = message.payload, message.msg_type
    if kind == VERSION:
        return "" if message.scene else "a version of no scene: it has no 'scene'"
    of = payload.get("of")
    if kind == FEEDBACK:
        if of is not None and not isinstance(of, str):
            return f"'of' is {short(of)}, which is no message's id"
        text = payload.get("text")
        return "" if isinstance(text, str) and text.strip() else "feedback without a text"
    if not isinstance(of, str):
        return f"a {kind} of nothing: 'of' is {short(of)}, which is no message's id"
    if judged is None:
        return f"a {kind} of {short(of)}, which stands in no mailbox"
    if kind == FINALIZE:
        return "" if judged.scene else f"a finalize of {short(of)}, which is no version of a scene"
    return "" if _is_score(payload.get("score")) else f"score {short(payload.get('score'))} is no number from 0 to 1"


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _state(scene: str, gathered: _Gathered, max_iterations: int) -> SceneState:
    notes = list(gathered.notes)
    scores: dict[str, dict[str, GivenScore]] = {}
    for (message, *_), judged in gathered.judgements:
        if message.msg_type == SCORE and judged is not None:
            given = GivenScore(sender=message.sender, score=float(message.payload["score"]), ref=message.ref)
            scores.setdefault(judged.original, {})[message.sender] = given  # the later one outranks
    title: str | None = None
    versions: dict[str, SceneVersion] = {}
    for position, (message, original, _) in enumerate(gathered.versions, 1):
        number = message.payload.get("version")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            notes.append(f"{message.ref}: 'version' is {short(number)}, no number from 1 on; counted as {position}")
            number = position
        own_title = message.payload.get("title")
        title = own_title if isinstance(own_title, str) and own_title.strip() else title
        versions[original] = _version(message, number, scores.get(original, {}))
    finalised, settled = None, (-1, 0)
    for contribution, judged in gathered.judgements:
        version = versions.get(judged.original) if judged is not None else None
        message = contribution.message
        if message.msg_type == FINALIZE and version is not None:
            finalised = Finalised(version=version, ref=message.ref, sender=message.sender, timestamp=message.timestamp)
            settled = contribution.place
    return SceneState(
        scene=scene,
        title=title,
        versions=tuple(versions.values()),
        max_iterations=max_iterations,
        finalised=finalised,
        open_feedback=tuple(_open_feedback(gathered, versions, settled)),
        notes=tuple(notes),
    )


def _version(message: Message, number: int, scores: Mapping[str, GivenScore]) -> SceneVersion:
    blocks = message.payload.get("blocks")
    given = tuple(scores[sender] for sender in sorted(scores))
    return SceneVersion(
        version=number,
        ref=message.ref,
        id=message.id,
        sender=message.sender,
        timestamp=message.timestamp,
        blocks=len(blocks) if isinstance(blocks, list) else None,
        score=round(math.fsum(each.score for each in given) / len(given), _DECIMALS) if given else None,
        scored_by=given,
    )


def _open_feedback(
    gathered: _Gathered, versions: Mapping[str, SceneVersion], settled: tuple[int, int]
) -> Iterable[OpenFeedback]:
    places = {original: place for _, original, place in gathered.versions}
    newest = max(places.values(), default=(-1, 0))
    for (message, _, place), judged in gathered.judgements:
        if message.msg_type != FEEDBACK:
            continue
        of = judged.original if judged is not None and judged.original in places else None
        # Clocks of two machines may differ: what is said about a version was said after it.
        place = place if of is None else max(place, places[of])
        if place >= newest and place > settled:
            yield OpenFeedback(
                ref=message.ref,
                id=message.id,
                sender=message.sender,
                timestamp=message.timestamp,
                text=message.payload["text"],
                of=None if of is None else versions[of].ref,
            )
