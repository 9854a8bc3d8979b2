"""What proves that a built candle is over, when the exchange is asked, and the minutes compared."""

from typing import Any

import pytest
from attrs import evolve
from support.engine import MONO_0, at, minute, since_t0
from support.make import MINUTE, T0, kline, trade

from trio_feed.core.bars import FAR_MS, Built
from trio_feed.core.sequence import Break
from trio_feed.core.trades import SymbolTrades, Taken
from trio_feed.instants import NEVER
from trio_feed.model import Interval, Kline, Trade

S1, S30, M1 = Interval.S1, Interval.S30, Interval.M1


def line(
    *intervals: Interval, checks: bool = False, grace_s: float = 3.0, refill: bool = True
) -> SymbolTrades:
    """One that has taken a trade half a second before T0 and one at T0."""
    found = SymbolTrades(intervals or (S1,), checks, grace_s, refill)
    take(found, trade(1, T0 - 500))
    take(found, trade(2, T0))
    found.collect()
    return found


def take(made: SymbolTrades, row: Trade, now_s: float | None = None) -> Taken:
    return made.take(row, at((row.time_ms - T0) / 1000 if now_s is None else now_s))


def closed(made: SymbolTrades) -> list[tuple[Interval, int]]:
    return [(i, k.open_ms - T0) for i, k in made.collect()[0]]


def rows(built: list[Built], interval: Interval = S1) -> list[Kline]:
    return [k for i, k in built if i is interval]


def test_a_trade_in_order_passes() -> None:
    made = line()
    row = trade(3, T0 + 100)
    assert take(made, row) == Taken((row,))
    assert take(made, row) == Taken()
    assert closed(made) == []
    assert take(made, trade(4, T0 + 1_000)).trades == (trade(4, T0 + 1_000),)
    assert closed(made) == [(S1, 0)]


def test_the_evidence_is_the_next_trade_not_the_time() -> None:
    """A stall of the way of ten minutes, a frozen process: nothing is invented."""
    made = line()
    take(made, trade(3, T0 + 700), now_s=600)
    assert closed(made) == []
    take(made, trade(4, T0 + 1_200), now_s=601)
    assert closed(made) == [(S1, 0)]


def test_a_hole_is_refilled_before_later_ones_count() -> None:
    made = line()
    assert take(made, trade(5, T0 + 3_000)) == Taken()
    assert made.sequence.wanted_id == 3
    found = made.fill([trade(3, T0 + 100), trade(4, T0 + 1_100)], at(3))
    assert [t.trade_id for t in found.trades] == [3, 4, 5]
    assert found.breaks == ()
    built = rows(made.collect()[0])
    assert [(k.open_ms - T0, k.complete, k.trades) for k in built] == [
        (0, True, 2), (1_000, True, 1), (2_000, True, 0),
    ]  # fmt: skip


def test_a_loss_is_said_and_marked() -> None:
    made = line()
    take(made, trade(9, T0 + 3_000))
    for _ in range(4):
        assert made.fill([], at(4)) == Taken()
    found = made.fill([], at(5))
    assert found == Taken(
        (trade(9, T0 + 3_000),), (Break(T0, T0 + 3_000, "the exchange does not have them"),)
    )
    assert [(k.open_ms - T0, k.complete) for k in rows(made.collect()[0])] == [(0, False)]
    take(made, trade(10, T0 + 4_000))
    assert [(k.open_ms - T0, k.complete) for k in rows(made.collect()[0])] == [(3_000, False)]


def test_failures_give_a_hole_up_in_the_end() -> None:
    made = line()
    take(made, trade(9, T0 + 3_000))
    for second in (4, 20, 40, 60):
        assert made.failed(at(second)) == Taken()
    assert [b.reason for b in made.failed(at(64)).breaks] == ["the exchange could not be asked"]


