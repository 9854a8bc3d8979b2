from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from support.make import MINUTE, T0, kline

from trio_feed.core.reconcile import (
    Difference,
    Ids,
    Match,
    OneSided,
    ReconcileCounts,
    Reconciler,
    Remedy,
    compare,
)
from trio_feed.model import Kline, Source

OFFICIAL = kline(T0)
BUILT = evolve(OFFICIAL, source=Source.TRADES, event_ms=0)


def difference(built: Kline, official: Kline) -> Difference:
    """The one that a fresh reconciler finds."""
    pairs = Reconciler()
    assert pairs.add_official(official, now=T0) == []
    (verdict,) = pairs.add_built(built, now=T0)
    assert isinstance(verdict, Difference)
    return verdict


def test_equal_values_match_whatever_their_source_and_digits() -> None:
    assert compare(BUILT, OFFICIAL) is None
    assert compare(evolve(BUILT, volume=Decimal("1.5"), quote_volume=Decimal(0)), OFFICIAL) is None
    assert compare(evolve(BUILT, complete=False), OFFICIAL) is None


@pytest.mark.parametrize(
    ("change", "fields", "remedy"),
    [
        ({"trades": 6}, ("trades",), Remedy.REPAIR),
        ({"trades": 6, "volume": Decimal(1)}, ("trades", "volume"), Remedy.REPAIR),
        ({"trades": 0, "close": Decimal(99)}, ("trades", "close"), Remedy.REPAIR),
        ({"trades": 8}, ("trades",), Remedy.REPORT),
        ({"volume": Decimal(1)}, ("volume",), Remedy.REPORT),
        ({"open": Decimal(99)}, ("open",), Remedy.REPORT),
        ({"high": Decimal(102), "low": Decimal(98)}, ("high", "low"), Remedy.REPORT),
    ],
)
def test_what_differs_is_named(
    change: dict[str, Any], fields: tuple[str, ...], remedy: Remedy
) -> None:
    found = difference(evolve(BUILT, **change), OFFICIAL)
    assert (found.fields, found.remedy) == (fields, remedy)
    assert found.missing_trades == 7 - found.built.trades


@pytest.mark.parametrize(
    ("ours", "theirs", "fields"),
    [
        ((1, 7), (1, 7), None),
        ((2, 7), (1, 7), ("first_id",)),
        ((2, 8), (1, 7), ("first_id", "last_id")),
        (None, (1, 7), None),
        ((1, 7), None, None),
    ],
)
def test_ids_are_compared_where_both_are_known(
    ours: Ids | None, theirs: Ids | None, fields: tuple[str, ...] | None
) -> None:
    found = compare(BUILT, OFFICIAL, built_ids=ours, official_ids=theirs)
    assert (found.fields if found else None) == fields


def test_a_minute_without_trades_has_no_ids_to_compare() -> None:
    flat: dict[str, Any] = {"trades": 0, "volume": Decimal(0)}
    built, official = evolve(BUILT, **flat), evolve(OFFICIAL, **flat)
    assert compare(built, official, built_ids=(0, 0), official_ids=(-1, -1)) is None


def test_where_the_exchange_does_not_count_the_volume_tells() -> None:
    single = difference(evolve(BUILT, trades=2), evolve(OFFICIAL, trades=1))
    assert single.fields == ("trades",)
    uncounted = evolve(OFFICIAL, trades=0)
    assert compare(BUILT, uncounted) is None
    less = difference(evolve(BUILT, volume=Decimal(1)), uncounted)
    assert (less.fields, less.remedy) == (("volume",), Remedy.REPAIR)
    more = difference(evolve(BUILT, volume=Decimal(2)), uncounted)
    assert more.remedy is Remedy.REPORT


def test_candles_of_two_minutes_are_not_compared() -> None:
    with pytest.raises(ValueError, match=str(T0)):
        compare(BUILT, kline(T0 + MINUTE))


