"""`mq serve` as a process: start, signals, a taken port, the end of stdin, kill -9, git and editors beside it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from mcp.client import Client

from mq_server.mailroom import Mailroom
from tests.serving import address, call, note, run
from tests.support import loaded

SERVE = [sys.executable, "-m", "mq_server"]
GIT = ["git", "-c", "init.defaultBranch=main", "-c", "user.name=Writer", "-c", "user.email=writer@example.org"]


@contextmanager
def served(root: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`mq serve` on a free port, and its URL."""
    process = subprocess.Popen(
        [*SERVE, "--root", str(root), "serve", "--port", "0", *options], stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        assert process.stderr is not None
        url = ""
        while not url:
            line = process.stderr.readline()
            assert line, "the server ended before it listened"
            found = re.search(r"http://\S+/mcp", line)
            url = found[0] if found else ""
        yield process, url
    finally:
        process.kill()
        process.communicate()


async def _waiting(url: str, channel: str) -> None:
    """Return once the server says that somebody waits for the channel."""
    async with Client(address(url, "writer")) as client:
        while True:
            states = (await call(client, "list_channels"))["channels"]
            if any(state["channel"] == channel and state["waiting"] for state in states):
                return


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_within_two_seconds_though_clients_wait(tmp_path: Path, number: int) -> None:
    took_s: list[float] = []

    async def scenario(process: subprocess.Popen[str], url: str) -> None:
        async with Client(address(url, "narrator")) as modern, Client(address(url, "dialogist"), mode="legacy") as old:
            await asyncio.gather(modern.list_tools(), old.list_tools())  # clients check answers against these
            waits = [
                asyncio.create_task(call(modern, "wait_for_messages", channel="narrator", timeout_s=50)),
                asyncio.create_task(call(old, "wait_for_messages", channel="dialogist", timeout_s=50)),
            ]
            await _waiting(url, "narrator")
            await _waiting(url, "dialogist")
            started = time.monotonic()
            process.send_signal(number)
            for page in await asyncio.gather(*waits):
                assert page["timed_out"] is True
            await asyncio.to_thread(process.wait, 20)
            took_s.append(time.monotonic() - started)
            assert process.stderr is not None
            assert "ERROR" not in process.stderr.read()

    with served(tmp_path) as (process, url):
        try:
            run(scenario(process, url))
        except* httpx.ConnectError:
            pass  # the clients say goodbye to a server that is no more
    assert took_s
    assert took_s[0] < 2 * loaded()


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = subprocess.run(
            [*SERVE, "--root", str(tmp_path), "serve", "--port", port],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
    assert finished.returncode == 3
    assert "choose another --port" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_end_of_stdin_ends_a_stdio_server_though_its_client_waits(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*SERVE, "--root", str(tmp_path), "serve", "--stdio", "--as", "narrator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    initialize = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
        '"clientInfo":{"name":"test","version":"1"}}}\n'
    )
    wait = (
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"wait_for_messages",'
        '"arguments":{"channel":"narrator","timeout_s":50}}}\n'
    )
    process.stdin.write(initialize)
    process.stdin.flush()
    assert '"id":1' in process.stdout.readline()
    process.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n' + wait)
    process.stdin.close()
    started = time.monotonic()
    process.wait(timeout=20)
    assert time.monotonic() - started < 5
    process.stdout.close()


def test_nothing_answered_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    answered: list[str] = []

    async def scenario(process: subprocess.Popen[str], url: str) -> None:
        async def post(name: str) -> None:
            async with Client(address(url, name)) as client:
                while True:
                    answered.append((await call(client, "post_message", channel="narrator", **note("x")))["id"])

        posting = [asyncio.create_task(post(name)) for name in ("dialogist", "writer", "shot_composer")]
        while len(answered) < 60:
            await asyncio.sleep(0)
        process.kill()
        await asyncio.gather(*posting, return_exceptions=True)

    with served(tmp_path) as (process, url):
        run(scenario(process, url))
    lines = (tmp_path / "narrator.jsonl").read_text(encoding="utf-8").splitlines()
    for message_id in answered:
        assert sum(f'"id":"{message_id}"' in line for line in lines) == 1


def test_a_running_server_answers_from_the_files_as_editors_and_git_leave_them(tmp_path: Path) -> None:
    path = tmp_path / "narrator.jsonl"

    def git(*arguments: str) -> None:
        finished = subprocess.run(
            [*GIT, "-C", str(tmp_path), *arguments], capture_output=True, encoding="utf-8", check=False
        )
        assert finished.returncode == 0, finished.stderr + finished.stdout

    async def scenario(url: str) -> None:
        async with Client(address(url, "writer")) as client:

            async def texts() -> list[str]:
                page = await call(client, "get_channel_history", channel="narrator")
                return [message["payload"]["text"] for message in page["messages"]]

            await call(client, "post_message", channel="narrator", **note("rain"))
            git("init", "--quiet")
            git("add", ".")
            git("commit", "--quiet", "-m", "one")
            await call(client, "post_message", channel="narrator", **note("snow"))
            git("checkout", "--quiet", "-b", "branch")
            git("commit", "--quiet", "-am", "two")
            assert await texts() == ["rain", "snow"]
            path.write_bytes(path.read_bytes().replace(b"snow", b"hail"))  # in place, the same size
            assert await texts() == ["rain", "hail"]
            other = tmp_path / "narrator.jsonl~"
            other.write_bytes(path.read_bytes().replace(b"rain", b"a storm"))
            other.replace(path)  # by rename
            assert await texts() == ["a storm", "hail"]
            git("checkout", "--quiet", "--force", "main")
            assert await texts() == ["rain"]
            await call(client, "post_message", channel="narrator", **note("sun"))
            git("commit", "--quiet", "-am", "three")
            git("merge", "--quiet", "branch", "-m", "both")
            assert sorted(await texts()) == ["rain", "snow", "sun"]
            path.unlink()
            assert await texts() == []
            git("checkout", "--", "narrator.jsonl")
            assert sorted(await texts()) == ["rain", "snow", "sun"]
            posted = await call(client, "post_message", channel="narrator", **note("night"))
            assert (await texts())[-1] == "night"
            assert posted["ref"].startswith("narrator:4~")

    with served(tmp_path) as (_, url):
        run(scenario(url))


def test_two_servers_and_a_library_user_share_a_folder(tmp_path: Path) -> None:
    async def scenario(first: str, second: str) -> None:
        async with (
            Client(address(first, "narrator")) as narrator,
            Client(address(second, "writer")) as writer,
            Mailroom(tmp_path) as room,
        ):
            waiting = asyncio.create_task(call(narrator, "wait_for_messages", channel="narrator", ack=True))
            posted = await call(writer, "post_message", channel="narrator", **note("across"))
            assert [m["id"] for m in (await waiting)["messages"]] == [posted["id"]]
            assert (await room.read("narrator")).messages == ()
            answer = await room.post(
                reply_to=posted["id"], sender="narrator", msg_type="note", payload={"text": "back"}
            )
            page = await call(writer, "wait_for_messages", channel="writer")
            assert [m["id"] for m in page["messages"]] == [answer.id]

    with served(tmp_path) as (_, first), served(tmp_path) as (_, second):
        run(scenario(first, second))
