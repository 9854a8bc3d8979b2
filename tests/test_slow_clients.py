"""What a client that is slow, silent or sent away gets to see."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from attrs import evolve
from support.make import SERIES
from support.node import LIMITS, TICKERS, TRADES, Client, Node, connected, numbers, times

from trio_feed.model import StatusMessage, StreamState
from trio_feed.push.fanout.sender import CLOSE_TIMEOUT_S, ClientTimeouts

TIMEOUTS = ClientTimeouts(ping_s=25, silence_s=60, stall_s=10)
WIDE = evolve(LIMITS, max_queued=1000, max_subscriptions=10)


async def sweeping(client: Client) -> None:
    """The sweep, once a second."""
    while True:
        await trio.sleep(1)
        client.session.sweep(trio.current_time(), TIMEOUTS)


@asynccontextmanager
async def swept(node: Node) -> AsyncIterator[Client]:
    async with connected(node, WIDE) as client, trio.open_nursery() as nursery:
        nursery.start_soon(sweeping, client)
        yield client
        nursery.cancel_scope.cancel()


async def test_only_what_waits_is_conflated(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        await client.subscribe()
        node.publish(0, closed=False)
        client.stall()
        for _ in range(5):
            node.publish(0, closed=False)
        node.publish(0)
        for _ in range(3):
            node.publish(1, closed=False)
        node.revise(0, "100.75")
        for n in (1, 2):
            node.publish(n)
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        told = client.take()
        assert numbers(told) == [(1, 0), (7, 5), (10, 2), (11, 0), (12, 0), (13, 0)]
        finals = [m["data"]["data"] for m in told if m["data"]["data"]["is_final"]]
        assert times(finals) == [0, 0, 1, 2]
        assert node.metrics.conflated.value == client.session.statistics()["conflated"] == 7


async def test_after_a_task_has_taken_it_it_is_as_good_as_written(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        await client.subscribe()
        client.stall()
        node.publish(0, closed=False)
        await trio.testing.wait_all_tasks_blocked()
        node.publish(0, closed=False)
        node.publish(0, closed=False)
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(client.take()) == [(1, 0), (3, 1)]


async def test_nothing_overtakes_what_a_task_is_writing(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        await client.subscribe()
        client.stall()
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()
        client.reading.set()  # the task is about to go on, and the socket would take more
        node.publish(1)
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(client.take()) == [(1, 0), (2, 0)]


async def test_nothing_overtakes_what_waits_for_the_flusher(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        await client.subscribe()
        node.bus.publish(StatusMessage(SERIES, StreamState.STALE))
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()
        assert [m["type"] for m in client.take()] == ["stream_status", "kline_data"]


async def test_trades_never_give_way_and_tickers_do(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        for line in (TRADES, TICKERS):
            node.bus.open(line)
            await client.request(type="subscribe", symbol="BTCUSDT", channel=line.channel.value)
            await client.next("subscription_confirmed")
        client.stall()
        for _ in range(5):
            node.trade()
            node.ticker()
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(numbers(client.take())) == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (5, 4)]


async def test_replies_and_pushes_keep_one_order(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        await client.subscribe()
        client.stall()
        for n in range(3):
            node.publish(n)
            await client.request(type="ping", id=n)
            await trio.testing.wait_all_tasks_blocked()
        node.bus.publish(StatusMessage(SERIES, StreamState.STALE))
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        kinds = [m["type"] for m in client.take()]
        assert kinds == ["kline_data", "pong"] * 3 + ["stream_status"]


async def test_over_the_bound_it_is_told_where_to_resume(autojump_clock: trio.abc.Clock) -> None:
    """And what it is told is right: with it, nothing is missing and nothing comes twice."""
    node = Node(ring=50)
    node.bus.open(TRADES)
    async with connected(node, evolve(LIMITS, max_queued=4)) as client:
        await client.subscribe()
        await client.request(type="subscribe", symbol="BTCUSDT", channel="trade")
        await client.next("subscription_confirmed")
        for n in range(3):
            node.publish(n)
        client.stall()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            node.publish(3, closed=False)
        for n in range(3, 8):
            node.publish(n)
        client.reading.set()
        await client.gone.wait()
        told = client.take()
        count = node.metrics
        got = sum(m["type"] == "kline_data" for m in told)
        lost = count.pushed.value - count.conflated.value - got
        assert count.push_failed._value.get() == lost > 0
        assert numbers(told) == [(1, 0), (2, 0), (3, 0)]
        last = told[-1]
        assert (last["type"], last["after_ms"]) == ("reconnect", 0)
        common = {"symbol": "BTCUSDT", "exchange": "binance_usdm", "epoch": 1}
        assert last["since"] == [
            {**common, "interval": "1m", "offset": 3},
            {**common, "channel": "trade", "offset": 0},
        ]
        assert client.closed == (4408, "too slow")
    async with connected(node) as client:
        assert [n for n, _ in numbers(await client.resume(1, 3))] == list(range(4, 12))


async def test_the_first_message_that_does_not_fit_is_not_lost(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It is the only one of its stream that waits: the resume point lies before it."""
    node = Node()
    node.bus.open(TRADES)
    async with connected(node, evolve(LIMITS, max_queued=2)) as client:
        await client.subscribe()
        await client.request(type="subscribe", symbol="BTCUSDT", channel="trade")
        await client.next("subscription_confirmed")
        client.stall()
        await trio.testing.wait_all_tasks_blocked()
        node.trade()
        node.trade()
        node.publish(0)
        client.reading.set()
        await client.gone.wait()
        assert [row["offset"] for row in client.take()[-1]["since"]] == [0, 0]


