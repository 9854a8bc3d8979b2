import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.make import MINUTE, T0

from trio_feed.core.bars import Built
from trio_feed.core.calendar import next_open, open_of
from trio_feed.core.price_candles import PriceCandles
from trio_feed.model import Interval, Kline, Source

S1, S30, M5 = Interval.S1, Interval.S30, Interval.M5
THREE = (S1, S30, M5)
D = Decimal


def closed(built: list[Built], interval: Interval = S1) -> list[Kline]:
    return [k for i, k in built if k.closed and i is interval]


def ohlc(bar: Kline) -> str:
    return f"{bar.open} {bar.high} {bar.low} {bar.close} {bar.trades}"


def test_the_first_candle_opens_at_its_first_price_the_next_at_the_close() -> None:
    candles = PriceCandles([S1])
    candles.add(D("10"), T0 + 100)
    candles.add(D("12"), T0 + 500)
    ((_, first), (_, second)) = candles.add(D("15"), T0 + 1700)
    assert ohlc(first) == "10 12 10 12 2"
    assert first.closed
    assert ohlc(second) == "12 15 12 15 1"
    assert (second.open_ms, second.closed) == (T0 + 1000, False)
    ((_, second),) = candles.add(D("9"), T0 + 1999)
    assert ohlc(second) == "12 15 9 9 2"


def test_no_volume_and_where_it_came_from() -> None:
    ((_, bar),) = PriceCandles([S1]).add(D("10"), T0 + 100)
    assert (bar.volume, bar.quote_volume, bar.source) == (0, 0, Source.TRADES)
    assert bar.event_ms == T0 + 100


def test_updates_of_all_intervals_come_after_what_closed() -> None:
    candles = PriceCandles(THREE)
    assert [i for i, _ in candles.add(D(1), T0)] == [S1, S30, M5]
    built = candles.add(D(2), T0 + 30_000)
    assert [k.closed for _, k in built] == [True] * 31 + [False] * 3
    assert [i for i, _ in built[-5:]] == [S1, S30, S1, S30, M5]


def test_time_alone_closes_a_candle() -> None:
    candles = PriceCandles([S1])
    assert candles.next_end_ms is None
    assert candles.advance(T0) == []
    candles.add(D("10"), T0 + 100)
    assert candles.next_end_ms == T0 + 1000
    assert candles.advance(T0 + 999) == []
    (bar,) = closed(candles.advance(T0 + 1000))
    assert ohlc(bar) == "10 10 10 10 1"
    assert candles.advance(T0 + 1000) == []


def test_a_quiet_interval_is_flat_at_the_previous_close() -> None:
    candles = PriceCandles([S1])
    candles.add(D("10"), T0)
    candles.add(D("7"), T0 + 1)
    bars = closed(candles.advance(T0 + 3500))
    assert [b.open_ms - T0 for b in bars] == [0, 1000, 2000]
    assert [ohlc(b) for b in bars[1:]] == ["7 7 7 7 0"] * 2
    assert closed(candles.add(D("8"), T0 + 3600)) == []
    (bar,) = closed(candles.advance(T0 + 4000))
    assert ohlc(bar) == "7 8 7 8 1"


def test_a_late_price_is_counted_and_changes_nothing() -> None:
    candles = PriceCandles(THREE)
    candles.add(D("10"), T0 + 100)
    candles.advance(T0 + 1000)
    assert candles.add(D("99"), T0 + 999) == []
    assert candles.late == 1
    assert {k.high for _, k in candles.add(D("11"), T0 + 1000)} == {D("11")}


def test_prices_of_one_candle_may_come_out_of_order() -> None:
    candles = PriceCandles([S1])
    candles.add(D("10"), T0 + 500)
    ((_, bar),) = candles.add(D("11"), T0 + 400)
    assert (ohlc(bar), candles.late) == ("10 11 10 11 2", 0)


def test_after_a_restart_the_first_candle_opens_at_the_stored_close() -> None:
    stored = {S1: (T0, D("5.50")), M5: (T0 - 300_000, D("5.50"))}
    candles = PriceCandles(THREE, stored)
    assert candles.next_end_ms == T0 + 2000
    built = candles.add(D("6"), T0 + 3200)
    assert [ohlc(b) for b in closed(built)] == ["5.50 5.50 5.50 5.50 0"] * 2
    one, thirty, five = (k for _, k in built[-3:])
    assert (one.open_ms, ohlc(one)) == (T0 + 3000, "5.50 6 5.50 6 1")
    assert (thirty.open_ms, ohlc(thirty)) == (T0, "6 6 6 6 1")
    assert (five.open_ms, ohlc(five)) == (T0, "5.50 6 5.50 6 1")
    assert "5.50" not in repr(candles).split("_bars")[0]


