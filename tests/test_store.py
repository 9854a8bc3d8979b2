"""The memory store, in virtual time (SQLite's threads: tests/live)."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message
from support.store_contract import CHECKS, EPOCH, KEEP, Kit

from trio_feed.metrics import Metrics
from trio_feed.model import Hole, Interval
from trio_feed.settings import StoreSettings
from trio_feed.settings.fields import Duration
from trio_feed.store import MEMORY, MemoryStore, open_store
from trio_feed.store.base import HoleEntry, LostEntry, boundaries, why_unfit
from trio_feed.store.pending import Complaint


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[Kit], Awaitable[None]], autojump_clock: trio.abc.Clock
) -> None:
    settings = StoreSettings(path=MEMORY, keep=KEEP)
    async with open_store(settings, simulated=False, now_ms=EPOCH, metrics=Metrics()) as store:
        assert isinstance(store, MemoryStore)
        assert store.epoch == EPOCH
        await check(Kit(store, trio.lowlevel.checkpoint, store.retain))


async def test_holes_are_there_to_look_at() -> None:
    store = MemoryStore(1)
    store.put_hole(SERIES, Hole(T0, T0))
    assert store.holes == {SERIES: [Hole(T0, T0)]}


async def test_retention_runs_by_itself(autojump_clock: trio.abc.Clock) -> None:
    store = MemoryStore(1, {Interval.M1: 60 * MINUTE})
    for n in range(100):
        store.put(message(kline(T0 + n * MINUTE), offset=n + 1))
    with trio.move_on_after(61) as scope:
        await store.run()
    assert scope.cancelled_caught
    assert len(await store.history(SERIES, limit=500)) == 61


def test_age_counts_back_from_the_earlier_of_the_newest_candle_and_our_calendar() -> None:
    keep = {Interval.M1: 1000.0}
    assert boundaries(keep, 5_000, 9_000.5) == {Interval.M1: 4_000}
    assert boundaries(keep, 9_000, 5_000.5) == {Interval.M1: 4_000}


@pytest.mark.parametrize("name", ["epoch", "offset", "received_ms"])
def test_what_does_not_fit_is_named(name: str) -> None:
    good = message(kline())
    assert why_unfit(good) == ""
    assert why_unfit(evolve(good, **{name: 2**63})) == f"{name} {2**63} is beyond 64 bits"


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (HoleEntry(SERIES, Hole(2**63, T0)), "first_ms"),
        (HoleEntry(SERIES, Hole(T0, 2**63)), "last_ms"),
        (LostEntry(SERIES, 2**63, 1), "epoch"),
        (LostEntry(SERIES, 1, 2**63), "offset"),
    ],
)
def test_what_does_not_fit_of_other_entries_is_named(
    entry: HoleEntry | LostEntry, name: str
) -> None:
    assert why_unfit(entry) == f"{name} {2**63} is beyond 64 bits"


def test_what_is_kept_by_default() -> None:
    keep = StoreSettings().keep
    assert keep == {Interval.S1: Duration("30d"), Interval.S30: Duration("365d")}


def test_a_problem_is_said_when_it_changes_and_each_minute() -> None:
    complaint = Complaint()
    assert complaint.is_news("full", 100)
    assert not complaint.is_news("full", 159)
    assert complaint.is_news("locked", 159)
    assert complaint.is_news("locked", 219)
    complaint.over()
    assert complaint.is_news("locked", 220)
