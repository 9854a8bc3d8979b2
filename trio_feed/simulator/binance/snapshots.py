"""REST answers about the present of Binance: books, tickers, listings.  Pure.

Every function takes the data, the request's parameters and the time in unix ms, and raises
BinanceError.
"""

from collections.abc import Callable

from ...model import plain
from ..market.books import best_of
from ..market.interest import held
from .dialect import MarketData, Payload, Query, book_id
from .payloads import day_row, rows
from .query import BinanceError, integer, symbol_of

_MOST_DEPTH = 5000


def ping(_data: MarketData, _query: Query, _now_ms: int) -> Payload:
    return {}


def server_time(_data: MarketData, _query: Query, now_ms: int) -> Payload:
    return {"serverTime": now_ms}


def exchange_info(data: MarketData, query: Query, now_ms: int) -> Payload:
    return data.dialect.rest.exchange_info(data.market, query, now_ms)


def depth(data: MarketData, query: Query, now_ms: int) -> Payload:
    """A book; ``E`` and ``T`` on USD-M only, and there only some limits exist.

    It is the one of the last push: between two of them a level may go away and come back, which
    the next push does not tell.
    """
    symbol, rest = symbol_of(data, query), data.dialect.rest
    limit = integer(query, "limit")
    if rest.depths is None:
        limit = min(100 if limit is None else limit, _MOST_DEPTH)
    elif limit is None:
        limit = 500
    elif limit not in rest.depths:
        raise BinanceError(-4021, f"Depth limit {limit} not valid.")
    book = data.books[symbol]
    step = book.step(now_ms - now_ms % data.book_push_ms)
    bids, asks = book.levels(step, limit or _MOST_DEPTH)
    times = {"E": now_ms, "T": now_ms} if rest.depth_times else {}
    return {
        "lastUpdateId": book_id(step), **times,
        "bids": rows(bids, rest.digits), "asks": rows(asks, rest.digits),
    }  # fmt: skip


def day(data: MarketData, query: Query, now_ms: int) -> object:
    """24 h statistics; with best bid and ask on spot only."""

    def one(symbol: str) -> Payload:
        stats = data.statistics.day(symbol, now_ms)
        row = day_row(stats, data.dialect.rest.digits)
        if data.dialect.rest.day_tops:
            row |= {"prevClosePrice": row["openPrice"], **_top(data, symbol, now_ms)}
        return row

    return _each(data, query, now_ms, one)


def price(data: MarketData, query: Query, now_ms: int) -> object:
    """The last price."""

    def one(symbol: str) -> Payload:
        last = data.statistics.last_trade(symbol, now_ms)
        time = {"time": last.time_ms} if data.dialect.rest.depth_times else {}
        return {"symbol": symbol, "price": data.dialect.rest.digits(last.price), **time}

    return _each(data, query, now_ms, one)


def top(data: MarketData, query: Query, now_ms: int) -> object:
    """Best bid and ask."""

    def one(symbol: str) -> Payload:
        time = {"time": now_ms} if data.dialect.rest.depth_times else {}
        return {"symbol": symbol, **_top(data, symbol, now_ms), **time}

    return _each(data, query, now_ms, one)


def premium_index(data: MarketData, query: Query, now_ms: int) -> object:
    """Mark price and funding."""

    def one(symbol: str) -> Payload:
        mark = data.statistics.mark(symbol, now_ms)
        return {
            "symbol": symbol,
            "markPrice": plain(mark.mark),
            "indexPrice": plain(mark.index),
            "estimatedSettlePrice": plain(mark.index),
            "lastFundingRate": plain(mark.funding_rate),
            "interestRate": "0.00010000",
            "nextFundingTime": mark.funding_ms,
            "time": now_ms,
        }

    return _each(data, query, now_ms, one)


def open_interest(data: MarketData, query: Query, now_ms: int) -> object:
    """Contracts that are open; counted anew every 10 s."""
    symbol = symbol_of(data, query)
    at_ms = now_ms - now_ms % 10_000
    return {
        "symbol": symbol,
        "openInterest": plain(held(data.market, symbol, at_ms)),
        "time": at_ms,
    }


def _each(data: MarketData, query: Query, now_ms: int, one: Callable[[str], Payload]) -> object:
    """Of the symbol that was asked for, or of all that are traded, in a list."""
    if "symbol" in query:
        return one(symbol_of(data, query))
    return [one(name) for name in data.market.listings if data.market.is_trading(name, now_ms)]


def _top(data: MarketData, symbol: str, now_ms: int) -> Payload:
    book, digits = data.books[symbol], data.dialect.rest.digits
    bids, asks = book.levels(book.step(now_ms), 1)
    (bid, bid_size), (ask, ask_size) = best_of(bids), best_of(asks)
    return {
        "bidPrice": digits(bid), "bidQty": digits(bid_size),
        "askPrice": digits(ask), "askQty": digits(ask_size),
    }  # fmt: skip
