"""Candles from trades: their values, what closes them, late and misdated trades, restarts."""

import random
from collections.abc import Iterable
from decimal import Decimal

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import MINUTE, T0, trade

from trio_feed.core.bars import Built, TradeBars
from trio_feed.core.calendar import open_of
from trio_feed.model import Interval, Kline, Source, Trade

S1, S30, M1, M5 = Interval.S1, Interval.S30, Interval.M1, Interval.M5
FAR = float("inf")
HOUR = 3_600_000
D = Decimal


def bars(*intervals: Interval) -> TradeBars:
    return TradeBars(intervals or (S1,))


def add(made: TradeBars, *trades: Trade, limit_ms: float = FAR) -> list[Built]:
    """Take trades -> what closed by them."""
    for each in trades:
        made.add(each, limit_ms)
    return made.collect()[0]


def prove(made: TradeBars, after_ms: float) -> list[Built]:
    made.prove(T0 + after_ms)
    return made.collect()[0]


def of(built: Iterable[Built], interval: Interval = S1) -> list[Kline]:
    return [k for i, k in built if i is interval]


def after_t0(rows: Iterable[Kline]) -> list[int]:
    return [row.open_ms - T0 for row in rows]


def lot(number: int, after_ms: int, price: str, quantity: str, *, sold: bool = False) -> Trade:
    """An aggregate of three trades."""
    row = trade(number, T0 + after_ms, price, quantity)
    return evolve(row, first_id=number * 10, last_id=number * 10 + 2, buyer_is_maker=sold)


def test_a_candle_is_what_its_trades_say() -> None:
    made = bars()
    add(made, trade(1, T0 - 500))
    add(
        made,
        lot(2, 0, "10.0", "1.5"),
        lot(3, 400, "12.0", "0.5", sold=True),
        lot(4, 999, "9.0", "2.0"),
    )
    ((_, bar),) = add(made, lot(5, 1_000, "11.0", "1"))
    assert bar == Kline(
        open_ms=T0,
        open=D("10.0"),
        high=D("12.0"),
        low=D("9.0"),
        close=D("9.0"),
        volume=D("4.0"),
        quote_volume=D("39.00"),
        trades=9,
        closed=True,
        source=Source.TRADES,
        event_ms=T0 + 999 + 5,
        complete=True,
        last_stream_id=4,
        first_trade_id=20,
        last_trade_id=42,
        taker_buy_volume=D("3.5"),
        taker_buy_quote_volume=D("33.00"),
    )
    assert (made.last_trade_id, made.last_ms) == (52, T0 + 1_000)


def test_the_running_candles_are_told_once_a_trade_came() -> None:
    made = bars(S1, S30)
    assert made.collect() == ([], [], [])
    made.add(trade(1, T0 + 100, "10"), FAR)
    made.add(trade(2, T0 + 200, "11"), FAR)
    _, _, running = made.collect()
    assert [(i, k.close, k.trades, k.closed) for i, k in running] == [
        (S1, 11, 2, False), (S30, 11, 2, False),
    ]  # fmt: skip
    assert made.collect() == ([], [], [])


def test_the_worth_of_a_trade_is_said_where_it_is_not_price_times_quantity() -> None:
    made = bars()
    row = evolve(trade(1, T0, "3", "0.333333333333333333"), quote_quantity=D(1))
    ((_, bar),) = add(made, row, trade(2, T0 + 1_000))
    assert (bar.quote_volume, bar.taker_buy_quote_volume) == (1, 1)


def test_sums_keep_every_digit() -> None:
    made = bars()
    large, small = "123456789012345678.000000000000000001", "0.000000000000000002"
    rows = [trade(n, T0, "1.000000000000000001", q) for n, q in enumerate([large, small, small])]
    ((_, bar),) = add(made, *rows, trade(9, T0 + 1_000))
    assert str(bar.volume) == "123456789012345678.000000000000000005"
    assert str(bar.quote_volume).startswith("123456789012345678.12345678901234568")
    assert len(str(bar.quote_volume)) == 19 + 36


def test_the_latest_event_time_counts_and_the_last_id_in_order() -> None:
    made = bars()
    late = evolve(trade(2, T0 + 300), event_ms=T0)
    ((_, bar),) = add(made, trade(1, T0 + 500), late, trade(3, T0 + 1_000))
    assert (bar.event_ms, bar.last_stream_id) == (T0 + 505, 2)


