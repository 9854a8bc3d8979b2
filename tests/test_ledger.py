"""The line of closed candles: in order, each once, without a hole; when it asks for what."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.engine import MONO_0, WALL_FAST_MS, at, since_t0
from support.make import MINUTE, SERIES, T0, kline

from trio_feed.core.asking import Policy
from trio_feed.core.calendar import Grid, grid_of
from trio_feed.core.effects import CandleNews
from trio_feed.core.ledger import Ledger
from trio_feed.core.opening import End, open_ledger
from trio_feed.instants import Now
from trio_feed.model import Hole, Interval, Series

M = 60.0
"""A minute in seconds."""


def ledger(*, fresh: bool = False, policy: Policy | None = None, **more: Any) -> Ledger:
    """A ledger that expects the candle at T0."""
    grid = grid_of(SERIES.interval)
    return Ledger(SERIES, T0 - MINUTE, fresh, grid, policy or Policy(), **more)


def see(
    book: Ledger,
    n: float,
    *,
    closed: bool,
    event_ms: int = 0,
    now: Now | None = None,
    close: str = "100.50",
    volume: str = "1.500",
) -> list[CandleNews]:
    open_ms = T0 + int(n * MINUTE)
    row = kline(open_ms, close, closed=closed, event_ms=event_ms, volume=volume)
    return book.observe(row, now or at((row.event_ms - T0) / 1000))


def closes(news: Iterable[CandleNews]) -> list[int]:
    return [(m.kline.open_ms - T0) // MINUTE for m in news if m.kline.closed]


def rows(*numbers: int) -> list[Any]:
    return [kline(T0 + n * MINUTE) for n in numbers]


def due_s(book: Ledger, now: Now) -> float:
    return since_t0(book.due(now))


# What the stream says


def test_updates_then_one_close() -> None:
    book = ledger()
    out = [*see(book, 0, closed=False), *see(book, 0, closed=False, event_ms=T0 + 2)]
    assert book.current is not None
    out += see(book, 0, closed=True)
    assert [m.update_count for m in out] == [1, 2, 3]
    assert [m.kline.closed for m in out] == [False, False, True]
    assert {(m.series, m.revision, m.provisional) for m in out} == {(SERIES, False, False)}
    assert out[1].received_ms == T0 + 2 + WALL_FAST_MS
    assert (book.current, book.fresh) == (None, False)
    assert see(book, 1, closed=False)[0].update_count == 1


def test_each_candle_names_the_closed_one_before_it() -> None:
    book = ledger()
    assert see(book, 0, closed=False)[0].after_ms is None  # nothing is stored before it
    assert see(book, 0, closed=True)[0].after_ms is None
    assert see(book, 1, closed=False)[0].after_ms == T0
    assert see(book, 1, closed=True)[0].after_ms == T0
    assert book.told_ms == T0 + MINUTE
    book.skip(T0 + 5 * MINUTE)
    assert see(book, 5, closed=True)[0].after_ms == T0 + MINUTE  # over the hole
    known = ledger(told_ms=T0 - MINUTE)
    assert see(known, 0, closed=False)[0].after_ms == T0 - MINUTE


def test_where_the_line_begins() -> None:
    book = ledger()
    assert book.first_ms is None
    see(book, 0, closed=False)
    assert book.first_ms is None
    see(book, 0, closed=True)
    see(book, 1, closed=True)
    assert (book.first_ms, book.closed_ms, book.expected) == (T0, T0 + MINUTE, T0 + 2 * MINUTE)


def test_a_second_close_and_a_late_update_go_nowhere() -> None:
    book = ledger()
    see(book, 0, closed=True)
    assert see(book, 0, closed=True) == []
    assert see(book, 0, closed=False) == []
    assert see(book, -7, closed=True) == []  # of before the line: not known, not news


def test_a_changed_close_is_a_revision_not_a_second_close() -> None:
    book = ledger()
    see(book, 0, closed=False)
    see(book, 0, closed=True)
    see(book, 1, closed=False)
    (again,) = see(book, 0, closed=True, close="100.60")
    assert (again.kline.closed, again.revision, again.update_count) == (True, True, 1)
    assert (str(again.kline.close), again.provisional) == ("100.60", False)
    assert again.received_ms == T0 + MINUTE + WALL_FAST_MS
    assert see(book, 0, closed=True, close="100.60") == []
    (update,) = see(book, 1, closed=False, event_ms=T0 + MINUTE + 2)
    assert (update.update_count, update.revision) == (2, False)


def test_an_older_state_of_a_closed_candle_is_no_revision() -> None:
    book = ledger()
    see(book, 0, closed=True, close="100.60", event_ms=T0 + MINUTE + 50)
    assert see(book, 0, closed=True, close="100.50", event_ms=T0 + MINUTE) == []
    (again,) = see(book, 0, closed=True, close="100.65", event_ms=T0 + MINUTE + 50)
    assert again.revision  # of the same time is not older
    (again,) = see(book, 0, closed=True, close="100.70", event_ms=T0 + MINUTE + 99)
    assert again.revision


def test_a_slower_connection_does_not_take_a_revision_back() -> None:
    """OKX's candles say nothing of when; the second connection brings the old values late."""
    book = ledger()
    old, new = (evolve(kline(T0, close), event_ms=0) for close in ("100.50", "100.60"))
    assert len(book.observe(old, at(M))) == 1
    assert [m.revision for m in book.observe(new, at(M))] == [True]
    assert book.observe(old, at(M)) == []
    assert book.observe(new, at(M)) == []


