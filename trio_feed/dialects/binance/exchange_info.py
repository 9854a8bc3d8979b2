"""``exchangeInfo`` of what is fed.  Pure.

PRICE_FILTER comes first (cryptofeed takes ``filters[0]``); no filter, order type or limit type is
named that strict clients do not know.  Bounds that our table does not have are 0, the exchange's
own way to say that a bound is not checked.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from ...model import Instrument, plain
from .profile import Profile

_ORDERS = ["LIMIT", "LIMIT_MAKER", "MARKET"]
_FUTURES_ORDERS = ["LIMIT", "MARKET"]
_CONTRACTS = {"perpetual": "PERPETUAL", "tradifi_perpetual": "TRADIFI_PERPETUAL"}
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
        "filters": _filters(instrument),
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
        "deliveryDate": _NEVER_MS,
        "onboardDate": 0,
        "status": "TRADING" if instrument.trading else "BREAK",
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
        "filters": _filters(instrument),
        "orderTypes": _FUTURES_ORDERS,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
        "permissionSets": [],
    }


def _filters(instrument: Instrument) -> list[dict[str, str]]:
    tick, step = plain(instrument.tick_size), plain(instrument.step_size)
    return [
        {"filterType": "PRICE_FILTER", "minPrice": "0", "maxPrice": "0", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "0", "stepSize": step},
    ]


def _decimals(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
