"""The judge's calendar: the opens that real candles have, from datetime and a table, nothing else.

It shares no line with the calendars of the service and of the simulator.  Sources: rows of the
exchanges' own archives (16,215 of 16,215 steps of 3d candles are three days from the symbol's
first day, 6,963 of 6,963 weeks open on Monday 00:00 UTC, months on the 1st).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from attrs import frozen

from ..model import Interval

_PER_DAY = {
    "1s": 86_400, "30s": 2_880, "1m": 1_440, "3m": 480, "5m": 288, "15m": 96, "30m": 48, "1h": 24,
    "2h": 12, "4h": 6, "6h": 4, "8h": 3, "12h": 2, "1d": 1,
}  # fmt: skip
_LONGEST_DAYS = {"1M": 31, "1w": 7, "3d": 3}
_SHORT = ("1s", "30s", "1m", "3m", "5m", "15m", "30m")
"""These may open off the grid after a halt."""


def longest_ms(interval: Interval) -> int:
    """No candle of it is longer."""
    name = interval.value
    return _LONGEST_DAYS.get(name, 1) * 86_400_000 // _PER_DAY.get(name, 1)


@frozen
class Days:
    """The trading days of one symbol.  Unix ms; spans are [start, end).

    ``halts``: no trading.  ``off_grid``: short candles count from its start to its end.
    ``threes_ms``: an open of its 3d candles, None: the first day (Binance).  OKX does not say where
    its own open, so there the simulated exchange decides.
    """

    listed_ms: int
    halts: Sequence[tuple[int, int]] = ()
    off_grid: Sequence[tuple[int, int]] = ()
    threes_ms: int | None = None

    def candles(self, interval: Interval, start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
        """(open, end) of each candle that ends within (start, end] and held a moment of
        trading."""
        for opened, ended in self._cut(interval, start_ms, end_ms):
            if start_ms < ended <= end_ms and self._traded(opened, ended):
                yield opened, ended

    def last(self, interval: Interval, count: int, end_ms: int) -> list[tuple[int, int]]:
        """The last ``count`` that have ended at ``end_ms``, or as many as there are."""
        without = sum(until - since for since, until in self.halts)
        start_ms = end_ms - (count + 2) * longest_ms(interval) - without
        return [*self.candles(interval, start_ms, end_ms)][-count:] if count else []

    def _cut(self, interval: Interval, start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
        shifted = self.off_grid if interval.value in _SHORT else ()
        # An odd stretch counts from its own beginning, which may lie before what is asked for.
        begins = [since for since, until in shifted if since < end_ms and until > start_ms]
        for opened, ended in self._regular(interval, min([start_ms, *begins]), end_ms):
            cuts = [opened, ended]
            for since, until in shifted:
                step = ended - opened
                marks = [*range(since, until, step), until]
                if since <= opened < until:
                    cuts = []  # the marks below are in its place
                elif opened < since < ended:
                    cuts = [opened, since]
                if opened <= since < ended:
                    yield from pairwise(marks)
            yield from pairwise(cuts)

    def _regular(self, interval: Interval, start_ms: int, end_ms: int) -> Iterator[tuple[int, int]]:
        name, day = interval.value, _midnight(start_ms)
        if name == "1M":
            opens = _months(day.replace(day=1))
        elif name == "1w":
            opens = _every(day - timedelta(days=day.weekday()), timedelta(days=7))
        elif name == "3d":
            first_ms = self.listed_ms if self.threes_ms is None else self.threes_ms
            since = (day - _midnight(first_ms)).days
            opens = _every(day - timedelta(days=since % 3), timedelta(days=3))
        else:
            step = timedelta(days=1) / _PER_DAY[name]
            opens = _every(day + max(0, (_moment(start_ms) - day) // step - 1) * step, step)
        opened = _ms(next(opens))
        for following in opens:
            yield opened, _ms(following)
            opened = _ms(following)
            if opened >= end_ms:
                return

    def _traded(self, opened: int, ended: int) -> bool:
        at = max(opened, self.listed_ms)
        for since, until in sorted(self.halts):
            if since <= at < until:
                at = until
        return at < ended


def _midnight(time_ms: int) -> datetime:
    return _moment(time_ms).replace(hour=0, minute=0, second=0, microsecond=0)


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _every(moment: datetime, step: timedelta) -> Iterator[datetime]:
    while True:
        yield moment
        moment += step


def _months(first: datetime) -> Iterator[datetime]:
    while True:
        yield first
        first = (first + timedelta(days=32)).replace(day=1)
