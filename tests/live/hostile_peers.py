"""What a hostile exchange, or a hostile proxy, says: generated, each variant a list of steps.

A variant never waits for its victim: it sends what it can, until the victim has hung up or the
variant's time is over.
"""

import base64
import gzip
import hashlib
import json
import random
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import trio
from attrs import frozen

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
OK = b"HTTP/1.1 200 OK\r\n\r\n"
SOCKS_OK = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_LONGEST_S = 3.0
_MOST_BYTES = 64 * 1024 * 1024


@frozen
class Endless:
    """The same bytes again and again."""

    data: bytes


@frozen
class Drip:
    """One byte at a time."""

    data: bytes
    every_s: float = 0.01


@frozen
class Hang:
    """Nothing more, and no end."""


Step = bytes | Endless | Drip | Hang


@frozen
class Variant:
    """``good``: odd, but of the protocol; it must be understood."""

    name: str
    steps: tuple[Step, ...]
    good: bool = False


def split(name: str, reply: bytes) -> Iterator[Variant]:
    """In two at every byte, whole and cut off there."""
    for at in range(1, len(reply)):
        yield Variant(f"{name} split at {at}", (reply[:at], reply[at:], Hang()), good=True)
        yield Variant(f"{name} cut at {at}", (reply[:at],))


def garbage(name: str, chance: random.Random, reply: bytes, count: int) -> Iterator[Variant]:
    """Random bytes, and the right reply with some bytes changed."""
    for number in range(count):
        yield Variant(f"{name} garbage {number}", (chance.randbytes(chance.randint(1, 200)),))
        changed = bytearray(reply)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield Variant(f"{name} changed {number}", (bytes(changed), Hang()))


def heads(name: str, first: bytes) -> Iterator[Variant]:
    """Heads that have no end, or a strange one."""
    begin = first.split(b"\r\n")[0] + b"\r\n"
    yield Variant(f"{name} endless value", (begin + b"X: ", Endless(b"a" * 4096)))
    yield Variant(f"{name} endless headers", (begin, Endless(b"X-A: b\r\n" * 500)))
    yield Variant(f"{name} endless first line", (b"HTTP/1.1 200 ", Endless(b"O" * 4096)))
    yield Variant(f"{name} endless 1xx", (Endless(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200),))
    yield Variant(f"{name} endless folding", (begin + b"X: a\r\n", Endless(b" a\r\n" * 500)))
    yield Variant(f"{name} drip", (Drip(first),))
    yield Variant(f"{name} nothing", (Hang(),))
    yield Variant(f"{name} end", ())
    for odd in (
        b"HTTP/0.9 200 OK\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 99999 X\r\n\r\n",
        b"HTTP/1.1 -1 X\r\n\r\n", b"HTTP/1.1 000 X\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"\r\n" * 5000,
        b"HTTP/1.1 200 \x00\r\n\r\n", begin + b"A\x00: b\r\n\r\n", begin + b": b\r\n\r\n",
        begin + b"A : b\r\n\r\n", begin + b"\x80: b\r\n\r\n", b"ICY 200 OK\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28", b"SSH-2.0-OpenSSH_9.2\r\n", b"220 smtp ESMTP\r\n",
    ):  # fmt: skip
        yield Variant(f"{name} {odd[:20]!r}", (odd, Hang()))
    for status in (301, 302, 303, 307, 308):
        for place in (
            b"file:///etc/passwd",
            b"http://127.0.0.1:%(bait)d/",
            b"//127.0.0.1:%(bait)d",
        ):
            line = b"HTTP/1.1 %d Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (
                status,
                place,
            )
            yield Variant(f"{name} {status} {place!r}", (line,))


def proxy_variants(chance: random.Random) -> list[Variant]:
    """Of an HTTP CONNECT proxy."""
    found = [*split("connect", OK), *heads("connect", OK), *garbage("connect", chance, OK, 25)]
    for length in (b"-1", b"1" * 5000, b"5", b"0x10", b"5, 6", b"\xb2"):
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n"
        found.append(Variant(f"connect length {length[:9]!r}", (reply, Hang())))
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
    found.append(Variant("connect chunked", (chunked, Hang())))
    for challenge in (
        b"Digest " * 2000,
        b"Basic realm=\x1b[2J",
        b"Digest nonce=" + b"9" * 9000,
        b"",
    ):
        reply = b"HTTP/1.1 407 No\r\nProxy-Authenticate: " + challenge + b"\r\n\r\n"
        found.append(Variant(f"connect 407 {challenge[:12]!r}", (reply,)))
    for early in (b"\x81\x05hello", OK, b"\x16\x03\x01\xff\xff", b"HTTP/1.1 101 X\r\n\r\n"):
        found.append(Variant(f"connect, then {early[:9]!r}", (OK + early, Hang())))
    found.append(Variant("connect, then a flood", (OK, Endless(b"\x00" * 65536))))
    return found


