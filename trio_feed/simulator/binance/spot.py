"""Binance spot: the table of its dialect and the forms that only it has.

Streams, payloads, limits: exchanges.md 1 (binance-spot-api-docs, 2026-07-21); REST: section 4.
Numbers are written with eight decimals, as the exchange does whatever a symbol's precision.
"""

from decimal import Decimal
from itertools import product

import msgspec

from ...model import Interval, Kline, Trade
from ..market.books import Levels, best_of
from ..market.listing import Listing
from ..market.market import Market
from . import history, snapshots
from .dialect import (
    Dialect,
    Endpoint,
    Payload,
    Payloads,
    Query,
    RestForms,
    Span,
    Stream,
    Update,
    WeightRule,
)
from .payloads import bar, change_fields, range_fields, rows, span_fields
from .query import BinanceError, constant, per_limit, per_symbol
from .statistics import Day

KLINE_INTERVALS = frozenset(Interval) - {Interval.S30}
_WEIGHT_PER_MINUTE = 6000


def eight(value: Decimal) -> str:
    """A number with eight decimals."""
    return format(value, ".8f")


def _suffixes() -> dict[str, Stream]:
    table = {
        "@aggTrade": Stream("agg_trade"),
        "@trade": Stream("trade"),
        "@ticker": Stream("ticker", every_ms=1000),
        "@miniTicker": Stream("mini_ticker", every_ms=1000),
        "@bookTicker": Stream("top", every_ms=100),
    }
    for interval in KLINE_INTERVALS:
        every_ms = 1000 if interval is Interval.S1 else 2000
        table[f"@kline_{interval}"] = Stream("kline", every_ms=every_ms, interval=interval)
    speeds = {"": 1000, "@1000ms": 1000, "@100ms": 100}
    for (speed, every_ms), depth in product(speeds.items(), (0, 5, 10, 20)):
        kind = Stream("book_levels" if depth else "book", every_ms=every_ms, depth=depth)
        table[f"@depth{depth or ''}{speed}"] = kind
    return table


_MARKET_WIDE = {"!miniTicker@arr": Stream("mini_ticker", every_ms=1000)}
"""``!ticker@arr`` was retired on 2026-03-26."""


def _agg_trade(trade: Trade, now_ms: int) -> Payload:
    return {
        "e": "aggTrade", "E": now_ms, "s": trade.symbol, "a": trade.trade_id,
        "p": eight(trade.price), "q": eight(trade.quantity),
        "f": trade.first_id, "l": trade.last_id, "T": trade.time_ms,
        "m": trade.buyer_is_maker, "M": True,
    }  # fmt: skip


def _trade(trade: Trade, now_ms: int) -> Payload:
    return {
        "e": "trade", "E": now_ms, "s": trade.symbol, "t": trade.trade_id,
        "p": eight(trade.price), "q": eight(trade.quantity), "T": trade.time_ms,
        "m": trade.buyer_is_maker, "M": True,
    }  # fmt: skip


def _kline(stream: Stream, kline: Kline, span: Span, now_ms: int) -> Payload:
    k = bar(stream, kline, span, eight)
    return {"e": "kline", "E": now_ms, "s": stream.symbol, "k": k}


def _ticker(day: Day, bids: Levels, asks: Levels, now_ms: int) -> Payload:
    (bid, bid_size), (ask, ask_size) = best_of(bids), best_of(asks)
    return {
        "e": "24hrTicker", "E": now_ms, "s": day.symbol, **change_fields(day, eight),
        "x": eight(day.open), "c": eight(day.last), "Q": eight(day.last_quantity),
        "b": eight(bid), "B": eight(bid_size), "a": eight(ask), "A": eight(ask_size),
        **range_fields(day, eight), **span_fields(day),
    }  # fmt: skip


def _mini_ticker(day: Day, now_ms: int) -> Payload:
    return {
        "e": "24hrMiniTicker", "E": now_ms, "s": day.symbol, "c": eight(day.last),
        **range_fields(day, eight),
    }  # fmt: skip


def _top(update: Update, _now_ms: int) -> Payload:
    (bid, bid_size), (ask, ask_size) = update.bids[0], update.asks[0]
    return {
        "u": update.last_id, "s": update.symbol, "b": eight(bid), "B": eight(bid_size),
        "a": eight(ask), "A": eight(ask_size),
    }  # fmt: skip


def _book(update: Update, now_ms: int) -> Payload:
    return {
        "e": "depthUpdate", "E": now_ms, "s": update.symbol,
        "U": update.first_id, "u": update.last_id,
        "b": rows(update.bids, eight), "a": rows(update.asks, eight),
    }  # fmt: skip


