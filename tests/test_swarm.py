"""The demo's craft: each agent's decisions, and the whole play in every order that mail can arrive in."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mq_server.config import FILE_NAME, annotated_toml
from mq_server.mailroom import Mailroom
from mq_server.server import serving
from mq_server.vetting import checked_payload
from tests.support import python, run, said
from tools.swarm import ROSTER, PlayFailed, play, story
from tools.swarm import agents as swarm_agents
from tools.swarm.agents import GaveUp, ScriptedAgent, gist
from tools.swarm.assessment import (
    MAX_VERSIONS,
    PASS_SCORE,
    check_continuity,
    check_economy,
    check_presence,
    check_subtext,
    check_turn,
    slips,
)
from tools.swarm.conversation import PREVIOUS, Conversation, Draft, Mail, Turn
from tools.swarm.critics import EVERYONE, quality_assessor
from tools.swarm.roles import AGENTS, ROLES, WRITER, Role

TYPES_OF_THE_FLOW = {
    "brief",
    "scene_plan",
    "scene_breakdown",
    "character_direction",
    "narration",
    "dialogue",
    "query",
    "answer",
    "scene",
    "shot_list",
    "score",
    "feedback",
    "note",
    "finalize",
}


def mail(number: int, sender: str, msg_type: str, payload: dict[str, Any], reply_to: int | None = None) -> Mail:
    return Mail(f"{number:026d}", sender, msg_type, payload, None if reply_to is None else f"{reply_to:026d}")


def lines(*texts: str, who: str = "Vreni") -> list[dict[str, Any]]:
    return [{"kind": "line", "who": who, "text": text} for text in texts]


class Rehearsal:
    """Mailboxes without a server: what the craft does to them, one message at a time.

    Args:
        order: Which of the members with mail reads next, who crashes at the work, what is delivered once more, and
            which replies come in time.
    """

    def __init__(self, order: Random) -> None:
        self._order = order
        self.posted: list[Mail] = []
        self.mailboxes: dict[str, deque[Mail]] = {name: deque() for name in ROLES}
        self._by_key: dict[tuple[str, str, str | None], Mail] = {}

    def post(self, sender: str, draft: Draft, reply_to: str | None) -> Mail:
        key = (sender, draft.msg_type, reply_to)
        if key not in self._by_key:
            message = Mail(f"{len(self.posted):026d}", sender, draft.msg_type, draft.payload, reply_to)
            to = draft.to or (next(m.sender for m in self.posted if m.id == reply_to),)
            self._by_key[key] = message
            self.posted.append(message)
            for channel in to:
                self.mailboxes[channel].append(message)
        return self._by_key[key]

    def play(self) -> list[Mail]:
        self.post(WRITER, Draft("brief", story.BRIEF, ("story_architect",), ""), None)
        while with_mail := [name for name, mailbox in self.mailboxes.items() if mailbox]:
            assert len(self.posted) < 100
            name = self._order.choice(with_mail)
            message = self.mailboxes[name].popleft()
            fate = self._order.choice(("done", "done", "done", "crashed at work", "delivered again"))
            self._answer(name, message, at_most=1 if fate == "crashed at work" else 100)
            if fate == "delivered again":
                self.mailboxes[name].append(message)
            if fate == "crashed at work":
                self.mailboxes[name].appendleft(message)
        return self.posted

    def _answer(self, name: str, message: Mail, at_most: int = 100) -> None:
        if message.msg_type not in ROLES[name].heeds:
            return
        turn = ROLES[name].respond(message, Conversation(self.posted))
        done: list[str] = []
        while len(done) < at_most and (following := turn.following(done)):
            posted = self.post(name, *following)
            done.append(posted.id)
            reply = self._reply_in_time(posted) if posted.msg_type == "query" else None
            if reply:
                self._answer(name, reply, at_most - 1)

    def _reply_in_time(self, query: Mail) -> Mail | None:
        """The answer to a question, which the asker then finds in its mailbox no more; or it comes later as mail."""
        key = ("continuity_service", "answer", query.id)
        if key not in self._by_key and self._order.choice((True, False)):
            return None
        self._answer("continuity_service", query)
        answer = self._by_key[key]
        with suppress(ValueError):
            self.mailboxes[query.sender].remove(answer)
        return answer


def of_type(msg_type: str, mails: Iterable[Mail]) -> list[Mail]:
    return [each for each in mails if each.msg_type == msg_type]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_play_ends_the_same_in_whatever_order_and_however_often_mail_arrives(order: Random) -> None:
    posted = Rehearsal(order).play()
    reference = Rehearsal(Random(0)).play()
    assert [each.msg_type for each in posted].count("finalize") == 1
    assert len(posted) == len(reference)
    for made, expected in zip(of_type("scene", posted), of_type("scene", reference), strict=True):
        assert made.payload == expected.payload
    assert [each.payload["score"] for each in of_type("score", posted)] == [
        each.payload["score"] for each in of_type("score", reference)
    ]


@pytest.fixture(scope="module")
def played() -> list[Mail]:
    return Rehearsal(Random(1)).play()


def test_everything_said_is_one_tree_under_the_brief(played: list[Mail]) -> None:
    brief, *replies = played
    known = {brief.id}
    for each in replies:
        assert each.reply_to in known
        known.add(each.id)


def test_the_play_has_every_message_type_and_every_agent_speaks(played: list[Mail]) -> None:
    assert {each.msg_type for each in played} == TYPES_OF_THE_FLOW
    assert {each.sender for each in played} == {WRITER, *AGENTS}
    assert len(AGENTS) == 8
    assert set(ROSTER) == {"quality_assessor", *EVERYONE}


def test_every_payload_passes_the_check_that_a_post_makes(played: list[Mail]) -> None:
    for each in played:
        assert checked_payload(each.msg_type, each.payload) == (each.msg_type, each.payload)


def test_the_first_version_fails_by_its_faults_and_the_second_passes(played: list[Mail]) -> None:
    first, second = of_type("score", played)
    assert first.payload["score"] < PASS_SCORE <= second.payload["score"]
    assert {point for point, mark in first.payload["rubric"].items() if mark < 1} == {
        story.SUBTEXT,
        story.CONTINUITY,
        story.PRESENCE,
        story.TURN,
    }
    (final,) = of_type("finalize", played)
    scenes = of_type("scene", played)
    assert [scene.payload["version"] for scene in scenes] == [1, 2]
    assert final.payload["of"] == scenes[1].id


def test_the_revision_says_nothing_that_the_brief_wants_unsaid(played: list[Mail]) -> None:
    spoken = [
        [block["text"] for block in scene.payload["blocks"] if block["kind"] == "line"]
        for scene in of_type("scene", played)
    ]
    said = [[text for text in texts if any(word in text.lower() for word in story.BRIEF["unsaid"])] for texts in spoken]
    assert len(said[0]) > 3
    assert said[1] == []


def test_the_objection_is_granted_and_the_boy_stays_silent_but_acts(played: list[Mail]) -> None:
    ruling = next(each for each in of_type("note", played) if each.payload.get("granted"))
    objection = next(each for each in played if each.id == ruling.reply_to)
    assert objection.sender == "character_director"
    blocks = of_type("scene", played)[1].payload["blocks"]
    assert {block["kind"] for block in blocks if block.get("who") == story.SILENT} == {"action"}


def test_a_scene_changes_only_where_it_was_criticised() -> None:
    before = story.holding(story.NARRATION, set())
    after = story.holding(story.NARRATION, {story.CONTINUITY})
    removed = [piece for piece in before if piece not in after]
    assert removed
    assert {piece.until for piece in removed} == {story.CONTINUITY}
    assert story.holding(story.DIALOGUE, {story.CONTINUITY}) == story.holding(story.DIALOGUE, set())


@pytest.mark.parametrize("point", [story.SUBTEXT, story.CONTINUITY, story.PRESENCE, story.TURN])
def test_every_point_of_criticism_can_be_met(point: str) -> None:
    pieces = [*story.NARRATION, *story.DIALOGUE, *story.DIRECTIONS]
    assert any(piece.since == point for piece in pieces)


def test_subtext_counts_lines_and_quotes_the_worst() -> None:
    finding = check_subtext(
        lines("He was false.", "It is lead, a debt.", "Misled, pleading.", "Tea."), ["false", "lead", "debt"]
    )
    assert finding.mark == 0
    assert "It is lead, a debt." in finding.text
    assert check_subtext(lines("Misled, pleading."), ["lead"]).mark == 1


def test_a_slip_is_found_in_its_sentence_and_costs_half() -> None:
    block = {"kind": "action", "text": "She waits. Then she lowers the glass over it. It is dark."}
    found = slips(mail(1, "scene_director", "scene", {"version": 1, "blocks": [block]}))
    assert [slip["sentence"] for slip in found] == ["Then she lowers the glass over it."]
    assert check_continuity(found).mark == 0.5
    assert check_continuity([]).mark == 1


def test_a_silent_character_must_speak_unless_the_silence_was_granted() -> None:
    blocks = [*lines("Tea."), {"kind": "action", "who": "Köbi", "text": "Köbi breathes out."}]
    refused = check_presence(blocks, ["Vreni", "Köbi"], ())
    assert (refused.mark, refused.who) == (0.5, "Köbi")
    assert check_presence(blocks, ["Vreni", "Köbi"], {"Köbi"}).mark == 1
    assert check_presence(blocks[:1], ["Vreni", "Köbi"], {"Köbi"}).mark == 0.5


def test_the_turn_is_the_same_word_at_both_ends() -> None:
    turn = {"who": "Vreni", "echo": "tea", "text": "…"}
    assert check_turn(lines("There’s tea in it.", "No.", "Tea."), turn).mark == 1
    assert check_turn(lines("No.", "There’s tea in it.", "Steady."), turn).mark == 0
    assert check_turn(lines("No.", "Yes.", "Tea."), turn).mark == 0
    assert "silence" in check_turn([], turn).text


def test_narration_beyond_three_fifths_of_the_words_costs_in_proportion() -> None:
    told = {"kind": "action", "text": "word " * 8}
    assert check_economy([told, *lines("word " * 8)]).mark == 1
    assert check_economy([told, *lines("word " * 2)]).mark == pytest.approx(0.5)


def test_the_director_names_what_is_missing_and_from_whom() -> None:
    direction = mail(1, "character_director", "character_direction", {"version": 1, "directions": []})
    turn = ROLES["scene_director"].respond(direction, Conversation([direction]))
    assert turn == Turn(awaits=("narration v1 from narrator", "dialogue v1 from dialogist"))


def test_after_the_last_try_the_best_version_wins() -> None:
    blocks = [{"kind": "line", "who": "Vreni", "text": "It is false."}]
    scenes = [
        mail(number, "scene_director", "scene", {"version": number, "blocks": blocks})
        for number in range(1, MAX_VERSIONS + 1)
    ]
    scores = [
        mail(10 + number, "quality_assessor", "score", {"of": scenes[number - 1].id, "score": score}, number)
        for number, score in ((1, 0.75), (2, 0.79))
    ]
    brief = mail(0, WRITER, "brief", {"text": "…", "unsaid": ["false"]})
    breakdown = mail(20, "scene_director", "scene_breakdown", {"beats": ["…"], "characters": ["Vreni", "Köbi"]}, 0)
    plan = mail(21, "story_architect", "scene_plan", {"turn": {"who": "Vreni", "echo": "tea", "text": "…"}}, 0)
    query = mail(30, "quality_assessor", "query", {"text": "?", "of": scenes[-1].id}, MAX_VERSIONS)
    answer = mail(31, "continuity_service", "answer", {"text": "Nothing.", "slips": []}, 30)
    talk = Conversation([brief, breakdown, plan, *scenes, *scores, query, answer])
    score, finalize = quality_assessor(answer, talk).drafts
    assert score.payload["score"] < 0.75
    assert (finalize.msg_type, finalize.payload["of"], finalize.payload["score"]) == ("finalize", scenes[1].id, 0.79)


def test_an_objection_to_what_was_never_directed_is_not_granted() -> None:
    feedback = mail(1, "quality_assessor", "feedback", {"text": "…", "points": []})
    objection = mail(2, "dialogist", "note", {"text": "…", "point": story.PRESENCE, "who": "Vreni"}, 1)
    (ruling,) = quality_assessor(objection, Conversation([feedback, objection])).drafts
    assert "granted" not in ruling.payload


def test_a_turn_begun_again_says_the_same_to_the_same_messages() -> None:
    score = Draft("score", {"score": 0.4}, EVERYONE, "scene")
    feedback = Draft("feedback", {"points": []}, ("narrator",), PREVIOUS)
    turn = Turn((score, feedback))
    assert turn.following([]) == (score, "scene")
    assert turn.following(["the score"]) == (feedback, "the score")
    assert turn.following(["the score", "the feedback"]) is None


def test_a_question_is_asked_again_until_it_is_answered() -> None:
    knows = {"who": "Kreszenz", "text": "…", "knows": "how many autumns"}
    direction = mail(1, "character_director", "character_direction", {"version": 1, "directions": [knows]})
    (query,) = ROLES["dialogist"].respond(direction, Conversation([direction])).drafts
    asked = mail(2, "dialogist", "query", query.payload, 1)
    assert ROLES["dialogist"].respond(direction, Conversation([direction, asked])).drafts == (query,)
    answer = mail(3, "continuity_service", "answer", {"text": "…", "figures": {"autumns": 17}}, 2)
    (dialogue,) = ROLES["dialogist"].respond(answer, Conversation([direction, asked, answer])).drafts
    assert dialogue.msg_type == "dialogue"


def test_a_question_that_no_scene_has_settled_is_handed_back() -> None:
    query = mail(1, "narrator", "query", {"text": "What does the parrot say?"})
    (answer,) = ROLES["continuity_service"].respond(query, Conversation([query])).drafts
    assert answer.payload["text"].startswith("No scene has settled that")


def test_strangers_in_the_thread_disturb_nobody(played: list[Mail]) -> None:
    stranger = mail(900, "someone", "feedback", {"text": "Longer!"}, 8)
    note = mail(901, "someone", "note", {"text": "I like it."}, 8)
    talk = Conversation([*played, stranger, note])
    for message in (stranger, note):
        for name in AGENTS:
            if message.msg_type in ROLES[name].heeds:
                assert ROLES[name].respond(message, talk).drafts == ()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"of": "x", "version": 2, "score": 0.9}, "v2: 0.90"),
        ({"text": "word " * 40}, "word " * 18 + "word …"),
        ({"lines": [{"who": "Vreni", "text": "Tea."}]}, "1 lines, the last: Vreni: Tea."),
        ({"version": 1, "blocks": [{"kind": "action", "text": "It ends."}]}, "v1: 1 blocks, the last: It ends."),
    ],
)
def test_the_gist_is_short(payload: dict[str, Any], expected: str) -> None:
    assert gist(payload) == expected


async def _play_without_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await play(f"http://127.0.0.1:{port}/mcp", pytest.fail, deadline_s=30)


def test_without_a_server_the_play_says_where_it_looked() -> None:
    with pytest.raises(PlayFailed, match=r"no connection to http://127\.0\.0\.1:\d+/mcp\?as="):
        asyncio.run(_play_without_a_server())


# --- over a server ----------------------------------------------------------------------------------------------------


PLAY_S = 90.0


def production(root: Path) -> Path:
    root.mkdir()
    (root / FILE_NAME).write_text(annotated_toml(ROSTER, in_force=True), encoding="utf-8")
    return root


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def claims(root: Path, channel: str) -> Counter[str]:
    """How often each message of a channel was claimed."""
    events = records(root / ".mq" / "leases" / f"{channel}.log")
    return Counter(each for event in events if event.get("op") == "claim" for each in event["ids"])


async def check_that_all_is_said_once_and_done_with(root: Path, expected: list[Mail]) -> None:
    async with Mailroom(root) as room:
        said = [Mail.read(message.as_json()) for message in (await room.activity(limit=1000)).messages]
        directories = [await room.directory(name) for name in ROLES]
        assert not (await room.check()).problems
    assert Counter((each.sender, each.msg_type) for each in said) == Counter(
        (each.sender, each.msg_type) for each in expected
    )
    scenes = of_type("scene", said)
    assert [each.payload for each in scenes] == [each.payload for each in of_type("scene", expected)]
    (final,) = of_type("finalize", said)
    assert final.payload["of"] == scenes[-1].id
    for name in ROLES:
        ids = [record["id"] for record in records(root / f"{name}.jsonl")]
        assert len(ids) == len(set(ids)), name
    assert {state.channel: state.unread for state in directories[0].channels if state.unread} == {}
    assert [each.holds or each.unanswered for each in directories if each.holds or each.unanswered] == []
    assert not (root / "dead_letters.jsonl").exists()


@asynccontextmanager
async def on_stage(*members: ScriptedAgent) -> AsyncIterator[None]:
    """Members who play for as long as somebody watches."""
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    playing = [asyncio.create_task(member.play(never)) for member in members]
    try:
        yield
    finally:
        for each in playing:
            each.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def _play_over_mcp(root: Path) -> list[str]:
    lines: list[str] = []
    async with serving(root) as url:
        await play(url, lines.append, deadline_s=PLAY_S)
    return lines


def test_the_play_claims_its_work_and_asks_its_questions(tmp_path: Path, played: list[Mail]) -> None:
    root = production(tmp_path / "production")
    lines = asyncio.run(_play_over_mcp(root))
    run(check_that_all_is_said_once_and_done_with(root, played))
    assert len(lines) == len(played)
    unclaimed: list[dict[str, Any]] = []
    for name in ROLES:
        claimed = claims(root, name)
        assert set(claimed.values()) == {1}
        unclaimed += [record for record in records(root / f"{name}.jsonl") if record["id"] not in claimed]
    # The answers alone came as replies to who had asked.
    assert [each["msg_type"] for each in unclaimed] == ["answer"] * len(of_type("answer", played))
    asked = [number for number, line in enumerate(lines) if "  query: " in line]
    answered = [number for number, line in enumerate(lines) if "  answer: " in line]
    assert all(question < answer for question, answer in zip(asked, answered, strict=True))


DOOMED = """
import asyncio, sys
from tools.swarm.agents import ScriptedAgent

