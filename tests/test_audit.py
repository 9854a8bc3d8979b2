"""The second look: what waits for it, when it is asked for, and what differs."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from attrs import evolve
from support.engine import at, backfilled, minute, since_t0
from support.make import MINUTE, SERIES, T0, kline

from trio_feed.core.audit import Audit, waiting
from trio_feed.core.calendar import Grid, grid_of
from trio_feed.instants import NEVER
from trio_feed.model import Interval, Kline, Source

GRID = grid_of(Interval.M1)
LATER = at(100_000)


def audit(*numbers: int, after_s: float = 600, **more: Any) -> Audit:
    """One to which these minutes were told."""
    found = Audit(SERIES, after_s, **more)
    for n in numbers:
        found.told(minute(n))
    return found


def numbers(rows: Iterable[Kline]) -> list[int]:
    return [(row.open_ms - T0) // MINUTE for row in rows]


def test_equal_rows_settle_what_was_told() -> None:
    found = audit(0, 1, 2)
    assert found.compare([backfilled(n) for n in range(3)], GRID, LATER) == []
    assert len(found) == 0
    assert found.due(GRID, LATER) == NEVER


def test_what_differs_is_returned_in_order() -> None:
    found = audit(0, 1, 2)
    rows = [backfilled(0, close="100.60"), backfilled(1), backfilled(2, volume="9")]
    assert found.compare(rows, GRID, LATER) == [rows[0], rows[2]]
    assert len(found) == 0


def test_after_a_page_the_rest_waits_for_its_own_time() -> None:
    found = audit(0, 1, 2)
    now = at(700)
    found.compare([backfilled(0)], GRID, now)
    assert len(found) == 2
    assert since_t0(found.due(GRID, now)) == 120 + 900


def test_it_is_due_so_long_after_the_end_of_the_oldest() -> None:
    found = audit(3, 4)
    assert since_t0(found.due(GRID, at(250))) == 4 * 60 + 900
    assert since_t0(found.due(GRID, at(250, exchange_s=300))) == 4 * 60 + 900 - 50
    hours = Grid(Interval.H1, T0)
    assert since_t0(found.due(hours, at(0))) == 180 + 3600 + 900


def test_off_means_that_nothing_waits() -> None:
    found = audit(0, after_s=0)
    assert len(found) == 0
    assert found.due(GRID, LATER) == NEVER
    found.hurry(LATER)
    assert found.due(GRID, LATER) == NEVER
    assert found.wanted(GRID, LATER) is None
    assert found.due(GRID, LATER) == NEVER


def test_a_candle_that_is_revised_before_is_compared_with_its_new_values() -> None:
    found = audit(0, 1)
    found.told(minute(0, close="100.60"))
    assert len(found) == 2
    assert found.compare([backfilled(0, close="100.60"), backfilled(1)], GRID, LATER) == []
    assert len(found) == 0


def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    found = audit(0, 1, 2, most=2)
    assert len(found) == 2
    assert found.wanted(GRID, LATER) == (T0 + MINUTE, 2)


def test_a_page_holds_what_is_ripe() -> None:
    found = audit(0, 1, 4)
    assert found.wanted(GRID, at(60 + 20)) == (T0, 1)
    assert found.wanted(GRID, at(120 + 19.999)) == (T0, 1)
    assert found.wanted(GRID, at(120 + 20)) == (T0, 2)
    assert found.wanted(GRID, LATER) == (T0, 5)  # with the hole inside


def test_where_nothing_is_ripe_it_is_asked_again_later() -> None:
    found = audit(0)
    assert found.wanted(GRID, at(79.999)) is None
    assert since_t0(found.due(GRID, at(80))) == 79.999 + 30


def test_a_reason_to_look_makes_it_due_now() -> None:
    found = audit(0)
    found.hurry(at(61))
    assert since_t0(found.due(GRID, at(62))) == 61


def test_a_row_that_is_not_there_while_later_ones_are_is_let_go() -> None:
    found = audit(0, 1, 2)
    assert found.compare([backfilled(0), backfilled(2, close="1.00")], GRID, LATER) != []
    assert len(found) == 0


def test_a_candle_made_of_trades_that_the_exchange_does_not_have_is_marked() -> None:
    found = audit()
    made = [evolve(minute(n), source=Source.TRADES, trades=n) for n in range(3)]
    for each in made:
        found.told(each)
    rows = [evolve(backfilled(2), trades=2)]
    assert found.compare(rows, GRID, LATER) == [evolve(made[1], complete=False)]
    assert len(found) == 0  # of one without trades it may keep none


def test_our_own_quote_volume_gives_way_to_the_exchanges() -> None:
    found = audit(exact=True)
    for n in range(2):
        found.told(evolve(minute(n), source=Source.TRADES, quote_volume=Decimal(7)))
    same, other = (evolve(backfilled(n), quote_volume=Decimal(7 + n)) for n in range(2))
    assert found.compare([same, other], GRID, LATER) == [other]
    found = audit(0, exact=True)  # the exchange's own words may round it
    rounded = evolve(backfilled(0), quote_volume=Decimal(8))
    assert found.compare([rounded], GRID, LATER) == []


def test_an_open_row_compares_nothing() -> None:
    found = audit(0)
    assert found.compare([kline(T0, "1.00", closed=False)], GRID, LATER) == []
    assert len(found) == 1


def test_pages_without_the_candle_are_asked_again_and_it_is_let_go_in_the_end() -> None:
    found = audit(0, 1)
    stale = [backfilled(-1)]
    waits = []
    for _ in range(3):
        assert found.compare(stale, GRID, LATER) == []
        waits.append(round(found.due(GRID, LATER) - LATER.mono, 3))
    assert waits == [30, 60, 120]
    assert len(found) == 1
    assert found.wanted(GRID, LATER) == (T0 + MINUTE, 1)
    found.compare(stale, GRID, LATER)
    found.compare([], GRID, LATER)
    assert len(found) == 1  # two pages only
    found.compare([backfilled(1)], GRID, LATER)
    assert len(found) == 0


def test_progress_ends_the_backoff() -> None:
    found = audit(0, 1, 2)
    found.failed(LATER)
    found.failed(LATER)
    found.compare([], GRID, LATER)
    found.compare([], GRID, LATER)
    found.compare([backfilled(0)], GRID, LATER)
    found.failed(LATER)
    assert found.due(GRID, LATER) - LATER.mono == 30
    found.compare([], GRID, LATER)
    found.compare([], GRID, LATER)
    assert len(found) == 2  # the pages before the progress do not count


def test_failures_back_off_to_ten_minutes() -> None:
    found = audit(0)
    waits = []
    for _ in range(6):
        found.failed(LATER)
        waits.append(found.due(GRID, LATER) - LATER.mono)
    assert waits == [30, 60, 120, 240, 480, 600]
    for _ in range(2_000):
        found.failed(LATER)
    assert found.due(GRID, LATER) - LATER.mono == 600


def test_a_number_of_trades_counts_only_where_both_have_one() -> None:
    found = audit(0)
    assert found.compare([evolve(backfilled(0), trades=0)], GRID, LATER) == []
    found.told(minute(1))
    assert numbers(found.compare([evolve(backfilled(1), trades=8)], GRID, LATER)) == [1]


def test_a_page_asked_in_a_hurry_does_not_replace_the_look_that_is_due() -> None:
    found = audit(0, 1)
    now = at(130)  # both have ended, neither is ripe
    found.hurry(now)
    rows = [backfilled(0), backfilled(1, close="100.60")]
    assert found.compare(rows, GRID, now) == [rows[1]]
    assert len(found) == 2
    assert found.compare(rows, GRID, LATER) == []
    assert len(found) == 0


def test_a_candle_that_is_revised_after_its_look_gets_another() -> None:
    found = audit(0, 1, 2)
    found.compare([backfilled(0), backfilled(1)], GRID, LATER)
    found.told(minute(1, close="100.60"))
    assert len(found) == 2
    rows = [backfilled(1), backfilled(2)]
    assert found.compare(rows, GRID, LATER) == [rows[0]]


def test_a_new_life_looks_at_what_the_last_one_had_no_time_for() -> None:
    found = audit(after_s=600)
    stopped_ms = T0 + 30 * MINUTE
    found.resume([minute(n) for n in range(30)], GRID, stopped_ms)
    assert len(found) == 16  # those that ended at most 900 s before
    found.compare([backfilled(n) for n in range(14, 20)], GRID, LATER)
    assert len(found) == 10
    off = audit(after_s=0)
    off.resume([minute(0)], GRID, stopped_ms)
    assert len(off) == 0


def test_how_many_candles_wait() -> None:
    assert waiting(Interval.M1, 600.0) == 16
    assert waiting(Interval.H1, 600.0) == 2
    assert waiting(Interval.M1, 0.0) == 0
