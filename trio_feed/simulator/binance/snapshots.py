"""REST answers about the present of the Binance box: books, tickers, listings.  Pure.

Every function takes the box, the request's parameters and the time in unix ms, and raises Refused.
"""

from collections.abc import Callable

from ...model import plain
from .dialect import Box, Payload, Query, book_id
from .payloads import day_row, rows
from .query import Refused, integer, symbol_of

_MOST_DEPTH = 5000


def ping(_box: Box, _query: Query, _now_ms: int) -> Payload:
    return {}


def server_time(_box: Box, _query: Query, now_ms: int) -> Payload:
    return {"serverTime": now_ms}


def exchange_info(box: Box, query: Query, now_ms: int) -> Payload:
    return box.dialect.rest.exchange_info(box.market, query, now_ms)


def depth(box: Box, query: Query, now_ms: int) -> Payload:
    """A book; ``E`` and ``T`` on USD-M only, and there only some limits exist.

    It is the one of the last push: between two of them a level may go away and come back, which
    the next push does not tell.
    """
    symbol, rest = symbol_of(box, query), box.dialect.rest
    limit = integer(query, "limit")
    if rest.depths is None:
        limit = min(100 if limit is None else limit, _MOST_DEPTH)
    elif limit is None:
        limit = 500
    elif limit not in rest.depths:
        raise Refused(-4021, f"Depth limit {limit} not valid.")
    book = box.books[symbol]
    step = book.step(now_ms - now_ms % box.book_push_ms)
    bids, asks = book.levels(step, limit or _MOST_DEPTH)
    times = {"E": now_ms, "T": now_ms} if rest.depth_times else {}
    return {
        "lastUpdateId": book_id(step), **times,
        "bids": rows(bids, rest.digits), "asks": rows(asks, rest.digits),
    }  # fmt: skip


def day(box: Box, query: Query, now_ms: int) -> object:
    """24 h statistics; with best bid and ask on spot only."""

    def one(symbol: str) -> Payload:
        stats = box.statistics.day(symbol, now_ms)
        row = day_row(stats, box.dialect.rest.digits)
        if box.dialect.rest.day_tops:
            row |= {"prevClosePrice": row["openPrice"], **_top(box, symbol, now_ms)}
        return row

    return _each(box, query, now_ms, one)


def price(box: Box, query: Query, now_ms: int) -> object:
    """The last price."""

    def one(symbol: str) -> Payload:
        last = box.statistics.last_trade(symbol, now_ms)
        time = {"time": last.time_ms} if box.dialect.rest.depth_times else {}
        return {"symbol": symbol, "price": box.dialect.rest.digits(last.price), **time}

    return _each(box, query, now_ms, one)


def top(box: Box, query: Query, now_ms: int) -> object:
    """Best bid and ask."""

    def one(symbol: str) -> Payload:
        time = {"time": now_ms} if box.dialect.rest.depth_times else {}
        return {"symbol": symbol, **_top(box, symbol, now_ms), **time}

    return _each(box, query, now_ms, one)


def premium_index(box: Box, query: Query, now_ms: int) -> object:
    """Mark price and funding."""

    def one(symbol: str) -> Payload:
        mark = box.statistics.mark(symbol, now_ms)
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

    return _each(box, query, now_ms, one)


def _each(box: Box, query: Query, now_ms: int, one: Callable[[str], Payload]) -> object:
    """Of the symbol that was asked for, or of all that are traded, in a list."""
    if "symbol" in query:
        return one(symbol_of(box, query))
    return [one(name) for name in box.market.listings if box.market.is_trading(name, now_ms)]


def _top(box: Box, symbol: str, now_ms: int) -> Payload:
    book, digits = box.books[symbol], box.dialect.rest.digits
    ((bid, bid_size),), ((ask, ask_size),) = book.levels(book.step(now_ms), 1)
    return {
        "bidPrice": digits(bid), "bidQty": digits(bid_size),
        "askPrice": digits(ask), "askQty": digits(ask_size),
    }  # fmt: skip
