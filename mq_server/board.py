"""The part of the façade that shows how the scenes stand: `scenes` holds the rules, here the messages are found."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mq_server.columns import Place
from mq_server.errors import UnknownScene
from mq_server.names import id_number, id_text, is_id
from mq_server.room import Room

if TYPE_CHECKING:
    from mq_server.scenes import Board, Contribution, Judged


class SceneBoard(Room):
    """The part of the façade that shows how the scenes stand."""

    async def scenes(self, scene: str | None = None) -> Board:
        """How the scenes stand: versions, scores, open feedback, what is finalised.

        Args:
            scene: Only this one; by default every scene that a message bears.

        Raises:
            UnknownScene: No message bears it.
        """
        from mq_server.scenes import derive

        def answer() -> Board:
            known = self._known_scenes()
            if scene is not None and scene not in known:
                raise UnknownScene(scene, known)
            return derive(
                self._contributions(scene),
                self._judged,
                known=known,
                only=scene,
                max_iterations=self.config.max_iterations,
                problems=self._shelf.problems(),
            )

        return await self._shelf.consistent(None, answer)

    async def iteration_advice(self, scene: str) -> str | None:
        """What to do about a scene that has had as many versions as it may; None while there is nothing to say.

        Args:
            scene: Its slug; one that no message bears needs no advice.
        """
        if not self.config.max_iterations:
            return None
        try:
            return (await self.scenes(scene)).scenes[0].advice
        except UnknownScene:
            return None

    def _known_scenes(self) -> list[str]:
        """Every scene that a message bears which nothing supersedes."""
        superseded = self._index.amendments().superseded
        found: set[str] = set()
        for channel in self._index.channels.values():
            counted = Counter(channel.scenes)
            counted.subtract(channel.scenes[row] for row in map(channel.rows.get, superseded) if row is not None)
            found.update(self._index.names.text(number) or "" for number, count in counted.items() if count > 0)
        return sorted(found - {""})

    def _contributions(self, scene: str | None) -> list[Contribution]:
        """The messages that the board is derived from. Versions of other scenes, which are long, are not read."""
        from mq_server.scenes import KINDS, VERSION, Contribution

        index, names = self._index, self._index.names
        amendments = index.amendments()
        kinds = {names.known(kind): kind for kind in KINDS}
        wanted = None if scene is None else names.known(scene)
        places: dict[int, Place] = {}
        # By columns, not as a timeline: the order comes from the derivation, and most rows are of other types.
        for name in sorted(index.channels):
            channel = index.channels[name]
            for row, number in enumerate(channel.types):
                if number in kinds and (wanted is None or kinds[number] != VERSION or channel.scenes[row] == wanted):
                    identity = channel.identity(row)
                    if identity not in amendments.superseded:
                        places.setdefault(identity, Place(name, row))
        messages = self._shelf.load(list(places.values()))
        originals = [amendments.original(identity) for identity in places]
        stands = [index.find(original) or place for original, place in zip(originals, places.values(), strict=True)]
        return [
            Contribution(message, id_text(original), self._key_of(place))
            for message, original, place in zip(messages, originals, stands, strict=True)
        ]

    def _judged(self, of: str) -> Judged | None:
        from mq_server.scenes import VERSION, Judged

        place = self._index.find(id_number(of)) if is_id(of) else None
        if place is None:
            return None
        shown = self._index.shown(place)
        channel = self._index.channels[shown.channel]
        original = self._index.amendments().original(channel.identity(shown.row))
        is_version = channel.msg_type(shown.row) == VERSION
        return Judged(id_text(original), channel.scene(shown.row) if is_version else None)
