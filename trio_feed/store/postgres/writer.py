"""What is written to the database.  Blocking; one thread at a time.

A batch is a handful of statements in one transaction, whatever its size: what is there is read, the
change is made in memory (:mod:`.batch`), new candles go in by COPY, everything else by ``unnest``
of a list per column.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import structlog
from psycopg import errors

from ...model import Series
from ..base import Entry, Keep, boundaries
from ..claims import Claims
from .batch import Change, StoredEnd, StoredRow, pairs_needed, series_of
from .connection import Connection, Link
from .locks import hold_shards
from .rows import BEFORE_NAMES, COLUMNS, NAMES, TYPES, casts
from .schema import CURSOR

log = structlog.get_logger()

_COPY_ROWS = 500
"""Rows of a COPY that are handed over at a time, about 100 KB."""
_KLINE_TYPES = ("integer", *TYPES.values(), "bigint", "bigint")
_KLINE_COLUMNS = f'series_id, {COLUMNS}, epoch, "offset"'
_COPY = f"COPY klines ({_KLINE_COLUMNS}) FROM STDIN WITH (NULL 'None')"
_PUT_CANDLES = (
    f"INSERT INTO klines AS k ({_KLINE_COLUMNS}) SELECT * FROM unnest({casts(_KLINE_TYPES)})"
    " ON CONFLICT (series_id, open_ms) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
    + ', epoch = CASE k."offset" WHEN 0 THEN excluded.epoch ELSE k.epoch END'
    ', "offset" = CASE k."offset" WHEN 0 THEN excluded."offset" ELSE k."offset" END'
)
_BEFORE_TYPES = ("integer", "bigint", "bigint", "bigint", "bigint", *list(TYPES.values())[1:])
_PUT_REVISIONS = (
    'INSERT INTO revisions (series_id, open_ms, epoch, "offset", learned_ms,'
    f" {', '.join(BEFORE_NAMES)}) SELECT * FROM unnest({casts(_BEFORE_TYPES)})"
    " ON CONFLICT DO NOTHING"
)
_END_NAMES = (
    "first_open_ms", "last_open_ms", "settled_ms", "last_stream_id", "candles", "forgotten_epoch",
    "forgotten_offset",
)  # fmt: skip
_GET_ENDS = f"SELECT series_id, {', '.join(_END_NAMES)} FROM ends WHERE series_id = ANY(%s)"
_PUT_ENDS = (
    f"INSERT INTO ends (series_id, {', '.join(_END_NAMES)})"
    f" SELECT * FROM unnest({casts(('integer', *['bigint'] * len(_END_NAMES)))})"
    " ON CONFLICT (series_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _END_NAMES)
)
_AS_TEXT = ", ".join(
    f"k.{name}::text" if kind.startswith("numeric") else f"k.{name}" for name, kind in TYPES.items()
)
_GET_ROWS = (
    f'SELECT k.series_id, {_AS_TEXT}, k.epoch, k."offset" FROM klines k'
    " JOIN unnest(%s::integer[], %s::bigint[]) AS w (series_id, open_ms)"
    " ON k.series_id = w.series_id AND k.open_ms = w.open_ms"
)
_PUT_HOLES = (
    "INSERT INTO holes SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::bigint[])"
    " ON CONFLICT (series_id, first_ms) DO UPDATE SET last_ms = excluded.last_ms"
)
_PUT_META = (
    "INSERT INTO meta SELECT * FROM unnest(%s::text[], %s::text[])"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_PUT_SERIES = (
    "INSERT INTO series (venue, symbol, interval)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING"
)
_GET_SERIES = (
    "SELECT s.venue, s.symbol, s.interval, s.id FROM series s"
    " JOIN unnest(%s::text[], %s::text[], %s::text[]) AS w (venue, symbol, interval)"
    " ON s.venue = w.venue AND s.symbol = w.symbol AND s.interval = w.interval"
)
_TOO_OLD = (
    "SELECT e.series_id, least(e.last_open_ms, %(before)s::bigint), (SELECT count(*) FROM"
    " (SELECT 1 FROM klines k WHERE k.series_id = e.series_id"
    " AND k.open_ms < least(e.last_open_ms, %(before)s::bigint) LIMIT %(limit)s) old)"
    " FROM ends e JOIN series s ON s.id = e.series_id WHERE s.interval = %(interval)s"
    " AND e.first_open_ms < %(before)s::bigint AND e.first_open_ms < e.last_open_ms"
    " AND (%(ours)s::integer[] IS NULL OR e.series_id = ANY(%(ours)s))"
    " ORDER BY e.series_id LIMIT %(limit)s"
)
_ALL_TOO_OLD = (
    "SELECT s.id, s.venue, s.symbol FROM ends e JOIN series s ON s.id = e.series_id"
    " WHERE s.interval = %(interval)s"
    " AND e.first_open_ms < %(before)s::bigint AND e.first_open_ms < e.last_open_ms"
)
_CUT = (
    "SELECT open_ms FROM klines WHERE series_id = %s AND open_ms < %s"
    " ORDER BY open_ms LIMIT 1 OFFSET %s"
)
_CUTS = " USING unnest(%s::integer[], %s::bigint[]) AS w (series_id, cut_ms)"
_DELETE = tuple(
    f"DELETE FROM {table} t{_CUTS} WHERE t.series_id = w.series_id AND t.open_ms < w.cut_ms"
    ' RETURNING t.series_id, t.epoch, t."offset"'
    for table in ("klines", "revisions")
)
# What is settled is in ``ends``; a hole is only of interest beside candles.
_DELETE_HOLES = (
    f"DELETE FROM holes t{_CUTS} WHERE t.series_id = w.series_id"
    " AND t.first_ms < w.cut_ms AND t.last_ms < w.cut_ms"
)
_FIRSTS = (
    "SELECT w.series_id, (SELECT min(open_ms) FROM klines k WHERE k.series_id = w.series_id)"
    " FROM unnest(%s::integer[]) AS w (series_id)"
)


class PostgresWriter:
    """Writes through a link that it owns: as the sole writer, or what its ``claims`` let it.
    Everything may raise psycopg.Error and StoreError, and then nothing was changed, or nobody knows
    (see :mod:`.batch`)."""

    def __init__(self, link: Link, claims: Claims | None = None) -> None:
        self.link, self._claims = link, claims
        self._ids: dict[Series, int] = {}

    def write(self, batch: Sequence[Entry]) -> None:
        """Keep a batch: candles, revisions with the values before, holes, ends of series."""
        try:
            self._write(batch, by_copy=True)
        except errors.UniqueViolation:
            # A row that the table of ends does not know of: somebody else wrote.  The long way
            # works all the same.
            self._write(batch, by_copy=False)

    def _write(self, batch: Sequence[Entry], *, by_copy: bool) -> None:
        with self.link.transaction() as db:
            if self._claims is not None:
                stored = hold_shards(db, self._claims.shards(batch))
                batch = self._claims.still_ours(batch, stored)
            ids = self._ids_of(db, series_of(batch))
            keys = [ids[series] for series in series_of(batch)]
            ends = {row[0]: StoredEnd.of_row(row[1:]) for row in db.execute(_GET_ENDS, (keys,))}
            change = Change(ids, ends, self._rows(db, pairs_needed(batch, ids, ends)))
            for entry in batch:
                change.add(entry)
            _apply(db, change, by_copy=by_copy)
        self._ids = ids
        for series, why in change.refused:
            log.error("store.row_refused", series=str(series), problem=why)

    def prune(self, keep: Keep, wall_ms: float, limit: int) -> int:
        """See :meth:`trio_feed.store.backend.Backend.prune`."""
        if self._claims is not None and not self._claims.all():
            return 0
        left = limit
        with self.link.transaction() as db:
            ((newest,),) = db.execute("SELECT max(last_open_ms) FROM ends")
            before = boundaries(keep, newest, wall_ms) if newest is not None else {}
            stored = {} if self._claims is None else hold_shards(db, self._claims.all())
            for interval, before_ms in before.items():
                wanted: dict[str, Any] = {"interval": interval.value, "before": before_ms}
                wanted |= {"limit": left, "ours": self._ours(db, wanted, stored)}
                rows = db.execute(_TOO_OLD, wanted).fetchall() if left else []
                cuts: dict[int, int] = {}
                for key, cut_ms, count in rows:
                    if left <= 0:
                        break
                    if count >= left:
                        row = db.execute(_CUT, (key, cut_ms, left)).fetchone()
                        cut_ms = cut_ms if row is None else row[0]
                    cuts[key] = cut_ms
                    left -= min(count, left)
                if cuts:
                    _delete(db, cuts)
        return limit - left

    def _ours(
        self, db: Connection, wanted: Mapping[str, Any], stored: Mapping[str, int]
    ) -> list[int] | None:
        """The series that this process may prune; None: all."""
        if self._claims is None:
            return None
        rows = db.execute(_ALL_TOO_OLD, wanted)
        return [key for key, venue, symbol in rows if self._claims.writes(venue, symbol, stored)]

    def end_epoch(self, epoch: int) -> None:
        """Keep that every row of this epoch was written."""
        with self.link.use() as db:
            db.execute("UPDATE epochs SET written_to_the_end = true WHERE epoch = %s", (epoch,))

    def _rows(
        self, db: Connection, pairs: Collection[tuple[int, int]]
    ) -> dict[tuple[int, int], StoredRow]:
        if not pairs:
            return {}
        rows = db.execute(_GET_ROWS, [list(column) for column in zip(*pairs, strict=True)])
        return {(row[0], row[1]): StoredRow(row[1:-2], (row[-2], row[-1])) for row in rows}

    def _ids_of(self, db: Connection, wanted: Iterable[Series]) -> dict[Series, int]:
        """With those of ``wanted``, which are made where they are not there."""
        missing = {(s.venue, s.symbol, s.interval.value): s for s in wanted if s not in self._ids}
        if not missing:
            return self._ids
        columns = [list(column) for column in zip(*missing, strict=True)]
        found = dict(self._ids)
        rows = db.execute(_GET_SERIES, columns).fetchall()
        if len(rows) < len(missing):
            db.execute(_PUT_SERIES, columns)
            rows = db.execute(_GET_SERIES, columns).fetchall()
        for *names, number in rows:
            found[missing[tuple(names)]] = number
        return found


def _apply(db: Connection, change: Change, *, by_copy: bool) -> None:
    fresh, changed = change.fresh(), change.changed()
    if not by_copy:
        fresh, changed = [], fresh + changed
    if fresh:
        rows = iter(fresh)
        with db.cursor() as cursor, cursor.copy(_COPY) as copy:
            while lines := ["\t".join(map(str, row)) for row in islice(rows, _COPY_ROWS)]:
                copy.write("\n".join(lines) + "\n")
    _put(db, _PUT_CANDLES, changed)
    _put(db, _PUT_REVISIONS, change.revisions.values())
    _put(db, _PUT_HOLES, [(*pair, last_ms) for pair, last_ms in change.holes.items()])
    _put(db, _PUT_ENDS, [(key, *end.row()) for key, end in change.ends.items()])
    _put(db, _PUT_META, [(CURSOR + name, text) for name, text in change.cursors.items()])


def _put(db: Connection, statement: str, rows: Collection[Sequence[Any]]) -> None:
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        db.execute(statement, columns)


def _delete(db: Connection, cuts: dict[int, int]) -> None:
    keys, at = list(cuts), list(cuts.values())
    ends = {row[0]: StoredEnd.of_row(row[1:]) for row in db.execute(_GET_ENDS, (keys,))}
    for statement in _DELETE:
        for key, *number in db.execute(statement, (keys, at)):
            end, (epoch, offset) = ends[key], number
            end.candles -= statement is _DELETE[0]
            if offset:
                end.forgotten = max(end.forgotten, (epoch, offset))
    db.execute(_DELETE_HOLES, (keys, at))
    for key, first_ms in db.execute(_FIRSTS, (keys,)):
        ends[key].first_open_ms = first_ms
    _put(db, _PUT_ENDS, [(key, *end.row()) for key, end in ends.items()])
