"""Binance USD-M futures: URLs, frames, messages and REST answers as of 2026-11.

Sources: "Important WebSocket Change Notice" and "Websocket Market Streams" of the USD-M pages on
developers.binance.com (2026-05-28), binance-connector-python 17.2.0 (2026-08-19).  Since
2026-04-23 market streams are pushed on the ``/market`` path only: elsewhere they are acknowledged
and stay silent.  A candle's REST row is final once a later row stands behind it, whatever any
clock says, because the last row of an answer that reaches the present is the running candle.
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from ..errors import BadMessage
from ..model import Interval, Kline, Source, Trade, parse_decimal, parse_time_ms
from .base import Ack, Event, GoingAway, Ignored, KlineUpdate, Plan, RestQuestion, Stream

NAME = "binance_usdm"
WEBSOCKET_URL = "wss://fstream.binance.com"
REST_URL = "https://fapi.binance.com"
INTERVALS = frozenset(Interval) - {Interval.S1, Interval.S30}
KLINE_PAGE = 1500
TRADE_PAGE = 1000

MARKET = "/market"
SUBSCRIBE_MAX = 200
"""Streams per SUBSCRIBE; several hundred in one frame were seen to fail without a word."""
STREAMS_MAX = 1024
"""Streams per connection."""

_WEIGHTS = ((100, 1), (500, 2), (1001, 5), (1501, 10))
"""Request weight of kline rows: (below this many, weight)."""
_UNUSED_KINDS = frozenset(
    {
        "bookTicker",
        "depthUpdate",
        "24hrTicker",
        "24hrMiniTicker",
        "markPriceUpdate",
        "forceOrder",
        "trade",
        "compositeIndex",
        "contractInfo",
        "assetIndexUpdate",
        "EquityUpdate",
    }
)


class _Wire(msgspec.Struct):
    """Base of the wire forms: unknown extra fields are welcome, missing ones are not."""


class _Bar(_Wire):
    t: int
    i: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    c: str
    v: str
    q: str
    n: int
    x: bool


class _KlineFrame(_Wire):
    E: int
    k: _Bar
    s: str = ""
    ps: str = ""
    ct: str = "PERPETUAL"


class _TradeFrame(_Wire):
    E: int
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the exchange's name
    T: int
    m: bool


class _TradeRow(_Wire):
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the exchange's name
    T: int
    m: bool


_NOTHING = msgspec.Raw()


class _Envelope(_Wire):
    """Everything the outside of a message can carry: an event, a combined wrapper, a reply."""

    stream: str | None = None
    data: msgspec.Raw = _NOTHING
    e: str | None = None
    id: int | str | None = None
    result: msgspec.Raw = _NOTHING
    code: int | None = None
    msg: str | None = None
    error: msgspec.Raw = _NOTHING


_Row = tuple[int, str, str, str, str, str, int, str, int, str, str, str]

_envelope: Callable[[str | bytes], _Envelope] = msgspec.json.Decoder(_Envelope).decode
_kline_frame: Callable[[Any], _KlineFrame] = msgspec.json.Decoder(_KlineFrame).decode
_trade_frame: Callable[[Any], _TradeFrame] = msgspec.json.Decoder(_TradeFrame).decode
_rows: Callable[[bytes], list[_Row]] = msgspec.json.Decoder(list[_Row]).decode
_trade_rows: Callable[[bytes], list[_TradeRow]] = msgspec.json.Decoder(list[_TradeRow]).decode
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)


def kline_stream(symbol: str, interval: Interval) -> Stream:
    """The exchange's own candles of the perpetual contract of a pair."""
    name = f"{symbol.lower()}_perpetual@continuousKline_{interval}"
    return Stream(MARKET, name, symbol, interval)


def trade_stream(symbol: str) -> Stream:
    """Aggregated trades (100 ms)."""
    return Stream(MARKET, f"{symbol.lower()}@aggTrade", symbol, None)


