"""Doorbells: how processes that share a folder wake each other at once, without waiting for file events.

A process that waits has a bell in `.mq/bells/`, and beside it a file that says for which channels it is to be rung:

    <process>            a FIFO; on Windows, which has none in folders, a file with a loopback datagram socket's port
    <process>.<n>.wants  names of channels, one a line; `*` for all. Never changed: a longer list has another number

Whoever has written to a channel writes its name into the bells of those who want it. A ring is a cue to look at a file,
never data: it may be lost, forged or repeated, and the watcher, which is slower, stands behind it. Nobody waits for a
bell: a full one is left alone, and one that nobody listens to any more is taken down.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Protocol

from mq_server.errors import MailError
from mq_server.listing import Listing

EVERYTHING = "*"
_WANTS = ".wants"
_READ_BYTES = 65536


class _Line(Protocol):
    """The way a ring takes from one process to another."""

    @staticmethod
    def hang(path: Path, on_ring: Callable[[bytes], None]) -> Callable[[], None]:
        """Put a bell up; what takes it down again."""

    @staticmethod
    def ring(path: str, data: bytes) -> bool:
        """Ring it; False if nobody listens any more."""


class Fifo:
    """A named pipe: it works between containers that share the folder, and tells whether anybody reads."""

    @staticmethod
    def hang(path: Path, on_ring: Callable[[bytes], None]) -> Callable[[], None]:
        """Put a bell up; what takes it down again."""
        new = path.with_suffix(".new")
        os.mkfifo(new)
        reading = os.open(new, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(new, os.O_WRONLY | os.O_NONBLOCK)  # else it would end with the first who rings
        new.rename(path)  # only now it can be found: a bell without a listener would be taken down
        loop = asyncio.get_running_loop()

        def take() -> None:
            try:
                data = os.read(reading, _READ_BYTES)
            except BlockingIOError:
                return
            on_ring(data)

        loop.add_reader(reading, take)

        def take_down() -> None:
            loop.remove_reader(reading)
            path.unlink(missing_ok=True)
            os.close(reading)
            os.close(writing)

        return take_down

    @staticmethod
    def ring(path: str, data: bytes) -> bool:
        """Ring it; False if nobody listens any more."""
        try:
            bell = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            return error.errno not in (errno.ENXIO, errno.ENOENT)
        try:
            os.write(bell, data)
        except OSError as error:  # full: it rings already
            return error.errno != errno.EPIPE
        finally:
            os.close(bell)
        return True


class Datagram:
    """A loopback datagram; its port stands in the file."""

    @staticmethod
    def hang(path: Path, on_ring: Callable[[bytes], None]) -> Callable[[], None]:
        """Put a bell up; what takes it down again."""
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        path.write_text(str(listening.getsockname()[1]), encoding="ascii")

        class Listener(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _: object) -> None:
                on_ring(data)

        making = asyncio.get_running_loop().create_datagram_endpoint(Listener, sock=listening)
        opening = asyncio.ensure_future(making)

        def take_down() -> None:
            path.unlink(missing_ok=True)
            if opening.done() and not opening.cancelled():
                opening.result()[0].close()
            else:
                opening.cancel()
                listening.close()

        return take_down

    @staticmethod
    def ring(path: str, data: bytes) -> bool:
        """Ring it; False if there is no bell any more."""
        try:
            port = int(Path(path).read_text(encoding="ascii"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ringing, contextlib.suppress(OSError):
            ringing.setblocking(False)
            ringing.sendto(data, ("127.0.0.1", port))
        return True


LINE: type[_Line] = Fifo if hasattr(os, "mkfifo") else Datagram


class Bells:
    """The bell of this process, and those of the others.

    Args:
        folder: Where they hang.
        process: The name of this process, as no other has it.
        can_be_made: Whether there is a place for the folder.
    """

    def __init__(self, folder: Path, process: str, can_be_made: Callable[[], bool]) -> None:
        self._folder = folder
        self._process = process
        self._can_be_made = can_be_made
        self._wants: set[str] = set()
        self._told = 0
        self._take_down: Callable[[], None] | None = None
        self._listing = Listing(folder)
        self._names: frozenset[str] = frozenset()
        self._others: dict[str, tuple[str, frozenset[str]]] = {}
        """By the name of each other process's list: its bell, and what it is to be rung for."""

    def hang(self, on_ring: Callable[[set[str]], None]) -> None:
        """Put up this process's bell, unless the system refuses: then others wake us by file events.

        Args:
            on_ring: Called on the event loop with the names that were rung for; whoever forges a ring may say anything.
        """

        def heard(data: bytes) -> None:
            names = set(data.decode("utf-8", "replace").split())
            on_ring(names if EVERYTHING in self._wants else names & self._wants)

        if self._take_down is not None and not (self._folder / self._process).exists():
            self.take_down()  # somebody deleted it, or the folder
        if self._take_down is None:
            with contextlib.suppress(OSError, MailError):
                if self._can_be_made():
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._take_down = LINE.hang(self._folder / self._process, heard)
                    self._tell()

    def want(self, channels: Iterable[str]) -> None:
        """Have the bell rung for these channels too, until it is taken down."""
        fresh = set(channels) - self._wants
        if fresh and EVERYTHING not in self._wants:
            self._wants |= fresh
            self._tell()

    def take_down(self) -> None:
        """Take this process's bell down."""
        if self._take_down is not None:
            with contextlib.suppress(OSError):
                self._take_down()
                self._list_of_wants().unlink(missing_ok=True)
            self._take_down = None

    def ring(self, channels: Iterable[str]) -> None:
        """Tell the others that something was written to these channels."""
        names = frozenset(channels)
        for bell, wants in self._find():
            concerned = names if EVERYTHING in wants else names & wants
            if concerned and not LINE.ring(bell, "".join(f"{name}\n" for name in concerned).encode()):
                lists = [self._folder / name for name, other in self._others.items() if other[0] == bell]
                for left in (Path(bell), *lists):
                    with contextlib.suppress(OSError):
                        left.unlink(missing_ok=True)

    def _tell(self) -> None:
        if self._take_down is not None:
            with contextlib.suppress(OSError):
                old = self._list_of_wants()
                self._told += 1
                new = self._folder / f"{self._process}.new"
                new.write_text("".join(f"{name}\n" for name in sorted(self._wants)), encoding="utf-8")
                new.rename(self._list_of_wants())
                old.unlink(missing_ok=True)

    def _list_of_wants(self) -> Path:
        return self._folder / f"{self._process}.{self._told}{_WANTS}"

    def _find(self) -> Collection[tuple[str, frozenset[str]]]:
        """The other processes' bells and what they are to be rung for."""
        try:
            names = self._listing.names()
        except OSError:
            names = self._names
        if names is not self._names:
            others = {}
            for name in names:
                process = name.removesuffix(_WANTS).rpartition(".")[0]
                if name in self._others:
                    others[name] = self._others[name]
                elif name.endswith(_WANTS) and process != self._process:
                    with contextlib.suppress(OSError):
                        wants = (self._folder / name).read_text("utf-8", "replace").split()
                        others[name] = str(self._folder / process), frozenset(wants)
            self._names, self._others = names, others
        return self._others.values()
