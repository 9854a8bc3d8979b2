"""Trades in the order of their ids: each once, holes refilled, restarts noticed, slips dropped."""

import random
from collections.abc import Iterable

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.engine import at, since_t0
from support.make import T0, trade

from trio_feed.core.sequence import MAX_HOLE, MAX_WAITING, Break, Step, TradeSequence
from trio_feed.model import Trade


def a(number: int, after_ms: int | None = None) -> Trade:
    """Trade ``number``, at T0 + 100 ms per number."""
    return trade(number, T0 + (number * 100 if after_ms is None else after_ms))


def take(line: TradeSequence, *rows: Trade, now_s: float = 10) -> list[Step]:
    return [step for row in rows for step in line.take(row, at(now_s))]


def ids(steps: Iterable[Step]) -> list[int | str]:
    """Ids, and the reasons of breaks."""
    return [s.trade_id if isinstance(s, Trade) else s.reason for s in steps]


def due_s(line: TradeSequence) -> float | None:
    return None if line.due is None else since_t0(line.due)


DOES_NOT = "the exchange does not have them"
COULD_NOT = "the exchange could not be asked"
ANEW = "trade ids began anew"
MORE = "more was missed than can be fetched"


def test_what_follows_passes() -> None:
    line = TradeSequence()
    rows = [a(n) for n in (7, 8, 9)]
    assert take(line, *rows) == rows
    assert (line.last_id, line.reached_ms) == (9, T0 + 800)
    assert (line.waiting, line.wanted_id, line.gap_ms, line.due) == (False, None, None, None)


def test_a_hole_begins_at_the_last_trade_unless_its_time_is_absurd() -> None:
    line = TradeSequence()
    take(line, a(1, 400), a(2, 500), a(9, 900))
    assert line.gap_ms == (T0 + 500, T0 + 900)
    line = TradeSequence()
    take(line, a(1, 400), a(2, 500), a(3, 450), a(9, 900))  # out of order
    assert line.gap_ms == (T0 + 450, T0 + 900)
    for absurd_ms in (7_200_000, -7_200_000):
        line = TradeSequence()
        take(line, a(1, 400), a(2, 500), a(3, absurd_ms), a(9, 900))
        assert line.gap_ms == (T0 + (500 if absurd_ms > 0 else 400), T0 + 900)


def test_repeated_trades_change_nothing() -> None:
    line = TradeSequence()
    take(line, a(1), a(2))
    assert take(line, a(2), a(1)) == []
    assert (line.repeated, line.odd, line.last_id) == (2, 0, 2)


def test_a_hole_is_asked_for_while_live_trades_wait() -> None:
    line = TradeSequence()
    take(line, a(1), a(2))
    assert take(line, a(6), a(7), now_s=20) == []
    assert (line.waiting, line.wanted_id, due_s(line)) == (True, 3, 20)
    assert line.gap_ms == (T0 + 200, T0 + 600)
    page = [a(n) for n in range(3, 9)]
    assert ids(line.fill(page, at(21))) == [3, 4, 5, 6, 7]
    assert (line.refilled, line.last_id, line.wanted_id, line.due) == (3, 7, None, None)


def test_pages_of_a_long_hole_follow_at_once() -> None:
    line = TradeSequence()
    take(line, a(1), a(10))
    assert ids(line.fill([a(2), a(3)], at(20))) == [2, 3]
    assert (line.wanted_id, due_s(line)) == (4, 20)
    assert ids(line.fill([a(n) for n in range(4, 10)], at(21))) == [*range(4, 11)]


def test_a_page_with_a_hole_of_its_own_is_taken_up_to_there() -> None:
    line = TradeSequence()
    take(line, a(1), a(10))
    assert ids(line.fill([a(2), a(4), a(5)], at(20))) == [2]
    assert line.wanted_id == 3


def test_live_trades_that_were_late_close_a_hole_by_themselves() -> None:
    """Two connections: the slower one brings what the other lost."""
    line = TradeSequence()
    take(line, a(1))
    assert take(line, a(5), a(3), a(5), a(3)) == []
    assert ids(take(line, a(2), now_s=30)) == [2, 3]
    assert (line.wanted_id, due_s(line)) == (4, 10)
    assert ids(take(line, a(4))) == [4, 5]
    assert (line.wanted_id, line.due, line.refilled) == (None, None, 0)


