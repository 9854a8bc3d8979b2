"""One WebSocket over memory streams on virtual time, against peers that misbehave in every way."""

import base64
import hashlib
import json
import struct
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from support.memory import MemoryNetwork

from trio_feed.errors import ConnectionLost, NetworkError, SettingsError, UpgradeRefused
from trio_feed.net.limits import FrameBudget, status_hint
from trio_feed.net.route import Route
from trio_feed.net.websocket import Deadlines, open_websocket
from trio_feed.settings import ProxySettings

URL = "ws://exchange:80/market/stream?streams=a/b"
DEADLINES = Deadlines(open_s=15, close_s=2, ping_after_s=30, pong_s=10, silence_s=60)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, payload=b"", *, final=True):
    length = len(payload)
    head = bytes(((0x80 if final else 0) | opcode,))
    if length < 126:
        return head + bytes((length,)) + payload
    if length < 65536:
        return head + b"\x7e" + struct.pack("!H", length) + payload
    return head + b"\x7f" + struct.pack("!Q", length) + payload


class Peer:
    """The exchange's end: raw frames, nothing automatic."""

    def __init__(self, stream):
        self.stream = stream
        self.request = b""
        self._buffer = b""

    async def read_request(self):
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._more()
        self.request, self._buffer = self._buffer.split(b"\r\n\r\n", 1)

    def switching(self):
        key = next(
            line.split(b":", 1)[1].strip()
            for line in self.request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )

    async def accept(self, then=b""):
        await self.read_request()
        await self.stream.send_all(self.switching() + then)

    async def send(self, opcode, payload=b""):
        await self.stream.send_all(frame(opcode, payload))

    async def next_frame(self):
        """(opcode, unmasked payload) of the client's next frame."""
        head = await self._take(2)
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._take(2))
        mask = await self._take(4)
        data = await self._take(length)
        return head[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(data))

    async def answer_pings(self, log=None):
        while True:
            opcode, payload = await self.next_frame()
            if log is not None:
                log.append((trio.current_time(), opcode))
            if opcode == PING:
                await self.send(PONG, payload)
            elif opcode == CLOSE:
                await self.send(CLOSE, payload)

    async def _take(self, count):
        while len(self._buffer) < count:
            self._buffer += await self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def _more(self):
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        return data


def route(network):
    return Route(network.dial, ProxySettings(), None, "", 5)


@asynccontextmanager
async def exchange(handler, port=80):
    """A memory network with ``handler(peer)`` behind exchange:port."""
    network = MemoryNetwork()
    (listener,) = await network.listen("exchange", port)

    async def answer(stream):
        try:
            await handler(Peer(stream))
        except* (EOFError, trio.BrokenResourceError):
            pass  # the client has gone, as it may

    async def serve():
        while True:
            nursery.start_soon(answer, await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield network
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["fast", "trio-websocket"], autouse=True)
def transport(request):
    """Every test of this file is about both."""
    global _transport
    _transport = request.param
    return request.param


_transport = ""


def connect(network, url=URL, deadlines=DEADLINES, max_message_bytes=1000, frames=None, **more):
    return open_websocket(
        url,
        route=route(network),
        deadlines=deadlines,
        max_message_bytes=max_message_bytes,
        frames=frames or FrameBudget((1000, 1.0)),
        transport=_transport,
        **more,
    )


async def receive_all(network, **more):
    async with connect(network, **more) as socket:
        while True:
            await socket.receive()


async def assert_closed(network):
    for stream in network.streams:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def lost(handler, **more):
    """The ConnectionLost of a connection that opens and then only receives."""
    async with exchange(handler) as network:
        with pytest.raises(ConnectionLost) as caught:
            await receive_all(network, **more)
        await assert_closed(network)
        assert "\n" not in str(caught.value)
        assert "ws://exchange:80" in str(caught.value)
        return caught.value


