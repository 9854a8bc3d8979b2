"""The words of the domain: frozen values, no I/O, no clock, nothing of any exchange.

Times are unix milliseconds (``_ms``).  Money is :class:`decimal.Decimal` made from the exchange's
own digits, so ``"85000.10"`` goes out as ``85000.10``.
"""

import re
from decimal import Context, Decimal
from enum import StrEnum

from attrs import frozen

from .errors import BadMessage

_DECIMAL = re.compile(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)
_EXPONENT_MAX = 40
INT_MAX = 2**63 - 1
"""Ids, times and counts above it cannot be stored; parsers refuse them."""


EXACT = Context(prec=100)
"""For sums and products of money: the default 28 digits would round 18-decimal tokens."""


def parse_decimal(text: str) -> Decimal:
    """An exchange's decimal string -> Decimal, digit by digit; ``1E-8`` is a number as well.

    Raises BadMessage for anything else (NaN, Infinity, an exponent beyond 40, endless digits).
    """
    found = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise BadMessage("not a decimal number", repr(text)[:200])
    exponent = found[2]
    if exponent is None:
        return Decimal(text)
    if abs(int(exponent[1:])) > _EXPONENT_MAX:
        raise BadMessage("not a decimal number", repr(text))
    return Decimal(plain(Decimal(text)))


def parse_time_ms(value: int) -> int:
    """Unix milliseconds between 2001 and 2096, or BadMessage (seconds and microseconds are not)."""
    if not 10**12 <= value <= 4 * 10**12:
        raise BadMessage(f"{value} is not a time in unix milliseconds")
    return value


def plain(value: Decimal) -> str:
    """Decimal -> its digits without exponent: ``0.00000001``, never ``1E-8``."""
    return format(value, "f")


