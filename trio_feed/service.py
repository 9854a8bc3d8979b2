"""The nursery tree and nothing else.

The store is opened first and closed last.  The edge (push server, store writer, sweeper) outlives
the feeds; a signal ends the feeds, then clients get a ``reconnect``, then the edge ends.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog
import trio
from attrs import frozen

from . import logs
from .bus.local import LocalBus
from .clocks import make_clock_monitor, measured_loop, run_clock_monitor
from .environment import Environment
from .errors import SettingsError
from .feeds import Feeds
from .ingest.context import FeedContext
from .ingest.venue import VenueFeed
from .metrics import Metrics
from .net.tls import reload_authorities
from .push.app import PushApp
from .push.edge.configuration import tls_context
from .push.edge.tls import Certificate
from .settings import Settings
from .store import KlineStore, open_journal, open_store
from .validate import check, complete
from .wiring import (
    journal_path,
    make_app,
    make_bus,
    make_hub,
    start_admin,
    start_dialects,
    start_server,
    start_simulator,
    sweep,
    urls,
)

log = structlog.get_logger()

_FAREWELL_S = 1.0
_CLIENT_RETURN_MS = (500, 5_000)
"""Clients are asked to come back after a time between these two, so that not all come at once."""
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
    venues: Feeds
    dialects: Mapping[str, str] = {}
    """host:port of those that have a bind of their own."""

    @property
    def feeds(self) -> Sequence[VenueFeed]:
        return self.venues.running


async def run(
    settings: Settings,
    environment: Environment,
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
    metrics.follow_lost_lines(logs.lost)
    simulated = settings.simulator.enabled
    async with (
        measured_loop(metrics),
        open_store(
            settings.store, simulated=simulated, now_ms=environment.now_ms(), metrics=metrics
        ) as store,
        open_journal(
            settings.settlement, journal_path(settings), now_ms=environment.now_ms, metrics=metrics
        ) as journal,
        trio.open_nursery() as edge,
    ):
        edge.start_soon(store.run, name="store writer")
        bus = make_bus(settings, store.epoch, environment)
        hub = make_hub(bus, settings, environment, metrics)
        edge.start_soon(hub.run, name="write coalescer")
        async with trio.open_nursery() as feeds:
            timeout_s = settings.service.shutdown_timeout_s
            edge.start_soon(_end_on_signal, edge.cancel_scope, feeds.cancel_scope, timeout_s)
            proxies = environ if settings.proxy.from_env else None
            keep = {interval: kept.seconds for interval, kept in settings.store.keep.items()}
            context = FeedContext(environment, proxies, store, bus, metrics, keep=keep)
            redirect = await start_simulator(feeds, settings, environment) if simulated else None
            venues = Feeds(settings, context, redirect)
            await venues.open()
            metrics.follow_proxies(lambda: [p for feed in venues.running for p in feed.proxies()])
            monitor = make_clock_monitor()
            app = make_app(settings, environment, store, journal, hub, venues, monitor, metrics)
            edge.start_soon(journal.run, app.context.access.feed.publish, name="journal writer")
            draining, certificate = trio.Event(), Certificate(tls_context(settings.server))
            address = await start_server(edge, app, settings, environment, draining, certificate)
            dialects = await start_dialects(edge, app, settings, environment, draining, certificate)
            admin = await start_admin(edge, app, settings, environment) or address
            edge.start_soon(sweep, app, settings, name="client sweeper")
            unused_s = settings.websocket.unused_timeout_s
            edge.start_soon(app.close_unused, unused_s, name="unused clients")
            edge.start_soon(
                run_clock_monitor,
                monitor,
                environment,
                venues.clock_errors_ms,
                venues.clock_stepped,
                metrics,
                name="clock monitor",
            )
            feeds.start_soon(venues.run, name="venues")
            await feeds.start(_reload_on_signal, venues, app, certificate, reload)
            found = urls(settings, address, admin) | {
                name: f"http://{bound}" for name, bound in dialects.items()
            }
            log.info("service.ready", urls=found, venues=venues.names, simulated=simulated)
            task_status.started(Ready(address, admin, store, app, bus, venues, dialects))
        draining.set()
        app.disconnect_all(partial(environment.random.randint, *_CLIENT_RETURN_MS))
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
    venues: Feeds,
    app: PushApp,
    certificate: Certificate,
    reload: Callable[[], Settings] | None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGHUP: other symbols and venues, keys and publishers, and the files of certificates and
    authorities anew.  What is wrong with the new settings is said, and the old ones stay."""
    if reload is None:
        task_status.started()
        return
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                settings = complete(await trio.to_thread.run_sync(reload))
                check(settings)
                context = tls_context(settings.server)
            except SettingsError as error:
                log.error("settings.refused", problem=str(error))
            else:
                certificate.replace(context)
                app.replace_keys(settings.auth.api_keys, settings.settlement.publishers)
                for problem in await trio.to_thread.run_sync(reload_authorities):
                    log.error("settings.refused", problem=str(problem))
                await venues.apply(settings)
