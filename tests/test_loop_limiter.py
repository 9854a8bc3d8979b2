"""Many clients that ask at once: how many are answered before anybody else has a turn."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
import trio.testing
from attrs import evolve
from support.memory import MemoryStream
from test_server import LIMITS, App, Served, frame, get, head, respond, served, upgraded
from trio.testing import MockClock

from trio_feed.push.edge.loop_limiter import AT_ONCE, LoopLimiter
from trio_feed.push.edge.websocket import ClientWebSocket

CLIENTS = 100
MANY = evolve(LIMITS, max_connections=2 * CLIENTS, http_per_s=10_000, http_burst=10_000)
MOST = 2 * AT_ONCE


class Counting(App):
    """``answered``: so many clients between two turns of somebody else, see ``turning``."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = [0]
        self.sockets["/"] = self.count
        self.handlers["/"] = self.count_http

    async def count(self, client: ClientWebSocket) -> None:
        while await client.receive() is not None:
            self.answered[-1] += 1

    async def count_http(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.answered[-1] += 1
        await respond(send)

    async def turning(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.answered.append(0)

    async def answering(self, number: int) -> None:
        while sum(self.answered) < number:
            await trio.lowlevel.checkpoint()


async def at_once(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job)


@asynccontextmanager
async def connected(running: Served, app: Counting) -> AsyncIterator[list[MemoryStream]]:
    """WebSockets, and somebody else who wants each turn."""
    streams = [await upgraded(running) for _ in range(CLIENTS)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.turning)
        yield streams
        nursery.cancel_scope.cancel()


async def test_others_have_their_turn_while_a_hundred_clients_ask(
    autojump_clock: MockClock,
) -> None:
    app = Counting()
    async with served(app, MANY) as running, connected(running, app) as streams:
        await at_once([partial(each.send_all, frame(b"x")) for each in streams])
        await app.answering(CLIENTS)
    assert 0 < max(app.answered) <= MOST


async def test_and_while_they_ask_over_http(autojump_clock: MockClock) -> None:
    app = Counting()
    async with served(app, MANY) as running, trio.open_nursery() as nursery:
        streams = [await running.dial() for _ in range(CLIENTS)]
        await at_once([partial(each.send_all, get()) for each in streams])
        for each in streams:
            await head(each)
        app.answered = [0]
        nursery.start_soon(app.turning)
        await at_once([partial(each.send_all, get()) for each in streams])
        await app.answering(CLIENTS)
        nursery.cancel_scope.cancel()
    assert 0 < max(app.answered) <= MOST


async def test_nobody_waits_where_few_ask(autojump_clock: MockClock) -> None:
    app = Counting()
    async with served(app, MANY) as running, connected(running, app) as streams:
        for each in streams:
            before = len(app.answered)
            await each.send_all(frame(b"x"))
            await app.answering(sum(app.answered) + 1)
            assert len(app.answered) - before <= 6


async def test_a_ping_waits_behind_nobody_who_asks(autojump_clock: MockClock) -> None:
    """Else the keepalive of those who are quiet runs out while all others subscribe."""
    app = Counting()
    many = evolve(MANY, max_connections=3 * CLIENTS)
    async with served(app, many) as running:
        streams = [await upgraded(running) for _ in range(2 * CLIENTS)]
        own = await upgraded(running)
        async with trio.open_nursery() as turning:
            turning.start_soon(app.turning)
            await at_once([partial(each.send_all, frame(b"x")) for each in streams])
            await own.send_all(frame(b"alive", 9))
            before = len(app.answered)
            assert await own.receive_some() == b"\x8a\x05alive"
            assert len(app.answered) - before <= 6
            assert sum(app.answered) < CLIENTS
            await app.answering(2 * CLIENTS)
            turning.cancel_scope.cancel()
    assert 0 < max(app.answered) <= MOST


async def test_what_was_read_is_not_lost_where_the_wait_ends(autojump_clock: MockClock) -> None:
    """The handler stops to wait for a message whose turn has not come, and asks for it later."""
    received: list[str | bytes | None] = []
    waiting, patience = trio.Event(), trio.CancelScope()

    async def impatient(client: ClientWebSocket) -> None:
        received.append(await client.receive())
        with patience:
            received.append(await client.receive())
        assert not client.more, "it has to wait"
        waiting.set()
        received.append(await client.receive())

    app = Counting()
    app.sockets["/impatient"] = impatient
    async with served(app, MANY) as running, connected(running, app) as streams:
        own = await upgraded(running, b"/impatient")
        await own.send_all(frame(b"1"))
        while not received:
            await trio.lowlevel.checkpoint()
        await at_once([partial(each.send_all, frame(b"x")) for each in streams])
        stream = app.clients[-1].stream
        before = stream.bytes_in
        await own.send_all(frame(b"2"))  # it waits behind the others
        while stream.bytes_in == before:
            await trio.lowlevel.checkpoint()
        patience.cancel()
        await waiting.wait()
        assert sum(app.answered) < CLIENTS
        while len(received) < 2:
            await trio.lowlevel.checkpoint()
    assert received == ["1", "2"]


async def test_the_end_waits_for_nobody_who_waits(autojump_clock: MockClock) -> None:
    limiter, entered = LoopLimiter(2), []

    async def come(number: int) -> None:
        await limiter.enter()
        entered.append(number)

    async with trio.open_nursery() as clients:
        with trio.CancelScope() as ending:
            ending.cancel()
            for number in range(9):
                clients.start_soon(come, number)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert len(entered) == 2
            await limiter.run()
        for number in range(9, 18):
            clients.start_soon(come, number)
    assert sorted(entered) == list(range(18))


async def test_first_come_first_served(autojump_clock: MockClock) -> None:
    limiter, entered = LoopLimiter(2), []

    async def come(number: int) -> None:
        await limiter.enter()
        entered.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(come, number)
            await trio.lowlevel.checkpoint()
        assert entered == [0, 1]
        nursery.start_soon(limiter.run)
        while len(entered) < 9:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert [sorted(entered[at : at + 2]) for at in range(2, 8, 2)] == [[2, 3], [4, 5], [6, 7]]