def test_only_the_latest_closes_are_remembered_for_comparison() -> None:
    book = ledger()
    for n in range(6):
        see(book, n, closed=True)
    assert see(book, 0, closed=True, close="100.60") == []  # six back: not known any more
    assert [m.revision for m in see(book, 1, closed=True, close="100.60")] == [True]


def test_an_update_older_than_the_last_one_is_dropped() -> None:
    book = ledger()
    see(book, 0, closed=False, event_ms=T0 + 500)
    assert see(book, 0, closed=False, event_ms=T0 + 400, volume="9") == []
    assert len(see(book, 0, closed=False, event_ms=T0 + 501)) == 1


def test_the_same_update_over_a_second_connection_counts_once() -> None:
    book = ledger()
    first = kline(T0, "100.50", closed=False, volume="1")
    second = kline(T0, "100.40", closed=False, volume="2")  # of the same millisecond
    out = [m for row in (first, second, first, second) for m in book.observe(row, at(0.1))]
    assert [m.kline for m in out] == [first, second]


# What lies ahead


def test_live_candles_wait_behind_a_hole_and_follow_it_in_order() -> None:
    book = ledger()
    assert see(book, 1, closed=True) == []
    (ahead,) = see(book, 3, closed=False)
    assert (ahead.provisional, ahead.update_count, ahead.after_ms) == (True, 1, None)
    assert ahead.received_ms == T0 + 3 * MINUTE + 1 + WALL_FAST_MS
    assert see(book, 2, closed=True) == []
    assert book.holding
    out = book.fill(rows(0), at(3 * M))
    assert closes(out) == [0, 1, 2]
    assert out[-1].kline.open_ms == T0 + 3 * MINUTE
    assert (out[-1].kline.closed, out[-1].provisional, out[-1].update_count) == (False, False, 1)
    assert [m.after_ms for m in out] == [None, T0, T0 + MINUTE, T0 + 2 * MINUTE]
    assert not book.holding


def test_open_updates_go_on_while_something_before_is_missing() -> None:
    """A new listing's first day: whoever asked for it sees the running candle."""
    book = ledger()
    counts = [see(book, 2, closed=False, event_ms=T0 + 2 * MINUTE + n)[0] for n in (5, 9, 9)]
    assert [(m.provisional, m.update_count) for m in counts] == [(True, 1), (True, 2), (True, 3)]
    assert see(book, 2, closed=False, event_ms=T0 + 2 * MINUTE + 8) == []  # an older one
    (other,) = see(book, 3, closed=False)
    assert (other.provisional, other.update_count) == (True, 1)
    assert book.current is None
    assert closes(book.fill(rows(0, 1, 2), at(3 * M))) == [0, 1, 2]
    assert book.current == other.kline


