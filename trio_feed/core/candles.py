"""Candles from aggregated trades.

Rules (the same as the exchange's own candles, so that the two can be compared):

- ``open`` and ``close`` are the first and last trade's price, ``high`` and ``low`` the extremes,
  ``volume`` the sum of quantities in base currency, ``quote_volume`` the sum of ``quote_quantity``,
  ``trades`` the number of trades inside the aggregates (``last_id - first_id + 1``).
- An interval without a trade is a flat candle at the previous close with volume 0.
- A candle closes when a trade of a later interval arrives, or when ``advance`` is told that its
  time is over (the caller adds the grace for late trades and keeps still while disconnected).
- ``complete`` is False where trades are known to be missing: the interval in which the very first
  trade was seen, and every interval touched by a hole in the aggregate ids that was not refilled.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from attrs import define, field

from ..model import EXACT, Interval, Kline, Source, Trade
from . import calendar

Built = tuple[Interval, Kline]
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
    volume: Decimal
    quote_volume: Decimal
    trades: int
    complete: bool
    event_ms: int
    last_id: int

    @property
    def end_ms(self) -> int:
        return calendar.next_open(self.interval, self.open_ms)

    def add(self, trade: Trade) -> None:
        price = trade.price
        if self.trades == 0:
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.volume = EXACT.add(self.volume, trade.quantity)
        if trade.quote_quantity is None:
            self.quote_volume = EXACT.fma(price, trade.quantity, self.quote_volume)
        else:
            self.quote_volume = EXACT.add(self.quote_volume, trade.quote_quantity)
        self.trades += trade.last_id - trade.first_id + 1
        self.event_ms = trade.event_ms
        self.last_id = trade.trade_id

    def kline(self, *, closed: bool) -> Kline:
        return Kline(
            self.open_ms,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.trades,
            closed,
            Source.TRADES,
            self.event_ms,
            self.complete,
            self.last_id,
        )

    def follower(self) -> "_Bar":
        """The next one, while nobody has traded in it."""
        return _flat(self.interval, self.end_ms, self.close, self.event_ms, self.last_id)


def _flat(interval: Interval, open_ms: int, price: Decimal, event_ms: int, last_id: int) -> _Bar:
    return _Bar(
        interval, open_ms, price, price, price, price, _ZERO, _ZERO, 0, True, event_ms, last_id
    )


@define
class TradeCandles:
    """One symbol's trades, in order, become candles of several intervals.

    ``last_id`` is the last aggregate id taken in; ``late`` counts trades that came after their
    candle had closed, ``repeated`` those that were already in.
    """

    intervals: Sequence[Interval]
    last_id: int | None = None
    late: int = 0
    repeated: int = 0
    _bars: dict[Interval, _Bar] = field(factory=dict)

    @property
    def next_end_ms(self) -> int | None:
        """When the next open candle ends, None before the first trade."""
        return min((bar.end_ms for bar in self._bars.values()), default=None)

    def missing_before(self, trade: Trade) -> tuple[int, int] | None:
        """The aggregate ids [first, last] that lie between the last trade and this one."""
        if self.last_id is None or trade.trade_id <= self.last_id + 1:
            return None
        return self.last_id + 1, trade.trade_id - 1

    def add(self, trade: Trade) -> list[Built]:
        """Take one trade in.  Returns closed candles first, then the updated open ones."""
        if self.last_id is not None and trade.trade_id <= self.last_id:
            self.repeated += 1
            return []
        hole = self.missing_before(trade) is not None
        first = self.last_id is None
        self.last_id = trade.trade_id
        if hole:
            self._mark_incomplete()
        closed = [*self._roll(trade.time_ms, filled=not hole)]
        return closed + [self._take(interval, trade, first or hole) for interval in self.intervals]

    def resume(self, last: Kline, interval: Interval) -> None:
        """Go on behind a closed candle, as if there had been no pause: what was traded since shows
        as missing, and is to be filled in.  Candles of longer intervals that run at its end are not
        complete."""
        if not last.last_stream_id:
            return
        self.last_id = last.last_stream_id
        end_ms = calendar.next_open(interval, last.open_ms)
        for each in self.intervals:
            open_ms = calendar.open_of(each, end_ms)
            bar = _flat(each, open_ms, last.close, last.event_ms, last.last_stream_id)
            bar.complete = open_ms == end_ms
            self._bars[each] = bar

    def advance(self, now_ms: int) -> list[Built]:
        """Close what ended at or before ``now_ms`` and is followed by silence."""
        return [*self._roll(now_ms, filled=True)]

    def _take(self, interval: Interval, trade: Trade, partial: bool) -> Built:
        bar = self._bars.get(interval)
        if bar is None:
            open_ms = calendar.open_of(interval, trade.time_ms)
            bar = _flat(interval, open_ms, trade.price, trade.event_ms, trade.trade_id)
            self._bars[interval] = bar
        elif trade.time_ms < bar.open_ms:
            self.late += 1
        bar.complete = bar.complete and not partial
        bar.add(trade)
        return interval, bar.kline(closed=False)

    def _roll(self, time_ms: int, *, filled: bool) -> Iterator[Built]:
        """Close every bar that ended by ``time_ms``; flat bars follow while none is missing."""
        for interval in self.intervals:
            bar = self._bars.get(interval)
            while bar is not None and bar.end_ms <= time_ms:
                if filled or bar.trades:
                    yield interval, bar.kline(closed=True)
                if not filled:
                    del self._bars[interval]
                    break
                bar = self._bars[interval] = bar.follower()

    def _mark_incomplete(self) -> None:
        for bar in self._bars.values():
            bar.complete = False
