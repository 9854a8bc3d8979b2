"""What a hostile client can do to a port: one function each.  They return what they saw.

Every attack is bounded in time and in number, and closes what it opened.
"""

import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from test_server import HOSTILE, KEY, UPGRADE, frame, head

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
TEXT, CONTINUATION, CLOSE, PING = 1, 0, 8, 9
RSV1 = 0x40
_APART_S = 0.005

Seen = Counter[Any]


def get(*headers: bytes, path: bytes = b"/ws") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + b"".join(headers) + b"\r\n"


@asynccontextmanager
async def dialled(port: int) -> AsyncIterator[trio.SocketStream]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def upgraded(
    port: int, *headers: bytes, path: bytes = b"/ws"
) -> AsyncIterator[trio.SocketStream]:
    async with dialled(port) as stream:
        await stream.send_all(get(UPGRADE, KEY, *headers, path=path))
        answer = await head(stream)
        assert answer.startswith(b"HTTP/1.1 101 "), answer[:100]
        yield stream


async def send(stream: trio.SocketStream, data: bytes) -> bool:
    """False: the server has closed."""
    try:
        await stream.send_all(data)
    except GONE:
        return False
    return True


async def ending(stream: trio.SocketStream) -> tuple[Counter[Any], int | None]:
    """Read to the end: (how often each kind or error code came, the close code)."""
    data = b""
    with suppress(*GONE):
        while more := await stream.receive_some():
            data += more
    return _told(data)


def _told(data: bytes) -> tuple[Counter[Any], int | None]:
    seen: Counter[Any] = Counter()
    while len(data) >= 2:
        compressed, opcode = data[0] & 0x40, data[0] & 0x0F
        size, at = data[1] & 0x7F, 2
        if size >= 126:
            extra = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2 : 2 + extra]), 2 + extra
        payload, data = data[at : at + size], data[at + size :]
        if opcode == CLOSE:
            return seen, int.from_bytes(payload[:2])
        if opcode == TEXT and len(payload) == size:
            if compressed:
                payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
            message = json.loads(payload)
            if "type" in message:
                seen[message.get("code", message["type"])] += 1
            elif "error" in message:  # of a dialect
                seen["error", message["error"]["code"]] += 1
    return seen, None


async def many(count: int, attack: Callable[[], Awaitable[Any]]) -> Seen:
    """``count`` of them side by side, begun as far apart as a network would have it."""
    seen: Seen = Counter()

    async def one() -> None:
        seen[await attack()] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
            await trio.sleep(_APART_S)
    return seen


async def malformed_handshakes(port: int) -> Seen:
    seen: Seen = Counter()
    for name, (request, status) in HOSTILE.items():
        request = request.replace(b"Host: x", b"Host: localhost").replace(b"GET / ", b"GET /ws ")
        async with dialled(port) as stream:
            await send(stream, request)
            answer = b""
            with suppress(*GONE):
                answer = await head(stream)
            # Where the corpus has a page, we have /ws: what is no upgrade is told so.
            wanted = b"426" if status == b"200" else status
            same = answer[9:12] == wanted or (name.startswith("endless") and not answer)
            seen["as expected" if same else (name, answer[:20])] += 1
    return seen


async def slow_heads(port: int) -> Seen:
    async def one() -> str:
        async with dialled(port) as stream:
            for byte in get(UPGRADE, KEY, b"X: " + b"x" * 1000 + b"\r\n"):
                if not await send(stream, bytes([byte])):
                    return "dropped"
                await trio.sleep(0.1)
        return "served"

    return await many(200, one)


async def half_open(port: int) -> Seen:
    """They connect, or stop in the middle of a frame, and are never heard of again."""

    async def silent() -> str:
        async with dialled(port) as stream:
            return "dropped" if not await head(stream) else "answered"

    async def torn() -> str:
        async with upgraded(port) as stream:
            await send(stream, frame(b"half of this")[:9])
            await trio.sleep(2)
        return "torn"

    return await many(100, silent) + await many(100, torn)


async def data_after_close(port: int) -> Seen:
    async def one() -> Any:
        async with upgraded(port) as stream:
            await send(stream, frame((1000).to_bytes(2), CLOSE))
            for _ in range(100):
                if not await send(stream, b"\xff" * 60_000):
                    break
            return (await ending(stream))[1]

    return await many(20, one)


async def fragmented_flood(port: int) -> Seen:
    async def one() -> Any:
        async with upgraded(port) as stream:
            await send(stream, frame(b"{", final=False))
            while await send(stream, frame(b" ", CONTINUATION, final=False) * 500):
                pass
            return (await ending(stream))[1] or "reset"

    return await many(10, one)


async def ping_flood(port: int) -> Seen:
    async def one() -> Any:
        async with upgraded(port) as stream, trio.open_nursery() as nursery:

            async def flood() -> None:
                while await send(stream, frame(b"x" * 100, PING) * 200):
                    pass

            nursery.start_soon(flood)
            code = (await ending(stream))[1]
            nursery.cancel_scope.cancel()
        return code or "reset"

    return await many(10, one)