def test_a_trade_of_the_far_future_is_not_believed_alone() -> None:
    made = line()
    take(made, trade(3, T0 + 500 + FAR_MS + 200), now_s=0.5)
    assert closed(made) == []
    take(made, trade(4, T0 + 600), now_s=0.6)
    assert closed(made) == []
    made = line()
    take(made, trade(3, T0 + 500 + FAR_MS), now_s=0.5)
    assert len(closed(made)) == 2


# The exchange's own candle


def spot(after_ms: int, last_id: int | None, *, over: bool = False) -> Kline:
    return evolve(kline(T0, closed=over, event_ms=T0 + after_ms), last_trade_id=last_id)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (spot(2_250, 2), [0, 1_000]),
        (spot(2_249, 2), [0]),  # trades of the last 250 ms may be on their way
        (spot(2_250, 1), [0, 1_000]),
        (spot(2_250, 3), []),  # it knows one that we do not
        (spot(2_250, None), []),
    ],
)
def test_a_candle_that_names_a_last_trade_that_is_here_is_a_proof(
    row: Kline, expected: list[int]
) -> None:
    made = line()
    made.note_candle(M1, row, at(2.3))
    assert [at_ms for _, at_ms in closed(made)] == expected


def test_a_candle_in_which_the_ids_began_anew_proves_nothing() -> None:
    """Its last trade is one that we do not have, though its id is small."""
    made = line()
    made.note_candle(M1, evolve(spot(2_250, 1), first_trade_id=2), at(2.3))
    assert closed(made) == []


def test_a_closed_candle_proves_everything_up_to_its_end() -> None:
    made = line(S30)
    made.note_candle(M1, spot(60_100, 2, over=True), at(61))
    assert closed(made) == [(S30, 0), (S30, 30_000)]


def test_what_it_proves_must_have_come_and_nothing_may_wait() -> None:
    made = line()
    made.note_candle(M1, spot(FAR_MS + 2_251, 2), at(2))
    assert closed(made) == []
    made.note_candle(M1, spot(FAR_MS + 2_250, 2), at(2))
    assert len(closed(made)) == 4
    made = line()
    take(made, trade(9, T0 + 1_000))
    made.note_candle(M1, spot(2_250, 2), at(3))
    assert closed(made) == []


def sized(volume: str, *, over: bool = True, n: int = 1) -> Kline:
    return minute(n, closed=over, volume=volume, event_ms=T0 + n * MINUTE + 40_250)


def usdm(*intervals: Interval) -> SymbolTrades:
    """With 1m candles made to be compared; the minute at T0 is the first whole one."""
    made = SymbolTrades(intervals or (S1,), True, 3.0)
    take(made, trade(1, T0 - 500))
    take(made, trade(2, T0 + 10_000))
    take(made, trade(3, T0 + MINUTE + 10_000, quantity="2.5"))
    made.collect()
    return made


def test_where_no_last_trade_is_named_the_volume_tells() -> None:
    made = usdm()
    made.note_candle(M1, sized("2.6", over=False), at(101))
    assert closed(made) == []
    made.note_candle(Interval.M5, sized("2.5", over=False), at(101))
    assert closed(made) == []  # only minutes are compared
    made.note_candle(M1, sized("2.5", over=False), at(101))
    assert closed(made) == [(S1, MINUTE + n * 1_000) for n in range(10, 40)]
    made = usdm()
    made.note_candle(M1, sized("2.5"), at(121))
    assert closed(made)[-1] == (M1, MINUTE)
    made = SymbolTrades((S1,), False, 3.0)
    take(made, trade(1, T0 - 500))
    take(made, trade(2, T0 + 10_000))
    made.collect()
    made.note_candle(M1, sized("1.0", n=0), at(61))
    assert closed(made) == []  # no minutes are made here


def test_the_volume_of_a_minute_that_is_not_known_whole_proves_nothing() -> None:
    made = SymbolTrades((S1,), True, 3.0)
    take(made, trade(2, T0 + 10_000))
    made.collect()
    made.note_candle(M1, sized("1.0", n=0), at(61))
    assert closed(made) == []


