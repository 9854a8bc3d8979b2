"""OKX's candles: every bar there is, and what a bar holds.  Pure.

From 6H on there are two of each: ``1Dutc`` opens at 00:00 UTC, ``1D`` at 00:00 of UTC+8, which is
16:00 UTC.  Bars that the market does not know (2D, 5D, 3M, all of UTC+8) are put together from
its days, hours and minutes.  The phase of 2D, 3D and 5D is not documented; here they count from
the epoch.  www.okx.com/docs-v5 "Candlesticks channel", exchanges.md 5.4.
"""

from collections.abc import Iterator

from attrs import evolve, frozen

from ...model import Interval, Kline
from ..market.grid import month_open, next_month
from ..market.market import Market

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_MONDAY = 4 * _DAY
_UTC8 = 8 * _HOUR
_MEAN_MONTH_MS = 30.436875 * _DAY
"""The 1st of the month n since 1970 is never as much as half of it away from n times this."""


@frozen
class Bar:
    """A candle's length.  ``shift_ms`` is the time zone it opens in; ``interval`` is the market's
    own candle of the same bounds, where it has one."""

    name: str
    length_ms: int = 0
    """0: ``months`` long."""
    months: int = 0
    origin_ms: int = 0
    """Any open time, before the shift."""
    shift_ms: int = 0
    interval: Interval | None = None

    def open_of(self, time_ms: int) -> int:
        """The open time of the bar that holds ``time_ms``."""
        local = time_ms + self.shift_ms
        if self.length_ms:
            return time_ms - (local - self.origin_ms) % self.length_ms
        month = month_open(local)
        into = round(month / _MEAN_MONTH_MS) % self.months
        return next_month(month, -into) - self.shift_ms

    def next_open(self, open_ms: int) -> int:
        return self._moved(open_ms, 1)

    def previous_open(self, open_ms: int) -> int:
        return self._moved(open_ms, -1)

    def _moved(self, open_ms: int, by: int) -> int:
        if self.length_ms:
            return open_ms + by * self.length_ms
        return next_month(open_ms + self.shift_ms, by * self.months) - self.shift_ms


_SHORT = {
    "1s": (1_000, Interval.S1), "1m": (_MINUTE, Interval.M1), "3m": (3 * _MINUTE, Interval.M3),
    "5m": (5 * _MINUTE, Interval.M5), "15m": (15 * _MINUTE, Interval.M15),
    "30m": (30 * _MINUTE, Interval.M30), "1H": (_HOUR, Interval.H1), "2H": (2 * _HOUR, Interval.H2),
    "4H": (4 * _HOUR, Interval.H4),
}  # fmt: skip
_LONG = (
    Bar("6H", 6 * _HOUR, interval=Interval.H6),
    Bar("12H", 12 * _HOUR, interval=Interval.H12),
    Bar("1D", _DAY, interval=Interval.D1),
    Bar("2D", 2 * _DAY),
    Bar("3D", 3 * _DAY),
    Bar("5D", 5 * _DAY),
    Bar("1W", 7 * _DAY, origin_ms=_MONDAY, interval=Interval.W1),
    Bar("1M", months=1, interval=Interval.MO1),
    Bar("3M", months=3),
)


def _all() -> Iterator[Bar]:
    for name, (length, interval) in _SHORT.items():
        yield Bar(name, length, interval=interval)
    for bar in _LONG:
        yield evolve(bar, name=f"{bar.name}utc")
        yield evolve(bar, shift_ms=_UTC8, interval=None)


BARS = {bar.name: bar for bar in _all()}
"""By OKX's notation: ``1m`` is a minute, ``1M`` a month, ``1Mutc`` a month of UTC."""


@frozen
class Candles:
    """The market's candles in OKX's bars.  Times are unix ms; bars must end after the listing."""

    market: Market

    def state(self, symbol: str, bar: Bar, open_ms: int, now_ms: int) -> Kline | None:
        """Closed when its time is over, else open; None while nothing was traded in it."""
        market, end = self.market, bar.next_open(open_ms)
        if not market.trades_within(symbol, open_ms, end):
            return None
        if end <= now_ms:
            if bar.interval is not None:
                return market.candle(symbol, bar.interval, open_ms)
            return market.row(symbol, open_ms, end)
        if max(open_ms, market.listed_of(symbol)) > now_ms:
            return None
        kline = market.row(symbol, open_ms, now_ms + 1)
        return evolve(kline, closed=False) if kline.trades else None

    def last_day(self, symbol: str, now_ms: int) -> Kline:
        """The 24 hours up to now; they begin at a whole minute."""
        return self.market.span(symbol, now_ms - now_ms % _MINUTE - _DAY, now_ms + 1)