async def not_opened(handler, expected, url=URL):
    async with exchange(handler) as network:
        began = trio.current_time()
        with pytest.raises(NetworkError) as caught:
            await receive_all(network, url=url)
        assert type(caught.value) is expected
        assert "\n" not in str(caught.value)
        assert trio.current_time() - began <= DEADLINES.open_s
        await assert_closed(network)
        return caught.value


# ---------------------------------------------------------------- the good case


async def test_a_ping_with_the_101_is_answered_before_the_consumer_speaks(autojump_clock):
    """What came with the 101 was given to the consumer first (Autobahn's case 5.6)."""
    frames = []

    async def handler(peer):
        await peer.accept(then=frame(PING, b"!") + frame(TEXT, b"hello"))
        while (got := await peer.next_frame())[0] != CLOSE:
            frames.append(got)
        await peer.send(CLOSE, got[1])

    async with exchange(handler) as network, connect(network) as socket:
        await socket.send(await socket.receive())
        await trio.testing.wait_all_tasks_blocked()
    assert frames == [(PONG, b"!"), (TEXT, b"hello")]


async def test_messages_both_ways(autojump_clock):
    requests, frames, closed = [], [], []

    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"with the 101"))
        requests.append(peer.request)
        await peer.send(BINARY, b"\x00\x01")
        await peer.stream.send_all(
            frame(TEXT, b"two ", final=False) + frame(PING, b"!") + frame(0, b"parts")
        )
        while (got := await peer.next_frame())[0] != CLOSE:
            frames.append(got)
        closed.append(got)
        await peer.send(CLOSE, got[1])

    async with exchange(handler) as network:
        async with connect(network) as socket:
            assert await socket.receive() == "with the 101"
            assert await socket.receive() == b"\x00\x01"
            assert await socket.receive() == "two parts"
            await socket.send('{"id":1}')
            await trio.testing.wait_all_tasks_blocked()
            assert socket.statistics().messages == 3
            assert socket.statistics().bytes > 100
            assert socket.statistics().opened_at == trio.current_time()
            assert repr(socket) == "<Socket ws://exchange:80 open, 3 messages>"
        await assert_closed(network)
    assert requests[0].startswith(b"GET /market/stream?streams=a/b HTTP/1.1\r\nHost: exchange\r\n")
    assert sorted(frames) == [(TEXT, b'{"id":1}'), (PONG, b"!")]
    assert closed == [(CLOSE, struct.pack("!H", 1000))]


@pytest.mark.parametrize("cut", [1, 7, 13, 40, 1000])
@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        b"HTTP/1.1 100\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.0 103 X\nA: 1\n\n",
    ],
)
async def test_interim_answers_before_the_101_are_skipped(before, cut, autojump_clock):
    """RFC 9110, 15.2: a client must be able to read one or more of them before the final one."""

    async def handler(peer):
        await peer.read_request()
        answer = before + peer.switching() + frame(TEXT, b"hello")
        for at in range(0, len(answer), cut):
            await peer.stream.send_all(answer[at : at + cut])
            await trio.sleep(0.01)
        await trio.sleep_forever()

    async with exchange(handler) as network, connect(network) as socket:
        assert await socket.receive() == "hello"


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
         UpgradeRefused, "403"),
        (b"HTTP/1.1 103 X\r\n\r\n" * 20_000, ConnectionLost, "too much"),
        (b"HTTP/1.1 103 X\r\nA: " + b"a" * 300_000, ConnectionLost, "too much"),
        (b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 2", ConnectionLost, "during the WebSocket upgrade"),
        (b"HTTP/1.1 103 X\r\n\r\n", ConnectionLost, "during the WebSocket upgrade"),
        (b"\x81\x05hello", ConnectionLost, "no HTTP"),
        (b"HTTP/1.1 103 X\r\n\r\n\x81\x05hello", ConnectionLost, "no HTTP"),
        (b"\x81\x05helloHTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n", ConnectionLost, "ws://exchange"),
    ],
)  # fmt: skip
async def test_what_is_no_101_after_interim_answers(answer, expected, said, autojump_clock):
    async def handler(peer):
        await peer.stream.receive_some()
        await peer.stream.send_all(answer)
        if said.startswith("during"):
            await peer.stream.aclose()
        else:
            await trio.sleep_forever()

    assert said in str(await not_opened(handler, expected))


