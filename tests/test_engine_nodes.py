"""Nodes around an engine that fails: each closed candle reaches each node once, in order."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
import trio._core._run as scheduler
from attrs import define, field
from support.engine_nodes import (
    ALL_SHARDS,
    PERIOD_S,
    SYMBOLS,
    VENUE,
    Cluster,
    Feeder,
    Machine,
    Watcher,
    closed_count,
    of_shard,
    series_of,
    told,
)
from support.slow import but_slow

from trio_feed.bus import wire
from trio_feed.bus.engine.base import Append
from trio_feed.bus.engine.memory import (
    LOST_ANSWER,
    LOST_REQUEST,
    NO_FAULT,
    Fault,
    MemoryEngine,
    late_answer,
    late_request,
)
from trio_feed.bus.engine.takeovers import End, Takeovers
from trio_feed.errors import StoreError
from trio_feed.model import StreamState


@define(eq=False)
class Running:
    cluster: Cluster
    nursery: trio.Nursery
    names: int = 0
    machine: Machine | None = None
    """On which new watchers are; None: each is alone."""

    async def feeder(self) -> Feeder:
        self.names += 1
        made: Feeder = await self.nursery.start(Feeder(f"node{self.names}", self.cluster).run)
        return made

    async def watcher(self) -> Watcher:
        made: Watcher = await self.nursery.start(Watcher(self.cluster, self.machine).run)
        return made

    async def until_all(self, watchers: list[Watcher], patience_s: float = 60.0) -> None:
        """Every node has everything that is closed now."""
        until = closed_count() - 1
        with trio.fail_after(patience_s):
            while not all(watcher.has_all(until) for watcher in watchers):  # noqa: ASYNC110
                await trio.sleep(0.5)  # the market's time goes on


@asynccontextmanager
async def cluster(seed: int = 1, *, hot: bool = False) -> AsyncIterator[Running]:
    async with trio.open_nursery() as nursery:
        yield Running(Cluster(chance=random.Random(seed), hot=hot), nursery)
        nursery.cancel_scope.cancel()


def owned(*feeders: Feeder) -> list[list[str]]:
    return [sorted(feeder.feeding.own) for feeder in feeders]


async def until(condition: Callable[[], bool], patience_s: float = 30.0) -> None:
    with trio.fail_after(patience_s):
        while not condition():  # noqa: ASYNC110  what changes is of several nodes
            await trio.sleep(0.1)


async def test_one_feeds_and_two_serve(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster() as run:
        one, two = await run.watcher(), await run.watcher()
        assert "engine" in one.following.why_not()
        feeder = await run.feeder()
        await trio.sleep(5 * PERIOD_S)
        await run.until_all([one, two])
        assert owned(feeder) == [ALL_SHARDS]
        assert one.following.why_not() == two.following.why_not() == ""
        assert one.is_calm()
        late = await run.watcher()
        await until(lambda: late.has_all(closed_count() - 2))
        assert late.is_calm()
        assert not told(one, StreamState.UNREPAIRABLE)


@pytest.mark.parametrize("more_s", [0.0, 3 * PERIOD_S])
async def test_a_correction_that_a_node_could_not_read_comes_out_of_the_database(
    more_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """The log was trimmed before it was read; also where candles are missing with it."""
    async with cluster() as run:
        watcher, feeder = await run.watcher(), await run.feeder()
        series = series_of("BTCUSDT")
        await trio.sleep(4.2 * PERIOD_S)
        await run.until_all([watcher])
        watcher.reach.fault = lambda call: LOST_REQUEST
        await trio.sleep(1.5)  # the read that was under way has ended
        k = feeder.next["BTCUSDT"] - 2
        feeder.correct("BTCUSDT", 1)
        await trio.sleep(5.5 + more_s)  # there is another checkpoint
        run.cluster.server.cut(of_shard(VENUE, "BTCUSDT"), 2)
        watcher.reach.fault = lambda call: NO_FAULT
        await until(lambda: k in watcher.corrected.get(series, {}))
        (stored,) = await watcher.store.history(series, limit=1, start_ms=k * 60_000)
        assert watcher.corrected[series][k] == stored
        assert stored.volume > 1
        assert watcher.following.counts.resyncs
        await run.until_all([watcher])


async def test_shards_are_shared_and_handed_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        second = await run.feeder()
        await until(lambda: len(second.feeding.own) == 1 and len(first.feeding.own) == 1)
        await trio.sleep(2 * PERIOD_S)
        await first.leave()
        began = trio.current_time()
        await until(lambda: owned(second) == [ALL_SHARDS])
        assert trio.current_time() - began < 0.5
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        assert not watcher.closings
        assert not told(watcher, StreamState.STALE) or watcher.is_calm()
        assert not told(watcher, StreamState.UNREPAIRABLE), "trades go on where they ended"


async def test_a_database_that_is_away_keeps_no_shard_from_being_handed_over(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await trio.sleep(PERIOD_S)

        async def away(_shard: str, _epoch: int) -> None:
            raise StoreError("nothing listens there")

        monkeypatch.setattr(first.store, "release", away)
        second = await run.feeder()
        await until(lambda: len(second.feeding.own) == 1)
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        assert not watcher.closings


async def test_engine_and_database_say_together_that_a_shard_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        other = MemoryEngine(run.cluster.server)
        shard = ALL_SHARDS[0]
        await other.drop_lease(shard, first.feeding.holder)
        assert await other.take_lease(shard, "other:1", 1.0)
        told: list[str] = []

        def meanwhile(call: str) -> Fault:
            if call == "take_lease" and not told:
                told.append(call)
                first.feeding.fenced([shard])
            return NO_FAULT

        first.reach.fault = meanwhile
        await until(lambda: bool(told))
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])


async def test_an_epoch_is_larger_than_that_of_the_log_whatever_the_database_knows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A standby that was promoted may lack the last claim, by a node whose clock was ahead."""
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        shard, other = ALL_SHARDS[0], MemoryEngine(run.cluster.server)
        ahead, tail = first.feeding.writing.owners[shard].epoch + 10**9, await other.tail(shard)
        empty = wire.entry([])
        assert await other.append([Append(shard, tail, (ahead, 1), empty)]) == [(ahead, 1)]
        await until(lambda: shard not in first.feeding.own)
        await until(lambda: owned(first) == [ALL_SHARDS])
        assert first.feeding.writing.owners[shard].epoch > ahead
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])


