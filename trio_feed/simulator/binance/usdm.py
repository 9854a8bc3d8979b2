"""Binance USD-M futures: the table of its dialect and the forms that only it has.

Streams, paths, payloads and limits: exchanges.md 2 (Binance's notices of 2026 and SDK tests of
2026-08); REST: section 4.  ``st`` 1 is USD-M, ``ps`` the pair; ``nq`` is the quantity without RPI
orders, of which there are none here.  ``@trade`` is undocumented and without ``st``.
"""

from itertools import product

from ...model import Interval, Kline, Trade, plain
from ..market.books import Levels
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
from .query import constant, per_limit, per_symbol
from .statistics import Day, Mark

KLINE_INTERVALS = frozenset(Interval) - {Interval.S1, Interval.S30}
"""Of ``@kline_`` and of REST; continuousKline streams have 1s as well."""
_PUBLIC, _MARKET = "public", "market"
_WEIGHT_PER_MINUTE = 2400


def _suffixes() -> dict[str, Stream]:
    table = {
        "@aggTrade": Stream("agg_trade", _MARKET, 100),
        "@ticker": Stream("ticker", _MARKET, 2000),
        "@miniTicker": Stream("mini_ticker", _MARKET, 2000),
        "@markPrice": Stream("mark_price", _MARKET, 3000),
        "@markPrice@1s": Stream("mark_price", _MARKET, 1000),
        "@forceOrder": Stream("liquidation", _MARKET, 100),
        "@trade": Stream("trade", _PUBLIC),
        "@bookTicker": Stream("top", _PUBLIC, 100),
    }
    for interval in KLINE_INTERVALS | {Interval.S1}:
        candles = Stream("continuous_kline", _MARKET, interval=interval)
        table[f"_perpetual@continuousKline_{interval}"] = candles
    for interval in KLINE_INTERVALS:
        table[f"@kline_{interval}"] = Stream("kline", _MARKET, interval=interval)
    speeds = {"": 250, "@100ms": 100, "@250ms": 250, "@500ms": 500}
    for (speed, every_ms), depth in product(speeds.items(), (0, 5, 10, 20)):
        kind: Stream = Stream("book_levels" if depth else "book", _PUBLIC, every_ms, depth=depth)
        table[f"@depth{depth or ''}{speed}"] = kind
    return table


_MARKET_WIDE = {
    "!ticker@arr": Stream("ticker", _MARKET, 2000),
    "!miniTicker@arr": Stream("mini_ticker", _MARKET, 2000),
    "!markPrice@arr": Stream("mark_price", _MARKET, 3000),
    "!markPrice@arr@1s": Stream("mark_price", _MARKET, 1000),
}


def _agg_trade(trade: Trade, now_ms: int) -> Payload:
    quantity = plain(trade.quantity)
    return {
        "e": "aggTrade", "E": now_ms, "s": trade.symbol, "a": trade.trade_id,
        "p": plain(trade.price), "q": quantity, "nq": quantity,
        "f": trade.first_id, "l": trade.last_id, "T": trade.time_ms,
        "m": trade.buyer_is_maker, "st": 1,
    }  # fmt: skip


def _trade(trade: Trade, now_ms: int) -> Payload:
    return {
        "e": "trade", "E": now_ms, "T": trade.time_ms, "s": trade.symbol, "t": trade.trade_id,
        "p": plain(trade.price), "q": plain(trade.quantity), "X": "MARKET",
        "m": trade.buyer_is_maker,
    }  # fmt: skip


def _kline(stream: Stream, kline: Kline, span: Span, now_ms: int) -> Payload:
    """continuousKline has ``ps`` and ``ct`` in place of ``s``, and its ``f`` and ``L`` are update
    ids, not trade ids."""
    k = bar(stream, kline, span, plain)
    if stream.kind == "kline":
        return {"e": "kline", "E": now_ms, "s": stream.symbol, "k": k}
    del k["s"]
    if span.first_id >= 0:
        k["f"], k["L"] = 100 * k["f"], 100 * k["L"] + 99
    return {"e": "continuous_kline", "E": now_ms, "ps": stream.symbol, "ct": "PERPETUAL", "k": k}


