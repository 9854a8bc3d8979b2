"""Candles as lines of text: aligned, CSV, JSON.  Pure."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

from ..client import Stream
from ..model import Kline
from .terminal import iso

Form = Literal["text", "csv", "json"]
COLUMNS = ("open_time", "open", "high", "low", "close", "volume")
CSV_HEADER = "symbol,interval,open_time_ms,open,high,low,close,volume,state"


def values(stream: Stream, kline: Kline) -> dict[str, Any]:
    """Exact decimals as text."""
    assert stream.interval is not None, "only candles are rows"
    return {
        "symbol": stream.symbol,
        "interval": stream.interval.value,
        "open_time_ms": kline.open_ms,
        "open": _plain(kline.open),
        "high": _plain(kline.high),
        "low": _plain(kline.low),
        "close": _plain(kline.close),
        "volume": _plain(kline.volume),
    }


def header(form: Form) -> str:
    """The first line; empty: none."""
    if form == "csv":
        return CSV_HEADER
    if form == "json":
        return ""
    names = "".join(f"{name:>14}" for name in COLUMNS[1:])
    return f"{'open time':<20}{names}  state"


def line(stream: Stream, kline: Kline, state: str, form: Form) -> str:
    """``state``: open, closed, revised."""
    found = values(stream, kline)
    if form == "json":
        return json.dumps({**found, "state": state})
    cells = [found[name] for name in COLUMNS[1:]]
    if form == "csv":
        where = [found["symbol"], found["interval"], str(kline.open_ms)]
        return ",".join([*where, *cells, state])
    return f"{iso(kline.open_ms):<20}{''.join(f'{cell:>14}' for cell in cells)}  {state}"


def _plain(value: Decimal) -> str:
    return f"{value:f}"


Put = Callable[[str], object]