def test_what_waited_and_is_closed_by_rest_is_not_told_again() -> None:
    book = ledger()
    see(book, 1, closed=True)
    see(book, 2, closed=False)
    out = book.fill(rows(0, 1, 2), at(3 * M))
    assert [(m.kline.open_ms - T0) // MINUTE for m in out] == [0, 1, 2]
    assert not book.holding


def test_the_newest_that_is_known_of() -> None:
    book = ledger()
    assert book.newest_ms == T0
    see(book, 3, closed=True)
    assert book.newest_ms == T0 + 3 * MINUTE
    see(book, 5, closed=False)
    assert book.newest_ms == T0 + 5 * MINUTE


def test_what_waits_is_bounded() -> None:
    book = ledger(policy=Policy(max_waiting=3))
    for n in range(1, 10):
        see(book, n, closed=True)
    assert closes(book.fill(rows(0), at(10 * M))) == [0, 1, 2, 3]


def test_a_stream_that_goes_on_below_shows_that_the_later_one_was_a_slip() -> None:
    book = ledger()
    see(book, 0, closed=False)
    see(book, 60, closed=False, now=at(1))
    see(book, 61, closed=True, now=at(1))
    assert (book.holding, due_s(book, at(1))) == (True, 4)
    (update,) = see(book, 0, closed=False, event_ms=T0 + 2_000)
    assert (update.provisional, update.update_count) == (False, 2)
    assert not book.holding
    assert due_s(book, at(2)) == 63  # as if it had not been
    assert closes(see(book, 0, closed=True)) == [0]
    assert closes(book.fill([], at(70))) == []


# Opens off the grid


def test_a_frame_off_the_grid_is_asked_about_and_not_believed() -> None:
    book = ledger()
    assert see(book, 0.25, closed=False, now=at(20)) == []
    assert (book.holding, book.expected) == (False, T0)
    assert due_s(book, at(20)) == 20
    assert closes(see(book, 0, closed=True)) == [0]
    assert book.grid.usual


def test_a_row_off_the_grid_is_the_next_candle_and_moves_the_grid() -> None:
    """After a halt Binance's minutes have opened 14 s off; less than half a candle is the next."""
    book = ledger()
    off = evolve(kline(T0 + 14_000), closed=True)
    assert [m.kline.open_ms for m in book.fill([off], at(2 * M))] == [T0 + 14_000]
    assert (book.expected, book.grid.usual) == (T0 + 74_000, False)
    (update,) = book.observe(kline(T0 + 74_000, closed=False), at(80))
    assert not update.provisional
    far = evolve(kline(T0 + 74_000 + 30_000), closed=True)
    assert book.fill([far], at(200)) == []  # half a candle off is not the next one


def test_a_candle_that_was_cut_short_is_followed_by_an_earlier_one() -> None:
    """The exchange comes back to the full hour: a candle of 12 s, then a whole minute."""
    book = ledger()
    book.fill([kline(T0 - 12_000)], at(60))
    assert book.expected == T0 + 48_000
    odd = kline(T0, closed=False)
    assert book.observe(odd, at(61)) == []  # one frame is not believed alone
    assert due_s(book, at(61)) <= 62
    assert book.ask_from == T0 - 11_999
    (update,) = book.fill([evolve(odd, event_ms=0)], at(62))
    assert book.fill([evolve(odd, event_ms=0)], at(63)) == []
    assert (update.kline, update.provisional) == (odd, False)
    assert (book.expected, book.closed_ms, book.grid.usual) == (T0, T0 - 12_000, True)
    (news,) = see(book, 0, closed=True)
    assert (news.after_ms, book.expected) == (T0 - 12_000, T0 + MINUTE)
    assert closes(book.fill([kline(T0 - 12_000)], at(130))) == []


def test_a_closed_row_before_the_expected_one_is_the_next() -> None:
    book = ledger()
    book.fill([kline(T0 - 12_000)], at(60))
    assert closes(book.fill(rows(0, 1), at(130))) == [0, 1]
    assert book.holes == []


def test_rest_confirms_a_frame_that_opened_off_the_grid() -> None:
    book = ledger()
    odd = kline(T0 + MINUTE + 14_000, closed=False)
    book.observe(odd, at(80))
    running = evolve(odd, event_ms=0)
    out = book.fill([*rows(0), running], at(81))
    assert [(m.kline.open_ms - T0, m.kline.closed) for m in out] == [
        (0, True), (MINUTE + 14_000, False),
    ]  # fmt: skip
    assert out[1].kline is odd
    assert book.expected == T0 + MINUTE + 14_000


def test_a_frame_off_the_grid_that_rest_does_not_confirm_is_dropped() -> None:
    for other in (
        kline(T0 + MINUTE, closed=False),
        kline(T0 + MINUTE + 15_000, closed=False),
    ):
        book = ledger()
        book.observe(kline(T0 + MINUTE + 14_000, closed=False), at(80))
        assert closes(book.fill([*rows(0), other], at(81))) == [0]
        assert not book.holding
        assert book.expected == other.open_ms


# When it asks


def test_a_close_that_never_came_is_due_after_the_grace() -> None:
    book = ledger()
    see(book, 0, closed=False)
    assert due_s(book, at(0)) == due_s(book, at(10)) == 63
    see(book, 1, closed=False, now=at(60.1))
    assert due_s(book, at(60.1)) == 63.1
    see(book, 1, closed=False, event_ms=T0 + 61_000, now=at(61))
    assert due_s(book, at(61)) == 63.1


def test_only_the_monotonic_clock_waits() -> None:
    book = ledger()
    assert due_s(book, at(10, exchange_s=50)) == 23  # 10 s to its end and 3 s of grace


def test_a_late_close_within_the_grace_needs_no_question() -> None:
    book = ledger()
    see(book, 0, closed=False)
    see(book, 1, closed=False)
    out = see(book, 0, closed=True)
    assert closes(out) == [0]
    assert out[-1].kline.open_ms == T0 + MINUTE
    assert due_s(book, at(60)) == 123


def test_a_reconnect_that_crossed_an_end_asks_at_once() -> None:
    book = ledger()
    book.resumed(at(59.9))
    assert due_s(book, at(59.9)) == 63
    book.resumed(at(60))
    assert due_s(book, at(60)) == 60
    see(book, 1, closed=False, now=at(61))
    assert due_s(book, at(61)) == 60  # what is asked for at once is not put off


def test_behind_is_what_is_missing_two_graces_after_its_end() -> None:
    book = ledger()
    assert not book.behind(at(66))
    assert book.behind(at(66.001))


def test_questions_without_progress_back_off() -> None:
    book = ledger()
    now, waits = 60.0, []
    for _ in range(8):
        book.failed(at(now))
        waits.append(due_s(book, at(now)) - now)
        now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    closes(book.fill(rows(0), at(now)))
    book.failed(at(now))
    assert due_s(book, at(now)) == now + 2


def test_a_close_ends_the_backoff() -> None:
    book = ledger()
    for _ in range(4):
        book.failed(at(60))
    see(book, 0, closed=True)
    assert due_s(book, at(61)) == 123
    book.failed(at(123))
    assert due_s(book, at(123)) == 125


def test_very_many_failures_do_not_overflow() -> None:
    book = ledger(policy=Policy(retry_max_s=1e9))
    for _ in range(2_000):
        book.failed(at(0))
    assert due_s(book, at(0)) == 2 * 2**10


def test_an_answer_without_news_backs_off_like_a_failure() -> None:
    book = ledger()
    assert book.fill([], at(63)) == []
    assert due_s(book, at(63)) == 65
    see(book, 1, closed=False, now=at(63.5))  # no reason to hurry: a retry is planned
    assert due_s(book, at(63.5)) == 65


def test_pages_follow_each_other_without_waiting() -> None:
    book = ledger()
    now = at(10 * M + 0.005)
    book.resumed(now)
    assert closes(book.fill(rows(0, 1), now)) == [0, 1]
    assert book.due(now) == now.mono
    rest = [*rows(*range(2, 10)), kline(T0 + 10 * MINUTE, closed=False)]
    assert closes(book.fill(rest, now)) == [*range(2, 10)]
    assert due_s(book, now) == 11 * M + 3


def test_what_is_held_asks_on_after_progress() -> None:
    book = ledger()
    see(book, 4, closed=False, now=at(4 * M + 1))
    book.fill(rows(0, 1), at(4 * M + 1))
    assert due_s(book, at(4 * M + 1)) == 4 * M + 1
    other = ledger()
    see(other, 4, closed=True, now=at(61))  # of a time that has not come
    other.fill(rows(0), at(61))
    assert (other.holding, due_s(other, at(61))) == (True, 61)


# Holes


def test_a_hole_of_the_exchange_is_believed_only_when_confirmed() -> None:
    book = ledger()
    page = rows(0, 3, 4)
    assert closes(book.fill(page, at(300))) == [0]
    assert closes(book.fill(page, at(300))) == []  # the page before had news: it counts from here
    assert closes(book.fill(page, at(340))) == []
    assert closes(book.fill(page, at(350))) == [3, 4]
    assert book.holes == [Hole(T0 + MINUTE, T0 + 2 * MINUTE)]


def test_a_hole_needs_three_answers_and_thirty_seconds() -> None:
    book = ledger()
    page = rows(1, 2)
    assert book.fill(page, at(300)) == []
    assert book.fill(page, at(331)) == []  # long ago, but twice only
    assert closes(book.fill(page, at(331))) == [1, 2]
    book = ledger()
    for second in range(300, 330):
        assert book.fill(page, at(second)) == []
    assert closes(book.fill(page, at(330))) == [1, 2]
    assert book.holes == [Hole(T0, T0)]


def test_a_close_in_between_makes_the_sightings_begin_anew() -> None:
    book = ledger()
    page = rows(2)
    book.fill(page, at(300))
    book.fill(page, at(320))
    see(book, 0, closed=True)
    assert book.fill(page, at(340)) == []
    assert book.fill(page, at(369)) == []
    assert closes(book.fill(page, at(370))) == [2]
    assert book.holes == [Hole(T0 + MINUTE, T0 + MINUTE)]


def test_the_next_hole_is_confirmed_by_answers_of_its_own() -> None:
    book = ledger()
    for n, seconds in ((5, (310, 325, 340)), (9, (600, 631, 632))):
        before = book.expected
        for second in seconds:
            assert book.expected == before
            book.fill([kline(T0 + n * MINUTE, closed=False)], at(second))
        assert book.expected == T0 + n * MINUTE
    assert book.holes == [Hole(T0, T0 + 4 * MINUTE), Hole(T0 + 5 * MINUTE, T0 + 8 * MINUTE)]


def test_a_running_candle_shows_a_hole_as_well_as_a_closed_one() -> None:
    """After a halt nothing closes for hours; the running candle is there at once."""
    book = ledger()
    running = [kline(T0 + 5 * MINUTE, closed=False)]
    for second in (310, 325):
        assert book.fill(running, at(second)) == []
        assert book.expected == T0
    assert book.fill(running, at(340)) == []
    assert (book.expected, book.holes) == (T0 + 5 * MINUTE, [Hole(T0, T0 + 4 * MINUTE)])
    assert len(see(book, 5, closed=False)) == 1


def test_a_question_that_failed_confirms_no_hole() -> None:
    book = ledger()
    for second in range(0, 300, 60):
        book.failed(at(180 + second))
    assert book.fill(rows(1), at(500)) == []
    assert closes(book.fill(rows(0, 1), at(501))) == [0, 1]
    assert book.holes == []


def test_an_answer_of_which_rows_could_not_be_read_proves_no_hole() -> None:
    book = ledger()
    for second in (300, 320, 340, 360):
        assert book.fill(rows(1), at(second), whole=False) == []
        assert book.fill([], at(second), until_ms=T0 + MINUTE, whole=False) == []
    assert (book.holes, book.expected) == ([], T0)
    assert closes(book.fill(rows(0, 2), at(361), whole=False)) == [0]


def test_a_fresh_series_begins_where_the_history_begins() -> None:
    book = ledger(fresh=True)
    assert closes(book.fill(rows(7, 8), at(9 * M))) == [7, 8]
    assert (book.holes, book.first_ms, book.fresh) == ([], T0 + 7 * MINUTE, False)


def test_an_answer_that_is_empty_by_its_bounds_says_that_there_is_nothing() -> None:
    until = T0 + 30 * MINUTE
    book = ledger(fresh=True)
    assert book.fill([], at(100 * M), until_ms=until) == []
    assert (book.expected, book.holes) == (until, [])
    assert due_s(book, at(100 * M)) == 100 * M  # go on at once
    book = ledger()
    for after in (0, 20, 30):
        assert book.expected == T0
        book.fill([], at(100 * M + after), until_ms=until)
    assert book.expected == until
    assert book.holes == [Hole(T0, until - MINUTE)]


def test_that_there_is_nothing_is_believed_of_what_is_long_over_only() -> None:
    book = ledger(fresh=True)
    book.fill([], at(30 * M + 5.999), until_ms=T0 + 30 * MINUTE)
    assert book.expected == T0
    book.fill([], at(30 * M + 6), until_ms=T0 + 30 * MINUTE + 59_000)
    assert book.expected == T0 + 30 * MINUTE


def test_what_nobody_can_supply_is_skipped_and_recorded() -> None:
    book = ledger()
    see(book, 0, closed=False)
    book.skip(T0)
    assert book.holes == []
    book.skip(T0 + 2 * MINUTE)
    assert book.holes == [Hole(T0, T0 + MINUTE)]
    assert book.current is None
    (update,) = see(book, 2, closed=False)
    assert update.update_count == 1
    assert closes(see(book, 2, closed=True)) == [2]
    fresh = ledger(fresh=True)
    fresh.skip(T0 + 2 * MINUTE)
    assert fresh.holes == []


# The beginning


def test_a_new_ledger_wants_its_history() -> None:
    grid, policy = grid_of(Interval.M1), Policy()
    book = open_ledger(SERIES, None, 10, grid, at(30), policy)
    assert (book.expected, book.fresh, book.told_ms) == (T0 - 10 * MINUTE, True, None)
    assert due_s(book, at(30)) == -9 * M + 3
    end = End(kline(T0 - 3 * MINUTE), settled_ms=T0 - MINUTE)
    again = open_ledger(SERIES, end, 10, grid, at(30), policy)
    assert (again.expected, again.fresh, again.told_ms) == (T0, False, T0 - 3 * MINUTE)
    assert again.policy is policy


def test_a_stored_end_off_the_grid_is_gone_on_from() -> None:
    end = End(kline(T0 + 14_000), settled_ms=T0 + 14_000)
    book = open_ledger(SERIES, end, 0, grid_of(Interval.M1), at(30), Policy())
    assert (book.expected, book.grid.usual) == (T0 + 74_000, False)


def test_a_month_is_the_calendars() -> None:
    series = Series("binance", "BTCUSDT", Interval.MO1)
    book = open_ledger(series, None, 2, Grid(Interval.MO1, 0), at(0), Policy())
    assert book.expected == 1_693_526_400_000  # 2023-09-01; T0 is in November


def test_a_fresh_series_begins_with_what_runs_when_history_does_not_come() -> None:
    book = ledger(fresh=True)
    assert book.begin_with_what_runs(at(0)) == []  # nothing is held
    see(book, 5, closed=True, now=at(360))
    see(book, 6, closed=False, now=at(361))
    assert book.begin_with_what_runs(at(369.9)) == []
    out = book.begin_with_what_runs(at(370))
    assert [(m.kline.open_ms - T0) // MINUTE for m in out] == [5, 6]
    assert [m.provisional for m in out] == [False, False]
    assert (book.holes, book.fresh, book.first_ms) == ([], False, T0 + 5 * MINUTE)
    assert book.begin_with_what_runs(at(900)) == []


def test_a_series_with_history_does_not_begin_anew() -> None:
    book = ledger()
    see(book, 5, closed=False, now=at(301))
    assert book.begin_with_what_runs(at(9_000)) == []
    assert book.expected == T0


def test_a_fresh_series_without_anything_closed_begins_with_the_running_candle() -> None:
    book = ledger(fresh=True)
    see(book, 6, closed=False, now=at(361))
    (out,) = book.begin_with_what_runs(at(371))
    assert (out.kline.open_ms, out.provisional) == (T0 + 6 * MINUTE, False)
    assert (book.expected, book.first_ms) == (T0 + 6 * MINUTE, None)


def test_a_fresh_series_asks_from_where_now_is_known_to_be() -> None:
    """The clock was an hour ahead when the ledger was made."""
    book = ledger(fresh=True)
    book.begin_before(at(-3_590), 10)
    assert book.expected == T0 - 70 * MINUTE
    see(book, -60, closed=False, now=at(-3_590))
    book.begin_before(at(0), 10)
    assert book.expected == T0 - 70 * MINUTE  # live updates wait for it
    old = ledger()
    old.begin_before(at(-3_590), 10)
    assert old.expected == T0


def test_a_live_candle_before_the_guessed_beginning_makes_a_fresh_series_ask() -> None:
    book = ledger(fresh=True)
    assert see(book, -60, closed=True, now=at(-3_540)) == []
    assert due_s(book, at(-3_540)) == -3_540
    old = ledger()
    see(old, -60, closed=True, now=at(-3_540))
    assert due_s(old, at(-3_540)) == 63


def test_a_series_that_nobody_can_fill_begins_with_its_first_candle() -> None:
    for n in (-5, 5):
        book = ledger(fresh=True)
        book.begin_at(T0 + n * MINUTE)
        assert (book.expected, book.holes) == (T0 + n * MINUTE, [])
    old = ledger()
    old.begin_at(T0 + 5 * MINUTE)
    assert old.expected == T0


# Anything in any order


@given(st.integers(0, 2**32))
def test_any_order_of_deliveries_gives_every_close_once_in_order(seed: int) -> None:
    chance = random.Random(seed)
    total = 30
    book = ledger()
    out: list[CandleNews] = []
    for n in range(total):
        for closed in (False, False, True):
            if chance.random() < 0.6:
                out += see(book, n, closed=closed)
        if chance.random() < 0.2:
            out += see(book, chance.randrange(n + 1), closed=chance.random() < 0.5)
        if chance.random() < 0.3:
            page = [kline(T0 + i * MINUTE) for i in range(n + 1)]
            page = [row for row in page if row.open_ms >= book.expected]
            out += book.fill(page[: chance.randrange(n + 2)], at(n * M))
    first = (book.expected - T0) // MINUTE
    out += book.fill(rows(*range(first, total)), at(total * M))
    assert closes(out) == list(range(total))
    told = [m for m in out if not m.provisional]
    assert [m.kline.open_ms for m in told] == sorted(m.kline.open_ms for m in told)
    assert [m.after_ms for m in told if m.kline.closed] == [
        None if n == 0 else T0 + (n - 1) * MINUTE for n in range(total)
    ]
    assert book.holes == []


@pytest.mark.parametrize("closed", [False, True])
def test_clocks_do_not_mix(closed: bool) -> None:
    """The exchange's calendar is ten minutes behind ours: nothing is overdue."""
    book = ledger()
    now = at(600, exchange_s=1)
    see(book, 0, closed=closed, now=now)
    assert due_s(book, now) == 600 + (122 if closed else 62)
    assert float(book.due(now)) > MONO_0


def test_a_candle_made_here_revises_only_as_a_closed_one() -> None:
    book = ledger()
    (news,) = book.made(rows(0)[0], at(60))
    assert (closes([news]), news.revision) == ([0], False)
    assert book.made(kline(T0, "100.60", closed=False), at(61)) == []
    (news,) = book.made(kline(T0, "100.60"), at(61))
    assert (closes([news]), news.revision) == ([0], True)
