"""Interval arithmetic in calendar time, UTC, unix milliseconds.

Every candle starts at ``open_of`` its trades.  Fixed lengths count from the epoch; weeks open on
Monday 00:00 UTC (1970-01-01 was a Thursday), three-day candles count from the epoch,
months are calendar months.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

from attrs import frozen

from ..model import Interval

_MINUTE = 60_000
_DAY = 1440 * _MINUTE
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK_SHIFT = 4 * _DAY
"""Monday 1970-01-05, the first week that opens after the epoch."""

_FIXED_MS = {
    Interval.S1: 1_000,
    Interval.S30: 30_000,
    Interval.M1: _MINUTE,
    Interval.M3: 3 * _MINUTE,
    Interval.M5: 5 * _MINUTE,
    Interval.M15: 15 * _MINUTE,
    Interval.M30: 30 * _MINUTE,
    Interval.H1: 60 * _MINUTE,
    Interval.H2: 120 * _MINUTE,
    Interval.H4: 240 * _MINUTE,
    Interval.H6: 360 * _MINUTE,
    Interval.H8: 480 * _MINUTE,
    Interval.H12: 720 * _MINUTE,
    Interval.D1: _DAY,
    Interval.D3: 3 * _DAY,
    Interval.W1: 7 * _DAY,
}


def length_ms(interval: Interval) -> int:
    """Length of an interval; for months the shortest one (28 days), a lower bound."""
    return _FIXED_MS.get(interval, 28 * _DAY)


def open_of(interval: Interval, time_ms: int) -> int:
    """The open time of the candle that holds ``time_ms``."""
    length = _FIXED_MS.get(interval)
    if length is None:
        return _month_open(time_ms, 0)
    shift = _WEEK_SHIFT if interval is Interval.W1 else 0
    return time_ms - (time_ms - shift) % length


def next_open(interval: Interval, open_ms: int) -> int:
    """The open time of the candle after the one that opens at ``open_ms``: its end, exclusive."""
    length = _FIXED_MS.get(interval)
    return open_ms + length if length is not None else _month_open(open_ms, 1)


def previous_open(interval: Interval, open_ms: int) -> int:
    """The open time of the candle before the one that opens at ``open_ms``."""
    length = _FIXED_MS.get(interval)
    return open_ms - length if length is not None else _month_open(open_ms, -1)


def opens(interval: Interval, first_ms: int, end_ms: int) -> Iterator[int]:
    """Open times from ``first_ms`` (an open) up to ``end_ms``, exclusive."""
    at = first_ms
    while at < end_ms:
        yield at
        at = next_open(interval, at)


def back(interval: Interval, open_ms: int, count: int) -> int:
    """The open time ``count`` candles before ``open_ms``."""
    length = _FIXED_MS.get(interval)
    return open_ms - count * length if length is not None else _month_open(open_ms, -count)


def count(interval: Interval, first_ms: int, end_ms: int) -> int:
    """How many candles open in [first_ms, end_ms); both are open times."""
    length = _FIXED_MS.get(interval)
    if length is not None:
        return max(0, (end_ms - first_ms) // length)
    first, end = _moment(first_ms), _moment(end_ms)
    return max(0, (end.year - first.year) * 12 + end.month - first.month)


def _moment(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)


def _month_open(time_ms: int, shift: int) -> int:
    moment = _moment(time_ms)
    year, month = divmod(moment.year * 12 + moment.month - 1 + shift, 12)
    return (datetime(year, month + 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


_CANONICAL = {Interval.W1: _WEEK_SHIFT}
"""Where the candles of an interval open unless the exchange's rows say otherwise."""


@frozen
class Grid:
    """Where the candles of one series open.  Immutable; a row off the grid makes another one.

    Exchanges do not all count from the epoch: some anchor 3d candles at the first trading day
    of each symbol, and after a halt the opens of real rows have sat 14 s off the minute
    (data-facts.md, sections 1 and 3).  So the grid is what the exchange's own rows show.
    ``anchor_ms`` is the open time of any candle of it; months have none, they are the calendar's.
    """

    interval: Interval
    anchor_ms: int

    @property
    def usual(self) -> bool:
        """It counts from the epoch (weeks: from a Monday), as nearly all series do."""
        length = _FIXED_MS.get(self.interval)
        return length is None or (self.anchor_ms - _CANONICAL.get(self.interval, 0)) % length == 0

    def at(self, open_ms: int) -> "Grid":
        """The grid that has a candle at ``open_ms``."""
        length = _FIXED_MS.get(self.interval)
        if length is None or (open_ms - self.anchor_ms) % length == 0:
            return self
        return Grid(self.interval, open_ms)

    def open_of(self, time_ms: int) -> int:
        """The open time of the candle that holds ``time_ms``."""
        length = _FIXED_MS.get(self.interval)
        if length is None:
            return _month_open(time_ms, 0)
        return time_ms - (time_ms - self.anchor_ms) % length

    def next(self, open_ms: int) -> int:
        """The end of the candle that opens at ``open_ms``, exclusive."""
        return next_open(self.interval, open_ms)

    def previous(self, open_ms: int) -> int:
        """The open time of the candle before."""
        return previous_open(self.interval, open_ms)

    def back(self, open_ms: int, number: int) -> int:
        """The open time ``number`` candles before ``open_ms``."""
        return back(self.interval, open_ms, number)

    def count(self, first_ms: int, end_ms: int) -> int:
        """How many candles open in [first_ms, end_ms)."""
        return count(self.interval, first_ms, end_ms)

    def follows(self, open_ms: int, before_ms: int) -> bool:
        """Whether a candle at ``open_ms`` is the next one after ``before_ms``: on the grid, less
        than half a candle after it (a halt may move the opens), or earlier (the one before was cut
        short, by a halt or by the return to the grid)."""
        off = open_ms - next_open(self.interval, before_ms)
        return before_ms < open_ms and 2 * off < _FIXED_MS.get(self.interval, 1)


@cache
def grid_of(interval: Interval) -> Grid:
    """The usual grid, until the exchange's rows show another one: the same for all series."""
    return Grid(interval, _CANONICAL.get(interval, 0))
