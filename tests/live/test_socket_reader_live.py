"""Reading from sockets: everything that came, and how it ended."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_feed.net.socket_reader import receive_from


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[trio.SocketStream, socket.socket]]:
    """A stream, and the peer's socket, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await trio.open_tcp_stream(*listener.getsockname())
        peer, _ = listener.accept()
    with trio.fail_after(10), peer:
        async with stream:
            yield stream, peer


@pytest.mark.parametrize("most", [4, 65536])
async def test_everything_comes_and_then_the_end(most: int) -> None:
    async with connected() as (stream, peer):
        receive, found = receive_from(stream), b""
        for part in (b"abcd", b"e", b"fghijklmn"):
            peer.sendall(part)
            while not found.endswith(part[-1:]):
                data = await receive(most)
                assert len(data) <= most
                found += data
        peer.shutdown(socket.SHUT_WR)
        assert found == b"abcdefghijklmn"
        assert await receive(most) == b""


async def test_a_cancelled_read_loses_nothing() -> None:
    async with connected() as (stream, peer):
        receive = receive_from(stream)
        peer.sendall(b"first")
        assert await receive(99) == b"first"
        with trio.CancelScope() as scope:
            scope.cancel()
            peer.sendall(b"second")
            await receive(99)
        assert scope.cancelled_caught
        assert await receive(99) == b"second"


async def test_a_reset_breaks_the_stream() -> None:
    async with connected() as (stream, peer):
        receive = receive_from(stream)
        peer.sendall(b"first")
        assert await receive(99) == b"first"
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await receive(99)


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_a_stream_that_is_closed_says_so(meanwhile: bool) -> None:
    async with connected() as (stream, peer):
        receive = receive_from(stream)
        peer.sendall(b"first")
        assert await receive(99) == b"first"
        async with trio.open_nursery() as nursery:
            if meanwhile:
                nursery.start_soon(_close_when_read, stream)
            else:
                await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await receive(99)


async def _close_when_read(stream: trio.SocketStream) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await stream.aclose()


async def test_a_read_that_finds_nothing_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message that comes alone would pay for it."""
    async with connected() as (stream, peer):
        receive = receive_from(stream)
        peer.sendall(b"first")
        assert await receive(99) == b"first"

        async def tried(most: int | None = None) -> bytes:
            raise AssertionError("it was read to the end before")

        monkeypatch.setattr(stream, "receive_some", tried)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_when_read, peer)
            assert await receive(99) == b"second"


async def _send_when_read(peer: socket.socket) -> None:
    await trio.testing.wait_all_tasks_blocked()
    peer.sendall(b"second")
