"""The roster: who is in the production, what each is for, and which mail makes it think."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tools.swarm import craft, critics
from tools.swarm.conversation import Conversation, Mail, Turn

WRITER = "writer"


class Role(NamedTuple):
    """One channel of the production.

    Args:
        description: What the roster says of it.
        heeds: The message types that make it think; it takes note of others and goes on waiting.
        respond: What it decides, given the mail and the conversation.
    """

    description: str
    heeds: frozenset[str]
    respond: Callable[[Mail, Conversation], Turn]


ROLES = {
    WRITER: Role("The human. Sends briefs, reads along, posts notes.", frozenset({"score"}), critics.writer),
    "story_architect": Role("Turns a brief into a scene plan.", frozenset({"brief"}), craft.story_architect),
    "scene_director": Role(
        "Breaks a plan down, and assembles direction, narration and dialogue into scenes.",
        frozenset({"scene_plan", "character_direction", "narration", "dialogue"}),
        craft.scene_director,
    ),
    "character_director": Role(
        "Tells each character what they want and mustn’t show.",
        frozenset({"scene_breakdown", "feedback", "note"}),
        craft.character_director,
    ),
    "narrator": Role(
        "Writes what is seen.",
        frozenset({"scene_breakdown", "character_direction", "feedback", "answer"}),
        craft.narrator,
    ),
    "dialogist": Role(
        "Writes what is said.",
        frozenset({"scene_breakdown", "character_direction", "feedback", "answer"}),
        craft.dialogist,
    ),
    "shot_composer": Role("Turns scenes into shots.", frozenset({"scene"}), craft.shot_composer),
    "quality_assessor": Role(
        "Scores scenes from 0 to 1, sends them back with reasons, and finalizes.",
        frozenset({"shot_list", "answer", "note"}),
        critics.quality_assessor,
    ),
    "continuity_service": Role(
        "Remembers what earlier scenes established; ask it.", frozenset({"query"}), critics.continuity_service
    ),
}
AGENTS = tuple(name for name in ROLES if name != WRITER)
