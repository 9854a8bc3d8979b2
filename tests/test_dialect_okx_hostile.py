"""Whatever comes to OKX's paths is answered in OKX's form, and harms nobody.  Virtual time."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import trio
from test_app import http
from test_dialect_okx import Stack, arg, client, okx
from test_server import HOSTILE, KEY, UPGRADE, frame, get, head
from trio.testing import MockClock

LIMITS = ("websocket.requests_per_second=100000", "websocket.request_burst=100000")
ODD = (
    "", " ", "0", "-1", "1e400", "9" * 30, "NaN", "null", "true", "[]", "{}", "'", '"', "\\", "\0",
    "../../x", "%00", "\u2028", "\U0001f4a9", "BTC-USDT\n", "btc-usdt", "x" * 3000, "1.5", "٣",
)  # fmt: skip
PATHS = {
    "public/instruments": ("instType", "instId", "uly", "instFamily"),
    "public/mark-price": ("instType", "instId"),
    "public/funding-rate": ("instId",),
    "market/ticker": ("instId",),
    "market/tickers": ("instType",),
    "market/candles": ("instId", "bar", "after", "before", "limit"),
    "market/history-candles": ("limit",),
    "market/trades": ("instId", "limit"),
    "market/history-trades": ("instId", "type", "after", "before", "limit"),
    "market/books": ("instId", "sz"),
}
GOOD = {"instId": "BTC-USDT", "instType": "SPOT", "bar": "1m"}


async def test_odd_parameters(autojump_clock: MockClock) -> None:
    """One is odd, the others are fine: data or OKX's error, never a page or a crash."""
    async with okx(*LIMITS) as stack, http(stack) as asker:
        for path, names in PATHS.items():
            for name in names:
                for odd in ODD:
                    told = GOOD | {name: odd}
                    query = "&".join(f"{key}={quote(value)}" for key, value in told.items())
                    status, _, body = await asker.ask(f"/okx/api/v5/{path}?{query}")
                    answer = json.loads(body)
                    assert status in (200, 400, 503), (path, name, odd, answer)
                    assert set(answer) == {"code", "data", "msg"}
                    assert answer["code"].isdigit()
                    assert (answer["code"] == "0") == (answer["msg"] == "")
                    assert len(answer["msg"]) < 500


def mutated(seed: int) -> bytes:
    """A request that once was a good one."""
    chance = random.Random(seed)
    good: dict[str, Any] = {"op": "subscribe", "args": [arg("trades"), arg("books")], "id": "a1"}
    if chance.random() < 0.5:
        odd: list[Any] = [None, True, -1, 1.5, 10**30, "", "x" * 500, [], {}, [[]], [{}], "\ud800"]
        where = chance.choice(["op", "args", "id", "arg", "channel", "instId"])
        value = chance.choice(odd)
        if where in good:
            good[where] = value
        elif where == "arg":
            good["args"][chance.randrange(2)] = value
        else:
            good["args"][chance.randrange(2)][where] = value
        return json.dumps(good).encode()
    text = bytearray(json.dumps(good).encode())
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(text))
        text[at : at + chance.randrange(4)] = chance.choice(
            [b"", b'"', b"{", b"[", b"\\", b"9" * 9]
        )
    return bytes(text)


async def test_requests_that_were_good_once(autojump_clock: MockClock) -> None:
    """Each is answered, with an acknowledgement or an error of OKX's form."""
    async with okx(*LIMITS) as stack, client(stack) as bot:
        for seed in range(400):
            await bot.wire.send(mutated(seed).decode())
            answer = await bot.answer()
            assert answer["event"] in ("subscribe", "unsubscribe", "error"), answer
            if answer["event"] == "error":
                assert answer["code"] in ("60011", "60012", "60013", "60018", "60019"), answer
                assert len(answer["msg"]) < 1000
        await bot.op("unsubscribe", arg("trades"), arg("books"), id="last")
        while (await bot.answer()).get("id") != "last":
            pass


@asynccontextmanager
async def upgraded(stack: Stack) -> AsyncIterator[Any]:
    """A client that writes its frames by itself."""
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    request = get(UPGRADE, KEY, path=b"/okx/ws/v5/public").replace(b"Host: x", b"Host: push")
    await stream.send_all(request)
    assert (await head(stream)).startswith(b"HTTP/1.1 101")
    yield stream
    await stream.aclose()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"\xff\xfe"), 1007),
        (frame(b"{" * 65_000), None),  # answered, and the connection lives
        (frame(b"x", final=False) + frame(b"x" * 65_000, 0, final=False) * 20, 1009),
        (frame(b"x", 3), 1002),
        (frame(b"x" * 126, 9), 1002),
        (frame((1000).to_bytes(2), 8) + b"\xff" * 1000, 1000),
    ],
    ids=["no text", "deep", "endless", "no opcode", "long ping", "after close"],
)
async def test_odd_frames(data: bytes, code: int | None, autojump_clock: MockClock) -> None:
    async with okx(".channels=['kline']") as stack:
        async with upgraded(stack) as stream:
            with trio.move_on_after(5):
                await stream.send_all(data)
            received = b""
            with trio.move_on_after(5):
                while more := await stream.receive_some():
                    received += more
            if code is None:
                assert b'"code":"60012"' in received
            else:
                assert received[:1] == b"\x88"
                assert int.from_bytes(received[2:4]) == code
        async with client(stack) as bot:  # others are served
            await bot.op("subscribe", arg("candle1m"))
            assert (await bot.answer())["event"] == "subscribe"


async def test_malformed_handshakes(autojump_clock: MockClock) -> None:
    async with okx(".channels=['kline']") as stack:
        host, _, port = stack.ready.address.rpartition(":")
        for name, (request, status) in HOSTILE.items():
            path = b"GET /okx/ws/v5/public "
            request = request.replace(b"Host: x", b"Host: push").replace(b"GET / ", path)
            stream = await stack.network.dial(host, int(port))
            with trio.move_on_after(30):
                await stream.send_all(request)
            with trio.move_on_after(30):
                answer = await head(stream)
            # Where the corpus has a page, here is none: no upgrade is asked for.
            wanted = b"404" if status == b"200" else status
            assert answer[9:12] == wanted, (name, answer[:60])
            await stream.aclose()
        async with client(stack) as bot:
            await bot.op("subscribe", arg("candle1m"))
            assert (await bot.answer())["event"] == "subscribe"
