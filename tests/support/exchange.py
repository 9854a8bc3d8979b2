"""A Binance box over memory streams and virtual time, and a client of it that is not ours."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import h11
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked
from trio_websocket import WebSocketConnection, wrap_client_stream

from trio_feed.settings import SimulatorSettings
from trio_feed.simulator import (
    BinanceExchange,
    Market,
    ResponseFaults,
    binance_exchange,
    serve,
)

from .memory import MemoryNetwork, MemoryStream

START = int(datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp() * 1000)
"""The unix time in ms at the virtual clock's zero."""


def now_ms() -> float:
    return START + trio.current_time() * 1000


@frozen
class Box:
    """A running box and the way to it."""

    network: MemoryNetwork
    exchange: BinanceExchange
    market: Market

    @asynccontextmanager
    async def websocket(self, path: str) -> AsyncIterator[WebSocketConnection]:
        stream = await self.network.dial("box", 443)
        async with trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "box", path, message_queue_size=10_000
            )
            yield websocket
            await websocket.aclose()

    async def get(self, target: str) -> "Answer":
        stream = await self.network.dial("box", 443)
        try:
            return await ask(stream, h11.Connection(h11.CLIENT), target)
        finally:
            await stream.aclose()

    async def ask_json(self, target: str) -> Any:
        answer = await self.get(target)
        assert answer.status == 200, answer
        return answer.json()


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    stream: MemoryStream, http: h11.Connection, target: str, *headers: tuple[str, str]
) -> Answer:
    """One request and its whole answer on an open stream."""
    request = h11.Request(method="GET", target=target, headers=[("Host", "box"), *headers])
    await stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
    status, found, body = 0, {}, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Response | h11.InformationalResponse):
            status, found = event.status_code, {n.decode(): v.decode() for n, v in event.headers}
            if status == 101:
                break
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            break
    return Answer(status, found, body)


@asynccontextmanager
async def open_box(
    *,
    venue: str = "binance_usdm",
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"),
    trades: int = 240,
    push_ms: int = 250,
    book_push_ms: int = 100,
    faults: ResponseFaults | None = None,
) -> AsyncIterator[Box]:
    network = MemoryNetwork()
    market = Market(7, symbols, trades)
    listeners = await network.listen("box", 443)
    settings = SimulatorSettings(venue=venue, kline_push_ms=push_ms, book_push_ms=book_push_ms)
    async with trio.open_nursery() as nursery:
        exchange = binance_exchange(market, now_ms, settings, faults)
        await nursery.start(partial(serve, exchange, listeners=listeners))
        yield Box(network, exchange, market)
        nursery.cancel_scope.cancel()


async def collect(websocket: WebSocketConnection, seconds: float) -> list[Any]:
    """What comes within ``seconds``, decoded."""
    messages = []
    with trio.move_on_after(seconds):
        while True:
            messages.append(json.loads(await websocket.get_message()))
    return messages


async def settled(check: Callable[[], bool], within_s: float = 5) -> None:
    """Wait for a state of the box."""
    with trio.fail_after(within_s):
        while not check():
            await wait_all_tasks_blocked()
            await trio.sleep(0.01)


async def say(websocket: WebSocketConnection, request: object) -> Any:
    """Send one control message (text as it is) and take the reply."""
    await websocket.send_message(request if isinstance(request, str) else json.dumps(request))
    return json.loads(await websocket.get_message())
