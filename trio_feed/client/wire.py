"""The server's messages as they come, decoded in one step; numbers of money become Decimal."""

from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec

from ..errors import BadMessage
from ..model import (
    BookTop,
    BookView,
    Kline,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Price,
    Source,
    StreamState,
    Ticker,
    Trade,
)
from .messages import Origin, UpdateKind

T = TypeVar("T")


class Row(msgspec.Struct):
    """A candle; ``time`` is its open time in unix seconds."""

    time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    is_final: bool
    update_type: UpdateKind
    update_count: int
    quote_volume: Decimal = Decimal(0)
    trades: int | None = 0
    source: Source = Source.EXCHANGE
    complete: bool = True
    provisional: bool = False
    taker_buy_volume: Decimal | None = None
    taker_buy_quote_volume: Decimal | None = None
    first_trade_id: int | None = None
    last_trade_id: int | None = None

    def kline(self, event_ms: int = 0) -> Kline:
        return Kline(
            self.time * 1000, self.open, self.high, self.low, self.close, self.volume,
            self.quote_volume, self.trades or 0, self.is_final, self.source, event_ms,
            self.complete, 0, self.first_trade_id, self.last_trade_id,
            self.taker_buy_volume, self.taker_buy_quote_volume,
        )  # fmt: skip


class TickerRow(msgspec.Struct):
    last: Decimal
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    volume: Decimal | None
    quote_volume: Decimal | None
    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None

    def value(self, symbol: str, event_ms: int) -> Ticker:
        return Ticker(
            symbol, self.last, self.open, self.high, self.low, self.volume, self.quote_volume,
            self.bid, self.bid_size, self.ask, self.ask_size, event_ms,
        )  # fmt: skip


class TradeRow(msgspec.Struct):
    """With ``quantity`` a trade, without it a price."""

    price: Decimal
    time: int
    key: str = ""
    quantity: Decimal | None = None
    side: str = ""
    trade_id: int = 0
    first_id: int = 0
    last_id: int = 0

    def value(self, symbol: str, event_ms: int) -> Trade | Price:
        if self.quantity is None:
            return Price(symbol, self.price, self.key, self.time)
        return Trade(
            symbol, self.trade_id, self.first_id, self.last_id, self.price, self.quantity,
            self.time, self.side == "sell", event_ms,
        )  # fmt: skip


class BookRow(msgspec.Struct):
    bids: tuple[tuple[Decimal, Decimal], ...]
    asks: tuple[tuple[Decimal, Decimal], ...]
    stale: bool
    update_id: int

    def value(self, symbol: str, event_ms: int) -> BookView:
        return BookView(symbol, self.bids, self.asks, self.stale, self.update_id, event_ms)


class BboRow(msgspec.Struct):
    """The best bid and offer; null on a side that is empty."""

    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None
    update_id: int

    def value(self, symbol: str, event_ms: int) -> BookTop:
        return BookTop(
            symbol, self.bid, self.bid_size, self.ask, self.ask_size, self.update_id, event_ms
        )


class MarkPriceRow(msgspec.Struct):
    """``next_funding_time`` in unix milliseconds."""

    mark_price: Decimal
    index_price: Decimal | None = None
    funding_rate: Decimal | None = None
    next_funding_time: int | None = None

    def value(self, symbol: str, event_ms: int) -> MarkPrice:
        return MarkPrice(
            symbol, self.mark_price, self.index_price, self.funding_rate,
            self.next_funding_time or 0, event_ms,
        )  # fmt: skip


class LiquidationRow(msgspec.Struct):
    side: str
    price: Decimal
    quantity: Decimal
    time: int
    average_price: Decimal

    def value(self, symbol: str, _event_ms: int) -> Liquidation:
        return Liquidation(
            symbol, self.side == "sell", self.price, self.average_price, self.quantity, self.time
        )


class OpenInterestRow(msgspec.Struct):
    """``amount`` in base currency, ``worth`` in US dollars; ``time`` in unix milliseconds."""

    amount: Decimal
    time: int
    worth: Decimal | None = None

    def value(self, symbol: str, _event_ms: int) -> OpenInterest:
        return OpenInterest(symbol, self.amount, self.worth, self.time)


