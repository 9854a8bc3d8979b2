import random
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import MINUTE, kline

from trio_feed.core.calendar import Grid, grid_of, next_open, open_of
from trio_feed.core.rollup import TARGETS, RollUp, roll
from trio_feed.model import Interval, Kline, Source

Built = tuple[Interval, Kline]


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """A time in UTC -> unix milliseconds."""
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * 1000


def minutes(first_ms: int, count: int, seed: int = 1) -> list[Kline]:
    """Consecutive closed minutes with random values."""
    chance = random.Random(seed)
    out = []
    for n in range(count):
        low, first, last, high = sorted(chance.randrange(10**6, 10**7) for _ in range(4))
        if chance.random() < 0.5:
            first, last = last, first
        out.append(
            Kline(
                open_ms=first_ms + n * MINUTE,
                open=Decimal(first) / 1000,
                high=Decimal(high) / 1000,
                low=Decimal(low) / 1000,
                close=Decimal(last) / 1000,
                volume=Decimal(chance.randrange(10**9)).scaleb(-6),
                quote_volume=Decimal(chance.randrange(10**12)).scaleb(-8),
                trades=chance.randrange(1000),
                closed=True,
                source=Source.EXCHANGE,
                event_ms=first_ms + (n + 1) * MINUTE + 3,
                first_trade_id=100 * n,
                last_trade_id=100 * n + 99,
                taker_buy_volume=Decimal(chance.randrange(10**9)).scaleb(-6),
                taker_buy_quote_volume=Decimal(chance.randrange(10**12)).scaleb(-8),
            )
        )
    return out


def naive(interval: Interval, rows: Iterable[Kline]) -> list[Kline]:
    """Direct aggregation: group by open time, then min, max and sum."""
    groups: dict[int, list[Kline]] = {}
    for row in rows:
        groups.setdefault(open_of(interval, row.open_ms), []).append(row)
    out = []
    for open_ms, group in groups.items():
        end_ms = next_open(interval, open_ms)
        there = {row.open_ms for row in group if row.complete}
        out.append(
            Kline(
                open_ms=open_ms,
                open=group[0].open,
                high=max(row.high for row in group),
                low=min(row.low for row in group),
                close=group[-1].close,
                volume=sum((row.volume for row in group), Decimal(0)),
                quote_volume=sum((row.quote_volume for row in group), Decimal(0)),
                trades=sum(row.trades for row in group),
                closed=True,
                source=Source.ROLLUP,
                event_ms=group[-1].event_ms,
                complete=there == set(range(open_ms, end_ms, MINUTE)),
                first_trade_id=group[0].first_trade_id,
                last_trade_id=group[-1].last_trade_id,
                taker_buy_volume=sum((row.taker_buy_volume or 0 for row in group), Decimal(0)),
                taker_buy_quote_volume=sum(
                    (row.taker_buy_quote_volume or 0 for row in group), Decimal(0)
                ),
            )
        )
    return out


def closed(built: Iterable[Built], interval: Interval) -> list[Kline]:
    return [row for i, row in built if i is interval and row.closed]


def test_a_candle_is_what_its_minutes_say() -> None:
    rows = minutes(at(2026, 3, 1), 5)
    roll_up = RollUp([Interval.M5])
    built = [b for row in rows for b in roll_up.add(row)]
    assert [row.closed for _, row in built] == [False, False, False, False, True]
    assert [row.complete for _, row in built] == [True] * 5
    (bar,) = closed(built, Interval.M5)
    assert [bar] == naive(Interval.M5, rows)
    assert bar == roll(grid_of(Interval.M5), rows)
    assert (bar.source, bar.event_ms) == (Source.ROLLUP, rows[-1].event_ms)


def test_every_target_and_nothing_shorter() -> None:
    assert " ".join(TARGETS) == "3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M"
    for interval in (Interval.S1, Interval.S30, Interval.M1):
        with pytest.raises(ValueError, match=f"roll up to {interval}"):
            RollUp([Interval.M5, interval])