@pytest.mark.parametrize(
    ("url", "host_header", "target"),
    [
        ("ws://exchange", b"exchange", b"/"),
        ("ws://exchange:8080/x", b"exchange:8080", b"/x"),
        ("ws://exchange?a=b", b"exchange", b"/?a=b"),
        ("ws://exchange/ws/币usdt@kline_1m", b"exchange", b"/ws/%E5%B8%81usdt@kline_1m"),
        ("ws://exchange/a%20b/c d?x=ü", b"exchange", b"/a%20b/c%20d?x=%C3%BC"),
    ],
)
async def test_request_line(url, host_header, target, autojump_clock):
    requests = []

    async def handler(peer):
        await peer.accept()
        requests.append(peer.request)
        await peer.answer_pings()

    async with exchange(handler, 8080 if "8080" in url else 80) as network:
        async with connect(network, url):
            pass
    assert requests[0].startswith(b"GET " + target + b" HTTP/1.1\r\nHost: " + host_header + b"\r\n")


@pytest.mark.parametrize("url", ["http://x", "ws://", "ws://x:port/", "ws://x:0/", "x"])
async def test_url_that_is_none(url, autojump_clock):
    network = MemoryNetwork()
    with pytest.raises(SettingsError):
        async with connect(network, url):
            pass
    assert network.dialled == []


async def test_path_is_not_shown_it_may_be_a_listen_key(autojump_clock):
    async def handler(peer):
        await peer.accept(then=frame(CLOSE, struct.pack("!H", 1008) + b"go"))

    async with exchange(handler) as network:
        async with connect(network, "ws://exchange/ws/listenkey") as socket:
            assert "listenkey" not in repr(socket)
            with pytest.raises(ConnectionLost) as caught:
                await socket.receive()
    assert "listenkey" not in str(caught.value)


# ---------------------------------------------------------------- refused upgrades


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 418, 429, 451, 500, 503])
@pytest.mark.parametrize("body", ["complete", "none", "endless", "cut off"])
async def test_upgrade_refused(status, body, autojump_clock):
    async def handler(peer):
        await peer.read_request()
        length = b"0" if body == "none" else b"5" if body == "complete" else b"500"
        text = b"" if body == "none" else b"sorry"
        await peer.stream.send_all(
            b"HTTP/1.1 %d X\r\nContent-Length: %s\r\n\r\n%s" % (status, length, text)
        )
        if body == "cut off":
            await peer.stream.aclose()
        await trio.sleep_forever()

    error = await not_opened(handler, UpgradeRefused)
    assert error.status == status
    assert f": {status} ({status_hint(status, {})})" in str(error)


