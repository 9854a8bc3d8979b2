"""The candle that :mod:`.bars` makes of trades."""

from collections.abc import Sequence
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

    def add(self, lump: "Lump") -> None:
        """Trades that follow those that are in it."""
        if self.trades == 0:
            self.open, self.high, self.low = lump.open, lump.high, lump.low
            self.first_trade_id = lump.first_trade_id
        else:
            if lump.high > self.high:
                self.high = lump.high
            if lump.low < self.low:
                self.low = lump.low
        self.close = lump.close
        self.volume = EXACT.add(self.volume, lump.volume)
        self.quote_volume = EXACT.add(self.quote_volume, lump.quote_volume)
        self.taker_buy = EXACT.add(self.taker_buy, lump.taker_buy)
        self.taker_buy_quote = EXACT.add(self.taker_buy_quote, lump.taker_buy_quote)
        self.trades += lump.trades
        if lump.event_ms > self.event_ms:
            self.event_ms = lump.event_ms
        self.last_id, self.last_trade_id = lump.last_id, lump.last_trade_id

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


@define(eq=False)
class Lump:
    """What trades that follow each other are together, in the words of :class:`Bar`."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy: Decimal
    taker_buy_quote: Decimal
    trades: int
    event_ms: int
    last_id: int
    first_trade_id: int
    last_trade_id: int


def lump_of(trades: Sequence[Trade]) -> Lump:
    """At least one.  What is paid for a trade is what the exchange says, or price times quantity.

    Every trade comes by here once, whatever number of candles it is in: so few operations, and of
    those that take two steps in one.
    """
    first, last = trades[0], trades[-1]
    high = low = first.price
    bought = bought_quote = sold = sold_quote = EMPTY
    number = event_ms = 0
    add, multiply_and_add = EXACT.add, EXACT.fma
    for trade in trades:
        price, quantity, quote = trade.price, trade.quantity, trade.quote_quantity
        if price > high:
            high = price
        elif price < low:
            low = price
        if trade.buyer_is_maker:
            sold = add(sold, quantity)
            if quote is None:
                sold_quote = multiply_and_add(price, quantity, sold_quote)
            else:
                sold_quote = add(sold_quote, quote)
        else:
            bought = add(bought, quantity)
            if quote is None:
                bought_quote = multiply_and_add(price, quantity, bought_quote)
            else:
                bought_quote = add(bought_quote, quote)
        number += trade.last_id - trade.first_id
        if trade.event_ms > event_ms:
            event_ms = trade.event_ms
    return Lump(
        first.price,
        high,
        low,
        last.price,
        add(bought, sold),
        add(bought_quote, sold_quote),
        bought,
        bought_quote,
        number + len(trades),
        event_ms,
        last.trade_id,
        first.first_id,
        last.last_id,
    )


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
