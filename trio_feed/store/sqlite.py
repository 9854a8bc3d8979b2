"""Candle history in one SQLite file.  Sole importer of sqlite3.

One connection writes (WAL, one thread hop per batch), one reads; each is used by one thread at a
time.  Series have integer keys and candles live in an ordinary rowid table with a unique index,
which was measured three times as fast as text keys or WITHOUT ROWID.  Prices are TEXT: the
exchange's own digits.  A batch that the disk does not take stays pending and is tried again; what
is pending is seen by readers too.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
import trio
from attrs import evolve

from ..errors import StartError, StoreError
from ..metrics import Metrics
from ..model import Hole, Kline, KlineMessage, Series, plain
from .base import Tail, settled_ms
from .sqlite_file import SCHEMA_VERSION, Complaint, Place, advice, connect, examine, set_up
from .sqlite_reader import COLUMNS, SqliteReader

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
    last_trade INTEGER NOT NULL,
    epoch INTEGER NOT NULL, offset INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS klines_by_open ON klines (series_id, open_ms);
CREATE TABLE IF NOT EXISTS holes (
    series_id INTEGER NOT NULL REFERENCES series (id),
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, UNIQUE (series_id, first_ms));
CREATE TABLE IF NOT EXISTS revisions (
    series_id INTEGER NOT NULL REFERENCES series (id), open_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL, offset INTEGER NOT NULL, UNIQUE (series_id, epoch, offset));
CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY, written_to_the_end INTEGER NOT NULL);
"""
_ALL_COLUMNS = f"series_id, {COLUMNS}, epoch, offset"
_PUT_CANDLE = (
    f"INSERT INTO klines ({_ALL_COLUMNS}) VALUES ({', '.join('?' * 15)})"
    " ON CONFLICT (series_id, open_ms) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS.split(", ")[1:])
)
"""A second time only the values count, not the number: see :mod:`.base`."""
_RETRY_MAX_S = 5.0
_FAULTS = (sqlite3.Error, OSError, StoreError)
"""What a disk and its operator can do to a write."""

Entry = KlineMessage | tuple[Series, Hole]


class SqliteStore:
    """See :class:`trio_feed.store.base.KlineStore`.  Made by :func:`open_sqlite`."""

    def __init__(
        self,
        writer: sqlite3.Connection,
        reader: SqliteReader,
        place: Place,
        epoch: int,
        *,
        flush_interval_s: float,
        max_pending: int,
        metrics: Metrics,
    ) -> None:
        self.epoch = epoch
        self._writer, self._reader, self._place = writer, reader, place
        self._write_complaint, self._read_complaint = Complaint(), Complaint()
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

    async def room(self) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        full = self.pending() >= self._max_pending
        while self.pending() >= self._max_pending:
            await self._written.wait()
        return full

    async def run(self) -> None:
        failures = 0
        while True:
            await self._work.wait()
            await trio.sleep(self._flush_interval_s)
            try:
                await self.flush()
            except _FAULTS as error:
                failures += 1
                delay = min(_RETRY_MAX_S, 0.1 * 2 ** min(failures, 10))
                self._metrics.store_errors.inc()
                self._complain("store.write_failed", self._write_complaint, error)
                await trio.sleep(delay)
            else:
                if failures:
                    log.info("store.write_recovered", failures=failures)
                    self._write_complaint.over()
                failures = 0

    async def flush(self) -> None:
        """Write everything pending in one transaction.  Raises sqlite3.Error, OSError and
        StoreError; loses nothing."""
        if self._writing or not self._pending:
            return
        if await self._in_thread(self._write_turn, self._place.is_empty):
            await self._put_back()
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
        rows = await self._ask(
            lambda: self._reader.history(series, limit, start_ms, end_ms, forward)
        )
        merged = {kline.open_ms: kline for kline in rows} | {k.open_ms: k for k in fresh}
        ordered = [merged[at] for at in sorted(merged)]
        return ordered[:limit] if forward else ordered[-limit:]

    async def tails(self) -> dict[Series, Tail]:
        unwritten = [*self._writing, *self._pending]
        found: dict[Series, Tail] = await self._ask(lambda: self._reader.tails())
        for entry in unwritten:
            if isinstance(entry, KlineMessage):
                _extend(found, entry)
            else:
                series, hole = entry
                if series in found:
                    settled = settled_ms(found[series].settled_ms, [hole])
                    found[series] = evolve(found[series], settled_ms=settled)
        return found

    async def first_open(self, series: Series) -> int | None:
        fresh = [kline.open_ms for kline in self._unwritten(series)]
        first = await self._ask(lambda: self._reader.first_open(series))
        if first is not None:
            fresh.append(first)
        return min(fresh, default=None)

    async def last_flush(self) -> None:
        """Write what is pending, once; a failure is logged, not raised."""
        try:
            await self.flush()
        except _FAULTS as error:
            self._complain("store.write_failed", Complaint(), error)

    def close(self) -> None:
        """Close both connections.  Called by the opener after the last flush."""
        self._reader.close()
        if not self.pending():
            with suppress(sqlite3.Error), self._writer:  # else it counts as one that was killed
                self._writer.execute(
                    "UPDATE epochs SET written_to_the_end = 1 WHERE epoch = ?", (self.epoch,)
                )
        self._writer.close()

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        unwritten = [m for m in self._messages(series) if (m.epoch, m.offset) > (epoch, offset)]
        known_here = epoch == self.epoch
        stored: list[KlineMessage] | None = await self._ask(
            lambda: self._reader.after(
                series, epoch, offset, None if known_here else closed_ms, limit, exact=known_here
            )
        )
        if stored is None:
            return None
        told = {(m.epoch, m.offset): m for m in (*stored, *unwritten)}
        values = {m.kline.open_ms: m.kline for _, m in sorted(told.items())}
        out = [evolve(m, kline=values[m.kline.open_ms], received_ms=0.0) for m in told.values()]
        out.sort(key=lambda m: (m.epoch, m.offset))
        return out if len(out) <= limit else None

    def _messages(self, series: Series) -> Iterable[KlineMessage]:
        for entry in (*self._writing, *self._pending):
            if isinstance(entry, KlineMessage) and entry.series == series:
                yield entry

    def _unwritten(self, series: Series) -> Iterable[Kline]:
        return (message.kline for message in self._messages(series))

    async def _in_thread(self, turn: trio.CapacityLimiter, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=turn)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await self._in_thread(self._read_turn, question)
        except sqlite3.Error as error:
            self._complain("store.read_failed", self._read_complaint, error)
            raise StoreError(f"stored candles cannot be read: {error}") from None

    def _complain(self, event: str, complaint: Complaint, error: Exception) -> None:
        if complaint.is_news(str(error), trio.current_time()):
            log.error(
                event,
                path=str(self._place.path),
                problem=str(error),
                advice=advice(error),
                pending=self.pending(),
            )

    async def _put_back(self) -> None:
        """The file was deleted: write it anew from what is still open."""
        async with self._read_turn:
            old = self._writer, self._reader.connection
            self._writer, reader = await self._in_thread(
                self._write_turn, lambda: self._place.put_back(*old)
            )
            self._reader = SqliteReader(reader)
        await self._in_thread(self._write_turn, lambda: set_up(self._writer))
        log.error(
            "store.file_put_back",
            path=str(self._place.path),
            problem="the file was deleted while it was in use",
            advice="nothing is lost; stop the service before you delete or move its store",
        )

    def _write(self, batch: list[Entry]) -> None:
        new_ids: dict[Series, int] = {}
        with self._writer:
            candles, again, holes = [], [], []
            for entry in batch:
                if isinstance(entry, KlineMessage):
                    key = self._series_id(entry.series, new_ids)
                    candles.append((key, *_values(entry)))
                    if entry.revision:
                        again.append((key, entry.kline.open_ms, entry.epoch, entry.offset))
                else:
                    series, hole = entry
                    key = self._series_id(series, new_ids)
                    holes.append((key, hole.first_ms, hole.last_ms))
            self._writer.executemany(_PUT_CANDLE, candles)
            self._writer.executemany("INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?)", again)
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


