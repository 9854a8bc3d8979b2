"""Which candles an exchange has of one symbol: their opens, in calendar time, UTC.

Written apart from the product's calendar on purpose, and after what real rows show (exchanges'
archives, 2017 to 2026): weeks open on Monday 00:00 UTC, months on the 1st, three-day candles count
from each symbol's first trading day, so there are three grids of them.  After a halt candles of up
to 30 minutes may open off the minute for a while (spot, 2018-02: 14 s).  Times are unix ms.
"""

from datetime import UTC, datetime, timedelta

from attrs import define, field, frozen

from ...model import Interval

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONDAY = 4 * _DAY
"""1970-01-05."""

_LENGTHS_MS = {
    "1s": 1_000, "30s": 30_000, "1m": _MINUTE, "3m": 180_000, "5m": 300_000, "15m": 900_000,
    "30m": 1_800_000, "1h": _HOUR, "2h": 7_200_000, "4h": 14_400_000, "6h": 21_600_000,
    "8h": 28_800_000, "12h": 43_200_000, "1d": 86_400_000, "3d": 259_200_000, "1w": 604_800_000,
}  # fmt: skip
_LONGEST_SHIFTED_MS = 30 * _MINUTE


@frozen
class Shift:
    """Candles of up to 30 minutes count from ``start_ms`` until ``end_ms``, a full hour."""

    start_ms: int
    end_ms: int


@define
class Grid:
    """One symbol's.  ``listed_ms`` is its first trading moment."""

    listed_ms: int
    shifts: list[Shift] = field(factory=list)

    def open_of(self, interval: Interval, time_ms: int) -> int:
        """The open time of the candle that holds ``time_ms``."""
        length = _LENGTHS_MS.get(interval.value)
        if length is None:
            return month_open(time_ms)
        if length <= _LONGEST_SHIFTED_MS:
            for shift in self.shifts:
                if shift.start_ms <= time_ms < shift.end_ms:
                    return time_ms - (time_ms - shift.start_ms) % length
        return time_ms - (time_ms - self._origin(interval)) % length

    def next_open(self, interval: Interval, open_ms: int) -> int:
        """The end of the candle that opens at ``open_ms``, exclusive."""
        length = _LENGTHS_MS.get(interval.value)
        if length is None:
            return month_open(open_ms + 31 * _DAY)  # every month has its 1st within 31 days
        end = open_ms + length
        if length <= _LONGEST_SHIFTED_MS:
            for shift in self.shifts:
                if open_ms < shift.start_ms < end:
                    return shift.start_ms
                if shift.start_ms <= open_ms < shift.end_ms:
                    return min(end, shift.end_ms)
        return end

    def previous_open(self, interval: Interval, open_ms: int) -> int:
        """The open time of the candle before the one that opens at ``open_ms``."""
        return self.open_of(interval, open_ms - 1)

    def _origin(self, interval: Interval) -> int:
        """Any open time of it."""
        if interval is Interval.D3:
            return self.listed_ms - self.listed_ms % _DAY
        return _FIRST_MONDAY if interval is Interval.W1 else 0


def month_open(time_ms: int) -> int:
    """The 1st, 00:00 UTC, of the month that holds ``time_ms``."""
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first - _EPOCH) // timedelta(milliseconds=1)


def next_month(open_ms: int, months: int = 1) -> int:
    """The 1st, 00:00 UTC, so many months later; ``open_ms`` is one as well."""
    moment = _EPOCH + timedelta(milliseconds=open_ms)
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    return (datetime(year, month + 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
