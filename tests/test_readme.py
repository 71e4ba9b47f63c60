"""The README is true: its tables are complete, its examples run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from mq_server import config, delivery, message
from mq_server.cli import main
from mq_server.errors import InvalidRequest
from mq_server.mailroom import Mailroom
from mq_server.payloads import MODELS, Note, fields_of
from mq_server.schemas import Schemas
from mq_server.server.tools import TOOLS
from mq_server.vetting import checked_payload
from tests.serving import run

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def _between(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", TEXT, flags=re.DOTALL)
    assert found, name
    return found[1]


def payloads_table() -> str:
    rows = [f"| `{name}` | `{fields_of(name)}` |" for name in MODELS]
    return "\n".join(["| type | payload |", "|---|---|", *rows]).replace(
        "action|line|parenthetical", "action, line or parenthetical"
    )


def settings_table() -> str:
    rows = []
    defaults = asdict(config.Config())
    for setting in fields(config.Config):
        default = json.dumps(defaults[setting.name])
        rows.append(f"| `{setting.name}` | `{default}` | {setting.metadata['description']} |")
    return "\n".join(["| key | default | means |", "|---|---|---|", *rows])


def test_every_message_type_is_documented() -> None:
    assert _between("payloads") == payloads_table()


def test_every_setting_is_documented() -> None:
    assert _between("settings") == settings_table()


def test_every_command_is_documented() -> None:
    from click import Context, Option

    context = Context(main)
    reading = next(line for line in TEXT.splitlines() if line.startswith("| `mq read"))
    for name in main.list_commands(context):
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `mq {name}"))
        command = main.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, Option) and option.opts[0] not in ("--root", "--help"):
                documented = row + reading if name == "wait" else row
                assert option.opts[0] in documented, (name, option.opts[0])


def test_every_tool_and_argument_is_documented() -> None:
    reading = {"since", "msg_type", "sender", "reader", "ack", "limit", "lease_s", "consumer"}
    for tool in TOOLS:
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{tool.name}`"))
        for argument in tool.input_schema["properties"]:
            if not (tool.name == "wait_for_messages" and argument in reading):
                assert f"`{argument}" in row, (tool.name, argument)


def test_the_example_lines_are_lines() -> None:
    lines = [block.strip().encode() for block in _blocks("json") if "\n" not in block.strip()]
    shown = message.parse_line(lines[0], "narrator", 1)
    assert message.encode_line(shown.stored()).strip() == lines[0]
    assert delivery.parse_receipt(lines[1]).op == "ack"


def test_the_roster_example_is_a_roster(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text(_blocks("toml")[0], encoding="utf-8")
    assert config.load(tmp_path).channels["dialogist"].group == "craft"


def test_the_example_schema_checks_as_it_is_said_to(tmp_path: Path) -> None:
    source = next(block for block in _blocks("json") if '"properties"' in block)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "prop_list.json").write_text(source, encoding="utf-8")
    with pytest.raises(InvalidRequest) as caught:
        checked_payload("prop_list", {"props": [{"what": "scales", "count": 0}]}, Schemas(tmp_path))
    assert str(caught.value) in TEXT


def test_the_python_example_runs(tmp_path: Path) -> None:
    source = next(block for block in _blocks("python") if "async def example" in block)
    names: dict[str, object] = {}
    exec(compile(source, str(README), "exec"), names)
    text, participants = run(names["example"](tmp_path / "production"))
    assert (text, participants) == ("Rain, then none.", ("narrator",))


def test_the_python_examples_of_claims_and_questions_run(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for block in _blocks("python"):
        if "async def work_through" in block or "async def ask" in block:
            exec(compile(block, str(README), "exec"), names)

    async def scenario() -> None:
        async with Mailroom(tmp_path / "production") as room:
            await room.post("narrator", sender="writer", payload=Note(text="What weather?"))
            assert await names["work_through"](room, "narrator") == 1
            assert await names["work_through"](room, "narrator") == 0
            assert [message.reply_to for message in (await room.read("writer")).messages] != [None]
            answering = asyncio.create_task(names["answer_queries"](room, "continuity_service"))
            assert await names["ask"](room) == "Rain or snow? Snow."
            answering.cancel()

    run(scenario())


def test_the_methods_of_the_mailroom_are_documented() -> None:
    own = {name for name in dir(Mailroom) if not name.startswith("_") and callable(getattr(Mailroom, name))}
    rows = TEXT[TEXT.index("### Python") :]
    missing = {name for name in own if f"`{name}`" not in rows} - {"close", "end_waits", "iteration_advice"}
    assert not missing


def test_the_agent_example_compiles() -> None:
    source = next(block for block in _blocks("python") if "MCPToolset" in block)
    compile(source, str(README), "exec")


def test_the_commands_of_the_first_steps_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    commands = [line for block in _blocks("sh") for line in block.splitlines() if line.startswith("mq ")]
    assert len(commands) >= 5
    for command in commands:
        if not {"serve", "follow"} & set(shlex.split(command)):
            finished = subprocess.run(
                [sys.executable, "-m", "mq_server", *shlex.split(command)[1:]],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                timeout=60,
                check=False,
            )
            assert finished.returncode == 0, (command, finished.stderr)


@pytest.mark.parametrize("extra", ["demo", "test"])
def test_the_set_up_is_one_command_on_every_system(extra: str) -> None:
    assert any(
        f'-m venv .venv && .venv/bin/pip install -e ".[{extra}]" && .venv/bin/' in block for block in _blocks("sh")
    )
    powershell = [block for block in _blocks("powershell") if f'".[{extra}]"' in block]
    assert powershell
    assert all("&&" not in block for block in powershell)
