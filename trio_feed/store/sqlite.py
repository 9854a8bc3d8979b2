"""Candle history in one SQLite file.  Sole importer of sqlite3.

One connection writes (WAL, one thread hop per batch), one reads; each is used by one thread at a
time.  Series have integer keys and candles live in an ordinary rowid table with a unique index,
which was measured three times as fast as text keys or WITHOUT ROWID.  Prices are TEXT: the
exchange's own digits.  A batch that the disk does not take stays pending and is tried again; what
is pending is seen by readers too.
"""

import sqlite3
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio

from ..errors import StartError, StoreError
from ..metrics import Metrics
from ..model import Hole, Interval, Kline, KlineMessage, Series, Source, plain
from .base import Tail

log = structlog.get_logger()
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, venue TEXT NOT NULL, symbol TEXT NOT NULL, interval TEXT NOT NULL,
    UNIQUE (venue, symbol, interval));
CREATE TABLE IF NOT EXISTS klines (
    series_id INTEGER NOT NULL REFERENCES series (id), open_ms INTEGER NOT NULL,
    open TEXT NOT NULL, high TEXT NOT NULL, low TEXT NOT NULL, close TEXT NOT NULL,
    volume TEXT NOT NULL, quote_volume TEXT NOT NULL, trades INTEGER NOT NULL,
    source TEXT NOT NULL, event_ms INTEGER NOT NULL, complete INTEGER NOT NULL,
    epoch INTEGER NOT NULL, offset INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS klines_by_open ON klines (series_id, open_ms);
CREATE TABLE IF NOT EXISTS holes (
    series_id INTEGER NOT NULL REFERENCES series (id),
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, UNIQUE (series_id, first_ms));
"""
_SCHEMA_VERSION = "1"
_COLUMNS = (
    "open_ms, open, high, low, close, volume, quote_volume, trades, source, event_ms, complete"
)
_RETRY_MAX_S = 5.0

Entry = KlineMessage | tuple[Series, Hole]


class SqliteStore:
    """See :class:`trio_feed.store.base.KlineStore`.  Made by :func:`open_sqlite`."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        reader: sqlite3.Connection,
        epoch: int,
        *,
        flush_interval_s: float,
        max_pending: int,
        metrics: Metrics,
    ) -> None:
        self.epoch = epoch
        self._writer, self._reader = writer, reader
        self._write_turn, self._read_turn = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._flush_interval_s = flush_interval_s
        self._max_pending = max_pending
        self._metrics = metrics
        self._pending: list[Entry] = []
        self._writing: list[Entry] = []
        self._work = trio.Event()
        self._written = trio.Event()
        self._ids: dict[Series, int] = {}

    def put(self, message: KlineMessage) -> None:
        self._pending.append(message)
        self._work.set()

    def put_hole(self, series: Series, hole: Hole) -> None:
        self._pending.append((series, hole))
        self._work.set()

    def pending(self) -> int:
        return len(self._pending) + len(self._writing)

    async def room(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.pending() >= self._max_pending:
            await self._written.wait()

    async def run(self) -> None:
        failures = 0
        while True:
            await self._work.wait()
            await trio.sleep(self._flush_interval_s)
            try:
                await self.flush()
            except sqlite3.Error as error:
                failures += 1
                delay = min(_RETRY_MAX_S, 0.1 * 2 ** min(failures, 10))
                self._metrics.store_errors.inc()
                log.error(
                    "store.write_failed",
                    problem=str(error),
                    pending=self.pending(),
                    retry_s=round(delay, 3),
                    advice="check disk space and the file's permissions",
                )
                await trio.sleep(delay)
            else:
                if failures:
                    log.info("store.write_recovered", failures=failures)
                failures = 0

    async def flush(self) -> None:
        """Write everything pending in one transaction.  Raises sqlite3.Error; loses nothing."""
        if self._writing or not self._pending:
            return
        self._writing, self._pending = self._pending, []
        self._work = trio.Event()
        try:
            batch = self._writing
            await self._in_thread(self._write_turn, lambda: self._write(batch))
            self._writing = []
        finally:
            if self._writing:
                self._pending = self._writing + self._pending
                self._writing = []
                self._work.set()
            self._metrics.store_pending.set(self.pending())
            self._written.set()
            self._written = trio.Event()

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        fresh = [k for k in self._unwritten(series) if _inside(k, start_ms, end_ms)]
        forward = start_ms is not None and end_ms is None
        rows = await self._ask(lambda: self._select(series, limit, start_ms, end_ms, forward))
        merged = {kline.open_ms: kline for kline in rows} | {k.open_ms: k for k in fresh}
        ordered = [merged[at] for at in sorted(merged)]
        return ordered[:limit] if forward else ordered[-limit:]

    async def tails(self) -> dict[Series, Tail]:
        found: dict[Series, Tail] = await self._ask(self._select_tails)
        return found

    async def first_open(self, series: Series) -> int | None:
        fresh = [kline.open_ms for kline in self._unwritten(series)]
        first = await self._ask(lambda: self._select_first(series))
        if first is not None:
            fresh.append(first)
        return min(fresh, default=None)

    async def last_flush(self) -> None:
        """Write what is pending, once; a failure is logged, not raised."""
        try:
            await self.flush()
        except sqlite3.Error as error:
            log.error("store.write_failed", problem=str(error), pending=self.pending())

    def close(self) -> None:
        """Close both connections.  Called by the opener after the last flush."""
        self._reader.close()
        self._writer.close()

    def _unwritten(self, series: Series) -> Iterable[Kline]:
        for entry in (*self._writing, *self._pending):
            if isinstance(entry, KlineMessage) and entry.series == series:
                yield entry.kline

    async def _in_thread(self, turn: trio.CapacityLimiter, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=turn)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await self._in_thread(self._read_turn, question)
        except sqlite3.Error as error:
            raise StoreError(f"stored candles cannot be read: {error}") from None

    def _write(self, batch: list[Entry]) -> None:
        new_ids: dict[Series, int] = {}
        with self._writer:
            candles, holes = [], []
            for entry in batch:
                if isinstance(entry, KlineMessage):
                    candles.append((self._series_id(entry.series, new_ids), *_values(entry)))
                else:
                    series, hole = entry
                    key = self._series_id(series, new_ids)
                    holes.append((key, hole.first_ms, hole.last_ms))
            marks = ", ".join("?" * 14)
            self._writer.executemany(f"INSERT OR REPLACE INTO klines VALUES ({marks})", candles)
            self._writer.executemany("INSERT OR REPLACE INTO holes VALUES (?, ?, ?)", holes)
        self._ids |= new_ids

    def _series_id(self, series: Series, new_ids: dict[Series, int]) -> int:
        found = self._ids.get(series) or new_ids.get(series)
        if found is None:
            key = (series.venue, series.symbol, series.interval.value)
            self._writer.execute(
                "INSERT OR IGNORE INTO series (venue, symbol, interval) VALUES (?, ?, ?)", key
            )
            found = new_ids[series] = int(_lookup(self._writer, key))
        return found

    def _select(
        self, series: Series, limit: int, start_ms: int | None, end_ms: int | None, forward: bool
    ) -> list[Kline]:
        order = "ASC" if forward else "DESC"
        rows = self._reader.execute(
            f"SELECT {_COLUMNS} FROM klines JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND interval = ? AND open_ms >= ? AND open_ms < ?"
            f" ORDER BY open_ms {order} LIMIT ?",
            (
                series.venue,
                series.symbol,
                series.interval.value,
                start_ms if start_ms is not None else 0,
                end_ms if end_ms is not None else 2**62,
                limit,
            ),
        ).fetchall()
        klines = [_kline(row) for row in rows]
        return klines if forward else klines[::-1]

    def _select_tails(self) -> dict[Series, Tail]:
        columns = ", ".join(f"k.{name}" for name in _COLUMNS.split(", "))
        rows = self._reader.execute(
            f"SELECT s.venue, s.symbol, s.interval, k.epoch, k.offset, {columns} FROM series s"
            " JOIN klines k ON k.series_id = s.id"
            " AND k.open_ms = (SELECT max(open_ms) FROM klines WHERE series_id = s.id)"
        ).fetchall()
        return {
            Series(row[0], row[1], Interval(row[2])): Tail(_kline(row[5:]), row[3], row[4])
            for row in rows
        }

    def _select_first(self, series: Series) -> int | None:
        row = self._reader.execute(
            "SELECT min(open_ms) FROM klines JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND interval = ?",
            (series.venue, series.symbol, series.interval.value),
        ).fetchone()
        return None if row is None else row[0]


def open_sqlite(
    path: Path,
    *,
    simulated: bool,
    now_ms: float,
    flush_interval_s: float,
    max_pending: int,
    metrics: Metrics,
) -> SqliteStore:
    """Open or create the file (blocking).  Raises StartError with what is wrong with the path.

    A file remembers whether it holds simulated candles; the two kinds never share one.
    """
    writer = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = _connect(path)
        epoch = _prepare(writer, path, simulated=simulated, now_ms=now_ms)
        reader = _connect(path)
    except (OSError, sqlite3.Error) as error:
        if writer is not None:
            writer.close()
        raise StartError(f"store.path: {path} cannot be opened for writing: {error}") from None
    except StartError:
        if writer is not None:
            writer.close()
        raise
    return SqliteStore(
        writer,
        reader,
        epoch,
        flush_interval_s=flush_interval_s,
        max_pending=max_pending,
        metrics=metrics,
    )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=1.0, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path, *, simulated: bool, now_ms: float) -> int:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    with connection:
        connection.executescript(_SCHEMA)
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if meta.get("schema", _SCHEMA_VERSION) != _SCHEMA_VERSION:
            raise StartError(f"store.path: {path} was written by another version of trio_feed")
        wanted = "simulated" if simulated else "real"
        if meta.get("kind", wanted) != wanted:
            raise StartError(
                f"store.path: {path} holds {meta['kind']} candles and this run has {wanted} ones;"
                " name another file"
            )
        epoch = max(int(meta.get("epoch", "0")) + 1, int(now_ms))
        rows = [("schema", _SCHEMA_VERSION), ("kind", wanted), ("epoch", str(epoch))]
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
    return epoch


def _lookup(connection: sqlite3.Connection, key: tuple[str, str, str]) -> Any:
    return connection.execute(
        "SELECT id FROM series WHERE venue = ? AND symbol = ? AND interval = ?", key
    ).fetchone()[0]


def _values(message: KlineMessage) -> tuple[Any, ...]:
    k = message.kline
    return (
        k.open_ms,
        plain(k.open),
        plain(k.high),
        plain(k.low),
        plain(k.close),
        plain(k.volume),
        plain(k.quote_volume),
        k.trades,
        k.source.value,
        k.event_ms,
        int(k.complete),
        message.epoch,
        message.offset,
    )


def _kline(row: tuple[Any, ...]) -> Kline:
    o, h, low, c, volume, quote = (Decimal(text) for text in row[1:7])
    complete = bool(row[10])
    return Kline(
        row[0], o, h, low, c, volume, quote, row[7], True, Source(row[8]), row[9], complete
    )


def _inside(kline: Kline, start_ms: int | None, end_ms: int | None) -> bool:
    return (start_ms is None or kline.open_ms >= start_ms) and (
        end_ms is None or kline.open_ms < end_ms
    )
