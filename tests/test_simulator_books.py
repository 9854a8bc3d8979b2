"""Books as a function of (market, step): every way from one step to another leads to the same."""

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_feed.simulator import BookPath, Market
from trio_feed.simulator.market.books import Levels

STEP = 17_600_000_123
"""October 2025."""
ALL = 5_000
SYMBOLS = ("BTCUSDT", "SOLUSDT", "XRPUSDT", "FOOUSDT")
MARKET = Market(3, SYMBOLS, 240)
PATHS = {symbol: BookPath(MARKET, symbol) for symbol in SYMBOLS}

Sides = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]


def whole(path: BookPath, step: int) -> Sides:
    bids, asks = path.levels(step, ALL)
    return dict(bids), dict(asks)


def applied(sides: Sides, changes: tuple[Levels, Levels]) -> Sides:
    """The book after the changes; a change has to change something."""
    new = (dict(sides[0]), dict(sides[1]))
    for side, levels in zip(new, changes, strict=True):
        for price, quantity in levels:
            assert side.get(price, 0) != quantity
            if quantity:
                side[price] = quantity
            else:
                del side[price]
    return new


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_changes_lead_from_each_step_to_the_next(symbol: str) -> None:
    path = PATHS[symbol]
    book = whole(path, STEP)
    empty = 0
    for step in range(STEP + 1, STEP + 601):
        changes = path.changes(step)
        book = applied(book, changes)
        empty += changes == ((), ())
        assert min(book[1]) - max(book[0]) <= 3 * MARKET.listings[symbol].tick
    assert book == whole(path, STEP + 600)
    assert 20 < empty < 200


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SYMBOLS), st.integers(0, 10**7), st.integers(-2000, 2000))
def test_any_two_steps(symbol: str, first: int, distance: int) -> None:
    """Over crashes, over more steps than a level's life, and backwards."""
    path, since, step = PATHS[symbol], STEP + first, STEP + first + distance
    assert applied(whole(path, since), path.changes(step, since)) == whole(path, step)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_levels(symbol: str) -> None:
    """Deep enough, in order, on the listing's grid, around the last trade."""
    path, listing = PATHS[symbol], MARKET.listings[symbol]
    for step in range(STEP, STEP + 300, 7):
        bids, asks = path.levels(step, 1000)
        assert len(bids) == len(asks) == 1000
        assert all(a[0] > b[0] for a, b in pairwise(bids))
        assert all(a[0] < b[0] for a, b in pairwise(asks))
        assert bids[0][0] < asks[0][0]
        (last,) = [*MARKET.trades(symbol, step * 100 - 60_000, step * 100 + 1)][-1:]
        assert last.price == (bids[0][0] if last.buyer_is_maker else asks[0][0])
        for price, quantity in bids + asks:
            assert price % listing.tick == 0 == quantity % listing.step
            assert quantity > 0
            assert price.as_tuple().exponent == -listing.price_decimals
        assert path.levels(step, 3) == (bids[:3], asks[:3])


@pytest.mark.parametrize("levels", [100, 5_000])
def test_as_deep_as_the_market_says(levels: int) -> None:
    path = BookPath(Market(3, ("BTCUSDT",), 240, levels), "BTCUSDT")
    for side in path.levels(STEP, 20_000):
        assert levels * 0.8 < len(side) < levels * 1.6


def test_the_same_market_has_the_same_book() -> None:
    again = BookPath(Market(3, ("BTCUSDT",), 240), "BTCUSDT")
    assert again.levels(STEP, 50) == PATHS["BTCUSDT"].levels(STEP, 50)
    other = BookPath(Market(4, ("BTCUSDT",), 240), "BTCUSDT")
    assert other.levels(STEP, 50) != PATHS["BTCUSDT"].levels(STEP, 50)


def test_steps_and_limits() -> None:
    path = PATHS["BTCUSDT"]
    assert [path.step(time_ms) for time_ms in (0, 99.9, 100, 1_760_000_012_399)] == [
        0, 0, 1, 17_600_000_123
    ]  # fmt: skip
    assert path.levels(STEP, 0) == ((), ())


def test_before_the_first_trade_a_book_is_empty() -> None:
    """The first trade brings all of it; what leads there and back agrees."""
    market = Market(3, ("BTCUSDT",), 4)
    market.list_symbol("NEWUSDT", listed_ms=STEP * 100)
    path = BookPath(market, "NEWUSDT")
    first = next(market.trades_from("NEWUSDT", 0, 1)).time_ms
    step = -(-first // 100)
    assert step > STEP
    for before in (STEP - 1, STEP, step - 1):
        assert path.levels(before, 5) == path.changes(before) == ((), ())
    book = whole(path, step)
    assert min(len(side) for side in book) > 500
    assert applied(({}, {}), path.changes(step)) == book
    assert applied(book, path.changes(STEP, step)) == ({}, {})


def test_no_book_of_an_unknown_symbol() -> None:
    with pytest.raises(KeyError):
        BookPath(MARKET, "NOSUCH")
