"""A store before a database: what is pending, and all that is the same for every database.

Entries are pending until a batch of them was written; a batch that the database does not take
stays pending and is tried again with backoff.  Questions see what is pending.  Retention goes in
small steps between batches, so that it never holds up what comes in.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Never, TypeVar

import structlog
import trio
from attrs import frozen

from ..errors import StoreError
from ..metrics import Metrics
from ..model import Hole, Kline, KlineMessage, Series
from .backend import Backend, StoreFault
from .base import (
    CursorEntry,
    Entry,
    HoleEntry,
    Keep,
    LostEntry,
    Revision,
    SeriesEntry,
    Sizes,
    StoredEnd,
    StoreStatistics,
    merge_messages,
    why_unfit,
)
from .pending import Batch, Complaint, Watcher

log = structlog.get_logger()
T = TypeVar("T")

_RETRY_MAX_S = 5.0
_RETAIN_EVERY_S = 30.0
_STEP_ROWS = 2000
_STEP_PAUSE_S = 0.02


@frozen
class BufferLimits:
    """``flush_interval_s``: from batch to batch at least, so what comes first after a pause is
    written at once; ``max_pending``: entries in memory at which ``wait_capacity`` waits."""

    flush_interval_s: float
    max_pending: int
    keep: Keep


class BufferedStore:
    """See :class:`trio_feed.store.base.KlineStore`.  Flushed and closed by its opener."""

    def __init__(self, backend: Backend, limits: BufferLimits, metrics: Metrics) -> None:
        self.epoch = backend.epoch
        self.backend = backend
        self._limits, self._metrics = limits, metrics
        self._write_complaint, self._read_complaint = Complaint(), Complaint()
        self._refused_complaint = Complaint()
        self._turn = trio.Lock()  # of the backend's writer: batches and steps of retention
        self._pending, self._writing = Batch(), Batch()
        self._watchers: list[Watcher] = []
        self._work = trio.Event()
        self._written = trio.Event()
        self._wall_ms = 0.0
        self._sizes = Sizes({})
        self._pruned = self._refused = 0

    def put(self, message: KlineMessage) -> None:
        if why := why_unfit(message):
            self._refuse(message, why)
            lost = LostEntry(message.series, message.epoch, message.offset)
            if not why_unfit(lost):
                self._add(lost)
            return
        self._wall_ms = message.received_ms or self._wall_ms
        self._add(message)

    def put_hole(self, series: Series, hole: Hole) -> None:
        entry = HoleEntry(series, hole)
        if why := why_unfit(entry):
            self._refuse(entry, why)
        else:
            self._add(entry)

    def put_cursor(self, name: str, text: str) -> None:
        self._add(CursorEntry(name, text))

    async def cursor(self, name: str) -> str | None:
        with self._watch(None) as unwritten:
            text = await self._ask(self.backend.cursor(name))
        for entry in unwritten.entries:
            if isinstance(entry, CursorEntry) and entry.name == name:
                text = entry.text
        return text

    def pending(self) -> int:
        return len(self._pending.entries) + len(self._writing.entries)

    def oldest_pending(self) -> dict[Series, int]:
        """Of each series with candles that are not on disk: open time of the oldest of them."""
        found, pending = self._writing.oldest(), self._pending.oldest()
        for series, open_ms in pending.items():
            found[series] = min(open_ms, found.get(series, open_ms))
        return found

    def statistics(self) -> StoreStatistics:
        complaint, pending = self._write_complaint, self.pending()
        counts, place = (self._sizes, self._pruned, self._refused), self.backend.place
        return StoreStatistics(
            pending, *counts, complaint.problem, self.is_full, place, complaint.advice
        )

    @property
    def is_full(self) -> bool:
        return self.pending() >= self._limits.max_pending

    async def wait_capacity(self) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        full = self.is_full
        while self.is_full:
            await self._written.wait()
        return full

    async def run(self) -> Never:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retain, name="store retention")
            await self._write()
        raise AssertionError("unreachable")

    async def flush(self) -> None:
        """Write everything pending in one transaction.  Raises StoreFault; loses nothing."""
        async with self._turn:
            await self._flush()

    async def _flush(self) -> None:
        """In turn."""
        self._work = trio.Event()
        if not self._pending.entries:
            return
        self._writing, self._pending = self._pending, Batch()
        try:
            await self.backend.write(self._writing.entries)
            self._writing = Batch()
        finally:
            if self._writing.entries:
                self._writing.extend(self._pending)
                self._pending, self._writing = self._writing, Batch()
                self._work.set()
            self._say_pending()

    def _say_pending(self) -> None:
        """It became less, or may have."""
        self._metrics.store_pending.set(self.pending())
        self._written.set()
        self._written = trio.Event()

    async def last_flush(self) -> None:
        """Write what is pending, once; a failure is logged, not raised."""
        try:
            await self.flush()
        except StoreFault as error:
            self._complain("store.write_failed", Complaint(), error)

    async def close(self) -> None:
        """Called by the opener after the last flush."""
        await self.backend.close(complete=not self.pending())

    async def retain(self) -> None:
        """Delete what is older than the settings keep, step by step, and give its place back to
        the disk.  Raises StoreFault."""
        for step in (self._prune_step, self._shrink_step):
            more = True
            while more:
                more = await step()
                await trio.sleep(_STEP_PAUSE_S)  # room for batches between
        await self.measure()

    async def measure(self) -> None:
        """Look at the sizes, for :meth:`statistics` and the metrics.  Raises StoreFault."""
        sizes = self._sizes = await self.backend.sizes()
        self._metrics.store_bytes.labels("file").set(sizes.file_bytes)
        self._metrics.store_bytes.labels("wal").set(sizes.wal_bytes)
        self._metrics.store_bytes.labels("free").set(sizes.free_bytes)
        for interval, rows in sizes.rows.items():
            self._metrics.store_rows.labels(interval.value).set(rows)

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        with self._watch(series) as unwritten:
            rows = await self._ask(
                self.backend.history(series, limit=limit, start_ms=start_ms, end_ms=end_ms)
            )
        return unwritten.over_history(rows, limit, start_ms, end_ms)

    async def stored_ends(
        self, venue: str | None = None, symbols: Collection[str] | None = None
    ) -> dict[Series, StoredEnd]:
        with self._watch(None) as unwritten:
            ends = await self._ask(self.backend.ends(venue, symbols))
        unwritten.over_ends(ends, venue, symbols)
        found = ((series, end.stored_end()) for series, end in ends.items())
        return {series: end for series, end in found if end is not None}

    async def first_open(self, series: Series) -> int | None:
        with self._watch(series) as unwritten:
            first = await self._ask(self.backend.first_open(series))
        opens = [message.kline.open_ms for message in unwritten.messages()]
        return min(opens if first is None else [first, *opens], default=None)

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        known_here = self._is_own(series, epoch)
        with self._watch(series) as unwritten:
            stored = await self._ask(
                self.backend.after(
                    series,
                    epoch,
                    offset,
                    closed_ms=None if known_here else closed_ms,
                    limit=limit,
                    exact=known_here,
                )
            )
        number = epoch, offset
        # A candle that was refused is in no answer: so none may span it.
        lost = (e for e in unwritten.entries if isinstance(e, LostEntry))
        if stored is None or any((e.epoch, e.offset) > number for e in lost):
            return None
        fresh = [m for m in unwritten.messages() if m.offset and (m.epoch, m.offset) > number]
        return merge_messages(stored, fresh, limit)

    async def revisions(
        self, series: Series, *, start_ms: int = 0, end_ms: int | None = None, limit: int
    ) -> list[Revision]:
        # The values before are only known on the disk; so what waits is written first.
        if self._pending.entries or self._writing.entries:
            try:
                await self.flush()
            except StoreFault as error:
                raise StoreError(f"candles cannot be written now: {error}") from None
        return await self._ask(
            self.backend.revisions(series, start_ms=start_ms, end_ms=end_ms, limit=limit)
        )

    def _is_own(self, series: Series, epoch: int) -> bool:
        """Whether all numbers of that epoch are here, pending or in the database."""
        return epoch == self.epoch

    async def _write(self) -> Never:
        failures = 0
        while True:
            await self._work.wait()
            try:
                await self.flush()
            except StoreFault as error:
                failures += 1
                self._metrics.store_errors.inc()
                self._complain("store.write_failed", self._write_complaint, error)
                await trio.sleep(min(_RETRY_MAX_S, 0.1 * 2 ** min(failures, 10)))
            else:
                if failures:
                    log.info("store.write_recovered", failures=failures)
                    self._write_complaint.over()
                failures = 0
                # After the write and not before it: a kill finds as little as possible in memory.
                await trio.sleep(self._limits.flush_interval_s)

    async def _retain(self) -> Never:
        complaint = Complaint()
        while True:
            before = self._pruned
            try:
                await self.retain()
            except StoreFault as error:
                self._complain("store.retention_failed", complaint, error)
            else:
                complaint.over()
            if self._pruned > before:
                log.info("store.pruned", rows=self._pruned - before)
            await trio.sleep(_RETAIN_EVERY_S)

    async def _prune_step(self) -> bool:
        # Until something new came, nothing says that our calendar is right.
        if not self._limits.keep or not self._wall_ms:
            return False
        keep, wall_ms = self._limits.keep, self._wall_ms
        rows = await self._in_turn(lambda: self.backend.prune(keep, wall_ms, _STEP_ROWS))
        self._pruned += rows
        self._metrics.store_pruned.inc(rows)
        return rows > 0

    async def _shrink_step(self) -> bool:
        return await self._in_turn(self.backend.shrink)

    async def _in_turn(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            return await work()

    async def _ask(self, question: Awaitable[T]) -> T:
        try:
            return await question
        except StoreFault as error:
            self._complain("store.read_failed", self._read_complaint, error)
            raise StoreError(f"stored candles cannot be read: {error}") from None

    def _add(self, entry: Entry) -> None:
        self._pending.add(entry)
        series = None if isinstance(entry, CursorEntry) else entry.series
        for watcher in self._watchers:
            if watcher.series in (None, series):
                watcher.entries.append(entry)
        self._work.set()

    def _refuse(self, entry: SeriesEntry, why: str) -> None:
        self._refused += 1
        self._metrics.store_refused.inc()
        if self._refused_complaint.is_news(why, trio.current_time()):
            log.error("store.row_refused", series=str(entry.series), problem=why)

    @contextmanager
    def _watch(self, series: Series | None) -> Iterator[Watcher]:
        """What is unwritten when a question begins, and what is put until it was answered.

        Laid over the answer in this order it gives what is true at the end, however many batches
        were written meanwhile."""
        watcher = Watcher(series, [*self._writing.of(series), *self._pending.of(series)])
        self._watchers.append(watcher)
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)

    def _complain(self, event: str, complaint: Complaint, error: StoreFault) -> None:
        complaint.advice = error.advice
        if complaint.is_news(str(error), trio.current_time()):
            log.error(
                event,
                path=self.backend.place,
                problem=str(error),
                advice=error.advice,
                pending=self.pending(),
            )
