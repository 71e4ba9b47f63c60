"""Options and fixtures of the whole suite."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from hypothesis import settings

from mq_server import payloads
from tests.support import close_locks

SHORT_S = 3.0
LONG_S = 60.0

# An ordinary run tries the same examples every time, so that it fails for what was changed and not by luck.
settings.register_profile("ordinary", deadline=None, derandomize=True, database=None)
settings.register_profile("soak", deadline=None, max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run soak tests at full length, and try random examples")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("soak" if config.getoption("--soak") else "ordinary")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike those of `tmp_path`, and that belongs to everybody."""
    folder = Path(tempfile.mkdtemp(prefix="mq-test-"))
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


@pytest.fixture
def soak_s(pytestconfig: pytest.Config) -> float:
    """How long a soak test goes on, in seconds."""
    return LONG_S if pytestconfig.getoption("--soak") else SHORT_S


@pytest.fixture
def own_models() -> Iterator[None]:
    """Models that a test makes are forgotten at its end."""
    before = dict(payloads.MODELS)
    yield
    payloads.MODELS.clear()
    payloads.MODELS.update(before)


@pytest.fixture
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git without this machine's settings and hooks, as its identity that of each repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture(autouse=True)
def _locks_are_closed() -> Iterator[None]:
    yield
    close_locks()


@pytest.fixture
def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file system that raises no events."""

    async def awatch(*_: Any, stop_event: asyncio.Event, **__: Any) -> AsyncIterator[set[Any]]:
        await stop_event.wait()
        return
        yield set()

    monkeypatch.setattr(watchfiles, "awatch", awatch)
