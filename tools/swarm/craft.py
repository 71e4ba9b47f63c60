"""What the six makers do with what they get: architect, directors, narrator, dialogist, composer.

Each is a pure function of the mail before it and the conversation it belongs to, and answers with a `Turn`: what to
post, and what it still waits for. Nothing here knows of a server or a model.
"""

from __future__ import annotations

from collections.abc import Iterable

from tools.swarm import story
from tools.swarm.conversation import Conversation, Draft, Mail, Payload, Turn

NOTHING = Turn()


def story_architect(mail: Mail, talk: Conversation) -> Turn:
    """A brief becomes a plan of four beats and the turn they lead to."""
    if mail.msg_type != "brief":
        return NOTHING
    plan = {**story.PLAN, "characters": mail.payload.get("characters", [])}
    return Turn((Draft("scene_plan", plan, ("scene_director",), mail.id),))


def scene_director(mail: Mail, talk: Conversation) -> Turn:
    """A plan becomes a breakdown; direction, narration and dialogue of one version become the scene."""
    if mail.msg_type == "scene_plan":
        breakdown = {**story.BREAKDOWN, "characters": mail.payload["characters"]}
        crew = ("character_director", "narrator", "dialogist", "shot_composer")
        return Turn((Draft("scene_breakdown", breakdown, crew, mail.id),))
    if mail.msg_type not in _MAKERS:
        return NOTHING
    version = talk.round
    made = {msg_type: talk.version(msg_type, version) for msg_type in _MAKERS}
    missing = tuple(f"{msg_type} v{version} from {_MAKERS[msg_type]}" for msg_type, part in made.items() if not part)
    if missing:
        return Turn(awaits=missing)
    if talk.version("scene", version):
        return NOTHING
    parts = [part for part in made.values() if part]
    scene = {"version": version, "title": story.TITLE, "blocks": _assemble(parts)}
    newest = max(part.id for part in parts)
    crew = ("character_director", "narrator", "dialogist", "shot_composer")
    return Turn((Draft("scene", scene, crew, newest),))


_MAKERS = {"character_direction": "character_director", "narration": "narrator", "dialogue": "dialogist"}


def _assemble(parts: Iterable[Mail]) -> list[Payload]:
    """Beat by beat: what is seen, then what is said."""
    blocks: list[tuple[int, Payload]] = []
    for part in parts:
        for passage in part.payload.get("passages", ()):
            who = {"who": passage["who"]} if "who" in passage else {}
            blocks.append((2 * passage["beat"], {"kind": "action", **who, "text": passage["text"]}))
        for line in part.payload.get("lines", ()):
            place = 2 * line["beat"] + 1
            if "parenthetical" in line:
                aside = {"kind": "parenthetical", "who": line["who"], "text": line["parenthetical"]}
                blocks.append((place, aside))
            blocks.append((place, {"kind": "line", "who": line["who"], "text": line["text"]}))
    return [block for _, block in sorted(blocks, key=lambda placed: placed[0])]


def character_director(mail: Mail, talk: Conversation) -> Turn:
    """A breakdown gets its direction; criticism gets an objection where a silence was meant, else a new direction."""
    if mail.msg_type == "scene_breakdown":
        return Turn((_direction(mail.id, 1, set()),))
    if mail.sender != "quality_assessor":
        return NOTHING
    if mail.msg_type == "feedback":
        objection = _objection(mail, talk)
        if objection:
            return Turn((objection,), ("a ruling from quality_assessor",))
        return Turn((_redirection(mail, talk),))
    answered = talk.get(mail.reply_to)
    if mail.msg_type == "note" and answered and answered.sender == "character_director":
        return Turn((_redirection(mail, talk),))
    return NOTHING


def _direction(reply_to: str, version: int, raised: set[str]) -> Draft:
    pieces = [piece for piece in story.holding(story.DIRECTIONS, raised) if version == 1 or piece.since]
    directions = [
        {
            "who": piece.who,
            "text": piece.text,
            **({"knows": piece.aside} if piece.aside else {}),
            **({"silent": True, "acts": piece.since == story.PRESENCE} if piece.who == story.SILENT else {}),
        }
        for piece in pieces
    ]
    payload = {"version": version, "directions": directions or [{"who": "all", "text": "As before."}]}
    return Draft("character_direction", payload, ("scene_director", "narrator", "dialogist"), reply_to)


def _redirection(mail: Mail, talk: Conversation) -> Draft:
    raised = {point["point"] for point in talk.points_for("character_director")}
    return _direction(mail.id, talk.round, raised)


