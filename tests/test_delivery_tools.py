"""Claims, settling, questions and the sender's view as MCP clients have them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from mq_server.server import serving
from tests.serving import TRANSPORTS, address, call, connected, failing, note, run
from tests.support import write


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_consumers_share_a_mailbox_over_mcp(tmp_path: Path, transport: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, transport, identity="narrator") as client:
            for text in ("a", "b", "c"):
                await call(client, "post_message", channel="narrator", **note(text))
            claim = {"channel": "narrator", "lease_s": 60, "limit": 1}
            first = await call(client, "read_messages", consumer="one", **claim)
            second = await call(client, "wait_for_messages", consumer="two", **claim)
            assert [page["messages"][0]["payload"]["text"] for page in (first, second)] == ["a", "b"]
            held = first["messages"][0]
            assert (held["lease"].split("@")[0], held["deliveries"]) == (held["id"], 1)
            taken = await failing(client, "settle_messages", channel="narrator", ack=[held["id"]], consumer="two")
            assert re.search(r"held by one for another \d+ s", taken)
            done = await call(client, "settle_messages", channel="narrator", ack=[held["lease"]])
            assert done["acked"] == [held["id"]]
            second_id = second["messages"][0]["id"]
            given = await call(client, "settle_messages", channel="narrator", release=[second_id], consumer="two")
            assert given["released"] == [second_id]
            rest = await call(client, "read_messages", channel="narrator")
            assert [message["payload"]["text"] for message in rest["messages"]] == ["b", "c"]

    run(scenario())


def test_a_rejected_message_is_a_dead_letter_and_comes_back_when_it_is_reopened(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            posted = await call(client, "post_message", channel="narrator", **note("poison"))
            rejected = await call(
                client, "settle_messages", channel="narrator", reject=[posted["ref"]], reason="unreadable"
            )
            letters = await call(client, "read_messages", channel="dead_letters")
            letter = letters["messages"][0]
            assert (rejected["rejected"], rejected["dead_letters"]) == ([posted["id"]], [letter["id"]])
            assert letter["payload"]["reason"] == "unreadable"
            assert letter["payload"]["message"]["payload"] == {"text": "poison"}
            await call(client, "settle_messages", channel="dead_letters", reopen=[letter["id"]])
            assert [m["id"] for m in (await call(client, "read_messages", channel="narrator"))["messages"]] == [
                posted["id"]
            ]

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "nothing to settle"),
        ({"ack": ["narrator:1"], "seek": "now"}, "seek forgets what was settled"),
        ({"extend": ["narrator:1"]}, "extend needs lease_s"),
        ({"extend": ["narrator:1"], "lease_s": 7200}, "give seconds up to 3600 .max_lease_s"),
        ({"ack": ["narrator:7"]}, "narrator has no readable message on line 7"),
        ({"ack": ["narrator:1"], "reader": "narator"}, "no reader 'narator'. Did you mean 'narrator'"),
        ({"release": ["narrator:1"]}, "nobody holds it"),
        ({"seek": "whenever"}, "No message is named 'whenever'"),
    ],
)
def test_a_wrong_settlement_is_refused_and_changes_nothing(
    tmp_path: Path, arguments: dict[str, Any], says: str
) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            await call(client, "post_message", channel="narrator", **note("x"))
            text = await failing(client, "settle_messages", channel="narrator", **arguments)
            assert re.search(says, text)
            assert not (tmp_path / "receipts").exists()

    run(scenario())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_question_brings_its_answer_back_in_the_same_call(tmp_path: Path, transport: str) -> None:
    async def scenario() -> None:
        async with (
            connected(tmp_path, transport, identity="narrator") as asker,
            connected(tmp_path, transport, identity="continuity_service") as service,
        ):
            question = {"msg_type": "query", "payload": {"text": "Rain?"}, "dedup_key": "rain", "wait_reply_s": 20}
            asking = asyncio.create_task(call(asker, "post_message", channel="continuity_service", **question))
            page = await call(service, "wait_for_messages", channel="continuity_service", timeout_s=20, ack=True)
            told = {"msg_type": "answer", "payload": {"text": "Snow."}}
            await call(service, "post_message", reply_to=page["messages"][0]["id"], **told)
            assert (await asking)["reply"]["payload"] == {"text": "Snow."}
            assert not (await call(asker, "read_messages", channel="narrator"))["messages"], "handed over is read"
            again = await call(asker, "post_message", channel="continuity_service", **question)
            assert (again["duplicate"], again["reply"]["payload"]) == (True, {"text": "Snow."})

    run(scenario())


def test_two_agents_that_ask_each_other_see_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url, Client(address(url, "a")) as first, Client(address(url, "b")) as second:
            question = {"msg_type": "query", "payload": {"text": "You?"}, "wait_reply_s": 0.5}
            answers = await asyncio.gather(
                call(first, "post_message", channel="b", **question),
                call(second, "post_message", channel="a", **question),
            )
            for answer, other in zip(answers, ("b", "a"), strict=True):
                reply = answer["reply"]
                assert reply["timed_out"] is True
                assert answer["id"] in reply["go_on"]
                assert [(each["sender"], each["msg_type"]) for each in reply["others"]] == [(other, "query")]

    run(scenario())


def test_an_agent_that_lost_its_context_is_told_what_it_holds_and_still_asks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            work = await call(client, "post_message", channel="narrator", **note("work"))
            asked = await call(client, "post_message", channel="dialogist", msg_type="query", payload={"text": "Who?"})
            answered = await call(client, "post_message", channel="dialogist", msg_type="query", payload={"text": "?"})
            await call(client, "read_messages", channel="narrator", lease_s=60)
            async with connected(tmp_path, "memory", identity="dialogist") as other:
                await call(other, "post_message", reply_to=answered["id"], msg_type="answer", payload={"text": "I."})
            told = await call(client, "list_channels")
            assert told["you"] == "narrator"
            assert [(held["ref"], held["held_by"]) for held in told["holds"]] == [(work["ref"], "narrator")]
            assert [question["ref"] for question in told["unanswered"]] == [asked["ref"]]
            assert len(told["last_posts"]) == 3

    run(scenario())


def test_a_limit_out_of_bounds_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            for limit in (0, 1001):
                assert "limit is" in await failing(client, "read_messages", channel="narrator", limit=limit)

    run(scenario())


def test_a_guard_refuses_with_advice(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b"max_unread = 1\nmax_reply_depth = 1\n")

    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="writer") as client:
            first = await call(client, "post_message", channel="narrator", **note("1"))
            full = await failing(client, "post_message", channel="narrator", **note("2"))
            assert "narrator has 1 of at most 1" in full
            reply = await call(client, "post_message", channel="dialogist", reply_to=first["id"], **note("3"))
            deep = await failing(client, "post_message", channel="shot_composer", reply_to=reply["id"], **note("4"))
            assert "max_reply_depth is 1" in deep and "Nothing was posted" in deep

    run(scenario())


@pytest.mark.parametrize("era", ["2026", "2025"])
def test_the_resource_of_a_message_shows_how_far_it_has_come(tmp_path: Path, era: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", era, identity="narrator") as client:
            posted = await call(client, "post_message", channel="narrator", **note("x"))
            for act, state in (
                (None, "stored"),
                (("read_messages", {}), "fetched"),
                (("read_messages", {"lease_s": 60}), "claimed"),
                (("settle_messages", {"ack": [posted["id"]]}), "acked"),
            ):
                if act:
                    await call(client, act[0], channel="narrator", **act[1])
                content = (await client.read_resource(f"message://{posted['id']}")).contents[0]
                found = json.loads(content.text)
                assert found["message"]["id"] == posted["id"]
                assert [progress["state"] for progress in found["progress"]] == [state]

    run(scenario())