def socks_variants(chance: random.Random) -> list[Variant]:
    """Of a SOCKS5 proxy, which has asked for nothing: both answers come in one."""
    whole = b"\x05\x00" + SOCKS_OK
    found = [*split("socks", whole), *garbage("socks", chance, whole, 25)]
    for reply in (
        b"\x05\xff", b"\x05\x01", b"\x05\x02\x01\x00", b"\x04\x00", b"\x05\x00\x04\x00",
        b"\x05\x00\x05\x63", b"\x05\x00\x05\x00\x00\x09", b"\x05\x00\x05\x00\x00\x03\xff",
        b"\x05\x00\x05\x00\x00\x03\x00\x00", b"HTTP/1.1 400 Bad\r\n\r\n", b"",
    ):  # fmt: skip
        found.append(Variant(f"socks {reply!r}", (reply, Hang())))
        found.append(Variant(f"socks {reply!r} and end", (reply,)))
    found.append(Variant("socks drip", (Drip(whole, 0.2),)))
    found.append(Variant("socks, then a flood", (whole, Endless(b"\x05" * 65536))))
    return found


def tls_variants(chance: random.Random) -> list[Variant]:
    """Of what should speak TLS: nothing here is a ServerHello."""
    found = [
        *garbage("tls", chance, b"\x16\x03\x03\x00\x31\x02\x00\x00\x2d\x03\x03" + bytes(43), 30)
    ]
    for alert in range(0, 121, 10):
        found.append(
            Variant(f"tls alert {alert}", (b"\x15\x03\x03\x00\x02\x02" + bytes((alert,)),))
        )
    found.append(Variant("tls endless records", (Endless(b"\x14\x03\x03\x00\x01\x01" * 500),)))
    found.append(Variant("tls endless hello", (Endless(b"\x16\x03\x03\x40\x00" + bytes(16384)),)))
    found.append(Variant("tls nothing", (Hang(),)))
    found.append(Variant("tls end", ()))
    return found


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def rest_variants(chance: random.Random) -> list[Variant]:
    """Of the exchange's REST."""
    good = answer(b"[]")
    found = [*split("rest", good), *heads("rest", good), *garbage("rest", chance, good, 25)]
    zeros = gzip.compress(bytes(256 * 1024 * 1024), 1)
    packed = b"Content-Encoding: gzip"
    bodies = {
        "bomb": answer(zeros, packed),
        "bomb in a bomb": answer(gzip.compress(zeros), packed),
        "no gzip": answer(b"x" * 100, packed),
        "gzip cut": answer(zeros[:-9], packed),
        "brotli": answer(b"x", b"Content-Encoding: br"),
        "two encodings": answer(zeros, b"Content-Encoding: gzip, gzip"),
        "deep": answer(b'{"code":' + b"[" * 200_000),
        "odd json": answer(json.dumps([[None] * 12] * 50).encode()),
        "teapot": answer(b"", status=b"418 I"),
        "ban": answer(
            b'{"code":-1003,"msg":"IP banned until ' + b"9" * 5000 + b'"}', status=b"400 x"
        ),
        "weight": answer(b"[]", b"X-MBX-USED-WEIGHT-1M: " + b"9" * 5000),
        "date": answer(b"[]", b"Date: Fri, 31 Feb 99999 25:61:61 GMT"),
    }
    found += [Variant(f"rest {name}", (reply,)) for name, reply in bodies.items()]
    head = b"HTTP/1.1 200 OK\r\n"
    for length in (
        b"-1",
        b"1" * 5000,
        b"99999999999999999999",
        b"5",
        b"0x10",
        b"5, 6",
        b"1\r\nContent-Length: 2",
    ):
        reply = head + b"Content-Length: " + length + b"\r\n\r\n[]"
        found.append(Variant(f"rest length {length[:9]!r}", (reply, Hang())))
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in (
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"1\r\nab\r\n",
        b"2;" + b"x" * 100_000,
        b"zz\r\n",
        b"0\r\nA: b\r\n",
    ):
        found.append(Variant(f"rest chunk {chunk[:9]!r}", (chunked + chunk, Hang())))
    found.append(
        Variant("rest endless chunks", (chunked, Endless(b"10000\r\n" + bytes(65536) + b"\r\n")))
    )
    found.append(Variant("rest endless tiny chunks", (chunked, Endless(b"1\r\na\r\n" * 1000))))
    found.append(Variant("rest endless trailer", (chunked + b"0\r\n", Endless(b"A: b\r\n" * 500))))
    found.append(Variant("rest until the end", (head + b"\r\n", Endless(bytes(65536)))))
    found.append(Variant("rest and another", (good + good + b"\x00" * 100,)))
    both = head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
    found.append(Variant("rest both lengths", (both,)))
    return found


def frame(
    opcode: int, payload: bytes = b"", *, first: int = 0x80, length: int | None = None
) -> bytes:
    size = len(payload) if length is None else length
    if size < 126:
        return bytes((first | opcode, size)) + payload
    if size < 65536:
        return bytes((first | opcode, 126)) + struct.pack("!H", size) + payload
    return bytes((first | opcode, 127)) + struct.pack("!Q", size) + payload


def _packed(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]


SWITCH = b"<101>"
"""Stands for the right answer to the upgrade, which depends on its key."""


