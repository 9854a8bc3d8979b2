"""Binance USD-M streams: names and payloads, pure.

Names and payload keys: exchanges.md 2.1 and 2.4 (Binance's SDK tests, 2026-08).  A stream exists
in the box only where this module can push it; every other name is acked and stays silent, as on
the real exchange.
"""

import re
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal

import msgspec
from attrs import frozen

from ..market.calendar import next_open
from ..model import Interval, Kline, Trade, plain
from .market import Market

KLINE_INTERVALS = frozenset(Interval) - {Interval.S1, Interval.S30}
"""Of ``@kline_`` and of REST; continuousKline streams have 1s as well."""
CONTINUOUS_INTERVALS = KLINE_INTERVALS | {Interval.S1}
_BY_NAME = {interval.value: interval for interval in CONTINUOUS_INTERVALS}

_NAME = re.compile(
    r"(?P<symbol>[a-z0-9]+)"
    r"(?:(?P<trade>@aggTrade)|@kline_(?P<kline>\w+)|_perpetual@continuousKline_(?P<continuous>\w+))"
)


@frozen
class Stream:
    """A stream that pushes.  ``interval`` is None for trades."""

    name: str
    kind: Literal["aggTrade", "kline", "continuousKline"]
    symbol: str
    interval: Interval | None = None


def parse_stream(name: str, market: Market) -> Stream | None:
    """A stream's name -> the stream, or None for one that never pushes.

    Names are lower case (but for ``continuousKline`` and ``aggTrade``): ``BTCUSDT@kline_1m`` is
    not a stream, and the exchange does not say so.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["symbol"].upper() not in market.listings:
        return None
    symbol = found["symbol"].upper()
    if found["trade"]:
        return Stream(name, "aggTrade", symbol)
    if found["kline"]:
        interval = kline_interval(found["kline"])
        return None if interval is None else Stream(name, "kline", symbol, interval)
    interval = _BY_NAME.get(found["continuous"])
    return None if interval is None else Stream(name, "continuousKline", symbol, interval)


def kline_interval(text: str) -> Interval | None:
    """The exchange's notation (``1M`` is a month, ``1m`` a minute) -> Interval of ``@kline_``."""
    interval = _BY_NAME.get(text)
    return interval if interval in KLINE_INTERVALS else None


def agg_trade_payload(trade: Trade, now_ms: int) -> bytes:
    """``nq`` is the quantity without RPI orders (the box has none), ``st`` 1 = USD-M."""
    quantity = plain(trade.quantity)
    return _encode(
        {
            "e": "aggTrade", "E": now_ms, "s": trade.symbol, "a": trade.trade_id,
            "p": plain(trade.price), "q": quantity, "nq": quantity,
            "f": trade.first_id, "l": trade.last_id, "T": trade.time_ms,
            "m": trade.buyer_is_maker, "st": 1,
        }
    )  # fmt: skip


def kline_payload(stream: Stream, kline: Kline, first_id: int, now_ms: int) -> bytes:
    """One state of a candle.  ``first_id`` is its first trade's id.

    continuousKline has ``ps`` and ``ct`` in place of ``s``, and its ``f`` and ``L`` are update
    ids, not trade ids; a candle without a trade has -1 in both.
    """
    assert stream.interval is not None
    first, last = (first_id, first_id + kline.trades - 1) if kline.trades else (-1, -1)
    k: dict[str, Any] = {
        "t": kline.open_ms, "T": next_open(stream.interval, kline.open_ms) - 1,
        "s": stream.symbol, "i": stream.interval.value, "f": first, "L": last,
        "o": plain(kline.open), "c": plain(kline.close),
        "h": plain(kline.high), "l": plain(kline.low),
        "v": plain(kline.volume), "n": kline.trades, "x": kline.closed,
        "q": plain(kline.quote_volume),
        "V": taker_share(kline.volume), "Q": taker_share(kline.quote_volume), "B": "0",
    }  # fmt: skip
    if stream.kind == "kline":
        return _encode({"e": "kline", "E": now_ms, "s": stream.symbol, "k": k})
    del k["s"]
    if kline.trades:
        k["f"], k["L"] = 100 * first, 100 * last + 99
    return _encode(
        {"e": "continuous_kline", "E": now_ms, "ps": stream.symbol, "ct": "PERPETUAL", "k": k}
    )


def taker_share(volume: Decimal) -> str:
    """What takers bought: half of everything, in the box, rounded down to its decimals."""
    return plain((volume / 2).quantize(volume, rounding=ROUND_DOWN))


def combined(name: str, payload: bytes) -> bytes:
    """The payload as ``/stream`` connections get it."""
    return b'{"stream":"%s","data":%s}' % (name.encode(), payload)


def _encode(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)
