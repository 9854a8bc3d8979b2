"""A malicious exchange and a malicious proxy on real sockets: hundreds of generated variants.

Only errors of ours come out, memory stays bounded, the service lives, and a healthy second venue's
client sees no gap.  Everything runs in this process, so the file is cheap.
"""

import gc
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import hostile_peers as hostile
import pytest
import structlog
import trio
import trio_websocket
from attrs import define, field
from hostile_peers import Variant

from trio_feed import service
from trio_feed.environment import real_environment
from trio_feed.errors import NetworkError
from trio_feed.net.budgets import Weights
from trio_feed.net.limits import FrameBudget
from trio_feed.net.proxy import Proxy
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Route
from trio_feed.net.tunnel import open_tunnel
from trio_feed.net.websocket import Deadlines, open_websocket
from trio_feed.settings import ProxySettings, load
from trio_feed.supervise import HelperNursery
from trio_feed.venues.binance.spot import DIALECT

SIDE_BY_SIDE = 25
STEP_S = 0.4
GOOD_STEP_S = 10.0
MOST_GROWTH_MIB = 120
"""The peers, their floods on the way and one unpacked body of 16 MiB after the other included."""
SEED = 11
TARGET = ("exchange.example", 443)


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@define
class Memory:
    start_mib: float = field(factory=rss_mib)
    peak_mib: float = 0.0

    async def watch(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, rss_mib() - self.start_mib)
            await trio.sleep(0.02)


@asynccontextmanager
async def bounded_memory() -> AsyncIterator[None]:
    gc.collect()
    memory = Memory()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.watch)
        yield
        nursery.cancel_scope.cancel()
    assert memory.peak_mib < MOST_GROWTH_MIB


