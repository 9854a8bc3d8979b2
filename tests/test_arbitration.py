"""Second copies of tickers end here, and books that get ahead are put in order."""

import random
from collections.abc import Iterable
from decimal import Decimal

from attrs import evolve
from support.make import T0

from trio_feed.core.arbitration import Arbitration
from trio_feed.core.channels import CHANNELS
from trio_feed.instants import Mono
from trio_feed.model import BookTop, BookUpdate, Channel, Ticker

ONE = Decimal(1)


def ticker(event_ms: int, last: str = "1") -> Ticker:
    return Ticker("BTCUSDT", Decimal(last), ONE, ONE, ONE, ONE, ONE, event_ms=event_ms)


def top(update_id: int, event_ms: int = 0, bid: str = "1") -> BookTop:
    return BookTop("BTCUSDT", Decimal(bid), ONE, ONE, ONE, update_id, event_ms)


def update(number: int, *, previous: int | None = None, event_ms: int = 0) -> BookUpdate:
    """An update with one id, after ``previous`` where that is said."""
    return BookUpdate("BTCUSDT", number, number, previous, (), (), event_ms=event_ms)


def new(firsts: Arbitration, rows: Iterable[Ticker | BookTop], at: float = 0) -> list[object]:
    order = CHANNELS[Channel.TICKER].events
    return [row for row in rows if firsts.is_new(row, order[type(row)](row), Mono(at))]


def ordered(firsts: Arbitration, rows: Iterable[BookUpdate], at: float = 0) -> list[BookUpdate]:
    return [each for row in rows for each in firsts.in_order(row, Mono(at))]


def test_the_second_copy_of_a_ticker_ends_here() -> None:
    firsts = Arbitration()
    rows = [ticker(T0), ticker(T0, "2"), ticker(T0 + 5), top(7), top(8)]
    assert new(firsts, rows) == rows
    assert new(firsts, rows) == []
    more = [top(9), ticker(T0 + 5, "3")]
    assert new(firsts, more) == more


def test_the_update_id_orders_before_the_time() -> None:
    firsts = Arbitration()
    assert new(firsts, [top(7, T0 + 9)]) != []
    assert new(firsts, [top(8, T0)]) != []
    assert new(firsts, [top(7, T0 + 10)]) == []
    other = Arbitration()
    assert new(other, [top(0, T0 + 9)]) != []
    assert new(other, [top(0, T0 + 8)]) == []


def test_of_one_millisecond_some_are_told_apart() -> None:
    firsts = Arbitration()
    rows = [ticker(T0, str(n)) for n in range(17)]
    assert new(firsts, rows) == rows
    assert new(firsts, rows) == []
    late = ticker(T0, "17")
    assert new(firsts, [late]) == [late]
    assert new(firsts, [rows[0]]) == [rows[0]]  # forgotten: there are only so many


def test_numbers_that_begin_anew_are_believed_after_a_while() -> None:
    firsts = Arbitration()
    new(firsts, [top(1_000)], 0)
    assert new(firsts, [top(1)], 10) == []
    assert new(firsts, [top(1_000)], 10) == []
    assert new(firsts, [top(2)], 10.001) == [top(2)]
    assert new(firsts, [top(3)], 10.002) == [top(3)]
    assert new(firsts, [top(2)], 10.003) == []


def test_the_same_number_again_is_no_beginning_however_late() -> None:
    firsts = Arbitration()
    new(firsts, [top(5)], 0)
    assert new(firsts, [top(5)], 60) == []


def test_what_has_neither_number_nor_time_passes() -> None:
    assert new(Arbitration(), [top(0), top(0)]) == [top(0), top(0)]
    assert new(Arbitration(), [ticker(0), ticker(0)]) == [ticker(0), ticker(0)]


def test_a_newcomer_that_is_ahead_makes_no_gap() -> None:
    """The connection that has just begun sends 12, 13 before the old one has sent 11."""
    firsts = Arbitration(0.5)
    assert ordered(firsts, [update(10)]) == [update(10)]
    assert ordered(firsts, [update(13), update(12)], 0.01) == []
    assert ordered(firsts, [update(11)], 0.02) == [update(11), update(12), update(13)]
    assert ordered(firsts, [update(14)], 0.03) == [update(14)]


def test_only_what_follows_is_let_go_of_what_was_held() -> None:
    firsts = Arbitration(0.5)
    ordered(firsts, [update(10)])
    assert ordered(firsts, [update(12), update(15)], 0.01) == []
    assert ordered(firsts, [update(11)], 0.02) == [update(11), update(12)]
    assert ordered(firsts, [update(13)], 0.03) == [update(13)]
    assert ordered(firsts, [update(14)], 0.04) == [update(14), update(15)]