name, url, moment = sys.argv[1:]

def report(line):
    if f"  {moment}" in line:
        print("at work", flush=True)
        sys.stdin.read()  # for ever, and with it everything else that this process does

async def main():
    await ScriptedAgent(name, url, report, lease_s=2).play(asyncio.get_running_loop().create_future())

asyncio.run(main())
"""
"""An agent that stands still at the moment it would post a certain message."""


async def _play_with_a_death(root: Path, victim: str, moment: str) -> None:
    others = [name for name in AGENTS if name != victim]
    async with serving(root) as url, asyncio.TaskGroup() as group:
        with python(DOOMED, victim, url, moment) as doomed:
            group.create_task(play(url, print, agents=others, deadline_s=PLAY_S))
            assert await asyncio.to_thread(said, doomed) == "at work"
            doomed.kill()
            await asyncio.to_thread(doomed.wait)
        brief: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        brief.set_result(records(root / "story_architect.jsonl")[0]["id"])
        await ScriptedAgent(victim, url, print).play(brief)


@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        pytest.param("quality_assessor", "feedback: v1", id="between two posts"),
        pytest.param("narrator", "narration: v2", id="after the reply to its question"),
    ],
)
def test_an_agent_killed_at_its_work_is_replaced_and_nothing_is_posted_twice(
    tmp_path: Path, played: list[Mail], victim: str, moment: str
) -> None:
    root = production(tmp_path / "production")
    asyncio.run(_play_with_a_death(root, victim, moment))
    run(check_that_all_is_said_once_and_done_with(root, played))
    assert claims(root, victim).most_common(1)[0][1] > 1


def _asks_the_other(other: str) -> Role:
    def respond(mail: Mail, talk: Conversation) -> Turn:
        if mail.msg_type == "note":
            return Turn((Draft("query", {"text": "What do you think?"}, (other,), mail.id),))
        if mail.msg_type == "query":
            return Turn((Draft("answer", {"text": "I was going to ask you."}, (), mail.id),))
        return Turn((Draft("note", {"text": "Thank you."}, (WRITER,), mail.id),))

    return Role("", frozenset({"note", "query", "answer"}), respond)


async def _ask_each_other(root: Path) -> list[str]:
    async with serving(root) as url, Mailroom(root) as room:
        members = [ScriptedAgent(name, url, print, ask_s=0.2) for name in ("narrator", "dialogist")]
        await room.post(["narrator", "dialogist"], sender=WRITER, msg_type="note", payload={"text": "Discuss."})
        thanks: list[str] = []
        async with on_stage(*members):
            while len(thanks) < 2:
                page = await room.wait(WRITER, ack=True)
                thanks += [message.sender for message in page.messages]
    return sorted(thanks)


def test_two_who_ask_each_other_both_get_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROLES, "narrator", _asks_the_other("dialogist"))
    monkeypatch.setitem(ROLES, "dialogist", _asks_the_other("narrator"))
    assert run(_ask_each_other(production(tmp_path / "production"))) == ["dialogist", "narrator"]


def _failing(times: int) -> Role:
    """A story architect who has bad luck so many times."""
    left = times

    def respond(mail: Mail, talk: Conversation) -> Turn:
        nonlocal left
        left -= 1
        if left >= 0:
            raise KeyError("beats")
        return architect.respond(mail, talk)

    architect = ROLES["story_architect"]
    return architect._replace(respond=respond)


async def _commission(root: Path) -> tuple[list[str], str]:
    lines: list[str] = []
    async with (
        serving(root) as url,
        Mailroom(root) as room,
        on_stage(ScriptedAgent("story_architect", url, lines.append)),
    ):
        await room.post("story_architect", sender=WRITER, msg_type="brief", payload=story.BRIEF)
        page = await room.wait("scene_director")
        return lines, page.messages[0].msg_type


def test_work_that_fails_is_given_back_and_done_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_agents, "_PAUSE_S", 0)
    monkeypatch.setitem(ROLES, "story_architect", _failing(2))
    root = production(tmp_path / "production")
    lines, answer = run(_commission(root))
    assert lines[:2] == ["story_architect fails at brief from writer: KeyError: 'beats'"] * 2
    assert answer == "scene_plan"
    assert list(claims(root, "story_architect").values()) == [3]


def test_work_that_keeps_failing_is_rejected_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_agents, "_PAUSE_S", 0)
    monkeypatch.setitem(ROLES, "story_architect", _failing(100))
    root = production(tmp_path / "production")
    with pytest.raises(GaveUp, match=r"story_architect could not answer story_architect:1~\w+.*: KeyError: 'beats'"):
        asyncio.run(_play_over_mcp(root))
    (letter,) = records(root / "dead_letters.jsonl")
    assert letter["payload"]["reason"] == "KeyError: 'beats'"
    assert letter["reply_to"] == records(root / "story_architect.jsonl")[0]["id"]
