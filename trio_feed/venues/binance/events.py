"""Binance's events, spot and USD-M: from a frame of known kind to what the core takes.

Sources: see :mod:`.messages`.
"""

from collections.abc import Callable
from typing import Any, get_args

import msgspec
from attrs import frozen

from ...core.streams import KlineUpdate
from ...errors import BadMessage
from ...model import (
    MOST_AGGREGATED,
    BookTop,
    BookUpdate,
    Instrument,
    Interval,
    Kline,
    Level,
    Liquidation,
    MarkPrice,
    Source,
    Ticker,
    TickerDetails,
    Trade,
    parse_decimal,
    parse_price,
    parse_quantity,
    parse_time_ms,
)
from ..base import Event, Ignored
from ..instruments import Instruments
from .forms import (
    UM,
    AggRow,
    AnyEvent,
    Bar,
    ContinuousFrame,
    Depth,
    DepthFrame,
    ForceFrame,
    KlineFrame,
    Levels,
    MarkFrame,
    TickerFrame,
    TopFrame,
    TradeFrame,
)

CONTRACTS = {"PERPETUAL": "perpetual", "TRADIFI_PERPETUAL": "tradifi_perpetual"}
"""``contractType`` of what is asked for as a continuous contract -> ``Instrument.kind``."""

decode_depth = msgspec.json.Decoder(Depth).decode

_STREAMED = {i.value: i for i in Interval if i is not Interval.S30}


UNKNOWN_INSTRUMENT = Ignored("an instrument that is not in the table")
_OTHER_MARKET = Ignored("COIN-M")


def _kline(frame: KlineFrame, _stream: str, instruments: Instruments) -> Event:
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    return _update(instrument, frame.k, frame.E, _id(frame.k.f), _id(frame.k.L))


def _continuous_kline(frame: ContinuousFrame, _stream: str, instruments: Instruments) -> Event:
    """Matched by pair and contract type: the pair alone also names its dated contracts."""
    if not frame.ps:
        raise BadMessage("a candle of nothing")
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.ps)
    if instrument is None or CONTRACTS.get(frame.ct) != instrument.kind:
        return UNKNOWN_INSTRUMENT
    return _update(instrument, frame.k, frame.E, None, None)


def _update(
    instrument: Instrument, bar: Bar, event_ms: int, first_id: int | None, last_id: int | None
) -> Event:
    interval = _STREAMED.get(bar.i)
    if interval is None:
        raise BadMessage(f"candle of {bar.i!r}")
    kline = Kline(
        open_ms=parse_time_ms(bar.t),
        open=parse_decimal(bar.o),
        high=parse_decimal(bar.h),
        low=parse_decimal(bar.l),
        close=parse_decimal(bar.c),
        volume=parse_decimal(bar.v),
        quote_volume=parse_decimal(bar.q),
        trades=bar.n,
        closed=bar.x,
        source=Source.EXCHANGE,
        event_ms=parse_time_ms(event_ms),
        first_trade_id=first_id,
        last_trade_id=last_id,
        taker_buy_volume=parse_decimal(bar.V),
        taker_buy_quote_volume=parse_decimal(bar.Q),
    )
    return KlineUpdate(instrument.symbol, interval, kline)


def _id(number: int) -> int | None:
    """-1 stands in candles without trades."""
    return number if number >= 0 else None


def _agg_trade(frame: AggRow, _stream: str, instruments: Instruments) -> Event:
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    return aggregate(instrument, frame, parse_time_ms(frame.E))


def aggregate(instrument: Instrument, row: AggRow, event_ms: int) -> Trade:
    if not 0 <= row.f <= row.l:  # old rows have -1 and a price of 0
        raise BadMessage("an aggregate without trades")
    if row.l - row.f >= MOST_AGGREGATED:
        raise BadMessage(f"an aggregate of {row.l - row.f + 1} trades")
    price, quantity = parse_price(row.p), parse_quantity(row.q)
    time_ms = parse_time_ms(row.T)
    symbol = instrument.symbol
    return Trade(symbol, row.a, row.f, row.l, price, quantity, time_ms, row.m, event_ms)


def _single_trade(frame: TradeFrame, _stream: str, instruments: Instruments) -> Event:
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    if frame.X == "NA":  # USD-M: price and quantity are "0"
        return Ignored("placeholder trade")
    price, quantity = parse_price(frame.p), parse_quantity(frame.q)
    time_ms, event_ms = parse_time_ms(frame.T), parse_time_ms(frame.E)
    number = frame.t
    symbol = instrument.symbol
    return Trade(symbol, number, number, number, price, quantity, time_ms, frame.m, event_ms)


def _ticker(frame: TickerFrame, _stream: str, instruments: Instruments) -> Event:
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    return Ticker(
        symbol=instrument.symbol,
        last=parse_decimal(frame.c),
        open=parse_decimal(frame.o),
        high=parse_decimal(frame.h),
        low=parse_decimal(frame.l),
        volume=parse_decimal(frame.v),
        quote_volume=parse_decimal(frame.q),
        bid=_maybe(frame.b),
        bid_size=_maybe(frame.B),
        ask=_maybe(frame.a),
        ask_size=_maybe(frame.A),
        event_ms=parse_time_ms(frame.E),
        details=_details(frame),
    )


