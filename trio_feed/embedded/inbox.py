"""What the bus publishes, waiting for the program's loop.

Closed candles, revisions, trades, liquidations and statuses are never left out.  Of what is whole
in itself (an open candle, a ticker, a book, a mark price) the newest state takes the place of one
that still waits.  At ``limit`` waiting messages the feed stops taking
(:meth:`Inbox.wait_room`) until some are read; what the exchange sends meanwhile waits in the
sockets, and what it drops is fetched afterwards, as after any outage.
"""

from collections import deque

import trio
from attrs import define

from ..bus.base import Published, Stream
from ..client.messages import (
    BboUpdate,
    BookUpdate,
    CandleUpdate,
    LiquidationUpdate,
    MarkPriceUpdate,
    OpenInterestUpdate,
    Origin,
    StreamStatus,
    TickerUpdate,
    TradeUpdate,
    UpdateKind,
)
from ..client.messages import Stream as Subscribed
from ..model import (
    BookTop,
    BookView,
    Channel,
    ChannelMessage,
    KlineMessage,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Series,
    StatusMessage,
    StreamKey,
    Ticker,
)

FeedMessage = (
    CandleUpdate
    | TradeUpdate
    | TickerUpdate
    | BookUpdate
    | BboUpdate
    | MarkPriceUpdate
    | LiquidationUpdate
    | OpenInterestUpdate
    | StreamStatus
)
"""The messages of :mod:`trio_feed.client`, so that a program may be moved from one to the other."""


@define(eq=False)
class _Waiting:
    """``key``: its stream, where a newer state may take its place."""

    message: FeedMessage
    key: StreamKey | None


class Inbox:
    """A listener of the bus.  ``limit``: messages at which the feed is held back; one answer of the
    exchange (a history, the trades of an outage) may go beyond.  ``statuses``: they come, too."""

    def __init__(self, limit: int, *, statuses: bool) -> None:
        self._limit, self._statuses = limit, statuses
        self._waiting: deque[_Waiting] = deque()
        self._newest: dict[StreamKey, _Waiting] = {}
        """The last message of a stream, where a newer state may take its place."""
        self._reader = trio.lowlevel.ParkingLot()
        self._held_back = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._waiting)

    # Bus

    def opened(self, stream: Stream) -> None:
        """Nothing has come of it yet: the bus is as old as we are."""
        stream.keep()  # no trade is left out

    def closed(self, stream: Stream) -> None:
        """The symbols do not change."""

    def aliased(self, native: str, symbol: str) -> None:
        """Messages carry the unified name."""

    def described(self, stream: Stream) -> None:
        """:attr:`.Feed.problem` says why nothing comes."""

    def published(self, stream: Stream, published: Published) -> None:
        if published.provisional:
            return  # its own values are right, but something before it is missing
        message = _converted(published)
        key = stream.stream_key
        if _is_whole(message):
            waiting = self._newest.get(key)
            if waiting is not None:
                waiting.message = message
                return
            self._put(message, key)
        else:
            self._newest.pop(key, None)  # the order of a stream stays
            self._put(message)

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        if self._statuses:
            first, last = status.first_ms, status.last_ms
            self._put(
                StreamStatus(
                    _subscribed(status.stream_key),
                    status.state,
                    status.reason,
                    None if first is None else first // 1000,
                    None if last is None else last // 1000,
                )
            )

    def _put(self, message: FeedMessage, replaceable: StreamKey | None = None) -> None:
        waiting = _Waiting(message, replaceable)
        self._waiting.append(waiting)
        if replaceable is not None:
            self._newest[replaceable] = waiting
        self._reader.unpark()

    # Program

    async def receive(self) -> FeedMessage:
        """The oldest message; waits until there is one."""
        await trio.lowlevel.checkpoint()  # the feed has its turn, however fast it is read
        while not self._waiting:
            await self._reader.park()
        waiting = self._waiting.popleft()
        if waiting.key is not None and self._newest.get(waiting.key) is waiting:
            del self._newest[waiting.key]
        if len(self._waiting) < self._limit:
            self._held_back.unpark_all()
        return waiting.message

    # Feed

    @property
    def is_full(self) -> bool:
        """Too much is unread."""
        return len(self._waiting) >= self._limit

    async def wait_room(self) -> bool:
        """Wait while it :attr:`is_full`; whether it had to."""
        waited = False
        while self.is_full:
            waited = True
            await self._held_back.park()
        return waited


def _is_whole(message: FeedMessage) -> bool:
    """The next state says everything that this one says."""
    if isinstance(message, CandleUpdate):
        return message.kind is UpdateKind.REALTIME
    whole = TickerUpdate | BookUpdate | BboUpdate | MarkPriceUpdate | OpenInterestUpdate
    return isinstance(message, whole)


def _subscribed(key: StreamKey) -> Subscribed:
    if isinstance(key, Series):
        return Subscribed(key.symbol, Channel.KLINE, key.interval, key.venue)
    return Subscribed(key.symbol, key.channel, None, key.venue)


def _converted(published: Published) -> FeedMessage:
    message = published.message
    if isinstance(message, KlineMessage):
        return _candle(message, published.sent_ms)
    stream, data = _subscribed(message.key), message.data
    origin = _origin(message, getattr(data, "event_ms", 0), published.sent_ms)
    if isinstance(data, Ticker):
        return TickerUpdate(stream, data, origin)
    if isinstance(data, BookView):
        return BookUpdate(stream, data, origin)
    if isinstance(data, BookTop):
        return BboUpdate(stream, data, origin)
    if isinstance(data, MarkPrice):
        return MarkPriceUpdate(stream, data, origin)
    if isinstance(data, Liquidation):
        return LiquidationUpdate(stream, data, origin)
    if isinstance(data, OpenInterest):
        return OpenInterestUpdate(stream, data, origin)
    return TradeUpdate(stream, data, origin)


def _candle(message: KlineMessage, sent_ms: float) -> CandleUpdate:
    kline = message.kline
    kind = UpdateKind.FINAL if kline.closed else UpdateKind.REALTIME
    if message.revision:
        kind = UpdateKind.REVISION
    origin = Origin(
        message.series.venue, kline.source.value, message.epoch, message.offset, kline.event_ms,
        message.received_ms, sent_ms,
    )  # fmt: skip
    return CandleUpdate(_subscribed(message.series), kline, kind, message.update_count, origin)


def _origin(message: ChannelMessage, event_ms: int, sent_ms: float) -> Origin:
    return Origin(
        message.key.venue, message.source.value, message.epoch, message.offset, event_ms,
        message.received_ms, sent_ms,
    )  # fmt: skip