async def test_an_unread_history_cannot_be_resumed(autojump_clock: trio.abc.Clock) -> None:
    node = Node(stored=3)
    async with connected(node, evolve(LIMITS, max_queued=4)) as client:
        client.stall()
        await client.request(type="ping")  # this one is on its way, all else waits
        await trio.testing.wait_all_tasks_blocked()
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        await trio.testing.wait_all_tasks_blocked()
        for n in range(5):
            node.publish(n)
        client.reading.set()
        await client.gone.wait()
        told = client.take()
        assert [m["type"] for m in told] == ["pong", "reconnect"]
        assert told[-1]["since"] == []


async def test_who_takes_no_byte_is_dropped_in_time(autojump_clock: trio.abc.Clock) -> None:
    """It gets its last message if it wakes up just then; else nobody waits for it any longer."""
    node = Node()
    async with swept(node) as sleeper, swept(node) as corpse, swept(node) as good:
        for client in (sleeper, corpse, good):
            await client.subscribe()
        sleeper.stall()
        corpse.stall()
        began = trio.current_time()
        node.publish(0)
        for n in range(1, 9):
            await trio.sleep(1)
            node.publish(n)
        sleeper_wakes = began + 11.5
        await trio.sleep_until(sleeper_wakes)
        sleeper.reading.set()
        await sleeper.gone.wait()
        told = sleeper.take()
        assert numbers(told) == [(1, 0)]  # that one was on its way
        assert [row["offset"] for row in told[-1]["since"]] == [1]
        assert sleeper.closed == (4408, "too slow")
        await trio.sleep_until(began + 11 + CLOSE_TIMEOUT_S + 0.5)
        assert corpse.closed is None
        assert node.metrics.clients._value.get() == 1
        assert [n for n, _ in numbers(good.take())] == list(range(1, 10))
        assert node.metrics.slow_clients._value.get() == 2


