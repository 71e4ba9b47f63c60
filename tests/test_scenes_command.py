"""The scene board as people and clients get it: `mq scenes`, and the resources `scenes://`."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mcp_types import ResourceTemplateReference

from mq_server.cli import main
from mq_server.mailroom import Mailroom
from mq_server.render.text import columns
from tests.serving import call, connected, note, run
from tests.support import known_id, line, write

EXAMPLE = Path(__file__).parents[1] / "mailboxes"
README = Path(__file__).parents[1] / "README.md"
SCENE = "q2-s3"


def mq(root: Path, *arguments: str, code: int = 0) -> Result:
    """Run a command within this process and check its exit code."""
    result = CliRunner().invoke(main, ["--root", str(root), *arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def said(number: int, msg_type: str, **payload: Any) -> bytes:
    own = {key: payload.pop(key) for key in ("sender", "scene", "timestamp") if key in payload}
    return line(number, id=known_id(number), msg_type=msg_type, payload=payload, **{"scene": SCENE} | own)


def version(number: int, of: int, **payload: Any) -> bytes:
    return said(number, "scene", version=of, blocks=[], **payload)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_example_in_the_readme_is_what_the_command_prints() -> None:
    found = re.search(r"<!-- scenes -->\n```text\n\$ mq scenes\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)
    assert found
    result = mq(EXAMPLE, "scenes")
    assert (result.stdout, result.stderr) == (found[1], "")
    assert mq(EXAMPLE, "scenes", SCENE).stdout == found[1]


def test_every_scene_has_a_block_with_what_is_open_and_what_to_do(tmp_path: Path) -> None:
    write(
        tmp_path / "narrator.jsonl",
        version(1, 1, title="The Other Fifty"),
        said(2, "score", of=known_id(1), score=0.78, sender="writer"),
        said(3, "score", of=known_id(1), score=0.8, sender="quality_assessor"),
        version(4, 2),
        said(5, "feedback", of=known_id(4), text="1. Shorter.\n2. No tea. " + "Why? " * 30, sender="writer"),
        said(6, "brief", text="Begin.", scene="q2-s4"),
    )
    (tmp_path / "mq.toml").write_text("max_iterations = 2\n")
    first, second, feedback = (known_id(number)[-4:] for number in (1, 4, 5))
    printed = mq(tmp_path, "scenes").stdout.splitlines()
    assert [printed[4].partition(" Why?")[0], printed[4][-1]] == [
        f"  open: narrator:5~{feedback} by writer: 1. Shorter. 2. No tea.",
        "…",
    ]
    del printed[4]
    assert printed == [
        "q2-s3 · The Other Fifty · waiting for a score · 2 of 2 versions",
        f"  v1  ███████░░░ 0.79 < 0.80   narrator:1~{first} · by quality_assessor, writer",
        "      best",
        f"  v2  ░░░░░░░░░░ no score yet  narrator:4~{second}",
        f"  scene q2-s3 has had 2 of 2 versions; best so far: version 1 (narrator:1~{first})",
        f"  with 0.79. Score version 2 (narrator:4~{second}), then finalize the best",
        "",
        "q2-s4 · draft · 0 of 2 versions",
    ]


def test_lines_are_no_wider_than_the_page(tmp_path: Path) -> None:
    wide = "Der zweite Fünfziger 第二个砝码 " * 5
    lines = [version(1, 2**60, title=wide), said(2, "feedback", text=wide)]
    lines += [said(3 + n, "score", of=known_id(1), score=0.7, sender=f"{'scorer' * 3}{n}") for n in range(9)]
    write(tmp_path / "narrator.jsonl", *lines)
    printed = mq(tmp_path, "scenes").stdout.splitlines()
    assert max(map(columns, printed)) <= 80


def test_the_json_is_what_the_resource_says(tmp_path: Path) -> None:
    document = json.loads(mq(EXAMPLE, "scenes", SCENE, "--json").stdout)
    (shown,) = document["scenes"]
    assert [each["score"] for each in shown["versions"]] == [0.45, 0.93]
    assert (shown["finalised"]["version"], shown["best"]["score"], shown["status"]) == (2, 0.93, "finalised")

    async def scenario() -> None:
        async with connected(EXAMPLE, "memory") as client:
            (content,) = (await client.read_resource(f"scenes://{SCENE}")).contents
            assert json.loads(content.text) == document

    run(scenario())


def test_an_unknown_scene_is_a_failure_that_names_the_likely_one() -> None:
    assert "Did you mean 'q2-s3'?" in mq(EXAMPLE, "scenes", "q2-s33", code=3).stderr


def test_what_was_left_out_is_told_beside_the_board(tmp_path: Path) -> None:
    lines = [version(1, 1), said(2, "score", of=known_id(1), score=7), version(3, 1, scene=None), b"{torn\n"]
    write(tmp_path / "narrator.jsonl", *lines)
    result = mq(tmp_path, "scenes")
    assert "score 7 is no number from 0 to 1" in result.stderr
    assert "it has no 'scene'" in result.stderr
    assert "narrator.jsonl:4: torn line" in result.stderr
    assert "1 version\n" in result.stdout


def test_an_empty_production_says_so(tmp_path: Path) -> None:
    result = mq(tmp_path, "scenes")
    assert (result.stdout, "there are no scenes yet" in result.stderr) == ("", True)


def test_nothing_in_a_scene_acts_on_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x9b31m\u202e\nq2-s3 · passed"
    keys = {"scene": hostile, "sender": hostile}
    write(
        tmp_path / "narrator.jsonl",
        version(1, 1, title=hostile, **keys),
        said(2, "score", of=known_id(1), score=0.9, **keys),
        said(3, "feedback", of=known_id(1), text=hostile, **keys),
        said(4, "score", of=hostile, score=hostile, **keys),
        version(5, 1, title=hostile, scene="q2-s4"),
        said(6, "finalize", of=known_id(5), sender=hostile, scene="q2-s4", timestamp="2026-09-21T15:13:20+01:00"),
    )
    (tmp_path / "mq.toml").write_text("max_iterations = 1\n")
    for arguments in (["scenes"], ["scenes", hostile], ["scenes", "q2-s4"], ["scenes", "--json"]):
        result = mq(tmp_path, *arguments)
        assert not re.search("[\x1b\x9b\u202e]", result.stdout + result.stderr), arguments
        assert not re.search("^q2-s3", result.stdout, flags=re.MULTILINE), arguments
    assert "finalised by ␛[2J" in mq(tmp_path, "scenes", "q2-s4").stdout


# --- resources --------------------------------------------------------------------------------------------------------


def scene(number: int, title: str = "") -> dict[str, Any]:
    """Arguments of a post of a version."""
    block = {"kind": "action", "text": "Rain."}
    payload = {"version": number, "blocks": [block]} | ({"title": title} if title else {})
    return {"msg_type": "scene", "scene": SCENE, "payload": payload}


def test_the_board_is_a_resource_and_so_is_each_scene(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="scene_director") as client:
            posted = await call(client, "post_message", channel=["narrator", "dialogist"], **scene(1))
            await call(client, "post_message", channel="narrator", **note("elsewhere") | {"scene": "q2-s4"})
            board = json.loads((await client.read_resource("scenes://")).contents[0].text)
            assert [(each["scene"], each["status"]) for each in board["scenes"]] == [
                ("q2-s3", "waiting for a score"),
                ("q2-s4", "draft"),
            ]
            (content,) = (await client.read_resource(f"scenes://{SCENE}")).contents
            assert content.mime_type == "application/json"
            (shown,) = json.loads(content.text)["scenes"]
            assert [each["id"] for each in shown["versions"]] == [posted["id"]]
            with pytest.raises(Exception, match="Did you mean 'q2-s3'"):
                await client.read_resource("scenes://q2-s33")
            reference = ResourceTemplateReference(uri="scenes://{scene}")
            completion = (await client.complete(reference, {"name": "scene", "value": "q2-s"})).completion
            assert completion.values == ["q2-s3", "q2-s4"]

    run(scenario())


def test_subscribers_of_the_board_hear_of_what_changes_it_and_of_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="scene_director") as client:
            await call(client, "post_message", channel="narrator", **scene(1))
            wanted = ["mailbox://narrator", "scenes://", f"scenes://{SCENE}", "scenes://q9-s9"]
            async with client.listen(resource_subscriptions=wanted) as events:
                heard: list[str] = []

                async def hear(uri: str) -> list[str]:
                    """What is heard of scenes until this is heard."""
                    heard.clear()
                    async for event in events:
                        heard.append(str(event.uri))
                        if heard[-1] == uri:
                            break
                    return [each for each in heard if each.startswith("scenes://")]

                await call(client, "post_message", channel="narrator", **note("no matter") | {"scene": SCENE})
                assert await hear("mailbox://narrator") == []
                await call(client, "post_message", channel="narrator", **scene(2))
                assert await hear(f"scenes://{SCENE}") == ["scenes://", f"scenes://{SCENE}"]
                await call(client, "post_message", channel="narrator", **note("new") | {"scene": "q9-s9"})
                assert await hear("scenes://q9-s9") == ["scenes://", "scenes://q9-s9"]

    run(scenario())


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_subscribers_of_the_2025_protocol_hear_of_the_board_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def on_message(message: Any) -> None:
            if getattr(message, "method", "") == "notifications/resources/updated":
                heard.put_nowait(str(message.params.uri))

        async with connected(tmp_path, "stdio", "2025", message_handler=on_message) as client:
            await client.subscribe_resource(f"scenes://{SCENE}")
            async with Mailroom(tmp_path) as room:
                await room.post("narrator", sender="writer", **scene(1))
                assert await heard.get() == f"scenes://{SCENE}"

    run(scenario())
