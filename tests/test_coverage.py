"""The share of the candles due that went out."""

import pytest
from support.make import MINUTE, SERIES, T0

from trio_feed.core.coverage import coverage
from trio_feed.core.ledger import Ledger
from trio_feed.model import Hole


def ledger(closed: int, *holes: tuple[int, int]) -> Ledger:
    """One whose last closed candle is that of minute ``closed``."""
    found = [Hole(T0 + a * MINUTE, T0 + b * MINUTE) for a, b in holes]
    return Ledger(SERIES, T0 + closed * MINUTE, False, holes=found)


@pytest.mark.parametrize(
    ("closed", "holes", "since", "now", "expected"),
    [
        (9, [], 0, 10.5, (10, 10)),
        (9, [], 0.5, 10.5, (9, 9)),  # the first whole one
        (9, [], 0, 11.05, (10, 10)),  # the close of the tenth is not overdue yet
        (9, [], 0, 11.5, (11, 10)),
        (9, [], 0, 30.5, (30, 10)),
        (9, [(3, 4)], 0, 10.5, (10, 8)),
        (9, [(3, 4), (6, 6)], 4, 10.5, (6, 4)),  # half of a hole
        (9, [(1, 2)], 5, 10.5, (5, 5)),
        (9, [], 10, 10.5, (0, 0)),
    ],
)
def test_what_is_due_and_what_went_out(
    closed: int,
    holes: list[tuple[int, int]],
    since: float,
    now: float,
    expected: tuple[int, int],
) -> None:
    times = T0 + since * MINUTE, T0 + now * MINUTE
    assert coverage(ledger(closed, *holes), *times) == expected


def test_of_a_series_that_never_began_nothing_is_due() -> None:
    fresh = Ledger(SERIES, T0, True)
    assert coverage(fresh, T0, T0 + 60 * MINUTE) == (0, 0)