class Numbered(msgspec.Struct, Generic[T]):
    """One message of a stream: ``conflated`` so many before it were left out; ``snapshot``: it is
    no news, it says how things stand."""

    symbol: str
    exchange: str
    epoch: int
    offset: int
    source: str
    event_time: int
    received_at: float
    sent_at: float
    data: T
    subscription_id: str | None = None
    conflated: int = 0
    snapshot: bool = False

    @property
    def origin(self) -> Origin:
        return Origin(
            self.exchange, self.source, self.epoch, self.offset, self.event_time,
            self.received_at, self.sent_at,
        )  # fmt: skip


class _Tagged(msgspec.Struct, tag_field="type"):
    pass


class KlineData(_Tagged, tag="kline_data"):
    data: Numbered[Row]


class TickerData(_Tagged, tag="ticker_data"):
    data: Numbered[TickerRow]


class TradeData(_Tagged, tag="trade_data"):
    data: Numbered[TradeRow]


class BookData(_Tagged, tag="book_data"):
    data: Numbered[BookRow]


class BboData(_Tagged, tag="bbo_data"):
    data: Numbered[BboRow]


class MarkPriceData(_Tagged, tag="mark_price_data"):
    data: Numbered[MarkPriceRow]


class LiquidationData(_Tagged, tag="liquidation_data"):
    data: Numbered[LiquidationRow]


class OpenInterestData(_Tagged, tag="open_interest_data"):
    data: Numbered[OpenInterestRow]


class Page(msgspec.Struct):
    exchange: str
    epoch: int
    offset: int
    data: list[Row]
    has_more: bool


class HistoryData(_Tagged, tag="history_data"):
    data: Page


class Answer(msgspec.Struct):
    """``recovered`` is there where the request had a ``since``; ``epoch`` and ``offset``: what the
    first message that follows goes on from."""

    subscription_id: str | None = None
    recovered: bool | None = None
    epoch: int | None = None
    offset: int | None = None


class Confirmed(_Tagged, tag="subscription_confirmed"):
    data: Answer


class Unsubscribed(_Tagged, tag="unsubscribe_confirmed"):
    data: Answer


class Status(msgspec.Struct, rename={"first_s": "from", "last_s": "to"}):
    status: StreamState
    reason: str = ""
    subscription_id: str | None = None
    first_s: int | None = None
    last_s: int | None = None


class StreamStatusData(_Tagged, tag="stream_status"):
    data: Status


class Error(_Tagged, tag="error"):
    code: int
    message: str


class AuthSuccess(_Tagged, tag="auth.success"):
    user_id: int | str
    recovered: bool | None = None
    epoch: int | None = None
    offset: int | None = None


class AuthExpiring(_Tagged, tag="auth.expiring"):
    user_id: int | str
    expires_at: int | None = None


class _Private(_Tagged):
    data: dict[str, Any]
    epoch: int = 0
    offset: int = 0


class OrderUpdate(_Private, tag="order.update"):
    pass


class PrivateTrade(_Private, tag="trade"):
    pass


class BalanceUpdate(_Private, tag="balance.update"):
    pass


class Broadcast(_Private, tag="broadcast"):
    """For every user."""


class Reconnect(_Tagged, tag="reconnect"):
    after_ms: int


Update = (
    KlineData | TickerData | TradeData | BookData | BboData | MarkPriceData | LiquidationData
    | OpenInterestData
)  # fmt: skip
Private = OrderUpdate | PrivateTrade | BalanceUpdate | Broadcast
Incoming = (
    Update | HistoryData | Confirmed | Unsubscribed | StreamStatusData | Error | AuthSuccess
    | AuthExpiring | Private | Reconnect
)  # fmt: skip

PRIVATE_KINDS: dict[type, str] = {
    OrderUpdate: "order.update",
    PrivateTrade: "trade",
    BalanceUpdate: "balance.update",
    Broadcast: "broadcast",
}
_decode = msgspec.json.Decoder(Incoming).decode


class _Kind(msgspec.Struct):
    type: str


_kind = msgspec.json.Decoder(_Kind).decode
_KNOWN = frozenset(
    str(msgspec.inspect.type_info(cls).tag)  # type: ignore[attr-defined]
    for cls in Incoming.__args__
)


def parse(text: str | bytes) -> Incoming | None:
    """One message; None for what is of no interest and for kinds that came after this client was
    written.  Raises BadMessage."""
    try:
        message: Incoming = _decode(text)
        return message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error)
    try:
        kind = _kind(text).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage(problem, str(text)) from None
    if kind in _KNOWN:
        raise BadMessage(f"{kind}: {problem}", str(text))
    return None
