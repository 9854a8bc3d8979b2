"""The nursery tree and nothing else.

The store is opened first and closed last.  The edge (push server, store writer, sweeper) outlives
the feeds; a signal ends the feeds, then clients are told to come back, then the edge ends.
"""

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Never

import structlog
import trio
from attrs import evolve, frozen

from . import __version__
from .errors import SettingsError, StartError
from .feeds.pipeline import EVERY
from .feeds.venue import VenueFeed
from .metrics import Metrics
from .model import Channel
from .push.app import PushApp
from .push.hub import Hub
from .push.server import ServerLimits, bound_address, serve
from .push.session import SessionLimits
from .settings import ExchangeSettings, Settings
from .simulator.boxes import VENUES as BOXED
from .simulator.boxes import serve_box, spinpet_market
from .store import MEMORY, KlineStore, open_store
from .venues import NAMES, Kind, make_venue
from .world import World

log = structlog.get_logger()

SWEEP_S = 30.0
_FAREWELL_S = 1.0
_CLIENT_RETURN_MS = (500, 5_000)
"""Clients are told to come back after a time between these two, so that not all come at once."""
_SHUTDOWN_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@frozen
class Ready:
    """What a caller needs once the service runs.  ``address`` is host:port of the endpoint."""

    address: str
    store: KlineStore
    app: PushApp
    feeds: Sequence[VenueFeed]


def complete(settings: Settings) -> Settings:
    """The settings with what a simulator brings along by itself: Spin Pet's program id."""
    box = settings.simulator
    exchange = settings.exchanges.get(box.venue)
    if not box.enabled or box.venue != "spinpet" or exchange is None:
        return settings
    solana = evolve(exchange.solana, program_id=spinpet_market(box).program_id)
    return evolve(
        settings, exchanges={**settings.exchanges, box.venue: evolve(exchange, solana=solana)}
    )


def check(settings: Settings) -> None:
    """What can be wrong with settings beyond their form.  Raises SettingsError."""
    enabled = [name for name, exchange in settings.exchanges.items() if exchange.enabled]
    for name in enabled:
        _check_exchange(name, settings.exchanges[name])
    if not enabled:
        raise SettingsError("exchanges", f"none is enabled; one of {', '.join(NAMES)}")
    possible = [name for name in enabled if name in BOXED]
    if settings.simulator.enabled and settings.simulator.venue not in possible:
        raise SettingsError("simulator.venue", f"one of the enabled: {_list(possible)}")
    default = settings.service.default_venue
    if default and default not in enabled:
        raise SettingsError("service.default_venue", f"one of {', '.join(enabled)}")


def _check_exchange(name: str, exchange: ExchangeSettings) -> None:
    """What is asked of a venue is something that it has."""
    venue, key = make_venue(name, exchange), f"exchanges.{name}"
    if unknown := set(exchange.intervals) - venue.INTERVALS:
        raise SettingsError(f"{key}.intervals", f"{name} has no {_list(unknown)} candles")
    if Channel.BOOK in exchange.channels and venue.BOOK_RULE is None:
        raise SettingsError(f"{key}.channels", f"{name} has no order books")
    if Channel.TICKER in exchange.channels and Kind.TICKER not in venue.KINDS:
        raise SettingsError(f"{key}.channels", f"{name} has no tickers")
    if EVERY in exchange.symbols and venue.LISTED:
        raise SettingsError(f"{key}.symbols", f"{name} has a list; name the symbols of it")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


