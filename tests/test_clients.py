"""How many clients there may be, from where, and the end of accepting."""

import pytest
import trio
from attrs import evolve
from test_server import KEY, LIMITS, UPGRADE, App, get, head, opened, served, until_closed, upgraded
from trio.testing import MockClock


async def test_a_cap_per_ip(autojump_clock: MockClock) -> None:
    limits = evolve(LIMITS, max_connections=10, max_connections_per_ip=2)
    async with served(App(), limits) as running:
        first, _second = [await upgraded(running) for _ in range(2)]
        refused = await opened(running)
        answer = await until_closed(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert running.refused() == {"connections_per_ip": 1}
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert b" 101 " in await head(await opened(running))


async def test_the_total_is_counted_as_a_reason(autojump_clock: MockClock) -> None:
    async with served(App(), evolve(LIMITS, max_connections=0)) as running:
        assert await running.ask(get()) == b"503"
        assert running.refused() == {"connections": 1}


async def test_nobody_new_once_accepting_stops(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        stream = await upgraded(running)
        running.stop_accepting.set()
        await trio.testing.wait_all_tasks_blocked(0.001)
        with pytest.raises(ConnectionRefusedError):
            await running.dial()
        await stream.send_all(b"\x81\x84" + bytes(4) + b"ping")  # who is there is served on
        received = b""
        while not received.endswith(b"ping"):
            received += await stream.receive_some()


async def test_a_connection_that_only_the_kernel_had_accepted(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        running.stop_accepting.set()
        with trio.move_on_after(5):
            stream = await running.dial()
            await stream.send_all(get(UPGRADE, KEY))
            await head(stream)
        assert await running.stop() == 0
