"""OKX's box for tests: over memory streams and virtual time, or on sockets in a thread."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import h11
import pytest
import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from trio_feed.settings import SimulatorSettings
from trio_feed.simulator import Market, OkxExchange, ResponseFaults, okx_exchange, serve

from .box import RunningBox, real_now_ms, running_box
from .memory import MemoryNetwork, MemoryStream

START = int(datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp() * 1000)
"""The unix time in ms at the virtual clock's zero."""
PUBLIC, BUSINESS, PRIVATE = "/ws/v5/public", "/ws/v5/business", "/ws/v5/private"


def now_ms() -> float:
    return START + trio.current_time() * 1000


@frozen
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@frozen
class OkxBox:
    """A running box and the way to it."""

    network: MemoryNetwork
    exchange: OkxExchange
    market: Market

    @asynccontextmanager
    async def websocket(self, path: str, *channels: str) -> AsyncIterator[WebSocketConnection]:
        """Open, subscribed to ``candle1m:BTC-USDT`` and the like, acknowledgements read."""
        stream = await self.network.dial("box", 443)
        async with trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "box", path, message_queue_size=10_000
            )
            if channels:
                await websocket.send_message(subscribe(*channels))
            yield websocket
            await websocket.aclose()

    async def get(self, target: str, *headers: tuple[str, str]) -> Answer:
        stream = await self.network.dial("box", 443)
        try:
            return await _ask(stream, target, *headers)
        finally:
            await stream.aclose()

    async def data(self, target: str) -> Any:
        """The data of a good answer."""
        answer = await self.get(f"/api/v5/{target}")
        assert answer.status == 200, answer
        told = answer.json()
        assert list(told) == ["code", "msg", "data"]
        assert (told["code"], told["msg"]) == ("0", ""), told
        return told["data"]

    async def knock(self, path: str) -> int:
        """The HTTP status of a WebSocket upgrade."""
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
        keys = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
        return (await self.get(path, *upgrade, *keys)).status


async def _ask(stream: MemoryStream, target: str, *headers: tuple[str, str]) -> Answer:
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target=target, headers=[("Host", "box"), *headers])
    await stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
    status, body = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Response | h11.InformationalResponse):
            status = event.status_code
            if status == 101:
                return Answer(status, body)
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return Answer(status, body)


@asynccontextmanager
async def open_okx(
    *,
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
    trades: int = 240,
    push_ms: int = 250,
    faults: ResponseFaults | None = None,
) -> AsyncIterator[OkxBox]:
    """A box over memory streams; use it under ``autojump_clock``."""
    network = MemoryNetwork()
    market = Market(7, symbols, trades)
    settings = SimulatorSettings(kline_push_ms=push_ms)
    exchange = okx_exchange(market, now_ms, settings, faults)
    listeners = await network.listen("box", 443)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, exchange, listeners=listeners))
        yield OkxBox(network, exchange, market)
        nursery.cancel_scope.cancel()


@contextmanager
def running_okx(trades: int = 600) -> Iterator[RunningBox]:
    """A box on loopback and the real clock, in a thread."""
    market = Market(7, ("BTCUSDT", "ETHUSDT", "SOLUSDT"), trades)
    with running_box(partial(serve, okx_exchange(market, real_now_ms, SimulatorSettings()))) as box:
        yield box


def request(op: str, *channels: str, **more: str) -> str:
    """A control message about ``candle1m:BTC-USDT`` and the like."""
    pairs = (channel.split(":") for channel in channels)
    args = [{"channel": name, "instId": inst_id} for name, inst_id in pairs]
    return json.dumps({**more, "op": op, "args": args})


def subscribe(*channels: str) -> str:
    return request("subscribe", *channels)


async def collect(websocket: WebSocketConnection, seconds: float) -> list[Any]:
    """What comes within ``seconds``, decoded; pongs are left out."""
    messages = []
    with trio.move_on_after(seconds):
        while True:
            text = await websocket.get_message()
            if text != "pong":
                messages.append(json.loads(text))
    return messages


async def listen(websocket: WebSocketConnection, seconds: float) -> list[Any]:
    """Data messages of ``seconds``, kept alive by a ping every 20 s."""
    messages: list[Any] = []
    end = trio.current_time() + seconds
    while (left := end - trio.current_time()) > 0:
        messages += await collect(websocket, min(20, left))
        await websocket.send_message("ping")
    return [message for message in messages if "data" in message]


async def closed_with(websocket: WebSocketConnection) -> tuple[int, str | None]:
    """Read until the other side closes -> code and reason."""

    async def read() -> None:
        while True:
            await websocket.get_message()

    with pytest.raises(ConnectionClosed) as caught:
        await read()
    assert caught.value.reason is not None
    return caught.value.reason.code, caught.value.reason.reason
