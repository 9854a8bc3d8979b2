"""The candle that :mod:`.bars` makes of trades."""

from decimal import Decimal

from attrs import define

from ..model import EXACT, Interval, Kline, Source, Trade
from . import calendar

EMPTY = Decimal(0)
"""What was traded in a candle without trades."""


@define(eq=False)
class Bar:
    """One candle in the making.  ``volume`` is in base currency; ``taker_buy`` and
    ``taker_buy_quote`` are the parts of both volumes whose buyer took; ``last_id`` is that of the
    last aggregate in it."""

    interval: Interval
    open_ms: int
    end_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy: Decimal
    taker_buy_quote: Decimal
    trades: int
    complete: bool
    event_ms: int
    last_id: int
    first_trade_id: int | None = None
    last_trade_id: int | None = None

    def add(self, trade: Trade, quote: Decimal) -> None:
        """``quote``: what was paid for it (:func:`quote_of`)."""
        price, quantity = trade.price, trade.quantity
        if self.trades == 0:
            self.open = self.high = self.low = price
            self.first_trade_id = trade.first_id
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.volume = EXACT.add(self.volume, quantity)
        self.quote_volume = EXACT.add(self.quote_volume, quote)
        if not trade.buyer_is_maker:
            self.taker_buy = EXACT.add(self.taker_buy, quantity)
            self.taker_buy_quote = EXACT.add(self.taker_buy_quote, quote)
        self.trades += trade.last_id - trade.first_id + 1
        if trade.event_ms > self.event_ms:
            self.event_ms = trade.event_ms
        self.last_id = trade.trade_id
        self.last_trade_id = trade.last_id

    def rebase(self, price: Decimal) -> None:
        """Nobody has traded in it, and the candle before it ends elsewhere now."""
        self.open = self.high = self.low = self.close = price

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
            self.first_trade_id,
            self.last_trade_id,
            self.taker_buy,
            self.taker_buy_quote,
        )


def quote_of(trade: Trade) -> Decimal:
    """In quote currency, as the exchange says it or by price and quantity."""
    quote = trade.quote_quantity
    return EXACT.multiply(trade.price, trade.quantity) if quote is None else quote


def flat_bar(interval: Interval, open_ms: int, price: Decimal, event_ms: int, last_id: int) -> Bar:
    """One without trades, at the close of the one before it."""
    end_ms = calendar.next_open(interval, open_ms)
    return Bar(
        interval,
        open_ms,
        end_ms,
        price,
        price,
        price,
        price,
        EMPTY,
        EMPTY,
        EMPTY,
        EMPTY,
        0,
        True,
        event_ms,
        last_id,
    )
