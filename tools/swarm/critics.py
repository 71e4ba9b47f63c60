"""What those do who judge, remember and read along: quality assessor, continuity service, and the human writer.

Pure functions as in `craft`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tools.swarm import story
from tools.swarm.assessment import MAX_VERSIONS, PASS_SCORE, Finding, assess, overall, slips
from tools.swarm.conversation import PREVIOUS, Conversation, Draft, Mail, Payload, Turn
from tools.swarm.craft import NOTHING

EVERYONE = (
    "writer",
    "story_architect",
    "scene_director",
    "character_director",
    "narrator",
    "dialogist",
    "shot_composer",
    "continuity_service",
)


def quality_assessor(mail: Mail, talk: Conversation) -> Turn:
    """Shots open the assessment of their scene, the answer about continuity closes it; an objection gets a ruling."""
    answered = talk.get(mail.reply_to)
    if mail.msg_type == "shot_list" and answered and answered.msg_type == "scene":
        text = f"Version {answered.payload['version']} is up. Does anything in it forget an earlier scene?"
        query = Draft("query", {"text": text, "of": answered.id}, ("continuity_service",), mail.id)
        return Turn((query,), ("an answer from continuity_service",))
    if mail.msg_type == "answer" and answered:
        scene = talk.get(answered.payload.get("of"))
        return _verdict(scene, mail, talk) if scene else NOTHING
    if mail.msg_type == "note" and mail.payload.get("point"):
        return Turn((_ruling(mail, talk),))
    return NOTHING


def _verdict(scene: Mail, answer: Mail, talk: Conversation) -> Turn:
    version = scene.payload["version"]
    findings = assess(scene, answer.payload.get("slips", []), talk)
    total = overall(findings)
    rubric = {finding.point: round(finding.mark, 2) for finding in findings}
    faults = sorted((finding for finding in findings if finding.mark < 1), key=lambda finding: finding.mark)
    score = Draft(
        "score",
        {"of": scene.id, "score": total, "rubric": rubric, "notes": _notes(version, total, faults), "version": version},
        EVERYONE,
        scene.id,
    )
    if total < PASS_SCORE and version < MAX_VERSIONS:
        return Turn((score, _feedback(scene, faults)), (f"scene v{version + 1}",))
    best_of, best = _best(scene, total, talk)
    brief = talk.last("brief")
    finalize: Payload = {
        "of": best_of.id,
        "score": best,
        "version": best_of.payload["version"],
        "text": f"Version {best_of.payload['version']} is the scene. Thank you, all; and Köbi may breathe.",
        "brief": brief.id if brief else None,
    }
    return Turn((score, Draft("finalize", finalize, EVERYONE, PREVIOUS)))


def _notes(version: int, total: float, faults: Sequence[Finding]) -> str:
    if not faults:
        return f"Version {version}: nothing to add."
    worst = ", ".join(finding.point for finding in faults)
    if total < PASS_SCORE:
        return f"Version {version} doesn’t pass: {worst}. The material is there; it is being spent too fast."
    return (
        f"Version {version} passes. Nobody says it, and by “He knew a good jar” nobody has to. Left over: {worst}. "
        f"{faults[0].text} I would not cut a word of the boy."
    )


def _feedback(scene: Mail, faults: Sequence[Finding]) -> Draft:
    points = [
        {
            "point": finding.point,
            "to": list(finding.to),
            **({"who": finding.who} if finding.who else {}),
            "text": finding.text,
        }
        for finding in faults
    ]
    asked = dict.fromkeys(agent for finding in faults for agent in finding.to)
    text = "\n".join(f"{number}. {point['text']}" for number, point in enumerate(points, 1))
    payload = {"of": scene.id, "version": scene.payload["version"], "text": text, "points": points}
    return Draft("feedback", payload, ("scene_director", *asked), PREVIOUS)


def _best(scene: Mail, total: float, talk: Conversation) -> tuple[Mail, float]:
    """The best-scored version, the one just judged among them; the later one of equals."""
    best = scene, total
    for score in talk.all("score", "quality_assessor"):
        scored = talk.get(score.payload["of"])
        if scored and score.payload["score"] > best[1]:
            best = scored, score.payload["score"]
    return best


def _ruling(objection: Mail, talk: Conversation) -> Draft:
    """An objection about a silent character stands if the silence had been directed before it was criticised."""
    who = objection.payload.get("who")
    directed = any(
        entry.get("silent") and entry["who"] == who
        for mail in talk.all("character_direction")
        if mail.id < objection.id
        for entry in mail.payload["directions"]
    )
    if not directed:
        return Draft("note", {"text": "Not granted: nothing in the direction says so."}, (), objection.id)
    return Draft("note", {"text": story.RULING.format(who=who), "granted": True, "who": who}, (), objection.id)


def continuity_service(mail: Mail, talk: Conversation) -> Turn:
    """A question about a scene is answered with its slips, any other with the facts it mentions."""
    if mail.msg_type != "query":
        return NOTHING
    scene = talk.get(mail.payload.get("of"))
    payload = _review(scene) if scene else _recall(mail.payload["text"])
    return Turn((Draft("answer", payload, (), mail.id),))


def _review(scene: Mail) -> Payload:
    found = slips(scene)
    if not found:
        return {"text": "Nothing in it that an earlier scene would deny.", "slips": []}
    text = " ".join(f"“{slip['sentence']}” can’t be, since {slip['scene']}. {slip['text']}" for slip in found)
    return {"text": text, "slips": found}


def _recall(question: str) -> Payload:
    words = set(re.findall(r"[\w’]+", question.lower()))
    facts = [fact for fact in story.LEDGER if len(fact.words & words) > 1]
    if not facts:
        return {"text": "No scene has settled that yet. It is yours to settle.", "facts": []}
    payload: Payload = {"text": " ".join(f"({fact.scene}) {fact.text}" for fact in facts)}
    figures = {name: number for fact in facts for name, number in fact.figures}
    return {**payload, "figures": figures} if figures else payload


def writer(mail: Mail, talk: Conversation) -> Turn:
    """The human reads along, and speaks up once: when a low score lands on a scene with a line that grates."""
    scene = talk.get(mail.payload.get("of"))
    if mail.msg_type != "score" or mail.payload["score"] >= PASS_SCORE or scene is None:
        return NOTHING
    if all(block["text"] != story.WRITERS_NOTE_ON for block in scene.payload["blocks"]):
        return NOTHING
    return Turn((Draft("note", {"text": story.WRITERS_NOTE}, ("dialogist", "character_director"), mail.id),))