async def test_a_status_that_http_does_not_know_is_a_refusal(autojump_clock):
    async def handler(peer):
        await peer.read_request()
        await peer.stream.send_all(b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    assert (await not_opened(handler, UpgradeRefused)).status == 600


async def test_refusal_with_a_body_without_end_is_not_collected(autojump_clock):
    sent = 0

    async def handler(peer):
        nonlocal sent
        await peer.read_request()
        await peer.stream.send_all(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.stream.send_all(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent += 0x10000
            await trio.sleep(0.1)

    error = await not_opened(handler, UpgradeRefused)
    assert error.status == 503
    assert sent < 1_000_000


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 10",
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x00\x02\x00\x00",
        b"SSH-2.0-x\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: \xff\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
@pytest.mark.parametrize("then", ["hang up", "reset", "hang"])
async def test_no_upgrade(answer, then, autojump_clock):
    async def handler(peer):
        await peer.read_request()
        if answer:
            await peer.stream.send_all(answer)
        if then == "hang up":
            await peer.stream.send_stream.aclose()
        elif then == "reset":
            await trio.aclose_forcefully(peer.stream)
        await trio.sleep_forever()

    began = trio.current_time()
    await not_opened(handler, ConnectionLost)
    if then != "hang":
        assert trio.current_time() == began  # seen at once, not after open_s


@pytest.mark.parametrize(
    "extra",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"Sec-WebSocket-Protocol: y",
        b"Sec-WebSocket-Extensions: \xff",
        b"Sec-WebSocket-Protocol: \xff",
    ],
)
async def test_upgrade_with_what_was_not_asked_for(extra, autojump_clock):
    async def handler(peer):
        await peer.read_request()
        await peer.stream.send_all(peer.switching()[:-2] + extra + b"\r\n\r\n")
        await trio.sleep_forever()

    await not_opened(handler, ConnectionLost)


async def test_slow_drip_does_not_stretch_open_s(autojump_clock):
    async def handler(peer):
        await peer.read_request()
        await peer.stream.send_all(b"HTTP/1.1 101 X\r\n")
        while True:
            await trio.sleep(1)
            await peer.stream.send_all(b"X: y\r\n")

    began = trio.current_time()
    await not_opened(handler, ConnectionLost)
    assert trio.current_time() - began == pytest.approx(15)


async def test_upgrade_in_the_very_moment_it_is_given_up(autojump_clock):
    """The library's tasks must not be left shielded with nobody to end them."""

    async def handler(peer):
        await peer.read_request()
        await trio.sleep(DEADLINES.open_s)
        await peer.stream.send_all(peer.switching())
        await peer.answer_pings()

    outcomes = set()
    for _ in range(60):  # the order of tasks is by chance
        async with exchange(handler) as network:
            with trio.fail_after(100):
                try:
                    async with connect(network):
                        outcomes.add("open")
                except ConnectionLost:
                    outcomes.add("too late")
            await assert_closed(network)
    assert outcomes <= {"open", "too late"}


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_in_the_very_moment_of_the_upgrade(turns, autojump_clock):
    """As above, each turn of the loop in turn; a mistake here hangs for ever."""

    async def handler(peer):
        await peer.accept()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        scope.cancel()
        await peer.answer_pings()

    for _ in range(10):  # the order of tasks is by chance
        async with exchange(handler) as network:
            with trio.CancelScope() as scope:
                await receive_all(network)
            assert scope.cancelled_caught
            await assert_closed(network)


async def test_peer_gone_before_the_request(autojump_clock):
    async def handler(peer):
        await trio.aclose_forcefully(peer.stream)

    await not_opened(handler, ConnectionLost)


async def test_closed_right_with_the_101(autojump_clock):
    async def handler(peer):
        close = frame(CLOSE, struct.pack("!H", 1013) + b"try again later")
        await peer.accept(then=frame(TEXT, b"last words") + close)
        await peer.stream.send_stream.aclose()

    for _ in range(20):  # the order of tasks is by chance
        error = await lost(handler)
        assert (error.code, error.reason) == (1013, "try again later")


async def test_cancelled_during_the_upgrade(autojump_clock):
    async def handler(peer):
        await trio.sleep_forever()

    async with exchange(handler) as network:
        with trio.move_on_after(1) as scope:
            async with connect(network):
                pytest.fail("not open")
        assert scope.cancelled_caught
        await assert_closed(network)


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (struct.pack("!H", 1000), 1000, ""),
        (struct.pack("!H", 1008) + b"Pong timeout", 1008, "Pong timeout"),
        (struct.pack("!H", 4004) + b"No data received in 30s", 4004, "No data received in 30s"),
    ],
)
@pytest.mark.parametrize("hang_up", [False, True])
async def test_closed_by_the_peer(payload, code, reason, hang_up, autojump_clock):
    async def handler(peer):
        await peer.accept()
        await peer.send(CLOSE, payload)
        if hang_up:
            await peer.stream.send_stream.aclose()
        await trio.sleep_forever()

    began = trio.current_time()
    error = await lost(handler)
    assert (error.code, error.reason) == (code, reason)
    assert trio.current_time() == began


