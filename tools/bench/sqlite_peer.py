"""SQLite with a write-ahead log. For lookups it has an index for each question; one for text only in a second database,
since it costs more than all the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson

from tools.bench.corpus import Corpus
from tools.bench.floor import Round, line_of
from tools.bench.servers import Served

_BUSY_S = 60
_TABLE = "CREATE TABLE mail (seq INTEGER PRIMARY KEY, channel TEXT, line BLOB)"
_INSERT = "INSERT INTO mail (channel, line) VALUES (?, ?)"
_LIBRARY = """
CREATE TABLE mail (seq INTEGER PRIMARY KEY, id TEXT, channel TEXT, head TEXT, line BLOB);
CREATE UNIQUE INDEX ids ON mail (id);
CREATE INDEX channels ON mail (channel, seq);
CREATE INDEX heads ON mail (head, seq);
"""
_WORDS = """
CREATE VIRTUAL TABLE words USING fts5 (line, content = mail, content_rowid = seq);
INSERT INTO words (words) VALUES ('rebuild');
"""


def _connect(folder: Path, synchronous: str) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "mail.db", timeout=_BUSY_S, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {synchronous}")
    return database


@contextmanager
def served_sqlite(folder: Path, _: bool) -> Iterator[Served]:
    """An empty database."""
    database = _connect(folder, "OFF")
    database.execute(_TABLE)
    yield Served(lambda: [orjson.loads(line)["id"] for (line,) in database.execute("SELECT line FROM mail")])
    database.close()


class SqlitePoster:
    """Inserts lines, each a transaction; with `shared`, the callers of one round in one.

    Args:
        folder: Where the database is.
        durable: Whether a transaction is synced (FULL).
        shared: Whether callers share transactions.
        not_durable: What `synchronous` is otherwise: OFF never syncs, NORMAL only at checkpoints.
    """

    def __init__(self, folder: Path, durable: bool, *, shared: bool = False, not_durable: str = "OFF") -> None:
        self._database = _connect(folder, "FULL" if durable else not_durable)
        self._round = Round(self._insert_all) if shared else None

    async def post(self, channel: str, number: int) -> str:
        """Insert the line of this number."""
        row = (channel, line_of(number))
        if self._round:
            await self._round.add(row)
        else:
            self._database.execute(_INSERT, row)
        return str(number)

    def _insert_all(self, rows: list[tuple[str, bytes]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(_INSERT, rows)
        self._database.execute("COMMIT")

    async def close(self) -> None:
        """Close the database."""
        self._database.close()


class SqliteLibrary:
    """A production in a database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    async def count(self) -> int:
        """How many messages there are, by the last one's number."""
        (last,) = self._database.execute("SELECT max(seq) FROM mail").fetchone()
        return int(last)

    async def history(self, channel: str, limit: int) -> list[dict[str, Any]]:
        """The newest of a channel, oldest first."""
        found = self._lines("SELECT line FROM mail WHERE channel = ? ORDER BY seq DESC LIMIT ?", channel, limit)
        return found[::-1]

    async def thread(self, head: str) -> list[dict[str, Any]]:
        """A thread."""
        return self._lines("SELECT line FROM mail WHERE head = ? ORDER BY seq", head)

    async def activity(self, limit: int) -> list[dict[str, Any]]:
        """The newest of all channels, oldest first."""
        return self._lines("SELECT line FROM mail ORDER BY seq DESC LIMIT ?", limit)[::-1]

    async def search(self, word: str) -> list[dict[str, Any]]:
        """The messages with a word: all are looked through."""
        return self._lines("SELECT line FROM mail WHERE instr(line, ?)", word.encode())

    def _lines(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return [orjson.loads(line) for (line,) in self._database.execute(query, values)]


def filled_sqlite(corpus: Corpus) -> Path:
    """The folder of a database that has the corpus."""
    return corpus.kept_for("sqlite", _fill)


class SearchableSqliteLibrary(SqliteLibrary):
    """One with a text index."""

    async def search(self, word: str) -> list[dict[str, Any]]:
        """The messages with a word, by the index."""
        return self._lines("SELECT mail.line FROM words JOIN mail ON seq = words.rowid WHERE words MATCH ?", word)


@asynccontextmanager
async def sqlite_library(folder: Path) -> AsyncIterator[SqliteLibrary]:
    """A filled database that has just been opened."""
    database = _connect(folder, "FULL")
    yield SqliteLibrary(database)
    database.close()


def filled_searchable_sqlite(corpus: Corpus) -> Path:
    """The folder of a database that has the corpus and a text index."""
    return corpus.kept_for("sqlite-fts5", _fill_searchable)


@asynccontextmanager
async def searchable_sqlite_library(folder: Path) -> AsyncIterator[SearchableSqliteLibrary]:
    """A filled database with a text index that has just been opened."""
    database = _connect(folder, "FULL")
    yield SearchableSqliteLibrary(database)
    database.close()


def _fill_searchable(corpus: Corpus, folder: Path) -> None:
    _fill(corpus, folder)
    database = _connect(folder, "OFF")
    database.executescript(_WORDS)
    database.close()


def _fill(corpus: Corpus, folder: Path) -> None:
    database = _connect(folder, "OFF")
    database.executescript(_LIBRARY)
    database.execute("BEGIN")
    database.executemany(
        "INSERT INTO mail (id, channel, head, line) VALUES (?, ?, ?, ?)",
        ((message.id, message.channel, message.head, message.line) for message in corpus.in_order()),
    )
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
