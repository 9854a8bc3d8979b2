"""The server over real sockets on the loopback, on the real clock."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import structlog
import trio
import websockets.sync.client
from attrs import evolve, frozen
from test_server import HOSTILE, KEY, LIMITS, RULES, UPGRADE, App, get, head, until_closed

from trio_feed.metrics import Metrics
from trio_feed.push.limits import ServerLimits
from trio_feed.push.server import serve
from trio_feed.push.stream import bound_address

SHORT = evolve(LIMITS, max_connections=50, shutdown_grace_s=0.3, handshake_timeout_s=2)


@frozen
class Served:
    port: int
    scope: trio.CancelScope
    stopped: trio.Event
    clients: AsyncExitStack
    """Closes whatever was dialled."""

    async def dial(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        return await self.clients.enter_async_context(stream)

    async def ask(self, request: bytes) -> bytes:
        """The status of the answer; a refusal may come while we are still sending."""
        stream = await self.dial()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(request)
        answer = await head(stream)
        await stream.aclose()
        return answer[9:12]

    async def stop(self) -> None:
        self.scope.cancel()
        with trio.fail_after(5):
            await self.stopped.wait()


@asynccontextmanager
async def served(app: Any, limits: ServerLimits = SHORT) -> AsyncIterator[Served]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = int(bound_address(listeners[0]).removeprefix("127.0.0.1:"))
    running = Served(port, trio.CancelScope(), trio.Event(), AsyncExitStack())

    async def run(task_status: trio.TaskStatus[None]) -> None:
        with running.scope:
            await serve(
                app,
                listeners=listeners,
                limits=limits,
                rules=RULES,
                metrics=Metrics(),
                stop_accepting=trio.Event(),
                task_status=task_status,
            )
        running.stopped.set()

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery, running.clients:
            await nursery.start(run)
            yield running
            await running.stop()


def echo_with_websockets(port: int, count: int) -> list[str | bytes]:
    url = f"ws://127.0.0.1:{port}/"
    with websockets.sync.client.connect(url, proxy=None, open_timeout=5) as client:
        assert client.protocol.extensions == []
        answers = []
        for number in range(count):
            client.send(f"{number}" * 100)
            answers.append(client.recv(timeout=5))
    assert client.close_code == 1000
    return answers


async def test_a_client_that_we_did_not_write() -> None:
    app = App()
    async with served(app) as running:
        answers = await trio.to_thread.run_sync(echo_with_websockets, running.port, 20)
        assert answers == [f"{number}" * 100 for number in range(20)]
    [scope] = app.scopes
    assert scope["client"][0] == "127.0.0.1"
    assert scope["state"]["stream"].peer == f"127.0.0.1:{scope['client'][1]}"


async def test_hostile_handshakes() -> None:
    with structlog.testing.capture_logs() as logs:
        async with served(App()) as running:
            for name, (request, status) in HOSTILE.items():
                if name.startswith("endless"):  # the reset may overtake the answer
                    assert await running.ask(request) in (status, b"")
                else:
                    assert (name, await running.ask(request)) == (name, status)
            assert await running.ask(get()) == b"200"
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == []


async def flood(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "bytes": bytes(1024 * 1024)})


async def test_client_that_stops_reading_does_not_delay_the_exit() -> None:
    app = App()
    app.handlers["/flood"] = flood
    async with served(app) as running:
        frozen_one = await running.dial()
        await frozen_one.send_all(get(UPGRADE, KEY, path=b"/flood"))
        stream = None
        last = -1
        while stream is None or stream.bytes_out > last:  # until the kernel takes no more
            last = stream.bytes_out if stream is not None else -1
            await trio.sleep(0.1)
            stream = app.scopes[0]["state"]["stream"] if app.scopes else None
        assert await running.ask(get()) == b"200"
        await running.stop()
        assert "BrokenResourceError" in repr(stream)


async def test_client_that_stops_reading_is_reset_after_the_send_timeout() -> None:
    app = App()
    app.handlers["/flood"] = flood
    async with served(app, evolve(SHORT, send_timeout_s=0.3)) as running:
        frozen_one = await running.dial()
        await frozen_one.send_all(get(UPGRADE, KEY, path=b"/flood"))
        stream = None
        while stream is None or "open" in repr(stream):
            await trio.sleep(0.05)
            stream = app.scopes[0]["state"]["stream"] if app.scopes else None
        with pytest.raises(trio.BrokenResourceError):
            await until_closed(frozen_one)


async def test_one_too_many_can_read_why() -> None:
    async with served(App(), evolve(SHORT, max_connections=1)) as running:
        first = await running.dial()
        await first.send_all(get(UPGRADE, KEY))
        assert b" 101 " in await head(first)
        refused = await running.dial()
        await refused.send_all(get(UPGRADE, KEY))
        answer = await until_closed(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")


async def test_clients_that_reset_at_once() -> None:
    with structlog.testing.capture_logs() as logs:
        async with served(App()) as running:
            for request in (b"", b"GET /", get(), get(UPGRADE, KEY)) * 10:
                stream = await running.dial()
                await stream.send_all(request)
                linger = struct.pack("ii", 1, 0)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await stream.aclose()
            assert await running.ask(get()) == b"200"
    assert [entry for entry in logs if entry["event"] == "client.crashed"] == []
