"""Prices of one symbol: when time alone closes a candle, and when it must not."""

from decimal import Decimal

import pytest
from attrs import evolve
from support.engine import at
from support.make import T0

from trio_feed.core.bars import Built
from trio_feed.core.prices import _REMEMBERED, SymbolPrices
from trio_feed.instants import NEVER
from trio_feed.model import Interval, Price

S1 = Interval.S1


@pytest.mark.parametrize(
    ("chain", "up", "closes"), [(False, True, 1), (False, False, 0), (True, True, 0)]
)
def test_time_closes_candles_only_while_nothing_better_is_known(
    chain: bool, up: bool, closes: int
) -> None:
    prices = SymbolPrices((S1,), {}, chain, at(0).mono)
    assert prices.due(at(0)) == NEVER
    prices.resumed(at(0))
    prices.take(Price("MINT", Decimal("1.0"), "a:0", T0 + 100), at(0.1))
    if not up:
        prices.lost(at(0.5))
    assert (prices.due(at(0.5)) < NEVER) is bool(closes)
    built = prices.advance(at(60))
    assert [kline.closed for _, kline in built] == [True] * closes


def chained(*, known: bool = True) -> SymbolPrices:
    prices = SymbolPrices((S1,), {}, True, at(0).mono)
    prices.resumed(at(0))
    if known:
        prices.known_since(T0)
    return prices


def price(value: str, key: str, after_ms: int, position: int = 0) -> Price:
    return Price("MINT", Decimal(value), key, T0 + after_ms, position)


def shown(built: list[Built] | None) -> list[tuple[str, int, bool]]:
    """High, prices and whether it is complete, of each candle."""
    return [(str(kline.high), kline.trades, kline.complete) for _, kline in built or ()]


def test_what_was_heard_is_shown_in_what_runs_until_it_is_taken() -> None:
    prices = chained()
    prices.take(price("1.0", "a", 100, 1), at(0.1))
    assert shown(prices.hear(price("5.0", "b", 200))) == [("5.0", 2, True)]
    assert shown(prices.take(price("2.0", "c", 300, 3), at(0.3))) == [("5.0", 3, True)]
    assert shown(prices.take(price("5.0", "b", 250, 2), at(0.4))) == [("5.0", 3, True)]
    assert shown(prices.take(price("6.0", "d", 400, 4), at(0.4))) == [("6.0", 4, True)]


def test_what_was_heard_and_is_not_in_the_chain_is_shown_no_more() -> None:
    prices = chained()
    prices.take(price("1.0", "a", 100, 1), at(0.1))
    prices.hear(price("5.0", "b", 200))
    prices.retract(["b"])
    assert shown(prices.take(price("2.0", "c", 300, 3), at(0.3))) == [("2.0", 2, True)]


def test_without_candles_a_price_makes_none() -> None:
    prices = SymbolPrices((), {}, True, at(0).mono)
    assert prices.hear(price("5.0", "b", 200)) == []
    assert prices.take(price("5.0", "b", 200), at(7)) == []
    assert prices.retract(["b"]) == []
    assert prices.heard_at == at(7).mono


@pytest.mark.parametrize(("found", "complete"), [(3_000, True), (2_999, False), (None, False)])
def test_a_gap_without_a_price_behind_it_reaches_to_the_next_one(
    found: int | None, complete: bool
) -> None:
    prices = chained()
    prices.take(price("1.0", "a", 100, 1), at(0.1))
    assert prices.missed(T0 + 1_000, T0 + 3_000, final=False) == []
    if found is not None:
        prices.whole(T0 + found)
    built = prices.take(price("2.0", "b", 5_000, 2), at(5))
    assert shown(built) == [("1.0", 1, True), ("2.0", 1, complete)]
    assert shown(prices.whole(T0 + 5_001)) == [("2.0", 1, True)] * (not complete)


def test_what_is_lost_for_good_inside_of_a_gap_stays_marked() -> None:
    prices = chained()
    for number in range(4):
        prices.take(price("1.0", f"{number}", number * 1_000, number + 1), at(number))
    assert len(prices.missed(T0 + 500, T0 + 2_500, final=False)) == 4
    assert prices.missed(T0 + 1_200, T0 + 1_300, final=True) == []
    found = prices.whole(T0 + 3_001)
    assert sorted((k.open_ms - T0, k.complete) for _, k in found) == [
        (0, True), (1_000, False), (2_000, False), (3_000, True),
    ]  # fmt: skip


@pytest.mark.parametrize("found", [True, False])
def test_only_while_a_gap_is_open_a_price_of_long_ago_counts(found: bool) -> None:
    prices = chained()
    prices.take(price("1.0", "a", 100, 1), at(0.1))
    prices.take(price("1.0", "b", 4_000, 3), at(4))
    prices.missed(T0 + 1_000, T0 + 3_000, final=False)
    if found:
        prices.whole(T0 + 4_001)
    prices.take(price("1.0", "c", 2_000_000, 4), at(2_000))
    prices.take(price("1.0", "d", 2_500_000, 5), at(2_500))
    built = prices.take(price("9.0", "e", 2_000, 2), at(2_500))
    assert prices.late == found
    assert (("9.0", 1, False) in shown(built)) is not found


def test_the_same_event_twice_is_one_price_unless_a_chain_says_when() -> None:
    prices = SymbolPrices((S1,), {}, False, at(0).mono)
    assert prices.take(price("1.0", "a", 100), at(0.1)) is not None
    assert prices.take(price("1.0", "a", 100), at(0.2)) is None
    for number in range(20_000):
        prices.take(price("1.0", f"{number}", 100), at(0.2))
    assert len(prices._seen) == len(prices._order) == _REMEMBERED
    assert prices.take(price("1.0", "a", 100), at(0.2)) is not None  # forgotten


def test_what_comes_after_a_loss_for_good_is_marked_whatever_else_was_found() -> None:
    prices = chained()
    prices.take(price("1.0", "a", 100, 1), at(0.1))
    prices.missed(T0 + 1_000, T0 + 2_000, final=True)
    prices.missed(T0 + 1_000, T0 + 3_000, final=False)
    assert prices.whole(T0 + 3_000) == []
    assert shown(prices.take(price("2.0", "b", 5_000, 2), at(5)))[-1] == ("2.0", 1, False)


@pytest.mark.parametrize("value", ["2.0", "7.0"])
def test_a_stored_candle_that_is_made_anew_as_it_was_is_no_news(value: str) -> None:
    earlier = chained()
    earlier.take(price("1.0", "a", 100, 1), at(0.1))
    earlier.take(price("2.0", "b", 1_100, 2), at(1.1))
    (_, before), *_ = earlier.take(price("2.0", "c", 2_100, 3), at(2.1)) or ()
    assert before.open_ms == T0 + 1_000
    prices = chained(known=False)
    stored = evolve(before, open_ms=T0 + 2_000, open=before.close, low=before.close)
    prices.resume({S1: before}, {S1: T0 + 2_000}, [(S1, stored)], T0 + 2_000)
    assert len(prices.take(price(value, "c", 2_100, 3), at(2.1)) or ()) == 1
    built = prices.take(price("3.0", "d", 3_100, 4), at(3.1)) or ()
    changed = [] if value == "2.0" else [(T0 + 2_000, True)]
    assert [(k.open_ms, k.closed) for _, k in built] == [*changed, (T0 + 3_000, False)]
