"""The memory twin of a database that several nodes write, in virtual time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import define, field
from structlog.testing import capture_logs
from support import shard_contract as shards
from support import store_contract
from support.make import SERIES
from support.shard_contract import BTC, ETH, ETHER, Cluster, Node, after, opens, shard_of

from trio_feed.errors import StoreError
from trio_feed.metrics import Metrics
from trio_feed.settings import StoreSettings
from trio_feed.store import (
    BufferedStore,
    KlineStore,
    MemoryDatabase,
    Sharing,
    open_reading_store,
    open_shared_store,
)
from trio_feed.store.buffered import BufferLimits
from trio_feed.store.memory_database import MemoryBackend
from trio_feed.store.shards import SharedStore

SETTINGS = StoreSettings(keep=store_contract.KEEP)


@define
class Twin:
    """See :class:`support.shard_contract.Cluster`."""

    database: MemoryDatabase = field(factory=MemoryDatabase)
    of: Callable[[str, str], str] = shard_of
    settings: StoreSettings = SETTINGS

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Node]:
        fenced: list[str] = []
        async with open_shared_store(
            self.settings,
            Sharing(self.of, fenced.extend),
            simulated=False,
            metrics=Metrics(),
            twin=self.database,
        ) as store:
            assert isinstance(store, SharedStore)
            yield Node(store, fenced)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[KlineStore]:
        async with open_reading_store(
            self.settings, simulated=False, metrics=Metrics(), twin=self.database
        ) as store:
            yield store

    @asynccontextmanager
    async def sole(self) -> AsyncIterator[BufferedStore]:
        backend = self.database.open_sole(simulated=False, now_ms=1)
        yield BufferedStore(backend, BufferLimits(1, 100, {}), Metrics())
        await backend.close(complete=True)

    @asynccontextmanager
    async def slow(self) -> AsyncIterator[None]:
        self.database.lag_s, self.database.commit_s = self.slowness
        yield
        self.database.lag_s = self.database.commit_s = 0.0

    slowness: tuple[float, float] = (0.0, 5.0)


@pytest.mark.parametrize("check", shards.CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[Cluster], Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    with trio.fail_after(60):
        await check(Twin())


@pytest.mark.parametrize("check", store_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["unwritten", "written"])
async def test_it_is_a_store_as_any(
    check: Callable[[store_contract.Kit], Awaitable[None]],
    kind: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Twin(of=lambda venue, symbol: "all").writer() as node:
        store = node.store
        store.epoch = await store.claim("all", store_contract.EPOCH)

        async def retain() -> None:
            await store.flush()
            await store.retain()

        written = store.flush if kind == "written" else trio.lowlevel.checkpoint
        await check(store_contract.Kit(store, written, retain))


@pytest.mark.parametrize(
    ("slowness", "landed"), [((0.0, 5.0), True), ((5.0, 0.0), False), ((3.0, 3.0), False)]
)
async def test_a_slow_write_and_a_claim(
    slowness: tuple[float, float], landed: bool, autojump_clock: trio.testing.MockClock
) -> None:
    twin = Twin()
    twin.slowness = slowness
    async with twin.writer() as old, twin.writer() as new, twin.reader() as reader:
        old.put(0, (await old.claim(), 1))
        async with twin.slow(), trio.open_nursery() as nursery:
            nursery.start_soon(old.store.flush)
            await trio.testing.wait_all_tasks_blocked()
            await new.claim()
        assert (await opens(reader) == [0]) is landed
        assert (old.fenced == []) is landed


@pytest.mark.parametrize("slowness", [(0.5, 0.0), (0.0, 0.5), (0.3, 0.2)])
async def test_owners_that_take_a_shard_from_each_other_slowly(
    slowness: tuple[float, float], autojump_clock: trio.testing.MockClock
) -> None:
    lag_s, commit_s = slowness
    database = MemoryDatabase(lag_s=lag_s, commit_s=commit_s)
    await shards.owners_that_take_a_shard_from_each_other(Twin(database))


async def test_what_is_put_while_a_shard_is_lost_is_dropped_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each entry is counted once, whether the batch landed or failed."""
    for fails in (False, True):
        twin = Twin()
        async with twin.writer() as old, twin.writer() as new:
            epochs = await old.claim(BTC), await old.claim(ETH)
            await new.claim(BTC)
            old.put(0, (epochs[0], 1))
            old.put(0, (epochs[1], 1), series=ETHER)
            twin.database.lag_s = twin.database.commit_s = 2.0
            with capture_logs() as lines:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(old.store.last_flush)
                    await trio.sleep(1)
                    old.put(1, (epochs[0], 2))
                    await trio.sleep(2)
                    old.put(2, (epochs[0], 3))  # it is known to be lost
                    twin.database.away = fails
            (line,) = [line for line in lines if line["event"] == "store.fenced"]
            assert (line["rows"], old.fenced) == (2, [BTC])
            assert old.store.pending() == fails  # of the other shard
            assert old.store._metrics.store_fenced._value.get() == 3
            twin.database.away = False


