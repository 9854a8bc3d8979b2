"""HTTP and WebSocket of the simulator, spoken to in bytes and with wsproto's client side."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    TextMessage,
)

from trio_feed.errors import ConnectionLost
from trio_feed.simulator.machinery.wire import (
    Incoming,
    Limits,
    OnOpen,
    Request,
    Response,
    WebSocketPeer,
    ping_frame,
    serve_stream,
    text_frame,
)

UPGRADE = (
    b"GET /ws/x?a=1 HTTP/1.1\r\nHost: box\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LIMITS = Limits(message_bytes=1000, body_bytes=100, head_bytes=2000)


class Server:
    """One served connection: ``ours`` is the client's end; what the handlers saw is kept."""

    def __init__(self, *, lockstep: bool = False) -> None:
        self.ours, self.theirs = lockstep_stream_pair() if lockstep else memory_stream_pair()
        self.requests: list[Request] = []
        self.incoming: list[Incoming] = []
        self.lost: ConnectionLost | None = None
        self.peer: WebSocketPeer | None = None
        self.done = trio.Event()

    async def run(self) -> None:
        await serve_stream(self.theirs, self._answer, lambda _request: self._opened, LIMITS)
        self.done.set()

    def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, b'{"n":%d}' % len(self.requests), {"X-Test": "yes"})

    async def _opened(self, peer: WebSocketPeer) -> None:
        self.peer = peer
        try:
            while True:
                self.incoming.append(await peer.receive())
        except ConnectionLost as lost:
            self.lost = lost
            raise

    async def read(self) -> bytes:
        """Everything up to the end."""
        received = b""
        while data := await self.ours.receive_some():
            received += data
        return received

    async def upgrade(self) -> Connection:
        await self.ours.send_all(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.ours.receive_some(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455, 1.3
        assert b"Extensions" not in head
        return Connection(ConnectionType.CLIENT)

    async def events(self, client: Connection, count: int) -> list[Any]:
        """The next ``count`` events that the server's bytes make on the client."""
        events: list[Event] = []
        while len(events) < count:
            data = await self.ours.receive_some()
            assert data, f"the server hung up after {events}"
            client.receive_data(data)
            events += client.events()
        return events


@asynccontextmanager
async def serving(*, lockstep: bool = False) -> AsyncIterator[Server]:
    server = Server(lockstep=lockstep)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield server
        nursery.cancel_scope.cancel()


def get(target: str, *headers: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", "Host: box", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_keep_alive(autojump_clock: MockClock) -> None:
    """Two requests at once, a third in single bytes, then the client asks to close."""
    async with serving() as server:
        await server.ours.send_all(get("/a?x=1&y=%20z&x=2") + get("/b%40c"))
        for byte in get("/c", "Connection: close"):
            await server.ours.send_all(bytes([byte]))
        received = await server.read()
        assert received.count(b"HTTP/1.1 200 ") == 3
        assert received.count(b"X-Test: yes") + received.count(b"x-test: yes") == 3
        assert received.endswith(b'{"n":3}')
        assert [r.path for r in server.requests] == ["/a", "/b@c", "/c"]
        assert server.requests[0].query == {"x": "2", "y": " z"}
        await server.done.wait()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (get("/", "X-Long: " + "x" * 20_000), b"431"),
        (get("/", "Content-Length: 200") + b"x" * 200, b"413"),
        (UPGRADE.replace(b"Version: 13", b"Version: 8"), b"400"),
        (UPGRADE.replace(b"Connection: Upgrade", b"Connection: close"), b"400"),
    ],
)
async def test_bad_requests(sent: bytes, status: bytes, autojump_clock: MockClock) -> None:
    """They get an answer, their connection ends, and nothing is raised."""
    async with serving() as server:
        await server.ours.send_all(sent)
        await server.ours.send_eof()
        assert (await server.read()).startswith(b"HTTP/1.1 " + status)
        await server.done.wait()
        assert server.requests == []


async def test_a_slow_head_has_a_deadline(autojump_clock: MockClock) -> None:
    """A byte every ten seconds does not keep a request alive."""
    async with serving() as server:
        with pytest.raises(trio.BrokenResourceError):
            await trickle(server.ours)
        assert 60 <= trio.current_time() <= 80
        assert await server.read() == b""


async def trickle(stream: trio.abc.SendStream) -> None:
    for byte in get("/"):
        await stream.send_all(bytes([byte]))
        await trio.sleep(10)


async def test_messages_whole_and_in_pieces(autojump_clock: MockClock) -> None:
    """Frames split anywhere, a message in three fragments, with a ping between two of them."""
    async with serving() as server:
        client = await server.upgrade()
        data = client.send(TextMessage(data="whole é"))
        data += client.send(Message(data="a", message_finished=False))
        data += client.send(Ping(payload=b"p1"))
        data += client.send(Message(data="b", message_finished=False))
        data += client.send(Message(data="c", message_finished=True))
        data += client.send(BytesMessage(data=b"\x00"))
        for byte in data:
            await server.ours.send_all(bytes([byte]))
        (pong,) = await server.events(client, 1)
        assert isinstance(pong, Pong)
        assert bytes(pong.payload) == b"p1"
        await trio.testing.wait_all_tasks_blocked()
        assert server.incoming == [
            Incoming("text", "whole é"), Incoming("ping"), Incoming("text", "abc"),
            Incoming("binary"),
        ]  # fmt: skip
        assert server.peer is not None
        assert (server.peer.request.path, server.peer.request.query) == ("/ws/x", {"a": "1"})


async def test_bytes_right_behind_the_upgrade(autojump_clock: MockClock) -> None:
    """A client may not wait for the 101 before its first frame leaves."""
    async with serving() as server:
        client = Connection(ConnectionType.CLIENT)
        await server.ours.send_all(UPGRADE + client.send(TextMessage(data="early")))
        await trio.testing.wait_all_tasks_blocked()
        assert server.incoming == [Incoming("text", "early")]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
async def test_frames_are_wsproto_s(size: int, autojump_clock: MockClock) -> None:
    async with serving() as server:
        client = await server.upgrade()
        assert server.peer is not None
        frames = text_frame(b"x" * size) + ping_frame(b"12") + text_frame("é".encode())
        await server.peer.send_frames(frames)
        *pieces, ping, last = await server.events(client, 3)
        assert "".join(piece.data for piece in pieces) == "x" * size
        assert (bytes(ping.payload), last.data) == (b"12", "é")


async def test_the_client_closes(autojump_clock: MockClock) -> None:
    async with serving() as server:
        client = await server.upgrade()
        await server.ours.send_all(client.send(CloseConnection(code=1000, reason="bye")))
        (answer,) = await server.events(client, 1)
        assert (int(answer.code), answer.reason) == (1000, "bye")
        await server.done.wait()
        assert server.lost is not None
        assert (server.lost.code, server.lost.reason) == (1000, "bye")
        assert server.peer is not None
        with pytest.raises(ConnectionLost):
            await server.peer.send_text("too late")
        with pytest.raises(ConnectionLost):
            await server.peer.receive()


@pytest.mark.parametrize("answered", [True, False])
async def test_the_server_closes(answered: bool, autojump_clock: MockClock) -> None:
    """With the client's answer at once, without it after the close deadline."""
    async with serving() as server:
        client = await server.upgrade()
        await trio.sleep(1)
        assert server.peer is not None
        await server.peer.close(1012, "restart")
        (close,) = await server.events(client, 1)
        assert (int(close.code), close.reason) == (1012, "restart")
        if answered:
            await server.ours.send_all(client.send(close.response()))
        else:
            await server.ours.send_all(b"\x8a\x80abcd")  # a pong: the read begins anew
        await server.done.wait()
        assert trio.current_time() == pytest.approx(1 if answered else 3)


async def test_a_message_too_big(autojump_clock: MockClock) -> None:
    """Counted over fragments, and before all of it is there."""
    async with serving() as server:
        client = await server.upgrade()
        for _ in range(3):
            await server.ours.send_all(client.send(Message(data="x" * 400, message_finished=False)))
        (close,) = await server.events(client, 1)
        assert close.code == 1009
        await server.done.wait()


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x83\x80abcd", 1002), (b"\x81\x01x", 1002), (b"\x81\x81\x00\x00\x00\x00\xff", 1007)],
)
async def test_breaches_of_the_protocol(frame: bytes, code: int, autojump_clock: MockClock) -> None:
    """An unknown opcode, an unmasked frame, text that is not UTF-8."""
    async with serving() as server:
        client = await server.upgrade()
        await server.ours.send_all(frame)
        (close,) = await server.events(client, 1)
        assert close.code == code
        await server.done.wait()


