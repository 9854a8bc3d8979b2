"""What candles were, computed from the market's trades, and nothing that the service computes with.

Candles below an hour are sums of single trades; longer ones are asked of the market in pieces of
any length (:meth:`Market.span`), which a test holds against the sums.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from attrs import define, field

from ..model import Interval, Kline, Trade
from ..simulator.market.market import Market
from .calendar import Days
from .record import Values, values_of

_SECOND = 1_000
_HOUR = 3_600_000


def days_of(market: Market, symbol: str, threes_ms: int | None = None) -> Days:
    """What the simulated exchange did with this symbol.  ``threes_ms``: see :class:`.Days`."""
    grid = market.grids[symbol]
    shifts = [(shift.start_ms, shift.end_ms) for shift in grid.shifts]
    return Days(grid.listed_ms, [*market.halts[symbol]], shifts, threes_ms)


@define
class Sums:
    """Sums of the trades of one symbol in [start, end); they are read once, at the first
    question."""

    market: Market
    symbol: str
    start_ms: int
    end_ms: int
    _seconds: dict[int, list[Trade]] = field(factory=dict)

    def built(self, opened: int, ended: int) -> Values | None:
        """The trades of [opened, ended) as a candle; None: there are none.  Both within the
        range."""
        trades = self.trades(opened, ended)
        return _summed(trades) if trades else None

    def trades(self, opened: int, ended: int) -> list[Trade]:
        if not self._seconds:
            for trade in self.market.trades(self.symbol, self.start_ms, self.end_ms):
                self._seconds.setdefault(trade.time_ms // _SECOND, []).append(trade)
        first, last = opened // _SECOND, -(-ended // _SECOND)
        return [
            trade
            for second in range(first, last)
            for trade in self._seconds.get(second, ())
            if opened <= trade.time_ms < ended
        ]


def _summed(trades: Sequence[Trade]) -> Values:
    prices = [trade.price for trade in trades]
    volume = sum((trade.quantity for trade in trades), Decimal(0))
    quote = sum((trade.quantity * trade.price for trade in trades), Decimal(0))
    numbers = (prices[0], max(prices), min(prices), prices[-1], volume, quote)
    return tuple(map(float, numbers))


def exchange_values(
    market: Market, sums: Sums, interval: Interval, opened: int, ended: int, *, late: bool
) -> Values:
    """What the exchange's own candle says: ``late``: with the trades that came to light after its
    close."""
    kline = market.span(sums.symbol, opened, ended, ghosts=late)
    values = values_of(kline)
    if not late and ended - opened < _HOUR and sums.start_ms <= opened and ended <= sums.end_ms:
        summed = sums.built(opened, ended)
        if summed is not None:  # its quote volume is the market's: the day's price x volume
            values = (*summed[:5], values[5])
    return values


def rolled(rows: Iterable[Kline]) -> Values:
    """Minutes, ascending, at least one -> the longer candle that they make.

    Its prices are those of trades: a minute in which nothing was traded repeats a price of before.
    """
    minutes = [*rows]
    traded = [kline for kline in minutes if kline.volume or kline.trades] or minutes
    return tuple(
        map(
            float,
            (
                traded[0].open,
                max(kline.high for kline in traded),
                min(kline.low for kline in traded),
                traded[-1].close,
                sum((kline.volume for kline in minutes), Decimal(0)),
                sum((kline.quote_volume for kline in minutes), Decimal(0)),
            ),
        )
    )


def corrected_values(
    market: Market,
    sums: Sums,
    span: tuple[int, int],
    minutes: Sequence[tuple[int, Kline]],
    *,
    late: bool,
) -> Values:
    """A longer candle of [opened, ended) with minutes that the exchange changed, ascending as (end,
    minute): what was traded before, between and after them, and they as they are given."""
    (at, ended), parts = span, list[Kline]()
    for end, minute in minutes:
        if at < minute.open_ms:
            parts.append(market.span(sums.symbol, at, minute.open_ms, ghosts=late))
        parts.append(minute)
        at = end
    if at < ended:
        parts.append(market.span(sums.symbol, at, ended, ghosts=late))
    return rolled(parts)
