"""The peers' servers, each started in a folder and ended with the block: redis-server on a Unix socket, nats-server on
a port of the loopback. Who knows the folder can connect.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tools.bench.measuring import LeftOut, WrongResult

_START_S = 120.0
_PAUSE_S = 0.002
_INSTALL = 'its Python client is not installed: pip install -e ".[bench]"'


class Served(NamedTuple):
    """What stores messages in a folder: how to read all their ids back, and the server's process if there is one."""

    ids: Callable[[], list[str]]
    pid: int | None = None


@contextmanager
def redis_server(folder: Path, appendfsync: str) -> Iterator[int]:
    """A Redis on the append-only file in a folder; yields its process id once it has read that.

    Args:
        folder: Where its file and its socket are.
        appendfsync: `always` syncs before an answer, `no` never does.

    Raises:
        LeftOut: There is no redis-server here, or no client for it.
    """
    settings = {
        "port": "0",
        "save": "",
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "auto-aof-rewrite-percentage": "0",  # no rewrite shall fall into a measurement
        "dir": str(folder),
        "unixsocket": str(_socket(folder)),
    }
    client = redis_client(folder)

    def ready() -> bool:
        try:
            return bool(client.ping())
        except client_errors("redis.exceptions", "ConnectionError", "BusyLoadingError"):
            return False

    arguments = chain.from_iterable((f"--{key}", value) for key, value in settings.items())
    _socket(folder).unlink(missing_ok=True)
    with _running(folder, "redis-server", list(arguments), ready) as pid:
        client.close()
        yield pid


def redis_client(folder: Path) -> Any:
    """A connection to the Redis of a folder.

    Raises:
        LeftOut: The library is not installed.
    """
    redis = imported("redis")
    never = imported("redis.retry").Retry(imported("redis.backoff").NoBackoff(), 0)
    # A reader that waits is not to be cut off by the client.
    return redis.Redis(unix_socket_path=str(_socket(folder)), protocol=2, retry=never, socket_timeout=None)


@contextmanager
def nats_server(folder: Path, *, durable: bool) -> Iterator[int]:
    """A NATS server with JetStream in a folder; yields its process id once it has recovered its streams.

    Args:
        folder: Where its store is.
        durable: Whether it syncs before it answers; otherwise every two minutes, its default.

    Raises:
        LeftOut: There is no nats-server here, or no client for it.
    """
    imported("nats")
    address = _address(folder)
    address.unlink(missing_ok=True)
    for ports in folder.glob("*.ports"):
        ports.unlink()
    settings = {"server_name": "bench", "listen": "127.0.0.1:-1", "ports_file_dir": str(folder)}
    store: dict[str, Any] = {"store_dir": str(folder / "jetstream")} | ({"sync_interval": "always"} if durable else {})
    # NATS reads JSON; `always` must stand without quotes, as it would in its own notation.
    text = orjson.dumps(settings | {"jetstream": store}).decode().replace('"always"', "always")
    (folder / "nats.conf").write_text(text)

    def ready() -> bool:
        for ports in folder.glob("*.ports"):
            try:
                address.write_text(orjson.loads(ports.read_bytes())["nats"][0])
            except orjson.JSONDecodeError:
                return False  # it is being written
            return True
        return False

    with _running(folder, "nats-server", ["-c", str(folder / "nats.conf")], ready) as pid:
        yield pid


async def nats_client(folder: Path) -> Any:
    """A connection to the NATS server of a folder."""
    return await imported("nats").connect(_address(folder).read_text())


def imported(name: str) -> Any:
    """A peer's library.

    Raises:
        LeftOut: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise LeftOut(_INSTALL) from None


def client_errors(module: str, *names: str) -> tuple[type[Exception], ...]:
    """Some exceptions of a peer's library."""
    return tuple(getattr(imported(module), name) for name in names)


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has taken; Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """The memory that a process has in use; Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _running(folder: Path, name: str, arguments: Sequence[str], ready: Callable[[], bool]) -> Iterator[int]:
    program = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        raise LeftOut(f"{name} is not installed")
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise WrongResult(f"{name} did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(_PAUSE_S)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _socket(folder: Path) -> Path:
    return folder / "redis.sock"


def _address(folder: Path) -> Path:
    return folder / "nats.url"
