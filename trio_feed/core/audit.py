"""The second look: every closed candle is compared once more with the exchange's own row.

Exchanges correct candles after they closed them, and a stream may have told a close too early.
So some minutes later one REST page is asked for all candles that wait for it, and whatever differs
becomes a revision.  Where the exchange is out of reach the candles wait, up to ``most``.
"""

import math
from collections import deque
from collections.abc import Iterable

from attrs import define, evolve, field

from ..instants import NEVER, Mono, Now
from ..model import Interval, Kline, Series, Source
from .calendar import Grid, length_ms

_TOGETHER = 0.5
"""The first candle waits for half as long again, so that one page serves several."""
_RETRY_S, _RETRY_MAX_S = 30.0, 600.0
_SETTLED_S = 20.0
"""A candle that ended less than this before the question waits for the next page."""
_MISSING_ANSWERS = 3
"""Pages without a candle's row after which it is let go: the exchange does not have it."""


def waiting(interval: Interval, after_s: float) -> int:
    """So many candles of a series wait for their second look while the exchange answers."""
    return math.ceil(after_s * (1 + _TOGETHER) * 1000 / length_ms(interval)) + 1 if after_s else 0


@define(eq=False)
class Audit:
    """Of one series.  ``after_s`` 0: off.  ``exact``: the exchange's quote volume takes the place
    of our own sum (of early closes)."""

    series: Series
    after_s: float
    most: int = 2_000
    exact: bool = False
    _waiting: deque[Kline] = field(factory=deque)
    _retry_at: Mono | None = None
    _failures: int = 0
    _missing: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def told(self, kline: Kline) -> None:
        """This candle closed, or was revised before its second look."""
        if not self.after_s:
            return
        if self._waiting and kline.open_ms <= self._waiting[-1].open_ms:
            at = next(i for i, old in enumerate(self._waiting) if old.open_ms >= kline.open_ms)
            if self._waiting[at].open_ms == kline.open_ms:
                self._waiting[at] = kline
            else:
                self._waiting.insert(at, kline)
        else:
            self._waiting.append(kline)
        if len(self._waiting) > self.most:
            self._waiting.popleft()

    def recall(self, stored: Iterable[Kline]) -> list[Kline]:
        """Candles as somebody else told them -> those of which we told something else, among those
        that wait."""
        own = {kline.open_ms: kline for kline in self._waiting}
        return [
            row for row in stored if row.open_ms in own and not row.same_values(own[row.open_ms])
        ]

    def resume(self, stored: Iterable[Kline], grid: Grid, stopped_ms: int) -> None:
        """Candles that were told in an earlier life, which lasted until ``stopped_ms``: it gave
        each its second look in time, as far as it lived."""
        looked_ms = int(self.after_s * (1 + _TOGETHER) * 1000)
        for kline in stored:
            if grid.next(kline.open_ms) + looked_ms >= stopped_ms:
                self.told(kline)

    def had(self, row: Kline, grid: Grid, now: Now) -> bool:
        """A REST row of a candle that ended a while ago has had its second look."""
        return float(now.exchange) - grid.next(row.open_ms) >= self.after_s * 1000

    def due(self, grid: Grid, now: Now) -> Mono:
        """When to ask; never while nothing waits."""
        if not self._waiting:
            return NEVER
        if self._retry_at is not None:
            return self._retry_at
        ended_ms = grid.next(self._waiting[0].open_ms) - float(now.exchange)
        return now.mono + (ended_ms / 1000 + self.after_s * (1 + _TOGETHER))

    def hurry(self, now: Now) -> None:
        """There is a reason to look sooner."""
        if self._waiting:
            self._retry_at = now.mono

    def wanted(self, grid: Grid, now: Now) -> tuple[int, int] | None:
        """(first open time, how many candles) of the next page; None: nothing is ripe."""
        settled_ms = float(now.exchange) - _SETTLED_S * 1000
        ripe = [k for k in self._waiting if grid.next(k.open_ms) <= settled_ms]
        if not ripe:
            self._retry_at = now.mono + _RETRY_S if self._waiting else None
            return None
        spanned = grid.count(ripe[0].open_ms, grid.next(ripe[-1].open_ms))
        return ripe[0].open_ms, max(spanned, len(ripe))  # more of them where some were cut short

    def compare(self, rows: Iterable[Kline], grid: Grid, now: Now) -> list[Kline]:
        """The exchange's rows, ascending -> those that differ from what was published.

        Candles that are not ripe yet (a page was asked for in a hurry) wait on, with their new
        values.
        """
        found = {row.open_ms: row for row in rows if row.closed}
        last = max(found, default=-1)
        ripe_ms = float(now.exchange) - self.after_s * 1000
        changed: list[Kline] = []
        waits: deque[Kline] = deque()
        progress = False
        for told in self._waiting:
            if told.open_ms > last:
                waits.append(told)
                continue
            progress = True
            row = found.get(told.open_ms)
            ripe = grid.next(told.open_ms) <= ripe_ms
            if row is not None and self._differs(told, row):
                changed.append(row)
            if not ripe:
                waits.append(row or told)
            elif row is None and told.source is Source.TRADES and told.trades and told.complete:
                # Made of trades, and the exchange has later ones only: neither may be right.
                changed.append(evolve(told, complete=False))
            # Else it is settled, or later rows are here: it is the exchange's own hole.
        self._waiting = waits
        if progress:
            self._retry_at, self._failures, self._missing = None, 0, 0
            return changed
        # A stale page, or one of nothing: ask again, and let go in the end.
        self._missing += 1
        if self._missing >= _MISSING_ANSWERS and self._waiting:
            self._waiting.popleft()
            self._missing = 0
        self.failed(now)
        return changed

    def failed(self, now: Now) -> None:
        """It could not be asked, or the answer was of no use: the candles wait."""
        wait_s = min(_RETRY_S * 2 ** min(self._failures, 8), _RETRY_MAX_S)
        self._failures += 1
        self._retry_at = now.mono + wait_s

    def _differs(self, told: Kline, row: Kline) -> bool:
        """Whether the exchange's row says something else."""
        if not told.same_values(row):
            return True
        own = self.exact and told.source is Source.TRADES
        return own and told.quote_volume != row.quote_volume
