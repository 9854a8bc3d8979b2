"""Simulated data in place of a venue that is out of reach, where the settings ask for it.

An exchange in a box and a feed of its own stand in, over memory streams: the same code, no socket.
What they say is labelled ``simulated``, is shown to subscribers and goes nowhere else: not into the
store, not into history, not into what a client can resume from.  The real feed goes on trying.
"""

import random
from collections.abc import Iterable
from functools import partial
from typing import Never

import structlog
import trio
from attrs import evolve

from .bus.base import Publisher
from .core.effects import News
from .environment import Environment
from .ingest.context import FeedContext
from .ingest.venue import VenueFeed
from .metrics import Metrics
from .model import ChannelMessage, Kline, KlineMessage, Series, StreamKey
from .settings import ConnectionSettings, ExchangeSettings, SimulatorSettings
from .store import MemoryStore
from .venues import make_venue

log = structlog.get_logger()

_HOST, _PORT = "simulated", 80


async def run_fallback(
    feed: VenueFeed,
    *,
    environment: Environment,
    bus: Publisher,
) -> Never:
    """Until cancelled: simulate the venue while ``feed`` has been out of reach for longer than
    ``fallback_after_s``.  ``bus`` shows what is simulated, and keeps nothing of it."""
    venue = log.bind(venue=feed.venue.NAME)
    while True:
        after_s = feed.settings.fallback_after_s
        await feed.pool.carrying.wait_value(0, held_for=after_s)
        venue.warning("fallback.started", after_s=after_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_simulate, feed.venue.NAME, feed.settings, environment, bus)
            await feed.pool.carrying.wait_value(lambda links: links > 0)
            nursery.cancel_scope.cancel()
        venue.warning("fallback.ended")


async def _simulate(
    name: str, exchange: ExchangeSettings, environment: Environment, bus: Publisher
) -> Never:
    # What is never out of reach needs no exchange in a box.
    from .simulator.exchanges import serve_exchange
    from .simulator.machinery.memory_network import MemoryNetwork

    network = MemoryNetwork()
    inside = Environment(network.dial, network.listen, environment.now_ms, random.Random(name))
    box = SimulatorSettings(venue=name, symbols=exchange.symbols)
    url = f"{_HOST}:{_PORT}"
    connection = ConnectionSettings(websocket_url=f"ws://{url}", rest_url=f"http://{url}")
    settings = evolve(exchange, connection=connection, history_bars=0, reconcile=False)
    # Metrics and budgets are not the service's: nothing of this comes from an exchange.
    store = MemoryStore(int(environment.now_ms()))
    context = FeedContext(inside, None, store, _Shown(bus), Metrics(), simulated=True)
    feed = VenueFeed(make_venue(name, settings), settings, context, {})
    async with trio.open_nursery() as nursery:
        listeners = await network.listen(_HOST, _PORT)
        await nursery.start(
            partial(serve_exchange, box, listeners=listeners, now_ms=environment.now_ms)
        )
        await feed.run()
    raise AssertionError("a feed runs until cancelled")


class _Shown:
    """Everything is ephemeral."""

    def __init__(self, bus: Publisher) -> None:
        self._bus = bus

    def open(
        self,
        stream_key: StreamKey,
        history: Iterable[Kline] = (),
        first_ms: int | None = None,
        *,
        sparse: bool = False,
    ) -> None: ...

    def close(self, stream_key: StreamKey) -> None: ...

    def alias(self, native: str, symbol: str) -> None: ...

    def set_waiting(self, venue: str, symbol: str, problem: str) -> None: ...

    def deepen(self, series: Series, first_ms: int) -> None: ...

    def publish(
        self, news: News, *, ephemeral: bool = False
    ) -> KlineMessage | ChannelMessage | None:
        if not ephemeral:
            self._bus.publish(news, ephemeral=True)
        return None
