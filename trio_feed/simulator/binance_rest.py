"""The REST side of Binance USD-M, pure: a request and a time in, a response out.

Endpoints, limits and weights: exchanges.md section 4 (Binance's SDK, 2026-08).  Error codes that
are not in that sheet are from Binance's published list (-1023, -1127, -1130, -5000).
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from attrs import define, field

from ..market.calendar import next_open, open_of, previous_open
from ..model import Interval, Kline, Trade, plain
from .binance_limits import WEIGHT_PER_MINUTE, Refused, Weight, owed_fault
from .binance_streams import kline_interval, taker_share
from .faults import Faults
from .listing import Listing
from .market import Market
from .wire import Request, Response

_HOUR_MS = 3_600_000
_TRADES_KEPT_MS = 48 * _HOUR_MS
_CONTRACTS = {"PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "TRADIFI_PERPETUAL"}


@define
class BinanceRest:
    """``answer(request, now)``.  The only state is the weight budget."""

    market: Market
    faults: Faults
    _weight: Weight = field(factory=Weight)

    def answer(self, request: Request, now_ms: int) -> Response:
        """One request -> one response; every one carries X-MBX-USED-WEIGHT-1M."""
        try:
            owed_fault(self.faults.next_rest(), now_ms)
            endpoint = _ENDPOINTS.get(request.path)
            if endpoint is None or request.method != "GET":
                what = f"Path {request.path}, Method {request.method} is invalid"
                raise Refused(-5000, what, 404)
            weigh, handle = endpoint
            self._weight.take(weigh(request.query), now_ms)
            response = Response(200, _encode(handle(self.market, request.query, now_ms)))
        except Refused as refused:
            response = refused.response
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._weight.used), **response.headers}
        return Response(response.status, response.body, headers)


def _klines(market: Market, query: Mapping[str, str], now_ms: int) -> list[list[Any]]:
    return _kline_rows(market, _symbol(market, query, "symbol"), query, now_ms)


def _continuous_klines(market: Market, query: Mapping[str, str], now_ms: int) -> list[list[Any]]:
    symbol = _symbol(market, query, "pair")
    contract = _text(query, "contractType")
    if contract not in _CONTRACTS:
        raise Refused(-1130, "Data sent for parameter 'contractType' is not valid.")
    rows = _kline_rows(market, symbol, query, now_ms)
    return rows if contract == "PERPETUAL" else []


def _kline_rows(
    market: Market, symbol: str, query: Mapping[str, str], now_ms: int
) -> list[list[Any]]:
    interval = kline_interval(_text(query, "interval"))
    if interval is None:
        raise Refused(-1120, "Invalid interval.")
    limit = _limit(query, 500, 1500)
    start, end = _range(query)
    if start is not None and start > now_ms:
        return []
    last = open_of(interval, now_ms if end is None else min(end, now_ms))
    if start is not None:
        first = open_of(interval, max(start, market.listed_ms))
        if first < start:
            first = next_open(interval, first)
        opens = _forward(interval, first, last, limit)
    else:
        opens = _backward(market, interval, last, limit)
    klines = [_state(market, symbol, interval, open_ms, now_ms) for open_ms in opens]
    return [_kline_row(interval, kline) for kline in klines if kline is not None]


def _forward(interval: Interval, first: int, last: int, limit: int) -> list[int]:
    opens: list[int] = []
    while first <= last and len(opens) < limit:
        opens.append(first)
        first = next_open(interval, first)
    return opens


def _backward(market: Market, interval: Interval, last: int, limit: int) -> list[int]:
    opens: list[int] = []
    while len(opens) < limit and market.exists(interval, last):
        opens.append(last)
        last = previous_open(interval, last)
    return opens[::-1]


def _state(
    market: Market, symbol: str, interval: Interval, open_ms: int, now_ms: int
) -> Kline | None:
    if next_open(interval, open_ms) <= now_ms:
        return market.candle(symbol, interval, open_ms)
    return market.partial(symbol, interval, open_ms, now_ms)


def _kline_row(interval: Interval, kline: Kline) -> list[Any]:
    return [
        kline.open_ms, plain(kline.open), plain(kline.high), plain(kline.low), plain(kline.close),
        plain(kline.volume), next_open(interval, kline.open_ms) - 1, plain(kline.quote_volume),
        kline.trades, taker_share(kline.volume), taker_share(kline.quote_volume), "0",
    ]  # fmt: skip


def _agg_trades(market: Market, query: Mapping[str, str], now_ms: int) -> list[dict[str, Any]]:
    symbol = _symbol(market, query, "symbol")
    limit = _limit(query, 500, 1000)
    start, end = _range(query)
    oldest = now_ms - _TRADES_KEPT_MS
    end_id = market.first_id(symbol, min(end if end is not None else now_ms, now_ms) + 1)
    if (from_id := _integer(query, "fromId")) is not None:
        first = max(from_id, market.first_id(symbol, market.listed_ms))
        end_id = market.first_id(symbol, now_ms + 1)
        start = None if first >= end_id else market.trade_time(symbol, first)
    elif start is not None:
        if end is not None and end - start > _HOUR_MS:
            raise Refused(-1127, "More than 1 hours between startTime and endTime.")
        first = market.first_id(symbol, min(start, now_ms + 1))
    else:
        first = max(end_id - limit, market.first_id(symbol, oldest))
    if (start is not None and start < oldest) or (end is not None and end < oldest):
        raise Refused(-4166, "Search window is restricted to recent 2 days only.")
    count = max(0, min(limit, end_id - first))
    return [_trade_row(trade) for trade in market.trades_from(symbol, first, count)]


def _trade_row(trade: Trade) -> dict[str, Any]:
    return {
        "a": trade.trade_id, "p": plain(trade.price), "q": plain(trade.quantity),
        "f": trade.first_id, "l": trade.last_id, "T": trade.time_ms, "m": trade.buyer_is_maker,
    }  # fmt: skip


def _exchange_info(market: Market, query: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1,
             "limit": WEIGHT_PER_MINUTE},
        ],
        "exchangeFilters": [],
        "assets": [],
        "symbols": [
            _symbol_info(listing, trading=symbol not in market.delisted)
            for symbol, listing in market.listings.items()
        ],
    }  # fmt: skip


def _symbol_info(listing: Listing, *, trading: bool) -> dict[str, Any]:
    tick, step = plain(listing.tick), plain(listing.step)
    return {
        "symbol": listing.symbol,
        "pair": listing.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": Market.listed_ms,
        "status": "TRADING" if trading else "SETTLING",
        "baseAsset": listing.base_asset,
        "quoteAsset": listing.quote_asset,
        "marginAsset": listing.quote_asset,
        "pricePrecision": listing.price_decimals,
        "quantityPrecision": listing.quantity_decimals,
        "underlyingType": "COIN",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "4529764",
             "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "1000000", "stepSize": step},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }  # fmt: skip


def _symbol(market: Market, query: Mapping[str, str], name: str) -> str:
    symbol = _text(query, name).upper()
    if symbol not in market.listings:
        raise Refused(-1121, "Invalid symbol.")
    return symbol


def _text(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise _missing(name)
    return query[name]


def _missing(name: str) -> Refused:
    return Refused(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _missing(name)
    return int(text)


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    limit = _integer(query, "limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def _range(query: Mapping[str, str]) -> tuple[int | None, int | None]:
    start, end = _integer(query, "startTime"), _integer(query, "endTime")
    if start is not None and end is not None and start > end:
        raise Refused(-1023, "Start time is greater than end time.")
    return start, end


def _kline_weight(query: Mapping[str, str]) -> int:
    text = query.get("limit", "500")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 500
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def _constant(weight: int) -> Callable[[Mapping[str, str]], int]:
    return lambda _query: weight


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)


_ENDPOINTS: dict[
    str,
    tuple[
        Callable[[Mapping[str, str]], int],
        Callable[[Market, Mapping[str, str], int], object],
    ],
] = {
    "/fapi/v1/ping": (_constant(1), lambda _market, _query, _now: {}),
    "/fapi/v1/time": (_constant(1), lambda _market, _query, now: {"serverTime": now}),
    "/fapi/v1/exchangeInfo": (_constant(1), _exchange_info),
    "/fapi/v1/klines": (_kline_weight, _klines),
    "/fapi/v1/continuousKlines": (_kline_weight, _continuous_klines),
    "/fapi/v1/aggTrades": (_constant(20), _agg_trades),
}
