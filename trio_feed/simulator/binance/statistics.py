"""Rolling 24 hours, mark prices and liquidations of Binance: pure functions of the market.

The 24 hours begin at a full minute, so that they are made of closed candles and the open hour.
Funding and liquidations are seeded like the market itself (:func:`.books.fingerprint`).
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import count

from attrs import frozen

from ...model import Interval, Kline, Trade
from ..market import prices
from ..market.books import fingerprint
from ..market.market import Market
from ..market.prices import DAY_MS, HOUR_MS, MINUTE_MS

FUNDING_MS = 8 * HOUR_MS
_AVERAGE_MS = 30_000
_LIQUIDATION_IN = 3
"""One minute in three has a liquidation."""
_EIGHT = Decimal(1).scaleb(-8)


@frozen
class Day:
    """A symbol's last 24 hours.  ``first_id`` and ``last_id`` are trades, -1 where there was none
    yet: then the figures are 0."""

    symbol: str
    open_ms: int
    close_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    last: Decimal
    last_quantity: Decimal
    volume: Decimal
    quote_volume: Decimal
    first_id: int
    last_id: int

    @property
    def change(self) -> Decimal:
        return self.last - self.open

    @property
    def change_percent(self) -> Decimal:
        """With three decimals."""
        if not self.open:
            return Decimal("0.000")
        return (100 * self.change / self.open).quantize(Decimal("0.001"))

    @property
    def average(self) -> Decimal:
        """Quote volume by volume, in the decimals of a price."""
        if not self.volume:
            return self.last
        return (self.quote_volume / self.volume).quantize(self.last)

    @property
    def trades(self) -> int:
        return self.last_id - self.first_id + 1 if self.last_id >= 0 else 0


@frozen
class Mark:
    """Mark price of a perpetual.  ``funding_ms`` is the time of the next funding."""

    symbol: str
    mark: Decimal
    index: Decimal
    average: Decimal
    funding_rate: Decimal
    funding_ms: int


class Statistics:
    """Of every symbol of a market, with small bounded caches.  Times are unix ms.

    All methods raise KeyError for a symbol that was never listed.  Before its first trade the
    last trade, and so the mark, is that of the first.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._body = lru_cache(maxsize=256)(self._make_body)
        self._key = lru_cache(maxsize=1024)(lambda symbol: fingerprint(market, symbol))

    def day(self, symbol: str, now_ms: int) -> Day:
        """The 24 hours up to ``now_ms``, a trade at ``now_ms`` included."""
        market = self._market
        start = max(now_ms - now_ms % MINUTE_MS - DAY_MS, market.listed_of(symbol))
        last = self.last_trade(symbol, now_ms)
        if last.time_ms > now_ms:
            no = Decimal(0)
            return Day(symbol, start, now_ms, no, no, no, no, no, no, no, -1, -1)
        hour = now_ms - now_ms % HOUR_MS
        body, running = None, market.partial(symbol, Interval.H1, hour, now_ms)
        if start < hour:
            body = self._body(symbol, start, hour)
        bar = _merge([part for part in (body, running) if part is not None])
        return Day(
            symbol, start, now_ms, bar.open, bar.high, bar.low, bar.close, last.quantity,
            bar.volume, bar.quote_volume, market.first_id(symbol, start), last.trade_id,
        )  # fmt: skip

    def last_trade(self, symbol: str, now_ms: int) -> Trade:
        """The last one at or before ``now_ms``."""
        last_id = self._market.first_id(symbol, now_ms + 1) - 1
        return next(self._market.trades_from(symbol, last_id, 1))

    def mark(self, symbol: str, now_ms: int) -> Mark:
        """The index is the market's price; the mark lies above it while longs pay shorts."""
        period = now_ms // FUNDING_MS
        rate = self.funding_rate(symbol, period)
        index = self.last_trade(symbol, now_ms).price.quantize(_EIGHT)
        before = self.last_trade(symbol, now_ms - _AVERAGE_MS).price.quantize(_EIGHT)
        mark, past = ((price * (1 + rate)).quantize(_EIGHT) for price in (index, before))
        average = ((mark + past) / 2).quantize(_EIGHT)
        return Mark(symbol, mark, index, average, rate, (period + 1) * FUNDING_MS)

    def funding_rate(self, symbol: str, period: int) -> Decimal:
        """What is paid at the end of the ``period``, which are counted from the epoch on."""
        hundredths = prices.number(self._key(symbol), "funding", period) % 20_001 - 10_000
        return Decimal(hundredths) * _EIGHT

    def liquidations(self, symbol: str, after_ms: int) -> Iterator[Trade]:
        """The trades later than ``after_ms`` that were liquidations, without end."""
        market = self._market
        for minute in count(after_ms // MINUTE_MS):
            number = prices.number(self._key(symbol), "liquidation", minute)
            if number % _LIQUIDATION_IN:
                continue
            first = market.first_id(symbol, minute * MINUTE_MS)
            at = number // _LIQUIDATION_IN % market.trades_per_minute
            trade = next(market.trades_from(symbol, first + at, 1))
            if trade.time_ms > after_ms:
                yield trade

    def _make_body(self, symbol: str, start: int, end: int) -> Kline:
        """Closed candles of [start, end): minutes up to the first full hour, then hours."""
        hour = min(end, -(-start // HOUR_MS) * HOUR_MS)
        candle = self._market.candle
        minutes = [candle(symbol, Interval.M1, at) for at in range(start, hour, MINUTE_MS)]
        return _merge(
            minutes + [candle(symbol, Interval.H1, at) for at in range(hour, end, HOUR_MS)]
        )


def _merge(bars: Sequence[Kline]) -> Kline:
    first, last = bars[0], bars[-1]
    return Kline(
        first.open_ms,
        first.open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        last.close,
        sum((bar.volume for bar in bars), Decimal(0)),
        sum((bar.quote_volume for bar in bars), Decimal(0)),
        sum(bar.trades for bar in bars),
        last.closed,
        last.source,
    )
