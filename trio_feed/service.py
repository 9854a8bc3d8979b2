"""The nursery tree and nothing else.

The store is opened first and closed last.  The edge (push server, store writer, sweeper) outlives
the feeds; a signal ends the feeds, then clients are told to come back, then the edge ends.
"""

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Never

import structlog
import trio
from attrs import evolve, frozen

from . import __version__
from .bus.local import LocalBus
from .clocks import make_clock_monitor, run_clock_monitor
from .core.channels import kinds_of
from .core.clock_monitor import ClockMonitor
from .environment import Environment
from .errors import SettingsError, StartError
from .ingest.driver import EVERY
from .ingest.venue import VenueFeed
from .metrics import Metrics
from .model import Channel
from .push.app import PushApp
from .push.edge.configuration import (
    admin_limits,
    admin_rules,
    admission_rules,
    check_server,
    request_limits,
    server_limits,
    tls_context,
)
from .push.edge.server import serve
from .push.edge.stream import bound_address
from .push.edge.tls import with_tls
from .push.fanout.hub import Hub
from .push.fanout.sender import CLOSE_TIMEOUT_S, ClientTimeouts
from .push.private.auth import Authenticator
from .push.private.events import PrivateFeed
from .push.private.session import PrivateAccess
from .push.private.settlement_endpoint import SettlementEndpoint
from .push.session import SessionLimits
from .roster import Roster, Surroundings
from .settings import ExchangeSettings, Settings
from .simulator.boxes import VENUES as BOXED
from .simulator.boxes import serve_box, spinpet_market
from .store import MEMORY, Journal, KlineStore, StoreStatistics, open_journal, open_store
from .venues import NAMES, make_venue

log = structlog.get_logger()

_UNSWEPT_S = 30.0
"""The server's own limit for a silent client stands so far behind the sweep's."""
_FAREWELL_S = 1.0
_BURST = 32
"""Trades of a minute's outage come back within moments: 8 MiB at most by default."""
_CLIENT_RETURN_MS = (500, 5_000)
"""Clients are told to come back after a time between these two, so that not all come at once."""
_SHUTDOWN_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@frozen
class Ready:
    """What a caller needs once the service runs.  ``address`` is host:port of the endpoint,
    ``admin_address`` the same unless there is a bind of its own for metrics and status."""

    address: str
    admin_address: str
    store: KlineStore
    app: PushApp
    bus: LocalBus
    roster: Roster

    @property
    def feeds(self) -> Sequence[VenueFeed]:
        return self.roster.feeds


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
    Authenticator(settings.auth)  # reads key files
    default = settings.service.default_venue
    if default and default not in enabled:
        raise SettingsError("service.default_venue", f"one of {', '.join(enabled)}")
    check_server(settings.server)


def _check_exchange(name: str, exchange: ExchangeSettings) -> None:
    """What is asked of a venue is something that it has."""
    venue, key = make_venue(name, exchange), f"exchanges.{name}"
    if unknown := set(exchange.intervals) - venue.INTERVALS:
        raise SettingsError(f"{key}.intervals", f"{name} has no {_list(unknown)} candles")
    for channel in exchange.channels:
        if channel is not Channel.KLINE and not kinds_of(channel, venue.KINDS, venue.TRADE_KIND):
            raise SettingsError(f"{key}.channels", f"{name} has no {channel.replace('_', ' ')}s")
    if exchange.fallback == "simulated" and not (name in BOXED and venue.LISTED):
        raise SettingsError(f"{key}.fallback", "there is no simulation of what it sends")
    if EVERY in exchange.symbols and venue.LISTED:
        raise SettingsError(f"{key}.symbols", f"{name} has a list; name the symbols of it")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