@pytest.mark.parametrize("how", ["hang up", "reset"])
async def test_ended_without_a_close_frame(how, autojump_clock):
    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"3")[:-1])
        await (peer.stream.send_stream.aclose() if how == "hang up" else peer.stream.aclose())

    async with exchange(handler) as network:
        async with connect(network) as socket:
            await trio.testing.wait_all_tasks_blocked()
            assert [await socket.receive(), await socket.receive()] == ["1", "2"]
            for call in (socket.receive, lambda: socket.send("x"), socket.receive):
                with pytest.raises(ConnectionLost, match="without a close frame") as caught:
                    await call()
                assert caught.value.code == 1006
            assert "lost" in repr(socket)


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"caf\xc3", final=False) + frame(0, b"("), 1007),
        (frame(TEXT, b"x" * 1001), 1009),
        (frame(TEXT, b"x" * 800, final=False) + frame(0, b"x" * 800), 1009),
        (frame(BINARY, b"x" * 70_000), 1009),
        (b"\x81\x7f" + b"\x7f" * 8 + b"x" * 5000, 1009),
        (b"\x83\x00", 1002),  # reserved opcode
        (b"\xc1\x01x", 1002),  # RSV1 without an extension
        (frame(0, b"x"), 1002),  # continuation of nothing
        (b"\x89\x7e\x00\x7e" + b"x" * 126, 1002),  # control frame too long
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, struct.pack("!H", 1006)), 1002),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    ],
)
@pytest.mark.parametrize("hang_up", [False, True])
async def test_protocol_violations(bytes_sent, code, hang_up, autojump_clock):
    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"fine") + bytes_sent)
        if hang_up:
            await peer.stream.send_stream.aclose()
        await trio.sleep_forever()

    began = trio.current_time()
    error = await lost(handler)
    assert error.code == code
    assert trio.current_time() - began <= 2
    if code == 1009:
        assert "max_message_bytes is 1000" in str(error)


@pytest.mark.parametrize(
    ("bytes_sent", "words"),
    [
        (b"\x81\x81\0\0\0\0a", "a masked frame from a server"),
        (b"\xc1\x01a", "a bit of an extension that was not negotiated"),
        (b"\x83\x00", "opcode 3, which is reserved"),
        (b"\x8b\x00", "opcode 11, which is reserved"),
        (b"\x09\x00", "a control frame in parts, or longer than 125 bytes"),
        (b"\x89\x7e\x00\x7e" + b"x" * 126, "a control frame in parts, or longer than 125 bytes"),
        (frame(0, b"x"), "a part of no message"),
        (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), "a message inside another one"),
        (frame(TEXT, b"\xff"), "a text that is not UTF-8"),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), "a text that is not UTF-8"),
        (frame(CLOSE, struct.pack("!H", 1005)), "a close frame with a code that may not be sent"),
        (frame(CLOSE, b"\x03"), "a close frame with a code that may not be sent"),
        (b"\x81\x7e\x00\x01a", "a length that is not written in the shortest form"),
        (b"\x81\x7f" + b"\xff" * 8, "a length that is not written in the shortest form"),
        (frame(TEXT, b"x" * 800, final=False) + frame(0, b"x" * 800), "of more than 1000 bytes"),
    ],
)
async def test_both_say_what_was_broken_in_the_same_words(bytes_sent, words, autojump_clock):
    async def handler(peer):
        await peer.accept(then=bytes_sent)
        await trio.sleep_forever()

    assert words in str(await lost(handler))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"Sec-WebSocket-Accept", b"X", "a Sec-WebSocket-Accept that is not for our key"),
        (b"=\r\n", b"A=\r\n", "a Sec-WebSocket-Accept that is not for our key"),
        (b"Upgrade: websocket", b"Upgrade: h2c", "a 101 that switches to something else"),
        (b"Connection: Upgrade", b"Connection: x", "a 101 that switches to something else"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: y\r\n\r\n", "that was not asked for"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: y\r\n\r\n", "that was not asked for"),
    ],
)
async def test_both_say_what_was_wrong_with_a_101(old, new, words, autojump_clock):
    async def handler(peer):
        await peer.read_request()
        await peer.stream.send_all(peer.switching().replace(old, new, 1))
        await trio.sleep_forever()

    assert words in str(await not_opened(handler, ConnectionLost))


