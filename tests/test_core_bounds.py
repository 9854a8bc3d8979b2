"""Edges of the core: the last that counts one way, the first that counts the other."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal as D
from typing import Any

import pytest
from attrs import evolve
from support.books import SPOT
from support.engine import at
from support.make import MINUTE, T0
from test_arbitration import ordered, ticker, top
from test_arbitration import update as held_update
from test_book import levels, live, update, whole
from test_cadence import learned

from trio_feed.core import calendar
from trio_feed.core.arbitration import Arbitration
from trio_feed.core.book import Book, BookPolicy, Outcome, State
from trio_feed.core.cadence import Cadence
from trio_feed.core.calendar import Grid, grid_of
from trio_feed.core.channels import CHANNELS
from trio_feed.core.clock import ExchangeClock
from trio_feed.core.clock_monitor import ClockJudged, ClockMonitor, ClockStepped
from trio_feed.core.effects import ChannelNews
from trio_feed.core.health import Health
from trio_feed.core.levels import Side
from trio_feed.core.tickers import TickerChannel
from trio_feed.instants import Mono, Wall
from trio_feed.model import BookTop, Channel, ChannelKey, Interval, Source, StreamState, Ticker

# ---------------------------------------------------------------- arbitration


def is_new(firsts: Arbitration, event: Ticker | BookTop, at: Mono) -> bool:
    return firsts.is_new(event, CHANNELS[Channel.TICKER].events[type(event)](event), at)


@pytest.mark.parametrize(("pause_s", "believed"), [(10.0, False), (10.1, True)])
def test_numbers_that_begin_anew_wait_ten_seconds(pause_s: float, believed: bool) -> None:
    firsts = Arbitration()
    assert is_new(firsts, top(9), Mono(5))
    assert is_new(firsts, top(3), Mono(5 + pause_s)) is believed
    assert is_new(firsts, top(4), Mono(5 + pause_s)) is believed


def test_sixteen_others_of_one_millisecond_are_remembered() -> None:
    firsts = Arbitration()
    rows = [ticker(T0, str(n)) for n in range(1, 19)]
    assert [is_new(firsts, row, Mono(0)) for row in rows] == [True] * 18
    assert not is_new(firsts, rows[1], Mono(0))  # the last seventeen are known
    assert is_new(firsts, rows[0], Mono(0))


def test_a_ticker_and_a_best_price_do_not_know_each_other() -> None:
    firsts = Arbitration()
    assert is_new(firsts, ticker(T0 + 9), Mono(0))
    assert is_new(firsts, top(0, T0), Mono(0))  # without an id its time orders it
    assert not is_new(firsts, top(0, T0), Mono(0))
    assert all(is_new(firsts, top(0, 0), Mono(0)) for _ in range(2))


@pytest.mark.parametrize(("pause_s", "gap"), [(2.0, False), (2.1, True)])
def test_how_long_an_update_waits_for_those_before_it(pause_s: float, gap: bool) -> None:
    firsts = Arbitration(hold_books_s=2.0)
    assert ordered(firsts, [held_update(1)]) == [held_update(1)]
    assert ordered(firsts, [held_update(5)], 10) == []
    found = ordered(firsts, [held_update(4)], 10 + pause_s)
    assert found == ([held_update(4), held_update(5)] if gap else [])
    # The wait begins with the first that is held, each time.
    if gap:
        assert ordered(firsts, [held_update(9)], 10 + pause_s) == []
        assert ordered(firsts, [held_update(6)], 10 + pause_s) == [held_update(6)]


def test_what_is_held_follows_as_far_as_it_reaches() -> None:
    firsts = Arbitration(hold_books_s=9.0)
    ordered(firsts, [held_update(1)])
    assert ordered(firsts, [held_update(n) for n in (6, 3, 4)]) == []
    assert [row.last_id for row in ordered(firsts, [held_update(2)])] == [2, 3, 4]
    assert [row.last_id for row in ordered(firsts, [held_update(5)])] == [5, 6]
    assert [row.last_id for row in ordered(firsts, [held_update(3)])] == [3]  # a copy passes
    assert [row.last_id for row in ordered(firsts, [held_update(7)])] == [7]


# ---------------------------------------------------------------- cadence


@pytest.mark.parametrize(("gaps", "known"), [(7, False), (8, True)])
def test_from_how_many_gaps_something_is_expected(gaps: int, known: bool) -> None:
    cadence, _ = learned([2.0] * gaps)
    assert cadence.learned is known
    assert cadence.allowed_s == (3.0 if known else 60.0)


@pytest.mark.parametrize(("gap", "counts"), [(0.09, False), (0.11, True)])
def test_what_comes_at_once_is_one(gap: float, counts: bool) -> None:
    cadence = Cadence(3.0, 0.5, 60.0)
    cadence.begin(100.0)
    cadence.arrived(100.0 + gap)
    assert (cadence.last > 100.0) is counts


def test_what_is_allowed_has_a_floor_and_a_ceiling() -> None:
    for floor_s, most_s, allowed in ((0.5, 60.0, 15.0), (20.0, 60.0, 20.0), (0.5, 7.0, 7.0)):
        cadence = Cadence(3.0, floor_s, 60.0, most_s)
        cadence.begin(0.0)
        for n in range(1, 11):
            cadence.arrived(10.0 * n)
        assert cadence.allowed_s == pytest.approx(allowed)
        assert cadence.suspect_at == pytest.approx(100 + allowed)


def test_the_expected_gap_is_weighted_by_length() -> None:
    cadence, _ = learned([1.0, 3.0])
    assert cadence.gap_s == pytest.approx((1 + 9) / 4)
    assert cadence.grace_s == pytest.approx(1.5 * 1.01)  # about the shortest gap
    assert learned([0.2] * 9)[0].grace_s == 1.0  # what is on its way has a second at least


def test_a_calm_is_put_off_by_as_long_as_it_lasted() -> None:
    cadence, now = learned([1.0] * 100, floor_s=5.0)
    cadence.confirm_quiet(now + 5)
    assert cadence.suspect_at == now + 10
    assert cadence.is_confirmed(now + 9)
    assert not cadence.is_confirmed(now + 10)
    cadence.confirm_quiet(now + 1000)
    assert cadence.suspect_at == now + 1300  # never for longer than five minutes
    cadence.begin(now + 2000)
    assert not cadence.is_confirmed(now + 2000)
    assert cadence.suspect_at == now + 2005


def test_a_calm_is_never_put_off_for_twice_what_is_allowed_at_most() -> None:
    cadence = Cadence(3.0, 0.5, 60.0, 7.0)
    cadence.begin(0.0)
    for n in range(1, 11):
        cadence.arrived(10.0 * n)
    cadence.confirm_quiet(1_000.0)
    assert cadence.suspect_at == 1_014.0


# ---------------------------------------------------------------- clocks


def test_a_clock_at_its_edges() -> None:
    clock = ExchangeClock(Mono(10), Wall(T0 + 10_000.0))
    assert (float(clock.at(Mono(11))), clock.known) == (T0 + 11_000, False)
    assert clock.evidence(Mono(11)) is None
    assert clock.error_of(Wall(0.0), Mono(11)) is None
    assert clock.note(T0 + 12_000 + 2_001, Mono(12)) is False
    assert not clock.known  # beyond the tolerance
    assert clock.note(T0 + 12_000 + 2_000, Mono(12)) is True  # by more than a second
    assert float(clock.at(Mono(12))) == T0 + 14_000
    assert clock.error_of(Wall(T0 + 15_000.0), Mono(12)) == 1_000
    assert clock.note(T0 + 15_000, Mono(12)) is False  # by a second is no step
    assert float(clock.at(Mono(12))) == T0 + 15_000
    for odd in (0, -1, 2**53):
        assert clock.note(odd, Mono(12)) is False


@pytest.mark.parametrize(("passed_s", "forgotten"), [(59.9, False), (60.0, True)])
def test_the_smallest_delay_of_two_windows(passed_s: float, forgotten: bool) -> None:
    clock = ExchangeClock(Mono(0), Wall(float(T0)))
    clock.note(T0 + 1_000, Mono(0))  # a second faster than all that follow
    for mono in (passed_s, 2 * passed_s):
        clock.note(T0 + int(mono * 1000), Mono(mono))
    assert (float(clock.at(Mono(0))) == T0) is forgotten


@pytest.mark.parametrize(("quiet_s", "falls"), [(119.9, False), (120.0, True)])
def test_late_messages_are_believed_after_two_minutes(quiet_s: float, falls: bool) -> None:
    clock = ExchangeClock(Mono(0), Wall(float(T0)))
    clock.note(T0, Mono(0))
    for mono in (quiet_s - 2, quiet_s - 1, quiet_s):
        clock.note(T0 + int(mono * 1000) - 9_000, Mono(mono))
    assert (float(clock.at(Mono(0))) < T0) is falls


@pytest.mark.parametrize(
    ("passed_s", "wall_s", "found"),
    [
        (1.0, 1.5, []), (1.0, 1.51, [("forward", 0.51)]), (1.0, 0.5, []),
        (1.0, 0.49, [("back", 0.51)]), (6.0, 6.0, []), (6.1, 6.1, [("pause", 5.1)]),
    ],
)  # fmt: skip
def test_steps_of_clocks(passed_s: float, wall_s: float, found: list[Any]) -> None:
    monitor = ClockMonitor(1.0)
    assert monitor.stepped(Wall(0.0), Mono(0)) == []
    news = monitor.stepped(Wall(wall_s * 1000), Mono(passed_s))
    assert [(each.direction, round(each.size_s, 6)) for each in news] == found
    assert all(each.event == "clock.stepped" for each in news)
    assert ClockStepped(1.23456, "back").fields == {"size_s": 1.235, "direction": "back"}


def judged(*looks: tuple[float, float]) -> list[tuple[float, float, bool]]:
    """(when, by how many s ahead) -> what was said, when."""
    monitor, said = ClockMonitor(1.0), []
    for when, ahead_s in looks:
        for news in monitor.judge({"v": ahead_s * 1000}, Mono(when)):
            said.append((when, news.ahead_s, news.wrong))
    return said


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([(0, 2.0), (99, 2.0)], []),
        ([(0, 2.1), (9.9, 2.1), (10, 2.1), (99, 2.1)], [(10, 2.1, True)]),
        ([(0, -2.1), (10, -2.1)], [(10, -2.1, True)]),
        ([(0, 3), (10, 3), (20, 1.6), (40, 1.6)], [(10, 3, True)]),
        ([(0, 3), (10, 3), (20, 1.5), (30, 1.5)], [(10, 3, True), (30, 1.5, False)]),
        ([(0, 3), (10, 3), (20, 5), (30, 5)], [(10, 3, True)]),  # by two is not by more than two
        ([(0, 3), (10, 3), (20, 5.1), (30, 5.1)], [(10, 3, True), (30, 5.1, True)]),
        ([(0, 40), (10, 40), (20, 50), (30, 50)], [(10, 40, True)]),
        ([(0, 40), (10, 40), (20, 50.1), (30, 50.1)], [(10, 40, True), (30, 50.1, True)]),
        ([(0, 3), (5, 1), (6, 3), (15, 3), (16, 3)], [(16, 3, True)]),  # it has to last
    ],
)
def test_when_a_calendar_is_said_to_be_wrong(looks: Any, said: Any) -> None:
    assert judged(*looks) == said


def test_what_an_operator_is_told_of_calendars() -> None:
    monitor = ClockMonitor(1.0)
    for when in (0, 10):
        monitor.judge({"a": 3_000.0, "b": -4_500.0, "c": None, "d": 0.0}, Mono(when))
    assert monitor.explain() == "our clock is 3.0 s ahead of a; our clock is 4.5 s behind b"
    assert monitor.worst_s == 4.5
    monitor.judge({"a": 3_000.0}, Mono(11))
    assert (monitor.explain(), monitor.worst_s) == ("our clock is 3.0 s ahead of a", 3.0)
    monitor.judge({}, Mono(12))
    assert (monitor.explain(), monitor.worst_s) == ("", 0.0)
    news = ClockJudged("a", 1.23456, True)
    assert (news.event, news.fields) == ("clock.wrong", {"venue": "a", "ahead_s": 1.235})
    assert ClockJudged("a", 1.0, False).event == "clock.right"


# ---------------------------------------------------------------- health, tickers


@pytest.mark.parametrize(("time_ms", "repaired"), [(29, False), (30, True)])
def test_repaired_up_to_and_including(time_ms: int, repaired: bool) -> None:
    health = Health()
    health.flows(None)
    health.lost("x")
    health.flows((10, 30))
    changes = health.reached(time_ms)
    assert [(c.state, c.span) for c in changes] == [(StreamState.REPAIRED, (10, 30))] * repaired
    assert (health.missing is None) is repaired


def test_holes_are_told_as_one_span() -> None:
    health = Health()
    health.flows(None)
    health.lost("x")
    health.flows((10, 30))
    for span in ((15, 20), (22, 25), (12, 13), (16, 17)):
        assert health.hole(span) == []
    (change,) = health.reached(30)
    assert (change.state, change.span, change.reason) == (
        StreamState.UNREPAIRABLE, (12, 25), "the exchange does not have it",
    )  # fmt: skip
    (change,) = health.hole((1, 2))  # and it is forgotten when it was told
    assert change.span == (1, 2)


def test_a_ticker_and_its_best_prices() -> None:
    line = TickerChannel(ChannelKey("okx", "BTCUSDT", Channel.TICKER), Source.EXCHANGE)
    best = BookTop("BTCUSDT", D(1), D(2), D(3), D(4), 9, 50)
    plain = Ticker("BTCUSDT", D(9), None, None, None, None, None, event_ms=40)
    assert line.take(best, at(0)) == []

    def told(news: Ticker | BookTop) -> Ticker:
        (effect,) = line.take(news, at(1))
        assert isinstance(effect, ChannelNews)
        assert isinstance(effect.data, Ticker)
        assert effect.key == ChannelKey("okx", "BTCUSDT", Channel.TICKER)
        assert effect.received_ms == float(at(1).wall)
        return effect.data

    assert told(plain) == plain
    full = evolve(plain, bid=D(1), bid_size=D(2), ask=D(3), ask_size=D(4), event_ms=50)
    assert told(best) == full
    assert told(evolve(best, event_ms=0)) == full  # its own time where the news has none
    assert told(evolve(plain, event_ms=60)) == evolve(full, event_ms=60)
    own = evolve(full, bid=D(5), event_ms=70)
    assert told(own) == own


# ---------------------------------------------------------------- books


def side(is_bid: bool, prices: Sequence[int], limit: int | None = None) -> Side:
    made = Side(is_bid)
    made.load([(D(price), D(1)) for price in prices], limit)
    return made


@pytest.mark.parametrize(
    ("is_bid", "limit", "horizon", "exact"),
    [(True, 4, None, 3), (True, 3, 10, 3), (False, 3, 12, 3), (False, None, None, 3)],
)
def test_how_far_a_snapshot_is_known(
    is_bid: bool, limit: int | None, horizon: int | None, exact: int
) -> None:
    made = side(is_bid, (11, 10, 12), limit)
    assert made.horizon == (None if horizon is None else D(horizon))
    assert made.exact() == exact
    beyond = 9 if is_bid else 13
    made.apply([(D(beyond), D(1))])
    assert (len(made), made.exact()) == (4, 3 if horizon else 4)


@pytest.mark.parametrize("is_bid", [True, False])
@pytest.mark.parametrize(("count", "left"), [(22, 22), (23, 20)])
def test_a_tenth_more_is_kept(is_bid: bool, count: int, left: int) -> None:
    made = side(is_bid, range(1, count + 1))
    made.cut(20)
    assert len(made) == left
    best = made.best(1)[0][0]
    assert best == (count if is_bid else 1)
    if left < count:
        assert made.horizon == (D(count - 19) if is_bid else D(20))


def test_levels_are_changed_in_their_own_digits() -> None:
    made = Side(False)
    made.apply(levels("10.5:2 11:3 10:1"))
    made.apply(levels("10.50:4 11:0 12:0"))
    assert [(str(p), str(s)) for p, s in made.best(9)] == [("10", "1"), ("10.50", "4")]
    assert made.best(1) == levels("10:1")
    bids = Side(True)
    bids.apply(levels("10:1 11:2 12:3"))
    assert bids.best(2) == levels("12:3 11:2")
    assert bids.best(0) == ()


@pytest.mark.parametrize("is_bid", [True, False])
def test_what_is_shown_shares_what_did_not_change(is_bid: bool) -> None:
    """Hundreds of views are kept for clients that come back; each with levels of its own they were
    nearly all of the memory."""
    made = side(is_bid, range(10, 30))
    before = made.best(20)
    made.apply(levels("15:7 12:0"))
    after = made.best(20)
    shared = [level for level in after if any(level is old for old in before)]
    assert [price for price, _ in after if price not in (15,)] == [price for price, _ in shared]
    assert len(shared) == 18


@pytest.mark.parametrize(
    ("policy", "enough"),
    [(BookPolicy(), 50), (BookPolicy(snapshot_levels=20), 10), (BookPolicy(depth_kept=60), 30),
     (BookPolicy(depth_exact=7), 7), (BookPolicy(snapshot_levels=1000, depth_kept=80), 40)],
)  # fmt: skip
def test_from_where_on_a_book_is_shallow(policy: BookPolicy, enough: int) -> None:
    assert policy.enough == enough


def test_questions_of_a_book_wait_twice_as_long_each_time() -> None:
    book = Book("BTCUSDT", SPOT, BookPolicy(retry_ms=1_000, retry_max_ms=5_000))
    waits, now = [], 100_000.0
    for _ in range(5):
        book.asked(now)
        assert book.due_ms is not None
        waits.append(book.due_ms - now)
        now = book.due_ms
    assert waits == [1_000, 2_000, 4_000, 5_000, 5_000]
    last = now - 5_000
    book.asked(last + 10_000)  # two quiet ones are not over
    assert book.due_ms == last + 15_000
    book.asked(last + 20_001)
    assert book.due_ms == last + 21_001


@pytest.mark.parametrize(("younger_ms", "restarts"), [(10_000, False), (10_001, True)])
def test_ids_that_begin_again_at_the_edge(younger_ms: int, restarts: bool) -> None:
    book = live(SPOT, 100)
    old = evolve(update(5, 5, 4), event_ms=book.event_ms + younger_ms)
    assert book.update(old).outcome is (Outcome.RESYNC if restarts else Outcome.IGNORED)
    assert book.counts.ignored == (not restarts)
    assert book.counts.gaps == restarts


def test_counts_of_a_book() -> None:
    book = live(SPOT, 100)
    assert (book.counts.applied, book.counts.refreshes) == (1, 0)
    book.snapshot(whole(120))
    assert (book.counts.refreshes, book.counts.resyncs) == (1, 0)
    book.update(update(125, 125, 124))
    assert (book.counts.gaps, book.state, book.stale) == (1, State.STALE, True)
    assert book.snapshot(whole(110)).outcome is Outcome.AGAIN
    assert book.counts.refused == 1
    book.snapshot(whole(124))
    assert (book.counts.resyncs, book.last_id, book.stale) == (1, 125, False)
    assert book.top() == BookTop("BTCUSDT", D(10), D(1), D(11), D(1), 125, T0 + 125)


@pytest.mark.parametrize(("bid", "crossed"), [("10.9:1", False), ("11:1", True), ("11.1:1", True)])
def test_a_book_is_crossed_from_the_same_price_on(bid: str, crossed: bool) -> None:
    book = live(SPOT, 100)
    book.update(update(101, 101, 100, bids=bid))
    assert (book.crossed, book.wants_snapshot, book.top() is None) == (crossed,) * 3


# ---------------------------------------------------------------- the calendar

DAY = 86_400_000


@pytest.mark.parametrize(
    ("interval", "ms"),
    [
        (Interval.S1, 1_000), (Interval.S30, 30_000), (Interval.M1, MINUTE),
        (Interval.M3, 3 * MINUTE), (Interval.M5, 5 * MINUTE), (Interval.M15, 15 * MINUTE),
        (Interval.M30, 30 * MINUTE), (Interval.H1, 60 * MINUTE), (Interval.H2, 120 * MINUTE),
        (Interval.H4, 240 * MINUTE), (Interval.H6, 360 * MINUTE), (Interval.H8, 480 * MINUTE),
        (Interval.H12, 720 * MINUTE), (Interval.D1, DAY), (Interval.D3, 3 * DAY),
        (Interval.W1, 7 * DAY), (Interval.MO1, 28 * DAY),
    ],
)  # fmt: skip
def test_lengths(interval: Interval, ms: int) -> None:
    assert calendar.length_ms(interval) == ms


def test_months_over_the_years() -> None:
    def month(year: int, number: int) -> int:
        return int(datetime(year, number, 1, tzinfo=UTC).timestamp() * 1000)

    mo1 = Interval.MO1
    assert calendar.open_of(mo1, month(2024, 3) - 1) == month(2024, 2)
    assert calendar.next_open(mo1, month(2023, 12)) == month(2024, 1)
    assert calendar.previous_open(mo1, month(2024, 1)) == month(2023, 12)
    assert calendar.back(mo1, month(2024, 2), 14) == month(2022, 12)
    assert calendar.count(mo1, month(2022, 12), month(2024, 2)) == 14
    assert calendar.count(mo1, month(2024, 2), month(2022, 12)) == 0
    assert calendar.count(Interval.M1, T0 + MINUTE, T0) == 0
    assert list(calendar.opens(mo1, month(2024, 1), month(2024, 3))) == [
        month(2024, 1), month(2024, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "anchor_ms", "usual"),
    [
        (Interval.M1, T0, True), (Interval.M1, T0 + 14_000, False), (Interval.W1, 4 * DAY, True),
        (Interval.W1, 0, False), (Interval.D3, 3 * DAY, True), (Interval.D3, DAY, False),
        (Interval.MO1, 7, True),
    ],
)  # fmt: skip
def test_grids_that_are_usual(interval: Interval, anchor_ms: int, usual: bool) -> None:
    assert Grid(interval, anchor_ms).usual is usual


def test_a_grid_moves_to_its_rows() -> None:
    grid = grid_of(Interval.M1)
    assert grid.at(T0) is grid
    off = grid.at(T0 + 14_000)
    assert off == Grid(Interval.M1, T0 + 14_000)
    assert off.open_of(T0 + 13_999) == T0 + 14_000 - MINUTE
    assert off.open_of(T0 + 14_000) == T0 + 14_000
    assert (off.next(T0), off.previous(T0), off.back(T0, 3)) == (
        T0 + MINUTE, T0 - MINUTE, T0 - 3 * MINUTE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("off_ms", "follows"),
    [
        (0, True),
        (29_999, True),
        (-59_999, True),  # the one before was cut short
        (-60_000, False),
        (30_000, False),
        (MINUTE, False),
    ],
)
def test_what_follows_may_be_half_a_candle_late_and_any_time_early(
    off_ms: int, follows: bool
) -> None:
    grid = grid_of(Interval.M1)
    assert grid.follows(T0 + MINUTE + off_ms, T0) is follows
