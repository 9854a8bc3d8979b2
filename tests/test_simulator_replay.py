"""Recordings: parsing, and serving them to clients over memory streams."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h11
import pytest
import trio
from support.memory import MemoryNetwork
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, wrap_client_stream

from trio_feed.errors import BadMessage
from trio_feed.simulator import Recording, parse_recording, serve_replay

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures" / "cryptofeed"

COMBINED = """\
wss://fstream.example/stream?streams=a@kline_1m/b@aggTrade <-> 100.5
101.0: {"stream":"a@kline_1m","data":{"n":1}}
103.0: {"stream":"b@aggTrade","data":{"n":2}}
103.25: {"stream":"a@kline_1m","data":{"n":3}}
"""
RAW = """\
wss://fstream.example/ws/a@kline_1m <-> 100.5
101.0: {"n":1}
101.5: {"n":2}
"""
SENT_LATER = """\
wss://ws.example:8443/ws/v5/public <-> 1
wss://ws.example:8443/ws/v5/public <- 1.5: {"op":"subscribe"}
2: b'{"event":"subscribe","text":"\\xc3\\xa9"}'
3.25: {"arg":{"channel":"candle1m"},"data":[["1"]]}
"""


def test_parsing() -> None:
    assert parse_recording(COMBINED) == Recording(
        "wss://fstream.example/stream?streams=a@kline_1m/b@aggTrade",
        [],
        [
            (101.0, '{"stream":"a@kline_1m","data":{"n":1}}'),
            (103.0, '{"stream":"b@aggTrade","data":{"n":2}}'),
            (103.25, '{"stream":"a@kline_1m","data":{"n":3}}'),
        ],
    )
    assert parse_recording(COMBINED).streams == {"a@kline_1m", "b@aggTrade"}
    assert parse_recording(RAW).streams == {"a@kline_1m"}


def test_parsing_of_bytes_and_sent_messages() -> None:
    recording = parse_recording(SENT_LATER)
    assert recording.sent == [(1.5, '{"op":"subscribe"}')]
    assert recording.received[0] == (2.0, '{"event":"subscribe","text":"é"}')
    assert len(recording.received) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no connection line"),
        ("1.0: {}", "no connection line"),
        (COMBINED + "rubbish\n", "line 5"),
        (COMBINED + "105.0\n", "line 5"),
        (COMBINED + "105.0: b'\n", "line 5"),
        (COMBINED + RAW, "line 5"),
    ],
)
def test_what_is_no_recording(text: str, problem: str) -> None:
    with pytest.raises(BadMessage, match=problem):
        parse_recording(text)


@asynccontextmanager
async def serving(text: str, speed: float | None = None) -> AsyncIterator[MemoryNetwork]:
    network = MemoryNetwork()
    listeners = await network.listen("box", 443)
    recording = parse_recording(text)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_replay(
                recording, listeners=listeners, speed=speed, task_status=task_status
            )
        )
        yield network
        nursery.cancel_scope.cancel()


async def play(
    network: MemoryNetwork, path: str, first: str = ""
) -> tuple[list[tuple[float, str]], int]:
    """Connect, read to the end -> (virtual time, text) of each frame, close code."""
    frames: list[tuple[float, str]] = []
    stream = await network.dial("box", 443)
    async with trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "box", path)
        if first:
            await websocket.send_message(first)
        with suppress(ConnectionClosed):
            while True:
                text = await websocket.get_message()
                frames.append((trio.current_time(), text))
    assert websocket.closed is not None
    return frames, websocket.closed.code


def numbers(frames: list[tuple[float, str]]) -> list[int]:
    messages = [json.loads(text) for _, text in frames]
    return [message.get("data", message)["n"] for message in messages]


@pytest.mark.parametrize("base", ["", "/market", "/public"])
async def test_everything_at_once(base: str, autojump_clock: MockClock) -> None:
    async with serving(COMBINED) as network:
        frames, code = await play(network, f"{base}/stream?streams=a@kline_1m/b@aggTrade")
        assert (numbers(frames), code) == ([1, 2, 3], 1000)
        assert frames[-1][0] == 0


async def test_some_streams(autojump_clock: MockClock) -> None:
    """A client that splits its streams over connections gets its own on each."""
    async with serving(COMBINED) as network:
        frames, _ = await play(network, "/market/stream?streams=a@kline_1m")
        assert numbers(frames) == [1, 3]
        assert [text for _, text in frames] == [
            text for _, text in parse_recording(COMBINED).received if "kline" in text
        ]


@pytest.mark.parametrize(("speed", "moments"), [(1.0, [0, 2, 2.25]), (2.0, [0, 1, 1.125])])
async def test_paced(speed: float, moments: list[float], autojump_clock: MockClock) -> None:
    async with serving(COMBINED, speed) as network:
        frames, _ = await play(network, "/stream?streams=a@kline_1m/b@aggTrade")
        assert [at for at, _ in frames] == pytest.approx(moments)


async def test_raw(autojump_clock: MockClock) -> None:
    async with serving(RAW) as network:
        frames, code = await play(network, "/market/ws/a@kline_1m")
        assert (numbers(frames), code) == ([1, 2], 1000)


async def test_it_waits_for_the_subscription(autojump_clock: MockClock) -> None:
    async with serving(SENT_LATER) as network:
        frames, code = await play(network, "/ws/v5/public", first='{"op":"subscribe"}')
        assert (len(frames), code) == (2, 1000)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (COMBINED, "/stream?streams=c@kline_1m"),
        (COMBINED, "/stream?streams=a@kline_1m/c@kline_1m"),
        (COMBINED, "/stream"),
        (COMBINED, "/ws/a@kline_1m"),
        (RAW, "/stream?streams=a@kline_1m"),
        (RAW, "/ws/b@aggTrade"),
        (SENT_LATER, "/ws/v5/business"),
    ],
)
async def test_other_clients_are_refused(text: str, path: str, autojump_clock: MockClock) -> None:
    async with serving(text) as network:
        stream = await network.dial("box", 443)
        http = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", "box"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        request = h11.Request(method="GET", target=path, headers=headers)
        await stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")


async def test_a_client_that_leaves(autojump_clock: MockClock) -> None:
    """It ends its own replay only."""
    async with serving(COMBINED, 0.001) as network:
        stream = await network.dial("box", 443)
        async with trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "box", "/stream?streams=a@kline_1m"
            )
            await websocket.get_message()
            await websocket.aclose()
        frames, _ = await play(network, "/stream?streams=b@aggTrade")
        assert numbers(frames) == [2]


async def test_a_real_recording(autojump_clock: MockClock) -> None:
    """1535 frames of Binance USD-M, 2021-07-22 (counts: exchanges.md section 7)."""
    path = CAPTURES / "BINANCE_FUTURES.ws.1.0"
    if not path.exists():
        pytest.skip(f"the captures are not beside the repository: {path}")
    text = path.read_text()
    recording = parse_recording(text)
    assert len(recording.received) == 1535
    async with serving(text) as network:
        names = [name for name in recording.streams if "@kline" in name]
        frames, _ = await play(network, "/market/stream?streams=" + "/".join(sorted(names)))
        assert len(frames) == 67
        everything, _ = await play(network, "/stream?streams=" + "/".join(recording.streams))
        assert [text for _, text in everything] == [text for _, text in recording.received]
