"""What a program that uses the client gets: frozen values, money as Decimal.  No I/O."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import frozen

from ..model import (
    BookTop,
    BookView,
    Channel,
    Interval,
    Kline,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Price,
    StreamState,
    Ticker,
    Trade,
)


@frozen
class Stream:
    """What one can subscribe to.  ``interval`` belongs to candles and to nothing else;
    ``exchange`` None: the server's default for that symbol."""

    symbol: str
    channel: Channel
    interval: Interval | None = None
    exchange: str | None = None

    def __str__(self) -> str:
        where = f"{self.exchange}:" if self.exchange else ""
        return f"{where}{self.symbol}:{self.interval or self.channel}"


@frozen
class Origin:
    """Where a message came from, its number in its stream, and when it passed where.

    ``event_ms``: the exchange's own time (0: it gave none); ``received_ms`` and ``sent_ms`` are the
    server's clock; all unix milliseconds.
    """

    exchange: str
    source: str
    epoch: int
    offset: int
    event_ms: int
    received_ms: float
    sent_ms: float


@frozen
class History:
    """Closed candles, ascending.  The first message of a candle subscription (the updates go on
    exactly after it), or, where ``requested``, the answer to :meth:`Client.history`."""

    stream: Stream
    exchange: str
    candles: tuple[Kline, ...]
    has_more: bool
    requested: bool = False


class UpdateKind(StrEnum):
    """What a candle's update says."""

    REALTIME = "realtime"
    """The candle is open and may change."""
    FINAL = "final"
    """It is closed: once per candle, in order, none left out."""
    REVISION = "revision"
    """A candle that was closed before has changed, however old it is."""


@frozen
class CandleUpdate:
    """News of a candle.  ``update_count`` numbers the updates of this candle.  ``origin`` is None
    for a closed candle that was fetched afterwards, because the live message was missed.

    ``provisional``: something before this open candle is missing and being fetched; its own values
    are right.  Only for subscriptions that asked for such.
    """

    stream: Stream
    kline: Kline
    kind: UpdateKind
    update_count: int
    origin: Origin | None
    provisional: bool = False

    @property
    def final(self) -> bool:
        return self.kind is UpdateKind.FINAL


@frozen
class TickerUpdate:
    stream: Stream
    ticker: Ticker
    origin: Origin


@frozen
class TradeUpdate:
    """A trade, or (Spin Pet) a price that came without a quantity."""

    stream: Stream
    trade: Trade | Price
    origin: Origin


@frozen
class BookUpdate:
    """The best levels of the book, whole."""

    stream: Stream
    book: BookView
    origin: Origin


@frozen
class BboUpdate:
    """Best bid and offer."""

    stream: Stream
    bbo: BookTop
    origin: Origin


@frozen
class MarkPriceUpdate:
    """Mark price of a derivative, its index, and the next funding."""

    stream: Stream
    mark_price: MarkPrice
    origin: Origin


@frozen
class LiquidationUpdate:
    """A forced order.  Binance shows at most the latest of a symbol in each second."""

    stream: Stream
    liquidation: Liquidation
    origin: Origin


@frozen
class OpenInterestUpdate:
    """Contracts that are open, asked for again and again."""

    stream: Stream
    open_interest: OpenInterest
    origin: Origin


@frozen
class StreamStatus:
    """The server's own upstream of a stream changed its state.  ``first_s`` and ``last_s``: open
    times (unix seconds) of the first and the last candle concerned, where known."""

    stream: Stream
    state: StreamState
    reason: str
    first_s: int | None = None
    last_s: int | None = None


@frozen
class PrivateEvent:
    """An event of the authenticated user; ``kind`` is ``order.update``, ``trade``,
    ``balance.update`` or, for all users, ``broadcast``.  Money in ``data`` is Decimal, everything
    else, and all of a broadcast, as the server sent it."""

    kind: str
    data: Mapping[str, Any]
    epoch: int
    offset: int


@frozen
class Authenticated:
    """The token was accepted, on this connection: also after each reconnect."""

    user_id: int | str


@frozen
class TokenExpires:
    """The token ends at ``expires_ms`` (unix milliseconds): show a fresh one before, with
    :meth:`Client.authenticate`."""

    user_id: int | str
    expires_ms: int | None


class ConnectionState(StrEnum):
    LOST = "lost"
    """The connection is gone; another is made in ``retry_s`` seconds."""
    RESUMED = "resumed"
    """A stream goes on after a lost connection."""


@frozen
class ConnectionChange:
    """LOST is about the connection and comes once; RESUMED comes once for each subscription
    (``stream``) and, with ``stream`` None, for the private events.

    ``recovered`` True: nothing is missing before this point.  Of candles that means the closed
    ones, which were fetched where the server could not replay them (revisions of what had come
    before are then not repeated); False says that there is a
    hole which the server has too.  Of all others False says that messages were missed.
    """

    state: ConnectionState
    reason: str = ""
    retry_s: float = 0.0
    stream: Stream | None = None
    recovered: bool | None = None


@frozen
class ServerError:
    """The server refused a request.  Codes: push-protocol.  ``stream`` is the subscription or
    history that the answer belongs to; a refused subscription is over."""

    code: int
    problem: str
    stream: Stream | None = None


ClientMessage = (
    History
    | CandleUpdate
    | TickerUpdate
    | BboUpdate
    | MarkPriceUpdate
    | LiquidationUpdate
    | OpenInterestUpdate
    | TradeUpdate
    | BookUpdate
    | StreamStatus
    | PrivateEvent
    | Authenticated
    | TokenExpires
    | ConnectionChange
    | ServerError
)