@pytest.mark.parametrize(
    ("interval", "first", "count"),
    [
        (Interval.W1, at(2026, 11, 16), 7 * 1440),  # a Monday
        (Interval.MO1, at(2026, 2, 1), 28 * 1440),
        (Interval.MO1, at(2024, 2, 1), 29 * 1440),
        (Interval.MO1, at(2026, 12, 1), 31 * 1440),
    ],
)
def test_weeks_and_months_are_those_of_the_calendar(
    interval: Interval, first: int, count: int
) -> None:
    roll_up = RollUp([interval])
    rows = minutes(first, count)
    for row in rows[:-1]:
        ((_, running),) = roll_up.add(row)
        assert not running.closed
    ((_, bar),) = roll_up.add(rows[-1])
    assert (bar.open_ms, bar.closed, bar.complete) == (first, True, True)
    assert [bar] == naive(interval, rows)


def test_a_missing_minute_is_marked_and_the_next_candle_is_whole() -> None:
    rows = minutes(at(2026, 3, 1), 10)
    roll_up = RollUp([Interval.M5])
    built = [b for row in rows if row is not rows[2] for b in roll_up.add(row)]
    assert [b.complete for b in closed(built, Interval.M5)] == [False, True]
    running = [row.complete for _, row in built if not row.closed]
    assert running == [True, True, False, True, True, True, True]


