"""TLS WebSockets through a proxy that we did not write (pproxy), on real sockets and clocks.

The exchange is called by name ("localhost"), the proxy by address.  An audit hook sees every
connect and every name lookup of this process, whoever makes it, so "never direct" and "never
resolved here" are observed and not believed.
"""

import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from socket import socket as new_socket
from typing import Any

import pytest
import trio
import trio_websocket
import trustme
from attrs import define, field

from trio_feed.environment import real_environment
from trio_feed.errors import (
    ConnectionLost,
    ProxyAuthRequired,
    ProxyUnreachable,
    TlsNameMismatch,
    TlsUntrusted,
    TunnelError,
    TunnelTimeout,
)
from trio_feed.net.limits import FrameBudget
from trio_feed.net.route import Route
from trio_feed.net.websocket import Deadlines, Socket, open_websocket
from trio_feed.settings import ProxySettings, Secret

DEADLINES = Deadlines(open_s=5, close_s=1, ping_after_s=5, pong_s=5, silence_s=5)
IMPATIENT = Deadlines(open_s=5, close_s=0.2, ping_after_s=0.3, pong_s=0.3, silence_s=5)
LOGIN = ("alice", "hunter2")


@define
class Audit:
    """What this process did while it was watched."""

    connects: list[int] = field(factory=list)
    lookups: list[str] = field(factory=list)


_watching: list[Audit] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    for audit in _watching:
        if event == "socket.connect" and isinstance(args[1], tuple):
            audit.connects.append(args[1][1])
        elif event == "socket.getaddrinfo":
            audit.lookups.append(args[0].decode() if isinstance(args[0], bytes) else str(args[0]))


sys.addaudithook(_hook)


@contextmanager
def audited() -> Iterator[Audit]:
    audit = Audit()
    _watching.append(audit)
    try:
        yield audit
    finally:
        _watching.remove(audit)


@define
class Certificates:
    ca_file: str
    server: ssl.SSLContext
    key_and_cert: str


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return Certificates(str(folder / "ca.pem"), context, str(folder / "server.pem"))


@define
class Exchange:
    port: int
    accepted: int = 0


