"""The questions that are asked of the tables, as SQL.  Blocking; one thread at a time.

Every question reaches its rows by an index and reads no more of them than its answer has; the
plans are pinned by a test.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ...model import Interval, Kline, KlineMessage, Series
from ..base import End, Revision
from ..resumed import Number, Walk, messages_of, walk_back
from .connection import SCHEMA, Connection, Link
from .rows import BEFORE_NAMES, COLUMNS, columns_of, from_row
from .schema import CURSOR, is_hypertable, timescale_schema

_KEY = "(SELECT id FROM series WHERE venue = %s AND symbol = %s AND interval = %s)"
_HISTORY = (
    f"SELECT {COLUMNS} FROM klines WHERE series_id = {_KEY} AND open_ms >= %s AND open_ms < %s"
    " ORDER BY open_ms {} LIMIT %s"
)
FORWARD, BACKWARD = _HISTORY.format(""), _HISTORY.format("DESC")
FIND_SERIES = (
    "SELECT id, forgotten_epoch, forgotten_offset FROM series"
    " LEFT JOIN ends ON series_id = id WHERE venue = %s AND symbol = %s AND interval = %s"
)
FIRST = f"SELECT first_open_ms FROM ends WHERE series_id = {_KEY}"
_ENDS = (
    "SELECT s.venue, s.symbol, s.interval,"
    " e.first_open_ms, e.last_open_ms, e.settled_ms, e.last_stream_id,"
    f" {columns_of('k')} FROM ends e JOIN series s ON s.id = e.series_id"
    " LEFT JOIN klines k ON k.series_id = e.series_id AND k.open_ms = e.last_open_ms"
)
_VENUE_ENDS = f"{_ENDS} WHERE s.venue = %s"
_SYMBOL_ENDS = f"{_ENDS} WHERE (s.venue = %s OR %s) AND s.symbol = ANY(%s)"
NUMBERS = (
    'SELECT open_ms, epoch, "offset" FROM klines WHERE series_id = %s AND open_ms < %s'
    " ORDER BY open_ms DESC LIMIT %s"
)
FROM_OPEN = (
    f'SELECT {COLUMNS}, epoch, "offset" FROM klines'
    ' WHERE series_id = %s AND open_ms >= %s AND "offset" > 0 ORDER BY open_ms LIMIT %s'
)
REVISED_AFTER = (
    f'SELECT {columns_of("k")}, r.epoch, r."offset" FROM revisions r'
    " JOIN klines k ON k.series_id = r.series_id AND k.open_ms = r.open_ms"
    ' WHERE r.series_id = %s AND (r.epoch, r."offset") > (%s, %s)'
    ' ORDER BY r.epoch, r."offset" LIMIT %s'
)
LAST_REVISION = 'SELECT max("offset") FROM revisions WHERE series_id = %s AND epoch = %s'
_IS_ANCHOR = (
    "SELECT 1 FROM klines k WHERE series_id = %s AND open_ms = %s AND EXISTS (SELECT 1 FROM klines"
    ' WHERE series_id = k.series_id AND open_ms <= k.open_ms AND "offset" > 0)'
)
REVISIONS = (
    f'SELECT open_ms, epoch, "offset", learned_ms, {", ".join(BEFORE_NAMES)} FROM revisions'
    f" WHERE series_id = {_KEY} AND open_ms >= %s AND open_ms < %s"
    ' ORDER BY open_ms, epoch, "offset" LIMIT %s'
)
_FOREVER = 2**63 - 1
_FIRST_LOOK = 64
"""Rows of a first look back: most clients come back after moments."""


def _names(series: Series) -> tuple[str, str, str]:
    return series.venue, series.symbol, series.interval.value


class PostgresReader:
    """Reads through a link that it owns.  Everything may raise psycopg.Error."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def history(
        self, series: Series, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        forward = start_ms is not None and end_ms is None
        start = -_FOREVER if start_ms is None else start_ms
        end = _FOREVER if end_ms is None else end_ms
        question = FORWARD if forward else BACKWARD
        rows = self._all(question, *_names(series), start, end, limit)
        klines = [from_row(row) for row in rows]
        return klines if forward else klines[::-1]

    def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]:
        if symbols is not None:
            rows = self._all(_SYMBOL_ENDS, venue, venue is None, list(symbols))
        elif venue is not None:
            rows = self._all(_VENUE_ENDS, venue)
        else:
            rows = self._all(_ENDS)
        return {
            Series(row[0], row[1], Interval(row[2])): End(
                first_open_ms=row[3],
                last_open_ms=row[4],
                settled_ms=row[5],
                last_stream_id=row[6],
                kline=None if row[7] is None else from_row(row[7:]),
            )
            for row in rows
        }

    def first_open(self, series: Series) -> int | None:
        rows = self._all(FIRST, *_names(series))
        return rows[0][0] if rows else None

    def identity(self) -> str:
        """Of the database; empty: it has none yet."""
        rows = self._all("SELECT value FROM meta WHERE key = 'identity'")
        return str(rows[0][0]) if rows else ""

    def cursor(self, name: str) -> str | None:
        rows = self._all("SELECT value FROM meta WHERE key = %s", CURSOR + name)
        return rows[0][0] if rows else None

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
        with self._snapshot() as db:
            found = db.execute(FIND_SERIES, _names(series)).fetchone()
            if found is None:
                return [] if exact else None
            key, *forgotten = found
            if forgotten[0] is not None and number < tuple(forgotten):
                return None
            walk = walk_back(_backwards(db, key, limit), number, limit)
            first = walk.first
            if exact or _is_known(db, key, number, walk):
                if walk.count > limit:
                    return None
            else:
                # The process was killed: its numbers say nothing, the open time does.
                if closed_ms is None or not _is_anchor(db, key, closed_ms):
                    return None
                first = closed_ms + 1
            candles: list[tuple[Any, ...]] = []
            if first is not None:
                candles = db.execute(FROM_OPEN, (key, first, limit + 1)).fetchall()
            again = db.execute(REVISED_AFTER, (key, *number, limit + 1)).fetchall()
        return messages_of(series, candles, again, from_row, limit)

    def revisions(
        self, series: Series, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]:
        end = _FOREVER if end_ms is None else end_ms
        rows = self._all(REVISIONS, *_names(series), start_ms, end, limit)
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
        rows = self._all(
            "SELECT interval, sum(candles)::bigint FROM ends JOIN series ON id = series_id"
            " GROUP BY interval"
        )
        return {Interval(name): count for name, count in rows}

    def total_bytes(self) -> int:
        """Of all tables in our schema, their indexes included."""
        with self.link.use() as db:
            ((size,),) = db.execute(
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
                " WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r'",
                (SCHEMA,),
            )
            if is_hypertable(db):
                ((chunks,),) = db.execute(
                    f'SELECT "{timescale_schema(db)}".hypertable_size(%s)',
                    (f"{SCHEMA}.klines",),
                )
                size += chunks or 0
        return int(size)

    def _all(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        """Of one statement, which is a snapshot by itself."""
        with self.link.use() as db:
            return db.execute(question, values).fetchall()

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        """One state of the tables for all statements inside."""
        with self.link.transaction() as db:
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield db


def _backwards(db: Connection, key: int, limit: int) -> Iterator[tuple[int, int, int]]:
    """Open, epoch and offset of the series' candles, the newest first."""
    before, size = _FOREVER, _FIRST_LOOK
    while True:
        rows = db.execute(NUMBERS, (key, before, size)).fetchall()
        yield from rows
        if len(rows) < size:
            return
        before, size = rows[-1][0], 2 * limit + 3


def _is_known(db: Connection, key: int, number: Number, walk: Walk) -> bool:
    """Whether everything up to that number was written."""
    epoch, offset = number
    ended = db.execute(
        "SELECT written_to_the_end FROM epochs WHERE epoch = %s", (epoch,)
    ).fetchone()
    if ended is None or ended[0]:
        return ended is not None
    ((revised,),) = db.execute(LAST_REVISION, (key, epoch))
    return walk.is_known(offset, revised)


def _is_anchor(db: Connection, key: int, open_ms: int) -> bool:
    return db.execute(_IS_ANCHOR, (key, open_ms)).fetchone() is not None
