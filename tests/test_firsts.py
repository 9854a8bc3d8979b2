"""Second copies of tickers end here, and books that get ahead are put in order."""

import random
from decimal import Decimal

from attrs import evolve
from support.make import T0, trade
from trio_feed.ingest.firsts import Firsts

from trio_feed.model import BookTop, BookUpdate, Ticker

ONE = Decimal(1)


def ticker(event_ms: int, last: str = "1") -> Ticker:
    return Ticker("BTCUSDT", Decimal(last), ONE, ONE, ONE, ONE, ONE, event_ms=event_ms)


def top(update_id: int) -> BookTop:
    return BookTop("BTCUSDT", ONE, ONE, ONE, ONE, update_id)


def update(number: int, *, previous: int | None = None, event_ms: int = 0) -> BookUpdate:
    """An update with one id, after ``previous`` where that is said."""
    return BookUpdate("BTCUSDT", number, number, previous, (), (), event_ms=event_ms)


def test_the_second_copy_of_a_ticker_ends_here() -> None:
    firsts = Firsts()
    rows = [ticker(T0), ticker(T0, "2"), ticker(T0 + 5), top(7), top(8)]
    assert firsts.news(rows, T0) == rows
    assert firsts.news(rows, T0) == []
    assert firsts.news([top(9), ticker(T0 + 5, "3")], T0) == [top(9), ticker(T0 + 5, "3")]
    assert firsts.news([evolve(top(7), symbol="ETHUSDT")], T0) != []


def test_numbers_that_begin_anew_are_believed_after_a_while() -> None:
    firsts = Firsts()
    firsts.news([top(1_000)], T0)
    assert firsts.news([top(1)], T0 + 9_000) == []
    assert firsts.news([top(2)], T0 + 10_001) == [top(2)]
    assert firsts.news([top(3)], T0 + 10_002) == [top(3)]


def test_what_has_neither_number_nor_time_passes() -> None:
    assert Firsts().news([top(0), top(0)], T0) == [top(0), top(0)]


def test_trades_and_candles_pass() -> None:
    rows = [trade(1, T0), trade(1, T0)]
    assert Firsts().news(rows, T0) == rows


def test_a_newcomer_that_is_ahead_makes_no_gap() -> None:
    """The connection that has just begun sends 12, 13 before the old one has sent 11."""
    firsts = Firsts(500)
    assert firsts.news([update(10)], T0) == [update(10)]
    assert firsts.news([update(12), update(13)], T0 + 10) == []
    assert firsts.news([update(11)], T0 + 20) == [update(11), update(12), update(13)]
    assert firsts.news([update(14)], T0 + 30) == [update(14)]


def test_a_true_gap_is_told_in_the_end() -> None:
    firsts = Firsts(500)
    firsts.news([update(10)], T0)
    assert firsts.news([update(12)], T0 + 100) == []
    assert firsts.news([update(13)], T0 + 600) == []
    assert firsts.news([update(14)], T0 + 601) == [update(12), update(13), update(14)]
    assert firsts.news([update(15)], T0 + 700) == [update(15)]


def test_with_one_connection_nothing_waits() -> None:
    firsts = Firsts()
    assert firsts.news([update(10), update(12)], T0) == [update(10), update(12)]


def test_two_connections_in_any_order_are_one_book() -> None:
    """Whatever the delays of the two: each update comes first in its order."""
    chance = random.Random(1)
    for _ in range(200):
        rows = [update(n, previous=n - 1) for n in range(1, 40)]
        newcomer = rows[chance.randrange(40) :]
        arrivals = [
            (row.last_id * 100 + lag, row)
            for lag, part in ((chance.uniform(0, 400), rows), (chance.uniform(0, 400), newcomer))
            for row in part
        ]
        firsts, held = Firsts(100_000), 0
        firsts.news([update(0, previous=-1)], 0.0)
        for at, row in sorted(arrivals, key=lambda item: item[0]):
            for out in firsts.news([row], at):
                assert out.last_id <= held + 1
                held = max(held, out.last_id)
        assert held == 39


def test_a_reset_counts_once_and_what_is_older_not_at_all() -> None:
    """OKX's maintenance: the numbers begin anew at 3, once over each connection."""
    firsts = Firsts(500)
    rows = [
        update(1_000, previous=999, event_ms=T0),
        update(1_001, previous=1_000, event_ms=T0 + 1),
    ]
    reset = update(3, previous=1_001, event_ms=T0 + 2)
    after = update(4, previous=3, event_ms=T0 + 3)
    assert firsts.news([*rows, reset, after], T0) == [*rows, reset, after]
    assert firsts.news([rows[1], reset], T0) == []


def test_a_book_that_was_down_begins_anew() -> None:
    firsts = Firsts(500)
    firsts.news([update(10)], T0)
    firsts.forget(["BTCUSDT"])
    assert firsts.news([update(90)], T0) == [update(90)]
