"""What is written to the candle file.  Blocking; one thread at a time."""

import sqlite3
from collections.abc import Sequence
from operator import itemgetter

from attrs import define

from ...model import Interval, KlineMessage, Series
from ..base import CursorEntry, End, Entry, HoleEntry, Keep, LostEntry, boundaries
from .rows import BEFORE_NAMES, COLUMNS, NAMES, columns_of, to_row
from .schema import CURSOR, transaction

_PUT_CANDLE = (
    f"INSERT INTO klines (series_id, {COLUMNS}, epoch, offset)"
    f" VALUES ({', '.join('?' * (len(NAMES) + 3))})"
    " ON CONFLICT (series_id, open_ms) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
    + ", epoch = CASE offset WHEN 0 THEN excluded.epoch ELSE epoch END"
    ", offset = CASE offset WHEN 0 THEN excluded.offset ELSE offset END"
)
"""A second time only the values count, not the number, but where it was not published before."""
_PUT_REVISION = (
    "INSERT OR IGNORE INTO revisions"
    f" (series_id, open_ms, epoch, offset, learned_ms, {', '.join(BEFORE_NAMES)})"
    f" SELECT ?, ?, ?, ?, ?, {columns_of('k').split(', ', 1)[1]} FROM (SELECT 1)"
    " LEFT JOIN klines k ON k.series_id = ? AND k.open_ms = ?"
)
_GET_END = (
    "SELECT first_open_ms, last_open_ms, settled_ms, last_stream_id, candles,"
    " forgotten_epoch, forgotten_offset FROM ends WHERE series_id = ?"
)
_PUT_CURSOR = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_PUT_END = "INSERT OR REPLACE INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_NUMBER = "SELECT epoch, offset FROM klines WHERE series_id = ? AND open_ms = ?"
_PRUNABLE = (
    "SELECT series_id FROM ends JOIN series ON id = series_id"
    " WHERE interval = ? AND first_open_ms < ? AND first_open_ms < last_open_ms"
)
_CUT = (
    "SELECT open_ms FROM klines WHERE series_id = ? AND open_ms < ?"
    " ORDER BY open_ms LIMIT 1 OFFSET ?"
)
_LAST_BEFORE = (
    "SELECT open_ms, epoch, offset FROM klines WHERE series_id = ? AND open_ms < ?"
    " AND offset > 0 ORDER BY open_ms DESC LIMIT 1"
)
_LAST_REVISION = (
    "SELECT epoch, offset FROM revisions WHERE series_id = ? AND open_ms < ?"
    " ORDER BY epoch DESC, offset DESC LIMIT 1"
)
_FIRST = "SELECT min(open_ms) FROM klines WHERE series_id = ?"
_KEY = itemgetter(0, 1)
_SHRINK_PAGES = 500
_SLACK_PAGES = 64
_SLACK_SHARE = 16