def _book_levels(update: Update, _now_ms: int) -> Payload:
    """Best levels say neither what they are nor whose."""
    return {
        "lastUpdateId": update.last_id,
        "bids": rows(update.bids, eight), "asks": rows(update.asks, eight),
    }  # fmt: skip


def _agg_row(trade: Trade) -> Payload:
    return {
        "a": trade.trade_id, "p": eight(trade.price), "q": eight(trade.quantity),
        "f": trade.first_id, "l": trade.last_id, "T": trade.time_ms,
        "m": trade.buyer_is_maker, "M": True,
    }  # fmt: skip


def _trade_row(trade: Trade) -> Payload:
    return {
        "id": trade.trade_id, "price": eight(trade.price), "qty": eight(trade.quantity),
        "quoteQty": eight(trade.price * trade.quantity), "time": trade.time_ms,
        "isBuyerMaker": trade.buyer_is_maker, "isBestMatch": True,
    }  # fmt: skip


def _exchange_info(market: Market, query: Query, now_ms: int) -> Payload:
    """``symbol`` or ``symbols`` (a JSON list) choose; other filters let everything through."""
    chosen = _chosen(market, query)
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1,
             "limit": _WEIGHT_PER_MINUTE},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5,
             "limit": 300_000},
        ],
        "exchangeFilters": [],
        "symbols": [
            _symbol_info(listing, trading=market.is_trading(symbol, now_ms))
            for symbol, listing in market.listings.items()
            if symbol in chosen
        ],
    }  # fmt: skip


def _chosen(market: Market, query: Query) -> set[str]:
    if "symbol" in query:
        names = [query["symbol"]]
    elif "symbols" in query:
        try:
            names = msgspec.json.decode(query["symbols"], type=list[str])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise BinanceError(-1100, "Illegal characters found in parameter 'symbols'.") from error
    else:
        return set(market.listings)
    if not set(names) <= market.listings.keys():
        raise BinanceError(-1121, "Invalid symbol.")
    return set(names)


_ALLOWED = (
    "icebergAllowed", "ocoAllowed", "otoAllowed", "opoAllowed", "quoteOrderQtyMarketAllowed",
    "allowTrailingStop", "cancelReplaceAllowed", "amendAllowed", "pegInstructionsAllowed",
    "isSpotTradingAllowed",
)  # fmt: skip


def _symbol_info(listing: Listing, *, trading: bool) -> Payload:
    tick, step = eight(listing.tick), eight(listing.step)
    return {
        "symbol": listing.symbol,
        "status": "TRADING" if trading else "BREAK",
        "baseAsset": listing.base_asset,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote_asset,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        **dict.fromkeys(_ALLOWED, True),
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000",
             "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000",
             "stepSize": step},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }  # fmt: skip


_ENDPOINTS: dict[str, Endpoint] = {
    "/api/v3/ping": (constant(1), snapshots.ping),
    "/api/v3/time": (constant(1), snapshots.server_time),
    "/api/v3/exchangeInfo": (constant(20), snapshots.exchange_info),
    "/api/v3/klines": (constant(2), history.klines),
    "/api/v3/aggTrades": (constant(4), history.agg_trades),
    "/api/v3/trades": (constant(25), history.trades),
    "/api/v3/depth": (per_limit(100, {100: 5, 500: 25, 1000: 50}, 250), snapshots.depth),
    "/api/v3/ticker/24hr": (per_symbol(2, 80), snapshots.day),
    "/api/v3/ticker/price": (per_symbol(2, 4), snapshots.price),
    "/api/v3/ticker/bookTicker": (per_symbol(2, 4), snapshots.top),
}

SPOT = Dialect(
    name="binance",
    paths=frozenset(),
    unrouted="",
    suffixes=_suffixes(),
    market_wide=_MARKET_WIDE,
    payloads=Payloads(_agg_trade, _trade, _kline, _ticker, _mini_ticker, _top, _book, _book_levels),
    weights=WeightRule(
        _WEIGHT_PER_MINUTE,
        f"Too much request weight used; current limit is {_WEIGHT_PER_MINUTE} request weight per "
        "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.",
        "Way too much request weight used; IP banned until {}. Please use WebSocket Streams for "
        "live updates to avoid bans.",
        retry_after=True,
    ),
    rest=RestForms(
        kline_intervals=KLINE_INTERVALS,
        most_klines=1000,
        strict_limit=False,
        trades_kept_ms=None,
        agg_row=_agg_row,
        trade_row=_trade_row,
        depths=None,
        depth_times=False,
        day_tops=True,
        exchange_info=_exchange_info,
        digits=eight,
    ),
    endpoints=_ENDPOINTS,
    ping_every_s=20.0,
    pong_within_s=60.0,
    messages_per_s=5,
    first_id_gap=1,
)
