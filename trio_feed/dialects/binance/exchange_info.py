"""``exchangeInfo`` of what is fed.  Pure.

PRICE_FILTER comes first (cryptofeed takes ``filters[0]``); no filter, order type, status or limit
type is named that strict clients do not know.  Bounds are those of the exchange's list; 0, its own
way to say that one is not checked, where the list has none.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from ...model import Instrument, plain
from .profile import Profile

_ORDERS = ["LIMIT", "LIMIT_MAKER", "MARKET"]
_FUTURES_ORDERS = ["LIMIT", "MARKET"]
_CONTRACTS = {"perpetual": "PERPETUAL", "tradifi_perpetual": "TRADIFI_PERPETUAL"}
_DELIVERY_HOUR_MS = 8 * 3_600_000
_NO_MOST = "9000000"
"""What the exchange gives nearly all of its pairs."""
_NEVER_MS = 4_133_404_800_000
"""The delivery date that the exchange gives perpetual contracts (2100-12-25)."""


def exchange_info(profile: Profile, listed: Iterable[Instrument], now_ms: int) -> str:
    """The whole answer."""
    limit = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": profile.weight,
    }
    rows = [_spot(each) if profile.spot else _future(each) for each in listed]
    answer: dict[str, Any] = {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [limit],
        "exchangeFilters": [],
    }
    if not profile.spot:
        answer["assets"] = []
    return msgspec.json.encode({**answer, "symbols": rows}).decode()


def _spot(instrument: Instrument) -> dict[str, Any]:
    return {
        "symbol": instrument.native,
        "status": "TRADING" if instrument.trading else "BREAK",
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _ORDERS,
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(instrument, spot=True),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def _future(instrument: Instrument) -> dict[str, Any]:
    return {
        "symbol": instrument.native,
        "pair": instrument.native.partition("_")[0],
        "contractType": _CONTRACTS.get(instrument.kind, "CURRENT_QUARTER"),
        "deliveryDate": _delivery_ms(instrument.native),
        "onboardDate": 0,
        "status": "TRADING" if instrument.trading else "SETTLING",
        "maintMarginPercent": "0",
        "requiredMarginPercent": "0",
        "baseAsset": instrument.base,
        "quoteAsset": instrument.quote,
        "marginAsset": instrument.quote,
        "pricePrecision": _decimals(instrument.tick_size),
        "quantityPrecision": _decimals(instrument.step_size),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0",
        "liquidationFee": "0",
        "marketTakeBound": "0",
        "filters": _filters(instrument, spot=False),
        "orderTypes": _FUTURES_ORDERS,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
        "permissionSets": [],
    }


def _filters(instrument: Instrument, *, spot: bool) -> list[dict[str, Any]]:
    """Those that the venue's list has bounds for; price and lot in any case."""
    tick, step, own = plain(instrument.tick_size), plain(instrument.step_size), instrument.bounds
    least = own.min_size or instrument.step_size
    found: list[dict[str, Any]] = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": plain(own.min_price),
            "maxPrice": plain(own.max_price),
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": plain(least),
            "maxQty": plain(own.max_size),
            "stepSize": step,
        },
    ]
    if own.market_max:
        found.append(
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": plain(own.market_min),
                "maxQty": plain(own.market_max),
                "stepSize": step,
            }
        )
    if own.min_worth and spot:
        found.append(
            {
                "filterType": "NOTIONAL",
                "minNotional": plain(own.min_worth),
                "applyMinToMarket": True,
                "maxNotional": _NO_MOST,
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            }
        )
    elif own.min_worth:
        found.append({"filterType": "MIN_NOTIONAL", "notional": plain(own.min_worth)})
    return found


def _delivery_ms(native: str) -> int:
    """Of a dated contract, ``BTCUSDT_261225``: 08:00 UTC of that day; else that of perpetuals."""
    try:
        day = datetime.strptime(native.rpartition("_")[2], "%y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return _NEVER_MS
    return int(day.timestamp() * 1000) + _DELIVERY_HOUR_MS


def _decimals(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