def _ticker(day: Day, _bids: Levels, _asks: Levels, now_ms: int) -> Payload:
    """Without best bid and ask, other than on spot."""
    return {
        "e": "24hrTicker", "E": now_ms, "s": day.symbol, **change_fields(day, plain),
        "c": plain(day.last), "Q": plain(day.last_quantity), **range_fields(day, plain),
        **span_fields(day), "ps": day.symbol, "st": 1,
    }  # fmt: skip


def _mini_ticker(day: Day, now_ms: int) -> Payload:
    return {
        "e": "24hrMiniTicker", "E": now_ms, "s": day.symbol, "c": plain(day.last),
        **range_fields(day, plain), "ps": day.symbol, "st": 1,
    }  # fmt: skip


def _top(update: Update, now_ms: int) -> Payload:
    (bid, bid_size), (ask, ask_size) = update.bids[0], update.asks[0]
    return {
        "e": "bookTicker", "u": update.last_id, "E": now_ms, "T": now_ms, "s": update.symbol,
        "ps": update.symbol, "b": plain(bid), "B": plain(bid_size), "a": plain(ask),
        "A": plain(ask_size), "st": 1,
    }  # fmt: skip


def _book(update: Update, now_ms: int) -> Payload:
    """Changes and best levels have the same form."""
    return {
        "e": "depthUpdate", "E": now_ms, "T": now_ms, "s": update.symbol,
        "U": update.first_id, "u": update.last_id, "pu": update.previous_id,
        "b": rows(update.bids, plain), "a": rows(update.asks, plain),
        "ps": update.symbol, "st": 1,
    }  # fmt: skip


def _mark_price(mark: Mark, now_ms: int) -> Payload:
    return {
        "e": "markPriceUpdate", "E": now_ms, "s": mark.symbol, "p": plain(mark.mark),
        "i": plain(mark.index), "P": plain(mark.index), "r": plain(mark.funding_rate),
        "ap": plain(mark.average), "T": mark.funding_ms, "st": 1,
    }  # fmt: skip


def _liquidation(trade: Trade, now_ms: int) -> Payload:
    quantity, price = plain(trade.quantity), plain(trade.price)
    order = {
        "s": trade.symbol, "S": "SELL" if trade.buyer_is_maker else "BUY", "o": "LIMIT",
        "f": "IOC", "q": quantity, "p": price, "ap": price, "X": "FILLED", "l": quantity,
        "z": quantity, "T": trade.time_ms,
    }  # fmt: skip
    return {"e": "forceOrder", "E": now_ms, "o": order}


def _agg_row(trade: Trade) -> Payload:
    quantity = plain(trade.quantity)
    return {
        "a": trade.trade_id, "p": plain(trade.price), "q": quantity, "nq": quantity,
        "f": trade.first_id, "l": trade.last_id, "T": trade.time_ms, "m": trade.buyer_is_maker,
    }  # fmt: skip


def _trade_row(trade: Trade) -> Payload:
    return {
        "id": trade.trade_id, "price": plain(trade.price), "qty": plain(trade.quantity),
        "quoteQty": plain(trade.price * trade.quantity), "time": trade.time_ms,
        "isBuyerMaker": trade.buyer_is_maker, "isRPITrade": False,
    }  # fmt: skip


def _exchange_info(market: Market, _query: Query, now_ms: int) -> Payload:
    """Always all symbols: this endpoint has no parameters."""
    assets = sorted({listing.quote_asset for listing in market.listings.values()})
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1,
             "limit": _WEIGHT_PER_MINUTE},
        ],
        "exchangeFilters": [],
        "assets": [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-10000"}
            for asset in assets
        ],
        "symbols": [
            _symbol_info(
                listing,
                market.listed_of(symbol),
                trading=market.is_trading(symbol, now_ms),
            )
            for symbol, listing in market.listings.items()
        ],
    }  # fmt: skip


