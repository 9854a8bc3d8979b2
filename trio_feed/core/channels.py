"""What a subscriber can have: ONE table of the channels.  Pure.

A channel is a row here, a member of :class:`trio_feed.model.Channel`, and a stream kind that a
venue's parser makes events of ("add a channel" in docs/extending.md).  Candles are a row as well,
so that the table is whole; what they are made of and how they are written is more than a row
(:mod:`.series`, :func:`trio_feed.push.messages.candle`).
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from attrs import frozen

from ..model import (
    BookTop,
    BookView,
    Channel,
    Funding,
    Level,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Price,
    Ticker,
    Trade,
    plain,
)
from .streams import Kind

Order = Callable[[Any], int]
"""Event -> a number that grows from one to the next; 0: it has none.  Two events of the same number
that are equal are one, that came over two connections."""


@frozen
class ChannelRow:
    """``kinds``: the streams it is made of, of those that the venue has; without the first one it
    cannot be had.  Empty: the venue's stream of trades.

    ``events``: what of them goes to subscribers as it is, and how copies of it are recognized.
    Candles, trades and books are not here: they have an order of their own.

    ``conflated``: each message is complete in itself, so that a slow client gets the newest only.
    """

    kinds: tuple[Kind, ...]
    events: Mapping[type, Order] = {}
    conflated: bool = False


def _event_ms(event: Ticker | MarkPrice | Funding) -> int:
    return event.event_ms


def _top_order(top: BookTop) -> int:
    return top.update_id or top.event_ms


def _time_ms(event: Liquidation | OpenInterest) -> int:
    return event.time_ms


CHANNELS: dict[Channel, ChannelRow] = {
    Channel.KLINE: ChannelRow((Kind.KLINE,)),
    Channel.TRADE: ChannelRow(()),
    Channel.TICKER: ChannelRow(
        (Kind.TICKER, Kind.TOP), {Ticker: _event_ms, BookTop: _top_order}, conflated=True
    ),
    Channel.BOOK: ChannelRow((Kind.BOOK,), conflated=True),
    Channel.BBO: ChannelRow((Kind.TOP,), {BookTop: _top_order}, conflated=True),
    Channel.MARK_PRICE: ChannelRow(
        (Kind.MARK_PRICE, Kind.FUNDING),
        {MarkPrice: _event_ms, Funding: _event_ms},
        conflated=True,
    ),
    Channel.LIQUIDATION: ChannelRow((Kind.LIQUIDATION,), {Liquidation: _time_ms}),
    Channel.OPEN_INTEREST: ChannelRow(
        (Kind.OPEN_INTEREST,), {OpenInterest: _time_ms}, conflated=True
    ),
}
BY_KIND: dict[Kind, tuple[Channel, ...]] = {
    kind: tuple(channel for channel, row in CHANNELS.items() if kind in row.kinds)
    for kind in {kind for row in CHANNELS.values() for kind in row.kinds}
}
BY_EVENT: dict[type, tuple[Channel, ...]] = {
    event: tuple(channel for channel, row in CHANNELS.items() if event in row.events)
    for event in {event for row in CHANNELS.values() for event in row.events}
}


def kinds_of(channel: Channel, has: Iterable[Kind], trade_kind: Kind) -> tuple[Kind, ...]:
    """The streams that a venue with these kinds serves the channel from; empty: it cannot."""
    row, having = CHANNELS[channel], frozenset(has)
    if not row.kinds:
        return (trade_kind,)
    return tuple(k for k in row.kinds if k in having) if row.kinds[0] in having else ()


# How the ``data`` of a message is written.  Numbers have the exchange's own decimals.

ChannelData = Ticker | Trade | Price | BookView | BookTop | MarkPrice | Liquidation | OpenInterest


def body(data: ChannelData) -> str:
    """A JSON object, the innermost ``data`` of a message to a client."""
    return _BODIES[type(data)](data)


def event_ms(data: ChannelData) -> int:
    """The venue's time of it (unix ms): of the event, or where it gives none of what happened."""
    stamp: int = getattr(data, "event_ms", 0) or getattr(data, "time_ms", 0)
    return stamp


def number(value: Decimal | None) -> str:
    """null where the source does not say."""
    return "null" if value is None else plain(value)


def _ticker(t: Ticker) -> str:
    return _numbers(
        last=t.last, open=t.open, high=t.high, low=t.low, volume=t.volume,
        quote_volume=t.quote_volume, bid=t.bid, bid_size=t.bid_size, ask=t.ask,
        ask_size=t.ask_size,
    )  # fmt: skip


def _numbers(**fields: Decimal | None) -> str:
    return "{" + ",".join(f'"{name}":{number(value)}' for name, value in fields.items()) + "}"


def _trade(t: Trade) -> str:
    side = "sell" if t.buyer_is_maker else "buy"
    return (
        f'{{"trade_id":{t.trade_id},"first_id":{t.first_id},"last_id":{t.last_id},'
        f'"price":{plain(t.price)},"quantity":{plain(t.quantity)},"side":"{side}",'
        f'"time":{t.time_ms}}}'
    )


def _price(p: Price) -> str:
    key = msgspec.json.encode(p.key).decode()
    return f'{{"price":{plain(p.price)},"key":{key},"time":{p.time_ms}}}'


def _book(b: BookView) -> str:
    return (
        f'{{"bids":{_levels(b.bids)},"asks":{_levels(b.asks)},'
        f'"stale":{"true" if b.stale else "false"},"update_id":{b.update_id}}}'
    )


def _levels(levels: Iterable[Level]) -> str:
    return "[" + ",".join(f"[{plain(price)},{plain(size)}]" for price, size in levels) + "]"


def _bbo(t: BookTop) -> str:
    return (
        f'{{"bid":{number(t.bid)},"bid_size":{number(t.bid_size)},"ask":{number(t.ask)},'
        f'"ask_size":{number(t.ask_size)},"update_id":{t.update_id}}}'
    )


def _mark_price(m: MarkPrice) -> str:
    return (
        f'{{"mark_price":{plain(m.mark)},"index_price":{number(m.index)},'
        f'"funding_rate":{number(m.funding_rate)},'
        f'"next_funding_time":{m.next_funding_ms or "null"}}}'
    )


def _liquidation(f: Liquidation) -> str:
    return (
        f'{{"side":"{"sell" if f.sold else "buy"}","price":{plain(f.price)},'
        f'"average_price":{number(f.average_price)},"quantity":{plain(f.quantity)},'
        f'"time":{f.time_ms}}}'
    )


def _open_interest(i: OpenInterest) -> str:
    return f'{{"amount":{plain(i.amount)},"worth":{number(i.worth)},"time":{i.time_ms}}}'


_BODIES: dict[type, Callable[[Any], str]] = {
    Ticker: _ticker,
    Trade: _trade,
    Price: _price,
    BookView: _book,
    BookTop: _bbo,
    MarkPrice: _mark_price,
    Liquidation: _liquidation,
    OpenInterest: _open_interest,
}
