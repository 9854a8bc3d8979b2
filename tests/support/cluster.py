"""Several nodes of the whole service around one engine and one database, under virtual time."""

import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field

from trio_feed import service
from trio_feed.bus.engine.base import Engine
from trio_feed.bus.engine.memory import LOST_REQUEST, NO_FAULT, EngineServer, Fault, MemoryEngine
from trio_feed.environment import Environment
from trio_feed.settings import EngineSettings, Settings, SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.store import MemoryDatabase

from .fleet import MemoryFleet
from .memory import MemoryNetwork
from .stack import PushClient, client_on, settings_for_tests, virtual_now_ms

VENUE = "binance_usdm"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
_WRITES = ("append", "take_lease", "renew_leases", "drop_lease", "put_node", "put_value", "trim")


@define(eq=False)
class RunningNode:
    name: str
    scope: trio.CancelScope
    ready: service.Ready
    fault: Fault = NO_FAULT
    is_cut_off: bool = False
    """From the exchange."""
    writes_nothing: bool = False
    """The engine answers its questions, and takes nothing of it."""
    calls: Counter[str] = field(factory=Counter)
    """Of the engine, by name."""
    lets_nobody_in: bool = False
    """The engine serves those connections that it has."""
    lines: list[trio.abc.Stream] = field(factory=list)
    hears_nothing: bool = False
    """Of the exchange, and it does not notice."""
    send_signal: Callable[[int], None] = lambda number: None
    fleet: MemoryFleet | None = None
    """Of its workers: the first serves at ``<name>-1``."""

    def faults(self, call: str) -> Fault:
        self.calls[call] += 1
        if self.lets_nobody_in and call == "try_anew":
            return LOST_REQUEST
        return LOST_REQUEST if self.writes_nothing and call in _WRITES else self.fault


@define(eq=False)
class Ear(trio.abc.ReceiveStream):
    """Of a connection whose other side may fall silent."""

    stream: trio.abc.Stream
    is_deaf: Callable[[], bool]

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        if self.is_deaf():
            await trio.sleep_forever()
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()


@define(eq=False)
class RunningCluster:
    nursery: trio.Nursery
    network: MemoryNetwork
    exchange: Any
    server: EngineServer = field(factory=EngineServer)
    database: MemoryDatabase = field(factory=MemoryDatabase)
    nodes: dict[str, RunningNode] = field(factory=dict)

    async def start(
        self,
        name: str,
        roles: str = "['ingest', 'push']",
        *more: str,
        database: MemoryDatabase | None = None,
        reload: Callable[[], Settings] | None = None,
    ) -> RunningNode:
        """``database``: another one than that of the cluster.  ``reload``: the settings after a
        SIGHUP, which goes to the last node that is started with it."""
        settings = settings_of(name, roles, *more)
        scope, box = trio.CancelScope(), list[RunningNode]()
        terminate = list[Callable[[int], None]]()

        @contextmanager
        def signals(*numbers: int) -> Iterator[AsyncIterator[int]]:
            if signal.SIGTERM not in numbers:  # a test sends that to its process
                with trio.open_signal_receiver(*numbers) as received:
                    yield received
                return
            send, receive = trio.open_memory_channel[int](1)
            terminate.append(send.send_nowait)
            with send, receive:
                yield receive

        async def dial(host: str, port: int) -> trio.abc.Stream:
            if box and box[0].is_cut_off:
                raise OSError("no route to host")
            stream = await self.network.dial(host, port)
            if box:
                box[0].lines.append(stream)
            return trio.StapledStream(stream, Ear(stream, lambda: box[0].hears_nothing))

        environment = Environment(
            dial, self.network.listen, virtual_now_ms, random.Random(name), signals=signals
        )
        fleet = MemoryFleet(self.network, environment)

        @asynccontextmanager
        async def engine(_settings: EngineSettings, _cluster: bytes) -> AsyncIterator[Engine]:
            await trio.lowlevel.checkpoint()
            yield MemoryEngine(
                self.server, 1.0, lambda call: box[0].faults(call) if box else NO_FAULT
            )

        async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
            with scope:
                await service.run(
                    settings,
                    environment,
                    engine=engine,
                    database=database or self.database,
                    fleet=fleet.opened,
                    reload=reload,
                    task_status=task_status,
                )

        ready = await self.nursery.start(run)
        node = self.nodes[name] = RunningNode(name, scope, ready, fleet=fleet)
        node.send_signal = terminate[0]
        box.append(node)
        return node

    def cut_off(self, name: str) -> None:
        """The node cannot reach the exchange any more."""
        node = self.nodes[name]
        node.is_cut_off = True
        for stream in node.lines:
            self.nursery.start_soon(trio.aclose_forcefully, stream)

    def kill(self, name: str) -> None:
        """What it had not written is lost."""
        node = self.nodes.pop(name)
        backend = getattr(node.ready.store, "backend", None)
        if backend is not None:
            backend.kill()
        node.scope.cancel()

    @asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[PushClient]:
        stream = await self.network.dial(name, 80)
        async with client_on(stream, name) as client:
            yield client

    async def get(self, name: str, path: str) -> tuple[int, Any]:
        stream = await self.network.dial(name, 80)
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        )
        data = b""
        with trio.fail_after(30):
            while piece := await stream.receive_some(65536):
                data += piece
        await trio.aclose_forcefully(stream)
        head, _, body = data.partition(b"\r\n\r\n")
        if b"chunked" in head:
            body = b"".join(body.split(b"\r\n")[1::2])
        return int(head.split()[1]), json.loads(body)


def settings_of(name: str, roles: str, *more: str) -> Settings:
    return settings_for_tests(
        f"server.host={name}",
        "engine.kind=valkey",
        "engine.urls=['valkey://engine:6379']",
        "engine.shards=2",
        f"node.name={name}",
        f"node.roles={roles}",
        "store.url=postgresql://database/feed",
        f".symbols={list(SYMBOLS)}",
        ".channels=['kline', 'trade']",
        *more,
        venue=VENUE,
    )


@asynccontextmanager
async def open_cluster(seed: int = 1) -> AsyncIterator[RunningCluster]:
    """An exchange and what nodes share; nodes are started by who asks for them."""
    network = MemoryNetwork()
    box = SimulatorSettings(
        venue=VENUE, seed=seed, symbols=SYMBOLS, kline_push_ms=10_000, trades_per_minute=20
    )
    async with trio.open_nursery() as nursery:
        listeners = await network.listen("exchange", 80)
        exchange: Any = await nursery.start(
            partial(serve_exchange, box, listeners=listeners, now_ms=virtual_now_ms)
        )
        yield RunningCluster(nursery, network, exchange)
        nursery.cancel_scope.cancel()