async def run(
    settings: Settings,
    world: World,
    *,
    environ: Mapping[str, str] | None = None,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until a signal or cancellation.  Raises SettingsError and StartError before it is up;
    whatever comes out later is a bug.  ``environ`` is where proxy variables are read, if at all."""
    settings = complete(settings)
    check(settings)
    metrics = Metrics()
    simulated = settings.simulator.enabled
    async with (
        open_store(
            settings.store, simulated=simulated, now_ms=world.now_ms(), metrics=metrics
        ) as store,
        trio.open_nursery() as edge,
    ):
        edge.start_soon(store.run, name="store writer")
        hub = _make_hub(settings, world, metrics)
        async with trio.open_nursery() as feeds:
            timeout_s = settings.service.shutdown_timeout_s
            edge.start_soon(_end_on_signal, edge.cancel_scope, feeds.cancel_scope, timeout_s)
            exchanges = dict(settings.exchanges)
            if simulated:
                name = settings.simulator.venue
                exchanges[name] = await _start_simulator(feeds, settings, world, exchanges[name])
            venue_feeds = await _make_feeds(
                exchanges, settings, world, environ, store, hub, metrics
            )
            app = _make_app(settings, world, store, hub, venue_feeds, metrics)
            address = await _start_server(edge, app, settings, world)
            edge.start_soon(_sweep, app, settings, name="client sweeper")
            for feed in venue_feeds:
                feeds.start_soon(feed.run, name=f"feed {feed.venue.NAME}")
            urls = {"websocket": f"ws://{address}/ws", "http": f"http://{address}"}
            log.info("service.ready", urls=urls, venues=list(exchanges), simulated=simulated)
            task_status.started(Ready(address, store, app, venue_feeds))
        app.farewell(partial(world.random.randint, *_CLIENT_RETURN_MS))
        with trio.move_on_after(_FAREWELL_S):
            await app.wait_empty()
        edge.cancel_scope.cancel()
    log.info("service.stopped")


async def _end_on_signal(
    edge: trio.CancelScope, feeds: trio.CancelScope, shutdown_timeout_s: float
) -> None:
    """First signal: the feeds end and everything else follows in time.  Second: at once."""
    with trio.open_signal_receiver(*_SHUTDOWN_SIGNALS) as signals:
        async for number in signals:
            if feeds.cancel_called:
                os._exit(128 + number)
            log.info("service.stopping", signal=signal.Signals(number).name)
            edge.deadline = trio.current_time() + shutdown_timeout_s
            feeds.cancel()


async def _start_simulator(
    nursery: trio.Nursery, settings: Settings, world: World, exchange: ExchangeSettings
) -> ExchangeSettings:
    """Start the exchange in a box; returns the exchange's settings with its addresses."""
    box = settings.simulator
    listeners = await _bind(world, box.host, box.port, "simulator.port")
    serve = partial(serve_box, box, listeners=listeners, now_ms=world.now_ms)
    await nursery.start(serve, name="simulator")
    address = bound_address(listeners[0])
    connection = evolve(
        exchange.connection, websocket_url=f"ws://{address}", rest_url=f"http://{address}"
    )
    log.info("simulator.ready", venue=box.venue, address=address, seed=box.seed)
    return evolve(exchange, connection=connection)


def _make_hub(settings: Settings, world: World, metrics: Metrics) -> Hub:
    enabled = [name for name, exchange in settings.exchanges.items() if exchange.enabled]
    return Hub(
        history_rows=settings.kline.history_data_limit,
        default_venue=settings.service.default_venue or enabled[0],
        now_ms=world.now_ms,
        metrics=metrics,
    )


async def _make_feeds(
    exchanges: Mapping[str, ExchangeSettings],
    settings: Settings,
    world: World,
    environ: Mapping[str, str] | None,
    store: KlineStore,
    hub: Hub,
    metrics: Metrics,
) -> list[VenueFeed]:
    """One feed per enabled venue, continuing where the store ends; its series are the topics."""
    tails = await store.tails()
    box = settings.simulator
    feeds = []
    for name, exchange in exchanges.items():
        if not exchange.enabled:
            continue
        feed = VenueFeed(
            make_venue(name, exchange),
            exchange,
            world=world,
            environ=environ if settings.proxy.from_env else None,
            tails=tails,
            store=store,
            publish=hub.publish,
            announce=hub.open_topic,
            name=hub.name,
            simulated=box.enabled and box.venue == name,
            metrics=metrics,
            cache=_cache(settings, name),
        )
        for series in feed.pipeline.ledgers:
            history = await store.history(series, limit=settings.kline.history_data_limit)
            hub.open_topic(series, history, await store.first_open(series))
        feeds.append(feed)
    return feeds


def _cache(settings: Settings, venue: str) -> Path | None:
    """The instrument table's copy lies beside the store."""
    if settings.store.path == MEMORY:
        return None
    return Path(settings.store.path).with_suffix(f".{venue}.instruments.json")


def _make_app(
    settings: Settings,
    world: World,
    store: KlineStore,
    hub: Hub,
    feeds: Sequence[VenueFeed],
    metrics: Metrics,
) -> PushApp:
    kline = settings.kline
    fresh_s = settings.service.ready_after_s

    def status() -> dict[str, Any]:
        return {
            "version": __version__,
            "epoch": store.epoch,
            "store_pending_rows": store.pending(),
            "venues": {feed.venue.NAME: feed.status() for feed in feeds},
        }

    def not_ready() -> str:
        return next((why for feed in feeds if (why := feed.not_ready(fresh_s))), "")

    return PushApp(
        hub=hub,
        store=store,
        limits=SessionLimits(
            max_subscriptions=kline.max_subscriptions_per_client,
            history_rows=kline.history_data_limit,
            max_queued=kline.broadcast_buffer_size,
        ),
        now_ms=world.now_ms,
        metrics=metrics,
        status=status,
        not_ready=not_ready,
        klines=kline.enable_kline_service,
    )


async def _start_server(
    nursery: trio.Nursery, app: PushApp, settings: Settings, world: World
) -> str:
    """Bind and serve; returns host:port.  Raises StartError where the port is taken."""
    websocket = settings.websocket
    listeners = await _bind(world, settings.server.host, settings.server.port, "server.port")
    # The sweep finds silent clients; the server's own limit stands just behind it.
    limits = ServerLimits(
        max_connections=websocket.max_connections,
        max_message_bytes=websocket.max_message_bytes,
        ping_interval_s=websocket.ping_interval / 1000,
        receive_timeout_s=(websocket.ping_interval + websocket.ping_timeout) / 1000 + SWEEP_S,
        send_timeout_s=websocket.send_timeout_s,
    )
    await nursery.start(
        partial(serve, app.asgi(), listeners=listeners, limits=limits), name="push server"
    )
    return bound_address(listeners[0])


async def _bind(
    world: World, host: str, port: int, key: str
) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
    try:
        return await world.listen(host, port)
    except OSError as error:
        raise StartError(f"{key}: cannot listen on {host}:{port}: {error}") from None


async def _sweep(app: PushApp, settings: Settings) -> Never:
    """Drop clients that have gone without a word."""
    websocket = settings.websocket
    pong_s = (websocket.ping_interval + websocket.ping_timeout) / 1000
    while True:
        await trio.sleep(SWEEP_S)
        app.sweep(min(settings.kline.connection_timeout, pong_s))
