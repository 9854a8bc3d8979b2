"""RFC 6455 by a raw socket against the endpoint, as a table: the ground that the Autobahn test
suite's groups 1 to 7 cover.

Autobahn wants an echo, which this endpoint is not; ``scripts/conformance`` runs it against an echo
behind the same server.  Here the endpoint itself answers: a text frame that is a request gets its
reply, any other message an ``error`` with code 1001, and both prove that the message arrived whole.
"""

import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field
from test_service_live import running

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
Frames = list[bytes]
Expected = Any
REPLY, REFUSED = "pong", "error 1001"
WAIT = b""
"""Nothing more is sent: the end comes by itself."""
MAYBE = "pong?"
"""The reply to what came just before may be overtaken by the end."""
FAILED, BAD_TEXT = 1002, 1007
"""The connection fails, and a Close frame says why (7.1.7)."""
PATIENCE_S = 10.0

ASK = '{"type":"ping","id":"%s"}'


def frame(
    opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True,
    length: int | None = None,
) -> bytes:  # fmt: skip
    """A client's frame.  ``length``: in so many octets (0, 2, 8), whatever would be shortest."""
    size = len(data)
    if length is None:
        length = 0 if size < 126 else 2 if size < 65536 else 8
    mark = 0x80 if masked else 0
    small = {0: size, 2: 126, 8: 127}[length]
    head = bytes((fin << 7 | rsv << 4 | opcode, mark | small))
    head += size.to_bytes(length, "big") if length else b""
    if not masked:
        return head + data
    key = os.urandom(4)
    stream = (key * (size // 4 + 1))[:size]
    return head + key + bytes(a ^ b for a, b in zip(data, stream, strict=True))


def text(content: str | bytes, **options: Any) -> bytes:
    return frame(TEXT, content.encode() if isinstance(content, str) else content, **options)


def fragments(pieces: list[bytes], opcode: int = TEXT) -> Frames:
    last = len(pieces) - 1
    return [
        frame(CONTINUATION if number else opcode, piece, fin=number == last)
        for number, piece in enumerate(pieces)
    ]


def close(code: int | None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def padded(size: int) -> bytes:
    """A request of so many octets."""
    head = '{"type":"ping","id":"iiiiiiii","pad":"'
    return f'{head}{"x" * (size - len(head) - 2)}"}}'.encode()


@define
class Talk:
    """One connection, frame by frame."""

    stream: socket.socket
    rest: bytes = b""
    came: list[Expected] = field(factory=list)

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def next(self) -> tuple[int, bytes]:
        """The next frame but the server's own pings.  Raises ConnectionError at the end."""
        opcode, data = self._frame()
        while opcode == PING:
            opcode, data = self._frame()
        return opcode, data

    def _frame(self) -> tuple[int, bytes]:
        first, second = self._take(2)
        assert not second & 0x80, "a server's frames are never masked"
        assert not first & 0x70, "no extension was agreed on"
        assert first & 0x80, "the server does not fragment"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return first & 0x0F, self._take(size)

    def outcome(self) -> list[Expected]:
        """What comes until the end or the answer to a last request: words as in the table."""
        while True:
            try:
                opcode, data = self.next()
            except (ConnectionError, TimeoutError) as error:
                return [*self.came, "timeout" if isinstance(error, TimeoutError) else "gone"]
            if opcode == TEXT and json.loads(data).get("id") == "last":
                return self.came
            self.came.append(_word(opcode, data))
            if opcode == CLOSE:
                return self.came

    def _take(self, size: int) -> bytes:
        while len(self.rest) < size:
            more = self.stream.recv(65536)
            if not more:
                raise ConnectionError
            self.rest += more
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


def _word(opcode: int, data: bytes) -> Expected:
    if opcode == TEXT:
        message = json.loads(data)
        return REPLY if message["type"] == "pong" else f"{message['type']} {message.get('code')}"
    if opcode == PONG:
        return data
    if opcode == CLOSE:
        data[2:].decode()  # a reason is UTF-8
        return struct.unpack(">H", data[:2])[0] if data else "close"
    return f"opcode {opcode}"


@contextmanager
def connected(url: str) -> Iterator[Talk]:
    """Past the handshake and the greeting."""
    host, _, port = url.removeprefix("ws://").removesuffix("/ws").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(
            b"GET /ws HTTP/1.1\r\nHost: %b:%b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            % (host.encode(), port.encode())
        )
        talk = Talk(stream)
        while b"\r\n\r\n" not in talk.rest:
            talk.rest += stream.recv(4096)
        head, _, talk.rest = talk.rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert b"connection_success" in talk.next()[1]
        yield talk


Case = tuple[Frames, list[Expected]]
GREEK = "κόσμε".encode()
NO_UTF8 = {
    "lone continuation": b"\x80",
    "first of two, alone": b"\xc3",
    "overlong slash": b"\xc0\xaf",
    "overlong of three": b"\xe0\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
    "text before": GREEK + b"\xed\xa0\x80edited",
    "overlong NUL": b"\xc0\x80",
}
UTF8 = {
    "greek": GREEK,
    "NUL": b"\x00",
    "U+007F": b"\x7f",
    "U+0080": "\x80".encode(),
    "U+07FF": "\u07ff".encode(),
    "U+0800": "\u0800".encode(),
    "U+D7FF": "\ud7ff".encode(),
    "U+E000": "\ue000".encode(),
    "U+FFFD": "\ufffd".encode(),
    "U+FFFE": "\ufffe".encode(),
    "U+FFFF": "\uffff".encode(),
    "U+10000": "\U00010000".encode(),
    "U+10FFFF": "\U0010ffff".encode(),
}


def framing() -> Iterator[tuple[str, Case]]:
    """Group 1: every form of the length, text and binary."""
    for size in (40, 125, 126, 127, 128, 65_000):
        yield f"text of {size}", ([text(padded(max(size, 60)))], [REPLY])
    yield "empty text", ([text("")], [REFUSED])
    for size in (0, 125, 126, 127, 128, 65_000):
        yield f"binary of {size}", ([frame(BINARY, b"\xfe" * size)], [REFUSED])
    whole = text(padded(997))
    chops = [whole[at : at + 97] for at in range(0, len(whole), 97)]
    yield "in chops", (chops, [REPLY])
    yield "one octet at a time", ([bytes((octet,)) for octet in text(ASK % "x")], [REPLY])
    yield "length in more octets than needed", ([text(padded(100), length=2)], [FAILED])
    yield "length in eight octets", ([text(padded(100), length=8)], [FAILED])
    yield "not masked", ([text(padded(100), masked=False)], [FAILED])
    yield "longer than allowed", ([text(padded(200_000))], [1009])
    yield "longer than allowed, in fragments", (
        fragments([padded(100_000)[n * 1000 : (n + 1) * 1000] for n in range(100)]), [1009],
    )  # fmt: skip


def pings() -> Iterator[tuple[str, Case]]:
    """Group 2."""
    for name, data in {
        "empty": b"",
        "text": b"Hello",
        "binary": b"\x00\xff\xfe",
        "125": b"x" * 125,
    }.items():
        yield f"ping {name}", ([frame(PING, data)], [data])
    yield "ping of 126", ([frame(PING, b"x" * 126)], [FAILED])
    yield "a pong nobody asked for", ([frame(PONG, b"x")], [])
    yield "pong, then ping", ([frame(PONG), frame(PING, b"y")], [b"y"])
    numbered = [b"%d" % number for number in range(10)]
    yield "ten pings", ([frame(PING, n) for n in numbered], numbered)
    yield "ten pings in octets", (
        [bytes((o,)) for n in numbered for o in frame(PING, n)], numbered,
    )  # fmt: skip
    yield "a fragmented ping", ([frame(PING, b"x", fin=False)], [FAILED])


def reserved() -> Iterator[tuple[str, Case]]:
    """Group 3: bits that mean nothing without an extension."""
    for rsv in range(1, 8):
        yield f"rsv {rsv} in text", ([text(ASK % "x", rsv=rsv)], [FAILED])
    yield "rsv 4 in ping", ([frame(PING, rsv=4)], [FAILED])
    yield "rsv 7 in close", ([frame(CLOSE, rsv=7)], [FAILED])
    yield "rsv after a good one", ([text(ASK % "x"), text(ASK % "y", rsv=2)], [MAYBE, FAILED])


def opcodes() -> Iterator[tuple[str, Case]]:
    """Group 4."""
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", ([frame(opcode)], [FAILED])
        yield f"opcode {opcode} with data", (
            [text(ASK % "x"), frame(opcode, b"reserved")], [MAYBE, FAILED],
        )  # fmt: skip


def fragmentation() -> Iterator[tuple[str, Case]]:
    """Group 5."""
    whole = (ASK % "frag").encode()
    two, many = [whole[:7], whole[7:]], [bytes((octet,)) for octet in whole]
    yield "two", (fragments(two), [REPLY])
    yield "an octet each", (fragments(many), [REPLY])
    yield "empty ones", (fragments([b"", whole[:3], b"", whole[3:], b""]), [REPLY])
    yield "all empty", (fragments([b"", b"", b""]), [REFUSED])
    yield "binary", (fragments([b"\xff", b"\xfe"], BINARY), [REFUSED])
    first, last = fragments(two)
    yield "a ping between", ([first, frame(PING, b"in"), last], [b"in", REPLY])
    yield "a pong between", ([first, frame(PONG, b"in"), last], [REPLY])
    yield "a fragmented ping between", ([first, frame(PING, fin=False)], [FAILED])
    yield "close between", ([first, close(1000)], [1000])
    yield "continuation without a beginning", ([frame(CONTINUATION, whole)], [FAILED])
    yield "continuation after the end", ([*fragments(two), last], [MAYBE, FAILED])
    yield "unfinished continuation without a beginning", (
        [frame(CONTINUATION, whole, fin=False)], [FAILED],
    )  # fmt: skip
    yield "a new message before the end", ([first, text(whole)], [FAILED])
    yield "a new binary one before the end", ([first, frame(BINARY, whole)], [FAILED])
    yield "a new fragmented one before the end", ([first, first], [FAILED])


def utf8() -> Iterator[tuple[str, Case]]:
    """Group 6."""
    for name, data in UTF8.items():
        wrapped = json.dumps({"type": "ping", "id": "x"}).encode()
        yield f"good: {name}", ([text(data)], [REFUSED])
        yield f"good, an octet each: {name}", (
            fragments([bytes((octet,)) for octet in data]), [REFUSED],
        )  # fmt: skip
        yield f"good, then another: {name}", ([text(data), text(wrapped)], [REFUSED, REPLY])
    for name, data in NO_UTF8.items():
        yield f"bad: {name}", ([text(data)], [BAD_TEXT])
        yield f"bad, an octet each: {name}", (
            fragments([bytes((octet,)) for octet in data]), [BAD_TEXT],
        )  # fmt: skip
    half = GREEK[:-1]
    yield "cut off in a character at the end", ([text(half)], [BAD_TEXT])
    yield "a character over two frames", (fragments([half, GREEK[-1:]]), [REFUSED])
    yield "bad in binary is nobody's business", ([frame(BINARY, b"\xff")], [REFUSED])


def closing() -> Iterator[tuple[str, Case]]:
    """Group 7."""
    yield "without a code", ([close(None)], [{"close", 1000, 1005}])
    for code in (*range(1000, 1004), *range(1007, 1014), 3000, 3999, 4000, 4999):
        yield f"with {code}", ([close(code)], [code])
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield f"with {code}, which may not be sent", ([close(code)], [FAILED])
    yield "with a reason", ([close(1000, b"bye")], [1000])
    yield "with a reason of 123", ([close(1000, b"x" * 123)], [1000])
    yield "with a reason of 124", ([close(1000, b"x" * 124)], [FAILED])
    yield "with a code of one octet", ([frame(CLOSE, b"\x03")], [FAILED])
    yield "with a reason that is no UTF-8", ([close(1000, b"\xce\xba\xff")], [{FAILED, BAD_TEXT}])
    yield "fragmented", ([frame(CLOSE, fin=False)], [FAILED])
    yield "twice", ([close(1000), close(1000)], [1000])
    yield "then a ping", ([close(1000), frame(PING, b"x")], [1000])
    yield "then text", ([close(1000), text(ASK % "x")], [1000])
    yield "then nonsense", ([close(1000), b"\xff" * 100], [1000])
    yield "after a message", ([text(ASK % "x"), close(1001)], [MAYBE, 1001])
    yield "after a large message", ([text(padded(65_000)), close(1000)], [MAYBE, 1000])


GROUPS = (framing, pings, reserved, opcodes, fragmentation, utf8, closing)


@asynccontextmanager
async def endpoint(tmp_path: Path) -> AsyncIterator[str]:
    async with running(tmp_path) as service:
        yield (await service.event("service.ready"))["urls"]["websocket"]


def run(url: str, frames: Frames) -> list[Expected]:
    with connected(url) as talk:
        try:
            for piece in frames:
                talk.send(piece)
            if frames[-1] != WAIT:
                talk.send(text(ASK % "last"))
        except ConnectionError:
            pass  # it has closed already, and said why
        return talk.outcome()


def fits(came: list[Expected], expected: list[Expected]) -> bool:
    if expected[:1] == [MAYBE]:
        return fits(came, expected[1:]) or fits(came, [REPLY, *expected[1:]])
    return len(came) == len(expected) and all(
        seen in wanted if isinstance(wanted, set) else seen == wanted
        for seen, wanted in zip(came, expected, strict=True)
    )


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
async def test_group(group: Any, tmp_path: Path) -> None:
    wrong = {}
    async with endpoint(tmp_path) as url:
        for name, (frames, expected) in group():
            came = await trio.to_thread.run_sync(run, url, frames)
            if not fits(came, expected):
                wrong[name] = (came, expected)
    assert wrong == {}


def end(url: str) -> str:
    """After the close handshake it is the server that ends the TCP connection (7.1.1)."""
    with connected(url) as talk:
        talk.send(close(1000))
        assert talk.next()[0] == CLOSE
        try:
            return "more" if talk.stream.recv(1) else "ended"
        except ConnectionResetError:
            return "ended"


async def test_the_server_ends_the_connection(tmp_path: Path) -> None:
    async with endpoint(tmp_path) as url:
        assert await trio.to_thread.run_sync(end, url) == "ended"
