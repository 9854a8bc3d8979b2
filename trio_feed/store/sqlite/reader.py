"""The questions that are asked of the candle file, as SQL.  Blocking; one thread at a time.

Every question reaches its rows by an index and reads no more of them than its answer has; the
plans are pinned by a test.  A deadline stands behind that: a disk may be slow.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from ...model import Interval, Kline, KlineMessage, Series
from ..base import End, Revision
from ..resumed import Number, Walk, messages_of, walk_back
from .rows import BEFORE_NAMES, COLUMNS, columns_of, from_row, from_rows
from .schema import CURSOR

_DEADLINE_S = 3.0
_STEPS_BETWEEN_LOOKS = 20_000
"""Of SQLite's virtual machine, about a millisecond."""

FIND_SERIES = (
    "SELECT id, forgotten_epoch, forgotten_offset, first_open_ms FROM series"
    " LEFT JOIN ends ON series_id = id WHERE venue = ? AND symbol = ? AND interval = ?"
)
_HISTORY = f"SELECT {COLUMNS} FROM klines WHERE series_id = ? AND open_ms >= ? AND open_ms < ?"
FORWARD = f"{_HISTORY} ORDER BY open_ms LIMIT ?"
BACKWARD = f"{_HISTORY} ORDER BY open_ms DESC LIMIT ?"
_ENDS = (
    "SELECT s.venue, s.symbol, s.interval,"
    " e.first_open_ms, e.last_open_ms, e.settled_ms, e.last_stream_id,"
    f" {columns_of('k')} FROM {{}} LEFT JOIN klines k"
    " ON k.series_id = e.series_id AND k.open_ms = e.last_open_ms"
)
ALL_ENDS = _ENDS.format("ends e CROSS JOIN series s ON s.id = e.series_id")
_SOME_ENDS = _ENDS.format("series s CROSS JOIN ends e ON e.series_id = s.id")
VENUE_ENDS = f"{_SOME_ENDS} WHERE s.venue = ?"
SYMBOL_ENDS = f"{VENUE_ENDS} AND s.symbol IN (SELECT value FROM json_each(?))"
NUMBERS = "SELECT open_ms, epoch, offset FROM klines WHERE series_id = ? ORDER BY open_ms DESC"
FROM_OPEN = (
    f"SELECT {COLUMNS}, epoch, offset FROM klines"
    " WHERE series_id = ? AND open_ms >= ? AND offset > 0 ORDER BY open_ms LIMIT ?"
)
REVISED_AFTER = (
    f"SELECT {columns_of('k')}, r.epoch, r.offset FROM revisions r"
    " CROSS JOIN klines k ON k.series_id = r.series_id AND k.open_ms = r.open_ms"
    " WHERE r.series_id = ? AND (r.epoch, r.offset) > (?, ?) ORDER BY r.epoch, r.offset LIMIT ?"
)
LAST_REVISION = "SELECT max(offset) FROM revisions WHERE series_id = ? AND epoch = ?"
IS_ANCHOR = (
    "SELECT 1 FROM klines k WHERE series_id = ? AND open_ms = ? AND EXISTS (SELECT 1 FROM klines"
    " WHERE series_id = k.series_id AND open_ms <= k.open_ms AND offset > 0)"
)
REVISIONS = (
    f"SELECT open_ms, epoch, offset, learned_ms, {', '.join(BEFORE_NAMES)} FROM revisions"
    " WHERE series_id = ? AND open_ms >= ? AND open_ms < ?"
    " ORDER BY open_ms, epoch, offset LIMIT ?"
)
GET_CURSOR = "SELECT value FROM meta WHERE key = ?"
_FOREVER = 2**63 - 1


