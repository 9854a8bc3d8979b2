"""Where a series goes on: behind what is stored, or so many candles before now.  Pure."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from ..instants import Now
from ..model import Interval, Kline, Series
from .asking import Policy
from .calendar import Grid, next_open
from .ledger import Ledger


@frozen
class End:
    """Where a stored series ends: its last closed candle, and the open time up to which everything
    is stored or known not to exist.  ``first_ms``: open time of its oldest candle.  ``recent``: its
    last candles as far as they were read, ascending."""

    kline: Kline
    settled_ms: int
    first_ms: int | None = None
    recent: Sequence[Kline] = ()


def stopped_ms(ends: Mapping[Interval, End]) -> int:
    """When the process that stored these still lived, as far as its candles tell."""
    return max((next_open(i, end.kline.open_ms) for i, end in ends.items()), default=0)


def open_ledger(
    series: Series, end: End | None, history_bars: int, grid: Grid, now: Now, policy: Policy
) -> Ledger:
    """A ledger that goes on behind ``end``, or, where the store knows nothing, begins
    ``history_bars`` closed candles before now.  ``grid``: the usual one of the interval."""
    if end is None:
        running = grid.open_of(int(now.exchange))
        begins_ms = grid.previous(grid.back(running, history_bars))
        return Ledger(series, begins_ms, True, grid, policy)
    grid = grid.at(end.kline.open_ms).at(end.settled_ms)
    told_ms = end.kline.open_ms
    ledger = Ledger(series, end.settled_ms, False, grid, policy, told_ms=told_ms)
    ledger.remember(end.recent or (end.kline,))
    return ledger
