"""What every database of several writers answers, as checks that run on each of them.

``tests/test_shards.py`` runs them on memory in virtual time, ``tests/live/test_shards_live.py`` on
PostgreSQL.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from structlog.testing import capture_logs

from trio_feed.errors import ServerAway, StoreError
from trio_feed.model import Hole, Interval, Series
from trio_feed.store import BufferedStore, KlineStore
from trio_feed.store.backend import StoreFault
from trio_feed.store.base import Entry
from trio_feed.store.shards import SharedStore

from .make import MINUTE, SERIES, T0, kline, message

ETHER = Series("binance_usdm", "ETHUSDT", Interval.M1)
BTC, ETH = "binance_usdm.BTCUSDT", "binance_usdm.ETHUSDT"
NOW = 5_000


def shard_of(venue: str, symbol: str) -> str:
    return f"{venue}.{symbol}"


@define
class Node:
    """A process that writes.  ``fenced``: what it was told."""

    store: SharedStore
    fenced: list[str] = field(factory=list)

    def put(
        self,
        n: int,
        number: tuple[int, int],
        *,
        series: Series = SERIES,
        close: str = "100.50",
        revision: bool = False,
    ) -> None:
        """The candle of minute ``n``."""
        epoch, offset = number
        sent = message(kline(T0 + n * MINUTE, close), series, epoch=epoch, offset=offset)
        self.store.put(evolve(sent, revision=revision))

    async def claim(self, shard: str = BTC) -> int:
        return await self.store.claim(shard, NOW)

    def kill(self) -> None:
        """Nothing more of it lands."""

        async def never(batch: Sequence[Entry]) -> None:
            raise StoreFault("killed", "")

        self.store.backend.write = never  # type: ignore[method-assign]


class Cluster(Protocol):
    """One empty database and how to open it.  Minutes are kept for an hour."""

    def writer(self) -> AbstractAsyncContextManager[Node]: ...

    def reader(self) -> AbstractAsyncContextManager[KlineStore]: ...

    def sole(self) -> AbstractAsyncContextManager[object]:
        """As the only writer."""

    def slow(self) -> AbstractAsyncContextManager[None]:
        """A write that begins inside does not end before the block does, or a while after."""


async def opens(store: KlineStore, series: Series = SERIES) -> list[int]:
    return [(k.open_ms - T0) // MINUTE for k in await store.history(series, limit=500)]


async def after(
    store: KlineStore, number: tuple[int, int], closed: int | None = None
) -> list[tuple[int, tuple[int, int]]] | None:
    """(minute, number); ``closed`` is a minute too."""
    closed_ms = None if closed is None else T0 + closed * MINUTE
    found = await store.after(SERIES, *number, closed_ms=closed_ms, limit=50)
    if found is None:
        return None
    return [((m.kline.open_ms - T0) // MINUTE, (m.epoch, m.offset)) for m in found]


async def claims_grow_and_are_nobody_elses(cluster: Cluster) -> None:
    by_shard: dict[str, list[int]] = {BTC: [], ETH: []}
    async with cluster.writer() as one, cluster.writer() as two:

        async def claim(node: Node, shard: str) -> None:
            for _ in range(5):
                by_shard[shard].append(await node.claim(shard))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim, one, BTC)
            nursery.start_soon(claim, two, ETH)
        last = await two.store.claim(BTC, 10**12)
        later = await one.claim(ETH)
    found = [*by_shard[BTC], *by_shard[ETH]]
    assert len(set(found)) == 10
    assert min(found) == NOW
    assert all(epochs == sorted(epochs) for epochs in by_shard.values())
    assert (last, later) == (10**12, 10**12 + 1)
    async with cluster.sole() as alone:
        assert isinstance(alone, BufferedStore)
        assert alone.epoch > later


async def a_fenced_writer_writes_nothing_and_is_told(cluster: Cluster) -> None:
    async with cluster.writer() as old, cluster.writer() as new, cluster.reader() as reader:
        first = await old.claim()
        old.put(0, (first, 1))
        await old.store.flush()
        second = await new.claim()
        old.put(1, (first, 2))
        old.store.put_hole(SERIES, Hole(T0 + 5 * MINUTE, T0 + 6 * MINUTE))
        with capture_logs() as lines:
            await old.store.flush()
        assert old.fenced == [BTC]
        assert [(line["shards"], line["rows"]) for line in lines] == [([BTC], 2)]
        assert await opens(reader) == [0]
        assert (await reader.stored_ends())[SERIES].settled_ms == T0
        old.put(2, (first, 3))  # until it has stepped down
        assert old.store.pending() == 0
        assert await opens(old.store) == [0]
        new.put(1, (second, 1))
        await new.store.flush()
        assert await opens(reader) == [0, 1]
        assert (old.fenced, new.fenced) == ([BTC], [])


async def of_a_batch_the_fenced_part_alone_is_dropped(cluster: Cluster) -> None:
    """A source's cursor too: it would say that candles are stored which are not."""
    async with cluster.writer() as old, cluster.writer() as new, cluster.reader() as reader:
        epochs = {shard: await old.claim(shard) for shard in (BTC, ETH, "spinpet.", "okx.")}
        await new.claim(BTC)
        await new.claim("spinpet.")
        old.put(0, (epochs[BTC], 1))
        old.put(0, (epochs[ETH], 1), series=ETHER)
        old.store.put_cursor("spinpet", "ten")
        old.store.put_cursor("okx", "eleven")
        await old.store.flush()
        assert sorted(old.fenced) == [BTC, "spinpet."]
        assert await opens(reader) == []
        assert await opens(reader, ETHER) == [0]
        assert [await reader.cursor(name) for name in ("spinpet", "okx")] == [None, "eleven"]


