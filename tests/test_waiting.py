"""Bytes that wait for clients: bounded for each and for all together."""

from typing import Any

import trio
from attrs import evolve
from support.node import LIMITS as SESSION_LIMITS
from support.node import Node, connected
from test_server import LIMITS, App, freezing, get, head, respond, served
from trio.testing import MockClock

from trio_feed.push.fanout.waiting import Account, WaitingBytes

BIG = 1_000_000


def opened(waiting: WaitingBytes, dropped: list[str], *names: str) -> list[Account]:
    return [waiting.open(lambda name=name: dropped.append(name)) for name in names]  # type: ignore[misc]


def test_the_one_with_the_most_is_dropped() -> None:
    waiting, dropped = WaitingBytes(most=100), list[str]()
    a, b, c = opened(waiting, dropped, *"abc")
    a.add(10)
    b.add(60)
    c.add(30)
    assert (waiting.total, dropped) == (100, [])
    c.add(1)
    assert (waiting.total, dropped) == (41, ["b"])
    b.add(-60)  # what is still done with it counts no more
    b.add(1000)
    b.close()
    assert (waiting.total, dropped) == (41, ["b"])
    a.add(200)  # of one that is too much by itself
    assert (waiting.total, dropped) == (31, ["b", "a"])


def test_who_has_gone_has_nothing_waiting() -> None:
    waiting, dropped = WaitingBytes(most=100), list[str]()
    a, b = opened(waiting, dropped, *"ab")
    a.add(70)
    a.add(-20)
    a.close()
    a.close()
    b.add(100)
    assert (waiting.total, dropped) == (100, [])


async def test_clients_that_never_read_their_answers_do_not_take_the_memory(
    autojump_clock: MockClock,
) -> None:
    app, waiting = App(), WaitingBytes(most=5 * BIG)
    accepted, note = freezing()

    async def big(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, bytes(BIG))

    app.handlers["/big"] = big
    limits = evolve(LIMITS, max_connections=99)
    async with served(app, limits, tamper=note, waiting=waiting) as running:
        most = 0
        for _ in range(40):
            stream = await running.dial()
            await trio.testing.wait_all_tasks_blocked()
            accepted[-1].send_stream.send_all_hook = trio.sleep_forever
            await stream.send_all(get(path=b"/big"))
            await trio.testing.wait_all_tasks_blocked()
            most = max(most, waiting.total)
        assert 4 * BIG < most <= 5 * BIG
        assert running.refused() == {"waiting_bytes": 35}
        reader = await running.dial()
        await reader.send_all(get(path=b"/big"))
        answer = await head(reader)
        while len(answer) < BIG:
            answer += await reader.receive_some()
        await trio.sleep(LIMITS.send_timeout_s + 1)
        assert waiting.total == 0
        assert running.metrics.crashes._value.get() == 0


async def test_a_client_that_does_not_read_has_one_answer_waiting(
    autojump_clock: MockClock,
) -> None:
    """Also where the answer is on its way to the socket, and not in the queue any more."""
    node = Node(stored=200)
    limits = evolve(SESSION_LIMITS, max_queued=100, max_queued_bytes=10_000)
    async with connected(node, limits) as client:
        client.stall()
        for number in range(10):
            await client.request(
                type="history", symbol="BTCUSDT", interval="1m", limit=200, id=number
            )
            await trio.testing.wait_all_tasks_blocked()
        assert node.metrics.requests.labels("history")._value.get() == 1
        assert client.session.statistics()["queued_bytes"] > 10_000
        client.reading.set()
        for number in range(10):
            assert (await client.next("history_data"))["id"] == number
        assert client.session.statistics()["queued_bytes"] == 0