def test_a_quiet_interval_is_flat_at_the_previous_close() -> None:
    made = bars()
    found = of(add(made, trade(1, T0, "10.0", "2"), trade(2, T0 + 3_000, "12.0")))
    assert after_t0(found) == [0, 1_000, 2_000]
    flat = found[1]
    assert (flat.open, flat.high, flat.low, flat.close) == (10, 10, 10, 10)
    assert (flat.volume, flat.quote_volume, flat.trades) == (0, 0, 0)
    assert (flat.taker_buy_volume, flat.taker_buy_quote_volume) == (0, 0)
    assert (flat.first_trade_id, flat.last_trade_id, flat.last_stream_id) == (None, None, 1)
    assert (flat.complete, flat.closed, flat.event_ms) == (True, True, T0 + 5)


def test_closed_ones_come_in_the_order_of_their_ends() -> None:
    made = bars(M1, S30, S1)
    built = add(made, trade(1, T0 + 29_000), trade(2, T0 + 60_000))
    assert [i for i, _ in built[:2]] == [S30, S1]
    assert [i for i, _ in built[-3:]] == [M1, S30, S1]
    ends = [k.open_ms + {S1: 1, S30: 30, M1: 60}[i] * 1_000 for i, k in built]
    assert ends == sorted(ends)


def test_no_time_closes_a_candle_but_evidence() -> None:
    made = bars()
    assert made.next_end_ms == FAR
    add(made, trade(1, T0, "10.0"))
    assert made.next_end_ms == T0 + 1_000
    assert prove(made, 999) == []
    assert after_t0(of(prove(made, 1_000))) == [0]
    assert after_t0(of(prove(made, 3_999))) == [1_000, 2_000]
    assert made.next_end_ms == T0 + 4_000
    assert made.collect()[2] == []  # nothing that runs was touched


def test_what_was_proven_closed_before_the_first_trade_says_nothing() -> None:
    made = bars()
    assert prove(made, 60_000) == []


def test_the_first_candle_is_not_complete_the_next_is() -> None:
    made = bars()
    assert [b.complete for b in of(add(made, trade(1, T0 + 10), trade(2, T0 + 2_000)))] == [
        False, True,
    ]  # fmt: skip


def test_a_loss_marks_the_candles_on_both_sides_and_nothing_between_is_invented() -> None:
    made = bars()
    add(made, trade(1, T0 - 1_000), trade(2, T0))
    made.lose()
    assert prove(made, 3_000) == []  # unknown trades: nothing is proven
    found = of(add(made, trade(9, T0 + 5_000)))
    assert [(b.open_ms - T0, b.complete) for b in found] == [(0, False)]
    found = of(add(made, trade(10, T0 + 6_000), trade(11, T0 + 7_000)))
    assert [(b.open_ms - T0, b.complete) for b in found] == [(5_000, False), (6_000, True)]


def test_a_loss_beside_the_end_of_a_candle_marks_its_neighbour_too() -> None:
    """Times are out of order by some milliseconds: what was lost may be on its other side."""
    made = bars()
    found = add(made, trade(0, T0 - 1_000), trade(1, T0 + 500), trade(2, T0 + 1_020))
    made.lose()
    made.add(trade(9, T0 + 1_960), FAR)
    made.add(trade(10, T0 + 2_500), FAR)
    made.add(trade(11, T0 + 3_500), FAR)
    closed, revised, _ = made.collect()
    last = {k.open_ms - T0: k.complete for _, k in [*found, *closed, *revised]}
    assert [last[after] for after in (0, 1_000, 2_000)] == [False] * 3


def test_a_loss_inside_of_a_candle_marks_it_alone() -> None:
    made = bars(S1, S30)
    add(made, trade(1, T0 - 1_000), trade(2, T0 + 100))
    made.lose()
    built = add(made, trade(9, T0 + 900), trade(10, T0 + 1_000), trade(11, T0 + 30_000))
    assert [b.complete for b in of(built)] == [False] + [True] * 29
    assert [b.complete for b in of(built, S30)] == [False]


def test_an_untouched_candle_in_which_trades_were_lost_is_not_told() -> None:
    made = bars()
    add(made, trade(1, T0))
    prove(made, 1_000)
    made.lose()
    assert add(made, trade(9, T0 + 5_000)) == []