def _objection(feedback: Mail, talk: Conversation) -> Draft | None:
    direction = talk.last("character_direction")
    silent = {entry["who"] for entry in direction.payload["directions"] if entry.get("silent")} if direction else set()
    for point in feedback.payload["points"]:
        if point["point"] == story.PRESENCE and point["who"] in silent:
            text = story.OBJECTION.format(who=point["who"])
            payload = {"text": text, "point": story.PRESENCE, "who": point["who"]}
            return Draft("note", payload, ("quality_assessor",), feedback.id)
    return None


def narrator(mail: Mail, talk: Conversation) -> Turn:
    """Direction becomes narration; a slip of continuity is looked up before anything is written again."""
    sent_back = talk.last("feedback", "quality_assessor")
    if sent_back and not talk.is_cleared_up(sent_back.id, "narrator"):
        points = sent_back.payload["points"]
        if any(point["point"] == story.CONTINUITY and "narrator" in point["to"] for point in points):
            return _ask(story.NARRATORS_DOUBT, sent_back)
    version, trigger, awaits = _ready("narrator", "narration", talk)
    if trigger is None:
        return Turn(awaits=awaits)
    passages = [
        {"beat": piece.beat, **({"who": piece.who} if piece.who else {}), "text": piece.text}
        for piece in story.holding(story.NARRATION, _raised("narrator", talk))
    ]
    text = "\n\n".join(str(passage["text"]) for passage in passages)
    payload = {"version": version, "text": text, "passages": passages}
    return Turn((Draft("narration", payload, ("scene_director",), trigger),))


def dialogist(mail: Mail, talk: Conversation) -> Turn:
    """Direction becomes dialogue, after asking for whatever a character knows and the dialogist doesn't."""
    direction = talk.version("character_direction", talk.round)
    if direction and not talk.is_cleared_up(direction.id, "dialogist"):
        unknown = [entry for entry in direction.payload["directions"] if entry.get("knows")]
        if unknown:
            asked = [f"I need what {entry['who']} would have by heart: {entry['knows']}." for entry in unknown]
            return _ask(" ".join(asked), direction)
    version, trigger, awaits = _ready("dialogist", "dialogue", talk)
    if trigger is None:
        return Turn(awaits=awaits)
    figures = {name: number for mail in talk.all("answer") for name, number in mail.payload.get("figures", {}).items()}
    words = {
        "autumns": story.in_words(figures.get("autumns", 0)),
        "autumns_before": story.in_words(figures.get("autumns", 0) - 1).capitalize(),
    }
    lines = [
        {
            "who": piece.who,
            **({"parenthetical": piece.aside} if piece.aside else {}),
            "text": piece.text.format(**words),
            "beat": piece.beat,
        }
        for piece in story.holding(story.DIALOGUE, _raised("dialogist", talk))
    ]
    payload = {"version": version, "lines": lines}
    return Turn((Draft("dialogue", payload, ("scene_director", "character_director"), trigger),))


def _ask(text: str, about: Mail) -> Turn:
    """A question, the same one until it is answered: asked again, it is not posted again."""
    query = Draft("query", {"text": text}, ("continuity_service",), about.id)
    return Turn((query,), ("an answer from continuity_service",))


def _ready(agent: str, msg_type: str, talk: Conversation) -> tuple[int, str | None, tuple[str, ...]]:
    """Whether a writing agent can write: the version, the id to reply to or None, and what is missing."""
    version = talk.round
    direction = talk.version("character_direction", version)
    if direction is None:
        return version, None, (f"character_direction v{version} from character_director",)
    if talk.version(msg_type, version):
        return version, None, ()
    asked = {query.id for query in talk.all("query", agent)}
    answers = [mail.id for mail in talk.all("answer") if mail.reply_to in asked]
    return version, max([direction.id, *answers]), ()


def _raised(agent: str, talk: Conversation) -> set[str]:
    """The points an agent has to meet: those addressed to it, and a silence that has been directed to act."""
    raised = {point["point"] for point in talk.points_for(agent)} - {story.PRESENCE}
    directions = [entry for mail in talk.all("character_direction") for entry in mail.payload["directions"]]
    return raised | {story.PRESENCE for entry in directions if entry.get("acts")}


def shot_composer(mail: Mail, talk: Conversation) -> Turn:
    """A scene becomes shots: only of what is in it."""
    if mail.msg_type != "scene":
        return NOTHING
    text = "\n".join(block["text"] for block in mail.payload["blocks"])
    shots = [{"shot": shot.shot, "text": shot.text} for shot in story.SHOTS if shot.needs in text]
    payload = {"version": mail.payload["version"], "shots": shots}
    return Turn((Draft("shot_list", payload, ("quality_assessor", "scene_director"), mail.id),))