@asynccontextmanager
async def exchange(certificates: Certificates) -> AsyncIterator[Exchange]:
    """Echoes what it is told and ticks every 20 ms, over TLS; counts TCP connections."""

    async def talk(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            socket = await request.accept()
            nursery.start_soon(tick, socket)
            with suppress(trio_websocket.ConnectionClosed):
                while True:
                    await socket.send_message(await socket.get_message())
            nursery.cancel_scope.cancel()

    async def tick(socket: trio_websocket.WebSocketConnection) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await socket.send_message("tick")
                await trio.sleep(0.02)

    async def serve(stream: trio.SocketStream) -> None:
        here.accepted += 1
        tls = trio.SSLStream(stream, certificates.server, server_side=True, https_compatible=True)
        try:
            await tls.do_handshake()
            await talk(tls)
        except trio.BrokenResourceError:
            pass  # the client did not like our certificate
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    here = Exchange(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield here
        nursery.cancel_scope.cancel()


class Pproxy:
    """A pproxy process on a port that stays the same when it is started again."""

    def __init__(
        self, scheme: str, login: tuple[str, str] | None, certificates: Certificates
    ) -> None:
        with new_socket() as probe:  # pproxy cannot be asked which port it took
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        tls = ["--ssl", certificates.key_and_cert] if "ssl" in scheme else []
        users = f"#{login[0]}:{login[1]}" if login else ""
        self._command = [
            *(sys.executable, "-W", "ignore", "-m", "pproxy"),
            *("-l", f"{scheme}://127.0.0.1:{self.port}{users}"),
            "--auth=-1",  # else one good login opens it to this IP for 30 days
            *tls,
        ]

    async def start(self) -> None:
        self._process = await trio.lowlevel.open_process(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with trio.fail_after(10):
            while True:
                with suppress(OSError):
                    await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", self.port))
                    return
                assert self._process.returncode is None, "pproxy does not start"
                await trio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def pproxy(
    scheme: str, login: tuple[str, str] | None, certificates: Certificates
) -> AsyncIterator[Pproxy]:
    proxy = Pproxy(scheme, login, certificates)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.kill()


def route(
    proxy: Pproxy, kind: Any, certificates: Certificates, login: tuple[str, str] | None = None
) -> Route:
    username, password = login or ("", "")
    settings = ProxySettings(
        enabled=True,
        proxy_type=kind,
        address=f"127.0.0.1:{proxy.port}",
        username=username,
        password=Secret(password),
        ca_file=certificates.ca_file,
    )
    return Route(real_environment().dial, settings, None, certificates.ca_file, 3)


@asynccontextmanager
async def connected(
    here: Exchange, way: Route, deadlines: Deadlines = DEADLINES
) -> AsyncIterator[Socket]:
    async with open_websocket(
        f"wss://localhost:{here.port}/stream",
        route=way,
        deadlines=deadlines,
        max_message_bytes=2**20,
        frames=FrameBudget((10, 1.0)),
    ) as socket:
        yield socket


async def check_echo(socket: Socket, message: str) -> None:
    await socket.send(message)
    while (got := await socket.receive()) != message:
        assert got == "tick"


async def receive_for_ever(socket: Socket) -> None:
    while True:
        await socket.receive()


async def fails_to_open(here: Exchange, way: Route, expected: type[TunnelError]) -> TunnelError:
    with pytest.raises(TunnelError) as caught:
        async with connected(here, way):
            pytest.fail("open, and should not be")
    assert type(caught.value) is expected
    assert "hunter2" not in f"{caught.value} {caught.value!r}"
    return caught.value


def assert_only_the_proxy_was_asked(audit: Audit, proxy: Pproxy) -> None:
    assert set(audit.connects) <= {proxy.port}
    assert "localhost" not in audit.lookups


CASES = [
    ("http", "http", None),
    ("http", "http", LOGIN),
    ("socks5", "socks5", None),
    ("socks5", "socks5", LOGIN),
    ("https", "http+ssl", LOGIN),
]


@pytest.mark.parametrize(("kind", "scheme", "login"), CASES)
async def test_through_a_proxy_and_never_past_it(
    kind: str, scheme: str, login: tuple[str, str] | None, certificates: Certificates
) -> None:
    with trio.fail_after(15):
        async with exchange(certificates) as here, pproxy(scheme, login, certificates) as proxy:
            way = route(proxy, kind, certificates, login)
            with audited() as audit:
                async with connected(here, way) as socket:
                    await check_echo(socket, "hello")
                    await check_echo(socket, "x" * 500_000)
            assert_only_the_proxy_was_asked(audit, proxy)
            assert here.accepted == 1


async def test_wrong_and_missing_password(certificates: Certificates) -> None:
    with trio.fail_after(15):
        for kind in ("http", "socks5"):
            async with exchange(certificates) as here, pproxy(kind, LOGIN, certificates) as proxy:
                with audited() as audit:
                    wrong = route(proxy, kind, certificates, ("alice", "hunter3"))
                    await fails_to_open(here, wrong, ProxyAuthRequired)
                    if kind == "http":  # pproxy's SOCKS side hangs up without a word
                        missing = route(proxy, kind, certificates)
                        await fails_to_open(here, missing, ProxyAuthRequired)
                assert_only_the_proxy_was_asked(audit, proxy)
                assert here.accepted == 0


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_killed_and_restarted_in_mid_stream(kind: str, certificates: Certificates) -> None:
    with trio.fail_after(20):
        async with exchange(certificates) as here, pproxy(kind, LOGIN, certificates) as proxy:
            way = route(proxy, kind, certificates, LOGIN)
            with audited() as audit:
                async with connected(here, way) as socket:
                    await check_echo(socket, "before")
                    await proxy.kill()
                    with pytest.raises(ConnectionLost) as lost:
                        await receive_for_ever(socket)
                    assert lost.value.code == 1006
                for _ in range(3):  # the exchange is alive and in reach, and yet:
                    await fails_to_open(here, way, ProxyUnreachable)
            assert_only_the_proxy_was_asked(audit, proxy)
            assert here.accepted == 1
            await proxy.start()
            with audited() as audit:
                async with connected(here, way) as socket:
                    await check_echo(socket, "after")
            assert_only_the_proxy_was_asked(audit, proxy)
            assert here.accepted == 2


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_proxy_that_freezes(kind: str, certificates: Certificates) -> None:
    """Its kernel still accepts and acknowledges: only our deadlines notice."""
    with trio.fail_after(20):
        async with exchange(certificates) as here, pproxy(kind, None, certificates) as proxy:
            way = route(proxy, kind, certificates)
            async with connected(here, way, IMPATIENT) as socket:
                await check_echo(socket, "before")
                proxy.signal(signal.SIGSTOP)
                with pytest.raises(ConnectionLost, match="no pong"):
                    await receive_for_ever(socket)
            hasty = Route(way.dial, way.proxy_settings, None, way.ca_file, 0.3)
            error = await fails_to_open(here, hasty, TunnelTimeout)
            assert isinstance(error, TunnelTimeout)
            assert error.step in ("CONNECT", "SOCKS5 greeting")
            assert here.accepted == 1
            proxy.signal(signal.SIGCONT)
            async with connected(here, way) as socket:
                await check_echo(socket, "after")


async def test_the_exchange_is_verified_through_the_proxy(
    certificates: Certificates, tmp_path: Path
) -> None:
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    impostor = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    stranger.issue_cert("example.com").configure_cert(impostor)
    with trio.fail_after(15):
        async with pproxy("http", None, certificates) as proxy:
            way = route(proxy, "http", certificates)
            other_ca = Route(way.dial, way.proxy_settings, None, str(tmp_path / "stranger.pem"), 3)
            async with exchange(certificates) as here:
                await fails_to_open(here, other_ca, TlsUntrusted)
            async with exchange(Certificates("", impostor, "")) as here:
                await fails_to_open(here, other_ca, TlsNameMismatch)


async def test_the_audit_hook_would_notice(certificates: Certificates) -> None:
    """The control: a direct connection is seen, by connect and by lookup."""
    with trio.fail_after(10):
        async with exchange(certificates) as here:
            direct = Route(real_environment().dial, ProxySettings(), None, certificates.ca_file, 3)
            with audited() as audit:
                async with connected(here, direct) as socket:
                    await check_echo(socket, "hello")
            assert here.port in audit.connects
            assert "localhost" in audit.lookups
