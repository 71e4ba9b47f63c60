"""What an export holds and in which order it is read: messages by scene, their threads, how the scenes stand.

All formats but JSON are made from an edition, so that they agree on what belongs where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mq_server.message import Message
from mq_server.render.parts import Setting, is_script, parts_of
from mq_server.render.transcript import shown_time
from mq_server.scenes import VERSION, SceneState, SceneVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message in its place; `depth` is how many replies lie between it and its thread's root, where that is shown."""

    message: Message
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSummary:
    """A thread within a section: its first message there, and how many belong to it."""

    root: Message
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The messages of one scene, or those that belong to none."""

    scene: str | None
    entries: tuple[Entry, ...]
    state: SceneState | None = None
    settings: tuple[tuple[int, str], ...] = ()
    """Where and when the scene is, and the time in microseconds at which somebody said so, oldest first."""
    writers: tuple[str, ...] = ()
    """Who wrote what a screenplay takes: scenes, narrations, dialogues."""

    @property
    def title(self) -> str | None:
        """What the scene calls itself: its latest version, or else whoever first gave it a title."""
        if self.state is not None and self.state.title:
            return self.state.title
        titles = (entry.message.payload.get("title") for entry in self.entries if entry.message.scene is not None)
        return next((title for title in titles if isinstance(title, str) and title.strip()), None)

    @property
    def standing(self) -> SceneVersion | None:
        """The version that counts: the finalised one, or else the best-scored, or else the newest."""
        if self.state is None or not self.state.versions:
            return None
        if self.state.finalised is not None:
            return self.state.finalised.version
        return self.state.best or self.state.versions[-1]

    def version(self, message: Message) -> SceneVersion | None:
        """Which version of the scene a message is."""
        versions = self.state.versions if self.state is not None and message.msg_type == VERSION else ()
        return next((version for version in versions if version.id == message.id), None)

    def setting(self, until: Message) -> str | None:
        """Where and when the scene is, as the newest breakdown before a message says it."""
        before = [text for time_us, text in self.settings if time_us <= until.time_us]
        return before[-1] if before else self.settings[0][1] if self.settings else None

    def threads(self) -> list[ThreadSummary]:
        """Its threads, in the order in which they begin here."""
        own = {entry.message.id for entry in self.entries}
        roots: dict[str, Message] = {}
        counts: dict[str, int] = {}
        for entry in self.entries:
            message = entry.message
            root = roots.get(message.reply_to or "", message) if message.reply_to in own else message
            roots[message.id] = root
            counts[root.id] = counts.get(root.id, 0) + 1
        return [ThreadSummary(root=roots[root], messages=count) for root, count in counts.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """An export. `what` says what of the production it is; `final` is the version to which it is confined, if any."""

    title: str
    what: str
    sections: tuple[Section, ...]
    found: Mapping[str, Message]
    """The message that is shown for an id: itself, or what corrects it."""
    final: SceneVersion | None = None

    @property
    def entries(self) -> list[Entry]:
        """All of them in order."""
        return [entry for section in self.sections for entry in section.entries]

    @property
    def span(self) -> str:
        """When it was said: `2026-11-22 16:33:43Z to 16:33:54Z`; empty if nothing was."""
        ordered = sorted((entry.message for entry in self.entries), key=lambda message: message.time_us)
        if not ordered:
            return ""
        first, last = shown_time(ordered[0]), shown_time(ordered[-1])
        if first == last:
            return first
        return f"{first} to {last.partition(' ')[2] if first[:10] == last[:10] else last}"


def edition(
    entries: Iterable[Entry],
    states: Iterable[SceneState],
    *,
    title: str,
    what: str,
    final: SceneVersion | None = None,
) -> Edition:
    """Messages as they are to be read.

    Args:
        entries: In the order of time, or of a thread.
        states: How the scenes stand, at least those of the messages.
        title: What the export is called.
        what: What of the production it is: "scene q2-s3", "channel narrator".
        final: The version of a scene to which it is confined; the other messages only tell where that is set.
    """
    board = {state.scene: state for state in states}
    by_scene: dict[str | None, list[Entry]] = {}
    for entry in entries:
        by_scene.setdefault(entry.message.scene, []).append(entry)
    sections = tuple(
        Section(
            scene=scene,
            entries=tuple(entry for entry in own if final is None or entry.message.id == final.id),
            state=board.get(scene) if scene is not None else None,
            settings=tuple(sorted(_settings(own))),
            writers=tuple(dict.fromkeys(each.message.sender for each in own if is_script(each.message.msg_type))),
        )
        for scene, own in by_scene.items()
    )
    messages = [entry.message for section in sections for entry in section.entries]
    found = {message.replaces: message for message in messages if message.replaces is not None}
    found |= {message.id: message for message in messages}
    return Edition(title=title, what=what, sections=sections, found=found, final=final)


def _settings(entries: Iterable[Entry]) -> Iterator[tuple[int, str]]:
    for entry in entries:
        for part in parts_of(entry.message.msg_type, entry.message.payload).parts:
            if isinstance(part, Setting):
                yield entry.message.time_us, part.text
