"""The nursery tree and nothing else.

The store is opened first and closed last.  The edge (store writer, sweeper) outlives the feeds, and
the servers outlive the edge.  At a signal clients get a ``reconnect``, then the feeds end, then the
edge and the servers.  A bug that nothing survives ends feeds and edge at once; clients get the
same ``reconnect`` before the servers end.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Never

import structlog
import trio
from attrs import frozen

from . import logs
from .bus.base import Reader
from .bus.engine.opening import make_engine
from .bus.local import LocalBus
from .clocks import make_clock_monitor, measured_loop, run_clock_monitor
from .cluster import CLUSTER_METRICS, MakeEngine, open_node, open_stores, view_of_node
from .demands import Demands
from .ending import Ending, until_a_signal
from .environment import Environment
from .errors import SettingsError
from .feeds import Feeds, Redirect
from .ingest.context import FeedContext
from .ingest.venue import VenueFeed
from .metrics import Metrics
from .net.tls import reload_authorities
from .notify import READY, reloading, status
from .push.app import PushApp
from .push.edge.configuration import tls_context
from .push.edge.tls import Certificate
from .serving import start_admin, start_dialects, start_server, start_simulator, sweep, urls
from .settings import Settings
from .start_wait import StartWait
from .store import CandleReader, KlineStore, MemoryDatabase, open_journal
from .summary import run_summary
from .telemetry import Exporters, open_telemetry
from .validate import check, complete
from .wiring import journal_path, make_app, make_bus, make_demands, make_hub, view_of
from .workers.front import Front
from .workers.link import Sources
from .workers.start import OpenFleet, open_processes, start_workers

log = structlog.get_logger()

StartExchange = Callable[[trio.Nursery, Settings, Environment], Awaitable[Redirect]]


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
    demands: Demands
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
    start_exchange: StartExchange = start_simulator,
    exporters: Exporters | None = None,
    fleet: OpenFleet = open_processes,
    engine: MakeEngine | None = None,
    database: MemoryDatabase | None = None,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until a signal or cancellation.  Raises SettingsError and StartError before it is up
    (ServerAway: after ``service.start_wait_s``); whatever comes out later is a bug, and comes out
    when the clients were asked to come back.
    ``environ`` is where proxy variables are read, if at all.
    ``reload`` reads the settings anew (blocking) when a SIGHUP asks for it.
    ``start_exchange`` starts the simulated exchange, where the settings want one; ``exporters``
    take spans and metrics in the place of those of the settings; ``fleet`` starts the workers and
    ``engine`` opens the engine, where the settings want any; ``database`` takes the place of the
    one that nodes share."""
    settings = complete(settings)
    check(settings)
    metrics = Metrics()
    metrics.follow_lost_lines(logs.lost)
    simulated = settings.simulator.enabled
    wait = StartWait(settings.service.start_wait_s, environment.manager.tell)
    async with (
        until_a_signal(
            environment, settings.service.shutdown_timeout_s, reloads=reload is not None
        ) as ending,
        ending.last_line(),
        measured_loop(metrics),
        open_telemetry(
            settings.otel,
            environ,
            now_ms=environment.now_ms,
            samples=metrics.samples,
            exporters=exporters,
        ) as metrics.spans,
        open_node(settings, environment, engine or partial(make_engine, wait=wait), wait) as node,
        open_stores(settings, node, environment, metrics, database, wait) as store,
        open_journal(
            settings.settlement,
            journal_path(settings),
            url=settings.journal_url,
            now_ms=environment.now_ms,
            metrics=metrics,
            wait=wait,
        ) as journal,
        trio.open_nursery() as servers,
        ending.in_order(servers.cancel_scope),
        trio.open_nursery() as edge,
    ):
        edge.start_soon(store.run, name="store writer")
        if node is None:
            bus = make_bus(settings, store.epoch, environment)
            reader: Reader = bus
        else:
            bus = node.make_bus(store)
            reader = node.reader(bus, store)
            metrics.follow(CLUSTER_METRICS, node.figures)
        hub = make_hub(reader, settings, environment, metrics)
        edge.start_soon(hub.run, name="write coalescer")
        async with trio.open_nursery() as feeds:
            manager = environment.manager
            ending.servers, ending.feeds = servers.cancel_scope, feeds.cancel_scope
            ending.leave = [ending.send_away] if node is None else [node.leave, ending.send_away]
            edge.start_soon(manager.keep_alive, name="watchdog")
            proxies = environ if settings.proxy.from_env else None
            keep = {interval: kept.seconds for interval, kept in settings.store.keep.items()}
            context = FeedContext(environment, proxies, store, bus, metrics, keep=keep)
            redirect = await start_exchange(feeds, settings, environment) if simulated else None
            take = _as_they_are if node is None else node.take_settings
            venues = Feeds(take(settings), context, redirect)
            demands = make_demands(venues, settings, metrics)
            await (venues.open() if node is None else node.open_feeds(venues))
            metrics.follow_proxies(lambda: [p for feed in venues.running for p in feed.proxies()])
            monitor = make_clock_monitor()
            view = view_of(settings, store, venues, monitor, demands)
            stored: CandleReader = store
            if node is not None:
                view, stored = view_of_node(node, view, hub), node.reading_store(store)
            app = make_app(settings, environment, stored, journal, hub, view, metrics)
            demands.watch(hub.wanted)
            draining, certificate = ending.draining, Certificate(tls_context(settings.server))
            serving = app, settings, environment, draining, certificate
            front: Front | None = None
            if node is not None:

                def clients() -> int:
                    return len(app.sessions) if front is None else front.clients

                edge.start_soon(node.run, view, store, clients, name="node")
                await node.until_reads()
            if settings.server.workers > 1:
                if node is None:
                    sources = Sources(bus, store, journal, view, lambda: venues.names, metrics)
                else:
                    sources = Sources(None, store, journal, view, node.venues, metrics, node.log)
                front, address, dialects = await start_workers(
                    servers, settings, environment, sources, app.mounts, fleet
                )
                app.operators, ending.front = front.pages, front
                demands.watch(front.views.wanted)
            publish = app.context.access.feed.publish if front is None else front.publish
            edge.start_soon(journal.run, publish, name="journal writer")
            if journal.others is not None:
                follow = app.context.access.feed.follow
                if front is not None:
                    follow = partial(front.pass_on_news, journal.others)
                edge.start_soon(follow, name="journal follower")
            if front is None:
                address = await start_server(servers, *serving)
                dialects = await start_dialects(servers, *serving)
                edge.start_soon(sweep, app, settings, name="client sweeper")
                unused_s = settings.websocket.unused_timeout_s
                edge.start_soon(app.close_unused, unused_s, name="unused clients")
            admin = await start_admin(servers, app, settings, environment) or address
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
            feeds.start_soon(demands.run, name="demands")
            feeds.start_soon(run_summary, venues, app, name="summary")
            if reload is not None:
                renew = partial(_reload_on_signal, venues, app, front, certificate, reload, take)
                feeds.start_soon(renew, ending, name="settings")
            found = urls(settings, address, admin) | {
                name: f"http://{bound}" for name, bound in dialects.items()
            }
            if node is not None:
                node.urls = found
            log.info("service.ready", urls=found, venues=venues.names, simulated=simulated)
            ending.app = app
            manager.tell("\n".join([READY, status(f"serves {found['http']}")]))
            task_status.started(Ready(address, admin, store, app, bus, venues, demands, dialects))
        if node is not None:
            await node.drain()
        await ending.say_goodbye()
        edge.cancel_scope.cancel()
        servers.cancel_scope.cancel()


def _as_they_are(settings: Settings) -> Settings:
    return settings


async def _reload_on_signal(
    venues: Feeds,
    app: PushApp,
    front: Front | None,
    certificate: Certificate,
    reload: Callable[[], Settings],
    take: Callable[[Settings], Settings],
    ending: Ending,
) -> Never:
    """SIGHUP, also one that came during the start: other symbols and venues, keys and publishers,
    and the files of certificates and authorities anew.  What is wrong with the new settings is
    said, and the old ones stay.  ``take``: what the feeds have of them."""
    manager = ending.environment.manager
    while True:
        await ending.hung_up.wait()
        ending.hung_up = trio.Event()
        manager.tell(reloading())
        try:
            settings = complete(await trio.to_thread.run_sync(reload))
            check(settings)
            context = tls_context(settings.server)
            app.replace_keys(settings.auth, settings.settlement.publishers)
        except SettingsError as error:
            log.error("settings.refused", problem=str(error))
        else:
            certificate.replace(context)
            if front is not None:
                front.apply(settings)
            for problem in await trio.to_thread.run_sync(reload_authorities):
                log.error("settings.refused", problem=str(problem))
            await venues.apply(take(settings))
        manager.tell(READY)
