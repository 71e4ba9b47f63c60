"""How a scene is judged: five checks, each a mark from 0 to 1 and, below 1, a sentence that can be acted upon.

The checks look at nothing but the scene, the breakdown's and the brief's demands and what the continuity service found.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tools.swarm.conversation import Conversation, Mail, Payload
from tools.swarm.story import CONTINUITY, ECONOMY, LEDGER, PRESENCE, SUBTEXT, TURN

PASS_SCORE = 0.8
MAX_VERSIONS = 3

_AMPLE_SHARE = 0.6
"""The share of a scene's words that may be narration before it costs anything."""


class Finding(NamedTuple):
    """The result of one check.

    Args:
        point: The check's name.
        mark: 0 to 1.
        text: What is wrong, if anything.
        to: Who is asked to mend it.
        who: The character it is about, if it is about one.
    """

    point: str
    mark: float
    text: str = ""
    to: tuple[str, ...] = ()
    who: str = ""


def slips(scene: Mail) -> list[Payload]:
    """The sentences of a scene that forget what an earlier scene established.

    Returns:
        One entry a sentence: `sentence`, and the `scene` and `text` of the fact it denies.
    """
    sentences = [
        sentence for block in scene.payload["blocks"] for sentence in re.split(r"(?<=[.?!])\s+", block["text"])
    ]
    return [
        {"sentence": sentence, "scene": fact.scene, "text": fact.text}
        for sentence in sentences
        for fact in LEDGER
        if fact.denied_by and re.search(fact.denied_by, sentence)
    ]


def check_subtext(lines: Sequence[Payload], unsaid: Collection[str]) -> Finding:
    """Nobody may say what the brief wants unsaid; every line that does costs double its share."""
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, unsaid)) + r")\b", re.IGNORECASE)
    spoken = [line for line in lines if unsaid and pattern.search(line["text"])]
    if not spoken:
        return Finding(SUBTEXT, 1.0)
    worst = max(spoken, key=lambda line: (len(pattern.findall(line["text"])), len(line["text"])))
    return Finding(
        SUBTEXT,
        max(0.0, 1 - 2 * len(spoken) / len(lines)),
        f"{len(spoken)} of {len(lines)} lines say what the brief wants unsaid. The worst: “{worst['text']}” That is a "
        "confession and its footnote in one breath. Put the weight on the table and keep it out of their mouths; what "
        "must be known, let a hand do.",
        ("dialogist", "narrator", "character_director"),
    )


def check_continuity(found: Sequence[Payload]) -> Finding:
    """The scene may deny nothing that an earlier one established; each slip costs half."""
    if not found:
        return Finding(CONTINUITY, 1.0)
    quotes = " ".join(f"“{slip['sentence']}” – not since {slip['scene']}." for slip in found)
    return Finding(CONTINUITY, max(0.0, 1 - len(found) / 2), f"{quotes} Ask the continuity service.", ("narrator",))


def check_presence(blocks: Sequence[Payload], characters: Sequence[str], silent: Collection[str]) -> Finding:
    """Every character of the breakdown speaks; one who is silent by decision must act instead."""
    speak = {block["who"] for block in blocks if block["kind"] == "line"}
    act = {block["who"] for block in blocks if block["kind"] == "action" and block.get("who")}
    missing = [name for name in characters if name not in (speak | act if name in silent else speak)]
    if not missing:
        return Finding(PRESENCE, 1.0)
    name = missing[0]
    return Finding(
        PRESENCE,
        1 - len(missing) / len(characters),
        f"{name} is in the breakdown, stands in the room, and might as well be a coat-stand. Give {name} a line.",
        ("dialogist", "character_director"),
        name,
    )


def check_turn(lines: Sequence[Payload], turn: Payload) -> Finding:
    """The last line takes up a word its speaker used in the first half, and means something else by it."""
    word = re.compile(rf"\b{re.escape(turn['echo'])}\b", re.IGNORECASE)
    said = [index for index, line in enumerate(lines) if line["who"] == turn["who"] and word.search(line["text"])]
    last = len(lines) - 1
    if last in said and said[0] < len(lines) / 2:
        return Finding(TURN, 1.0)
    ending = f"“{lines[last]['text']}”" if lines else "silence"
    return Finding(
        TURN,
        0.0,
        f"All of them leave as they came. The plan: {turn['text']} Here it ends on {ending}, and nothing has "
        "crossed the table.",
        ("dialogist", "narrator"),
    )


def check_economy(blocks: Sequence[Payload]) -> Finding:
    """Narration may take three fifths of the words; beyond, it pays in proportion."""
    told = sum(len(block["text"].split()) for block in blocks if block["kind"] == "action")
    said = sum(len(block["text"].split()) for block in blocks if block["kind"] == "line")
    share = told / max(1, told + said)
    if share <= _AMPLE_SHARE:
        return Finding(ECONOMY, 1.0)
    text = f"{share:.0%} of the words are narration; three fifths would do."
    return Finding(ECONOMY, (1 - share) / (1 - _AMPLE_SHARE), text, ("narrator",))


def assess(scene: Mail, found: Sequence[Payload], talk: Conversation) -> list[Finding]:
    """Judge a scene.

    Args:
        scene: The scene.
        found: The slips the continuity service found in it.
        talk: The conversation, for what brief, plan and breakdown demand and which silences were granted.
    """
    blocks: list[Payload] = scene.payload["blocks"]
    lines = [block for block in blocks if block["kind"] == "line"]
    granted = {mail.payload["who"] for mail in talk.all("note", "quality_assessor") if mail.payload.get("granted")}
    brief, plan, breakdown = (_demands(talk, msg_type) for msg_type in ("brief", "scene_plan", "scene_breakdown"))
    findings = [
        check_subtext(lines, brief.get("unsaid", ())),
        check_continuity(found),
        check_presence(blocks, breakdown.get("characters", ()), granted),
        check_economy(blocks),
    ]
    return [*findings, check_turn(lines, plan["turn"])] if "turn" in plan else findings


def overall(findings: Sequence[Finding]) -> float:
    """The score of a scene: the mean of its marks, to two places."""
    return round(sum(finding.mark for finding in findings) / len(findings), 2)


def _demands(talk: Conversation, msg_type: str) -> Payload:
    mail = talk.last(msg_type)
    return mail.payload if mail else {}