def test_a_long_silence_is_a_hole_and_not_so_many_flat_candles() -> None:
    made = bars()
    add(made, trade(1, T0))
    assert len(prove(made, 10_001_000)) == 10_001
    made = bars()
    add(made, trade(1, T0, "7"))
    found = prove(made, 10_002_000)
    assert after_t0(of(found)) == [0]
    assert made.next_end_ms == T0 + 10_003_000
    ((_, bar),) = prove(made, 10_003_000)
    assert (bar.open_ms - T0, bar.close, bar.complete) == (10_002_000, 7, True)


# Late trades


def test_a_late_trade_revises_its_own_candle() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000), trade(1, T0, "10"), trade(2, T0 + 800, "11"))
    prove(made, 1_500)
    made.add(trade(3, T0 + 900, "9", "2"), FAR)
    closed, revised, running = made.collect()
    assert closed == []
    ((interval, bar),) = revised
    assert (interval, bar.open_ms, bar.closed) == (S1, T0, True)
    assert (bar.close, bar.low, bar.volume, bar.trades) == (9, 9, 4, 3)
    assert (bar.complete, bar.last_stream_id, made.late, made.misdated) == (True, 3, 1, 0)
    ((_, bar),) = running
    assert (bar.close, bar.volume, bar.complete) == (9, 0, True)
    assert made.collect() == ([], [], [])


def test_where_the_ids_say_otherwise_both_are_marked() -> None:
    made = bars(S1, M1)
    add(made, trade(0, T0 - 1_000), trade(1, T0 + 20_000, "10"), trade(2, T0 + 21_500, "11"))
    made.add(trade(3, T0 + 20_900, "9", "2"), FAR)
    closed, revised, running = made.collect()
    assert closed == []
    found = {k.open_ms - T0: (i, k.trades, k.complete) for i, k in revised}
    assert found == {
        18_000: (S1, 0, False), 19_000: (S1, 0, False), 20_000: (S1, 2, False),
    }  # fmt: skip
    assert [(i, k.open_ms - T0, k.trades, k.complete) for i, k in running] == [
        (S1, 21_000, 1, False), (M1, 0, 3, True),
    ]  # fmt: skip
    # It may have happened in any candle up to the next trade's.
    closed = of(add(made, trade(4, T0 + 25_200), trade(5, T0 + 26_000), trade(6, T0 + 27_000)))
    assert [(b.open_ms - T0, b.complete) for b in closed] == [
        *((n * 1_000, False) for n in range(21, 26)), (26_000, True),
    ]  # fmt: skip


def test_a_fall_of_some_milliseconds_marks_only_what_it_crosses() -> None:
    made = bars(S1, M1)
    add(made, trade(0, T0 - 1_000), trade(1, T0 + 20_990), trade(2, T0 + 20_995))
    found = of(add(made, trade(3, T0 + 20_993), trade(4, T0 + 21_010)))
    assert [(b.open_ms - T0, b.complete) for b in found] == [(20_000, True)]  # inside of it
    add(made, trade(5, T0 + 20_980))
    found = of(add(made, trade(6, T0 + 21_900), trade(7, T0 + 22_900), trade(8, T0 + 23_000)))
    assert [(b.open_ms - T0, b.complete) for b in found] == [(21_000, False), (22_000, True)]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "slip_ms",
    [300, 900, 1_900, 9_000, HOUR, -300, -900, -3_000, -20_000, -45_000, -HOUR, -(10**12)],
)
def test_a_wrong_time_makes_no_candle_wrong_that_says_it_is_complete(
    slip_ms: int, count: int
) -> None:
    """Of one trade, or of some in one frame, wherever in a second it was."""
    for place in range(400, 412):
        rows = [trade(n, T0 - 1_000 + n * 170, str(50 + n % 7)) for n in range(800)]
        made, truth, last = bars(S1, S30), bars(S1, S30), {}
        for n, row in enumerate(rows):
            slipped = place <= n < place + count
            told = evolve(row, time_ms=row.time_ms + slip_ms) if slipped else row
            truth.add(row, FAR)
            made.add(told, row.time_ms + 2_000)
            closed, revised, _ = made.collect()
            last |= {(i, k.open_ms): k for i, k in [*closed, *revised]}
        right = {(i, k.open_ms): k for i, k in truth.collect()[0]}
        wrong = [
            (i.value, at - T0)
            for (i, at), k in last.items()
            if k.complete and ((i, at) not in right or not k.same_values(right[i, at]))
        ]
        assert wrong == []
        marked = [at for (i, at), k in last.items() if i is S1 and not k.complete]
        assert len(marked) <= 10