def test_two_holes_are_asked_for_one_after_the_other() -> None:
    line = TradeSequence()
    take(line, a(1), a(3), a(5))
    assert ids(line.fill([a(2), a(3), a(4), a(5)], at(20))) == [2, 3]
    assert (line.wanted_id, due_s(line)) == (4, 20)
    assert ids(line.fill([a(4)], at(21))) == [4, 5]


def test_a_hole_that_the_exchange_does_not_fill_is_given_up_after_five_answers() -> None:
    line = TradeSequence()
    take(line, a(1), a(5), a(6))
    waits = []
    for n in range(4):
        assert line.fill([], at(20 + n)) == []
        waits.append((due_s(line) or 0) - 20 - n)
    assert waits == [2, 4, 6, 8]
    first, *rest = line.fill([], at(30))
    assert first == Break(T0 + 100, T0 + 500, DOES_NOT)
    assert ids(rest) == [5, 6]
    assert (line.last_id, line.due, line.odd) == (6, None, 0)


def test_after_a_hole_was_given_up_the_next_one_is_asked_for_at_once() -> None:
    line = TradeSequence()
    take(line, a(1), a(5), a(9))
    for _ in range(5):
        line.fill([], at(20))
    assert (line.last_id, line.wanted_id, due_s(line)) == (5, 6, 20)
    for _ in range(4):
        assert line.fill([], at(21)) == []
    assert ids(line.fill([], at(22))) == [DOES_NOT, 9]


def test_progress_makes_the_tries_begin_anew() -> None:
    line = TradeSequence()
    take(line, a(1), a(9))
    for _ in range(4):
        line.fill([], at(20))
    line.fill([a(2)], at(21))
    for _ in range(4):
        assert line.fill([], at(22)) == []
    assert ids(line.fill([], at(23))) == [DOES_NOT, 9]


def test_a_hole_about_which_nobody_can_be_asked_is_given_up_after_a_minute() -> None:
    line = TradeSequence()
    take(line, a(1), a(5), now_s=0)
    for n in range(4):
        assert line.failed(at(10 + n)) == []
        assert due_s(line) == 12 + n
    assert line.failed(at(69.999)) == []  # often enough, not long enough
    assert ids(line.failed(at(70))) == [COULD_NOT, 5]
    line = TradeSequence()
    take(line, a(1), a(5), now_s=0)
    for _ in range(3):
        line.failed(at(10))
    assert line.failed(at(1_000)) == []  # long enough, not often enough
    assert ids(line.failed(at(1_000))) == [COULD_NOT, 5]


def test_after_answers_without_news_a_failure_waits_as_long() -> None:
    line = TradeSequence()
    take(line, a(1), a(5))
    line.fill([], at(20))
    line.fill([], at(20))
    line.failed(at(30))
    assert due_s(line) == 34


def test_an_answer_with_news_makes_the_failures_begin_anew() -> None:
    line = TradeSequence()
    take(line, a(1), a(5))
    for _ in range(4):
        line.failed(at(10))
    line.fill([a(2)], at(11))
    for n in range(4):
        assert line.failed(at(100 + n)) == []
    assert line.failed(at(159)) == []
    assert ids(line.failed(at(160))) == [COULD_NOT, 5]


def test_a_new_hole_has_its_own_tries() -> None:
    line = TradeSequence()
    take(line, a(1), a(5))
    for _ in range(4):
        line.fill([], at(20))
    take(line, a(2), a(3), a(4), now_s=21)
    assert (line.last_id, line.waiting) == (5, False)
    take(line, a(9), now_s=22)
    for _ in range(4):
        assert line.fill([], at(23)) == []


