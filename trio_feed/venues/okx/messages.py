"""OKX v5 on the wire: what its messages say (their forms: :mod:`.forms`).

Sources: "Overview - WebSocket" (2026-07-11), "Order book channel" (2026-07-07), "Tickers channel"
(2026-07-09), error codes (2026-07-20) of www.okx.com/docs-v5; recordings of 2022 and 2023, which
lack ``seqId``, ``prevSeqId``, ``count`` and ``source``.  All numbers but the sequence ids come as
strings, and grow fields now and then: unknown ones are welcome, missing ones are not.

Quantities of derivatives are contracts on the wire and leave here times ``contract_size``; 24 h
and candle volumes come in base currency already.  An inverse contract is so many USD: a trade of
it is in base at its own price (``quote_quantity`` is the exact USD), while sizes of books and best
quotes are in quote currency, because a contract has no fixed base size.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal

from ...core.streams import KlineUpdate
from ...errors import BadMessage
from ...model import (
    INT_MAX,
    MOST_AGGREGATED,
    BookTop,
    BookUpdate,
    DayOpens,
    Funding,
    Instrument,
    Interval,
    Kline,
    Level,
    MarkPrice,
    Source,
    Ticker,
    Trade,
    parse_decimal,
    parse_price,
    parse_time_ms,
)
from ...rest_dialects import MALFORMED
from ..base import Ack, Event, GoingAway, Ignored, Pong
from ..instruments import Instruments
from .forms import (
    Arg,
    BookRow,
    CandleRow,
    Envelope,
    FundingRow,
    LevelRow,
    MarkPriceRow,
    TickerRow,
    TradeRow,
    decode_books,
    decode_candles,
    decode_envelope,
    decode_fundings,
    decode_marks,
    decode_tickers,
    decode_trades,
)

BARS = {
    Interval.S1: "1s",
    Interval.M1: "1m",
    Interval.M3: "3m",
    Interval.M5: "5m",
    Interval.M15: "15m",
    Interval.M30: "30m",
    Interval.H1: "1H",
    Interval.H2: "2H",
    Interval.H4: "4H",
    Interval.H6: "6Hutc",
    Interval.H12: "12Hutc",
    Interval.D1: "1Dutc",
    Interval.D3: "3Dutc",
    Interval.W1: "1Wutc",
    Interval.MO1: "1Mutc",
}
"""Candles that open on UTC boundaries; from 6H on the plain names open on those of UTC+8."""

_CANDLES = {f"candle{bar}": interval for interval, bar in BARS.items()}
_STREAM_CODES = frozenset({"60008", "60012", "60013", "60018", "64001", "64002", "64003", "64004"})
"""Errors about what was subscribed to: the connection and its other streams are fine."""
_GOING_AWAY = "64008"
"""Notice of an upgrade: the connection closes in about 60 s."""
_UNUSED_EVENTS = frozenset({"login", "channel-conn-count", "channel-conn-count-error"})
_UNKNOWN_INSTRUMENT = (Ignored("an instrument that is not in the table"),)
_NAMED = re.compile(r"\bchannel:(?P<channel>[\w-]+)(?:,\w+:[\w-]+)*?,instId:(?P<native>[\w-]+)")
_MOST_DIGITS = 19
_EXACT = Context(prec=200)
_INVERSE = Context(prec=20)
"""For USD / price: off by 5e-21 of the quantity at most, far below the digits of a candle."""
_ERROR_MAX = 300


def parse(raw: str | bytes, instruments: Instruments) -> Sequence[Event]:
    """One WebSocket message -> what it says, one event per row.  Raises BadMessage."""
    if raw in ("pong", b"pong"):
        return (Pong(),)
    try:
        envelope = decode_envelope(raw)
        if envelope.event is not None:
            return (_reply(envelope),)
        if envelope.arg is None:
            raise BadMessage("neither an event nor data of a channel")
        return _rows(envelope.arg, envelope, instruments)
    except MALFORMED as error:
        raise BadMessage(f"malformed: {error}", sample(raw)) from None
    except BadMessage as error:
        raise BadMessage(str(error), sample(raw)) from None


def _reply(envelope: Envelope) -> Event:
    """An acknowledgement (one per arg), an error (mostly without one), or a notice."""
    event, arg = envelope.event, envelope.arg
    if event in ("subscribe", "unsubscribe"):
        if arg is None:
            raise BadMessage(f"{event} of nothing")
        return Ack(stream_name(arg.channel, arg.instId))
    if event == "error":
        error = f"{envelope.code} {envelope.msg}".strip()[:_ERROR_MAX]
        return Ack(_whose(envelope), error or "unknown error", envelope.code in _STREAM_CODES)
    if event == "notice":
        return GoingAway() if envelope.code == _GOING_AWAY else Ignored("notice")
    if event in _UNUSED_EVENTS:
        return Ignored(str(event))
    raise BadMessage(f"unknown event {event!r}")


def _whose(error: Envelope) -> str:
    """The stream that an error is about; empty where neither ``arg`` nor the text names it."""
    if error.arg is not None:
        return stream_name(error.arg.channel, error.arg.instId)
    found = _NAMED.search(error.msg)
    return stream_name(found["channel"], found["native"]) if found else ""


def _rows(arg: Arg, envelope: Envelope, instruments: Instruments) -> Sequence[Event]:
    channel = arg.channel
    interval = _CANDLES.get(channel)
    if interval is None and channel not in _MAKERS:
        raise BadMessage(f"unknown channel {channel!r}")
    instrument = instruments.of_native(arg.instId)
    if instrument is None:
        return _UNKNOWN_INSTRUMENT
    if interval is not None:
        return [
            KlineUpdate(instrument.symbol, interval, kline(instrument, row, Source.EXCHANGE))
            for row in decode_candles(envelope.data)
        ]
    return _MAKERS[channel](instrument, envelope)


def kline(instrument: Instrument, row: CandleRow, source: Source) -> Kline:
    """``[ts,o,h,l,c,vol,volCcy,volCcyQuote,confirm]``: no event time, no number of trades."""
    volume = row.vol if instrument.kind == "spot" else row.volCcy
    return Kline(
        open_ms=_time_ms(row.ts),
        open=parse_decimal(row.o),
        high=parse_decimal(row.h),
        low=parse_decimal(row.l),
        close=parse_decimal(row.c),
        volume=parse_decimal(volume),
        quote_volume=parse_decimal(row.volCcyQuote),
        trades=0,
        closed=row.confirm == "1",
        source=source,
    )


def trade(instrument: Instrument, row: TradeRow) -> Trade:
    """``tradeId`` is the last of ``count`` trades (``trades``); single ones have no count."""
    last, count = _integer(row.tradeId), _integer(row.count)
    if not 1 <= count <= min(last + 1, MOST_AGGREGATED):
        raise BadMessage(f"trade {last} holds {count} trades")
    price, quantity = parse_price(row.px), _quantity(row.sz, instrument.contract_size)
    quote_quantity = None
    if instrument.kind.startswith("inverse_"):
        quantity, quote_quantity = _INVERSE.divide(quantity, price), quantity
    return Trade(
        symbol=instrument.symbol,
        trade_id=last,
        first_id=last - count + 1,
        last_id=last,
        price=price,
        quantity=quantity,
        time_ms=_time_ms(row.ts),
        buyer_is_maker=row.side == "sell",
        quote_quantity=quote_quantity,
    )


def _trades(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    return [trade(instrument, row) for row in decode_trades(envelope.data)]


def _tickers(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    return [_ticker(instrument, row) for row in decode_tickers(envelope.data)]


def _ticker(instrument: Instrument, row: TickerRow) -> Event:
    """24 h volumes: spot has base and quote, a derivative contracts and base."""
    if not row.last:
        return Ignored("tickers before the first trade")
    spot = instrument.kind == "spot"
    size = instrument.contract_size
    return Ticker(
        symbol=instrument.symbol,
        last=parse_decimal(row.last),
        open=_maybe(row.open24h),
        high=_maybe(row.high24h),
        low=_maybe(row.low24h),
        volume=_maybe(row.vol24h if spot else row.volCcy24h),
        quote_volume=_quote_volume(instrument, row),
        bid=_maybe(row.bidPx),
        bid_size=_quantity(row.bidSz, size) if row.bidSz else None,
        ask=_maybe(row.askPx),
        ask_size=_quantity(row.askSz, size) if row.askSz else None,
        event_ms=_time_ms(row.ts),
        opens=DayOpens(
            _quantity(row.lastSz, size) if row.lastSz else None,
            _maybe(row.sodUtc0),
            _maybe(row.sodUtc8),
        ),
    )


def _quote_volume(instrument: Instrument, row: TickerRow) -> Decimal | None:
    """What an inverse contract counts is quote currency; of a linear one it is not said."""
    if instrument.kind == "spot":
        return _maybe(row.volCcy24h)
    if instrument.kind.startswith("inverse_") and row.vol24h:
        return _quantity(row.vol24h, instrument.contract_size)
    return None


def _marks(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    return [_mark(instrument, row) for row in decode_marks(envelope.data)]


def _mark(instrument: Instrument, row: MarkPriceRow) -> MarkPrice:
    """Index and funding are streams of their own."""
    return MarkPrice(instrument.symbol, parse_decimal(row.markPx), None, None, 0, _time_ms(row.ts))


def _fundings(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    return [_funding(instrument, row) for row in decode_fundings(envelope.data)]


def _funding(instrument: Instrument, row: FundingRow) -> Event:
    """``fundingTime`` is the coming one."""
    if not row.fundingRate:
        return Ignored("funding without a rate")
    return Funding(
        symbol=instrument.symbol,
        rate=parse_decimal(row.fundingRate),
        time_ms=_time_ms(row.fundingTime),
        next_ms=_time_ms(row.nextFundingTime) if row.nextFundingTime else 0,
        event_ms=_time_ms(row.ts),
        previous_ms=_time_ms(row.prevFundingTime) if row.prevFundingTime else 0,
        settled=_maybe(row.settFundingRate),
        premium=_maybe(row.premium),
        interest=_maybe(row.interestRate),
        lowest=_maybe(row.minFundingRate),
        highest=_maybe(row.maxFundingRate),
    )


def _books(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    if envelope.action not in ("snapshot", "update"):
        raise BadMessage(f"books with action {envelope.action!r}")
    snapshot = envelope.action == "snapshot"
    return [book(instrument, row, snapshot=snapshot) for row in decode_books(envelope.data)]


def _books5(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    rows = decode_books(envelope.data)
    return [book(instrument, row, snapshot=True, partial=True) for row in rows]


def book(
    instrument: Instrument, row: BookRow, *, snapshot: bool, partial: bool = False
) -> BookUpdate:
    """A book or a change of it.  The checksum (0 since 2026-06-23) is over the wire's digits, so
    it is left out where contracts were converted."""
    size = instrument.contract_size
    return BookUpdate(
        symbol=instrument.symbol,
        first_id=row.seqId,
        last_id=row.seqId,
        previous_id=row.prevSeqId,
        bids=_levels(row.bids, size),
        asks=_levels(row.asks, size),
        snapshot=snapshot,
        partial=partial,
        event_ms=_time_ms(row.ts),
        checksum=(row.checksum or None) if size == 1 else None,
    )


def _tops(instrument: Instrument, envelope: Envelope) -> Sequence[Event]:
    return [_top(instrument, row) for row in decode_books(envelope.data)]


def _top(instrument: Instrument, row: BookRow) -> BookTop:
    bids = _levels(row.bids[:1], instrument.contract_size)
    asks = _levels(row.asks[:1], instrument.contract_size)
    bid, bid_size = bids[0] if bids else (None, None)
    ask, ask_size = asks[0] if asks else (None, None)
    return BookTop(
        instrument.symbol, bid, bid_size, ask, ask_size, max(row.seqId, 0), _time_ms(row.ts)
    )


_MAKERS: dict[str, Callable[[Instrument, Envelope], Sequence[Event]]] = {
    "trades": _trades,
    "trades-all": _trades,
    "tickers": _tickers,
    "books": _books,
    "books5": _books5,
    "bbo-tbt": _tops,
    "mark-price": _marks,
    "funding-rate": _fundings,
}


def _levels(rows: list[LevelRow], size: Decimal) -> tuple[Level, ...]:
    return tuple([(parse_decimal(row.px), _quantity(row.sz, size)) for row in rows])


def _quantity(text: str, size: Decimal) -> Decimal:
    """Contracts of ``size`` -> base (inverse: quote); quantities in base keep their digits."""
    value = parse_decimal(text)
    if value.is_signed():
        raise BadMessage(f"a quantity of {text}")
    return value if size == 1 else times(value, size)


def times(one: Decimal, other: Decimal) -> Decimal:
    """The exact product."""
    return _EXACT.multiply(one, other)


def _maybe(text: str) -> Decimal | None:
    """An empty string is OKX's way to say nothing."""
    return parse_decimal(text) if text else None


def _time_ms(text: str) -> int:
    return parse_time_ms(_integer(text))


def _integer(text: str) -> int:
    if len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit():
        number = int(text)
        if number <= INT_MAX:
            return number
    raise BadMessage(f"not a whole number: {text[:40]!r}")


def stream_name(channel: str, native: str) -> str:
    """What we call a subscription: ``candle1m:BTC-USDT``."""
    return f"{channel}:{native}"


def sample(raw: str | bytes) -> str:
    """The beginning of a message, for a log."""
    return raw[:200].decode(errors="replace") if isinstance(raw, bytes) else raw[:200]