def test_what_is_stored_tells_where_a_trade_before_its_late_one_is() -> None:
    """Times are out of order by some milliseconds: a trade of the next candle came before the last
    one of the stored candle, and comes again after a restart."""
    trades = [trade(0, T0 - 1_000), trade(1, T0), trade(2, T0 + 1_010), trade(3, T0 + 990)]
    more = [trade(4, T0 + 1_500), trade(5, T0 + 2_100)]
    made = bars()
    for each in trades:
        made.add(each, FAR)
    closed, revised, _ = made.collect()
    stored = {k.open_ms: k for _, k in [*closed, *revised]}[T0]
    assert (stored.trades, stored.last_stream_id) == (2, 1)
    again = bars()
    again.resume(stored, S1)
    for each in (*(one for one in trades if one.trade_id > stored.last_stream_id), *more):
        again.add(each, FAR)
    ((_, bar),), revised, _ = again.collect()
    assert (bar.open_ms, bar.trades, bar.complete, again.misdated) == (T0 + 1_000, 2, True, 0)
    assert not revised


def test_flat_candles_after_it_move_with_its_close() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000), trade(1, T0, "10"))
    prove(made, 3_000)
    made.add(trade(2, T0 + 900, "9"), FAR)
    _, revised, running = made.collect()
    assert [(k.open_ms - T0, k.open, k.close, k.last_stream_id) for _, k in revised] == [
        (0, 10, 9, 2), (1_000, 9, 9, 2), (2_000, 9, 9, 2),
    ]  # fmt: skip
    ((_, bar),) = running
    assert (bar.open_ms - T0, bar.open, bar.high, bar.low, bar.close) == (3_000, 9, 9, 9, 9)


def test_only_flat_ones_up_to_the_next_trade_move() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000), trade(1, T0, "10"), trade(2, T0 + 2_500, "12"))
    prove(made, 4_000)
    made.add(trade(3, T0 + 900, "9"), FAR)
    _, revised, running = made.collect()
    moved = [(k.open_ms - T0, k.close) for _, k in revised]
    assert moved == [(0, 9), (1_000, 9), (2_000, 12), (3_000, 12)]
    assert running[0][1].close == 12


def test_what_closed_just_now_is_told_once_with_its_last_values() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000))
    for row in (trade(1, T0, "10"), trade(2, T0 + 1_500, "11"), trade(3, T0 + 900, "9")):
        made.add(row, FAR)
    closed, revised, _ = made.collect()
    assert [(k.open_ms - T0, k.close) for _, k in closed] == [(-1_000, 100), (0, 9)]
    assert closed[-1][1].trades == 2
    assert revised == []


def test_late_in_one_interval_is_in_time_for_a_longer_one() -> None:
    made = bars(S1, M1)
    add(made, trade(0, T0 - MINUTE), trade(1, T0 + 9_000, "10"), trade(2, T0 + 9_999, "11"))
    prove(made, 10_500)
    made.add(trade(3, T0 + 9_999, "9"), FAR)
    _, revised, running = made.collect()
    assert [i for i, _ in revised] == [S1]
    assert {i: (k.trades, k.complete) for i, k in running} == {S1: (0, True), M1: (3, True)}
    assert made.late == 1


def test_too_late_for_its_own_candle_it_marks_the_running_one() -> None:
    made = bars()
    add(made, trade(1, T0), trade(2, T0 + 200_500))
    made.add(trade(3, T0 + 80_000), FAR)  # 120 closed ones are remembered
    assert T0 + 80_000 in [k.open_ms for _, k in made.collect()[1]]
    made.add(trade(4, T0 + 79_999, "3"), FAR)
    _, revised, running = made.collect()
    assert revised == []
    ((_, bar),) = running
    assert (bar.complete, bar.trades, bar.close) == (False, 2, 3)
    assert (made.late, made.misdated) == (2, 1)


# Trades of a time that has not come


def test_one_trade_of_the_future_waits_and_counts_before_the_next() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000), trade(1, T0 + 100))
    limit = T0 + 10_000.0
    assert add(made, trade(2, T0 + 50_000, "7"), limit_ms=limit) == []
    assert made.collect()[2] == []
    assert prove(made, 5_000) == []  # where it belongs is not known yet
    found = of(add(made, trade(3, T0 + 1_200), limit_ms=limit))
    # It may be of any candle from the one before it to the one after it.
    assert [(b.open_ms - T0, b.trades, b.complete) for b in found] == [(0, 1, False)]
    found = of(add(made, trade(4, T0 + 2_000), limit_ms=limit))
    assert [(b.trades, b.complete, b.high, b.low) for b in found] == [(2, False, 100, 7)]
    assert (made.misdated, made.late) == (1, 0)