def test_a_second_copy_passes_and_moves_nothing_back() -> None:
    """The book itself knows what it has."""
    firsts = Arbitration(0.5)
    ordered(firsts, [update(n) for n in (10, 11, 12)])
    assert ordered(firsts, [update(10)]) == [update(10)]
    assert ordered(firsts, [update(13)]) == [update(13)]


def test_a_true_gap_is_told_in_the_end() -> None:
    firsts = Arbitration(0.5)
    ordered(firsts, [update(10)])
    assert ordered(firsts, [update(13)], 0.1) == []
    assert ordered(firsts, [update(12)], 0.6) == []
    assert ordered(firsts, [update(14)], 0.601) == [update(12), update(13), update(14)]
    assert ordered(firsts, [update(15)], 0.7) == [update(15)]
    # What is held next waits for its own time.
    assert ordered(firsts, [update(17)], 5.0) == []
    assert ordered(firsts, [update(18)], 5.4) == []


def test_what_is_held_is_bounded() -> None:
    firsts = Arbitration(500.0)
    ordered(firsts, [update(1)])
    assert ordered(firsts, [update(n) for n in range(3, 1_003)]) == []
    assert len(ordered(firsts, [update(1_003)])) == 1_001


def test_with_one_connection_nothing_waits() -> None:
    rows = [update(10), update(12), update(11)]
    assert ordered(Arbitration(), rows) == rows


def test_best_levels_have_no_order() -> None:
    firsts = Arbitration(0.5)
    ordered(firsts, [update(10)])
    levels = evolve(update(99), partial=True)
    assert ordered(firsts, [levels]) == [levels]
    assert ordered(firsts, [update(11)]) == [update(11)]


def test_a_snapshot_in_the_stream_begins_anew_and_never_backwards() -> None:
    firsts = Arbitration(0.5)
    ordered(firsts, [update(10)])
    ordered(firsts, [update(30)], 0.1)
    snapshot = evolve(update(20), snapshot=True)
    assert ordered(firsts, [snapshot], 0.2) == [snapshot]
    assert ordered(firsts, [update(21)], 0.3) == [update(21)]
    assert ordered(firsts, [update(29)], 0.4) == []  # 30 is not held any more
    older = evolve(update(5), snapshot=True)
    assert ordered(firsts, [older], 0.4) == [older]
    assert ordered(firsts, [update(22)], 0.45) == [update(22)]


def test_two_connections_in_any_order_are_one_book() -> None:
    """Whatever the delays of the two: each update comes first in its order."""
    chance = random.Random(1)
    for _ in range(200):
        rows = [update(n, previous=n - 1) for n in range(1, 40)]
        newcomer = rows[chance.randrange(39) :]
        arrivals = [
            (row.last_id * 0.1 + lag, row)
            for lag, part in ((chance.uniform(0, 0.4), rows), (chance.uniform(0, 0.4), newcomer))
            for row in part
        ]
        firsts, held = Arbitration(100.0), 0
        ordered(firsts, [update(0, previous=-1)])
        for at, row in sorted(arrivals, key=lambda item: item[0]):
            for out in ordered(firsts, [row], at):
                assert out.last_id <= held + 1
                held = max(held, out.last_id)
        assert held == 39


def test_a_reset_counts_once_and_what_is_older_not_at_all() -> None:
    """OKX's maintenance: the numbers begin anew at 3, once over each connection."""
    firsts = Arbitration(0.5)
    rows = [
        update(1_000, previous=999, event_ms=T0),
        update(1_001, previous=1_000, event_ms=T0 + 1),
    ]
    reset = update(3, previous=1_001, event_ms=T0 + 2)
    after = update(4, previous=3, event_ms=T0 + 3)
    waiting = update(1_005, previous=1_004, event_ms=T0 + 1)
    assert ordered(firsts, [*rows, waiting, reset, after]) == [*rows, reset, after]
    assert ordered(firsts, [rows[1], reset]) == []
    assert ordered(firsts, [update(5, previous=4, event_ms=T0 + 4)]) != []


def test_a_book_that_was_down_begins_anew() -> None:
    firsts = Arbitration(0.5)
    ordered(firsts, [update(10)])
    assert ordered(firsts, [update(90)]) == []
    firsts.forget_book()
    assert ordered(firsts, [update(90)]) == [update(90)]