class Interval(StrEnum):
    """A candle's length.  The value is the common notation (``1m``), ``alias`` is ``m1``."""

    S1 = "1s"
    S30 = "30s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    D3 = "3d"
    W1 = "1w"
    MO1 = "1M"

    @property
    def alias(self) -> str:
        return self.value[-1] + self.value[:-1]

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Either notation -> Interval.  Raises ValueError."""
        found = _BY_NOTATION.get(text)
        if found is None:
            raise ValueError(f"{text!r} is not one of {' '.join(i.value for i in cls)}")
        return found


_BY_NOTATION = {i.value: i for i in Interval} | {i.alias: i for i in Interval}


class Source(StrEnum):
    """Where a candle came from; on every message that carries one."""

    EXCHANGE = "exchange"
    TRADES = "trades"
    ROLLUP = "rollup"
    BACKFILL = "backfill"
    SIMULATED = "simulated"


@frozen(order=True)
class Series:
    """One line of candles: venue, unified symbol (``BTCUSDT``), interval.  Hashable key."""

    venue: str
    symbol: str
    interval: Interval

    def __str__(self) -> str:
        return f"{self.venue}:{self.symbol}:{self.interval}"


@frozen
class Kline:
    """One candle, open or closed.

    ``open_ms`` is the start of its interval; volumes are in base and quote currency; ``trades``
    counts them.  ``event_ms`` is the exchange's time of this state (0: it gave none).
    ``complete`` is False where some of its trades are known to be missing.

    ``first_trade_id`` and ``last_trade_id`` are the exchange's trade ids,
    ``taker_buy_volume`` (base) and ``taker_buy_quote_volume`` (quote) what takers bought; None
    where the source does not say.  ``last_stream_id`` is the id, in the trade stream that the
    candle was built from, of the last trade before its end (an aggregate's, where the stream has
    aggregates); 0 unless it was built here.
    """

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    closed: bool
    source: Source
    event_ms: int = 0
    complete: bool = True
    last_stream_id: int = 0
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    taker_buy_volume: Decimal | None = None
    taker_buy_quote_volume: Decimal | None = None

    def same_values(self, other: "Kline") -> bool:
        """Equal in everything the market said (not in source or event time); a number of trades
        counts only where both sides have one (OKX does not count)."""
        return (
            self.open_ms == other.open_ms
            and self.open == other.open
            and self.high == other.high
            and self.low == other.low
            and self.close == other.close
            and self.volume == other.volume
            and (self.trades == other.trades or not self.trades or not other.trades)
        )


@frozen
class Instrument:
    """Something that is traded.  ``symbol`` is the unified name (``BTCUSDT``), ``native`` the
    venue's own (``BTC-USDT``).  ``contract_size`` is how much of the base one unit of quantity is
    (1 where quantities are in base already).  ``trading`` is False while halted or not yet listed.
    ``unavailable`` says why the instrument cannot be served although it is listed; empty: it can.
    """

    venue: str
    symbol: str
    native: str
    kind: str
    """spot, perpetual, future, option, token"""
    base: str = ""
    quote: str = ""
    contract_size: Decimal = Decimal(1)
    tick_size: Decimal = Decimal(0)
    step_size: Decimal = Decimal(0)
    trading: bool = True
    unavailable: str = ""


@frozen
class Trade:
    """A trade, or an aggregate of those of one taker order at one price.

    ``trade_id`` is the venue's id of it (consecutive within a stream where the venue's are),
    ``first_id``..``last_id`` the trades inside.  ``quantity`` is in base currency.
    ``quote_quantity`` is set where ``quantity`` was computed from it (inverse contracts, rounded);
    None: it is price x quantity.  ``buyer_is_maker`` True means that the taker sold.
    """

    symbol: str
    trade_id: int
    first_id: int
    last_id: int
    price: Decimal
    quantity: Decimal
    time_ms: int
    buyer_is_maker: bool
    event_ms: int = 0
    quote_quantity: Decimal | None = None
    """Its worth in quote currency, where that is not price x quantity to the last digit."""


@frozen
class Price:
    """A price that came without a quantity.  ``key`` names the event it came from, once for all;
    ``time_ms`` is the venue's time of it, 0 where it gives none.  ``position`` orders a venue's
    prices as the chain does (0: not known): a smaller one happened earlier."""

    symbol: str
    price: Decimal
    key: str
    time_ms: int = 0
    position: int = 0


@frozen
class Ticker:
    """Rolling 24 h statistics; None where the venue does not say.  Volumes: base and quote."""

    symbol: str
    last: Decimal
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    volume: Decimal | None
    quote_volume: Decimal | None
    bid: Decimal | None = None
    bid_size: Decimal | None = None
    ask: Decimal | None = None
    ask_size: Decimal | None = None
    event_ms: int = 0


@frozen
class BookTop:
    """Best bid and ask; None on a side that is empty.  ``update_id`` grows with each one."""

    symbol: str
    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None
    update_id: int = 0
    event_ms: int = 0


Level = tuple[Decimal, Decimal]
"""Price and quantity in base currency; quantity 0 removes the level."""


@frozen
class BookUpdate:
    """A change of an order book, or the whole of it.

    ``first_id``..``last_id`` are the updates inside, ``previous_id`` the last one before them
    (None where the venue does not say).  ``snapshot``: replaces what was there.  ``partial``: the
    best levels only, complete in itself and without sequence.  ``checksum`` None: there is none.
    """

    symbol: str
    first_id: int
    last_id: int
    previous_id: int | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    snapshot: bool = False
    partial: bool = False
    event_ms: int = 0
    checksum: int | None = None


@frozen
class MarkPrice:
    """Mark price of a derivative, its index, and the next funding."""

    symbol: str
    mark: Decimal
    index: Decimal | None
    funding_rate: Decimal | None
    next_funding_ms: int
    event_ms: int


@frozen
class Liquidation:
    """A forced order; ``sold`` True: a long position was closed."""

    symbol: str
    sold: bool
    price: Decimal
    average_price: Decimal
    quantity: Decimal
    time_ms: int


class Channel(StrEnum):
    """What a subscriber can have."""

    KLINE = "kline"
    TICKER = "ticker"
    TRADE = "trade"
    BOOK = "book"
    MARK_PRICE = "mark_price"
    LIQUIDATION = "liquidation"


@frozen(order=True)
class Line:
    """Everything of one channel of one symbol that has no interval.  Hashable key."""

    venue: str
    symbol: str
    channel: Channel

    def __str__(self) -> str:
        return f"{self.venue}:{self.symbol}:{self.channel}"


Subject = Series | Line
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


@frozen
class LineMessage:
    """News of a line, numbered like :class:`KlineMessage`."""

    line: Line
    data: Ticker | Trade | Price | BookView | MarkPrice | Liquidation
    source: Source
    epoch: int
    offset: int
    received_ms: float


@frozen
class KlineMessage:
    """A state of one candle with the number that the bus gave it.

    ``epoch`` and ``offset`` number the messages of a series: +1 per message inside an epoch, a
    larger epoch after each start of the service.  ``update_count`` counts the updates of this
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
    """How the upstream of a subject stands."""

    LIVE = "live"
    STALE = "stale"
    """Nothing comes, or far less than should; what there is may be old."""
    REPAIRING = "repairing"
    """It is live again, and what was missed is being fetched."""
    REPAIRED = "repaired"
    """What was missed has gone out."""
    UNREPAIRABLE = "unrepairable"
    """A part of what was missed does not exist at the exchange either."""


@frozen
class StatusMessage:
    """The upstream of ``subject`` changed its state.  ``first_ms``..``last_ms``: open times of the
    candles concerned (of a line: unix ms), where that is known."""

    subject: Subject
    state: StreamState
    reason: str = ""
    first_ms: int | None = None
    last_ms: int | None = None


Message = KlineMessage | LineMessage | StatusMessage
"""What feeds publish."""


@frozen
class Hole:
    """Candles [first_ms, last_ms] (open times) that the exchange itself does not have."""

    first_ms: int
    last_ms: int


@frozen
class Delivery:
    """What one user is to be told.  ``body`` is the inside of a JSON object, without braces.

    ``user_id`` None: the owner of the order, who is known from its earlier events.
    """

    user_id: int | None
    order_id: int | None
    body: str


@frozen
class Settlement:
    """A settlement event: ``event_id`` names it once for all.  ``received_ms``: our clock."""

    event_id: str
    deliveries: tuple[Delivery, ...]
    received_ms: float


@frozen
class PrivateMessage:
    """One of a user's events.  ``offset`` is +1 per event of that user."""

    user_id: int
    offset: int
    body: str
    received_ms: float
