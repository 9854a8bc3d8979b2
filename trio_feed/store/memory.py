"""The memory twin of the SQLite store: the same answers, no threads, nothing kept."""

from bisect import bisect_left, insort
from collections.abc import Collection

import structlog
import trio
from attrs import define, evolve, field

from ..model import Hole, Interval, Kline, KlineMessage, Series
from .base import (
    End,
    HoleEntry,
    Keep,
    LostEntry,
    Revision,
    Sizes,
    StoredEnd,
    StoreStatistics,
    boundaries,
    merge_messages,
    why_unfit,
)
from .pending import Complaint

log = structlog.get_logger()

_RETAIN_EVERY_S = 60.0


class MemoryStore:
    """See :class:`trio_feed.store.base.KlineStore`.  Its rows are never pending."""

    def __init__(self, epoch: int, keep: Keep | None = None) -> None:
        self.epoch = epoch
        self.holes: dict[Series, list[Hole]] = {}
        self._series: dict[Series, _Rows] = {}
        self._cursors: dict[str, str] = {}
        self._keep: Keep = keep or {}
        self._wall_ms = 0.0
        self._pruned = self._refused = 0
        self._refused_complaint = Complaint()

    def put(self, message: KlineMessage) -> None:
        rows = self._series.setdefault(message.series, _Rows())
        if why := why_unfit(message):
            self._refuse(message.series, why)
            if not why_unfit(LostEntry(message.series, message.epoch, message.offset)):
                rows.forget(message)
            return
        self._wall_ms = message.received_ms or self._wall_ms
        rows.put(message)

    def put_hole(self, series: Series, hole: Hole) -> None:
        if why := why_unfit(HoleEntry(series, hole)):
            self._refuse(series, why)
            return
        self.holes.setdefault(series, []).append(hole)
        self._series.setdefault(series, _Rows()).end.add_hole(hole)

    def put_cursor(self, name: str, text: str) -> None:
        self._cursors[name] = text

    async def cursor(self, name: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return self._cursors.get(name)

    async def wait_capacity(self) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return False

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        await trio.lowlevel.checkpoint()
        rows = self._series.get(series, _Rows())
        low = 0 if start_ms is None else bisect_left(rows.opens, start_ms)
        high = len(rows.opens) if end_ms is None else bisect_left(rows.opens, end_ms)
        if start_ms is not None and end_ms is None:
            high = min(high, low + limit)
        low = max(low, high - limit)
        return [rows.messages[at].kline for at in rows.opens[low:high]]

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
        return self._series.get(series, _Rows()).end.first_open_ms

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        await trio.lowlevel.checkpoint()
        if epoch != self.epoch:
            return None
        return self._series.get(series, _Rows()).after((epoch, offset), limit)

    async def revisions(
        self, series: Series, *, start_ms: int = 0, end_ms: int | None = None, limit: int
    ) -> list[Revision]:
        await trio.lowlevel.checkpoint()
        found = [
            revision
            for _, revision in self._series.get(series, _Rows()).revisions
            if start_ms <= revision.open_ms and (end_ms is None or revision.open_ms < end_ms)
        ]
        return sorted(found, key=lambda r: (r.open_ms, r.epoch, r.offset))[:limit]

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


@define
class _Rows:
    """One series.  ``opens`` ascend; ``forgotten`` is the largest number of what was deleted or
    refused."""

    opens: list[int] = field(factory=list)
    messages: dict[int, KlineMessage] = field(factory=dict)
    revisions: list[tuple[KlineMessage, Revision]] = field(factory=list)
    end: End = field(factory=End)
    forgotten: tuple[int, int] = (-1, -1)

    def put(self, message: KlineMessage) -> None:
        open_ms = message.kline.open_ms
        before = self.messages.get(open_ms)
        if message.revision:
            revision = Revision(
                open_ms,
                message.epoch,
                message.offset,
                int(message.received_ms),
                before.kline if before else None,
            )
            self.revisions.append((message, revision))
        elif message.offset and self.opens and open_ms <= self.opens[-1]:
            # It came late or again: a walk back by open time does not find this number.
            self.forget(message)
        if before is None:
            insort(self.opens, open_ms)
            self.messages[open_ms] = message
        elif before.offset:  # the row keeps its number
            self.messages[open_ms] = evolve(before, kline=message.kline)
        else:
            self.messages[open_ms] = message
        self.end.add(message.kline)

    def forget(self, message: KlineMessage) -> None:
        self.forgotten = max(self.forgotten, (message.epoch, message.offset))

    def after(self, number: tuple[int, int], limit: int) -> list[KlineMessage] | None:
        if number < self.forgotten:
            return None
        stored: list[KlineMessage] = []
        for at in reversed(self.opens):
            message = self.messages[at]
            if not message.offset:
                continue
            # Closed candles are published in the order of their opens, so the rest is older.
            if (message.epoch, message.offset) <= number:
                break
            if len(stored) == limit:
                return None
            stored.append(message)
        again = [
            evolve(message, kline=self.messages[revision.open_ms].kline)
            for message, revision in self.revisions
            if (message.epoch, message.offset) > number
        ]
        return merge_messages(stored, again, limit)

    def prune(self, before_ms: int) -> int:
        count = bisect_left(self.opens, min(before_ms, self.opens[-1]))
        if not count:
            return 0
        for open_ms in self.opens[:count]:
            self.forget(self.messages.pop(open_ms))
        del self.opens[:count]
        first = self.end.first_open_ms = self.opens[0]
        for message, revision in self.revisions:
            if revision.open_ms < first:
                self.forget(message)
        self.revisions = [pair for pair in self.revisions if pair[1].open_ms >= first]
        return count
