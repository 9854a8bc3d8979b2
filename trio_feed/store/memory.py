"""The memory twin of the SQLite store: the same answers, no threads, nothing kept."""

from bisect import bisect_left, insort

import trio
from attrs import evolve

from ..model import Hole, Kline, KlineMessage, Series
from .base import Tail, settled_ms


class MemoryStore:
    """See :class:`trio_feed.store.base.KlineStore`."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.holes: dict[Series, list[Hole]] = {}
        self._opens: dict[Series, list[int]] = {}
        self._rows: dict[Series, dict[int, KlineMessage]] = {}
        self._revisions: dict[Series, list[KlineMessage]] = {}

    def put(self, message: KlineMessage) -> None:
        rows = self._rows.setdefault(message.series, {})
        open_ms = message.kline.open_ms
        if message.revision:
            self._revisions.setdefault(message.series, []).append(message)
        if message.revision and open_ms in rows:
            rows[open_ms] = evolve(rows[open_ms], kline=message.kline)
            return
        if open_ms not in rows:
            insort(self._opens.setdefault(message.series, []), open_ms)
        rows[open_ms] = message

    def put_hole(self, series: Series, hole: Hole) -> None:
        self.holes.setdefault(series, []).append(hole)

    async def room(self) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return False

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        await trio.lowlevel.checkpoint()
        opens = self._opens.get(series, [])
        low = 0 if start_ms is None else bisect_left(opens, start_ms)
        high = len(opens) if end_ms is None else bisect_left(opens, end_ms)
        if start_ms is not None and end_ms is None:
            high = min(high, low + limit)
        low = max(low, high - limit)
        rows = self._rows.get(series, {})
        return [rows[at].kline for at in opens[low:high]]

    async def tails(self) -> dict[Series, Tail]:
        await trio.lowlevel.checkpoint()
        found = {}
        for series, opens in self._opens.items():
            last = self._rows[series][opens[-1]]
            settled = settled_ms(last.kline.open_ms, self.holes.get(series, ()))
            found[series] = Tail(last.kline, settled)
        return found

    async def first_open(self, series: Series) -> int | None:
        await trio.lowlevel.checkpoint()
        opens = self._opens.get(series)
        return opens[0] if opens else None

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        await trio.lowlevel.checkpoint()
        if epoch != self.epoch:
            return None
        rows = self._rows.get(series, {})
        out = [row for row in rows.values() if row.offset > offset]
        out += [
            evolve(told, kline=rows[told.kline.open_ms].kline)
            for told in self._revisions.get(series, ())
            if told.offset > offset
        ]
        out.sort(key=lambda told: told.offset)
        return [evolve(told, received_ms=0.0) for told in out] if len(out) <= limit else None

    async def run(self) -> None:
        await trio.sleep_forever()

    def pending(self) -> int:
        return 0