async def nothing_is_written_without_a_claim(cluster: Cluster) -> None:
    async with cluster.writer() as node, cluster.reader() as reader:
        node.put(0, (NOW, 1))
        node.store.put_cursor("binance_usdm", "x")
        assert node.store.pending() == 0
        epoch = await node.claim()
        node.put(1, (epoch, 1))
        await node.store.flush()
        assert await opens(reader) == [1]
        assert node.fenced == []


async def a_write_under_way_lands_before_a_claim_or_never(cluster: Cluster) -> None:
    async with cluster.writer() as old, cluster.writer() as new, cluster.reader() as reader:
        first = await old.claim()
        old.put(0, (first, 1))
        seen: list[list[int]] = []

        async def claim() -> None:
            await new.claim()
            seen.append(await opens(reader))

        async with trio.open_nursery() as nursery:
            async with cluster.slow():
                nursery.start_soon(old.store.flush)
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.start_soon(claim)
                await trio.testing.wait_all_tasks_blocked(0.05)
        assert seen == [await opens(reader)]
        assert (seen, old.fenced) in (([[0]], []), ([[]], [BTC]))


async def what_was_pending_under_an_older_claim_is_not_written_under_a_newer(
    cluster: Cluster,
) -> None:
    """The other owner may have revised it."""
    async with cluster.writer() as one, cluster.writer() as two, cluster.reader() as reader:
        first = await one.claim()
        one.put(0, (first, 1), close="1.0")
        second = await two.claim()
        two.put(0, (second, 1), close="2.0")
        await two.store.flush()
        third = await one.claim()
        assert one.store.pending() == 0
        one.put(1, (third, 1))
        await one.store.flush()
        assert [str(k.close) for k in await reader.history(SERIES, limit=5)] == ["2.0", "100.50"]


async def what_is_pending_under_the_last_claim_is_written_before_the_next(cluster: Cluster) -> None:
    async with cluster.writer() as node, cluster.reader() as reader:
        node.put(0, (await node.claim(), 1))
        await node.claim()
        assert await opens(reader) == [0]
        assert node.fenced == []


async def a_released_epoch_is_known_to_its_end(cluster: Cluster) -> None:
    async with cluster.writer() as old, cluster.writer() as new, cluster.reader() as reader:
        first = await old.claim()
        old.put(0, (first, 3))
        old.put(1, (first, 4))
        assert await after(reader, (first, 9)) is None
        assert await old.store.release(BTC, first)
        assert old.store.pending() == 0
        old.put(7, (first, 10))  # too late: it is of no epoch
        assert old.store.pending() == 0
        second = await new.claim()
        new.put(2, (second, 1))
        await new.store.flush()
        for store in (reader, new.store, old.store):
            assert await after(store, (first, 9)) == [(2, (second, 1))]
            assert await after(store, (first, 3)) == [(1, (first, 4)), (2, (second, 1))]
        assert old.fenced == []


async def a_killed_owners_epoch_is_known_to_its_last_row(cluster: Cluster) -> None:
    """Beyond it the anchor of the client decides, if it is stored."""
    async with cluster.writer() as new, cluster.reader() as reader:
        async with cluster.writer() as old:
            first = await old.claim()
            old.put(0, (first, 1))
            old.put(1, (first, 2))
            await old.store.flush()
            old.put(2, (first, 3))
            old.kill()
        second = await new.claim()
        whole = [(2, (second, 1)), (3, (second, 2))]
        assert await after(reader, (first, 3), closed=2) is None  # nobody has it yet
        new.put(2, (second, 1))
        new.put(3, (second, 2))
        for n in (-2, -1):  # history that was fetched
            new.put(n, (0, 0))
        await new.store.flush()
        for store in (reader, new.store):
            assert await after(store, (first, 2)) == whole
            assert await after(store, (first, 1)) == [(1, (first, 2)), *whole]
            assert await after(store, (first, 3)) is None
            assert await after(store, (first, 3), closed=2) == whole[1:]
            assert await after(store, (first, 3), closed=9) is None
            # History is in no answer, so it cannot be gone on from.
            assert await after(store, (first, 3), closed=-2) is None
        assert await after(new.store, (second, 7)) == []  # its own, so it knows
        assert await after(reader, (second, 7)) is None
        assert await after(reader, (second, 7), closed=3) == []
        new.put(4, (0, 0))  # a silent candle of a chain
        new.put(5, (second, 8))
        await new.store.flush()
        assert await after(reader, (second, 9), closed=4) == [(5, (second, 8))]