@asynccontextmanager
async def peer(talk: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A server of one variant on a port of its own."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(*hostile.GONE):
            await talk(stream)
        await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with HelperNursery() as nursery:  # what the body raises comes out as it is
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        yield listeners[0].socket.getsockname()[1]


async def after_head(variant: Variant, stream: trio.SocketStream) -> None:
    await hostile.play(variant, stream, await hostile.read_head(stream))


async def at_once(variant: Variant, stream: trio.SocketStream) -> None:
    await stream.receive_some(10)
    await hostile.play(variant, stream)


def direct(step_s: float) -> Route:
    return Route(real_environment().dial, ProxySettings(), None, "", step_s)


async def by_proxy(kind: Any, variant: Variant) -> None:
    talk = at_once if kind == "socks5" else after_head
    step_s = GOOD_STEP_S if variant.good else STEP_S
    async with peer(partial(talk, variant)) as port:
        stream = await open_tunnel(
            *TARGET,
            proxy=Proxy(kind, "127.0.0.1", port),
            dial=real_environment().dial,
            timeout_s=step_s,
        )
        await trio.aclose_forcefully(stream)


async def by_rest(variant: Variant) -> None:
    step_s = GOOD_STEP_S if variant.good else STEP_S
    async with (
        peer(partial(after_head, variant)) as port,
        open_rest(
            f"http://127.0.0.1:{port}",
            route=direct(step_s),
            timeout_s=step_s,
            weights=Weights(1200),
            dialect=DIALECT,
        ) as client,
    ):
        await client.get("/api", {})


async def by_websocket(variant: Variant) -> None:
    deadlines = Deadlines(
        open_s=STEP_S, close_s=0.1, ping_after_s=0.2, pong_s=0.2, silence_s=STEP_S
    )
    async with (
        peer(partial(after_head, variant)) as port,
        open_websocket(
            f"ws://127.0.0.1:{port}/x",
            route=direct(STEP_S),
            deadlines=deadlines,
            max_message_bytes=2**16,
            frames=FrameBudget((1000, 1.0)),
            hints=DIALECT.hints,
            blocking=DIALECT.blocking,
        ) as socket,
    ):
        with trio.move_on_after(STEP_S):
            while True:
                await socket.receive()


async def by_tls(variant: Variant) -> None:
    async with peer(partial(at_once, variant)) as port:
        await direct(STEP_S).open("127.0.0.1", port, tls=True)


ROLES: dict[str, tuple[Callable[[random.Random], list[Variant]], Callable[[Variant], Any]]] = {
    "http proxy": (hostile.proxy_variants, partial(by_proxy, "http")),
    "socks proxy": (hostile.socks_variants, partial(by_proxy, "socks5")),
    "tls": (hostile.tls_variants, by_tls),
    "rest": (hostile.rest_variants, by_rest),
    "websocket": (hostile.websocket_variants, by_websocket),
}


@pytest.mark.parametrize("role", ROLES)
async def test_only_errors_of_ours_come_out(role: str) -> None:
    make, attempt = ROLES[role]
    variants = make(random.Random(SEED))
    assert len(variants) > 60
    refused: list[str] = []
    wrong: list[str] = []
    turns = trio.CapacityLimiter(SIDE_BY_SIDE)

    async def one(variant: Variant) -> None:
        async with turns:
            try:
                await attempt(variant)
            except NetworkError as error:
                refused.append(variant.name)
                if variant.good or not str(error).isprintable() or len(str(error)) > 1000:
                    wrong.append(f"{variant.name}: {error!r}")
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                wrong.append(f"{variant.name}: {error!r}")

    with structlog.testing.capture_logs(), trio.fail_after(60):
        async with bounded_memory(), trio.open_nursery() as nursery:
            for variant in variants:
                nursery.start_soon(one, variant)
    assert wrong == []
    assert len(refused) > len(variants) / 4


# ---------------------------------------------------------------- the whole service


PAUSES = ("rest ban", "rest teapot", "rest weight")
"""After these nothing is asked for a minute, as it should be."""


@define
class Villain:
    """Every proxy of a venue, and the exchange behind them."""

    bait: int
    chance: random.Random
    played: dict[str, int] = field(factory=dict)
    _of_proxy: Any = field(init=False)
    _of_rest: Any = field(init=False)
    _of_websocket: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        def endless(*makers: Callable[[random.Random], list[Variant]]) -> Any:
            made = [variant for make in makers for variant in make(self.chance)]
            found = [v for v in made if v.name not in PAUSES]
            self.chance.shuffle(found)
            return cycle(found)

        self._of_proxy = endless(hostile.proxy_variants)
        self._of_rest = endless(hostile.rest_variants)
        self._of_websocket = endless(hostile.websocket_variants)

    async def talk(self, stream: trio.SocketStream) -> None:
        with suppress(*hostile.GONE):
            request = await hostile.read_head(stream)
            if self.chance.random() < 0.5:
                await self._play("proxy", next(self._of_proxy), stream, request)
            else:
                await stream.send_all(hostile.OK)
                request = await hostile.read_head(stream)
                if b"upgrade" in request.lower():
                    await self._play("websocket", next(self._of_websocket), stream, request)
                else:
                    await self._play("rest", next(self._of_rest), stream, request)
        await trio.aclose_forcefully(stream)

    async def _play(
        self, kind: str, variant: Variant, stream: trio.SocketStream, request: bytes
    ) -> None:
        self.played[kind] = self.played.get(kind, 0) + 1
        steps = tuple(
            step.replace(b"%(bait)d", b"%d" % self.bait) if isinstance(step, bytes) else step
            for step in variant.steps
        )
        await hostile.play(Variant(variant.name, steps), stream, request)


def settings_with(ports: list[int]) -> Any:
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    binance, okx = "exchanges.binance_usdm", "exchanges.okx"
    return load(
        assignments=[
            "service.same_bug_max=0",  # a bug is to be seen
            "server.port=0",
            "store.path=:memory:",
            "simulator.enabled=true",
            "simulator.venue=okx",
            "simulator.symbols=['BTCUSDT']",
            "simulator.trades_per_minute=3000",
            f"{okx}.symbols=['BTCUSDT']",
            f"{okx}.intervals=['1m']",
            f"{okx}.trade_intervals=[]",
            f"{okx}.channels=['kline','trade']",
            f"{okx}.history_bars=5",
            f"{binance}.symbols=['BTCUSDT','ETHUSDT','SOLUSDT']",
            f"{binance}.connection.websocket_url=ws://exchange.example:80",
            f"{binance}.connection.rest_url=http://exchange.example:80",
            f"{binance}.connection.proxies={urls}",
            f"{binance}.connection.egress.cool_down_min_s=0.1",
            f"{binance}.connection.egress.cool_down_max_s=0.1",
            f"{binance}.connection.egress.credentials_cool_down_s=0.1",
            f"{binance}.connection.streams_per_connection=1",
            f"{binance}.connection.tunnel_timeout_s=0.3",
            f"{binance}.connection.open_timeout_s=0.3",
            f"{binance}.connection.rest_timeout_s=0.3",
            f"{binance}.connection.close_timeout_s=0.1",
            f"{binance}.connection.backoff_min_s=0.01",
            f"{binance}.connection.backoff_max_s=0.1",
        ]
    )


async def test_the_service_lives_and_another_venue_notices_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[trio.SocketStream] = []

    async def note(stream: trio.SocketStream) -> None:
        visits.append(stream)

    monkeypatch.setattr("trio_feed.feeds._cache", lambda _settings, name: tmp_path / name)
    listed = {"symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL",
              "baseAsset": "BTC", "quoteAsset": "USDT", "status": "TRADING", "filters": [
                  {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
                  {"filterType": "LOT_SIZE", "stepSize": "0.001"}]}  # fmt: skip
    rows = [{**listed, "symbol": s, "pair": s} for s in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
    copy = {"fetched_ms": 1, "bodies": [json.dumps({"symbols": rows})]}
    (tmp_path / "binance_usdm").write_text(json.dumps(copy))
    with structlog.testing.capture_logs(), trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            baits = await trio.open_tcp_listeners(0, host="127.0.0.1")
            villain = Villain(baits[0].socket.getsockname()[1], random.Random(SEED))
            nursery.start_soon(partial(trio.serve_listeners, note, baits))
            ports = []
            for _ in range(6):
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                nursery.start_soon(partial(trio.serve_listeners, villain.talk, listeners))
                ports.append(listeners[0].socket.getsockname()[1])
            ready = await nursery.start(service.run, settings_with(ports), real_environment())
            url = f"ws://{ready.address}/ws"
            async with bounded_memory(), trio_websocket.open_websocket_url(url) as client:
                ask = {"type": "subscribe", "symbol": "BTCUSDT", "exchange": "okx"}
                await client.send_message(json.dumps({**ask, "channel": "trade"}))
                trades = [await next_trade(client) for _ in range(20)]
                while sum(villain.played.values()) < 200 or villain.played["rest"] < 6:
                    trades.append(await next_trade(client))
            hostile_feed = next(f for f in ready.feeds if f.venue.NAME == "binance_usdm")
            proxies = hostile_feed.status()["proxies"]
            nursery.cancel_scope.cancel()
    ids = [int(trade["data"]["trade_id"]) for trade in trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    offsets = [trade["offset"] for trade in trades]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    assert set(villain.played) == {"proxy", "websocket", "rest"}
    assert min(villain.played.values()) > 5
    assert sum(proxy["failures"] for proxy in proxies) > 50
    assert visits == []  # nobody follows a redirect


async def next_trade(client: trio_websocket.WebSocketConnection) -> dict[str, Any]:
    while True:
        message = json.loads(await client.get_message())
        if message["type"] == "trade_data":
            return dict(message["data"])
