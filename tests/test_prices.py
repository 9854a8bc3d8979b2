"""Prices of one symbol: when time alone closes a candle, and when it must not."""

from decimal import Decimal

import pytest
from support.engine import at
from support.make import T0

from trio_feed.core.prices import SymbolPrices
from trio_feed.instants import NEVER
from trio_feed.model import Interval, Price

S1 = Interval.S1


@pytest.mark.parametrize(
    ("chain", "up", "closes"), [(False, True, 1), (False, False, 0), (True, True, 0)]
)
def test_time_closes_candles_only_while_nothing_better_is_known(
    chain: bool, up: bool, closes: int
) -> None:
    prices = SymbolPrices((S1,), {}, chain)
    assert prices.due(at(0)) == NEVER
    prices.resumed(at(0))
    prices.take(Price("MINT", Decimal("1.0"), "a:0", T0 + 100), at(0.1))
    if not up:
        prices.lost(at(0.5))
    assert (prices.due(at(0.5)) < NEVER) is bool(closes)
    built = prices.advance(at(60))
    assert [kline.closed for _, kline in built] == [True] * closes