def test_an_id_that_was_a_slip_is_dropped_where_the_sequence_went_on_below_it() -> None:
    line = TradeSequence()
    take(line, a(1), a(500, 200))
    assert ids(take(line, a(2), a(3))) == [2, 3]
    for _ in range(4):
        assert line.fill([], at(20)) == []
    assert line.fill([], at(21)) == []
    assert (line.odd, line.waiting, line.due, line.last_id) == (1, False, None, 3)
    assert ids(take(line, a(4))) == [4]


def test_what_waits_is_bounded() -> None:
    line = TradeSequence()
    take(line, a(0))
    steps = take(line, *(a(n) for n in range(2, MAX_WAITING + 2)))
    assert steps == []  # however long a ban lasts, what follows what waits belongs to it
    steps = take(line, a(MAX_WAITING + 2))
    assert ids(steps[:2]) == ["too many trades wait", 2]
    assert len(steps) == MAX_WAITING + 2
    assert not line.waiting


# Restarts and slips


def test_ids_that_begin_anew_are_believed_when_three_agree() -> None:
    """A relisting, a test network."""
    line = TradeSequence()
    take(line, a(1_000, 0))
    rows = [a(1, 5_000), a(2, 5_100), a(3, 5_200)]
    assert take(line, *rows[:2]) == []
    found = take(line, rows[2])
    assert found == [Break(T0, T0 + 5_000, ANEW), *rows]
    assert (line.restarts, line.last_id, line.reached_ms, line.odd) == (1, 3, T0 + 5_100, 0)
    assert ids(take(line, a(4, 5_300))) == [4]


def test_absurd_times_in_a_row_do_not_hide_ids_that_begin_anew() -> None:
    """Two trades were dated into another year.  What follows says that it is not so."""
    line = TradeSequence()
    far_ms = 10**12
    take(line, a(1_000, 0), a(1_001, far_ms), a(1_002, far_ms), a(1_003, 300), a(1_004, 400))
    assert line.reached_ms == T0 + far_ms
    take(line, a(1_005, 500))
    assert line.reached_ms == T0 + 400
    take(line, a(1_003, 300))
    assert (line.repeated, line.unsure) == (1, False)
    assert ids(take(line, *(a(n, 5_000 + n) for n in (1, 2, 3)))) == [ANEW, 1, 2, 3]


def test_disorder_of_a_second_leaves_what_was_reached() -> None:
    line = TradeSequence()
    take(line, a(1, 2_000), a(2, 2_000), *(a(n, 1_000) for n in range(3, 9)))
    assert line.reached_ms == T0 + 2_000
    take(line, a(9, 999), a(10, 999), a(11, 2_000), a(12, 999), a(13, 999))
    assert line.reached_ms == T0 + 2_000


def test_a_gap_beyond_repair_is_believed_when_three_agree() -> None:
    line = TradeSequence()
    take(line, a(1))
    far = 1 + MAX_HOLE
    assert take(line, a(far, 500)) == []
    assert line.wanted_id == 2  # as far as can be fetched
    line = TradeSequence()
    take(line, a(1))
    rows = [a(far + 1 + n, 500 + n) for n in range(3)]
    assert take(line, *rows[:2]) == []
    assert line.wanted_id is None
    assert take(line, rows[2]) == [Break(T0 + 100, T0 + 500, MORE), *rows]
    assert line.restarts == 0


def test_where_the_exchange_cannot_be_asked_each_gap_is_beyond_repair() -> None:
    line = TradeSequence(refill=False)
    take(line, a(1))
    rows = [a(3), a(4), a(5)]
    assert take(line, *rows) == [Break(T0 + 100, T0 + 300, MORE), *rows]
    assert ids(take(line, a(6))) == [6]


def test_what_waited_when_the_ids_began_anew_is_odd() -> None:
    line = TradeSequence()
    take(line, a(1_000, 0), a(1_005, 100), a(1_006, 200))
    found = take(line, *(a(n, 5_000) for n in (1, 2, 3)))
    assert ids(found) == [ANEW, 1, 2, 3]
    assert (line.odd, line.waiting, line.due) == (2, False, None)