class SqliteWriter:
    """Writes through a connection (autocommit) that it owns.  Everything may raise
    sqlite3.Error, and then nothing was changed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._ids: dict[Series, int] = {}

    def write(self, batch: Sequence[Entry]) -> None:
        """Keep a batch: candles, revisions with the values before, holes, ends of series."""
        transfer = _Transfer(self.connection, dict(self._ids))
        with transaction(self.connection):
            for entry in batch:
                transfer.add(entry)
            transfer.finish()
        self._ids = transfer.ids

    def prune(self, keep: Keep, wall_ms: float, limit: int) -> int:
        """See :meth:`trio_feed.store.backend.Backend.prune`."""
        db, left = self.connection, limit
        with transaction(db):
            (newest,) = db.execute("SELECT max(last_open_ms) FROM ends").fetchone()
            before = boundaries(keep, newest, wall_ms) if newest is not None else {}
            for interval, before_ms in before.items():
                for series_id in self._prunable(interval, before_ms, left):
                    if left > 0:
                        left -= self._prune_series(series_id, before_ms, left)
        return limit - left

    def shrink(self) -> bool:
        """Give a few free pages back to the disk; whether there are more than the file will soon
        use again."""
        db = self.connection
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (mode,) = db.execute("PRAGMA auto_vacuum").fetchone()
        excess = free - max(_SLACK_PAGES, pages // _SLACK_SHARE)
        if not mode or excess <= 0:
            return False
        # A statement with a row without columns for each page: execute() stops after the first.
        db.executescript(f"PRAGMA incremental_vacuum({min(excess, _SHRINK_PAGES)})")
        return bool(excess > _SHRINK_PAGES)

    def checkpoint(self, *, truncate: bool) -> None:
        """Move the log into the file.  ``truncate``: wait for readers, and cut the log off."""
        self.connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})")

    def end_epoch(self, epoch: int) -> None:
        """Keep that every row of this epoch was written."""
        self.connection.execute(
            "UPDATE epochs SET written_to_the_end = 1 WHERE epoch = ?", (epoch,)
        )

    def _prunable(self, interval: Interval, before_ms: int, left: int) -> list[int]:
        # Each of them loses one row or more, so no more than that many are of interest.
        rows = self.connection.execute(
            f"{_PRUNABLE} LIMIT ?", (interval.value, before_ms, max(0, left))
        )
        return [row[0] for row in rows.fetchall()]

    def _prune_series(self, key: int, before_ms: int, limit: int) -> int:
        db = self.connection
        end = _StoredEnd.read(db, key)
        assert end.last_open_ms is not None, "a series without candles has nothing to prune"
        # The last candle stays whatever its age: it says where the series goes on.
        before_ms = min(before_ms, end.last_open_ms)
        cut = db.execute(_CUT, (key, before_ms, limit)).fetchone()
        before_ms = cut[0] if cut else before_ms
        for question in (_LAST_BEFORE, _LAST_REVISION):
            last = db.execute(question, (key, before_ms)).fetchone()
            if last is not None:
                end.forgotten = max(end.forgotten, last[-2:])
        rows = db.execute(
            "DELETE FROM klines WHERE series_id = ? AND open_ms < ?", (key, before_ms)
        ).rowcount
        db.execute("DELETE FROM revisions WHERE series_id = ? AND open_ms < ?", (key, before_ms))
        # What is settled is in ``ends``; a hole is only of interest beside candles.
        db.execute(
            "DELETE FROM holes WHERE series_id = ? AND first_ms < ? AND last_ms < ?",
            (key, before_ms, before_ms),
        )
        (end.first_open_ms,) = db.execute(_FIRST, (key,)).fetchone()
        end.candles -= rows
        end.write(db, key)
        return rows


class _Transfer:
    """A batch on its way into an open transaction.  Rows go in groups of one kind, which is
    faster; a revision ends the group, since it needs the values before."""

    def __init__(self, db: sqlite3.Connection, ids: dict[Series, int]) -> None:
        self.ids = ids
        self._db = db
        self._ends: dict[int, _StoredEnd] = {}
        self._candles: list[tuple[object, ...]] = []

    def add(self, entry: Entry) -> None:
        if isinstance(entry, CursorEntry):
            self._db.execute(_PUT_CURSOR, (CURSOR + entry.name, entry.text))
            return
        key = self._series_id(entry.series)
        end = self._ends.get(key)
        if end is None:
            end = self._ends[key] = _StoredEnd.read(self._db, key)
        if isinstance(entry, KlineMessage):
            self._add_candle(key, end, entry)
        elif isinstance(entry, HoleEntry):
            hole = entry.hole
            self._db.execute(
                "INSERT OR REPLACE INTO holes VALUES (?, ?, ?)", (key, hole.first_ms, hole.last_ms)
            )
            end.add_hole(hole)
        elif isinstance(entry, LostEntry):
            end.forgotten = max(end.forgotten, (entry.epoch, entry.offset))

    def finish(self) -> None:
        self._put_candles()
        for key, end in self._ends.items():
            end.write(self._db, key)

    def _add_candle(self, key: int, end: "_StoredEnd", message: KlineMessage) -> None:
        kline, open_ms = message.kline, message.kline.open_ms
        number = message.epoch, message.offset
        if message.revision:
            self._put_candles()
            values = key, open_ms, *number, int(message.received_ms), key, open_ms
            self._db.execute(_PUT_REVISION, values)
        newest = end.last_open_ms is None or open_ms > end.last_open_ms
        stored = None if newest else self._number_of(key, open_ms)
        end.candles += stored is None
        if message.offset and not (newest or message.revision or stored == number):
            # It came late or again: a walk back by open time does not find this number.
            end.forgotten = max(end.forgotten, number)
        end.add(kline)
        self._candles.append((key, *to_row(kline), *number))

    def _number_of(self, key: int, open_ms: int) -> tuple[int, int] | None:
        self._put_candles()
        row: tuple[int, int] | None = self._db.execute(_NUMBER, (key, open_ms)).fetchone()
        return row

    def _put_candles(self) -> None:
        if self._candles:
            # The tree has this order; one that comes by minutes would be all over it.
            self._candles.sort(key=_KEY)
            self._db.executemany(_PUT_CANDLE, self._candles)
            self._candles = []

    def _series_id(self, series: Series) -> int:
        found = self.ids.get(series)
        if found is None:
            key = (series.venue, series.symbol, series.interval.value)
            self._db.execute(
                "INSERT OR IGNORE INTO series (venue, symbol, interval) VALUES (?, ?, ?)", key
            )
            (found,) = self._db.execute(
                "SELECT id FROM series WHERE venue = ? AND symbol = ? AND interval = ?", key
            ).fetchone()
            self.ids[series] = found
        return found


@define
class _StoredEnd(End):
    """A row of ``ends``.  ``forgotten``: see :mod:`.schema`."""

    candles: int = 0
    forgotten: tuple[int, int] = (-1, -1)

    @classmethod
    def read(cls, db: sqlite3.Connection, key: int) -> "_StoredEnd":
        row = db.execute(_GET_END, (key,)).fetchone()
        if row is None:
            return cls()
        first, last, settled, last_id, candles, *forgotten = row
        return cls(first, last, settled, last_id, None, candles, (forgotten[0], forgotten[1]))

    def write(self, db: sqlite3.Connection, key: int) -> None:
        ends = self.first_open_ms, self.last_open_ms, self.settled_ms, self.last_stream_id
        db.execute(_PUT_END, (key, *ends, self.candles, *self.forgotten))
