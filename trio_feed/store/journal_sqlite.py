"""Private events in one SQLite file.  With ``store.sqlite`` the only importer of sqlite3.

One connection writes, one reads.  ``synchronous = FULL``: in WAL mode that is a sync of the log at
each commit, so a batch that was committed is there after a power cut.  The oldest events are
always pruned first and nothing between others, so a user's events are a run without holes.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from ..errors import JournalError, StartError
from ..model import PrivateMessage, Settlement
from .journal_plan import ANY_PUBLISHER, BatchPlan, EventKey, Settled, Stored
from .private_file import create_private

log = structlog.get_logger()

_TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, publisher TEXT NOT NULL,"
    " event_id TEXT NOT NULL, at_ms INTEGER NOT NULL, UNIQUE (event_id, publisher))",
    "CREATE TABLE IF NOT EXISTS deliveries (event INTEGER NOT NULL, user_id INTEGER NOT NULL,"
    " offset INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS deliveries_by_user ON deliveries (user_id, offset)",
    "CREATE INDEX IF NOT EXISTS deliveries_by_event ON deliveries (event)",
    "CREATE TABLE IF NOT EXISTS orders (order_id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL,"
    " at_ms INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS orders_by_age ON orders (at_ms)",
    "CREATE TABLE IF NOT EXISTS users (user_id INTEGER PRIMARY KEY, offset INTEGER NOT NULL)",
)
_FROM_1 = (
    # Version 1 had no publishers: an id was used once by all of them together.
    "ALTER TABLE events RENAME TO events_1",
    _TABLES[1],
    f"INSERT INTO events SELECT id, '{ANY_PUBLISHER}', event_id, at_ms FROM events_1 ORDER BY id",
    "DROP TABLE events_1",
)
_VERSION = 2
_BUSY_S = 1.0


class SqliteJournalBackend:
    """See :class:`trio_feed.store.journal.JournalBackend`; made by :func:`open_journal_backend`."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        reader: sqlite3.Connection,
        epoch: int,
        shared_epoch: int | None,
    ) -> None:
        self.epoch, self.shared_epoch = epoch, shared_epoch
        self._writer, self._reader = writer, reader

    def meet(self, users: Collection[int]) -> None:
        rows = [(user,) for user in users]
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO users VALUES (?, 0)", rows)

    def settle(self, events: Sequence[Settlement]) -> Settled:
        with self._transaction() as db:
            plan = BatchPlan(
                lambda key: _stored(db, key),
                lambda order_id: _one(db, _OWNER, order_id),
                lambda user_id: _one(db, _HEAD, user_id) or 0,
                lambda: db.execute("SELECT user_id, offset FROM users"),
            )
            for event in events:
                plan.add(event)
            _write(db, plan)
        return plan.settled()

    def head(self, user_id: int) -> int:
        with _translated():
            return _one(self._reader, _HEAD, user_id) or 0

    def read(self, user_id: int, after: int, until: int, limit: int) -> list[PrivateMessage]:
        with _translated():
            rows = self._reader.execute(
                "SELECT offset, body, at_ms FROM deliveries JOIN events ON id = event"
                " WHERE user_id = ? AND offset > ? AND offset <= ? ORDER BY offset LIMIT ?",
                (user_id, after, until, limit),
            ).fetchall()
        return [PrivateMessage(user_id, offset, body, at_ms) for offset, body, at_ms in rows]

    def prune(self, before_ms: float, orders_before_ms: float, limit: int) -> int:
        with self._transaction() as db:
            last, count = None, 0
            for number, at_ms in db.execute(
                "SELECT id, at_ms FROM events ORDER BY id LIMIT ?", (limit,)
            ).fetchall():
                if at_ms >= before_ms:
                    break
                last, count = number, count + 1
            if last is not None:
                db.execute("DELETE FROM deliveries WHERE event <= ?", (last,))
                db.execute("DELETE FROM events WHERE id <= ?", (last,))
            orders = db.execute(
                "DELETE FROM orders WHERE order_id IN"
                " (SELECT order_id FROM orders WHERE at_ms < ? LIMIT ?)",
                (orders_before_ms, limit),
            ).rowcount
        return count + orders

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._writer
        with _translated():
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    with suppress(sqlite3.Error):
                        db.execute("ROLLBACK")


