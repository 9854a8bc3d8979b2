"""One subscription to a channel beside candles.  Pure.  Nothing can be fetched afterwards here:
what the server cannot replay is missing, and the consumer gets a gap message."""

from collections.abc import Callable
from typing import Any

from ..model import Channel
from . import wire
from .messages import (
    BboUpdate,
    BookUpdate,
    ClientMessage,
    ConnectionChange,
    ConnectionState,
    LiquidationUpdate,
    MarkPriceUpdate,
    OpenInterestUpdate,
    Origin,
    Stream,
    TickerUpdate,
    TradeUpdate,
)
from .numbers import Numbers


class ChannelSubscription:
    """Used as :class:`trio_feed.client.candles.Candles` is."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.answered = self.served = False
        self._numbers = Numbers(str(stream))
        self._resuming = False

    def __repr__(self) -> str:
        return f"<ChannelSubscription {self.stream} {'on' if self.answered else 'waiting'}>"

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
        channel = self.stream.channel
        if not new and (not message.snapshot or channel in _EVENTS):
            return []
        value = message.data.value(self.stream.symbol, message.event_time)
        return [_MESSAGES[channel](self.stream, value, message.origin)]


_MESSAGES: dict[Channel, Callable[[Stream, Any, Origin], ClientMessage]] = {
    Channel.TICKER: TickerUpdate,
    Channel.TRADE: TradeUpdate,
    Channel.BOOK: BookUpdate,
    Channel.BBO: BboUpdate,
    Channel.MARK_PRICE: MarkPriceUpdate,
    Channel.LIQUIDATION: LiquidationUpdate,
    Channel.OPEN_INTEREST: OpenInterestUpdate,
}
_EVENTS = (Channel.TRADE, Channel.LIQUIDATION)
"""Each message is an event; what came before is not repeated by how things stand now."""
