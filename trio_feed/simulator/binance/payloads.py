"""Pieces of messages that spot and USD-M have in common, pure.  ``digits`` writes a number."""

from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

import msgspec

from ...model import Kline
from ..market.books import Levels
from .dialect import Payload, Span, Stream
from .statistics import Day

Digits = Callable[[Decimal], str]

encode = msgspec.json.encode


def bar(stream: Stream, kline: Kline, span: Span, digits: Digits) -> Payload:
    """The ``k`` of a kline event; a candle without a trade has -1 in ``f`` and ``L``."""
    assert stream.interval is not None
    return {
        "t": kline.open_ms, "T": span.end_ms - 1,
        "s": stream.symbol, "i": stream.interval.value, "f": span.first_id, "L": span.last_id,
        "o": digits(kline.open), "c": digits(kline.close),
        "h": digits(kline.high), "l": digits(kline.low),
        "v": digits(kline.volume), "n": kline.trades, "x": kline.closed,
        "q": digits(kline.quote_volume), "V": digits(taker_share(kline.volume)),
        "Q": digits(taker_share(kline.quote_volume)), "B": "0",
    }  # fmt: skip


def kline_row(kline: Kline, end_ms: int, digits: Digits) -> list[Any]:
    """A candle as REST tells it."""
    return [
        kline.open_ms, digits(kline.open), digits(kline.high), digits(kline.low),
        digits(kline.close), digits(kline.volume), end_ms - 1,
        digits(kline.quote_volume), kline.trades, digits(taker_share(kline.volume)),
        digits(taker_share(kline.quote_volume)), "0",
    ]  # fmt: skip


def taker_share(volume: Decimal) -> Decimal:
    """What takers bought: half of everything, in the data, rounded down to its decimals."""
    return (volume / 2).quantize(volume, rounding=ROUND_DOWN)


def rows(levels: Levels, digits: Digits) -> list[list[str]]:
    """Book levels on the wire."""
    return [[digits(price), digits(quantity)] for price, quantity in levels]


def change_fields(day: Day, digits: Digits) -> Payload:
    """How a ticker event begins."""
    return {
        "p": digits(day.change), "P": format(day.change_percent, "f"), "w": digits(day.average),
    }  # fmt: skip


def range_fields(day: Day, digits: Digits) -> Payload:
    """Open, high, low and volumes of a ticker event."""
    return {
        "o": digits(day.open), "h": digits(day.high), "l": digits(day.low),
        "v": digits(day.volume), "q": digits(day.quote_volume),
    }  # fmt: skip


def span_fields(day: Day) -> Payload:
    """How the data of a ticker event ends: times, trade ids, count."""
    return {
        "O": day.open_ms, "C": day.close_ms,
        "F": day.first_id, "L": day.last_id, "n": day.trades,
    }  # fmt: skip


def day_row(day: Day, digits: Digits) -> Payload:
    """24 h statistics as REST tells them."""
    return {
        "symbol": day.symbol,
        "priceChange": digits(day.change),
        "priceChangePercent": format(day.change_percent, "f"),
        "weightedAvgPrice": digits(day.average),
        "lastPrice": digits(day.last),
        "lastQty": digits(day.last_quantity),
        "openPrice": digits(day.open),
        "highPrice": digits(day.high),
        "lowPrice": digits(day.low),
        "volume": digits(day.volume),
        "quoteVolume": digits(day.quote_volume),
        "openTime": day.open_ms,
        "closeTime": day.close_ms,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.trades,
    }


def combined(name: str, payload: bytes) -> bytes:
    """The payload as ``/stream`` connections get it."""
    return b'{"stream":"%s","data":%s}' % (name.encode(), payload)


def shutdown_payload(now_ms: int) -> bytes:
    """``serverShutdown`` (2026-05): this connection will be closed soon."""
    return encode({"e": "serverShutdown", "E": now_ms})