async def test_peer_that_goes_on_after_a_violation(autojump_clock):
    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"\xff"))
        while True:
            await peer.send(TEXT, b"\xff")
            await peer.send(PING, b"x")

    assert (await lost(handler)).code == 1007


# ---------------------------------------------------------------- liveness


async def test_silent_socket_is_pinged_and_lost_without_a_pong(autojump_clock):
    frames = []

    async def handler(peer):
        await peer.accept()
        while True:
            opcode, _ = await peer.next_frame()
            frames.append((trio.current_time(), opcode))

    began = trio.current_time()
    error = await lost(handler)
    assert "no pong" in str(error)
    assert error.code == 1006
    assert trio.current_time() - began == pytest.approx(40)
    assert [(t - began, opcode) for t, opcode in frames] == [(pytest.approx(30), PING)]


async def test_pongs_do_not_hide_silence(autojump_clock):
    log = []

    async def handler(peer):
        await peer.accept()
        await peer.answer_pings(log)

    began = trio.current_time()
    error = await lost(handler)
    assert "silent" in str(error)
    assert trio.current_time() - began == pytest.approx(60)
    assert [opcode for _, opcode in log] == [PING]


async def test_server_pings_do_not_hide_silence(autojump_clock):
    async def handler(peer):
        await peer.accept()
        while True:
            await peer.send(PING, b"20")
            assert await peer.next_frame() == (PONG, b"20")
            await trio.sleep(20)

    began = trio.current_time()
    assert "silent" in str(await lost(handler))
    assert trio.current_time() - began == pytest.approx(60)


async def test_data_counts_from_the_last_message(autojump_clock):
    async def handler(peer):
        await peer.accept()
        for _ in range(3):
            await trio.sleep(25)
            await peer.send(TEXT, b"x")
        await peer.answer_pings()

    began = trio.current_time()
    assert "silent" in str(await lost(handler))
    assert trio.current_time() - began == pytest.approx(3 * 25 + 60)


async def test_no_ping_while_data_flows(autojump_clock):
    """Pings count against the exchange's limit of incoming frames."""
    log = []

    async def handler(peer):
        await peer.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer_pings, log)
            for _ in range(100):
                await trio.sleep(29)
                await peer.send(TEXT, b"x")

    async with exchange(handler) as network:
        async with connect(network) as socket:
            for _ in range(100):
                await socket.receive()
            assert log == []


async def test_data_instead_of_a_pong_is_a_sign_of_life(autojump_clock):
    async def handler(peer):
        await peer.accept()
        for _ in range(5):
            await trio.sleep(35)  # 5 s after the ping, which stays unanswered
            await peer.send(TEXT, b"x")
        await peer.send(CLOSE, struct.pack("!H", 1001))

    assert (await lost(handler)).code == 1001


async def test_ended_while_a_pong_is_awaited(autojump_clock):
    async def handler(peer):
        await peer.accept()
        await peer.next_frame()  # the ping
        await trio.sleep(3)
        await peer.stream.send_stream.aclose()
        await trio.sleep_forever()

    async with exchange(handler) as network:
        async with connect(network) as socket:
            for _ in range(2):  # the answer stays the same after the pong's deadline
                with pytest.raises(ConnectionLost, match="hung up without a close frame"):
                    await socket.receive()
                await trio.sleep(100)


async def test_server_ping_is_answered_while_the_consumer_is_busy(autojump_clock):
    """The library's own queue of one message would stop that."""
    pongs = []

    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"x") * 500)
        for n in range(10):
            await peer.send(PING, b"%d" % n)
            with trio.move_on_after(20):
                pongs.append(await peer.next_frame())
        await trio.sleep_forever()

    async with exchange(handler) as network:
        async with connect(network):
            await trio.sleep(300)  # reads nothing
    assert pongs == [(PONG, b"%d" % n) for n in range(10)]


