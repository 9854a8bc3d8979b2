"""The memory twin of the SQLite store: the same answers, no threads, nothing kept."""

from collections.abc import Collection

import structlog
import trio

from ..model import Hole, Interval, Kline, KlineMessage, Series
from .base import (
    HoleEntry,
    Keep,
    LostEntry,
    Revision,
    Sizes,
    StoredEnd,
    StoreStatistics,
    boundaries,
    why_unfit,
)
from .memory_rows import Rows
from .pending import Complaint

log = structlog.get_logger()

_RETAIN_EVERY_S = 60.0


class MemoryStore:
    """See :class:`trio_feed.store.base.KlineStore`.  Its rows are never pending."""

    def __init__(self, epoch: int, keep: Keep | None = None) -> None:
        self.epoch = epoch
        self.holes: dict[Series, list[Hole]] = {}
        self._series: dict[Series, Rows] = {}
        self._cursors: dict[str, str] = {}
        self._keep: Keep = keep or {}
        self._wall_ms = 0.0
        self._pruned = self._refused = 0
        self._refused_complaint = Complaint()

    def put(self, message: KlineMessage) -> None:
        rows = self._series.setdefault(message.series, Rows())
        if why := why_unfit(message):
            self._refuse(message.series, why)
            if not why_unfit(LostEntry(message.series, message.epoch, message.offset)):
                rows.forget((message.epoch, message.offset))
            return
        self._wall_ms = message.received_ms or self._wall_ms
        rows.put(message)

    def put_hole(self, series: Series, hole: Hole) -> None:
        if why := why_unfit(HoleEntry(series, hole)):
            self._refuse(series, why)
            return
        self.holes.setdefault(series, []).append(hole)
        self._series.setdefault(series, Rows()).end.add_hole(hole)

    def put_cursor(self, name: str, text: str) -> None:
        self._cursors[name] = text

    async def cursor(self, name: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return self._cursors.get(name)

    @property
    def is_full(self) -> bool:
        return False

    async def wait_capacity(self) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return False

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        await trio.lowlevel.checkpoint()
        return self._series.get(series, Rows()).history(limit, start_ms, end_ms)

    async def stored_ends(
        self, venue: str | None = None, symbols: Collection[str] | None = None
    ) -> dict[Series, StoredEnd]:
        await trio.lowlevel.checkpoint()
        return {
            series: stored_end
            for series, rows in self._series.items()
            if venue in (None, series.venue)
            and (symbols is None or series.symbol in symbols)
            and (stored_end := rows.end.stored_end()) is not None
        }

    async def first_open(self, series: Series) -> int | None:
        await trio.lowlevel.checkpoint()
        return self._series.get(series, Rows()).end.first_open_ms

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        await trio.lowlevel.checkpoint()
        if epoch != self.epoch:
            return None
        return self._series.get(series, Rows()).after((epoch, offset), limit)

    async def revisions(
        self, series: Series, *, start_ms: int = 0, end_ms: int | None = None, limit: int
    ) -> list[Revision]:
        await trio.lowlevel.checkpoint()
        return self._series.get(series, Rows()).revised(start_ms, end_ms, limit)

    async def run(self) -> None:
        while True:
            await self.retain()
            await trio.sleep(_RETAIN_EVERY_S)

    async def retain(self) -> None:
        """Delete what is older than the settings keep."""
        await trio.lowlevel.checkpoint()
        newest = [rows.opens[-1] for rows in self._series.values() if rows.opens]
        if not newest or not self._wall_ms:
            return
        before = boundaries(self._keep, max(newest), self._wall_ms)
        for series, rows in self._series.items():
            if series.interval in before and rows.opens:
                self._pruned += rows.prune(before[series.interval])

    def pending(self) -> int:
        return 0

    def _refuse(self, series: Series, why: str) -> None:
        self._refused += 1
        if self._refused_complaint.is_news(why, trio.current_time()):
            log.error("store.row_refused", series=str(series), problem=why)

    def statistics(self) -> StoreStatistics:
        counts: dict[Interval, int] = {}
        for series, rows in self._series.items():
            if rows.opens:
                counts[series.interval] = counts.get(series.interval, 0) + len(rows.opens)
        return StoreStatistics(0, Sizes(counts), self._pruned, self._refused)