def test_every_candle_that_a_misdated_trade_may_belong_to_is_marked() -> None:
    made = bars()
    limit = T0 + 10_000.0
    add(made, trade(0, T0 - 1_000), trade(1, T0 + 100))
    add(made, trade(2, T0 + 50_000, "7"), limit_ms=limit)
    rows = [trade(3, T0 + 3_200), trade(4, T0 + 4_000), trade(5, T0 + 5_000)]
    found = of(add(made, *rows, limit_ms=limit))
    assert [(b.open_ms - T0, b.trades, b.complete) for b in found] == [
        (0, 1, False), (1_000, 0, False), (2_000, 0, False), (3_000, 2, False), (4_000, 1, True),
    ]  # fmt: skip
    assert made.misdated == 1


def test_a_misdated_trade_of_a_closed_candle_revises_and_marks_it() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000), trade(1, T0 + 100))
    prove(made, 3_000)
    for row in (trade(2, T0 + 50_000, "7"), trade(3, T0 + 1_200)):
        made.add(row, T0 + 10_000.0)
    _, revised, _ = made.collect()
    found = {k.open_ms - T0: (k.trades, k.complete) for _, k in revised}
    assert found[1_000] == (2, False)
    assert (made.late, made.misdated) == (2, 1)


def test_exactly_at_the_limit_is_believed() -> None:
    made = bars()
    assert after_t0(of(add(made, trade(1, T0), trade(2, T0 + 1_000), limit_ms=T0 + 1_000))) == [0]


def test_a_time_that_has_not_come_is_not_believed_of_many_either() -> None:
    """They may all come in one frame.  When the limit has followed, they count in their candles."""
    made = bars()
    add(made, trade(1, T0))
    rows = [trade(n, T0 + 20_000 + n) for n in range(2, 9)]
    assert add(made, *rows, limit_ms=T0 + 10_000.0) == []
    found = of(add(made, trade(9, T0 + 20_100), limit_ms=T0 + 30_000.0))
    assert after_t0(found) == [n * 1_000 for n in range(20)]
    assert made.misdated == 0
    assert made.volume_of(S1, T0 + 20_000) == 8


def test_one_that_was_not_far_after_all_counts_at_its_own_time() -> None:
    made = bars()
    add(made, trade(0, T0 - 1_000), trade(1, T0))
    made.add(trade(2, T0 + 2_000), T0 + 1_000)
    found = of(add(made, trade(3, T0 + 2_500), trade(4, T0 + 3_000), limit_ms=T0 + 5_000))
    assert [(b.open_ms - T0, b.trades, b.complete) for b in found] == [
        (0, 1, True), (1_000, 0, True), (2_000, 2, True),
    ]  # fmt: skip
    assert made.misdated == 0


# What is known of a candle's volume


def test_the_volume_is_known_of_complete_and_of_closed_candles() -> None:
    made = bars()
    assert made.volume_of(S1, T0) is None
    add(made, trade(1, T0, "1", "2"))
    assert made.volume_of(S1, T0) is None  # the first one is not complete
    add(made, trade(2, T0 + 1_000, "1", "3"))
    assert made.volume_of(S1, T0) == 2
    assert made.volume_of(S1, T0 + 1_000) == 3
    assert made.volume_of(S1, T0 + 2_000) is None
    assert made.volume_of(M1, T0) is None
    made.lose()
    assert made.volume_of(S1, T0 + 1_000) is None


# Restarts


def test_it_goes_on_behind_a_stored_candle() -> None:
    made = bars(S1, S30)
    built = add(made, trade(1, T0, "10"), trade(2, T0 + 1_000, "11"))
    last = of(built)[-1]
    again = bars(S1, S30)
    again.resume(last, S1)
    assert (again.next_end_ms, again.last_ms) == (T0 + 2_000, T0 + 999)
    built = add(again, trade(2, T0 + 1_000, "11"), trade(3, T0 + 31_000, "12"))
    assert [b.complete for b in of(built)] == [True] * 30
    first = of(built)[0]
    assert (first.open_ms - T0, first.open, first.trades) == (1_000, 11, 1)
    (long,) = of(built, S30)
    assert (long.open_ms, long.complete) == (T0, False)  # it ran at the pause


