"""Imports point one way, and what claims to do no I/O cannot."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mq_server
from tests.support import output

PACKAGE = Path(mq_server.__file__).parent
LAYERS = [
    {"aside", "errors", "kept", "listing", "outline"},
    {"stamp"},
    {"blocks", "chains", "names", "orders", "repository", "schemas"},
    {"message"},
    {"intake", "outcomes"},
    {"answers", "columns", "config", "leaselines", "leaselog", "locks", "moving", "paging", "payloads", "search"},
    {"bells", "delivery", "homes", "journal", "leases", "logfile"}
    | {"presence", "recent", "scenes", "timeline", "vetting"},
    {"appendlog", "index", "indexfile", "weighing"},
    {"writer"},
    {"store"},
    {"watch"},
    {"keeping"},
    {"mailbox"},
    {"loading"},
    {"shelf"},
    {"room"},
    {"archiving", "board", "burying", "guarding", "recovering", "tracking"},
    {"settling"},
    {"checking", "searching", "selecting", "tallying"},
    {"queries"},
    {"reading"},
    {"claiming", "following", "replying", "writing"},
    {"posting"},
    {"asking"},
    {"mailroom"},
    {"render"},
    {"git"},
    {"monitor"},
    {"server"},
    {"cli"},
    {"__init__", "__main__"},
]
"""From the bottom to the top; a module imports only from layers below its own. A package counts as one module."""
WITHOUT_IO = {
    "answers",
    "chains",
    "columns",
    "delivery",
    "errors",
    "homes",
    "index",
    "intake",
    "leaselines",
    "moving",
    "orders",
    "outcomes",
    "outline",
    "paging",
    "recent",
    "scenes",
    "search",
    "timeline",
}
IO = {"asyncio", "io", "os", "pathlib", "shutil", "socket", "subprocess", "time"}


def unit(path: Path) -> str:
    """The module or package of a file."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The full names of what a file imports anywhere, at run time or for its types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
            if node.module == "mq_server":
                found.update(f"mq_server.{name.name}" for name in node.names)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {unit(path) for path in FILES} <= known


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    own = unit(path)
    for name in imports(path):
        if name.startswith("mq_server."):
            imported = name.split(".")[1]
            if imported in layer and imported != own:
                assert layer[imported] < layer[own], f"{own} imports {imported}"


@pytest.mark.parametrize("name", sorted(WITHOUT_IO))
def test_what_does_no_io_imports_none(name: str) -> None:
    path = PACKAGE / f"{name}.py"
    allowed = {"pathlib"} if name == "errors" else set()  # errors name paths, and open none
    assert not {module.split(".")[0] for module in imports(path)} & IO - allowed


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if unit(path) != "cli":
            names = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
            assert not [name for name in names if isinstance(name, ast.Name) and name.id == "print"], path


USE = """
import asyncio, sys, tempfile
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(tempfile.mkdtemp()) as room:
        await room.read("narrator")
        await room.search("anything")
        print(*sys.modules)
        await room.post("narrator", sender="a", msg_type="plain", payload={"text": "x"})
        print(*sys.modules)
asyncio.run(main())
"""


def test_reading_and_posting_import_no_more_than_they_need() -> None:
    reading, posting = (set(text.split()) for text in output(USE).splitlines())
    heavy = {"jsonschema", "mcp", "rich", "starlette", "uvicorn", "watchfiles"}
    assert not reading & {"pydantic", *heavy}
    assert not posting & heavy
