"""Why does it not connect?  What ``check --connect`` prints where a proxy on loopback, or what
stands behind it, does not do what it should.  ``-s`` prints it all."""

import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from attrs import frozen

ROOT = Path(__file__).parent.parent.parent
VENUE = "exchanges.binance_usdm"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
BLOCKED = b"HTTP/1.1 451 Unavailable For Legal Reasons\r\nContent-Length: 0\r\n\r\n"

Handler = Callable[[trio.SocketStream], Awaitable[None]]


async def head(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            break
        data += more
    return data


async def demands_a_password(stream: trio.SocketStream) -> None:
    await head(stream)
    await stream.send_all(
        b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n'
        b"Content-Length: 0\r\n\r\n"
    )


async def has_rules(stream: trio.SocketStream) -> None:
    await head(stream)
    await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


async def is_socks(stream: trio.SocketStream) -> None:
    """It hangs up when it does not understand."""
    await stream.receive_some()


async def drops_everything(stream: trio.SocketStream) -> None:
    """A dead node behind it: the tunnel is there, and nothing comes through."""
    await head(stream)
    await stream.send_all(OPEN)
    while await stream.receive_some():
        pass


async def speaks_tls(
    behind: Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]],
    context: ssl.SSLContext,
    stream: trio.SocketStream,
) -> None:
    await head(stream)
    await stream.send_all(OPEN)
    with suppress(trio.BrokenResourceError):  # the client does not like the certificate
        await behind(trio.SSLStream(stream, context, server_side=True))


async def inspects(tls: trio.SSLStream[trio.SocketStream]) -> None:
    await tls.do_handshake()


async def shuts_the_region_out(tls: trio.SSLStream[trio.SocketStream]) -> None:
    await head(tls)
    await tls.send_all(BLOCKED)


@asynccontextmanager
async def proxy_on_loopback(handler: Handler | None) -> AsyncIterator[str]:
    """Its address; None: a port that nobody listens at."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await handler(stream)  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = "{}:{}".format(*listener.socket.getsockname())
        if handler is None:
            await listener.aclose()
        else:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield address
        nursery.cancel_scope.cancel()


@frozen
class Situation:
    name: str
    handler: Handler | None
    says: tuple[str, ...]
    scheme: str = "http"


SITUATIONS = [
    Situation("the proxy program is not running", None, ("reach the proxy", "start the proxy")),
    Situation(
        "the proxy wants a password", demands_a_password,
        ("log in at the proxy", "407", "username and password"),
    ),
    Situation("the proxy's rules", has_rules, ("open the tunnel", "403", "do its rules allow")),
    Situation(
        "a SOCKS port as http://", is_socks, ("speak with the proxy", "write http:// or socks5://"),
    ),
    Situation(
        "a dead node behind the proxy", drops_everything,
        ("TLS", "drops the packets without a word"),
    ),
]  # fmt: skip


async def printed(address: str, scheme: str, tmp_path: Path, *sets: str) -> str:
    words = [
        sys.executable, "-m", "trio_feed", "check", "--connect",
        "--set", f"{VENUE}.symbols=['BTCUSDT']", "--set", f"{VENUE}.connection.tunnel_timeout_s=1",
        "--set", f"{VENUE}.connection.proxy={scheme}://{address}",
        *(word for each in sets for word in ("--set", each)),
    ]  # fmt: skip
    with trio.fail_after(60):
        done = await trio.run_process(
            words, cwd=tmp_path, capture_stdout=True, check=False, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        )  # fmt: skip
    assert done.returncode == 2
    return done.stdout.decode().replace(address, "127.0.0.1:7890")


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.name)
async def test_which_step_fails_and_what_to_do(situation: Situation, tmp_path: Path) -> None:
    async with proxy_on_loopback(situation.handler) as address:
        text = await printed(address, situation.scheme, tmp_path)
    print(f"\n{situation.name}\n{text}")
    one_line = " ".join(text.split())
    for words in ("FAIL", "try: ", *situation.says, "0 of 1 ways lead to data"):
        assert words in one_line
    assert one_line.count("FAIL") == 1, "what comes after it is not tried"


@pytest.mark.parametrize("trusted", [False, True])
async def test_behind_the_tunnel(trusted: bool, tmp_path: Path) -> None:
    """A proxy that inspects TLS; and one whose way leads into a region that is shut out."""
    authority = trustme.CA(organization_name="Inspecting Proxy Ltd")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("fstream.binance.com", "fapi.binance.com").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    sets = [f"{VENUE}.connection.ca_file={tmp_path / 'ca.pem'}"] if trusted else []
    behind = shuts_the_region_out if trusted else inspects
    async with proxy_on_loopback(partial(speaks_tls, behind, context)) as address:
        text = await printed(address, "http", tmp_path, *sets)
    print(f"\n{'the region is shut out' if trusted else 'TLS is inspected'}\n{text}")
    one_line = " ".join(text.split())
    assert "Inspecting Proxy Ltd" in one_line
    if trusted:
        assert "451" in one_line
        assert "region" in one_line
        assert "rest.odd_answer" not in text, "no log among the steps"
    else:
        assert f"{VENUE}.connection.ca_file if you trust it" in one_line
