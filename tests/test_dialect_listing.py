"""``exchangeInfo`` of the Binance dialects: the exchange's own bounds, and nothing that strict
clients do not know (one unknown name makes nautilus lose the whole answer)."""

import json
from decimal import Decimal
from typing import Any

import pytest
from support.stack import open_stack, settings_for_tests
from test_dialect_binance import ask
from trio.testing import MockClock

from trio_feed.dialects.binance.exchange_info import exchange_info
from trio_feed.dialects.binance.profile import SPOT, USDM, Profile
from trio_feed.model import Bounds, Instrument
from trio_feed.venues.binance import spot, usdm

D = Decimal
KNOWN = {
    "filterType": {
        "PRICE_FILTER", "LOT_SIZE", "MARKET_LOT_SIZE", "NOTIONAL", "MIN_NOTIONAL",
    },
    "rateLimitType": {"REQUEST_WEIGHT"},
    "contractType": {"PERPETUAL", "TRADIFI_PERPETUAL", "CURRENT_QUARTER"},
    "underlyingType": {"COIN"},
}  # fmt: skip
STATUSES = {
    SPOT: {"TRADING", "END_OF_DAY", "HALT", "BREAK"},
    USDM: {
        "PENDING_TRADING", "TRADING", "PRE_DELIVERING", "DELIVERING", "DELIVERED", "PRE_SETTLE",
        "SETTLING", "CLOSE",
    },
}  # fmt: skip
"""The enumerations of both general pages (2026)."""
ORDERS = {"LIMIT", "LIMIT_MAKER", "MARKET"}


def listed(profile: Profile, *instruments: Instrument) -> list[dict[str, Any]]:
    answer = json.loads(exchange_info(profile, instruments, 5))
    assert {row["rateLimitType"] for row in answer["rateLimits"]} <= KNOWN["rateLimitType"]
    rows: list[dict[str, Any]] = answer["symbols"]
    return rows


@pytest.mark.parametrize("profile", [SPOT, USDM])
@pytest.mark.parametrize("trading", [True, False])
@pytest.mark.parametrize("kind", ["spot", "perpetual", "tradifi_perpetual", "future", "option"])
def test_no_name_is_unknown(profile: Profile, trading: bool, kind: str) -> None:
    bounds = Bounds(*(D(n) for n in range(1, 8)))
    own = Instrument("v", "S", "S", kind, trading=trading, bounds=bounds)
    (row,) = listed(profile, own)
    assert row["status"] in STATUSES[profile]
    assert (row["status"] == "TRADING") is trading
    assert {*row["orderTypes"]} <= ORDERS
    for name in ("contractType", "underlyingType"):
        assert row.get(name, "PERPETUAL" if name == "contractType" else "COIN") in KNOWN[name]
    assert {each["filterType"] for each in row["filters"]} <= KNOWN["filterType"]
    assert row["filters"][0]["filterType"] == "PRICE_FILTER"
    assert all(isinstance(v, str) for each in row["filters"][:3] for v in each.values())


def test_what_the_list_does_not_say() -> None:
    (row,) = listed(SPOT, Instrument("v", "S", "S", "spot", step_size=D("0.010")))
    price, lot = row["filters"]
    assert (price["minPrice"], price["maxPrice"], price["tickSize"]) == ("0", "0", "0")
    assert (lot["minQty"], lot["maxQty"], lot["stepSize"]) == ("0.010", "0", "0.010")


def test_dated_contracts() -> None:
    dated = Instrument("v", "BTCUSDT_261225", "BTCUSDT_261225", "future")
    odd = Instrument("v", "BTCUSDT_26XX25", "BTCUSDT_26XX25", "future")
    rows = listed(USDM, dated, odd)
    assert rows[0]["deliveryDate"] == 1_798_185_600_000  # 2026-12-25T08:00Z
    assert rows[0]["pair"] == "BTCUSDT"
    assert rows[1]["deliveryDate"] == 4_133_404_800_000


@pytest.mark.parametrize("venue", [spot, usdm])
def test_an_odd_bound_does_not_spoil_an_instrument(venue: Any) -> None:
    for odd in ("x", 5, None, "NaN", [], "1e999999"):
        filters = [
            {"filterType": "PRICE_FILTER", "minPrice": odd, "maxPrice": "9", "tickSize": "0.1"},
            {"filterType": "LOT_SIZE", "minQty": "0.5", "maxQty": odd, "stepSize": "0.1"},
            {"filterType": "NEW", "x": odd},
        ]
        names = {"symbol": "A", "status": "TRADING", "baseAsset": "A", "quoteAsset": "B"}
        body = json.dumps({"symbols": [{**names, "filters": filters}]}).encode()
        (found,) = venue.parse_instruments(body).good
        expected = Bounds(max_price=D(9), min_size=D("0.5"))
        assert found.bounds == expected


@pytest.mark.parametrize("venue", ["binance", "binance_usdm"])
async def test_the_exchanges_own_filters_come_through(
    venue: str, autojump_clock: MockClock
) -> None:
    path = "/api/v3/exchangeInfo" if venue == "binance" else "/fapi/v1/exchangeInfo"
    async with open_stack(settings_for_tests(venue=venue)) as stack:
        while not (own := (await ask(stack, f"/{venue}{path}"))[1]["symbols"]):
            pass
        from trio_feed.simulator.machinery.wire import Request

        answer = stack.exchange.rest.answer(Request("GET", path, {}), 0)
        theirs = json.loads(answer.body)["symbols"][0]["filters"]
        given = {each["filterType"]: each for each in own[0]["filters"]}
        for entry in theirs:
            if entry["filterType"] not in ("MAX_NUM_ORDERS",):
                same = given[entry["filterType"]]
                assert {k: _number(v) for k, v in same.items()} == {
                    k: _number(v) for k, v in entry.items()
                }


def _number(value: object) -> object:
    try:
        return D(str(value))
    except ArithmeticError:
        return value