async def candles_of_a_log_are_saved_under_their_numbers(cluster: Cluster) -> None:
    """What a dead owner had published and not stored: by the next one, who reads it in the log."""
    async with cluster.writer() as new, cluster.reader() as reader:
        async with cluster.writer() as old:
            first = await old.claim()
            old.put(0, (first, 1))
            await old.store.flush()
            old.kill()
        second = await new.claim()
        new.put(1, (first, 2))
        new.put(2, (second, 1))
        await new.store.flush()
        assert await after(reader, (first, 1)) == [(1, (first, 2)), (2, (second, 1))]
        assert await after(reader, (first, 2)) == [(2, (second, 1))]
        assert await after(reader, (first, 3)) is None


async def only_the_last_claim_can_be_released(cluster: Cluster) -> None:
    async with cluster.writer() as old, cluster.writer() as new, cluster.reader() as reader:
        first = await old.claim()
        old.put(0, (first, 1))
        await old.store.flush()
        second = await new.claim()
        assert not await old.store.release(BTC, first)
        assert await after(reader, (first, 5)) is None
        assert not await new.store.release(BTC, first)
        new.put(1, (second, 1))
        await new.store.flush()
        assert await opens(reader) == [0, 1]
        assert await new.store.release(BTC, second)
        assert await after(reader, (second, 5)) == []


async def an_epoch_that_was_not_released_counts_as_killed(cluster: Cluster) -> None:
    """Only its owner knows whether all that it published was put."""
    async with cluster.writer() as node:
        first = await node.claim()
        node.put(0, (first, 1))
    async with cluster.reader() as reader:
        assert await opens(reader) == [0]
        assert await after(reader, (first, 1)) == []
        assert await after(reader, (first, 2)) is None


async def a_reader_sees_what_was_committed_and_writes_nothing(cluster: Cluster) -> None:
    async with cluster.writer() as node, cluster.reader() as reader:
        epoch = await node.claim()
        node.put(0, (epoch, 1))
        node.put(0, (epoch, 2), close="7.0", revision=True)
        node.store.put_hole(SERIES, Hole(T0 + MINUTE, T0 + 2 * MINUTE))
        node.store.put_cursor("binance_usdm.", "nobody's")
        assert await opens(reader) == []
        assert await opens(node.store) == [0]
        await node.store.flush()
        assert [str(k.close) for k in await reader.history(SERIES, limit=5)] == ["7.0"]
        assert (await reader.stored_ends())[SERIES].settled_ms == T0 + 2 * MINUTE
        assert await reader.first_open(SERIES) == T0
        assert [r.offset for r in await reader.revisions(SERIES, limit=5)] == [2]
        reader.put(message(kline(T0 + MINUTE), epoch=epoch, offset=3))
        reader.put_cursor("x", "y")
        assert reader.pending() == 0
        assert await opens(reader) == [0]
        assert reader.epoch == 0
        assert isinstance(reader, SharedStore)
        with pytest.raises(StoreError, match="cannot be claimed: it was opened for reading"):
            await reader.claim(BTC, NOW)
        await reader.retain()
        assert dict(reader.statistics().sizes.rows) == {Interval.M1: 1}


async def two_writers_do_not_disturb_each_other(cluster: Cluster) -> None:
    """Batches, retention and series that are new, at once."""
    rounds = 12
    async with cluster.writer() as one, cluster.writer() as two, cluster.reader() as reader:

        async def write(node: Node, shard: str, symbol: str) -> None:
            epoch = await node.claim(shard)
            for n in range(rounds):
                for k, interval in enumerate((Interval.H1, Interval.M5, Interval.M1)):
                    at = 20 * n if interval is Interval.M1 else n
                    series = Series("binance_usdm", symbol, interval)
                    node.put(at, (epoch, 3 * n + k + 1), series=series)
                await node.store.flush()
                await node.store.retain()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, one, BTC, "BTCUSDT")
            nursery.start_soon(write, two, ETH, "ETHUSDT")
        ends = await reader.stored_ends()
        assert len(ends) == 6
        for symbol in ("BTCUSDT", "ETHUSDT"):
            series = Series("binance_usdm", symbol, Interval.M1)
            assert await opens(reader, series) == [160, 180, 200, 220]
            assert ends[series].first_open_ms == T0 + 160 * MINUTE
            assert ends[series].kline.open_ms == T0 + 220 * MINUTE
            series = Series("binance_usdm", symbol, Interval.M5)
            assert await opens(reader, series) == [*range(rounds)]
        await one.store.measure()
        rows = dict(one.store.statistics().sizes.rows)
        assert rows == {Interval.M1: 8, Interval.M5: 2 * rounds, Interval.H1: 2 * rounds}
        assert (one.fenced, two.fenced) == ([], [])


async def a_series_is_pruned_by_its_owner_alone(cluster: Cluster) -> None:
    async with cluster.writer() as one, cluster.writer() as two, cluster.reader() as reader:
        for node, shard, series in ((one, BTC, SERIES), (two, ETH, ETHER)):
            epoch = await node.claim(shard)
            for n in (0, 1, 500):
                node.put(n, (epoch, n + 1), series=series)
            await node.store.flush()
        await two.store.retain()
        assert (await opens(reader), await opens(reader, ETHER)) == ([0, 1, 500], [500])
        third = await two.claim(BTC)
        await one.store.retain()  # it does not know yet
        assert await opens(reader) == [0, 1, 500]
        two.put(501, (third, 1))
        await two.store.flush()
        await two.store.retain()
        assert await opens(reader) == [500, 501]
        assert await after(two.store, (third, 0)) == [(501, (third, 1))]


async def owners_that_take_a_shard_from_each_other(cluster: Cluster) -> None:
    """Each goes on where the store ends, and writes until it is fenced: what it was not told of is
    there, in one piece, and nothing of an older claim comes later."""
    kept: dict[int, str] = {}

    async with cluster.reader() as reader:

        async def own(turns: int, batches: int) -> None:
            async with cluster.writer() as node:
                for _ in range(turns):
                    epoch = await node.claim()
                    node.fenced.clear()
                    end = (await node.store.stored_ends()).get(SERIES)
                    n = 0 if end is None else (end.kline.open_ms - T0) // MINUTE + 1
                    for batch in range(batches):
                        offset, close = 2 * batch + 1, f"{epoch}.{batch}"
                        for k in range(2):
                            node.put(n + k, (epoch, offset + k), close=close)
                        await node.store.flush()
                        if node.fenced:
                            break
                        kept.update({n: close, n + 1: close})
                        n += 2

        async with trio.open_nursery() as nursery:
            for batches in (1, 3, 9):
                nursery.start_soon(own, 12, batches)
        rows = await reader.history(SERIES, limit=500)
        assert [row.open_ms for row in rows] == [T0 + n * MINUTE for n in range(len(rows))]
        assert {n: str(row.close) for n, row in enumerate(rows)} == kept
        epochs = [int(row.close) for row in rows]
        assert epochs == sorted(epochs)
        assert len(set(epochs)) > 2


async def one_process_alone_or_several(cluster: Cluster) -> None:
    async with cluster.writer(), cluster.writer(), cluster.reader():
        with pytest.raises(ServerAway, match="is being written by another trio_feed"):
            async with cluster.sole():
                pass
    async with cluster.sole(), cluster.reader():
        with pytest.raises(ServerAway, match="is being written by another trio_feed"):
            async with cluster.writer():
                pass
    async with cluster.writer() as node:
        assert await node.claim() > 0


async def the_identity_is_the_same_for_all_and_may_be_read_again(cluster: Cluster) -> None:
    async with cluster.writer() as node, cluster.reader() as reader:
        assert isinstance(reader, SharedStore)
        known = node.store.identity
        assert known
        assert known == reader.identity == await reader.read_identity()
        assert await node.store.read_identity() == known


CHECKS = [
    claims_grow_and_are_nobody_elses,
    a_fenced_writer_writes_nothing_and_is_told,
    of_a_batch_the_fenced_part_alone_is_dropped,
    nothing_is_written_without_a_claim,
    a_write_under_way_lands_before_a_claim_or_never,
    what_was_pending_under_an_older_claim_is_not_written_under_a_newer,
    what_is_pending_under_the_last_claim_is_written_before_the_next,
    a_released_epoch_is_known_to_its_end,
    a_killed_owners_epoch_is_known_to_its_last_row,
    candles_of_a_log_are_saved_under_their_numbers,
    only_the_last_claim_can_be_released,
    an_epoch_that_was_not_released_counts_as_killed,
    a_reader_sees_what_was_committed_and_writes_nothing,
    two_writers_do_not_disturb_each_other,
    a_series_is_pruned_by_its_owner_alone,
    owners_that_take_a_shard_from_each_other,
    one_process_alone_or_several,
    the_identity_is_the_same_for_all_and_may_be_read_again,
]