def _details(frame: TickerFrame) -> TickerDetails | None:
    """None in the mini ticker."""
    if frame.Q is None or frame.w is None:
        return None
    size, average = parse_decimal(frame.Q), parse_decimal(frame.w)
    ids = frame.O, frame.C, frame.F, frame.L, frame.n
    return TickerDetails(size, average, _maybe(frame.x), *ids)


def _top(frame: TopFrame, _stream: str, instruments: Instruments) -> Event:
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    bid, bid_size = parse_decimal(frame.b), parse_decimal(frame.B)
    ask, ask_size = parse_decimal(frame.a), parse_decimal(frame.A)
    return BookTop(instrument.symbol, bid, bid_size, ask, ask_size, frame.u, frame.E)


def _depth_update(frame: DepthFrame, stream: str, instruments: Instruments) -> Event:
    if frame.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(frame.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    partial = stream.partition("@depth")[2][:1].isdigit()
    return BookUpdate(
        symbol=instrument.symbol,
        first_id=frame.U,
        last_id=frame.u,
        previous_id=frame.pu,
        bids=_levels(frame.b),
        asks=_levels(frame.a),
        snapshot=partial,
        partial=partial,
        event_ms=parse_time_ms(frame.E),
    )


def _partial_depth(frame: Depth, stream: str, instruments: Instruments) -> Event:
    instrument = instruments.of_lower(stream.partition("@")[0])
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    return snapshot(instrument, frame, partial=True)


def _mark_price(frame: MarkFrame, _stream: str, instruments: Instruments) -> Event:
    instrument = instruments.of_native(frame.s)
    if frame.st != UM or instrument is None:
        return _OTHER_MARKET if frame.st != UM else UNKNOWN_INSTRUMENT
    rate = _maybe(frame.r)
    mark, index = parse_decimal(frame.p), _maybe(frame.i)
    settle = _maybe(frame.P)
    return MarkPrice(instrument.symbol, mark, index, rate, frame.T, parse_time_ms(frame.E), settle)


def _liquidation(frame: ForceFrame, _stream: str, instruments: Instruments) -> Event:
    order = frame.o
    if frame.st != UM or order.st != UM:
        return _OTHER_MARKET
    instrument = instruments.of_native(order.s)
    if instrument is None:
        return UNKNOWN_INSTRUMENT
    price, average = parse_decimal(order.p), parse_decimal(order.ap)
    quantity, time_ms = parse_decimal(order.q), parse_time_ms(order.T)
    return Liquidation(instrument.symbol, order.S == "SELL", price, average, quantity, time_ms)


def snapshot(instrument: Instrument, depth: Depth, *, partial: bool = False) -> BookUpdate:
    number = depth.lastUpdateId
    return BookUpdate(
        symbol=instrument.symbol,
        first_id=number,
        last_id=number,
        previous_id=None,
        bids=_levels(depth.bids),
        asks=_levels(depth.asks),
        snapshot=True,
        partial=partial,
        event_ms=depth.E,
    )


def _levels(rows: Levels) -> tuple[Level, ...]:
    return tuple((parse_decimal(price), parse_decimal(size)) for price, size in rows)


def _maybe(text: str | None) -> Any:
    return parse_decimal(text) if text else None


@frozen
class Reader:
    """How a frame of one kind is read; the second argument of ``make`` is the stream it came by."""

    decode: Callable[[str | bytes], Any]
    make: Callable[[Any, str, Instruments], Event]


def _reader(form: type, make: Callable[[Any, str, Instruments], Event]) -> Reader:
    return Reader(msgspec.json.Decoder(form).decode, make)


READERS: dict[str, Reader] = {
    "kline": _reader(KlineFrame, _kline),
    "continuous_kline": _reader(ContinuousFrame, _continuous_kline),
    "aggTrade": _reader(AggRow, _agg_trade),
    "trade": _reader(TradeFrame, _single_trade),
    "24hrTicker": _reader(TickerFrame, _ticker),
    "24hrMiniTicker": _reader(TickerFrame, _ticker),
    "bookTicker": _reader(TopFrame, _top),
    "depthUpdate": _reader(DepthFrame, _depth_update),
    "partialDepth": _reader(Depth, _partial_depth),
    "markPriceUpdate": _reader(MarkFrame, _mark_price),
    "forceOrder": _reader(ForceFrame, _liquidation),
}
"""By event type, or by what stands in its place (:func:`.messages._kind_of`)."""
MAKERS: dict[type, Callable[[Any, str, Instruments], Event]] = {
    form: READERS[form.__struct_config__.tag].make for form in get_args(AnyEvent)
}
"""By form, for those that name their event type."""