async def test_busy_consumer_is_not_the_peers_silence(autojump_clock):
    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"x") * 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer_pings)
            await trio.sleep(1000)
            while True:
                await peer.send(TEXT, b"later")
                await trio.sleep(10)

    for _ in range(10):  # the order of tasks is by chance
        async with exchange(handler) as network:
            async with connect(network, queue_size=5) as socket:
                await trio.sleep(1000)  # the queue is full, nothing is read off the wire
                for _ in range(50):
                    assert await socket.receive() == "x"
                assert await socket.receive() == "later"


async def test_consumer_that_comes_back_to_a_dead_peer_is_told(autojump_clock):
    async def handler(peer):
        await peer.accept(then=frame(TEXT, b"x"))
        await trio.sleep_forever()

    async with exchange(handler) as network:
        async with connect(network) as socket:
            await trio.sleep(1000)
            assert await socket.receive() == "x"
            back = trio.current_time()
            with pytest.raises(ConnectionLost, match="no pong"):
                await socket.receive()
            assert trio.current_time() - back == pytest.approx(10)


@pytest.mark.parametrize("what", [TEXT, PONG])
async def test_stalled_loop_looks_before_it_judges(what, mock_clock):
    """Deadline and data come up in the same turn of the loop: the data wins."""
    for _ in range(30):

        async def handler(peer):
            await peer.accept()
            await peer.next_frame()
            mock_clock.jump(3000)  # suspended; what the peer sent meanwhile is there already
            await peer.send(what, b"")
            await trio.sleep_forever()

        deadlines = Deadlines(15, 2, ping_after_s=30, pong_s=10, silence_s=10_000)
        async with exchange(handler) as network:
            async with connect(network, deadlines=deadlines) as socket:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def receive():
                        while True:
                            await socket.receive()

                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(30)
                    await trio.testing.wait_all_tasks_blocked()
                    assert "open" in repr(socket)
                    nursery.cancel_scope.cancel()
                mock_clock.rate = 1000  # for the close handshake
            mock_clock.rate = 0


# ---------------------------------------------------------------- sending


async def test_send_to_a_peer_that_takes_nothing(autojump_clock):
    async def handler(peer):
        await peer.accept()
        await trio.sleep_forever()

    async with exchange(handler) as network:
        began = trio.current_time()
        async with connect(network) as socket:
            network.streams[0].send_stream.send_all_hook = trio.sleep_forever
            with pytest.raises(ConnectionLost, match="took no bytes for 10 s"):
                await socket.send("x")
        assert trio.current_time() - began == pytest.approx(10)
        await assert_closed(network)


async def test_cancelled_send_ends_the_connection(autojump_clock):
    """Half a frame may be out; the next one would be read as its rest."""

    async def handler(peer):
        await peer.accept()
        await trio.sleep_forever()

    async with exchange(handler) as network:
        async with connect(network) as socket:
            network.streams[0].send_stream.send_all_hook = trio.sleep_forever
            with trio.move_on_after(1):
                await socket.send("x")
            network.streams[0].send_stream.send_all_hook = None
            with pytest.raises(ConnectionLost, match="interrupted"):
                await socket.send("y")
            with pytest.raises(ConnectionLost, match="interrupted"):
                await socket.receive()


async def test_many_tasks_may_send(autojump_clock):
    got = []

    async def handler(peer):
        await peer.accept()
        while True:
            opcode, payload = await peer.next_frame()
            if opcode == CLOSE:
                await peer.send(CLOSE, payload)
            got.append(json.loads(payload)) if opcode == TEXT else None

    async with exchange(handler) as network:
        async with connect(network) as socket:
            async with trio.open_nursery() as nursery:
                for n in range(50):
                    nursery.start_soon(socket.send, json.dumps(n))
    assert sorted(got) == list(range(50))


