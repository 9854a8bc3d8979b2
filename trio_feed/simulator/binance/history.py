"""REST answers about the past of Binance: candles, trades and fundings.  Pure.

Limits and windows: exchanges.md section 4.  Every function takes the data, the request's
parameters and the time in unix ms, and raises BinanceError.
"""

from decimal import Decimal
from typing import Any

from ...model import Interval, Kline, plain
from ..market.market import Market
from .dialect import MarketData, Payload, Query
from .payloads import kline_row
from .query import BinanceError, integer, interval_of, limit_of, range_of, symbol_of, text
from .statistics import FUNDING_MS

_HOUR_MS = 3_600_000
_CONTRACTS = {"PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "TRADIFI_PERPETUAL"}
_MOST_TRADES = 1000
_MOST_FUNDINGS = 1000
_MARK = Decimal("0.00000001")
_PRICES = slice(1, 5)
"""Of a row: open, high, low, close."""


def klines(data: MarketData, query: Query, now_ms: int) -> list[list[Any]]:
    return _kline_rows(data, symbol_of(data, query), query, now_ms)


def continuous_klines(data: MarketData, query: Query, now_ms: int) -> list[list[Any]]:
    """There are perpetuals only: of other contracts there are no candles."""
    symbol = symbol_of(data, query, "pair")
    contract = text(query, "contractType")
    if contract not in _CONTRACTS:
        raise BinanceError(-1130, "Data sent for parameter 'contractType' is not valid.")
    rows = _kline_rows(data, symbol, query, now_ms)
    return rows if contract == "PERPETUAL" else []


def mark_price_klines(data: MarketData, query: Query, now_ms: int) -> list[list[Any]]:
    """A mark is the price times what longs pay, which changes with each funding; of an interval
    that is longer it is what was paid at its beginning.  No volumes: zeros."""
    symbol, rows = symbol_of(data, query), klines(data, query, now_ms)
    for row in rows:
        paid = 1 + data.statistics.funding_rate(symbol, row[0] // FUNDING_MS)
        row[_PRICES] = [plain((Decimal(price) * paid).quantize(_MARK)) for price in row[_PRICES]]
        row[5] = row[7] = row[9] = row[10] = "0"
    return rows


def fundings(data: MarketData, query: Query, now_ms: int) -> list[Payload]:
    """What was paid, oldest first; without bounds the last ones.  Of all symbols without one."""
    symbols = [symbol_of(data, query)] if "symbol" in query else sorted(data.market.listings)
    limit = limit_of(data, query, 100, _MOST_FUNDINGS)
    start, end = range_of(query)
    last = min(now_ms, now_ms if end is None else end) // FUNDING_MS
    found = []
    for symbol in symbols:
        first = -(-max(start or 0, data.market.listed_of(symbol)) // FUNDING_MS)
        if start is None:
            first = max(first, last + 1 - limit)
        found += [(n * FUNDING_MS, symbol) for n in range(first, min(last + 1, first + limit))]
    chosen = sorted(found)[:limit] if start is not None else sorted(found)[-limit:]
    return [_funding(data, symbol, at_ms) for at_ms, symbol in chosen]


def _funding(data: MarketData, symbol: str, at_ms: int) -> Payload:
    rate = data.statistics.funding_rate(symbol, at_ms // FUNDING_MS - 1)
    mark = data.statistics.mark(symbol, at_ms - 1).mark
    return {
        "symbol": symbol, "fundingTime": at_ms, "fundingRate": plain(rate),
        "markPrice": plain(mark), "rateType": "Regular",
    }  # fmt: skip


def agg_trades(data: MarketData, query: Query, now_ms: int) -> list[Payload]:
    """From an id, from a time, or the last ones.  USD-M keeps two days and shows an hour."""
    market, rest = data.market, data.dialect.rest
    symbol = symbol_of(data, query)
    limit = limit_of(data, query, 500, _MOST_TRADES)
    start, end = range_of(query)
    listed_ms = market.listed_of(symbol)
    oldest = listed_ms if rest.trades_kept_ms is None else now_ms - rest.trades_kept_ms
    end_id = market.first_id(symbol, min(end if end is not None else now_ms, now_ms) + 1)
    if (from_id := integer(query, "fromId")) is not None:
        first = max(market.index_of(symbol, from_id), market.first_id(symbol, listed_ms))
        end_id = market.first_id(symbol, now_ms + 1)
        start = None if first >= end_id else market.trade_time(symbol, first)
    elif start is not None:
        if rest.trades_kept_ms and end is not None and end - start > _HOUR_MS:
            raise BinanceError(-1127, "More than 1 hours between startTime and endTime.")
        first = market.first_id(symbol, min(start, now_ms + 1))
    else:
        first = max(end_id - limit, market.first_id(symbol, oldest))
    if rest.trades_kept_ms and any(at is not None and at < oldest for at in (start, end)):
        raise BinanceError(-4166, "Search window is restricted to recent 2 days only.")
    count = max(0, min(limit, end_id - first))
    return [rest.agg_row(trade) for trade in market.trades_from(symbol, first, count)]


def trades(data: MarketData, query: Query, now_ms: int) -> list[Payload]:
    """The last ones."""
    symbol, limit = symbol_of(data, query), limit_of(data, query, 500, _MOST_TRADES)
    end_id = data.market.first_id(symbol, now_ms + 1)
    rows = data.market.trades_from(symbol, end_id - limit, limit)
    return [data.dialect.rest.trade_row(trade) for trade in rows]


def _kline_rows(data: MarketData, symbol: str, query: Query, now_ms: int) -> list[list[Any]]:
    market, rest = data.market, data.dialect.rest
    interval = interval_of(data, query)
    limit = limit_of(data, query, 500, rest.most_klines)
    start, end = range_of(query)
    if start is not None and start > now_ms:
        return []
    last = market.open_of(symbol, interval, now_ms if end is None else min(end, now_ms))
    if start is not None:
        first = market.open_of(symbol, interval, max(start, market.listed_of(symbol)))
        if first < start:
            first = market.next_open(symbol, interval, first)
        opens = _forward(market, symbol, interval, first, last, limit)
    else:
        if not _state(market, symbol, interval, last, now_ms):
            last = market.previous_open(symbol, interval, last)  # the open one has no trade yet
        opens = _backward(market, symbol, interval, last, limit)
    states = [_state(market, symbol, interval, open_ms, now_ms) for open_ms in opens]
    return [
        kline_row(state, market.next_open(symbol, interval, state.open_ms), rest.digits)
        for state in states
        if state is not None
    ]


def _forward(
    market: Market, symbol: str, interval: Interval, first: int, last: int, limit: int
) -> list[int]:
    opens: list[int] = []
    while first <= last and len(opens) < limit:
        if market.exists(symbol, interval, first):
            opens.append(first)
        first = market.next_open(symbol, interval, first)
    return opens


def _backward(market: Market, symbol: str, interval: Interval, last: int, limit: int) -> list[int]:
    opens: list[int] = []
    listed_ms = market.listed_of(symbol)
    while len(opens) < limit and market.next_open(symbol, interval, last) > listed_ms:
        if market.exists(symbol, interval, last):
            opens.append(last)
        last = market.previous_open(symbol, interval, last)
    return opens[::-1]


def _state(
    market: Market, symbol: str, interval: Interval, open_ms: int, now_ms: int
) -> Kline | None:
    if not market.exists(symbol, interval, open_ms):
        return None
    if market.next_open(symbol, interval, open_ms) <= now_ms:
        return market.candle(symbol, interval, open_ms)
    return market.partial(symbol, interval, open_ms, now_ms)
