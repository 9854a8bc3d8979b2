"""Sparse candles of prices: nothing for silence, revisions for what is late or retracted."""

import random
from decimal import Decimal
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import MINUTE, T0

from trio_feed.core.bars import Built
from trio_feed.core.calendar import next_open, open_of
from trio_feed.core.flat import fill_flat, flat
from trio_feed.core.price_bars import PriceBars
from trio_feed.model import Hole, Interval, Kline, Price

S1, S30, M5 = Interval.S1, Interval.S30, Interval.M5
D = Decimal


def price(value: str | int, time_ms: int, position: int = 0, key: str = "") -> Price:
    return Price("MINT", D(value), key or f"{position}:{time_ms}", time_ms, position)


def ohlc(bar: Kline) -> str:
    return (
        f"{bar.open} {bar.high} {bar.low} {bar.close} {bar.trades}{'' if bar.closed else ' open'}"
    )


def bars_of(built: list[Built], interval: Interval = S1) -> list[str]:
    return [ohlc(k) for i, k in built if i is interval]


def test_silence_makes_no_candles() -> None:
    """A thousand tokens that traded once cost nothing afterwards."""
    bars = PriceBars([S1, S30, M5])
    bars.take(price(10, T0))
    closed = bars.advance(T0 + 86_400_000)
    assert [i for i, _ in closed] == [S1, S30, M5]
    assert bars.advance(T0 + 2 * 86_400_000) == []
    assert bars.next_end_ms is None


def test_after_silence_a_candle_opens_at_the_previous_close() -> None:
    bars = PriceBars([S1])
    bars.take(price(10, T0))
    built = bars.take(price(12, T0 + 60_500))
    assert bars_of(built) == ["10 10 10 10 1", "10 12 10 12 1 open"]
    assert built[1][1].open_ms == T0 + 60_000
    implied = bars.implied(S1, T0 + 30_000)
    assert implied is not None
    assert (ohlc(implied), implied.open_ms) == ("10 10 10 10 0", T0 + 30_000)
    assert bars.implied(S1, T0) is None
    assert bars.implied(S1, T0 - 1000) is None
    assert bars.implied(S1, T0 + 61_000) is None


def test_a_late_price_revises_its_candle_and_the_next_one() -> None:
    bars = PriceBars([S1])
    for number, value in enumerate((10, 20, 30)):
        bars.take(price(value, T0 + number * 5000, 10 * (number + 1)))
    built = bars.take(price(99, T0 + 5500, 25))
    assert bars_of(built) == ["10 99 10 99 2", "99 99 30 30 1 open"]
    assert bars_of(bars.take(price(98, T0 + 5400, 24))) == ["10 99 10 99 3"]


def test_what_is_retracted_is_taken_out_again() -> None:
    bars = PriceBars([S1])
    bars.take(price(10, T0, 1))
    bars.take(price(50, T0 + 1000, 2, "fork"))
    bars.take(price(11, T0 + 2000, 3))
    assert bars_of(bars.retract(["fork"])) == ["10 10 10 10 0", "10 11 10 11 1 open"]
    assert bars.retract(["fork"]) == []
    built = bars.take(price(50, T0 + 2500, 4, "fork"))
    assert bars_of(built) == ["10 50 10 50 2 open"]


def test_restart() -> None:
    """The stored candle gives the open, is never touched, and its interval is closed."""
    stored = evolve(flat(flat_of(D(7), T0), T0), trades=1)
    bars = PriceBars([S1], {S1: stored})
    assert bars_of(bars.take(price(8, T0 + 9000, 5))) == ["7 8 7 8 1 open"]
    late = bars.take(price(9, T0 + 500, 4))
    assert (late, bars.late) == ([], 1)
    assert bars_of(bars.take(price(6, T0 + 8000, 3))) == ["7 7 6 6 1", "6 8 6 8 1 open"]


def flat_of(value: Decimal, open_ms: int) -> Kline:
    bars = PriceBars([S1])
    bars.take(price(value, open_ms))  # type: ignore[arg-type]
    return bars.advance(open_ms + 1000)[0][1]


def test_what_may_be_missing_is_not_complete_until_it_is_found() -> None:
    bars = PriceBars([S1])
    bars.watch(T0)
    for second in range(4):
        bars.take(price(second + 1, T0 + second * 1000, second + 1))
    built = bars.missed(T0 + 1500, T0 + 2500)
    assert [(k.open_ms - T0, k.complete) for _, k in built] == [(1000, False), (2000, False)]
    built = bars.whole(T0 + 1000, T0 + 2000)
    assert [(k.open_ms - T0, k.complete) for _, k in built] == [(1000, True)]
    first = PriceBars([M5])
    first.watch(T0 + 1)
    assert not first.take(price(1, T0 + 2))[0][1].complete


def test_a_price_needs_a_time() -> None:
    with pytest.raises(ValueError, match="time"):
        PriceBars([S1]).take(price(1, 0))


