"""Candles from prices that come without a quantity (Spin Pet's price events).

Rules (section 3 of the K-line push document):

- A candle opens at the close of the one before it, the very first one at its first price; so
  ``high`` and ``low`` take in the open as well.  Volumes are 0, ``trades`` counts prices.
- An interval without a price is flat at the previous close.
- A candle closes when its time is over, with or without a later price: ``advance`` is told the
  time, and nothing here ever looks at a clock.
- All intervals see the same prices: one that is older than the open candle of any interval is
  counted as late and changes none of them.
- ``complete`` is False for every candle in which prices may have been missed: those that open
  before the first call (nobody was watching), and what :meth:`PriceCandles.missed` is told.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from attrs import define, field

from ..model import Interval, Kline, Source
from . import calendar
from .bars import Built

_ZERO = Decimal(0)


@define
class _Bar:
    """The open candle of one interval."""

    interval: Interval
    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    event_ms: int = 0
    prices: int = 0

    @classmethod
    def flat(cls, interval: Interval, open_ms: int, price: Decimal, event_ms: int = 0) -> "_Bar":
        return cls(interval, open_ms, price, price, price, price, event_ms)

    @property
    def end_ms(self) -> int:
        return calendar.next_open(self.interval, self.open_ms)

    def add(self, price: Decimal, time_ms: int) -> None:
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.event_ms = time_ms
        self.prices += 1

    def kline(self, *, closed: bool, complete: bool) -> Kline:
        return Kline(
            self.open_ms,
            self.open,
            self.high,
            self.low,
            self.close,
            _ZERO,
            _ZERO,
            self.prices,
            closed,
            Source.TRADES,
            self.event_ms,
            complete,
        )


@define
class PriceCandles:
    """One symbol's prices, in order of time, become candles of several intervals.

    ``last_close`` is, per interval, the open time and the close of the candle before the first one
    here: of the last one in the store, or, to leave a hole instead of flat candles, the open time
    before now with the stored close.  ``late`` counts prices that came after their candle had
    closed.
    """

    intervals: Sequence[Interval]
    last_close: Mapping[Interval, tuple[int, Decimal]] = field(factory=dict, repr=False)
    late: int = 0
    _watched_ms: int | None = None
    """Candles that open before this are not complete."""
    _bars: dict[Interval, _Bar] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for interval in self.intervals:
            if interval in self.last_close:
                open_ms, close = self.last_close[interval]
                after = calendar.next_open(interval, open_ms)
                self._bars[interval] = _Bar.flat(interval, after, close)

    @property
    def next_end_ms(self) -> int | None:
        """When the next open candle ends, None before the first price."""
        return min((bar.end_ms for bar in self._bars.values()), default=None)

    def add(self, price: Decimal, time_ms: int) -> list[Built]:
        """Take one price in.  Returns the candles that it closes, then the updated open ones.

        It closes all that ended by ``time_ms``, however many: after a silence, page through
        :meth:`advance` first.
        """
        self._watch(time_ms)
        if any(time_ms < bar.open_ms for bar in self._bars.values()):
            self.late += 1
            return []
        closed = self._close(time_ms, None)
        return closed + [self._take(interval, price, time_ms) for interval in self.intervals]

    def advance(self, now_ms: int, limit: int = 1000) -> list[Built]:
        """Close what ended at or before ``now_ms``, in order of the end, at most ``limit``.

        ``limit`` candles returned mean that there may be more: call again.
        """
        self._watch(now_ms)
        return self._close(now_ms, limit)

    def missed(self, until_ms: int) -> None:
        """Prices before ``until_ms`` may have been lost: open candles, and those that open before
        it, are not complete.  What had ended before the loss began should be closed by then."""
        self._watched_ms = max(until_ms, self._watched_ms or until_ms)

    def _watch(self, time_ms: int) -> None:
        if self._watched_ms is None:
            self._watched_ms = time_ms

    def _take(self, interval: Interval, price: Decimal, time_ms: int) -> Built:
        bar = self._bars.get(interval)
        if bar is None:
            open_ms = calendar.open_of(interval, time_ms)
            bar = self._bars[interval] = _Bar.flat(interval, open_ms, price)
        bar.add(price, time_ms)
        return interval, self._kline(bar, closed=False)

    def _close(self, time_ms: int, limit: int | None) -> list[Built]:
        closed: list[Built] = []
        while self._bars and (limit is None or len(closed) < limit):
            bar = min(self._bars.values(), key=lambda bar: bar.end_ms)
            if bar.end_ms > time_ms:
                break
            closed.append((bar.interval, self._kline(bar, closed=True)))
            self._bars[bar.interval] = _Bar.flat(bar.interval, bar.end_ms, bar.close, bar.event_ms)
        return closed

    def _kline(self, bar: _Bar, *, closed: bool) -> Kline:
        complete = self._watched_ms is None or bar.open_ms >= self._watched_ms
        return bar.kline(closed=closed, complete=complete)