# ---------------------------------------------------------------- closing


@pytest.mark.parametrize("peer_does", ["nothing", "flood", "ping", "hang up", "no reading"])
async def test_close_is_bounded(peer_does, transport, autojump_clock):
    async def handler(peer):
        await peer.accept()
        while peer_does == "flood":
            await peer.send(TEXT, b"x")
            await trio.sleep(0.01)
        await peer.next_frame()
        if peer_does == "ping":  # trio-websocket crashes: no pong in the closing state
            await peer.send(PING, b"x")
        if peer_does == "hang up":
            await peer.stream.aclose()
        await trio.sleep_forever()

    async with exchange(handler) as network:
        async with connect(network, queue_size=3):
            await trio.sleep(1)
            if peer_does == "no reading":
                network.streams[0].send_stream.send_all_hook = trio.sleep_forever
            began = trio.current_time()
        took = trio.current_time() - began
        at_once = peer_does == "hang up" or (peer_does, transport) == ("ping", "trio-websocket")
        assert took == pytest.approx(0 if at_once else 2)
        await assert_closed(network)


async def test_cancellation_still_says_goodbye(autojump_clock):
    frames = []

    async def handler(peer):
        await peer.accept()
        opcode, payload = await peer.next_frame()
        frames.append(opcode)
        await peer.send(CLOSE, payload)

    async with exchange(handler) as network:
        with trio.move_on_after(1) as scope:
            async with connect(network) as socket:
                await socket.receive()
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline == pytest.approx(0)
        await assert_closed(network)
    assert frames == [CLOSE]


async def test_cancellation_with_a_dead_peer_is_bounded(autojump_clock):
    async def handler(peer):
        await peer.accept()
        await trio.sleep_forever()

    async with exchange(handler) as network:
        with trio.move_on_after(1) as scope:
            async with connect(network) as socket:
                await socket.receive()
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline == pytest.approx(2)


class Boom(Exception):
    pass


@pytest.mark.parametrize("error", [Boom("x"), ExceptionGroup("own", [Boom("x")]), KeyError(1)])
@pytest.mark.parametrize("crash", [False, True])
async def test_what_the_block_raises_comes_out_as_it_is(error, crash, autojump_clock):
    async def handler(peer):
        await peer.accept()
        await trio.sleep(1)
        if crash:
            await peer.stream.send_all(b"\xff" * 100)
        await peer.answer_pings()

    async with exchange(handler) as network:
        caught = None
        try:
            async with connect(network):
                await trio.sleep(2)
                raise error
        except (Boom, ExceptionGroup, KeyError) as exc:
            caught = exc
        assert caught is error


async def self_destruct(network):
    async with connect(network):
        raise Boom


async def test_error_of_the_block_wins_over_a_cancellation_that_comes_later(autojump_clock):
    async def handler(peer):
        await peer.accept()
        await trio.sleep_forever()

    async with exchange(handler) as network:
        with trio.move_on_after(1):
            with pytest.raises(Boom):
                await self_destruct(network)  # whose close handshake takes 2 s


async def test_nothing_leaks_from_random_bytes(autojump_clock):
    """Whatever a peer sends, before or after the 101, only our own errors come out."""
    import random

    chance = random.Random(7)
    for turn in range(150):
        noise = chance.randbytes(chance.randrange(1, 300))
        upgrade = turn % 2

        async def handler(peer, noise=noise, upgrade=upgrade, turn=turn):
            await peer.read_request()
            head = peer.switching() if upgrade else b""
            if turn % 3 == 0:  # valid frames with a few bytes changed
                good = bytearray(head + frame(TEXT, b"abc") * 3 + frame(PING) + frame(CLOSE))
                good[chance.randrange(len(good))] = chance.randrange(256)
                await peer.stream.send_all(good)
            else:
                await peer.stream.send_all(head + noise)
            await peer.stream.send_stream.aclose()

        async with exchange(handler) as network:
            with pytest.raises(NetworkError):
                await receive_all(network)
