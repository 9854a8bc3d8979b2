"""The answers of a UDF server, written from our values.  Pure.

Source: TradingView's UDF page and the code of its UDF bundle (2025), its PeriodParams page
(2025-06-22), as in dialect-facts, section 4.  Prices are JSON numbers, times unix seconds.
Candles of seconds are not offered: the bundle's poller reads ``1S`` as a minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from ...model import Instrument, Interval, Kline, Ticker, plain

RESOLUTIONS: Mapping[str, Interval] = {
    "1": Interval.M1, "3": Interval.M3, "5": Interval.M5, "15": Interval.M15, "30": Interval.M30,
    "60": Interval.H1, "120": Interval.H2, "240": Interval.H4, "360": Interval.H6,
    "480": Interval.H8, "720": Interval.H12, "1D": Interval.D1, "3D": Interval.D3,
    "1W": Interval.W1, "1M": Interval.MO1,
}  # fmt: skip
_ALIASES = {"D": "1D", "W": "1W", "M": "1M"}
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def interval_of(resolution: str) -> Interval | None:
    return RESOLUTIONS.get(_ALIASES.get(resolution, resolution))


def encoded(answer: Any) -> str:
    return _ENCODER.encode(answer).decode()


def configuration(venues: Iterable[str], intervals: Sequence[Interval]) -> dict[str, Any]:
    """``/config``."""
    exchanges = [{"value": "", "name": "All", "desc": ""}]
    exchanges += [{"value": venue, "name": venue, "desc": venue} for venue in venues]
    return {
        "supports_search": True,
        "supports_group_request": False,
        "supports_marks": False,
        "supports_timescale_marks": False,
        "supports_time": True,
        "exchanges": exchanges,
        "symbols_types": [{"name": "All", "value": ""}, {"name": "Crypto", "value": "crypto"}],
        "supported_resolutions": resolutions(intervals),
    }


def resolutions(intervals: Sequence[Interval]) -> list[str]:
    return [name for name, interval in RESOLUTIONS.items() if interval in intervals]


def symbol(found: Instrument, intervals: Sequence[Interval], *, simulated: bool) -> dict[str, Any]:
    """``/symbols``.  ``intervals``: the candles that are fed."""
    names = resolutions(intervals)
    minutes = [name for name in names if name.isdigit()]
    step = Decimal(1) if found.tick_size <= 0 else found.tick_size
    decimals = _decimals(step)
    return {
        "name": found.symbol,
        "ticker": ticker_of(found),
        "description": description(found, simulated=simulated),
        "type": "crypto",
        "exchange": found.venue,
        "listed_exchange": found.venue,
        "timezone": "Etc/UTC",
        "session": "24x7",
        "minmov": int(step.scaleb(decimals)),
        "pricescale": 10**decimals,
        "has_intraday": bool(minutes),
        "has_daily": "1D" in names,
        "has_weekly_and_monthly": "1W" in names or "1M" in names,
        "intraday_multipliers": minutes,
        "supported_resolutions": names,
        "volume_precision": _decimals(found.step_size),
        "data_status": "streaming",
    }


def match(found: Instrument, *, simulated: bool) -> dict[str, Any]:
    """An entry of ``/search``."""
    return {
        "symbol": found.symbol,
        "full_name": ticker_of(found),
        "description": description(found, simulated=simulated),
        "exchange": found.venue,
        "ticker": ticker_of(found),
        "type": "crypto",
    }


def symbol_info(listed: Sequence[tuple[Instrument, Sequence[Interval], bool]]) -> dict[str, Any]:
    """``/symbol_info``: a list per column, or one value that all rows have; of each instrument the
    candles that are fed, and whether it is simulated."""
    rows = [symbol(found, fed, simulated=simulated) for found, fed, simulated in listed]
    columns = {name: [row[own] for row in rows] for name, own in _COLUMNS.items()}
    return columns | {"type": "crypto", "timezone": "Etc/UTC", "session-regular": "24x7"}


_COLUMNS = {
    "symbol": "name", "ticker": "ticker", "description": "description",
    "exchange-listed": "listed_exchange", "exchange-traded": "exchange", "minmovement": "minmov",
    "pricescale": "pricescale", "has-intraday": "has_intraday", "has-daily": "has_daily",
    "has-weekly-and-monthly": "has_weekly_and_monthly", "volume-precision": "volume_precision",
    "supported-resolutions": "supported_resolutions",
    "intraday-multipliers": "intraday_multipliers",
}  # fmt: skip
"""What they are called there, and in ``/symbols``."""


def ticker_of(found: Instrument) -> str:
    return f"{found.venue}:{found.symbol}"


def description(found: Instrument, *, simulated: bool) -> str:
    return f"{found.symbol} {found.kind} on {found.venue}" + " (simulated)" * simulated


def bars(klines: Sequence[Kline]) -> dict[str, Any]:
    """``/history``, ascending."""
    return {
        "s": "ok",
        "t": [kline.open_ms // 1000 for kline in klines],
        "o": [_number(kline.open) for kline in klines],
        "h": [_number(kline.high) for kline in klines],
        "l": [_number(kline.low) for kline in klines],
        "c": [_number(kline.close) for kline in klines],
        "v": [_number(kline.volume) for kline in klines],
    }


def no_bars(before_ms: int | None) -> dict[str, Any]:
    """Nothing in the range.  ``before_ms``: of the closest candle before it; None: the history
    begins later, and a chart asks no further."""
    return {"s": "no_data"} | ({} if before_ms is None else {"nextTime": before_ms // 1000})


def quote(name: str, found: Instrument, t: Ticker, *, simulated: bool) -> dict[str, Any]:
    """An entry of ``/quotes``; ``name`` as it was asked for."""
    change = None if t.open is None else t.last - t.open
    percent = None if change is None or not t.open else round(change / t.open * 100, 2)
    values = {
        "lp": t.last, "ch": change, "chp": percent, "ask": t.ask, "bid": t.bid,
        "open_price": t.open, "high_price": t.high, "low_price": t.low,
        "prev_close_price": t.open, "volume": t.volume,
    }  # fmt: skip
    numbers = {key: _number(value) for key, value in values.items() if value is not None}
    words = {"short_name": found.symbol, "exchange": found.venue}
    words["description"] = description(found, simulated=simulated)
    return {"s": "ok", "n": name, "v": numbers | words}


def _number(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(plain(value).encode())


def _decimals(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) and step > 0 else 0