def _extend(tails: dict[Series, Tail], told: KlineMessage) -> None:
    """``told`` is not on disk yet, and may be where its series ends."""
    before = tails.get(told.series)
    if before is None or told.kline.open_ms > before.kline.open_ms:
        settled = before.settled_ms if before else 0
        settled = max(settled, told.kline.open_ms)
        tails[told.series] = Tail(told.kline, settled)
    elif told.kline.open_ms == before.kline.open_ms:
        tails[told.series] = evolve(before, kline=told.kline)


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

    A file remembers whether it holds simulated candles; the two kinds never share one.  What is
    not a store of ours is left as it is.
    """
    kind = "simulated" if simulated else "real"
    writer, place = None, Place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        examine(path, kind=kind)
        writer = connect(path)
        epoch = _prepare(writer, kind=kind, now_ms=now_ms)
        reader = connect(path)
        place.remember()
    except (OSError, sqlite3.Error) as error:
        if writer is not None:
            writer.close()
        problem = f"cannot be opened for writing: {error}; {advice(error)}"
        raise StartError(f"store.path: {path} {problem}") from None
    return SqliteStore(
        writer,
        SqliteReader(reader),
        place,
        epoch,
        flush_interval_s=flush_interval_s,
        max_pending=max_pending,
        metrics=metrics,
    )


def _prepare(connection: sqlite3.Connection, *, kind: str, now_ms: float) -> int:
    """The tables, and this opening's epoch."""
    set_up(connection)
    with connection:
        connection.executescript(_SCHEMA)
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        epoch = max(int(meta.get("epoch", "0")) + 1, int(now_ms))
        rows = [("schema", SCHEMA_VERSION), ("kind", kind), ("epoch", str(epoch))]
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        connection.execute("INSERT INTO epochs VALUES (?, 0)", (epoch,))
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
        k.last_stream_id,
        message.epoch,
        message.offset,
    )


def _inside(kline: Kline, start_ms: int | None, end_ms: int | None) -> bool:
    return (start_ms is None or kline.open_ms >= start_ms) and (
        end_ms is None or kline.open_ms < end_ms
    )