class SqliteReader:
    """Reads through a connection (autocommit) that it owns.  Everything may raise
    sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def close(self) -> None:
        self.connection.close()

    def history(
        self, series: Series, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        with self._snapshot():
            found = self._find(series)
            if found is None:
                return []
            forward = start_ms is not None and end_ms is None
            start = -_FOREVER if start_ms is None else start_ms
            end = _FOREVER if end_ms is None else end_ms
            rows = self.connection.execute(
                FORWARD if forward else BACKWARD, (found[0], start, end, limit)
            ).fetchall()
        klines = from_rows(rows)
        return klines if forward else klines[::-1]

    def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]:
        with self._snapshot():
            if venue is None:
                rows = self.connection.execute(ALL_ENDS).fetchall()
            elif symbols is None:
                rows = self.connection.execute(VENUE_ENDS, (venue,)).fetchall()
            else:
                wanted = json.dumps(list(symbols))
                rows = self.connection.execute(SYMBOL_ENDS, (venue, wanted)).fetchall()
        return {
            Series(row[0], row[1], Interval(row[2])): End(
                first_open_ms=row[3],
                last_open_ms=row[4],
                settled_ms=row[5],
                last_stream_id=row[6],
                kline=None if row[7] is None else from_row(row[7:]),
            )
            for row in rows
            if symbols is None or row[1] in symbols
        }

    def first_open(self, series: Series) -> int | None:
        with self._snapshot():
            found = self._find(series)
        return None if found is None else found[3]

    def cursor(self, name: str) -> str | None:
        with self._snapshot():
            row = self.connection.execute(GET_CURSOR, (CURSOR + name,)).fetchone()
        return None if row is None else str(row[0])

    def after(
        self,
        series: Series,
        epoch: int,
        offset: int,
        closed_ms: int | None,
        limit: int,
        *,
        exact: bool,
    ) -> list[KlineMessage] | None:
        number = epoch, offset
        with self._snapshot():
            found = self._find(series)
            if found is None:
                return [] if exact else None
            key, *forgotten = found[:3]
            if forgotten[0] is not None and number < tuple(forgotten):
                return None
            with closing(self.connection.execute(NUMBERS, (key,))) as numbers:
                walk = walk_back(numbers, number, limit)
            first = walk.first
            if exact or self._is_known(key, number, walk):
                if walk.count > limit:
                    return None
            else:
                # The process was killed: its numbers say nothing, the open time does.
                if closed_ms is None or not self._is_anchor(key, closed_ms):
                    return None
                first = closed_ms + 1
            candles: list[tuple[Any, ...]] = []
            if first is not None:
                question = FROM_OPEN, (key, first, limit + 1)
                candles = self.connection.execute(*question).fetchall()
            again = self.connection.execute(REVISED_AFTER, (key, *number, limit + 1)).fetchall()
        return messages_of(series, candles, again, from_row, limit)

    def revisions(
        self, series: Series, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]:
        with self._snapshot():
            found = self._find(series)
            if found is None:
                return []
            end = _FOREVER if end_ms is None else end_ms
            question = REVISIONS, (found[0], start_ms, end, limit)
            rows = self.connection.execute(*question).fetchall()
        return [
            Revision(
                open_ms=row[0],
                epoch=row[1],
                offset=row[2],
                learned_ms=row[3],
                before=None if row[4] is None else from_row((row[0], *row[4:])),
            )
            for row in rows
        ]

    def rows_by_interval(self) -> dict[Interval, int]:
        """Candles by interval, from the table of ends."""
        with self._snapshot():
            rows = self.connection.execute(
                "SELECT interval, sum(candles) FROM ends JOIN series ON id = series_id"
                " GROUP BY interval"
            ).fetchall()
        return {Interval(name): count for name, count in rows}

    def free_bytes(self) -> int:
        """What is free inside of the file."""
        with self._snapshot():
            (size,) = self.connection.execute("PRAGMA page_size").fetchone()
            (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        return int(size * free)

    def _is_known(self, key: int, number: Number, walk: Walk) -> bool:
        """Whether everything up to that number was written."""
        epoch, offset = number
        ended = self.connection.execute(
            "SELECT written_to_the_end FROM epochs WHERE epoch = ?", (epoch,)
        ).fetchone()
        if ended is None or ended[0]:
            return ended is not None
        (revised,) = self.connection.execute(LAST_REVISION, (key, epoch)).fetchone()
        return walk.is_known(offset, revised)

    def _is_anchor(self, key: int, open_ms: int) -> bool:
        return self.connection.execute(IS_ANCHOR, (key, open_ms)).fetchone() is not None

    def _find(self, series: Series) -> Sequence[Any] | None:
        """The series' key, forgotten number and first open."""
        names = series.venue, series.symbol, series.interval.value
        found: Sequence[Any] | None = self.connection.execute(FIND_SERIES, names).fetchone()
        return found

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """One state of the file for all statements inside, for a bounded time."""
        end = time.monotonic() + _DEADLINE_S
        self.connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS)
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            # An interrupted statement has ended the transaction where it could not go on.
            if self.connection.in_transaction:
                self.connection.rollback()
            self.connection.set_progress_handler(None, 0)
