"""The proxy and the pipes of simulated runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.memory import MemoryStream

from trio_feed.simulator.machinery.connect_proxy import ConnectProxy, ProxyFault
from trio_feed.simulator.machinery.memory_network import MemoryNetwork
from trio_feed.simulator.machinery.memory_stream import pipe_pair

ASK = b"CONNECT exchange:443 HTTP/1.1\r\nHost: exchange:443\r\n\r\n"


@asynccontextmanager
async def running_proxy() -> AsyncIterator[tuple[ConnectProxy, MemoryStream]]:
    """A proxy, and a client that has asked it for an exchange that says "hello"."""
    network = MemoryNetwork(pipe_pair)
    proxy = ConnectProxy(network)
    (way_in,) = await network.listen("proxy", 3128)
    (exchange,) = await network.listen("exchange", 443)

    async def hello() -> None:
        while True:
            await (await exchange.accept()).send_all(b"hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run, way_in)
        nursery.start_soon(hello)
        yield proxy, await network.dial("proxy", 3128)
        nursery.cancel_scope.cancel()


async def read_all(stream: MemoryStream) -> list[bytes]:
    """The pieces that come within a second, or until the end (b"")."""
    pieces = []
    with trio.move_on_after(1.0):
        while not pieces or pieces[-1]:
            pieces.append(bytes(await stream.receive_some()))
    return pieces


async def test_the_tunnel_leads_to_the_target(autojump_clock: trio.abc.Clock) -> None:
    async with running_proxy() as (_, client):
        await client.send_all(ASK)
        assert b"".join(await read_all(client)).endswith(b"\r\n\r\nhello")


async def test_a_reply_in_pieces(autojump_clock: trio.abc.Clock) -> None:
    async with running_proxy() as (proxy, client):
        proxy.fail_next("split", 1)
        await client.send_all(ASK)
        pieces = await read_all(client)
        assert len(pieces) > 5
        assert b"".join(pieces).endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    ("fault", "begin", "ends"),
    [(403, b"HTTP/1.1 403", True), ("die", b"HTTP/1.1 200 Conn", True), ("hang", b"", False)],
)
async def test_faults(
    fault: ProxyFault, begin: bytes, ends: bool, autojump_clock: trio.abc.Clock
) -> None:
    async with running_proxy() as (proxy, client):
        proxy.fail_next(fault, 1)
        await client.send_all(ASK)
        pieces = await read_all(client)
        assert b"".join(pieces).startswith(begin)
        assert b"hello" not in b"".join(pieces)
        assert (pieces[-1:] == [b""]) is ends


@pytest.mark.parametrize("ask", [ASK.replace(b"exchange", b"elsewhere"), b"GET / HTTP/1.1\r\n\r\n"])
async def test_only_connect_to_who_is_there(ask: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with running_proxy() as (_, client):
        await client.send_all(ask)
        told = b"".join(await read_all(client))
        assert told.startswith(b"HTTP/1.1 502") or told == b""


async def test_a_pipe_gives_what_was_sent_before_its_end(autojump_clock: trio.abc.Clock) -> None:
    one, other = pipe_pair()
    await one.send_all(b"hello")
    await one.aclose()
    assert await other.receive_some(4) == b"hell"
    assert await other.receive_some() == b"o"
    assert await other.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await other.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()


async def test_a_pipe_wakes_who_waits(autojump_clock: trio.abc.Clock) -> None:
    one, other = pipe_pair()
    ends: list[bytes | type[Exception]] = []

    async def read(stream: trio.abc.Stream) -> None:
        try:
            ends.append(bytes(await stream.receive_some()))
        except trio.ClosedResourceError as error:
            ends.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, one)
        nursery.start_soon(read, other)
        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()
    assert set(ends) == {b"", trio.ClosedResourceError}