def test_one_trade_of_elsewhere_changes_nothing() -> None:
    line = TradeSequence()
    take(line, a(1_000, 0))
    assert ids(take(line, a(1, 5_000), a(2, 5_000), a(1_001, 100))) == [1_001]
    assert (line.odd, line.restarts) == (2, 0)
    assert take(line, a(3, 5_000), a(4, 5_000)) == []  # they do not add up with those before
    assert ids(take(line, a(9_001_001, 200), a(1_002, 300))) == [1_002]
    assert line.odd == 5


def test_the_sequence_that_goes_on_behind_a_hole_drops_what_was_elsewhere() -> None:
    line = TradeSequence()
    take(line, a(1_000, 0))
    take(line, a(1, 5_000), a(2, 5_000))
    assert take(line, a(1_002, 100)) == []  # waits for 1001
    assert line.odd == 2
    assert take(line, a(3, 5_000)) == []
    assert line.restarts == 0


def test_strangers_that_do_not_agree_with_each_other_are_no_sequence() -> None:
    line = TradeSequence()
    take(line, a(1_000, 0))
    assert take(line, a(10, 5_000), a(5, 5_000), a(4, 5_000), a(3, 5_000)) == []
    assert line.odd == 3
    assert take(line, a(4, 5_000), a(4, 5_000)) == []  # the same once more, over another connection
    assert ids(take(line, a(5, 5_000))) == [ANEW, 3, 4, 5]


@pytest.mark.parametrize(("later_ms", "agree"), [(4_000, True), (3_999, False)])
def test_a_second_of_disorder_is_no_disagreement(later_ms: int, agree: bool) -> None:
    line = TradeSequence()
    take(line, a(1_000, 0))
    found = take(line, a(1, 5_000), a(2, later_ms), a(3, 5_000))
    assert ids(found) == ([ANEW, 1, 2, 3] if agree else [])


@pytest.mark.parametrize(("far", "agree"), [(MAX_HOLE, True), (MAX_HOLE + 1, False)])
def test_ids_of_one_sequence_are_near_each_other(far: int, agree: bool) -> None:
    line = TradeSequence()
    take(line, a(9_000_000, 0))
    found = take(line, a(1, 5_000), a(1 + far, 5_000), a(2 + far, 5_000))
    assert bool(found) is agree


# Restarts of the service


def test_what_was_traded_since_a_stored_id_shows_as_missing() -> None:
    line = TradeSequence()
    line.resume(5, T0 + 500)
    assert (line.wanted_id, line.due) == (None, None)
    assert take(line, a(9)) == []
    assert (line.wanted_id, line.gap_ms) == (6, (T0 + 500, T0 + 900))
    assert ids(line.fill([a(6), a(7), a(8)], at(20))) == [6, 7, 8, 9]


def test_an_answer_that_is_not_wanted_any_more_changes_nothing() -> None:
    line = TradeSequence()
    assert line.fill([a(1)], at(1)) == []
    take(line, a(1))
    assert line.fill([a(2)], at(1)) == []
    assert (line.last_id, line.due) == (1, None)


@given(st.integers(0, 2**32))
def test_in_any_order_each_comes_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    line = TradeSequence()
    rows = [a(n) for n in range(60)]
    steps = take(line, rows[0])
    arrivals = [(n + chance.uniform(0, 8), row) for n, row in enumerate(rows[1:]) for _ in "12"]
    arrivals = [one for one in arrivals if chance.random() < 0.8]
    for _, row in sorted(arrivals, key=lambda one: one[0]):
        steps += line.take(row, at(10))
        if line.wanted_id is not None and chance.random() < 0.2:
            steps += line.fill(rows[line.wanted_id : line.wanted_id + 5], at(10))
    while line.wanted_id is not None:
        steps += line.fill(rows[line.wanted_id :], at(10))
    assert ids(steps) == list(range(len(steps)))
    assert line.odd == 0


def test_a_late_trade_of_the_past_is_told_by_its_time() -> None:
    """An old id with a newer time is no repetition."""
    line = TradeSequence()
    take(line, a(10, 1_000))
    take(line, evolve(a(3), time_ms=T0 + 1_001))
    assert (line.repeated, line.odd) == (0, 0)
    take(line, evolve(a(3), time_ms=T0 + 1_000))
    assert line.repeated == 1