def test_nothing_is_repeated_after_a_restart() -> None:
    """A price of the stored candle is late; one series goes on where the other ended."""
    candles = PriceCandles([S1], {S1: (T0, D("5"))})
    assert candles.add(D("6"), T0 + 900) == []
    assert candles.late == 1
    assert [b.open_ms for b in closed(candles.advance(T0 + 2000))] == [T0 + 1000]


def test_candles_that_nobody_watched_whole_are_not_complete() -> None:
    fresh = PriceCandles([S1])
    fresh.add(D(1), T0 + 10)
    assert [b.complete for b in closed(fresh.advance(T0 + 2000))] == [False, True]
    waiting = PriceCandles([S1])
    waiting.advance(T0 - 5000)
    waiting.add(D(1), T0 + 10)
    assert [b.complete for b in closed(waiting.advance(T0 + 1000))] == [True]
    restarted = PriceCandles([S1], {S1: (T0, D("5"))})
    bars = closed(restarted.advance(T0 + 2500) + restarted.advance(T0 + 4000))
    assert [(b.open_ms - T0, b.complete) for b in bars] == [
        (1000, False), (2000, False), (3000, True),
    ]  # fmt: skip


def test_a_loss_marks_what_it_may_have_touched() -> None:
    candles = PriceCandles([S1, S30])
    candles.advance(T0)
    candles.add(D(1), T0)
    before = candles.advance(T0 + 2000)
    candles.missed(T0 + 3500)
    candles.missed(T0 + 2500)
    built = candles.advance(T0 + 60_000)
    assert {b.complete for b in closed(before)} == {True}
    assert [b.complete for b in closed(built)][:3] == [False, False, True]
    assert [b.complete for b in closed(built, S30)] == [False, True]


def test_a_long_silence_is_paged() -> None:
    """Ten hours of seconds: page by page, in order of time, and no page too long."""
    end = T0 + 10 * 60 * MINUTE
    candles = PriceCandles(THREE)
    candles.add(D(1), T0)
    pages = []
    while page := candles.advance(end, limit=500):
        assert len(page) <= 500
        pages += page
    ends = [next_open(interval, bar.open_ms) for interval, bar in pages]
    assert ends == sorted(ends)
    assert len(closed(pages, S1)) == 36_000
    assert len(closed(pages, S30)) == 1_200
    assert len(closed(pages, M5)) == 120
    assert candles.next_end_ms == end + 1000


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_paging_changes_nothing(limit: int) -> None:
    whole, paged = PriceCandles(THREE), PriceCandles(THREE)
    for candles in (whole, paged):
        candles.add(D(1), T0 + 5)
    pages: list[Built] = []
    while page := paged.advance(T0 + 61_000, limit):
        pages += page
    assert pages == whole.advance(T0 + 61_000, 10**6)


def test_digits_beyond_the_decimal_context() -> None:
    price = D("34028236692.0938463463374607431768211455")
    candles = PriceCandles([S1])
    candles.add(price, T0)
    ((_, bar),) = candles.add(price, T0 + 1)
    assert str(bar.high) == str(bar.low) == str(price)


@given(st.integers(0, 10**6), st.integers(1, 200))
def test_against_a_naive_model(seed: int, count: int) -> None:
    """Candles of random prices equal those computed from the list of all prices."""
    rng = random.Random(seed)
    times = sorted(rng.randrange(90_000) for _ in range(count))
    prices = [(T0 + t, D(rng.randrange(1, 50))) for t in times]
    candles, built = PriceCandles([S1, S30]), []
    for time_ms, price in prices:
        if rng.random() < 0.3:
            built += candles.advance(time_ms)
        built += candles.add(price, time_ms)
    built += candles.advance(T0 + 120_000)
    for interval in (S1, S30):
        bars = closed(built, interval)
        assert bars == naive(interval, prices, bars)
        first = open_of(interval, prices[0][0])
        length = next_open(interval, 0)
        assert [b.open_ms for b in bars] == [*range(first, T0 + 120_000, length)]


def naive(interval: Interval, prices: list[tuple[int, Decimal]], bars: list[Kline]) -> list[Kline]:
    expected, close, event = [], None, 0
    for bar in bars:
        end = next_open(interval, bar.open_ms)
        inside = [(t, p) for t, p in prices if bar.open_ms <= t < end]
        open_ = close if close is not None else inside[0][1]
        all_prices = [open_, *(p for _, p in inside)]
        close = all_prices[-1]
        event = inside[-1][0] if inside else event
        expected.append(
            Kline(bar.open_ms, open_, max(all_prices), min(all_prices), close, D(0), D(0),
                  len(inside), True, Source.TRADES, event, bar.open_ms >= prices[0][0])
        )  # fmt: skip
    return expected
