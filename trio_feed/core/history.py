"""What of a symbol's past is still to be fetched, behind the first page of each series.  Pure.

A series begins with its newest page, so that it is live at once; what lies before it is fetched
page by page, after everything that live data waits for.
"""

import math
from collections.abc import Iterable, Iterator

from attrs import define, field

from ..instants import Mono, Now
from ..model import Interval, Kline
from .calendar import grid_of
from .ledger import Ledger
from .questions import CandleQuestion, Rules

FIRST_PAGE = 99
"""Candles of the first question of a series without history: what a chart page shows at first."""
PAGE = 498
"""And of the next ones.  With the one more that is asked for, the largest page below the price step
at 500 (Binance)."""
RETRY_S = 30.0


@define(eq=False)
class History:
    """``most`` candles of each interval.  ``_wanted``: how many of the past, and when to ask
    (again)."""

    rules: Rules
    most: int
    _wanted: dict[Interval, tuple[int, Mono]] = field(factory=dict)

    def bars(self, interval: Interval, now: Now) -> int:
        """How many closed candles there are to be; what the store would delete is not fetched."""
        keep_s, now_ms = self.rules.keep.get(interval, math.inf), int(now.exchange)
        if math.isinf(keep_s):
            return self.most
        oldest_ms = max(0, now_ms - int(keep_s * 1000))
        return min(self.most, grid_of(interval).count(oldest_ms, now_ms))

    def want(self, interval: Interval, ledger: Ledger, now: Now, *, known: bool) -> None:
        """Its past is wanted.  ``known``: the store has some of it."""
        bars = self.bars(interval, now)
        running, first_ms = ledger.grid.open_of(int(now.exchange)), ledger.first_ms
        short = first_ms is not None if known else bars > FIRST_PAGE
        if short and (first_ms is None or ledger.grid.count(first_ms, running) < bars):
            self._wanted[interval] = (bars, now.mono)

    def wants(self, interval: Interval) -> bool:
        """Some of its past is still to be fetched."""
        return interval in self._wanted

    def dues(self) -> Iterator[tuple[Interval, Mono]]:
        for interval, (_bars, at) in self._wanted.items():
            yield interval, at

    def ask(self, interval: Interval, ledger: Ledger, now: Now) -> CandleQuestion | None:
        """The next page into the past; None: there is nothing to ask."""
        wanted, grid = self._wanted.get(interval), ledger.grid
        if wanted is None or ledger.first_ms is None:
            return None
        target = grid.back(grid.open_of(int(now.exchange)), wanted[0])
        start = grid.back(ledger.first_ms, min(self.rules.page, PAGE))
        start = max(start, target, self.rules.began_ms)
        bars = grid.count(start, ledger.first_ms)
        if bars <= 0:
            del self._wanted[interval]
            return None
        return CandleQuestion(interval, start, bars)

    def answered(
        self, interval: Interval, ledger: Ledger, rows: Iterable[Kline], now: Now
    ) -> list[Kline]:
        """A page -> what of it is older than the series; empty: its history begins there."""
        wanted, first_ms = self._wanted.pop(interval, None), ledger.first_ms
        if wanted is None or first_ms is None:
            return []
        older = [row for row in rows if row.closed and row.open_ms < first_ms]
        if older:
            first_ms = ledger.first_ms = older[0].open_ms
            if ledger.grid.count(first_ms, ledger.grid.open_of(int(now.exchange))) < wanted[0]:
                self._wanted[interval] = (wanted[0], now.mono)
        return older

    def failed(self, interval: Interval, now: Now) -> None:
        """There was no answer: ask again, later."""
        if interval in self._wanted:
            self._wanted[interval] = (self._wanted[interval][0], now.mono + RETRY_S)