def test_both_sides_come_in_any_order_and_open_ones_say_nothing() -> None:
    pairs = Reconciler()
    assert pairs.add_built(evolve(BUILT, closed=False), now=T0) == []
    assert pairs.add_official(evolve(OFFICIAL, closed=False), now=T0) == []
    assert pairs.add_built(BUILT, now=T0) == []
    later, theirs = evolve(BUILT, open_ms=T0 + MINUTE), kline(T0 + MINUTE)
    assert pairs.add_official(theirs, now=T0) == []
    assert pairs.add_official(OFFICIAL, now=T0) == [Match(T0)]
    assert pairs.add_built(later, now=T0) == [Match(T0 + MINUTE)]
    assert pairs.counts == ReconcileCounts(matched=2)
    assert pairs.expire(T0 + 10 * MINUTE) == []


def test_a_repaired_candle_matches() -> None:
    pairs = Reconciler()
    pairs.add_official(OFFICIAL, now=T0)
    pairs.add_built(evolve(BUILT, trades=5), now=T0)
    assert pairs.add_built(BUILT, now=T0) == [Match(T0, repaired=True)]
    assert pairs.counts == ReconcileCounts(matched=1, repaired=1, different=1)


def test_a_repair_that_does_not_help_is_reported_not_tried_again() -> None:
    pairs = Reconciler()
    pairs.add_official(OFFICIAL, now=T0)
    remedies = []
    for _ in range(2):
        (verdict,) = pairs.add_built(evolve(BUILT, trades=5), now=T0)
        assert isinstance(verdict, Difference)
        remedies.append(verdict.remedy)
    assert remedies == [Remedy.REPAIR, Remedy.REPORT]
    assert pairs.counts == ReconcileCounts(different=1)
    assert pairs.expire(T0 + 10 * MINUTE) == []


def test_a_side_that_never_comes_is_told_after_the_timeout() -> None:
    pairs = Reconciler(timeout_ms=1_000)
    theirs = kline(T0 + MINUTE)
    pairs.add_official(theirs, now=500)
    pairs.add_built(BUILT, now=0)
    assert pairs.expire(999) == []
    assert pairs.expire(1_000) == [OneSided(T0, BUILT, None)]
    assert pairs.counts == ReconcileCounts(only_built=1)
    assert pairs.expire(1_500) == [OneSided(T0 + MINUTE, None, theirs)]
    assert pairs.counts == ReconcileCounts(only_built=1, only_official=1)


def test_a_repair_that_never_comes_was_told_already() -> None:
    pairs = Reconciler(timeout_ms=1_000)
    pairs.add_official(OFFICIAL, now=0)
    pairs.add_built(evolve(BUILT, trades=5), now=900)
    assert pairs.expire(1_899) == []
    assert pairs.add_official(OFFICIAL, now=1_899) == []  # said again: still waits for the repair
    assert pairs.expire(1_900) == []
    assert pairs.counts == ReconcileCounts(different=1)
    assert pairs.add_built(BUILT, now=2_000) == []  # nothing is left to compare it with


def test_a_repair_has_the_whole_timeout() -> None:
    pairs = Reconciler(timeout_ms=1_000)
    pairs.add_official(OFFICIAL, now=0)
    pairs.add_built(evolve(BUILT, trades=5), now=900)
    assert pairs.expire(1_100) == []
    assert pairs.add_built(BUILT, now=1_200) == [Match(T0, repaired=True)]


def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    pairs = Reconciler(max_minutes=3)
    given_up = []
    for n in range(10):
        given_up += pairs.add_built(evolve(BUILT, open_ms=T0 + n * MINUTE), now=T0)
    assert [v.open_ms for v in given_up] == [T0 + n * MINUTE for n in range(7)]
    assert pairs.counts.only_built == 7
    assert pairs.add_official(kline(T0 + 9 * MINUTE), now=T0) == [Match(T0 + 9 * MINUTE)]