async def test_a_peer_that_vanishes(autojump_clock: MockClock) -> None:
    async with serving() as server:
        await server.upgrade()
        await server.ours.aclose()
        await server.done.wait()
        assert server.lost is not None
        assert server.lost.code == 1006


async def test_a_silent_peer(autojump_clock: MockClock) -> None:
    async with serving() as server:
        await server.upgrade()
        await server.done.wait()
        assert trio.current_time() == pytest.approx(900)


async def test_a_peer_that_takes_no_bytes(autojump_clock: MockClock) -> None:
    """The send has a deadline of its own; so has the pong that the reader owes."""
    async with serving(lockstep=True) as server:
        client = await server.upgrade()
        await server.ours.send_all(client.send(Ping()))
        await server.done.wait()
        assert trio.current_time() == pytest.approx(10)


async def test_sends_of_two_tasks_do_not_mix(autojump_clock: MockClock) -> None:
    async with serving(lockstep=True) as server, trio.open_nursery() as nursery:
        client = await server.upgrade()
        await trio.testing.wait_all_tasks_blocked()
        assert server.peer is not None
        for letter in "abc":
            nursery.start_soon(server.peer.send_text, letter * 500)
        texts = ""
        while len(texts) < 1500:
            client.receive_data(await server.ours.receive_some(7))
            texts += "".join(event.data for event in client.events())  # type: ignore[attr-defined]
        assert {texts[i : i + 500] for i in (0, 500, 1000)} == {x * 500 for x in "abc"}


async def test_bugs_are_not_swallowed(autojump_clock: MockClock) -> None:
    """An error of the handler's ends the nursery, and the stream is closed all the same."""
    ours, theirs = memory_stream_pair()

    def broken(_request: Request) -> Response:
        raise ZeroDivisionError

    def on_upgrade(_request: Request) -> Response | OnOpen:
        return Response(404)

    await ours.send_all(get("/"))
    with pytest.raises(ZeroDivisionError):
        await serve_stream(theirs, broken, on_upgrade)
    assert await ours.receive_some() == b""
