"""The server over real sockets on the loopback, on the real clock."""

import socket
import ssl
import struct
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trustme
import websockets.sync.client
from attrs import evolve, frozen
from test_server import (
    HOSTILE,
    KEY,
    LIMITS,
    RULES,
    UPGRADE,
    App,
    application,
    get,
    head,
    until_closed,
)  # fmt: skip

from trio_feed.metrics import Metrics
from trio_feed.push.edge.admission import Admission
from trio_feed.push.edge.admission_check import AdmissionRules
from trio_feed.push.edge.endpoint import bound_address
from trio_feed.push.edge.limits import ServerLimits
from trio_feed.push.edge.server import serve
from trio_feed.push.edge.tls import Certificate, server_context, with_tls
from trio_feed.push.edge.websocket import ClientWebSocket
from trio_feed.push.fanout.frames import text_frame

SHORT = evolve(LIMITS, max_connections=50, shutdown_grace_s=0.3, handshake_timeout_s=2)


@frozen
class Served:
    port: int
    scope: trio.CancelScope
    stopped: trio.Event
    metrics: Metrics
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
async def served(
    app: Any,
    limits: ServerLimits = SHORT,
    rules: AdmissionRules = RULES,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Served]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = int(bound_address(listeners[0]).removeprefix("127.0.0.1:"))
    running = Served(port, trio.CancelScope(), trio.Event(), Metrics(), AsyncExitStack())

    async def run(task_status: trio.TaskStatus[None]) -> None:
        with running.scope:
            await serve(
                application(app),
                listeners=with_tls(listeners, Certificate(context)),
                limits=limits,
                rules=rules,
                metrics=running.metrics,
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
    [question] = app.seen
    assert question.host == "127.0.0.1"
    assert app.clients[0].stream.peer.startswith("127.0.0.1:")


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


async def flood(client: ClientWebSocket) -> None:
    while True:
        await client.stream.send_frames((text_frame(bytes(1024 * 1024)),))


async def test_client_that_stops_reading_does_not_delay_the_exit() -> None:
    app = App()
    app.sockets["/flood"] = flood
    async with served(app) as running:
        frozen_one = await running.dial()
        await frozen_one.send_all(get(UPGRADE, KEY, path=b"/flood"))
        stream = None
        last = -1
        while stream is None or stream.bytes_out > last:  # until the kernel takes no more
            last = stream.bytes_out if stream is not None else -1
            await trio.sleep(0.1)
            stream = app.clients[0].stream if app.clients else None
        assert await running.ask(get()) == b"200"
        await running.stop()
        assert "BrokenResourceError" in repr(stream)


async def test_client_that_stops_reading_is_reset_after_the_send_timeout() -> None:
    app = App()
    app.sockets["/flood"] = flood
    async with served(app, evolve(SHORT, send_timeout_s=0.3)) as running:
        frozen_one = await running.dial()
        await frozen_one.send_all(get(UPGRADE, KEY, path=b"/flood"))
        stream = None
        while stream is None or "open" in repr(stream):
            await trio.sleep(0.05)
            stream = app.clients[0].stream if app.clients else None
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


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def served_with_tls(
    app: Any, authority: trustme.CA, tmp_path: Path, limits: ServerLimits = SHORT
) -> AsyncIterator[Served]:
    both = tmp_path / "both.pem"
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(both)
    context = server_context(str(both), str(both))
    rules = AdmissionRules(Admission(scheme="https"))
    async with served(app, limits, rules, context) as running:
        yield running


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def echo_over_tls(port: int, context: ssl.SSLContext) -> str | bytes:
    url = f"wss://localhost:{port}/"
    with websockets.sync.client.connect(url, ssl=context, proxy=None, open_timeout=5) as client:
        client.send("hello" * 100)
        answer = client.recv(timeout=5)
    assert client.close_code == 1000
    return answer


async def test_tls_with_a_client_that_we_did_not_write(
    authority: trustme.CA, tmp_path: Path
) -> None:
    app = App()
    context = trusting(authority)
    async with served_with_tls(app, authority, tmp_path) as running:
        answer = await trio.to_thread.run_sync(echo_over_tls, running.port, context)
        assert answer == "hello" * 100
    assert app.clients[0].stream.peer.startswith("127.0.0.1:")


def old_context(authority: trustme.CA) -> ssl.SSLContext:
    context = trusting(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def test_who_speaks_no_tls_or_an_old_one_is_turned_away(
    authority: trustme.CA, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with served_with_tls(App(), authority, tmp_path) as running:
            with suppress(trio.BrokenResourceError):
                assert not (await running.ask(get())).isdigit()
            stream = await running.dial()
            outdated = trio.SSLStream(stream, old_context(authority), server_hostname="localhost")
            with pytest.raises(trio.BrokenResourceError):
                await outdated.do_handshake()
            began = trio.current_time()
            await until_closed(await running.dial())  # the handshake has a deadline
            assert trio.current_time() - began < SHORT.handshake_timeout_s + 1
            await trio.to_thread.run_sync(echo_over_tls, running.port, trusting(authority))
            exposition = running.metrics.exposition().decode()
    assert 'refused_connections_total{reason="tls"} 2.0' in exposition
    assert 'refused_connections_total{reason="slow_head"} 1.0' in exposition
    assert [entry for entry in logs if entry["event"] == "client.crashed"] == []


async def test_frozen_client_under_tls_does_not_delay_the_exit(
    authority: trustme.CA, tmp_path: Path
) -> None:
    app = App()
    app.sockets["/flood"] = flood
    async with served_with_tls(app, authority, tmp_path) as running:
        under = await running.dial()
        frozen_one = trio.SSLStream(under, trusting(authority), server_hostname="localhost")
        await frozen_one.send_all(get(UPGRADE, KEY, path=b"/flood"))
        stream = None
        last = -1
        while stream is None or stream.bytes_out > last:  # until the kernel takes no more
            last = stream.bytes_out if stream is not None else -1
            await trio.sleep(0.1)
            stream = app.clients[0].stream if app.clients else None
        await running.stop()
        assert "BrokenResourceError" in repr(stream)


async def test_one_too_many_can_read_why_over_tls(authority: trustme.CA, tmp_path: Path) -> None:
    limits = evolve(SHORT, max_connections=0)
    async with served_with_tls(App(), authority, tmp_path, limits) as running:
        dialled = await running.dial()
        stream = trio.SSLStream(dialled, trusting(authority), server_hostname="localhost")
        await stream.do_handshake()
        assert (await head(stream)).startswith(b"HTTP/1.1 503 ")