async def zip_bombs(port: int) -> Seen:
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(bytes(60_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 65_000  # one frame is enough

    async def one() -> Any:
        async with upgraded(port, DEFLATE) as stream:
            await send(stream, frame(bomb, RSV1 | TEXT))
            return (await ending(stream))[1]

    return await many(50, one)


async def deep_json(port: int) -> Seen:
    async def one() -> Any:
        async with upgraded(port) as stream:
            for _ in range(50):
                await send(stream, frame(b'{"a":' * 10_000))
            await send(stream, frame((1000).to_bytes(2), CLOSE))
            return frozenset((await ending(stream))[0])

    return await many(4, one)


async def subscription_bombs(port: int) -> Seen:
    seen: Seen = Counter()
    intervals = ["1s", "30s", "1m", "5m", "30m", "1h", "4h", "1d", "1w"]

    async def one() -> Any:
        async with upgraded(port) as stream, trio.open_nursery() as nursery:

            async def ask() -> None:
                for number in range(5000):
                    words = {
                        "type": "subscribe",
                        "symbol": ("BTCUSDT", "ETHUSDT", f"NO{number}")[number % 3],
                        "interval": intervals[number % 9],
                        "subscription_id": "x" * 128,
                        "limit": 1,
                    }
                    if not await send(stream, frame(json.dumps(words).encode())):
                        return

            nursery.start_soon(ask)
            told, code = await ending(stream)
            nursery.cancel_scope.cancel()
        seen.update({what: 1 for what in told if isinstance(what, int)})
        return code or "reset"

    return seen + await many(4, one)


async def dialect_bombs(port: int) -> Seen:
    """Requests of Binance's dialect, right and wrong, faster than anybody may send them."""
    seen: Seen = Counter()
    names = ["btcusdt@aggTrade", "!ticker@arr", "no@trade", "", "x" * 500]
    methods = ["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "nothing"]

    async def one() -> Any:
        path = b"/binance_usdm/stream?streams=" + b"btcusdt@kline_1m/" * 300
        async with upgraded(port, path=path) as stream, trio.open_nursery() as nursery:

            async def ask() -> None:
                for number in range(5000):
                    words = {
                        "method": methods[number % 5],
                        "params": names[: number % 6],
                        "id": number if number % 7 else {"a": 1},
                    }
                    text = json.dumps(words).encode() if number % 11 else b"[" * 3000
                    if not await send(stream, frame(text)):
                        return

            nursery.start_soon(ask)
            told, code = await ending(stream)
            nursery.cancel_scope.cancel()
        seen.update({what: 1 for what in told if isinstance(what, tuple)})
        return code or "reset"

    return seen + await many(4, one)


async def dialect_questions(port: int) -> Seen:
    """Questions of the dialects' REST, hundreds on one connection: statuses."""
    seen: Seen = Counter()
    targets = [
        b"/binance_usdm/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1500",
        b"/binance_usdm/fapi/v1/klines?symbol=%FF&interval=" + b"9" * 4000,
        b"/binance_usdm/fapi/v1/depth?symbol=BTCUSDT&limit=" + b"9" * 30,
        b"/binance_usdm/fapi/v1/ticker/24hr?symbols=" + b"%5B" * 2000,
        b"/binance_usdm/fapi/v1/order?signature=x",
        b"/udf/history?symbol=BTCUSDT&resolution=1&from=0&to=99999999999&countback=99999999999",
        b"/udf/quotes?symbols=" + b"BTCUSDT," * 1000,
    ]

    async def one() -> Any:
        data = bytearray()
        async with dialled(port) as stream, trio.open_nursery() as nursery:

            async def ask() -> None:
                for number in range(100):
                    close = [b"Connection: close\r\n"] if number == 99 else []
                    path = targets[number % len(targets)]
                    if not await send(stream, get(*close, path=path)):
                        return

            nursery.start_soon(ask)
            with suppress(*GONE), trio.move_on_after(30):
                while more := await stream.receive_some():
                    data += more
            nursery.cancel_scope.cancel()
        for status in bytes(data).split(b"HTTP/1.1 ")[1:]:
            seen[status[:3]] += 1
        return "answered"

    return await many(4, one) + seen


async def connects(port: int, per_s: int = 1000, seconds: int = 3) -> Seen:
    """A thousand connections a second: every second one asks for an upgrade and is gone."""
    seen: Seen = Counter()

    async def one(number: int) -> None:
        try:
            async with dialled(port) as stream:
                if number % 2:
                    await stream.send_all(get(UPGRADE, KEY))
                    seen[(await head(stream))[9:12]] += 1
                else:
                    seen["connected"] += 1
        except GONE:
            seen["failed"] += 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(per_s * seconds):
            nursery.start_soon(one, number)
            await trio.sleep_until(began + (number + 1) / per_s)
    seen["seconds"] = round(trio.current_time() - began)
    return seen


ATTACKS: list[Callable[[int], Awaitable[Seen]]] = [
    malformed_handshakes,
    slow_heads,
    half_open,
    data_after_close,
    fragmented_flood,
    ping_flood,
    zip_bombs,
    deep_json,
    subscription_bombs,
    dialect_bombs,
    dialect_questions,
    connects,
]