def _symbol_info(listing: Listing, listed_ms: int, *, trading: bool) -> Payload:
    tick, step = plain(listing.tick), plain(listing.step)
    return {
        "symbol": listing.symbol,
        "pair": listing.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": listed_ms,
        "status": "TRADING" if trading else "SETTLING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": listing.base_asset,
        "quoteAsset": listing.quote_asset,
        "marginAsset": listing.quote_asset,
        "pricePrecision": listing.price_decimals,
        "quantityPrecision": listing.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "4529764",
             "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "1000000", "stepSize": step},
            {"filterType": "MARKET_LOT_SIZE", "minQty": step, "maxQty": "1000", "stepSize": step},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }  # fmt: skip


_KLINE_WEIGHT = per_limit(500, {99: 1, 499: 2, 1000: 5}, 10)
_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
_ENDPOINTS: dict[str, Endpoint] = {
    "/fapi/v1/ping": (constant(1), snapshots.ping),
    "/fapi/v1/time": (constant(1), snapshots.server_time),
    "/fapi/v1/exchangeInfo": (constant(1), snapshots.exchange_info),
    "/fapi/v1/klines": (_KLINE_WEIGHT, history.klines),
    "/fapi/v1/continuousKlines": (_KLINE_WEIGHT, history.continuous_klines),
    "/fapi/v1/markPriceKlines": (_KLINE_WEIGHT, history.mark_price_klines),
    "/fapi/v1/fundingRate": (constant(0), history.fundings),
    "/fapi/v1/aggTrades": (constant(20), history.agg_trades),
    "/fapi/v1/trades": (constant(5), history.trades),
    "/fapi/v1/depth": (per_limit(500, {50: 2, 100: 5, 500: 10}, 20), snapshots.depth),
    "/fapi/v1/ticker/24hr": (per_symbol(1, 40), snapshots.day),
    "/fapi/v1/ticker/price": (per_symbol(1, 2), snapshots.price),
    "/fapi/v1/ticker/bookTicker": (per_symbol(2, 5), snapshots.top),
    "/fapi/v1/openInterest": (constant(1), snapshots.open_interest),
    "/fapi/v1/premiumIndex": (per_symbol(1, 10), snapshots.premium_index),
}

USDM = Dialect(
    name="binance_usdm",
    paths=frozenset({"public", "market", "private"}),
    unrouted=_PUBLIC,
    suffixes=_suffixes(),
    market_wide=_MARKET_WIDE,
    payloads=Payloads(
        _agg_trade, _trade, _kline, _ticker, _mini_ticker, _top, _book, _book,
        _mark_price, _liquidation,
    ),
    weights=WeightRule(
        _WEIGHT_PER_MINUTE,
        f"Too many requests; current limit of IP(127.0.0.1) is {_WEIGHT_PER_MINUTE} requests per "
        "minute. Please use the websocket for live updates to avoid polling the API.",
        "Way too many requests; IP(127.0.0.1) banned until {}. "
        "Please use the websocket for live updates to avoid bans.",
        retry_after=False,
    ),
    rest=RestForms(
        kline_intervals=KLINE_INTERVALS,
        most_klines=1500,
        strict_limit=True,
        trades_kept_ms=48 * 3_600_000,
        agg_row=_agg_row,
        trade_row=_trade_row,
        depths=_DEPTHS,
        depth_times=True,
        day_tops=False,
        exchange_info=_exchange_info,
        digits=plain,
    ),
    endpoints=_ENDPOINTS,
    ping_every_s=180.0,
    pong_within_s=600.0,
    messages_per_s=10,
    first_id_gap=3,
)  # fmt: skip