async def run(
    settings: Settings,
    world: Environment,
    *,
    environ: Mapping[str, str] | None = None,
    reload: Callable[[], Settings] | None = None,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until a signal or cancellation.  Raises SettingsError and StartError before it is up;
    whatever comes out later is a bug.  ``environ`` is where proxy variables are read, if at all.
    ``reload`` reads the settings anew (blocking) when a SIGHUP asks for it."""
    settings = complete(settings)
    check(settings)
    metrics = Metrics()
    simulated = settings.simulator.enabled
    async with (
        open_store(
            settings.store, simulated=simulated, now_ms=world.now_ms(), metrics=metrics
        ) as store,
        open_journal(
            settings.settlement, journal_path(settings), now_ms=world.now_ms, metrics=metrics
        ) as journal,
        trio.open_nursery() as edge,
    ):
        edge.start_soon(store.run, name="store writer")
        bus = _make_bus(settings, store.epoch, world)
        hub = _make_hub(bus, settings, world, metrics)
        edge.start_soon(hub.run, name="write coalescer")
        async with trio.open_nursery() as feeds:
            timeout_s = settings.service.shutdown_timeout_s
            edge.start_soon(_end_on_signal, edge.cancel_scope, feeds.cancel_scope, timeout_s)
            around = Surroundings(world, environ, store, bus, metrics)
            if simulated:
                box = await _start_simulator(feeds, settings, world)
                around = evolve(around, boxed=settings.simulator.venue, box=box)
            roster = Roster(settings, around)
            await roster.open()
            monitor = make_clock_monitor()
            app = _make_app(settings, world, store, journal, hub, roster, monitor, metrics)
            edge.start_soon(journal.run, app.access.feed.publish, name="journal writer")
            draining = trio.Event()
            address = await _start_server(edge, app, settings, world, draining)
            admin = await _start_admin(edge, app, settings, world) or address
            edge.start_soon(_sweep, app, settings, name="client sweeper")
            unused_s = settings.websocket.unused_timeout_s
            edge.start_soon(app.close_unused, unused_s, name="unused clients")
            edge.start_soon(
                run_clock_monitor,
                monitor,
                world,
                roster.clock_errors_ms,
                roster.clock_stepped,
                metrics,
                name="clock monitor",
            )
            feeds.start_soon(roster.run, name="roster")
            await feeds.start(_reload_on_signal, roster, reload)
            urls = _urls(settings, address, admin)
            log.info("service.ready", urls=urls, venues=roster.names, simulated=simulated)
            task_status.started(Ready(address, admin, store, app, bus, roster))
        draining.set()
        app.disconnect_all(partial(world.random.randint, *_CLIENT_RETURN_MS))
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


async def _reload_on_signal(
    roster: Roster,
    reload: Callable[[], Settings] | None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGHUP: other symbols and venues.  What is wrong with the new settings is said, and the old
    ones stay."""
    if reload is None:
        task_status.started()
        return
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                settings = complete(await trio.to_thread.run_sync(reload))
                check(settings)
            except SettingsError as error:
                log.error("settings.refused", problem=str(error))
            else:
                await roster.apply(settings)


async def _start_simulator(
    nursery: trio.Nursery, settings: Settings, world: Environment
) -> Callable[[ExchangeSettings], ExchangeSettings]:
    """Start the exchange in a box; returns what puts its addresses into a venue's settings."""
    box = settings.simulator
    listeners = await _bind(world, box.host, box.port, "simulator.port")
    serve = partial(serve_box, box, listeners=listeners, now_ms=world.now_ms)
    await nursery.start(serve, name="simulator")
    address = bound_address(listeners[0])
    log.info("simulator.ready", venue=box.venue, address=address, seed=box.seed)

    def point_at_it(exchange: ExchangeSettings) -> ExchangeSettings:
        connection = evolve(
            exchange.connection, websocket_url=f"ws://{address}", rest_url=f"http://{address}"
        )
        solana = evolve(exchange.solana, endpoints=())  # the box is the only node
        return evolve(exchange, connection=connection, solana=solana)

    return point_at_it


def _make_bus(settings: Settings, epoch: int, world: Environment) -> LocalBus:
    return LocalBus(
        epoch=epoch,
        history_rows=settings.kline.history_data_limit,
        resume_messages=settings.kline.resume_messages,
        now_ms=world.now_ms,
    )


def _make_hub(bus: LocalBus, settings: Settings, world: Environment, metrics: Metrics) -> Hub:
    enabled = [name for name, exchange in settings.exchanges.items() if exchange.enabled]
    return Hub(
        bus,
        default_venue=settings.service.default_venue or enabled[0],
        now_ms=world.now_ms,
        metrics=metrics,
    )


def journal_path(settings: Settings) -> str:
    """Private events lie beside the store; in memory only, where nobody may report or have any."""
    if not settings.auth.enabled and not settings.settlement.publishers:
        return MEMORY
    if settings.settlement.path or settings.store.path == MEMORY:
        return settings.settlement.path or MEMORY
    return str(Path(settings.store.path).with_suffix(".private.db"))


def _make_app(
    settings: Settings,
    world: Environment,
    store: KlineStore,
    journal: Journal,
    hub: Hub,
    roster: Roster,
    monitor: ClockMonitor,
    metrics: Metrics,
) -> PushApp:
    kline = settings.kline
    fresh_s, clock_s = settings.service.ready_after_s, settings.service.clock_error_max_s
    auth, private = settings.auth, PrivateFeed(journal, world.now_ms, metrics)

    def status() -> dict[str, Any]:
        return {
            "version": __version__,
            "epoch": store.epoch,
            "store_pending_rows": store.pending(),
            "store": _store_status(store.statistics()),
            "venues": {feed.venue.NAME: feed.status() for feed in roster.feeds},
        }

    def not_ready() -> str:
        if clock_s and monitor.worst_s > clock_s:
            return monitor.explain()
        return next((why for feed in roster.feeds if (why := feed.not_ready(fresh_s))), "")

    return PushApp(
        hub=hub,
        store=store,
        limits=SessionLimits(
            max_subscriptions=kline.max_subscriptions_per_client,
            history_rows=kline.history_data_limit,
            max_queued=kline.broadcast_buffer_size,
            max_queued_bytes=settings.websocket.queue_bytes,
            burst=_BURST,
        ),
        requests=request_limits(settings.websocket),
        now_ms=world.now_ms,
        metrics=metrics,
        status=status,
        not_ready=not_ready,
        access=PrivateAccess(Authenticator(auth), private, auth, world.now_ms, metrics),
        settlement=SettlementEndpoint(settings.settlement, journal, world.now_ms, metrics),
        klines=kline.enable_kline_service,
        clock=monitor.explain,
    )


def _store_status(store: StoreStatistics) -> dict[str, Any]:
    sizes = store.sizes
    return {
        "pending_rows": store.pending,
        "file_bytes": sizes.file_bytes,
        "wal_bytes": sizes.wal_bytes,
        "free_bytes": sizes.free_bytes,
        "rows": {interval.value: rows for interval, rows in sizes.rows.items()},
        "pruned_rows": store.pruned,
        "refused_rows": store.refused,
    }


async def _start_server(
    nursery: trio.Nursery,
    app: PushApp,
    settings: Settings,
    world: Environment,
    draining: trio.Event,
) -> str:
    """Bind and serve; returns host:port.  Raises StartError where the port is taken."""
    server = settings.server
    listeners = await _bind(world, server.host, server.port, "server.port")
    start = partial(
        serve,
        app.asgi(with_admin=not server.admin_host),
        listeners=with_tls(listeners, tls_context(server)),
        limits=server_limits(
            settings.websocket, _UNSWEPT_S, CLOSE_TIMEOUT_S + _client_timeouts(settings).sweep_s
        ),
        rules=admission_rules(settings),
        metrics=app.metrics,
        stop_accepting=draining,
    )
    await nursery.start(start, name="push server")
    return bound_address(listeners[0])


async def _start_admin(
    nursery: trio.Nursery, app: PushApp, settings: Settings, world: Environment
) -> str:
    """The pages for operators on a bind of their own, if set; answers until the very end."""
    server = settings.server
    if not server.admin_host:
        return ""
    listeners = await _bind(world, server.admin_host, server.admin_port, "server.admin_port")
    start = partial(
        serve,
        app.admin_asgi(),
        listeners=listeners,
        limits=admin_limits(settings.websocket),
        rules=admin_rules(server),
        metrics=app.metrics,
        stop_accepting=trio.Event(),
    )
    await nursery.start(start, name="admin server")
    return bound_address(listeners[0])


def _urls(settings: Settings, address: str, admin: str) -> dict[str, str]:
    secure = "s" if settings.server.tls_cert_file else ""
    urls = {"websocket": f"ws{secure}://{address}/ws", "http": f"http{secure}://{address}"}
    return urls | ({"admin": f"http://{admin}"} if admin != address else {})


async def _bind(
    world: Environment, host: str, port: int, key: str
) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
    try:
        return await world.listen(host, port)
    except OSError as error:
        raise StartError(f"{key}: cannot listen on {host}:{port}: {error}") from None


async def _sweep(app: PushApp, settings: Settings) -> Never:
    """Ping clients, and drop those that have gone without a word or take nothing."""
    timeouts = _client_timeouts(settings)
    while True:
        await trio.sleep(timeouts.sweep_s)
        await app.sweep(timeouts)


def _client_timeouts(settings: Settings) -> ClientTimeouts:
    websocket = settings.websocket
    ping_s = websocket.ping_interval / 1000
    return ClientTimeouts(
        ping_s=ping_s,
        silence_s=min(settings.kline.connection_timeout, ping_s + websocket.ping_timeout / 1000),
        stall_s=websocket.send_timeout_s,
    )