def test_memory_is_bounded() -> None:
    bars = PriceBars([S1, M5], window_ms=MINUTE, most=100)
    for number in range(5000):
        bars.take(price(number + 1, T0 + number * 1000, number + 1))
    assert len(bars._entries) <= 400
    assert sum(map(len, bars._bars.values())) < 800
    busy = PriceBars([S1, M5], most=100)
    for number in range(5000):
        busy.take(price(number + 1, T0 + number // 100, number + 1))
    assert len(busy._entries) <= 201
    assert busy.late == 0
    assert bars_of(busy.advance(T0 + 10**6), M5) == ["1 5000 1 5000 5000"]
    built = busy.take(price(1, T0, 1))
    assert busy.late == 1
    assert not any(k.complete for _, k in built)


@given(st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_any_order_and_any_fork_gives_the_same_candles(seed: int) -> None:
    """Taken in any order, with forks in between: the last word on each candle is that of a reader
    to whom everything came in order."""
    chance = random.Random(seed)
    time_ms, chain = T0, []
    for n in range(30):
        time_ms += chance.choice((0, 200, 900, 5_000, 40_000))
        chain.append(price(chance.randint(1, 9), time_ms, n + 1))
    told: dict[tuple[Interval, int], Kline] = {}
    bars = PriceBars([S1, S30, M5], window_ms=10**8)
    bars.watch(T0)
    arriving = sorted(chain, key=lambda p: p.position + chance.uniform(0, 8))
    for n, item in enumerate(arriving):
        forked = evolve(item, price=D(77), key=f"fork{n}") if chance.random() < 0.2 else None
        for one in filter(None, (forked, item)):
            told |= {(i, k.open_ms): k for i, k in bars.take(one)}
        if forked is not None:
            told |= {(i, k.open_ms): k for i, k in bars.retract([forked.key])}
    told |= {(i, k.open_ms): k for i, k in bars.advance(time_ms + 10**6)}
    for interval in (S1, S30, M5):
        expected: dict[int, list[Price]] = {}
        for item in chain:
            expected.setdefault(open_of(interval, item.time_ms), []).append(item)
        close = None
        for at, prices in sorted(expected.items()):
            opens = prices[0].price if close is None else close
            values = [opens, *(p.price for p in prices)]
            close = prices[-1].price
            bar = told.pop((interval, at))
            assert ohlc(bar) == f"{opens} {max(values)} {min(values)} {close} {len(prices)}"
    assert all(bar.trades == 0 for bar in told.values())


def row(open_ms: int, close: int, interval: Interval = S1) -> Kline:
    return evolve(flat_of(D(close), T0), open_ms=open_ms)


ROWS = [row(T0, 1), row(T0 + 3000, 2), row(T0 + 4000, 3)]


def closes(rows: list[Kline]) -> str:
    """Close of each; a dash after those that are implied."""
    return " ".join(f"{k.close}{'' if k.trades else '-'}" for k in rows)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"limit": 100}, "1 1- 1- 2 3 3- 3-"),
        ({"limit": 4}, "2 3 3- 3-"),
        ({"limit": 4, "first": True}, "1 1- 1- 2"),
        ({"limit": 9, "start_ms": T0 + 2000}, "1- 2 3 3- 3-"),
        ({"limit": 9, "start_ms": T0 + 1500}, "1- 2 3 3- 3-"),
        ({"limit": 2, "start_ms": T0 + 1500, "first": True}, "1- 2"),
        ({"limit": 9, "start_ms": T0 - 9000}, "1 1- 1- 2 3 3- 3-"),
        ({"limit": 0}, ""),
    ],
)
def test_flat_candles_are_filled_in_for_a_client(more: dict[str, int], expected: str) -> None:
    filled = fill_flat(ROWS, S1, end_ms=T0 + 7000, **more)  # type: ignore[arg-type]
    assert closes(filled) == expected
    assert all(b.open_ms == next_open(S1, a.open_ms) for a, b in pairwise(filled))
    assert all(k.closed and k.open <= k.high for k in filled)


def test_filling_knows_what_came_before_and_where_holes_are() -> None:
    before = row(T0 - 5000, 9)
    filled = fill_flat(
        [], S1, limit=3, end_ms=T0 + 1000, before=before, holes=[Hole(T0 - 1000, T0 - 1000)]
    )
    assert closes(filled) == "9- 9- 9-"
    assert [k.complete for k in filled] == [True, False, True]
    assert fill_flat([], S1, limit=3, end_ms=T0) == []


def test_an_answer_over_years_of_silence_is_no_longer_than_what_was_asked_for() -> None:
    filled = fill_flat([row(T0, 1)], S1, limit=5, end_ms=T0 + 10**11)
    assert len(filled) == 5
    assert filled[-1].open_ms == open_of(S1, T0 + 10**11 - 1)


@pytest.mark.parametrize("hold", [True, False])
def test_a_price_that_is_awaited_changes_its_candle_however_late(hold: bool) -> None:
    bars = PriceBars([Interval.S1], window_ms=10_000)
    second = 1_790_000_000_000
    for number, after_ms in enumerate((0, 1_000, 5_000, 400_000, 800_000)):
        if hold:
            bars.hold_ms = second + 1_000
        bars.take(Price("M", Decimal(number), f"{number}", second + after_ms, number * 10))
    changed = bars.take(Price("M", Decimal(9), "late", second + 3_000, 15))
    assert [kline.open_ms - second for _, kline in changed] == ([3_000, 5_000] if hold else [])
    assert bars.late == (not hold)


def test_of_many_gaps_the_oldest_are_joined_and_none_is_forgotten() -> None:
    bars = PriceBars([S1], window_ms=10**7)
    bars.watch(T0)
    for number in range(205):
        bars.take(price(1, T0 + number * 1000, number + 1))
    for number in range(100):  # one candle between each two
        bars.missed(T0 + number * 2000, T0 + number * 2000 + 1)
    assert bars.missed(T0 + 200_000, T0 + 200_001) == [
        (S1, evolve(flat_at(bars, second), complete=False)) for second in (1, 200)
    ]
    assert not any(flat_at(bars, second).complete for second in (0, 1, 2, 4, 198))
    assert all(flat_at(bars, second).complete for second in (3, 5, 199))


def flat_at(bars: PriceBars, second: int) -> Kline:
    return bars._bars[S1][T0 + second * 1000]