def websocket_variants(chance: random.Random) -> list[Variant]:
    """Of the exchange's WebSocket."""
    wrong = (
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
    )
    found = [*heads("upgrade", wrong), *garbage("upgrade", chance, wrong, 15)]
    for status in (b"200 OK", b"400 x", b"403 x", b"418 x", b"429 x", b"451 x", b"500 x", b"101"):
        found.append(Variant(f"upgrade {status!r}", (answer(b"no", status=status),)))
    found.append(Variant("upgrade wrong accept", (wrong, Hang())))
    found.append(
        Variant("upgrade, body without end", (b"HTTP/1.1 403 x\r\n\r\n", Endless(bytes(65536))))
    )
    bomb = _packed(bytes(32 * 1024 * 1024))
    frames = {
        "huge": frame(TEXT, b"x", length=2**63 - 1),
        "beyond 63 bits": frame(TEXT, b"x", length=2**64 - 1),
        "large": frame(TEXT, bytes(2**20)),
        "compressed bomb, not agreed": frame(TEXT, bomb, first=0xC0),
        "reserved bits": frame(TEXT, b"x", first=0xF0),
        "unknown opcode": frame(5, b"x"),
        "long ping": frame(PING, bytes(200)),
        "ping in pieces": frame(PING, b"x", first=0),
        "continuation of nothing": frame(0, b"x"),
        "text within text": frame(TEXT, b"x", first=0) + frame(TEXT, b"y"),
        "not UTF-8": frame(TEXT, b"\xff\xfe\xc0\x80"),
        "masked": bytes((0x81, 0x81)) + b"abcd" + b"x",
        "close of one byte": frame(CLOSE, b"x"),
        "close 0": frame(CLOSE, b"\x00\x00"),
        "close 1005": frame(CLOSE, b"\x03\xed"),
        "close not UTF-8": frame(CLOSE, b"\x03\xe8\xff\xff"),
        "data after close": frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"x"),
        "deep JSON": frame(TEXT, b"[" * 100_000),
        "deep event": frame(TEXT, b'{"e":"kline","k":' + b'{"a":' * 20_000),
        "long number": frame(TEXT, b'{"e":"kline","E":' + b"9" * 10_000 + b"}"),
        "binary": frame(BINARY, chance.randbytes(500)),
        "null": frame(TEXT, b"null"),
        "close with an essay": frame(CLOSE, b"\x03\xe8" + b"\x1b[2J" * 25),
    }
    found += [Variant(f"frames {name}", (SWITCH + data, Hang())) for name, data in frames.items()]
    found += [Variant(f"frames {name}, alone", (SWITCH, data)) for name, data in frames.items()]
    floods = {
        "pings": frame(PING, b"x") * 200,
        "pongs": frame(PONG, b"x") * 200,
        "empty pieces": frame(0, b"", first=0) * 200,
        "pieces": frame(0, bytes(1000), first=0) * 50,
        "junk": frame(TEXT, b"{}") * 200,
        "empty": frame(TEXT, b"") * 200,
    }
    for name, data in floods.items():
        begin = frame(TEXT, b"x", first=0) if "pieces" in name else b""
        found.append(Variant(f"flood of {name}", (SWITCH + begin, Endless(data))))
    for number in range(30):
        found.append(Variant(f"frames garbage {number}", (SWITCH + chance.randbytes(300), Hang())))
    offer = b"<101 Sec-WebSocket-Extensions: permessage-deflate>"
    found.append(
        Variant(
            "an extension that nobody asked for", (offer + frame(TEXT, bomb, first=0xC0), Hang())
        )
    )
    found.append(Variant("upgrade drip", (Drip(SWITCH),)))
    return found


def switching(request: bytes, more: bytes = b"") -> bytes:
    """The right answer to an upgrade."""
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    digest = hashlib.sha1(
        (key[1] if key else b"") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    ).digest()
    lines = [
        b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest), *filter(None, [more]),
    ]  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def read_head(stream: trio.abc.Stream) -> bytes:
    """What comes until an empty line, or the end."""
    data = b""
    with suppress(*GONE):
        while b"\r\n\r\n" not in data and (part := await stream.receive_some(4096)):
            data += part
    return data


async def play(variant: Variant, stream: trio.abc.Stream, request: bytes = b"") -> None:
    """Say it all to a victim that has asked ``request``; the caller closes."""

    def filled(data: bytes) -> bytes:
        return re.sub(rb"<101 ?([^>]*)>", lambda found: switching(request, found[1]), data, count=1)

    with suppress(*GONE), trio.move_on_after(_LONGEST_S):
        for step in variant.steps:
            match step:
                case bytes():
                    await stream.send_all(filled(step))
                    await trio.sleep(0.001)
                case Drip(data, every_s):
                    for byte in filled(data):
                        await stream.send_all(bytes((byte,)))
                        await trio.sleep(every_s)
                case Endless(data):
                    for _ in range(_MOST_BYTES // len(data)):
                        await stream.send_all(data)
                        await trio.lowlevel.checkpoint()
                case Hang():
                    while await stream.receive_some(65536):
                        pass