async def test_slow_is_not_stalled(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with swept(node) as client:
        await client.subscribe()
        client.stall()
        for n in range(10):
            node.publish(n)
            await trio.sleep(9)
            client.reading.set()
            await trio.testing.wait_all_tasks_blocked()
            client.stall()
            client.last_received = trio.current_time()
        assert [n for n, _ in numbers(client.take())] == list(range(1, 11))
        assert client.closed is None


@pytest.mark.parametrize("behind_s", [2, 30])
async def test_who_is_busy_for_a_while_is_behind_and_not_too_slow(
    behind_s: int, autojump_clock: trio.abc.Clock
) -> None:
    """Forty trades come meanwhile, ten times what may wait for good."""
    node = Node()
    node.bus.open(TRADES)
    limits = evolve(LIMITS, max_queued=4, burst=32, behind_ms=behind_s * 1000)
    async with connected(node, limits) as client:
        await client.request(type="subscribe", symbol="BTCUSDT", channel="trade")
        await client.next("subscription_confirmed")
        client.stall()
        for _ in range(40):
            node.trade()
            await trio.sleep(0.2)
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        got = [n for n, _ in numbers([m for m in client.take() if m["type"] == "trade_data"])]
        assert (got == list(range(1, 41))) is (behind_s == 30)
        assert node.metrics.slow_clients._value.get() == (behind_s == 2)


async def test_the_quiet_are_pinged_and_the_silent_aborted(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with swept(node) as talker, swept(node) as quiet, swept(node) as silent:
        for _ in range(10):
            await trio.sleep(10)
            talker.last_received = trio.current_time()
            if quiet.pings:
                quiet.pings -= 1
                quiet.last_received = trio.current_time()
                assert quiet.pings == 0
        assert (talker.pings, talker.aborted) == (0, False)
        assert quiet.aborted is False
        assert (silent.pings, silent.aborted) == (2, True)


async def test_sent_away_after_what_is_queued(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        client.stall()
        node.publish(0)
        node.publish(1)
        client.session.sender.leave(1012, "restart", '{"type":"reconnect","after_ms":5}')
        # Nothing is handed to it any more, although it is still here with its last words.
        assert (not client.session.engaged, node.metrics.subscriptions._value.get()) == (True, 0)
        assert all(topic.subscriptions == {} for topic in node.hub.topics)
        client.session.sender.leave(1000, "again", "{}")
        node.publish(2)
        await client.request(type="ping")
        client.reading.set()
        await client.gone.wait()
        kinds = [m["type"] for m in client.take()]
        assert kinds == ["kline_data", "kline_data", "reconnect"]
        assert client.closed == (1012, "restart")


async def test_a_client_that_left_is_not_subscribed_by_what_it_had_asked(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node(stored=10)
    node.publish(0, closed=False)
    quick = node.store.history
    async with connected(node) as client:

        async def leave_meanwhile(*args: Any, **more: Any) -> Any:
            rows = await quick(*args, **more)
            client.session.sender.leave(1012, "restart", '{"type":"last message"}')
            return rows

        node.store.history = leave_meanwhile  # type: ignore[method-assign]
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m", limit=10)
        await client.gone.wait()
        assert [m["type"] for m in client.take()] == ["last message"]
        (topic,) = node.hub.topics
        assert topic.subscriptions == {}


async def test_the_status_page_shows_the_queue(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node, WIDE) as client:
        await client.subscribe()
        client.stall()
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()
        for n in (1, 2):
            node.publish(n)
            await trio.sleep(1.5)
        shown: dict[str, Any] = client.session.statistics()
        assert (shown["queued_messages"], shown["subscriptions"]) == (2, 1)
        assert shown["queued_bytes"] > 500
        assert shown["queued_age_ms"] == pytest.approx(3000)
        assert shown["peer"] == client.peer


async def test_lines_about_slow_and_silent_clients_are_sampled(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    with structlog.testing.capture_logs() as lines:
        for _ in range(40):
            async with connected(node, WIDE) as client:
                client.session.sweep(trio.current_time() + 60.1, TIMEOUTS)
            async with connected(node, WIDE) as client:
                client.session.sender.disconnect_slow("of a test")
        await trio.sleep(60)
        async with connected(node, WIDE) as client:
            client.session.sender.disconnect_slow("of a test")
    for event in ("client.timeout", "client.slow"):
        assert len([line for line in lines if line["event"] == event]) <= 4
    assert [line["left_out"] for line in lines if line["event"] == "client.slow"] == [0, 0, 0, 37]
    assert node.metrics.slow_clients._value.get() == 41
