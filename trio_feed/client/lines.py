"""One subscription to trades, a ticker or a book.  Pure.  Nothing can be fetched afterwards here:
what the server cannot replay is missing, and the consumer is told."""

from collections.abc import Callable
from typing import Any

from ..model import Channel
from . import wire
from .messages import (
    BookUpdate,
    ClientMessage,
    ConnectionChange,
    ConnectionState,
    Stream,
    TickerUpdate,
    TradeUpdate,
)
from .numbers import Numbers


class Line:
    """Used as :class:`trio_feed.client.candles.Candles` is."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.answered = self.served = False
        self._numbers = Numbers(str(stream))
        self._resuming = False

    def __repr__(self) -> str:
        return f"<Line {self.stream} {'on' if self.answered else 'waiting'}>"

    def opening(self) -> dict[str, Any]:
        self._resuming = self.served
        since = self._numbers.since()
        return {} if since is None else {"since": since}

    def lost(self) -> None:
        self.answered = False

    def confirmed(self, answer: wire.Answer) -> list[ClientMessage]:
        recovered = answer.recovered is True
        if not recovered:
            self._numbers.begin(answer.epoch, answer.offset)
        self.answered = self.served = True
        if not self._resuming:
            return []
        resumed = ConnectionState.RESUMED
        return [ConnectionChange(resumed, stream=self.stream, recovered=recovered)]

    def update(self, message: wire.Numbered[Any]) -> list[ClientMessage]:
        """Raises OutOfStep where a message is missing before this one."""
        new = self._numbers.take(message.epoch, message.offset, message.conflated)
        if not new and (not message.snapshot or self.stream.channel is Channel.TRADE):
            return []
        return [_MAKE[self.stream.channel](self.stream, message)]


def _ticker(stream: Stream, message: wire.Numbered[wire.TickerRow]) -> ClientMessage:
    ticker = message.data.ticker(stream.symbol, message.event_time)
    return TickerUpdate(stream, ticker, message.origin)


def _trade(stream: Stream, message: wire.Numbered[wire.TradeRow]) -> ClientMessage:
    trade = message.data.trade(stream.symbol, message.event_time)
    return TradeUpdate(stream, trade, message.origin)


def _book(stream: Stream, message: wire.Numbered[wire.BookRow]) -> ClientMessage:
    book = message.data.book(stream.symbol, message.event_time)
    return BookUpdate(stream, book, message.origin)


_MAKE: dict[Channel, Callable[[Stream, wire.Numbered[Any]], ClientMessage]] = {
    Channel.TICKER: _ticker,
    Channel.TRADE: _trade,
    Channel.BOOK: _book,
}