def open_journal_backend(path: Path, *, now_ms: float) -> SqliteJournalBackend:
    """Open or create the file (blocking).  Raises StartError with what is wrong with it."""
    opened = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if str(path) != ":memory:":
            create_private(path)
        for _ in range(2):
            opened.append(_connect(path))
        writer, reader = opened
        return SqliteJournalBackend(writer, reader, *_prepare(writer, path, now_ms))
    except (OSError, sqlite3.Error, StartError) as error:
        for connection in opened:
            connection.close()
        if isinstance(error, StartError):
            raise
        raise StartError(f"settlement.path: {path} cannot be opened for writing: {error}") from None


_KNOWN = "SELECT id FROM events WHERE event_id = ? AND publisher IN (?, ?)"
_DELIVERED = "SELECT user_id, body FROM deliveries WHERE event = ?"
_OWNER = "SELECT user_id FROM orders WHERE order_id = ?"
_HEAD = "SELECT offset FROM users WHERE user_id = ?"


def _one(db: sqlite3.Connection, question: str, key: str | int) -> Any:
    row = db.execute(question, (key,)).fetchone()
    return None if row is None else row[0]


def _stored(db: sqlite3.Connection, key: EventKey) -> Stored | None:
    publisher, event_id = key
    row = db.execute(_KNOWN, (event_id, publisher, ANY_PUBLISHER)).fetchone()
    return None if row is None else db.execute(_DELIVERED, row).fetchall()


def _write(db: sqlite3.Connection, plan: BatchPlan) -> None:
    number = _one(db, "SELECT max(id) FROM events WHERE id > ?", 0) or 0
    events, deliveries = [], []
    for (publisher, event_id), (at_ms, messages) in plan.events.items():
        number += 1
        events.append((number, publisher, event_id, int(at_ms)))
        deliveries += [(number, m.user_id, m.offset, m.body) for m in messages]
    orders = [(order, user, int(at_ms)) for order, (user, at_ms) in plan.owners.items()]
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", events)
    db.executemany("INSERT INTO deliveries VALUES (?, ?, ?, ?)", deliveries)
    db.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", orders)
    db.executemany("INSERT OR REPLACE INTO users VALUES (?, ?)", plan.heads.items())


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)


def _prepare(db: sqlite3.Connection, path: Path, now_ms: float) -> tuple[int, int | None]:
    """Bring the tables to today's version, all or nothing.  Returns the epoch, which a file keeps
    for life, and the one that version 1 told to all users, None where that never was."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")  # an exception closes the connection, and that rolls back
    before = _version(db, path)
    if before == 1:
        for statement in _FROM_1:
            db.execute(statement)
        db.execute("INSERT INTO meta SELECT 'shared_epoch', value FROM meta WHERE key = 'epoch'")
        log.info("journal.migrated", path=str(path), before=before, now=_VERSION)
    for statement in _TABLES:
        db.execute(statement)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(_VERSION),))
    db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (str(int(now_ms)),))
    db.execute("COMMIT")
    read = "SELECT value FROM meta WHERE key = ?"
    shared = _one(db, read, "shared_epoch")
    return int(_one(db, read, "epoch")), None if shared is None else int(shared)


def _version(db: sqlite3.Connection, path: Path) -> int:
    """0: a new file.  Raises StartError for a version that is not known here."""
    if _one(db, "SELECT 1 FROM sqlite_master WHERE name = ?", "meta") is None:
        return 0
    text = _one(db, "SELECT value FROM meta WHERE key = ?", "schema") or "0"
    if text not in ("0", "1", str(_VERSION)):
        raise StartError(
            f"settlement.path: {path} was written by another version of trio_feed (schema {text},"
            f" this one reads up to {_VERSION}); update, or name another file"
        )
    return int(text)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(str(error)) from None