async def test_an_id_that_no_client_could_name_is_no_epoch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One such entry gave all shards epochs for good with which no client could resume."""
    async with cluster() as run:
        first = await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        shard, other = ALL_SHARDS[0], MemoryEngine(run.cluster.server)
        evil = Append(shard, await other.tail(shard), (2**53 + 1, 1), b"x")
        with structlog.testing.capture_logs() as logs:
            assert await other.append([evil]) == [evil.entry_id]
            await until(lambda: any(each["event"] == "shard.not_changed" for each in logs))
        (line,) = {each["problem"] for each in logs if each["event"] == "shard.not_changed"}
        assert "which no node gives: delete that log's key" in line
        assert shard not in first.feeding.own
        run.cluster.server.forget(shard)
        await until(lambda: owned(first) == [ALL_SHARDS])
        assert first.feeding.writing.owners[shard].epoch < 2**52


@pytest.mark.parametrize("body", [b"garbage", b"", wire.entry([])[:1] + b"\xc1", b"\x01\x92\x05"])
async def test_what_no_node_wrote_concerns_one_shard_for_a_moment(
    body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        shard, other = ALL_SHARDS[0], MemoryEngine(run.cluster.server)
        tail = await other.tail(shard)
        evil = Append(shard, tail, (tail[0], tail[1] + 5), body)
        assert await other.append([evil]) == [evil.entry_id]
        await until(lambda: shard not in first.feeding.own)  # as by another owner
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        assert watcher.is_calm()
        told_of = {of_shard(VENUE, s.stream_key.symbol) for s in told(watcher, StreamState.STALE)}
        assert told_of <= {shard}, "the other one went on"


async def test_a_killed_owner_is_replaced_after_its_lease(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await trio.sleep(2.4 * PERIOD_S)
        second = await run.feeder()
        await trio.sleep(5.0)
        first.kill()
        began = trio.current_time()
        await until(lambda: owned(second) == [ALL_SHARDS])
        assert trio.current_time() - began < 3.0 + 0.5
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        stale = [status.stream_key for status in told(watcher, StreamState.STALE)]
        assert series_of("BTCUSDT") in stale
        assert not told(watcher, StreamState.UNREPAIRABLE), "the trades between are fetched"
        assert watcher.is_calm()


async def test_a_hot_standby_takes_over_without_asking_anybody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster(hot=True) as run:
        watcher, first = await run.watcher(), await run.feeder()
        second = await run.feeder()
        await trio.sleep(3.4 * PERIOD_S)
        assert first.opened == second.opened == len(SYMBOLS)
        first.kill()
        began = trio.current_time()
        await until(lambda: owned(second) == [ALL_SHARDS])
        assert trio.current_time() - began < 3.0 + 0.5
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        assert second.opened == len(SYMBOLS)
        assert not told(watcher, StreamState.UNREPAIRABLE), "trades go on where they ended"
        third = await run.feeder()
        await trio.sleep(2 * PERIOD_S)
        stale = len(told(watcher, StreamState.STALE))
        began = trio.current_time()
        await second.leave()
        await until(lambda: owned(third) == [ALL_SHARDS])
        assert trio.current_time() - began < 0.3
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        assert len(told(watcher, StreamState.STALE)) == stale, "nobody noticed"
        assert not told(watcher, StreamState.UNREPAIRABLE)


async def test_an_owner_that_was_cut_off_is_fenced(autojump_clock: trio.testing.MockClock) -> None:
    """It feeds on, and believes for a while that it owns what it owned."""
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await trio.sleep(2 * PERIOD_S)
        first.reach.fault = lambda call: LOST_REQUEST
        second = await run.feeder()
        await until(lambda: owned(second) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        first.reach.fault = lambda call: NO_FAULT
        await until(lambda: len(first.feeding.own) == 1)
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])
        assert watcher.is_calm()


async def test_a_shard_is_given_though_the_database_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """That its epoch was written to its end is not kept then; nobody is left without an owner."""
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        second = await run.feeder()
        await trio.sleep(10.0)
        run.cluster.database.away = True
        await until(lambda: len(first.feeding.own) == 1)
        await trio.sleep(1.0)
        run.cluster.database.away = False
        await until(lambda: len(second.feeding.own) == 1)
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])


@pytest.mark.parametrize("away_s", [0.0, 4.0])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_hot_standby_that_has_just_started_has_the_trades_too(
    killed: bool, away_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """A rolling upgrade ends the other node as soon as the new one is ready; one that is alone
    comes back after a while."""
    async with cluster(hot=True) as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        if not away_s:
            await run.feeder()
        if killed:
            first.kill()
        else:
            await first.leave()
        if away_s:
            await trio.sleep(away_s)
            await run.feeder()
        await trio.sleep(PERIOD_S)
        await run.until_all([watcher])
        assert watcher.is_calm()
        assert not told(watcher, StreamState.UNREPAIRABLE)


async def test_a_lease_that_comes_while_the_node_leaves_is_given_back(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, waiting = trio.Event(), 0
    take = MemoryEngine.take_lease

    async def held(*args: Any) -> bool:
        nonlocal waiting
        taken = await take(*args)
        waiting += 1
        await may.wait()
        return taken

    async with cluster() as run:
        monkeypatch.setattr(MemoryEngine, "take_lease", held)
        feeder = await run.feeder()
        await until(lambda: waiting == len(ALL_SHARDS))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feeder.feeding.drain)
            await trio.sleep(0.2)
            may.set()
        feeder.kill()
        began, second = trio.current_time(), await run.feeder()
        await until(lambda: owned(second) == [ALL_SHARDS])
        assert trio.current_time() - began < 1.0


@pytest.mark.parametrize("hot", [False, True])
async def test_who_takes_over_in_hot_standby_compares_once_and_tries_again(
    hot: bool, autojump_clock: trio.testing.MockClock
) -> None:
    asked: list[str] = []

    async def recall(shard: str) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(shard)
        if len(asked) == 1:
            raise StoreError("stored candles cannot be read")

    async with cluster(hot=hot) as run:
        watcher, first = await run.watcher(), await run.feeder()
        await trio.sleep(2 * PERIOD_S)
        second = await run.feeder()
        second.feeding.recall = recall
        first.kill()
        await until(lambda: owned(second) == [ALL_SHARDS])
        await trio.sleep(PERIOD_S)
        assert sorted(asked) == (sorted([asked[0], *ALL_SHARDS]) if hot else [])
        await run.until_all([watcher])


@pytest.mark.parametrize(
    ("hot", "room", "name"),
    [
        (False, Takeovers, "claim"),
        (True, Takeovers, "claim"),
        (False, Feeder, "refresh"),
        (False, Takeovers, "reopen"),
        (True, Takeovers, "reopen"),
    ],
)
async def test_a_node_leaves_while_it_takes_shards(
    hot: bool,
    room: type,
    name: str,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it was about to own is free at once, and nothing of it is begun any more; also where it
    goes on in a new epoch."""
    may, waiting = trio.Event(), 0
    real = getattr(room, name)

    async def held(*args: object) -> Any:
        nonlocal waiting
        waiting += 1
        await may.wait()
        return await real(*args)

    async with cluster(hot=hot) as run:
        watcher = await run.watcher()
        if name == "reopen":
            feeder = await run.feeder()
            await until(lambda: owned(feeder) == [ALL_SHARDS])
            await trio.sleep(2 * PERIOD_S)
            monkeypatch.setattr(room, name, held)
            for owner in feeder.feeding.writing.owners.values():
                owner.overflown = True
        else:
            monkeypatch.setattr(room, name, held)
            feeder = await run.feeder()
        await until(lambda: waiting >= len(ALL_SHARDS))
        await feeder.feeding.drain()
        may.set()
        await trio.sleep(1.0)
        assert not feeder.feeding.own
        feeder.kill()
        began, second = trio.current_time(), await run.feeder()
        await until(lambda: owned(second) == [ALL_SHARDS])
        assert trio.current_time() - began < 1.0  # with a lease in the way it is two seconds
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])


