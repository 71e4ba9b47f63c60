"""The monitor without a browser: who is answered, what is answered, and that its events leave nothing out."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

import mq_server.monitor
from mq_server.mailroom import Mailroom
from mq_server.render.page import stylesheet
from mq_server.server import serving
from tests.monitoring import client, events, heard, monitored, token_of, write_hostile
from tests.rendering import HOSTILE
from tests.serving import run
from tests.test_html import check_harmless, contrast, from_hex

STATIC = Path(mq_server.monitor.__file__).parent / "static"
_MANY_MORE = 150
READS = ("session", "channels", "feed", "scenes", "traffic", "problems", "search?q=rain")


async def said(room: Mailroom, text: str, channel: str | list[str] = "narrator", **options: Any) -> str:
    """Post a note; its id."""
    options = {"sender": "writer", "msg_type": "note"} | options
    return (await room.post(channel, payload={"text": text}, **options)).id


def ids(page: dict[str, Any]) -> list[str]:
    return [message["id"] for message in page["messages"]]


async def get(http: httpx.AsyncClient, path: str, **parameters: Any) -> dict[str, Any]:
    response = await http.get(f"/api/{path}", params=parameters)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


# --- who is answered --------------------------------------------------------------------------------------------------


def test_the_page_and_its_files_are_served_with_a_policy_that_lets_nothing_else_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path) as http:
            page = await http.get("/")
            assert page.headers["content-type"].startswith("text/html")
            wanted = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
            assert len(wanted) >= 5
            assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?://", page.text)
            for path in wanted:
                answer = await http.get(path)
                assert answer.status_code == 200
                for line in re.findall(r'from "\./(\w+\.js)"', answer.text):
                    assert (await http.get(f"/static/{line}")).headers["content-type"].startswith("text/javascript")
                again = await http.get(path, headers={"If-None-Match": answer.headers["etag"]})
                assert again.status_code == 304
            for path in ("/", "/static/app.js", "/static/none.js", "/api/feed", "/api/thread?id=none"):
                headers = (await http.get(path)).headers
                assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
                assert "unsafe" not in headers["content-security-policy"]
                assert headers["x-content-type-options"] == "nosniff"
            for path in (
                "/static/../routes.py",
                "/static/%2e%2e/routes.py",
                "/static/..%2froutes.py",
                "/static/none.js",
            ):
                assert (await http.get(path)).status_code == 404

    run(scenario())


def test_a_strange_host_or_origin_is_answered_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path) as http:
            for path in ("/", "/static/app.js", "/events", *(f"/api/{name}" for name in READS)):
                assert (await http.get(path, headers={"Host": "evil.example"})).status_code == 421
                assert (await http.get(path, headers={"Origin": "http://evil.example"})).status_code == 403
                if not path.startswith(("/static", "/events")) and path != "/":
                    assert (await http.get(path, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
                    assert (await http.get(path, headers={"Sec-Fetch-Site": "same-site"})).status_code == 403
                    assert (await http.get(path, headers={"Sec-Fetch-Site": "same-origin"})).status_code == 200
            headers = await token_of(http)
            for strange in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
                answer = await http.post("/api/post", headers=headers | strange, json=NOTE)
                assert answer.status_code in (403, 421)
            # Another server of this machine has an allowed name and is another origin all the same.
            other = await http.post("/api/post", headers=headers | {"Origin": "http://127.0.0.1:1"}, json=NOTE)
            assert other.status_code == 403
            assert not (tmp_path / "narrator.jsonl").exists()

    run(scenario())


NOTE = {"sender": "writer", "channel": "narrator", "type": "note", "payload": {"text": "Rain."}}


def test_a_post_needs_the_pages_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path) as http:
            for headers in ({}, {"X-Mq-Token": "wrong"}):
                for path in ("post", "read", "letters", "vanished"):
                    assert (await http.post(f"/api/{path}", headers=headers, json=NOTE)).status_code == 403
            headers = await token_of(http)
            form = await http.post("/api/post", headers=headers, data={"channel": "narrator"})
            assert form.status_code == 415
            assert (await http.get("/api/post", headers=headers)).status_code == 405
            for body in (b"{", b"[]", b"\xff", b"x" * 3_000_000):
                answer = await http.post(
                    "/api/post", headers=headers | {"Content-Type": "application/json"}, content=body
                )
                assert answer.status_code in (400, 413)
            assert not (tmp_path / "narrator.jsonl").exists()
            origin = {"Origin": str(http.base_url).rstrip("/")}
            answer = await http.post("/api/post", headers=headers | origin, json=NOTE)
            assert answer.status_code == 200
            assert answer.json()["ref"].startswith("narrator:1~")

    run(scenario())


def test_read_only_turns_posting_off_and_tells_no_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path, read_only=True) as http:
            session = await get(http, "session")
            assert session["read_only"] is True
            assert session["token"] is None
            for headers in ({}, {"X-Mq-Token": ""}, {"X-Mq-Token": "None"}):
                answer = await http.post("/api/post", headers=headers, json=NOTE)
                assert answer.status_code == 403
                assert "--read-only" in answer.json()["error"]
                for path in ("read", "letters", "vanished"):
                    assert (await http.post(f"/api/{path}", headers=headers, json=NOTE)).status_code == 403
            assert (await get(http, "feed"))["messages"] == []

    run(scenario())


# --- what is answered -------------------------------------------------------------------------------------------------


def test_the_feed_pages_both_ways_over_any_channels_and_jumps_to_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            sent = [
                await said(room, f"{number}", ["narrator", "dialogist", "writer"][number % 3]) for number in range(12)
            ]
            both = await said(room, "to two", ["narrator", "dialogist"])
        sent.append(both)
        async with monitored(tmp_path) as http:
            newest = await get(http, "feed", limit=5)
            assert ids(newest) == sent[-5:]
            assert (newest["older"], newest["newer"]) == (True, False)
            older = await get(http, "feed", limit=5, before=sent[-5])
            assert ids(older) == sent[-10:-5]
            assert (older["older"], older["newer"]) == (True, True)
            oldest = await get(http, "feed", limit=5, before=sent[3])
            assert ids(oldest) == sent[:3]
            assert oldest["older"] is False
            after = await get(http, "feed", limit=20, after=sent[8])
            assert ids(after) == sent[9:]
            assert (after["older"], after["newer"]) == (True, False)
            at = await get(http, "feed", limit=2, at=newest["messages"][0]["timestamp"])
            assert ids(at) == sent[-5:-3]
            assert (at["older"], at["newer"]) == (True, True)
            assert ids(await get(http, "feed", at="1970-01-01T00:00:00Z", limit=1)) == sent[:1]
            pair = await get(http, "feed", channel=["narrator", "dialogist"])
            assert ids(pair) == [each for number, each in enumerate(sent) if number % 3 != 2 or number == 12]
            assert ids(await get(http, "feed", channel="writer")) == sent[2:12:3]
            assert ids(await get(http, "feed", sender="nobody")) == []
            # Where a page stands in the whole: thirteen messages, the last of them in two mailboxes.
            assert newest["rows"] == {"total": 14, "first": 8, "last": 12}
            assert oldest["rows"] == {"total": 14, "first": 0, "last": 2}
            assert (await get(http, "feed", sender="nobody"))["rows"] == {"total": 14}
            for row in range(12):
                found = await get(http, "feed", row=row, limit=2)
                assert ids(found) == sent[row : row + 2]
                assert found["rows"]["first"] == row
                assert found["older"] is (row > 0)
            assert ids(await get(http, "feed", row=2, channel="writer")) == sent[8:12:3]
            assert ids(await get(http, "feed", row=99)) == []

    run(scenario())


def test_a_message_looks_as_in_an_export(tmp_path: Path) -> None:
    async def scenario() -> None:
        from mq_server.render.html import message_html

        async with Mailroom(tmp_path) as room:
            first = await said(room, "Why?", msg_type="query")
            await said(room, "So.", reply_to=first, channel="writer", sender="narrator")
            messages = (await room.activity()).messages
            found = {message.id: message for message in messages}
        async with monitored(tmp_path) as http:
            shown = await get(http, "feed")
        assert [each["html"] for each in shown["messages"]] == [message_html(each, found) for each in messages]
        assert messages[1].reply_to in shown["messages"][1]["html"]

    run(scenario())


def test_thread_status_scenes_search_traffic_and_problems_are_the_facades(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            version = await room.post(
                "quality_assessor",
                sender="scene_director",
                msg_type="scene",
                scene="q2-s3",
                payload={"version": 1, "blocks": [{"kind": "action", "text": "Rain on the tin roof."}]},
            )
            score = await room.post(
                reply_to=version.id,
                sender="quality_assessor",
                msg_type="score",
                payload={"of": version.id, "score": 0.9},
            )
            await room.settle("quality_assessor", ack=version.id)
        with (tmp_path / "narrator.jsonl").open("ab") as file:
            file.write(b"<<<<<<< HEAD\n")
        async with monitored(tmp_path) as http:
            thread = await get(http, "thread", id=score.id)
            assert [(each["id"], each["depth"]) for each in thread["messages"]] == [(version.id, 0), (score.id, 1)]
            status = await get(http, "status", id=version.ref)
            assert status["progress"][0]["state"] == "acked"
            assert [step["did"] for step in status["progress"][0]["steps"]][-1] == "acked"
            (scene,) = (await get(http, "scenes"))["scenes"]
            assert scene["status"] == "passed"
            assert "0.90" in scene["versions"][0]["gauge"]
            (hit,) = (await get(http, "search", q="TIN", sender="scene_director"))["hits"]
            assert hit["id"] == version.id
            assert "tin roof" in hit["snippet"]
            assert (await get(http, "search", q="tin", type="score"))["hits"] == []
            traffic = await get(http, "traffic", width=500)
            assert traffic["total"] == 2
            assert traffic["bars"]["width"] == 500
            assert traffic["chart"].startswith("<svg")
            assert sorted(count for row in traffic["pairs"] for count in row) == [0, 0, 1, 1]
            later = await get(http, "traffic", since=score.id)
            assert later["total"] == 1
            problems = await get(http, "problems")
            (damaged,) = problems["damaged"]
            assert (damaged["path"], damaged["line"]) == ("narrator.jsonl", 1)
            for path, status_code in (
                ("thread", 400),
                ("thread?id=ZZZZZZ", 404),
                ("search?q=", 400),
                ("feed?limit=x", 400),
            ):
                answer = await http.get(f"/api/{path}")
                assert answer.status_code == status_code, path
                assert answer.json()["error"]

    run(scenario())


def test_people_take_part_by_the_same_facade_as_agents(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path) as http, Mailroom(tmp_path) as room:
            headers = await token_of(http)
            posted = (await http.post("/api/post", headers=headers, json=NOTE | {"dedup_key": "k"})).json()
            again = (await http.post("/api/post", headers=headers, json=NOTE | {"dedup_key": "k"})).json()
            assert again["id"] == posted["id"]
            (message,) = (await room.read("narrator")).messages
            assert (message.sender, message.payload) == ("writer", {"text": "Rain."})
            answer = {"sender": "narrator", "type": "note", "payload": {"text": "Snow."}, "reply_to": posted["ref"]}
            reply = (await http.post("/api/post", headers=headers, json=answer)).json()
            assert [each.id for each in (await room.thread(posted["id"])).messages] == [posted["id"], reply["id"]]
            mark = {"channel": "writer", "reader": "writer", "ids": [reply["id"]]}
            assert (await http.post("/api/read", headers=headers, json=mark)).status_code == 200
            assert (await room.read("writer")).messages == ()
            mark = {"channel": "narrator", "reader": "narrator"}
            assert (await http.post("/api/read", headers=headers, json=mark)).json()["read"] == 1
            wrong = await http.post("/api/post", headers=headers, json=NOTE | {"payload": {"txt": "x"}})
            assert wrong.status_code == 400
            assert "payload.text" in wrong.json()["error"]
            assert wrong.json()["faults"][0] == "payload.text: field required"
            assert (await get(http, "form", type="note"))["fields"][0]["name"] == "text"
            assert (await get(http, "form", type="nothing laid down"))["fields"] is None
            for fault in ({"sender": "No Name"}, {"channel": 3}, {"payload": []}, {"type": 1}, {"sender": None}):
                assert (await http.post("/api/post", headers=headers, json=NOTE | fault)).status_code == 400

    run(scenario())


def test_dead_letters_and_what_vanished_are_decided_by_the_facade(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path) as http, Mailroom(tmp_path) as room:
            headers = await token_of(http)

            async def decided(path: str, **fields: Any) -> int:
                return (await http.post(f"/api/{path}", headers=headers, json=fields)).status_code

            first, second = await said(room, "one"), await said(room, "two")
            await room.settle("narrator", reject=[first, second], reason="no")
            letters = (await get(http, "problems"))["dead_letters"]
            assert [each["reason"] for each in letters["messages"]] == ["no", "no"]
            assert (await decided("letters", op="reopen", ids=[letters["messages"][0]["id"]], caller="writer")) == 200
            assert (await decided("letters", op="ack", ids=[letters["messages"][1]["id"]], caller="writer")) == 200
            assert [each.id for each in (await room.read("narrator", ack=True)).messages] == [first]
            assert (await get(http, "problems"))["dead_letters"] == {"unread": 0, "messages": []}
            (tmp_path / "narrator.jsonl").write_bytes(b"")
            lost = [
                each["id"] for each in (await get(http, "problems"))["vanished"] if each["file"] == "narrator.jsonl"
            ]
            assert lost == [first, second]
            assert (await decided("vanished", op="restore", ids=[first])) == 200
            assert (await decided("vanished", op="accept", ids=[second])) == 200
            assert (await get(http, "problems"))["vanished"] == []
            assert ids(await get(http, "feed", channel="narrator")) == [first]
            for fields in ({"op": "burn", "ids": [first]}, {"op": "restore"}, {"op": "restore", "ids": [1]}):
                assert (await decided("vanished", **fields)) == 400
                assert (await decided("letters", **fields)) == 400
            assert (await decided("vanished", op="accept", ids=[first])) == 404

    run(scenario())


@pytest.mark.parametrize("text", [HOSTILE, "'\"><svg onload=alert(1)>", "\u202egnp\u202c\x1b]0;x\x07"])
def test_hostile_messages_come_as_harmless_markup(tmp_path: Path, text: str) -> None:
    count = write_hostile(tmp_path, text)

    async def scenario() -> None:
        async with monitored(tmp_path) as http:
            feed = await get(http, "feed", limit=100)
            assert len(feed["messages"]) > count // 2
            for message in feed["messages"]:
                check_harmless(f"<!doctype html><html><body>{message['html']}</body></html>")
                for name in ("by", "type", "gist"):
                    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", message[name])
                thread = await get(http, "thread", id=message["id"])
                assert message["id"] in ids(thread)
            check_harmless(f"<!doctype html><html><body>{(await get(http, 'traffic'))['chart']}</body></html>")
            await get(http, "scenes")
            await get(http, "channels")

    run(scenario())


def test_every_pair_of_colours_can_be_read_in_both_themes() -> None:
    themes: list[dict[str, str]] = [{}, {}]
    for sheet in (stylesheet("message.css"), (STATIC / "layout.css").read_text(encoding="utf-8")):
        for theme, block in zip(themes, re.findall(r":root \{(.*?)\}", sheet, re.S), strict=True):
            theme.update(re.findall(r"--([\w-]+): (#\w{6})", block))
    pairs = [(ink, paper) for ink in ("ink", "faint") for paper in ("paper", "raised", "well", "hover", "chosen")]
    pairs += [("good", "good-paper"), ("bad", "bad-paper"), ("paper", "ink")]
    pairs += [(ink, paper) for ink in ("good", "bad", "accent") for paper in ("paper", "raised", "well")]
    for theme in themes:
        for ink, paper in pairs:
            assert contrast(from_hex(theme[ink]), from_hex(theme[paper])) >= 4.5, (ink, paper)
    for theme, ink in zip(themes, ("#1b160b", "#ffffff"), strict=True):  # the buttons in the accent's colour
        assert contrast(from_hex(ink), from_hex(theme["accent"])) >= 4.5


# --- what is new ------------------------------------------------------------------------------------------------------


def test_a_change_by_another_process_or_an_editor_comes_within_a_second_or_two(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            first = await said(room, "one")
            async with monitored(tmp_path) as http, events(http) as stream:
                await heard(stream, "hello")
                second = await said(room, "two")
                event = await heard(stream)
                assert ids(event.content) == [second]
                assert "two" in event.content["messages"][0]["html"]
                path = tmp_path / "narrator.jsonl"
                edited = tmp_path / "narrator.jsonl~"
                edited.write_bytes(path.read_bytes().replace(b'"one"', b'"won"'))
                edited.replace(path)
                assert (await heard(stream, "changed")).content["channels"] == ["narrator"]
                assert "won" in (await get(http, "message", id=first))["html"]
                assert (await get(http, "problems"))["looked_s"] < 10
                await room.settle("narrator", ack=first)
                assert (await heard(stream, "changed")).content["channels"] == ["narrator"]

    run(scenario())


def test_a_stream_without_news_looks_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq_server.monitor.events.BEAT_S", 0.02)
    asked: list[Any] = []
    activity = Mailroom.activity

    async def counted(room: Mailroom, **options: Any) -> Any:
        asked.append(options)
        return await activity(room, **options)

    async def scenario() -> None:
        async with monitored(tmp_path) as http, events(http) as stream:
            await heard(stream, "beat")
            before = len(asked)
            for _ in range(5):
                await heard(stream, "beat")
            assert len(asked) == before

    monkeypatch.setattr(Mailroom, "activity", counted)
    run(scenario())


def test_a_stream_goes_on_after_a_restart_without_gap_or_double(tmp_path: Path) -> None:
    async def scenario() -> None:
        got: list[str] = []
        async with Mailroom(tmp_path) as room:
            sent = [await said(room, "before")]
            async with monitored(tmp_path) as http, events(http) as stream:
                place = (await heard(stream, "hello")).place
                sent += [await said(room, f"{number}", f"agent_{number % 3}") for number in range(5)]
                while len(got) < 5:
                    event = await heard(stream)
                    place, got = event.place, got + ids(event.content)
            sent += [await said(room, f"meanwhile {number}") for number in range(250)]
            async with monitored(tmp_path) as http, events(http, place) as stream:
                sent.append(await said(room, "after"))
                while len(got) < len(sent) - 1:
                    event = await heard(stream)
                    got += ids(event.content)
                    assert event.content["again"] is False
                sent.append(await said(room, "last"))
                got += ids((await heard(stream)).content)
        assert got == sent[1:]

    run(scenario())


def test_a_merge_into_the_past_is_told_and_misses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path / "other") as other, Mailroom(tmp_path / "here") as room:
            late = await said(other, "written on another branch")
            first = await said(room, "here")
            async with monitored(tmp_path / "here") as http, events(http) as stream:
                await heard(stream, "hello")
                merged = (tmp_path / "other" / "narrator.jsonl").read_bytes()
                path = tmp_path / "here" / "narrator.jsonl"
                path.write_bytes(merged + path.read_bytes())
                event = await heard(stream)
                assert event.content["again"] is True
                assert late in ids(event.content)
                assert ids(await get(http, "feed")) == [late, first]

    run(scenario())


def test_after_a_merge_into_a_long_past_the_page_looks_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path / "other") as other, Mailroom(tmp_path / "here") as room:
            await said(other, "written on another branch")
            for number in range(_MANY_MORE):
                await said(room, f"{number}")
            async with monitored(tmp_path / "here") as http, events(http) as stream:
                await heard(stream, "hello")
                path = tmp_path / "here" / "narrator.jsonl"
                path.write_bytes((tmp_path / "other" / "narrator.jsonl").read_bytes() + path.read_bytes())
                assert (await anext(stream)).name == "merged"
                last = await said(room, "after")
                assert ids((await heard(stream)).content) == [last]

    run(scenario())


def test_a_place_that_means_nothing_starts_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with monitored(tmp_path) as http, events(http, "n.time.nonsense") as stream:
            assert (await anext(stream)).name == "lost"
            assert (await anext(stream)).name == "hello"

    run(scenario())


def test_open_streams_do_not_hold_up_the_end_of_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url:
            http = client(url)
            stream = events(http)
            heard_of = await stream.__aenter__()
            await heard(heard_of, "hello")
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 5
        with pytest.raises((StopAsyncIteration, httpx.HTTPError)):
            await heard(heard_of)
        await stream.__aexit__(None, None, None)
        await http.aclose()

    run(scenario())