def test_a_pause_without_trades_is_flat_at_the_stored_close() -> None:
    made = bars()
    (last,) = of(add(made, trade(1, T0, "10"), trade(2, T0 + 1_000, "11")))
    again = bars()
    again.resume(last, S1)
    found = of(prove(again, 3_000))
    assert [(b.open_ms - T0, b.close, b.volume, b.last_stream_id) for b in found] == [
        (1_000, 10, 0, 1), (2_000, 10, 0, 1),
    ]  # fmt: skip


def test_a_pause_that_is_not_refilled_begins_anew() -> None:
    made = bars()
    (last,) = of(add(made, trade(1, T0), trade(2, T0 + 1_000)))
    again = bars()
    again.resume(last, S1)
    again.lose()
    assert add(again, trade(9, T0 + 20_000)) == []
    ((_, bar),) = add(again, trade(10, T0 + 21_000))
    assert (bar.open_ms, bar.complete) == (T0 + 20_000, False)


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_all_intervals_agree_with_a_naive_sum(seed: int) -> None:
    chance = random.Random(seed)
    now = T0 - MINUTE
    trades = []
    for number in range(200):
        now += chance.choice([0, 1, 250, 4000, 40_000])
        trades.append(trade(number, now, f"{chance.randrange(90, 110)}.5", "0.125"))
    intervals = (S1, S30, M1, M5)
    made = bars(*intervals)
    built = add(made, *trades)
    for interval in intervals:
        for bar in (b for b in of(built, interval) if b.complete):
            inside = [t for t in trades if open_of(interval, t.time_ms) == bar.open_ms]
            assert bar.trades == len(inside)
            assert bar.volume == sum((t.quantity for t in inside), D(0))
            if inside:
                prices = [t.price for t in inside]
                assert (bar.open, bar.close) == (prices[0], prices[-1])
                assert (bar.high, bar.low) == (max(prices), min(prices))


@given(st.integers(0, 2**32))
def test_disorder_of_some_seconds_changes_nothing_in_the_end(seed: int) -> None:
    """Closed and revised together say what an order by time would have said."""
    chance = random.Random(seed)
    times = [T0 + n * 300 + chance.randrange(2_500) for n in range(100)]
    made = bars(S1, S30)
    final: dict[tuple[Interval, int], Kline] = {}
    for number, time_ms in enumerate([T0 - MINUTE, *times]):
        made.add(trade(number, time_ms, str(50 + number)), FAR)
        closed, revised, _ = made.collect()
        final |= {(i, k.open_ms): k for i, k in [*closed, *revised]}
    for (interval, open_ms), bar in final.items():
        inside = [n for n, at in enumerate(times, 1) if open_of(interval, at) == open_ms]
        if open_ms < T0:
            continue
        assert bar.trades == len(inside)
        if inside:
            assert (bar.open, bar.close) == (50 + inside[0], 50 + inside[-1])


@given(st.integers(0, 10_000))
def test_a_restart_with_its_trades_refilled_leaves_no_mark(seed: int) -> None:
    """What was closed before the pause, and what is closed after it, is what one run gives."""
    chance = random.Random(seed)
    times = sorted(T0 + chance.randrange(4 * MINUTE) for _ in range(200))
    trades = [trade(n, at, str(100 + chance.randrange(50))) for n, at in enumerate(times)]

    def run(made: TradeBars, some: list[Trade]) -> list[Built]:
        built = add(made, *some)
        return built + (prove(made, 4 * MINUTE) if some else [])

    whole = {(i, k.open_ms): k for i, k in run(bars(S1, S30), trades)}
    stop = chance.randrange(1, len(trades))
    first = add(bars(S1, S30), *trades[:stop])
    long = of(first, S30)
    if not long:
        return
    again = bars(S1, S30)
    again.resume(long[-1], S30)
    later = run(again, [one for one in trades if one.trade_id > long[-1].last_stream_id])
    joined = {(i, k.open_ms): k for i, k in [*first, *later]}
    assert joined == whole


@pytest.mark.parametrize("interval", [S1, S30, M1, M5])
def test_each_interval_has_its_own_grid(interval: Interval) -> None:
    made = bars(interval)
    add(made, trade(1, T0 + 7_777))
    length = {S1: 1, S30: 30, M1: 60, M5: 300}[interval] * 1_000
    assert made.next_end_ms == open_of(interval, T0 + 7_777) + length