def plan(base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
    """Streams -> connections of at most ``limit`` streams; one stream stands in the URL, several
    are subscribed to in frames of at most ``SUBSCRIBE_MAX``."""
    limit = min(limit, STREAMS_MAX)
    plans = []
    for path in sorted({stream.path for stream in streams}):
        group = [stream for stream in streams if stream.path == path]
        for start in range(0, len(group), limit):
            chunk = tuple(group[start : start + limit])
            plans.append(_connection(f"{base_url}{path}", chunk))
    return plans


def _connection(base: str, streams: tuple[Stream, ...]) -> Plan:
    if len(streams) == 1:
        return Plan(f"{base}/ws/{streams[0].name}", streams, {})
    frames = {}
    for number, start in enumerate(range(0, len(streams), SUBSCRIBE_MAX), start=1):
        names = [stream.name for stream in streams[start : start + SUBSCRIBE_MAX]]
        frames[number] = json.dumps({"method": "SUBSCRIBE", "params": names, "id": number})
    return Plan(f"{base}/stream", streams, frames)


def parse(raw: str | bytes) -> Event:
    """One WebSocket message, raw or combined, -> one event.  Raises BadMessage."""
    try:
        envelope = _envelope(raw)
        if envelope.data != _NOTHING:
            return _event(_envelope(bytes(envelope.data)).e, envelope.data)
        if envelope.e is not None:
            return _event(envelope.e, raw)
        return _reply(envelope)
    except _MALFORMED as error:
        raise BadMessage(f"malformed: {error}", _sample(raw)) from None
    except BadMessage as error:
        raise BadMessage(str(error), _sample(raw)) from None


def _event(kind: str | None, raw: Any) -> Event:
    if kind in ("continuous_kline", "kline"):
        return _kline(_kline_frame(raw))
    if kind == "aggTrade":
        return _trade(_trade_frame(raw))
    if kind == "serverShutdown":
        return GoingAway()
    if kind in _UNUSED_KINDS:
        return Ignored(str(kind))
    raise BadMessage(f"unknown event {kind!r}")


def _kline(frame: _KlineFrame) -> KlineUpdate:
    bar = frame.k
    symbol = frame.ps or frame.s
    if not symbol or bar.i not in _STREAMED:
        raise BadMessage(f"candle of {symbol!r} {bar.i!r}")
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
        event_ms=parse_time_ms(frame.E),
    )
    return KlineUpdate(symbol, _STREAMED[bar.i], kline)


_STREAMED = {i.value: i for i in Interval if i is not Interval.S30}


def _trade(frame: _TradeFrame) -> Trade:
    return _aggregate(frame.s, frame, frame.E)


def _aggregate(symbol: str, row: _TradeFrame | _TradeRow, event_ms: int) -> Trade:
    return Trade(
        symbol,
        row.a,
        row.f,
        row.l,
        parse_decimal(row.p),
        parse_decimal(row.q),
        parse_time_ms(row.T),
        row.m,
        event_ms,
    )


def _reply(envelope: _Envelope) -> Event:
    """``{"result":..,"id":..}``, ``{"code":..,"msg":..}`` or ``{"error":{..},"id":..}``."""
    number = envelope.id if isinstance(envelope.id, int) else None
    if envelope.error:
        return Ack(number, bytes(envelope.error).decode(errors="replace"))
    if envelope.code is not None or envelope.msg is not None:
        return Ack(number, f"{envelope.code} {envelope.msg or ''}".strip())
    if envelope.id is not None or envelope.result:
        return Ack(number)
    raise BadMessage("neither an event nor a reply")


def klines_question(symbol: str, interval: Interval, start_ms: int) -> RestQuestion:
    """Candles from ``start_ms`` on, oldest first, the running one last."""
    weight = next(w for below, w in _WEIGHTS if below > KLINE_PAGE)
    return RestQuestion(
        "/fapi/v1/continuousKlines",
        {
            "pair": symbol,
            "contractType": "PERPETUAL",
            "interval": interval.value,
            "startTime": start_ms,
            "limit": KLINE_PAGE,
        },
        weight,
    )


def parse_klines(body: bytes) -> list[Kline]:
    """Rows ascending; all but the last are closed.  Raises BadMessage."""
    try:
        rows = _rows(body)
    except _MALFORMED as error:
        raise BadMessage(f"malformed candles: {error}", _sample(body)) from None
    if any(later[0] <= row[0] for row, later in pairwise(rows)):
        raise BadMessage("candles are not in ascending order", _sample(body))
    last = len(rows) - 1
    return [_row_kline(row, closed=index < last) for index, row in enumerate(rows)]


def _row_kline(row: _Row, *, closed: bool) -> Kline:
    o, h, low, c, v = (parse_decimal(text) for text in row[1:6])
    opened = parse_time_ms(row[0])
    return Kline(opened, o, h, low, c, v, parse_decimal(row[7]), row[8], closed, Source.BACKFILL)


def trades_question(symbol: str, from_id: int) -> RestQuestion:
    """Aggregated trades from ``from_id`` on, oldest first (the exchange keeps 48 hours)."""
    return RestQuestion(
        "/fapi/v1/aggTrades", {"symbol": symbol, "fromId": from_id, "limit": TRADE_PAGE}, 20
    )


def parse_trades(symbol: str, body: bytes) -> list[Trade]:
    """Ascending by id.  Raises BadMessage."""
    try:
        return [_aggregate(symbol, row, row.T) for row in _trade_rows(body)]
    except _MALFORMED as error:
        raise BadMessage(f"malformed trades: {error}", _sample(body)) from None


def _sample(raw: str | bytes) -> str:
    return raw[:200].decode(errors="replace") if isinstance(raw, bytes) else raw[:200]