def test_a_candle_whose_last_minute_is_missing_closes_with_the_next_one() -> None:
    rows = minutes(at(2026, 3, 1), 7)
    roll_up = RollUp([Interval.M3])
    built = [b for row in [*rows[:2], rows[5]] for b in roll_up.add(row)]
    bars = closed(built, Interval.M3)
    assert [(b.open_ms - rows[0].open_ms) // MINUTE for b in bars] == [0, 3]
    assert bars == naive(Interval.M3, [*rows[:2], rows[5]])
    assert not any(b.complete for b in bars)


def test_an_incomplete_minute_makes_an_incomplete_candle() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    assert not roll(
        grid_of(Interval.M3), [rows[0], evolve(rows[1], complete=False), rows[2]]
    ).complete


def test_a_start_in_the_middle_is_not_complete() -> None:
    roll_up = RollUp([Interval.M5])
    built = [b for row in minutes(at(2026, 3, 1, 0, 2), 8) for b in roll_up.add(row)]
    assert [b.complete for b in closed(built, Interval.M5)] == [False, True]


def test_an_open_minute_is_only_looked_at() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    roll_up = RollUp([Interval.M3])
    roll_up.add(rows[0])
    ((_, running),) = roll_up.add(evolve(rows[1], closed=False, high=Decimal(10**6)))
    assert (running.closed, running.high, running.complete) == (False, Decimal(10**6), True)
    ((_, running),) = roll_up.add(evolve(rows[1], closed=False))
    assert running.high < 10**6
    assert running.volume == rows[0].volume + rows[1].volume
    ((_, last),) = [*roll_up.add(rows[1]), *roll_up.add(evolve(rows[2], closed=False))][1:]
    assert not last.closed
    assert closed(roll_up.add(rows[2]), Interval.M3) == naive(Interval.M3, rows)


def test_a_running_candle_does_not_overtake_the_close_before_it() -> None:
    rows = minutes(at(2026, 3, 1), 4)
    roll_up = RollUp([Interval.M3])
    roll_up.add(rows[0])
    assert roll_up.add(evolve(rows[3], closed=False)) == []
    assert [row.closed for _, row in roll_up.add(rows[3])] == [True, False]


def test_a_minute_that_is_in_already_changes_nothing() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    roll_up = RollUp([Interval.M3, Interval.M5])
    for row in rows:
        roll_up.add(row)
    assert roll_up.add(rows[1]) == []
    assert roll_up.add(evolve(rows[2], closed=False)) == []
    assert roll_up.repeated == 2


def test_simulated_minutes_stay_labelled() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    one = [rows[0], evolve(rows[1], source=Source.SIMULATED), rows[2]]
    assert roll(grid_of(Interval.M3), one).source is Source.SIMULATED


def idle(minute: Kline, price: Decimal) -> Kline:
    """The same minute without a trade: flat at the close before it."""
    nothing = Decimal(0)
    return evolve(
        minute, open=price, high=price, low=price, close=price, volume=nothing,
        quote_volume=nothing, trades=0, first_trade_id=None, last_trade_id=None,
        taker_buy_volume=nothing, taker_buy_quote_volume=nothing,
    )  # fmt: skip


@pytest.mark.parametrize("says_trades", [True, False])
@pytest.mark.parametrize("quiet", [{0}, {2}, {0, 1}, {0, 2}, {1}, {0, 1, 2}])
def test_minutes_without_a_trade_count_for_the_time_alone(
    quiet: set[int], says_trades: bool
) -> None:
    """A venue that does not say how many trades there were has 0 in every row."""
    rows = minutes(at(2024, 3, 1), 3)
    if not says_trades:
        rows = [evolve(row, trades=0) for row in rows]
    price = Decimal(1)
    for n in range(3):
        if n in quiet:
            rows[n] = idle(rows[n], price)
        price = rows[n].close
    loud = [row for n, row in enumerate(rows) if n not in quiet] or rows
    rollup = RollUp([Interval.M3])
    built = [each for row in rows for each in rollup.add(row)]
    (three,) = closed(built, Interval.M3)
    assert three == roll(grid_of(Interval.M3), rows)
    prices = (loud[0].open, max(r.high for r in loud), min(r.low for r in loud), loud[-1].close)
    assert (three.open, three.high, three.low, three.close) == prices
    assert three.complete
    assert three.volume == sum(row.volume for row in rows)
    running = [row for _, row in built if not row.closed]
    assert running[0].open == rows[0].open  # flat until the first trade


def test_a_minute_that_runs_without_a_trade_does_not_change_the_prices() -> None:
    first, second = minutes(at(2024, 3, 1), 2)
    rollup = RollUp([Interval.M3])
    rollup.add(first)
    ((_, running),) = rollup.add(evolve(idle(second, Decimal(1)), closed=False))
    assert (running.low, running.close) == (first.low, first.close)


def test_sums_keep_every_digit() -> None:
    large, small = "123456789012345678.000000000000000001", "0.000000000000000002"
    rows = [
        kline(at(2026, 3, 1) + n * MINUTE, volume=v) for n, v in enumerate([large, small, small])
    ]
    assert str(roll(grid_of(Interval.M3), rows).volume) == "123456789012345678.000000000000000005"


def test_what_is_not_one_candle_is_refused() -> None:
    rows = minutes(at(2026, 3, 1), 4)
    for wrong in ([], rows, [rows[1], rows[0]], [rows[0], rows[0]]):
        with pytest.raises(ValueError, match="candle"):
            roll(grid_of(Interval.M3), wrong)


def test_a_candle_that_is_not_over_is_open_unless_told() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    assert not roll(grid_of(Interval.M3), rows[:2]).closed
    assert not roll(grid_of(Interval.M3), [*rows[:2], evolve(rows[2], closed=False)]).closed
    told = roll(grid_of(Interval.M3), rows[:2], over=True)
    assert (told.closed, told.complete) == (True, False)


starts = st.sampled_from(
    [
        at(2026, 3, 1) - 90 * MINUTE,  # over a month's end
        at(2024, 2, 29, 22),  # over a leap day's
        at(2025, 12, 31, 21, 30),  # over a year's
        at(2026, 11, 15, 23),  # over a week's
        at(2026, 6, 17, 5, 43),
    ]
)


@settings(deadline=None, max_examples=50)
@given(starts, st.integers(0, 300), st.integers(1, 400), st.integers(0, 2**32))
def test_every_interval_agrees_with_direct_aggregation(
    first: int, shift: int, count: int, seed: int
) -> None:
    chance = random.Random(seed)
    rows = minutes(first + shift * MINUTE, count, seed)
    rows = [evolve(row, complete=chance.random() < 0.99) for row in rows if chance.random() < 0.98]
    if chance.random() < 0.3:
        gone = chance.randrange(count)
        rows = rows[:gone] + rows[gone + chance.randrange(100) :]
    roll_up = RollUp(TARGETS)
    built = [b for row in rows for b in roll_up.add(row)]
    for interval in TARGETS:
        expected = naive(interval, rows)
        bars = closed(built, interval)
        over = rows and next_open(interval, expected[-1].open_ms) == rows[-1].open_ms + MINUTE
        assert bars == (expected if over else expected[:-1])
        if rows and not over:
            last = next(row for i, row in reversed(built) if i is interval)
            assert last.same_values(expected[-1])


@settings(deadline=None, max_examples=50)
@given(starts, st.integers(2, 400), st.integers(0, 2**32))
def test_a_restart_changes_nothing(first: int, count: int, seed: int) -> None:
    chance = random.Random(seed)
    rows = [row for row in minutes(first, count, seed) if chance.random() < 0.97]
    at_once = RollUp(TARGETS)
    whole = [b for row in rows for b in at_once.add(row)]
    pieces: list[Built] = []
    roll_up = RollUp(TARGETS)
    for n, row in enumerate(rows):
        if chance.random() < 0.02:
            roll_up = RollUp(TARGETS)
            for interval in TARGETS:
                start = open_of(interval, rows[n - 1].open_ms) if n else 0
                roll_up.reseed(interval, [r for r in rows[:n] if r.open_ms >= start])
        pieces += roll_up.add(row)
    assert pieces == whole


def test_seeding_tells_what_closed_among_the_stored() -> None:
    rows = minutes(at(2026, 3, 1), 8)
    roll_up = RollUp([Interval.M3])
    assert roll_up.reseed(Interval.M3, rows) == naive(Interval.M3, rows)[:2]
    assert roll_up.add(rows[7]) == []
    assert roll_up.reseed(Interval.M3, [rows[0], evolve(rows[1], closed=False)]) == []
    assert [row.closed for _, row in [*roll_up.add(rows[1]), *roll_up.add(rows[2])]] == [0, 1]


def test_what_takers_bought_is_not_known_as_soon_as_one_minute_does_not_say() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    rows[1] = evolve(rows[1], taker_buy_volume=None)
    bar = roll(grid_of(Interval.M3), rows)
    assert bar.taker_buy_volume is None
    assert bar.taker_buy_quote_volume is not None


def test_trade_ids_are_those_of_the_first_and_last_minute_that_has_some() -> None:
    rows = minutes(at(2026, 3, 1), 3)
    rows[0] = evolve(rows[0], first_trade_id=None, last_trade_id=None)
    rows[2] = evolve(rows[2], first_trade_id=None, last_trade_id=None)
    bar = roll(grid_of(Interval.M3), rows)
    assert (bar.first_trade_id, bar.last_trade_id) == (100, 199)


def test_an_interval_whose_grid_is_not_known_waits_for_it() -> None:
    start = at(2026, 3, 1)
    roll_up = RollUp([Interval.M3, Interval.D3], {Interval.D3: None})
    assert roll_up.grid(Interval.D3) is None
    rows = minutes(start, 3)
    assert {i for row in rows for i, _ in roll_up.add(row)} == {Interval.M3}
    assert roll_up.reseed(Interval.D3, rows) == []
    assert roll_up.revised(rows[0]) == [(Interval.M3, start, start + 3 * MINUTE)]
    grid = Grid(Interval.D3, start - 1440 * MINUTE)
    roll_up.learn(Interval.D3, grid)
    assert roll_up.grid(Interval.D3) == grid
    built = roll_up.add(minutes(start + 3 * MINUTE, 1)[0])
    assert {i: bar.open_ms for i, bar in built} == {
        Interval.M3: start + 3 * MINUTE, Interval.D3: start - 1440 * MINUTE,
    }  # fmt: skip


def test_a_revised_minute_names_every_candle_that_holds_it() -> None:
    start = at(2026, 3, 1)
    roll_up = RollUp([Interval.M3, Interval.M5])
    rows = minutes(start, 7)
    for row in rows[:4]:
        roll_up.add(row)
    assert roll_up.revised(rows[1]) == [
        (Interval.M3, start, start + 3 * MINUTE),
        (Interval.M5, start, start + 5 * MINUTE),
    ]
    assert roll_up.revised(rows[3])[0] == (Interval.M3, start + 3 * MINUTE, start + 6 * MINUTE)
    assert [roll_up.is_running(i, start) for i in (Interval.M3, Interval.M5)] == [False, True]
    assert roll_up.is_running(Interval.M3, start + 3 * MINUTE)


def test_a_revised_minute_names_candles_that_closed_before_the_start() -> None:
    start = at(2026, 3, 1)
    roll_up = RollUp([Interval.M3])
    assert roll_up.reseed(Interval.M3, []) == []
    assert roll_up.revised(minutes(start, 1)[0]) == [(Interval.M3, start, start + 3 * MINUTE)]


def test_a_revision_that_is_not_stored_is_in_what_is_made_anew() -> None:
    """A node in hot standby hears it and does not write."""
    start = at(2026, 3, 1)
    roll_up = RollUp([Interval.M5])
    rows = minutes(start, 5)
    for row in rows[:4]:
        roll_up.add(row)
    changed = evolve(rows[1], volume=Decimal(1))
    roll_up.revised(changed)
    assert roll_up.reseed(Interval.M5, rows[:4]) == []
    bar = closed(roll_up.add(rows[4]), Interval.M5)
    assert bar == naive(Interval.M5, [rows[0], changed, *rows[2:]])
    assert roll_up.newest(rows) == [rows[0], changed, *rows[2:]]
    for number in range(1, 101):
        roll_up.revised(minutes(start + number * 5 * MINUTE, 1)[0])
    assert roll_up.newest(rows) == rows


def test_what_was_kept_of_a_minute_before_it_closed_is_not_what_it_is() -> None:
    """A silent minute of which nobody is sure is stored, and a price of it comes later."""
    start = at(2026, 3, 1)
    roll_up = RollUp([Interval.M5], sparse=True)
    rows = minutes(start, 5)
    roll_up.add(rows[0])
    roll_up.revised(evolve(rows[1], trades=0, volume=Decimal(0), complete=False))
    roll_up.add(rows[1])
    assert roll_up.newest(rows[:2]) == rows[:2]


def test_a_minute_that_closes_while_the_stored_ones_are_read_is_in() -> None:
    start = at(2026, 3, 1)
    rows = minutes(start, 5)
    roll_up = RollUp([Interval.M5])
    for row in rows[2:4]:
        roll_up.add(row)
    changed = evolve(rows[3], volume=Decimal(1))
    roll_up.revised(changed)
    assert roll_up.reseed(Interval.M5, rows[:2]) == []
    bar = closed(roll_up.add(rows[4]), Interval.M5)
    assert bar == naive(Interval.M5, [*rows[:3], changed, rows[4]])


@pytest.mark.parametrize(("stored", "whole"), [(8, False), (9, True)])
def test_sixteen_minutes_are_remembered_while_stored_ones_are_read(
    stored: int, whole: bool
) -> None:
    start = at(2026, 3, 1)
    many = minutes(start, 26)
    roll_up = RollUp([Interval.M30])
    for row in many[:25]:
        roll_up.add(row)
    assert roll_up.reseed(Interval.M30, many[:stored]) == []
    ((_, running),) = roll_up.add(many[25])
    assert running.complete is whole
