"""Parameters of a REST request, and what is answered to wrong ones.  Pure.

Error codes and texts are from Binance's published lists (errors.md of spot and of USD-M, 2026).
"""

from collections.abc import Callable, Mapping

import msgspec

from ...model import Interval
from ..machinery.rest import ApiError
from ..machinery.wire import Response
from .dialect import MarketData, Query

_BY_NAME = {interval.value: interval for interval in Interval}


class BinanceError(ApiError):
    def __init__(self, code: int, msg: str, status: int = 400) -> None:
        super().__init__(Response(status, msgspec.json.encode({"code": code, "msg": msg})))


def symbol_of(data: MarketData, query: Query, name: str = "symbol") -> str:
    """A listed symbol.  Raises BinanceError."""
    symbol = text(query, name).upper()
    if symbol not in data.market.listings:
        raise BinanceError(-1121, "Invalid symbol.")
    return symbol


def interval_of(data: MarketData, query: Query) -> Interval:
    """The exchange's notation (``1M`` is a month, ``1m`` a minute).  Raises BinanceError."""
    interval = _BY_NAME.get(text(query, "interval"))
    if interval is None or interval not in data.dialect.rest.kline_intervals:
        raise BinanceError(-1120, "Invalid interval.")
    return interval


def text(query: Query, name: str) -> str:
    """A parameter that must be there.  Raises BinanceError."""
    if not query.get(name):
        raise _missing(name)
    return query[name]


def integer(query: Query, name: str) -> int | None:
    """A number that may be there.  Raises BinanceError."""
    value = query.get(name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise _missing(name)
    return int(value)


def limit_of(data: MarketData, query: Query, default: int, most: int) -> int:
    """How many rows; spot gives ``most`` where more are asked for.  Raises BinanceError."""
    limit = integer(query, "limit")
    if limit is None:
        return default
    if limit < 1 or (limit > most and data.dialect.rest.strict_limit):
        raise BinanceError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit, most)


def range_of(query: Query) -> tuple[int | None, int | None]:
    """``startTime`` and ``endTime`` in unix ms.  Raises BinanceError."""
    start, end = integer(query, "startTime"), integer(query, "endTime")
    if start is not None and end is not None and start > end:
        raise BinanceError(-1023, "Start time is greater than end time.")
    return start, end


def constant(weight: int) -> Callable[[Query], int]:
    """The same weight for every request."""
    return lambda _query: weight


def per_limit(default: int, upto: Mapping[int, int], beyond: int) -> Callable[[Query], int]:
    """The weight of the first limit in ``upto`` that is not exceeded."""

    def weigh(query: Query) -> int:
        value = query.get("limit", "")
        limit = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else default
        return next((weight for most, weight in upto.items() if limit <= most), beyond)

    return weigh


def per_symbol(one: int, every: int) -> Callable[[Query], int]:
    """``one`` where a symbol is named."""
    return lambda query: one if "symbol" in query else every


def _missing(name: str) -> BinanceError:
    return BinanceError(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )
