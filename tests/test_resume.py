"""Coming back with ``since``: everything after it, or an honest no."""

from typing import Any

import pytest
import trio
from support.make import MINUTE, SERIES, T0, kline, message
from support.node import TRADES, Node, connected, numbers, times

from trio_feed.model import KlineMessage


def recovered(told: list[dict[str, Any]]) -> bool | None:
    (confirmed,) = [m["data"] for m in told if m["type"] == "subscription_confirmed"]
    answer: bool | None = confirmed.get("recovered")
    return answer


def count(node: Node, result: str) -> float:
    return node.metrics.resumes.labels(result)._value.get()


async def test_from_the_ring_everything_comes_again(autojump_clock: trio.abc.Clock) -> None:
    node = Node(ring=8)
    async with connected(node) as client:
        await client.keep()
        for n in range(4):
            node.publish(n, closed=False)
            node.publish(n)
        told = await client.resume(1, 3)
        assert [m["type"] for m in told] == ["subscription_confirmed", *["kline_data"] * 5]
        confirmed = told[0]["data"]
        assert (confirmed["recovered"], confirmed["epoch"], confirmed["offset"]) == (True, 1, 3)
        node.publish(4)
        assert numbers([*told, *client.take()]) == [(n, 0) for n in range(4, 10)]
        assert count(node, "ring") == 1


@pytest.mark.parametrize(("offset", "there"), [(0, True), (4, True), (5, True)])
async def test_the_rings_edges(offset: int, there: bool, autojump_clock: trio.abc.Clock) -> None:
    node = Node(ring=5)
    async with connected(node) as client:
        await client.keep()
        for n in range(5):
            node.publish(n)
        told = await client.resume(1, offset)
        assert recovered(told) is there
        assert numbers(told) == [(n, 0) for n in range(offset + 1, 6)]
        assert count(node, "ring") == 1


async def test_beyond_the_ring_the_store_has_what_was_final(autojump_clock: trio.abc.Clock) -> None:
    node = Node(ring=3)
    async with connected(node) as client:
        await client.keep()
        for n in range(4):
            for _ in range(4):
                node.publish(n, closed=False)
            node.publish(n)  # offsets 5, 10, 15, 20
        node.revise(1, "100.75")
        node.publish(4, closed=False)
        told = await client.resume(1, 3)
        assert recovered(told) is True
        assert numbers(told) == [(5, 1), (10, 4), (15, 4), (20, 4), (21, 0), (22, 0)]
        rows = [m["data"]["data"] for m in told[1:]]
        kinds = [row["update_type"] for row in rows]
        assert kinds == ["final"] * 4 + ["revision", "realtime"]
        assert not any(m["data"].get("provisional") or "provisional" in m for m in told[1:])
        assert times(rows) == [0, 1, 2, 3, 1, 4]
        node.publish(4)
        assert numbers(client.take()) == [(23, 0)]
        assert count(node, "store") == 1


async def test_open_updates_that_the_ring_has_lost_are_counted(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The newest candle is still open, and had more updates than the ring holds."""
    node = Node(ring=3)
    async with connected(node) as client:
        await client.keep()
        node.publish(0)
        for _ in range(10):
            node.publish(1, closed=False)
        assert numbers(await client.resume(1, 0)) == [(1, 0), (9, 7), (10, 0), (11, 0)]
        assert numbers(await client.resume(1, 4)) == [(9, 4), (10, 0), (11, 0)]


async def test_the_open_candle_is_told_where_nobody_had_its_messages_kept(
    autojump_clock: trio.abc.Clock,
) -> None:
    """At a node to which the first client comes from another node."""
    node = Node()
    node.publish(0)
    for _ in range(3):
        node.publish(1, closed=False)
    async with connected(node) as client:
        told = await client.resume(1, 1)
        assert recovered(told) is True
        assert numbers(told) == [(4, 2)]
        node.publish(1)
        assert numbers(client.take()) == [(5, 0)]


async def test_while_the_store_reads_candles_close(autojump_clock: trio.abc.Clock) -> None:
    """More of them than the ring holds, so that it has to read again."""
    node = Node(ring=4)
    quick = node.store.after
    reads = 0

    async def slow(*args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        rows = await quick(*args, **more)
        await trio.sleep(2 if reads == 1 else 0.2)
        return rows

    node.store.after = slow  # type: ignore[method-assign]

    async def keep_closing() -> None:
        for n in range(30):
            node.publish(n, closed=False)
            node.publish(n)
            await trio.sleep(0.2)

    async with connected(node) as client, trio.open_nursery() as nursery:
        await client.keep()
        nursery.start_soon(keep_closing)
        await trio.sleep(3.1)
        since = {"epoch": 1, "offset": 2}
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m", since=since)
        await trio.sleep(10)
        told = client.take()
        assert recovered(told) is True
        last = 2
        for offset, left_out in numbers(told):
            assert offset == last + 1 + left_out
            last = offset
        finals = [m["data"]["data"] for m in told[1:] if m["data"]["data"]["is_final"]]
        assert times(finals) == list(range(1, 30))
        assert reads == 2


async def test_what_closes_during_the_read_comes_from_the_ring(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The store may have seen a later candle and not the one before it."""
    node = Node(ring=4)
    quick = node.store.after

    async def after(*args: Any, **more: Any) -> Any:
        rows = await quick(*args, **more)
        node.publish(9)
        return [*rows, node.publish(10)]

    async with connected(node) as client:
        for n in range(9):
            node.publish(n)
        node.store.after = after  # type: ignore[method-assign]
        assert numbers(await client.resume(1, 0)) == [(n, 0) for n in range(1, 12)]


async def test_a_reader_that_the_candles_always_outrun_is_told_no(
    autojump_clock: trio.abc.Clock,
) -> None:
    node, closed, reads = Node(ring=2), iter(range(1_000)), 0
    quick = node.store.after

    async def outrun(*args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        rows = await quick(*args, **more)
        for _ in range(5):
            node.publish(next(closed))
        return rows

    async with connected(node) as client:
        await client.keep()
        for _ in range(5):
            node.publish(next(closed))
        node.store.after = outrun  # type: ignore[method-assign]
        assert recovered(await client.resume(1, 1)) is False
        assert reads == 5


async def test_across_a_restart(autojump_clock: trio.abc.Clock) -> None:
    """The store knows the numbers of earlier epochs; each begins with 1."""
    node = Node(epoch=3)
    earlier = [
        message(kline(T0 + n * MINUTE), epoch=epoch, offset=offset)
        for n, (epoch, offset) in enumerate([(1, 5), (1, 9), (2, 2)])
    ]
    quick = node.store.after
    asked: list[Any] = []

    async def after(*args: Any, closed_ms: int | None, limit: int) -> list[KlineMessage]:
        asked.append((*args, closed_ms))
        mine = await quick(SERIES, 3, 0, limit=limit)
        assert mine is not None
        return [*earlier, *mine]

    node.store.after = after  # type: ignore[assignment,method-assign]
    async with connected(node) as client:
        node.publish(3, closed=False)
        node.publish(3)
        told = await client.resume(1, 3, time=T0 // 1000)
        assert asked == [(SERIES, 1, 3, T0)]
        assert recovered(told) is True
        assert numbers(told) == [(5, 1), (9, 3), (2, 1), (2, 1)]
        assert [m["data"]["epoch"] for m in told[1:]] == [1, 1, 2, 3]
        node.publish(4)
        assert numbers(client.take()) == [(3, 0)]


@pytest.mark.parametrize("since", [(1, 99), (2, 1), (0, 1), (0, 0)])
async def test_what_is_not_known_begins_afresh(
    since: tuple[int, int], autojump_clock: trio.abc.Clock
) -> None:
    """A number of the future, of a later start, of an epoch that nobody remembers.  One that is
    ahead is waited for: it may come from another node."""
    node, ahead = Node(), since > (1, 2)
    async with connected(node) as client:
        node.publish(0)
        node.publish(1, closed=False)
        told = await client.resume(*since)
        if ahead:
            assert not told
            await trio.sleep(0.9)
            assert not client.take()
            await trio.sleep(0.2)
            told = client.take()
        kinds = [m["type"] for m in told]
        assert kinds == ["history_data", "subscription_confirmed", "kline_data"]
        assert recovered(told) is False
        assert told[1]["data"]["offset"] == 2
        assert count(node, "fresh") == 1


async def test_a_node_that_hears_nothing_does_not_say_once_more_what_its_client_has(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It cannot know whether a number that is ahead is invented."""
    node = Node()
    async with connected(node) as client:
        node.publish(0)
        stream = node.bus._streams[SERIES]
        stream.heard_at = trio.current_time() - 5
        assert not await client.resume(1, 3)
        await trio.sleep(2.1)
        (refused,) = client.take()
        assert (refused["type"], refused["code"]) == ("error", 1003)
        assert "this node is behind" in refused["message"]
        assert not await client.resume(1, 3)
        await trio.sleep(0.5)
        stream.heard_at = trio.current_time()  # and still it has no such number
        await trio.sleep(0.6)
        kinds = [m["type"] for m in client.take()]
        assert kinds == ["history_data", "subscription_confirmed"]


async def test_a_node_that_is_behind_its_client_catches_up(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.keep()
        node.publish(0)
        assert not await client.resume(1, 2)
        node.publish(1)
        await trio.sleep(0.02)
        told = client.take()
        assert (recovered(told), numbers(told)) == (True, [])
        node.publish(2)
        assert numbers(client.take()) == [(3, 0)]


async def test_too_much_begins_afresh(autojump_clock: trio.abc.Clock) -> None:
    node = Node(ring=2)
    async with connected(node) as client:
        for n in range(1501):
            node.publish(n)
        assert recovered(await client.resume(1, 0)) is False
        assert recovered(await client.resume(1, 1)) is True


async def test_trades_come_from_the_ring_or_not_at_all(autojump_clock: trio.abc.Clock) -> None:
    node = Node(ring=3)
    node.bus.open(TRADES)
    async with connected(node) as client:

        async def resume(offset: int) -> list[dict[str, Any]]:
            since = {"epoch": 1, "offset": offset}
            await client.request(type="subscribe", symbol="BTCUSDT", channel="trade", since=since)
            await trio.testing.wait_all_tasks_blocked()
            return client.take()

        assert recovered(await resume(0)) is True
        for _ in range(5):
            node.trade()
        assert numbers(client.take()) == [(n, 0) for n in range(1, 6)]
        assert numbers(await resume(2)) == [(3, 0), (4, 0), (5, 0)]
        told = await resume(1)
        assert recovered(told) is False
        assert told[1]["data"]["snapshot"] is True


async def test_revisions_have_the_values_of_now(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.keep()
        node.publish(0)
        node.revise(0, "100.75")
        told = await client.resume(1, 1)
        assert told[1]["data"]["data"]["update_type"] == "revision"