# A REST answer


def test_an_answer_without_anything_newer_is_a_proof() -> None:
    made = line()
    assert made.latest(trade(2, T0), T0 + 33_500, at(33.6))
    assert closed(made) == [(S1, 0), (S1, 1_000), (S1, 2_000)]  # REST may be 30 s behind


@pytest.mark.parametrize(
    ("newest", "until_ms"),
    [
        (trade(3, T0 + 900), T0 + 33_500),
        (trade(1, T0 - 500), T0 + 33_500),  # REST is behind, or the ids began anew
        (trade(1, T0 + 900), T0 + 33_500),
        (None, T0 + 33_500),
        (trade(2, T0), None),
    ],
)
def test_an_answer_with_another_trade_or_without_a_time_is_none(
    newest: Trade | None, until_ms: float | None
) -> None:
    made = line()
    assert not made.latest(newest, until_ms, at(33.6))
    assert closed(made) == []
    assert since_t0(made.proof_due(at(33.6), witnessed=False)) == 36.6


def test_before_the_first_trade_and_while_some_wait_nothing_is_proven() -> None:
    made = SymbolTrades((S1,), False, 3.0)
    assert not made.latest(trade(2, T0), T0 + 3_500, at(3.6))
    made = line()
    take(made, trade(9, T0 + 1_000))
    assert not made.latest(trade(2, T0), T0 + 3_500, at(3.6))
    assert closed(made) == []


def test_an_answer_with_the_same_time_confirms_a_trade_that_was_not_believed() -> None:
    """The machine slept while our clocks stood still, and the market is quiet since."""
    made = line()
    take(made, trade(3, T0 + 40_000), now_s=1)
    made.latest(trade(3, T0 + 39_999), T0 + 70_500, at(2))  # another time: it stays unknown
    assert closed(made) == []
    made.latest(trade(3, T0 + 40_000), T0 + 39_999, at(2))  # not even there has it come
    assert closed(made) == []
    assert made.latest(trade(3, T0 + 40_000), T0 + 70_500, at(2))
    assert [at_ms for _, at_ms in closed(made)] == [1_000 * n for n in range(40)]
    take(made, trade(4, T0 + 41_000), now_s=41)
    assert [at_ms for _, at_ms in closed(made)] == [40_000]
    assert made.bars.misdated == 0


def test_the_time_of_an_answer_is_not_believed_far_beyond_the_exchanges() -> None:
    made = line()
    made.latest(trade(2, T0), T0 + 9_000_000, at(32))
    assert len(closed(made)) == 4


# When to ask


def test_it_is_asked_a_grace_after_an_answer_can_prove_the_end_of_the_next_candle() -> None:
    made = line()
    assert since_t0(made.proof_due(at(0.2), witnessed=False)) == 34
    assert since_t0(made.proof_due(at(0.2), witnessed=True)) == 66
    assert since_t0(made.proof_due(at(0.2, exchange_s=0.7), witnessed=False)) == 33.5
    assert float(made.proof_due(at(0.2), witnessed=False)) > MONO_0


def test_nothing_is_asked_where_nothing_runs_or_nothing_is_built() -> None:
    assert SymbolTrades((S1,), False, 3.0).proof_due(at(0), witnessed=False) == NEVER
    made = line()
    take(made, trade(9, T0 + 1_000))
    assert made.proof_due(at(2), witnessed=False) == NEVER
    only = SymbolTrades((), True, 3.0)
    take(only, trade(1, T0))
    assert only.proof_due(at(2), witnessed=False) == NEVER


def test_the_longer_it_is_quiet_the_rarer_it_is_asked() -> None:
    made = line()
    waits, now_s = [], 34.0
    for _ in range(7):
        made.latest(trade(2, T0), T0 + now_s * 1000, at(now_s))
        due = since_t0(made.proof_due(at(now_s), witnessed=False))
        waits.append(due - now_s)
        now_s = due
    assert waits == [4, 6, 12, 24, 48, 60, 60]  # first the grace after the candle that runs
    take(made, trade(3, T0 + int(now_s * 1000)))
    made.not_answered(at(now_s))
    assert since_t0(made.proof_due(at(now_s), witnessed=False)) == now_s + 34