async def test_what_is_put_while_a_shard_is_claimed_again_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It belongs to the claim before.  Who waits for room goes on."""
    twin = Twin(settings=StoreSettings(max_pending_rows=1000))
    async with twin.writer() as one, twin.writer() as two, twin.reader() as reader:
        first = await one.claim()
        two.put(0, (await two.claim(), 1))
        twin.database.commit_s = 5.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.store.flush)
            await trio.sleep(1)
            nursery.start_soon(one.claim)
            await trio.sleep(1)
            for n in range(1000):
                one.put(n, (first, n + 1))
            with trio.fail_after(60):
                assert await one.store.wait_capacity()
        assert one.store.pending() == 0
        await one.store.flush()
        assert await opens(reader) == [0]


async def test_after_a_loss_the_writer_rests(autojump_clock: trio.testing.MockClock) -> None:
    twin = Twin()
    async with twin.writer() as old, twin.writer() as new, trio.open_nursery() as nursery:
        first = await old.claim()
        await new.claim()
        flushes, flush = [], old.store.flush

        async def counted() -> None:
            flushes.append(trio.current_time())
            await flush()

        old.store.flush = counted  # type: ignore[method-assign]
        nursery.start_soon(old.store.run)
        twin.database.lag_s = 0.5
        old.put(0, (first, 1))
        await trio.sleep(0.2)
        old.put(1, (first, 2))
        await trio.sleep(60)
        assert len(flushes) < 4
        nursery.cancel_scope.cancel()


async def test_while_it_is_away_everything_waits(autojump_clock: trio.testing.MockClock) -> None:
    twin = Twin()
    async with twin.writer() as node, twin.reader() as reader, trio.open_nursery() as nursery:
        epoch = await node.claim()
        nursery.start_soon(node.store.run)
        twin.database.away = True
        node.put(0, (epoch, 1))
        await trio.sleep(10)
        assert node.store.pending() == 1
        for question in (node.store.claim(BTC, 1), node.store.release(BTC, epoch)):
            with pytest.raises(StoreError, match=f"shard {BTC} cannot be .*nothing listens there"):
                await question
        with pytest.raises(StoreError):
            await opens(reader)
        twin.database.away = False
        await trio.sleep(10)
        assert (node.store.pending(), node.fenced) == (0, [])
        assert await opens(reader) == [0]
        assert await after(reader, (epoch, 2)) is None  # the release failed
        assert await node.store.release(BTC, epoch)
        nursery.cancel_scope.cancel()


async def test_a_batch_that_lands_unanswered_is_written_again_and_changes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    twin = Twin()
    async with twin.writer() as node, twin.reader() as reader, trio.open_nursery() as nursery:
        epoch = await node.claim()
        twin.database.unanswered = 2
        node.put(0, (epoch, 1))
        node.put(1, (epoch, 2))
        node.put(0, (epoch, 3), close="7.0", revision=True)
        nursery.start_soon(node.store.run)
        await trio.sleep(0.05)
        assert (await opens(reader), node.store.pending()) == ([0, 1], 3)
        await trio.sleep(10)
        assert node.store.pending() == 0
        assert await after(reader, (epoch, 0)) == [
            (0, (epoch, 1)),
            (1, (epoch, 2)),
            (0, (epoch, 3)),
        ]
        assert len(await reader.revisions(SERIES, limit=5)) == 1
        nursery.cancel_scope.cancel()


async def test_an_unanswered_batch_is_not_written_again_over_a_claim(
    autojump_clock: trio.testing.MockClock,
) -> None:
    twin = Twin()
    async with twin.writer() as old, twin.writer() as new, twin.reader() as reader:
        first = await old.claim()
        twin.database.unanswered = 1
        old.put(0, (first, 1), close="1.0")
        with pytest.raises(StoreError):
            await old.store.flush()
        second = await new.claim()
        new.put(0, (second, 1), close="2.0", revision=True)
        await new.store.flush()
        await old.store.flush()
        assert [str(k.close) for k in await reader.history(SERIES, limit=5)] == ["2.0"]
        assert old.fenced == [BTC]


async def test_a_killed_node_writes_nothing_and_holds_no_lock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    twin = Twin()
    async with twin.writer() as node, trio.open_nursery() as nursery:
        epoch = await node.claim()
        twin.database.commit_s = 1.0
        node.put(0, (epoch, 1))
        nursery.start_soon(node.store.run)
        await trio.sleep(0.5)
        assert isinstance(node.store.backend, MemoryBackend)
        node.store.backend.kill()
        await trio.sleep(5)
        assert node.store.pending() == 1
        nursery.cancel_scope.cancel()
    async with twin.sole() as store:
        assert await opens(store) == []


async def test_who_waits_for_capacity_goes_on_when_the_shard_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    twin = Twin()
    twin.settings = StoreSettings(max_pending_rows=1000)
    async with twin.writer() as new, twin.writer() as node:
        store = node.store
        epoch = await node.claim()
        for n in range(1000):
            node.put(n, (epoch, n + 1))
        await new.claim()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            with trio.fail_after(5):
                assert await store.wait_capacity()
            assert store.pending() == 0
            nursery.cancel_scope.cancel()
