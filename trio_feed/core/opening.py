"""Where a series goes on: behind what is stored, or so many candles before now.  Pure."""

from attrs import frozen

from ..instants import Now
from ..model import Kline, Series
from .asking import Policy
from .calendar import Grid
from .ledger import Ledger


@frozen
class End:
    """Where a stored series ends: its last closed candle, and the open time up to which everything
    is stored or known not to exist.  ``first_ms``: open time of its oldest candle."""

    kline: Kline
    settled_ms: int
    first_ms: int | None = None


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
    return Ledger(series, end.settled_ms, False, grid, policy, told_ms=told_ms)
