"""The tables, and how a file of an earlier version gets them.  Blocking.

=======  =========================================================================================
version  tables
=======  =========================================================================================
1        meta, series, klines (without ``last_trade``), holes
2        revisions (numbers only) and epochs; later ``klines.last_trade``, without a new number
3        ``klines.last_stream_id`` (was ``last_trade``), taker volumes, trade ids; revisions with
         their time and the values before; ends; later ``klines`` in the order of its key, without a
         new number: every statement is the same for both (:func:`cluster`)
=======  =========================================================================================

``meta`` also holds cursors: how far a source of many series was read (:data:`CURSOR`).

``klines`` is a tree in the order of its key (WITHOUT ROWID), so the candles of a series lie side by
side.  In the order of their coming, minute by minute, those of 500 series lie on a page each, and
to read a thousand is to read a thousand pages.  A batch is sorted before it is written, and then
costs no more than in the other order.  ``ends`` answers what would need a scan of candles: where a
series begins and ends.  It is written in the transaction of the candles.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from .rows import BEFORE_NAMES, COLUMNS, NAMES

VERSION = 3
CURSOR = "cursor "
"""Begins the keys of ``meta`` that say how far a source was read; every version has the table."""

_CANDLE_TYPES = {
    **dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), "TEXT NOT NULL"),
    "open_ms": "INTEGER NOT NULL",
    "trades": "INTEGER NOT NULL",
    "source": "TEXT NOT NULL",
    "event_ms": "INTEGER NOT NULL",
    "complete": "INTEGER NOT NULL",
    "last_stream_id": "INTEGER NOT NULL DEFAULT 0",
    "taker_buy_volume": "TEXT",
    "taker_buy_quote_volume": "TEXT",
    "first_trade_id": "INTEGER",
    "last_trade_id": "INTEGER",
}
_REVISION_TYPES = {
    "learned_ms": "INTEGER NOT NULL DEFAULT 0",
    **{
        before: _CANDLE_TYPES[name].split()[0]
        for before, name in zip(BEFORE_NAMES, NAMES[1:], strict=True)
    },
}


def _listed(types: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


_KLINES = (
    "CREATE TABLE IF NOT EXISTS klines (series_id INTEGER NOT NULL REFERENCES series (id),"
    f" {_listed({name: _CANDLE_TYPES[name] for name in NAMES})},"
    " epoch INTEGER NOT NULL, offset INTEGER NOT NULL,"
    " PRIMARY KEY (series_id, open_ms)) WITHOUT ROWID"
)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, venue TEXT NOT NULL,"
    " symbol TEXT NOT NULL, interval TEXT NOT NULL, UNIQUE (venue, symbol, interval))",
    _KLINES,
    "CREATE TABLE IF NOT EXISTS holes (series_id INTEGER NOT NULL REFERENCES series (id),"
    " first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, UNIQUE (series_id, first_ms))",
    "CREATE TABLE IF NOT EXISTS revisions (series_id INTEGER NOT NULL REFERENCES series (id),"
    " open_ms INTEGER NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,"
    f" {_listed(_REVISION_TYPES)}, UNIQUE (series_id, epoch, offset))",
    "CREATE TABLE IF NOT EXISTS epochs"
    " (epoch INTEGER PRIMARY KEY, written_to_the_end INTEGER NOT NULL)",
    # forgotten_*: the largest number of what was deleted or refused; no answer may span it.
    "CREATE TABLE IF NOT EXISTS ends (series_id INTEGER PRIMARY KEY REFERENCES series (id),"
    " first_open_ms INTEGER, last_open_ms INTEGER, settled_ms INTEGER NOT NULL,"
    " last_stream_id INTEGER NOT NULL, candles INTEGER NOT NULL,"
    " forgotten_epoch INTEGER NOT NULL DEFAULT -1, forgotten_offset INTEGER NOT NULL DEFAULT -1)",
)
_INDEXES = (
    # After the columns are there.
    "CREATE INDEX IF NOT EXISTS revisions_by_open ON revisions (series_id, open_ms, epoch, offset)",
)
_FILL_ENDS = (
    "INSERT OR REPLACE INTO ends"
    " (series_id, first_open_ms, last_open_ms, settled_ms, last_stream_id, candles)"
    " SELECT id, first, last, max(coalesce(last, 0), coalesce((SELECT max(last_ms) FROM holes"
    " WHERE series_id = id), 0)), coalesce((SELECT last_stream_id FROM klines"
    " WHERE series_id = id AND open_ms = last), 0), candles FROM (SELECT id,"
    " (SELECT min(open_ms) FROM klines WHERE series_id = id) AS first,"
    " (SELECT max(open_ms) FROM klines WHERE series_id = id) AS last,"
    " (SELECT count(*) FROM klines WHERE series_id = id) AS candles FROM series)"
)


def version_of(meta: dict[str, str]) -> int:
    """The schema's version; 0 where a file was left before it was finished or says something
    else."""
    text = meta.get("schema", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def create_or_migrate(connection: sqlite3.Connection) -> int:
    """Bring the tables to :data:`VERSION` in one transaction.  Returns the version before, 0 for
    a new file."""
    with transaction(connection):
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        before = 0
        if "meta" in tables:
            before = version_of(dict(connection.execute("SELECT key, value FROM meta")))
        if before != VERSION:
            # What is there decides, not the number: version 2 had two forms.
            _migrate(connection, tables)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(VERSION),))
    return before


def is_clustered(connection: sqlite3.Connection) -> bool:
    """Whether candles lie in the order of their series."""
    question = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'klines'"
    (text,) = connection.execute(question).fetchone()
    return "WITHOUT ROWID" in text


def cluster(connection: sqlite3.Connection) -> None:
    """Copy the candles of an earlier file into the order of their series, in one transaction."""
    columns = f"series_id, {COLUMNS}, epoch, offset"
    with transaction(connection):
        connection.execute("ALTER TABLE klines RENAME TO klines_in_order_of_coming")
        connection.execute(_KLINES)
        # Its index gives the order; to sort aside took as long and would need more of the disk.
        connection.execute(
            f"INSERT INTO klines ({columns}) SELECT {columns} FROM klines_in_order_of_coming"
            " ORDER BY series_id, open_ms"
        )
        connection.execute("DROP TABLE klines_in_order_of_coming")


def _migrate(connection: sqlite3.Connection, tables: set[str]) -> None:
    if "klines" in tables:
        columns = _columns(connection, "klines")
        if "last_trade" in columns:
            connection.execute("ALTER TABLE klines RENAME COLUMN last_trade TO last_stream_id")
        _add_columns(connection, "klines", _CANDLE_TYPES)
    if "revisions" in tables:
        _add_columns(connection, "revisions", _REVISION_TYPES)
    for statement in (*_TABLES, *_INDEXES, _FILL_ENDS):
        connection.execute(statement)


def _add_columns(connection: sqlite3.Connection, table: str, types: dict[str, str]) -> None:
    missing = types.keys() - _columns(connection, table)
    for name, kind in types.items():
        if name in missing:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; for a connection in autocommit mode that writes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # A COMMIT that failed (a full disk) may leave it open; some faults end it by themselves.
        if connection.in_transaction:
            connection.rollback()
