"""The database as a node that serves asks it: it may be behind what the node has read."""

from collections.abc import Callable, Sequence

import trio
from attrs import define

from ..errors import StoreError
from ..model import Kline, KlineMessage, Series
from ..store import CandleReader

BEHIND_S = 2.0
_AGAIN_S = 0.05


@define(eq=False)
class CaughtUp:
    """A :class:`~trio_feed.store.CandleReader`.  ``handed_out(series)``: open time of the last
    closed candle that this node has handed out, None: not known; and the number of the last
    revision, (0, 0): there was none."""

    _store: CandleReader
    _handed_out: Callable[[Series], tuple[int | None, tuple[int, int]]]

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> Sequence[Kline]:
        """Who asks lays the node's own candles over it, and waits where there is a hole."""
        return await self._store.history(series, limit=limit, start_ms=start_ms, end_ms=end_ms)

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> Sequence[KlineMessage] | None:
        """With everything that the node had handed out when it was asked; None also where a
        revision of that does not come.  Raises StoreError where a candle does not."""
        deadline = trio.current_time() + BEHIND_S
        until_ms, revised = self._handed_out(series)
        while until_ms is not None:
            newest = await self._store.history(series, limit=1)
            if newest and newest[-1].open_ms >= until_ms:
                break
            if trio.current_time() >= deadline:
                raise StoreError("the history is being written and is not whole yet; ask again")
            await trio.sleep(_AGAIN_S)
        while True:
            rows = await self._store.after(series, epoch, offset, closed_ms=closed_ms, limit=limit)
            if rows is None or revised <= (epoch, offset):
                return rows
            if any((row.epoch, row.offset) >= revised for row in rows):
                return rows  # what was put before is written before
            if trio.current_time() >= deadline:
                return None
            await trio.sleep(_AGAIN_S)