def test_after_a_restart_the_first_wait_is_the_grace() -> None:
    made = SymbolTrades((S1,), False, 3.0)
    made.resume([stored(S1, T0 - 1_000, 7)])
    made.not_answered(at(100))
    assert since_t0(made.proof_due(at(100), witnessed=False)) == 103


def test_a_failure_waits_as_well() -> None:
    made = line()
    for wait_s in (3, 6, 12, 24, 48, 60):
        made.not_answered(at(100))
        assert since_t0(made.proof_due(at(100), witnessed=False)) == 100 + wait_s
    for _ in range(2_000):
        made.not_answered(at(100))
    assert since_t0(made.proof_due(at(100), witnessed=False)) == 160


# Restarts and minutes


def stored(interval: Interval, open_ms: int, last_id: int, event_ms: int = 0) -> Any:
    return interval, evolve(
        kline(open_ms, event_ms=event_ms or open_ms + 500), last_stream_id=last_id
    )


def test_after_a_restart_the_longest_candle_says_where_to_go_on() -> None:
    made = SymbolTrades((S1, S30), False, 3.0)
    made.resume([stored(S30, T0 - 30_000, 7), stored(S1, T0 + 5_000, 9)])
    assert (made.sequence.last_id, made.sequence.reached_ms) == (7, T0 - 29_500)
    assert made.bars.next_end_ms == T0 + 1_000
    take(made, trade(10, T0 + 6_000))
    assert made.sequence.wanted_id == 8
    nothing = SymbolTrades((S1,), False, 3.0)
    nothing.resume([stored(S1, T0, 0)])
    assert (nothing.sequence.last_id, nothing.bars.next_end_ms) == (None, float("inf"))


def test_minutes_are_made_to_be_compared_and_not_twice() -> None:
    assert SymbolTrades((S1,), True, 3.0).bars.intervals == (S1, M1)
    assert SymbolTrades((S1, M1), True, 3.0).bars.intervals == (S1, M1)
    assert SymbolTrades((S1,), False, 3.0).bars.intervals == (S1,)


def test_both_sides_of_a_minute_are_compared_where_that_is_wanted() -> None:
    made = SymbolTrades((S1,), True, 3.0)
    assert made.compare_built(minute(0), at(60)) == []
    (match,) = made.compare_official(minute(0), at(60))
    assert match.open_ms == T0
    assert made.compare_built(minute(1), at(120)) == []
    assert made.compare_official(minute(9), at(239.9)) == []
    (late,) = made.compare_official(minute(10), at(240))
    assert late.open_ms == T0 + MINUTE  # waited for two minutes by the monotonic clock
    off = SymbolTrades((S1,), False, 3.0)
    assert off.compare_built(minute(0), at(0)) == off.compare_official(minute(0), at(0)) == []


def test_what_is_fetched_again_after_a_restart_lies_before_nothing() -> None:
    """The 30s candle that is stored ends before the last 1s candle, so trades of that one come once
    more: they looked like a fall of the time, and every kill marked two candles."""
    made = SymbolTrades((S1, S30), False, 3.0, True)
    made.resume([stored(S1, T0 + 44_000, 45), stored(S30, T0, 30)])
    take(made, trade(48, T0 + 47_500))
    assert made.sequence.wanted_id == 31
    again = [trade(n, T0 + (n - 1) * 1_000 + 500) for n in range(31, 48)]
    assert made.fill(again, at(47.5)).breaks == ()
    take(made, trade(49, T0 + 60_100))
    built, revised, _ = made.collect()
    assert revised == []
    assert [(k.open_ms - T0) // 1000 for k in rows(built)] == [*range(30, 60)]
    assert all(k.complete for k in (*rows(built), *rows(built, S30)))
