"""What subscribers get: channels, the messages in them, how their upstream stands."""

from enum import StrEnum

from attrs import frozen

from .candles import Kline, Series, Source
from .market import BookTop, Level, Liquidation, MarkPrice, OpenInterest, Price, Ticker, Trade
from .quick import quick


class Channel(StrEnum):
    """What a subscriber can have."""

    KLINE = "kline"
    TICKER = "ticker"
    TRADE = "trade"
    BOOK = "book"
    BBO = "bbo"
    """Best bid and offer."""
    MARK_PRICE = "mark_price"
    LIQUIDATION = "liquidation"
    OPEN_INTEREST = "open_interest"
    """Asked for by REST again and again."""


@frozen(order=True, cache_hash=True)
class ChannelKey:
    """Everything of one channel of one symbol that has no interval.  Hashable key."""

    venue: str
    symbol: str
    channel: Channel

    def __str__(self) -> str:
        return f"{self.venue}:{self.symbol}:{self.channel}"


StreamKey = Series | ChannelKey
"""What one can subscribe to."""


@frozen
class BookView:
    """The best levels of an order book, best first.  ``stale``: a resync is under way and this is
    how the book stood before."""

    symbol: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    stale: bool
    update_id: int
    event_ms: int


@quick
@frozen(weakref_slot=False)
class ChannelMessage:
    """News of a line, numbered like :class:`KlineMessage`."""

    key: ChannelKey
    data: Ticker | Trade | Price | BookView | BookTop | MarkPrice | Liquidation | OpenInterest
    source: Source
    epoch: int
    offset: int
    received_ms: float


@quick
@frozen(weakref_slot=False)
class KlineMessage:
    """A state of one candle with the number that the bus gave it.

    ``epoch`` and ``offset`` number the messages of a series: +1 per message inside an epoch, a
    larger epoch after each start of the service; offset 0 has what was stored without being
    published (history, silent candles).  ``update_count`` counts the updates of this
    candle; ``kline.closed`` is True exactly once per candle, and in each ``revision``: the
    exchange changed a candle that had been published closed.  ``received_ms`` is our clock when
    the bytes came in.  ``after_ms`` is the open time of the closed candle before it, where known;
    it is for other nodes, clients do not get it.  ``provisional``: something before it is missing;
    such a message has the number of the last one before it, and none of its own.
    """

    series: Series
    kline: Kline
    epoch: int
    offset: int
    update_count: int
    received_ms: float
    revision: bool = False
    after_ms: int | None = None
    provisional: bool = False


class StreamState(StrEnum):
    """How the upstream of a stream key stands."""

    LIVE = "live"
    STALE = "stale"
    """Nothing comes, or far less than should; what there is may be old."""
    REPAIRING = "repairing"
    """It is live again, and what was missed is being fetched."""
    REPAIRED = "repaired"
    """What was missed is published."""
    UNREPAIRABLE = "unrepairable"
    """A part of what was missed does not exist at the exchange either."""


@frozen
class StatusMessage:
    """The upstream of ``stream_key`` changed its state.  ``first_ms``..``last_ms``: open times of
    the candles concerned (of other channels: unix ms), where that is known."""

    stream_key: StreamKey
    state: StreamState
    reason: str = ""
    first_ms: int | None = None
    last_ms: int | None = None


Message = KlineMessage | ChannelMessage | StatusMessage
"""What feeds publish."""
