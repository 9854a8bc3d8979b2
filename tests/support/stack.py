"""The whole service under virtual time: simulator, feeds, store, push server, one client."""

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
import trio_websocket
from attrs import define, field

from trio_feed import service
from trio_feed.environment import Environment
from trio_feed.settings import Settings, SimulatorSettings, load
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.simulator.faults.proxy import FaultProxy

from .memory import MemoryNetwork

START_MS = 1_760_000_000_000
"""2025-10-09T08:53:20Z: not on any boundary."""


def virtual_now_ms() -> float:
    return START_MS + trio.current_time() * 1000


@define
class Stack:
    """Handles to everything that runs."""

    network: MemoryNetwork
    market: Any
    exchange: Any
    ready: service.Ready
    environment: Environment
    fault_proxy: FaultProxy
    """Before the exchange: frames may be dropped and changed there."""


def settings_for_tests(*assignments: str, venue: str = "binance_usdm") -> Settings:
    """One symbol, one interval, no disk, the exchange at ws://exchange:80.

    ``assignments`` that begin with a dot are about the venue's table.
    """
    table = f"exchanges.{venue}"
    return load(
        assignments=[
            "service.same_bug_max=0",  # a bug is to be seen
            "server.host=push",
            "server.port=80",
            "store.path=:memory:",
            "websocket.unused_timeout_s=86400",
            f"{table}.symbols=['BTCUSDT']",
            f"{table}.intervals=['1m']",
            f"{table}.trade_intervals=[]",
            f"{table}.channels=['kline']",
            f"{table}.history_bars=20",
            f"{table}.connection.websocket_url=ws://exchange:80",
            f"{table}.connection.rest_url=http://exchange:80",
            *(table + words if words.startswith(".") else words for words in assignments),
        ]
    )


@asynccontextmanager
async def open_stack(
    settings: Settings,
    *,
    seed: int = 1,
    push_ms: int = 20_000,
    trades_per_minute: int = 6,
    symbols: tuple[str, ...] = ("BTCUSDT",),
    network: MemoryNetwork | None = None,
    now_ms: Callable[[], float] = virtual_now_ms,
) -> AsyncIterator[Stack]:
    """Everything up and running; cancelled on the way out.  ``network`` may have proxies in it,
    ``now_ms`` is the service's calendar, which may be wrong."""
    network = network or MemoryNetwork()
    environment = Environment(network.dial, network.listen, now_ms, random.Random(seed))
    (venue,) = settings.exchanges
    box = SimulatorSettings(
        venue=venue,
        seed=seed,
        symbols=symbols,
        kline_push_ms=push_ms,
        trades_per_minute=trades_per_minute,
    )
    async with trio.open_nursery() as nursery:
        fault_proxy = FaultProxy(nursery, virtual_now_ms, control_frames_per_s=10)
        listeners = [
            fault_proxy.wrap(each, rest=False) for each in await network.listen("exchange", 80)
        ]
        exchange = await nursery.start(
            partial(serve_exchange, box, listeners=listeners, now_ms=virtual_now_ms)
        )
        ready = await nursery.start(service.run, settings, environment)
        yield Stack(network, exchange.market, exchange, ready, environment, fault_proxy)
        nursery.cancel_scope.cancel()


@define
class PushClient:
    """A WebSocket client of the push endpoint; keeps every message it got."""

    connection: trio_websocket.WebSocketConnection
    messages: list[dict[str, Any]] = field(factory=list)
    changed: trio.Event = field(factory=trio.Event)

    async def ask(self, **fields: Any) -> None:
        await self.connection.send_message(json.dumps(fields))

    async def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message, past or coming, that is wanted."""
        seen = 0
        while True:
            for message in self.messages[seen:]:
                if wanted(message):
                    return message
            seen = len(self.messages)
            await self.changed.wait()

    async def of_type(self, kind: str) -> dict[str, Any]:
        return await self.wait_for(lambda message: message["type"] == kind)

    def candles(self, *, final: bool) -> list[dict[str, Any]]:
        """The candles of the kline_data messages so far."""
        rows = [m["data"]["data"] for m in self.messages if m["type"] == "kline_data"]
        return [row for row in rows if row["is_final"] is final]


@asynccontextmanager
async def client_on(stream: trio.abc.Stream, host: str) -> AsyncIterator[PushClient]:
    """A client on a connection of its own, which its server may end."""
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, host, "/ws", message_queue_size=1000
        )
        client = PushClient(connection)

        async def collect() -> None:
            with suppress(trio_websocket.ConnectionClosed):
                while True:
                    client.messages.append(json.loads(await connection.get_message()))
                    client.changed.set()
                    client.changed = trio.Event()

        nursery.start_soon(collect)
        yield client
        nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def push_client(stack: Stack) -> AsyncIterator[PushClient]:
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, f"{host}:{port}", "/ws", message_queue_size=1000
        )
        client = PushClient(connection)

        async def collect() -> None:
            while True:
                client.messages.append(json.loads(await connection.get_message()))
                client.changed.set()
                client.changed = trio.Event()

        nursery.start_soon(collect)
        yield client
        nursery.cancel_scope.cancel()