async def test_a_shard_that_could_not_begin_anew_tries_again(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster() as run:
        watcher, feeder = await run.watcher(), await run.feeder()
        await until(lambda: owned(feeder) == [ALL_SHARDS])
        await trio.sleep(2 * PERIOD_S)
        failed: list[str] = []
        reopen = Takeovers.reopen

        async def fail_once(self: Takeovers, shard: str, end: End) -> None:
            if not failed:
                failed.append(shard)
                raise StoreError("stored candles cannot be read")
            await reopen(self, shard, end)

        monkeypatch.setattr(Takeovers, "reopen", fail_once)
        for owner in feeder.feeding.writing.owners.values():
            owner.overflown = True
        await until(lambda: bool(failed))
        await trio.sleep(2 * PERIOD_S)
        await run.until_all([watcher])


async def test_failovers_and_kills_cost_readers_that_share_a_log_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A watcher raises where a candle or trade is missing or comes twice.  Nothing that a log
    shared could cost is mended in silence either: none reads anew, as one that is alone does not.
    """
    async with cluster() as run:
        await run.feeder()
        alone = await run.watcher()
        run.machine = Machine(run.cluster)
        watchers = [await run.watcher() for _ in range(3)]
        await trio.sleep(2.2 * PERIOD_S)
        resyncs = 0
        for number in range(12):
            run.cluster.server.fail_over(number)
            await trio.sleep(0.3 * number)
            watchers.pop(0).scope.cancel()
            watchers.append(await run.watcher())
            resyncs += sum(watcher.following.counts.resyncs for watcher in watchers)
            if number % 4 == 3:
                run.cluster.server.empty()
            await trio.sleep(0.37 * PERIOD_S)
        await run.until_all(watchers)
        assert all(watcher.ends == watchers[0].ends for watcher in (alone, *watchers))
        assert alone.following.counts.resyncs == resyncs == 0


@pytest.mark.parametrize("how", ["deleted", "ran out"])
async def test_a_lease_that_is_gone_and_why(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Who deletes a lease takes it from a node that has done nothing wrong; the lines say so."""
    async with cluster() as run:
        watcher, first = await run.watcher(), await run.feeder()
        await until(lambda: owned(first) == [ALL_SHARDS])
        await trio.sleep(2.5)
        with structlog.testing.capture_logs() as lines:
            if how == "deleted":
                for shard in ALL_SHARDS:
                    run.cluster.server.put(("lease", shard), None)
            else:
                run.cluster.server.stop()
                await trio.sleep(5)
                run.cluster.server.start()
            await trio.sleep(5)
        (line,) = [line for line in lines if line["event"] == "lease.taken_again"]
        assert sorted(line["shards"]) == ALL_SHARDS
        assert ("deleted" in line["why"]) == (how == "deleted")
        assert [line["event"] for line in lines].count("engine.feeding") == (how == "ran out")
        second = await run.feeder()
        await until(lambda: all(owned(first, second)))
        (ours,) = first.feeding.own
        with structlog.testing.capture_logs() as lines:
            run.cluster.server.put(("lease", ours), b"somebody")
            await until(lambda: not first.feeding.own)
            run.cluster.server.put(("lease", ours), None)
            await trio.sleep(5)
        (line,) = [line for line in lines if line["event"] == "shard.lease_lost"]
        assert "had not run out" in line["why"]
        await run.until_all([watcher])
        assert not told(watcher, StreamState.UNREPAIRABLE)


async def test_what_cannot_be_let_go_keeps_nobody_from_saying_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The right to trim was withdrawn."""
    async with cluster() as run:
        watcher, feeder = await run.watcher(), await run.feeder()
        await until(lambda: owned(feeder) == [ALL_SHARDS])
        with structlog.testing.capture_logs() as lines:
            feeder.reach.fault = lambda call: LOST_REQUEST if call == "bytes_of" else NO_FAULT
            await trio.sleep(50)
        await run.until_all([watcher])
        assert [line["event"] for line in lines].count("engine.not_trimmed") == 1
        assert "engine.lost" not in [line["event"] for line in lines]
        assert not told(watcher, StreamState.STALE)


async def test_what_may_be_let_go_is_not_noted_without_end_where_it_cannot_be(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as run:
        feeder = await run.feeder()
        await until(lambda: owned(feeder) == [ALL_SHARDS])
        feeder.reach.fault = lambda call: LOST_REQUEST if call == "trim" else NO_FAULT
        feeding = feeder.feeding
        for _ in range(2):
            await trio.sleep(feeding.retain_s + 60)
            marks = feeding._appending._marks
            assert {len(each) for each in marks.values()} <= {*range(int(feeding.retain_s / 5 + 6))}


def by_hand(run: Running, how: str, shard: str) -> None:
    """What an operator does to the engine."""
    server = run.cluster.server
    if how == "log deleted":
        server.forget(shard)
    elif how == "all deleted":
        server.empty()
    else:
        server.delete_last(shard, 1 if how == "one entry deleted" else 3)


@pytest.mark.parametrize(
    "how", ["log deleted", "all deleted", "one entry deleted", "three entries deleted"]
)
@pytest.mark.parametrize("hot", [False, True])
async def test_what_somebody_deletes_in_the_engine_costs_nothing(
    how: str, hot: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The owner goes on, and knows all that it has said: what is read elsewhere is not missing."""
    async with cluster(hot=hot) as run:
        feeder, watcher = await run.feeder(), await run.watcher()
        if hot:
            await run.feeder()
        await trio.sleep(5 * PERIOD_S)  # it keeps no entry of the beginning any more
        for shard in ALL_SHARDS:
            for _ in range(3):
                await until(lambda shard=shard: _read_all(run, watcher, shard))  # type: ignore[misc]
                by_hand(run, how, shard)
                if feeder.feeding.own:  # it has something to say in this moment
                    for symbol in feeder.next:
                        feeder.tell(symbol)
                await trio.sleep(0.7 * PERIOD_S)
        await run.until_all([watcher])
        await until(watcher.is_calm)
        assert not told(watcher, StreamState.UNREPAIRABLE)


def _read_all(run: Running, watcher: Watcher, shard: str) -> bool:
    server = run.cluster.server
    return watcher.following.readings[shard].position == server.tail(shard)


@pytest.fixture
def seeded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Trio shuffles tasks that are ready; here by the seed."""
    seed: int = request.param
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    scheduler._r.seed(seed)
    return seed


FAULTS: list[Callable[[random.Random], Fault]] = [
    lambda chance: NO_FAULT,
    lambda chance: LOST_REQUEST,
    lambda chance: LOST_ANSWER,
    lambda chance: late_answer(chance.uniform(0, 5)),
    lambda chance: late_request(chance.uniform(0, 5)),
]


@define(eq=False)
class Trouble:
    """What happens to a cluster, by a seed."""

    run: Running
    chance: random.Random
    feeders: list[Feeder]
    watchers: list[Watcher]
    done: list[str] = field(factory=list)

    async def happen(self) -> None:
        run, chance = self.run, self.chance
        server, database = run.cluster.server, run.cluster.database
        node = chance.choice(self.feeders)
        what = chance.randrange(12)
        self.done.append(f"{trio.current_time():.1f} {what} {node.name}")
        if what == 0:
            node.kill()
            self.feeders.remove(node)
            self.feeders.append(await run.feeder())
        elif what == 1:
            server.fail_over(chance.randrange(0, 30))
        elif what == 2:
            server.stop()
            await trio.sleep(chance.uniform(0, 20))
            server.start()
        elif what == 3:
            server.empty()
        elif what == 4:
            shard = chance.choice(ALL_SHARDS)
            if len(server.entries(shard)) > 1:
                server.cut(shard, chance.randrange(1, 12))
        elif what == 5:
            database.away = True
            await trio.sleep(chance.uniform(0, 15))
            database.away = False
        elif what == 6:
            database.lag_s = chance.choice([0.0, 0.0, 0.5, 3.0])
        elif what == 7:
            watcher = chance.choice(self.watchers)
            watcher.scope.cancel()
            self.watchers.remove(watcher)
            self.watchers.append(await run.watcher())
        elif what == 8:
            node.reach.fault = lambda call: LOST_REQUEST
            await trio.sleep(chance.uniform(0, 12))
            node.reach.fault = lambda call: NO_FAULT
        elif what == 9:
            watcher = chance.choice(self.watchers)
            watcher.reach.fault = lambda call: LOST_REQUEST
            await trio.sleep(chance.uniform(0, 40))
            watcher.reach.fault = lambda call: NO_FAULT
        elif what == 10:
            for symbol in list(node.next):
                node.correct(symbol, chance.randrange(3))
        else:
            await node.leave()
            self.feeders.remove(node)
            self.feeders.append(await run.feeder())
        await trio.sleep(chance.uniform(0, 15))


@pytest.mark.parametrize("seeded", but_slow([*range(15), 26], quick=[*range(3), 26]), indirect=True)
@pytest.mark.parametrize("hot", [False, True])
async def test_any_faults(seeded: int, hot: bool, autojump_clock: trio.testing.MockClock) -> None:
    await any_faults(seeded, hot=hot, shared=False)


@pytest.mark.parametrize("seeded", but_slow([*range(15)], quick=[*range(3)]), indirect=True)
async def test_any_faults_of_readers_that_share_a_log(
    seeded: int, autojump_clock: trio.testing.MockClock
) -> None:
    await any_faults(seeded, hot=False, shared=True)


async def any_faults(seed: int, *, hot: bool, shared: bool) -> None:
    chance = random.Random(seed)
    async with cluster(seed, hot=hot) as run:
        feeders = [await run.feeder() for _ in range(2)]
        watchers = [await run.watcher() for _ in range(1 if shared else 3)]
        if shared:
            run.machine = Machine(run.cluster)
            watchers += [await run.watcher() for _ in range(3)]
        await trio.sleep(2 * PERIOD_S)
        trouble = Trouble(run, chance, feeders, watchers)

        def at_random(call: str) -> Fault:
            return chance.choice(FAULTS)(chance) if chance.random() < 0.03 else NO_FAULT

        for _ in range(15):
            for node in (*feeders, *watchers):
                node.reach.fault = at_random
            await trouble.happen()
        for node in (*feeders, *watchers):
            node.reach.fault = lambda call: NO_FAULT
        run.cluster.database.lag_s = 0.0
        await trio.sleep(2 * PERIOD_S)
        await run.until_all(watchers, 120.0)
        await until(lambda: all(watcher.is_calm() for watcher in watchers))
        assert all(not watcher.closings for watcher in watchers)
        for symbol in SYMBOLS:
            rows = await watchers[0].store.history(series_of(symbol), limit=1000)
            opens = [row.open_ms // 60_000 for row in rows]
            assert opens == list(range(len(opens)))
            for watcher in watchers:
                corrected = watcher.corrected.get(series_of(symbol), {})
                known = {k: row for k, row in enumerate(rows) if row.volume > 1 + watcher.since}
                assert known == {k: corrected[k] for k in known}
