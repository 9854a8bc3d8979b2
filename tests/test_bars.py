import random
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from support.make import MINUTE, T0, trade
from trio_feed.core.candles import Built, TradeCandles

from trio_feed.core.calendar import open_of
from trio_feed.model import Interval, Kline, Trade


def closed(built: list[Built], interval: Interval = Interval.S1) -> list[Kline]:
    return [k for i, k in built if k.closed and i is interval]


def test_a_candle_is_what_its_trades_say() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0 - 500))
    candles.add(trade(2, T0, "10.0", "1.5"))
    candles.add(trade(3, T0 + 400, "12.0", "0.5"))
    candles.add(trade(4, T0 + 999, "9.0", "2.0"))
    (bar,) = closed(candles.add(trade(5, T0 + 1000, "11.0")))
    assert (bar.open, bar.high, bar.low, bar.close) == tuple(map(Decimal, ("10", "12", "9", "9")))
    assert bar.volume == Decimal("4.0")
    assert bar.quote_volume == Decimal("39.0")
    assert bar.trades == 3
    assert bar.complete


def test_an_aggregate_counts_its_trades() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0 - 500))
    aggregate = Trade("BTCUSDT", 2, 100, 104, Decimal(10), Decimal(1), T0, False)
    assert candles.add(aggregate)[-1][1].trades == 5


def test_a_quiet_interval_is_flat_at_the_previous_close() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0, "10.0"))
    bars = closed(candles.add(trade(2, T0 + 3000, "12.0")))
    assert [b.open_ms - T0 for b in bars] == [0, 1000, 2000]
    assert [str(b.open) for b in bars] == ["10.0", "10.0", "10.0"]
    assert [b.volume for b in bars[1:]] == [0, 0]


def test_time_alone_closes_a_candle() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0, "10.0"))
    assert candles.advance(T0 + 999) == []
    assert [b.open_ms for b in closed(candles.advance(T0 + 2000))] == [T0, T0 + 1000]


def test_the_first_candle_is_not_complete_the_next_is() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0 + 10))
    assert [b.complete for b in closed(candles.add(trade(2, T0 + 2000)))] == [False, True]


def test_a_hole_in_the_ids_is_seen_and_marks_both_sides() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0 - 1000))
    candles.add(trade(2, T0))
    late = trade(9, T0 + 5000)
    assert candles.missing_before(late) == (3, 8)
    bars = closed(candles.add(late))
    assert [(b.open_ms - T0, b.complete) for b in bars] == [(0, False)]
    (bar,) = closed(candles.advance(T0 + 6000))
    assert (bar.open_ms - T0, bar.complete) == (5000, False)


def test_a_refilled_hole_leaves_no_mark() -> None:
    candles = TradeCandles([Interval.S1])
    built: list[Built] = []
    for number in range(1, 8):
        built += candles.add(trade(number, T0 + number * 300))
    assert [b.complete for b in closed(built)] == [False, True]


def test_repeated_trades_change_nothing() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0))
    assert candles.add(trade(1, T0)) == []
    assert candles.repeated == 1


@given(st.integers(0, 2**32))
def test_all_intervals_agree_with_a_naive_sum(seed: int) -> None:
    chance = random.Random(seed)
    now = T0 - MINUTE
    trades = []
    for number in range(200):
        now += chance.choice([0, 1, 250, 4000, 40_000])
        trades.append(trade(number, now, f"{chance.randrange(90, 110)}.5", "0.125"))
    intervals = [Interval.S1, Interval.S30, Interval.M1, Interval.M5]
    candles = TradeCandles(intervals)
    built = [b for t in trades for b in candles.add(t)]
    for interval in intervals:
        bars = [bar for bar in closed(built, interval) if bar.complete]
        for bar in bars:
            inside = [t for t in trades if open_of(interval, t.time_ms) == bar.open_ms]
            assert bar.trades == len(inside)
            assert bar.volume == sum((t.quantity for t in inside), Decimal(0))
            if inside:
                prices = [t.price for t in inside]
                assert (bar.open, bar.close) == (prices[0], prices[-1])
                assert (bar.high, bar.low) == (max(prices), min(prices))


@given(st.integers(0, 10_000))
def test_a_restart_with_its_trades_refilled_leaves_no_mark(seed: int) -> None:
    """What was closed before the pause, and what is closed after it, is what one run gives."""
    chance = random.Random(seed)
    times = sorted(T0 + chance.randrange(4 * MINUTE) for _ in range(200))
    trades = [trade(n, at, str(100 + chance.randrange(50))) for n, at in enumerate(times)]
    intervals = [Interval.S1, Interval.S30]

    def run(candles: TradeCandles, some: list[Trade]) -> list[Built]:
        built = [b for one in some for b in candles.add(one) if b[1].closed]
        return built + [b for b in candles.advance(T0 + 4 * MINUTE) if b[1].closed and some]

    whole = {(i, k.open_ms): k for i, k in run(TradeCandles(intervals), trades)}
    stop = chance.randrange(1, len(trades))
    candles = TradeCandles(intervals)
    first = [b for one in trades[:stop] for b in candles.add(one) if b[1].closed]
    long = [k for i, k in first if i is Interval.S30]
    again = TradeCandles(intervals)
    if not long:
        return
    again.resume(long[-1], Interval.S30)
    assert again.last_id is not None
    later = run(again, [one for one in trades if one.trade_id > again.last_id])
    joined = {(i, k.open_ms): k for i, k in [*first, *later]}
    assert joined == whole


def test_a_longer_candle_that_ran_at_the_pause_is_not_complete() -> None:
    candles = TradeCandles([Interval.S1, Interval.S30])
    candles.add(trade(1, T0))
    (last,) = closed(candles.add(trade(2, T0 + 1000)))
    again = TradeCandles([Interval.S1, Interval.S30])
    again.resume(last, Interval.S1)
    built = again.add(trade(2, T0 + 1000)) + again.add(trade(3, T0 + 31_000))
    assert [bar.complete for bar in closed(built)] == [True] * 30
    assert [bar.complete for bar in closed(built, Interval.S30)] == [False]


def test_a_pause_that_is_not_refilled_begins_anew() -> None:
    candles = TradeCandles([Interval.S1])
    candles.add(trade(1, T0))
    (last,) = closed(candles.add(trade(2, T0 + 1000)))
    again = TradeCandles([Interval.S1])
    again.resume(last, Interval.S1)
    assert closed(again.add(trade(9, T0 + 20_000))) == []
    (bar,) = closed(again.add(trade(10, T0 + 21_000)))
    assert (bar.open_ms, bar.complete) == (T0 + 20_000, False)
