"""What the nursery tree of :mod:`.service` is made of: each part from its settings."""

import errno
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Never

import structlog
import trio
from attrs import evolve, frozen

from . import __version__
from .bus.base import Reader
from .bus.local import LocalBus
from .core.clock_monitor import ClockMonitor
from .demands import Demands
from .dialects.market import Listing, MarketData
from .dialects.outside import Outside
from .dialects.passing import Passing
from .dialects.table import DIALECTS
from .environment import Environment
from .errors import StartError
from .feeds import Feeds
from .metrics import Metrics
from .outside import VenueOutside
from .push.app import PushApp
from .push.demand import Demand, Desk
from .push.edge.clients import Places
from .push.edge.configuration import (
    RESERVED_FILES,
    admin_limits,
    admin_rules,
    admission_rules,
    clients_per_ip,
    clients_within,
    request_limits,
    server_limits,
    with_http_rate,
    work_limits,
)
from .push.edge.routes import ServiceReport
from .push.edge.server import Application, serve
from .push.edge.stream import bound_address
from .push.edge.tls import Certificate, with_tls
from .push.edge.work import WorkGate
from .push.fanout.hub import Hub
from .push.fanout.sender import CLOSE_TIMEOUT_S, ClientTimeouts
from .push.fanout.waiting import WaitingBytes
from .push.mounts import Mount
from .push.private.auth import Authenticator
from .push.private.events import PrivateFeed
from .push.private.session import PrivateAccess
from .push.private.settlement_endpoint import SettlementEndpoint
from .push.session import SessionContext, SessionLimits
from .settings import ExchangeSettings, Settings
from .settings.dialects import DialectSettings
from .store import MEMORY, CandleReader, EventJournal, KlineStore, StoreStatistics

log = structlog.get_logger()

MakePlaces = Callable[[str], Places | None]
"""By the setting of a port: places for clients that other processes give away as well."""


def _only_here(_key: str) -> None:
    """This process is the only one."""


_OF_THE_HOST = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_UNSWEPT_S = 30.0
"""The server's own limit for a silent client stands so far behind the sweep's."""
_BURST = 32
"""Trades of a minute's outage come back within moments: 8 MiB at most by default."""


@frozen
class UpstreamView:
    """What the push side knows of the feeds: the status page and the probes, why a venue's data is
    not fresh (empty: it is), and a venue's instruments.  ``demand``: who feeds symbols on demand;
    ``outside``: a venue's exchange, for what passes through."""

    report: ServiceReport
    why_not: Callable[[str], str]
    listing: Callable[[str], Listing]
    demand: Demand | None = None
    outside: Callable[[str], Outside] | None = None


def make_bus(settings: Settings, epoch: int, environment: Environment) -> LocalBus:
    return LocalBus(
        epoch=epoch,
        history_rows=settings.kline.history_data_limit,
        resume_messages=settings.kline.resume_messages,
        now_ms=environment.now_ms,
    )


def make_demands(feeds: Feeds, settings: Settings, metrics: Metrics) -> Demands:
    return Demands(feeds, metrics, _default_venue(settings))


def _default_venue(settings: Settings) -> str:
    enabled = [name for name, exchange in settings.exchanges.items() if exchange.enabled]
    return settings.service.default_venue or enabled[0]


def make_hub(bus: Reader, settings: Settings, environment: Environment, metrics: Metrics) -> Hub:
    return Hub(
        bus,
        default_venue=_default_venue(settings),
        now_ms=environment.now_ms,
        metrics=metrics,
    )


def journal_path(settings: Settings) -> str:
    """Private events lie beside the store; in memory only, where nobody may report or have any."""
    if not settings.auth.enabled and not settings.settlement.publishers:
        return MEMORY
    if settings.settlement.path or settings.store.path == MEMORY:
        return settings.settlement.path or MEMORY
    return str(Path(settings.store.path).with_suffix(".private.db"))


def make_app(
    settings: Settings,
    environment: Environment,
    store: CandleReader,
    journal: EventJournal,
    hub: Hub,
    upstream: UpstreamView,
    metrics: Metrics,
) -> PushApp:
    """The push side, from what answers questions and what is known of the feeds."""
    kline = settings.kline
    now_ms, auth = environment.now_ms, settings.auth
    private = PrivateFeed(journal, now_ms, metrics, journal.others)
    limits = SessionLimits(
        max_subscriptions=kline.max_subscriptions_per_client,
        history_rows=kline.history_data_limit,
        max_queued=kline.broadcast_buffer_size,
        max_queued_bytes=settings.websocket.queue_bytes,
        burst=_BURST,
    )
    access = PrivateAccess(Authenticator(auth), private, auth, now_ms, metrics)
    waiting = WaitingBytes(settings.limits.waiting_bytes)
    metrics.waiting_bytes.set_function(lambda: waiting.total)
    work = WorkGate(work_limits(settings.limits), metrics)
    desk = Desk(upstream.demand, now_ms)
    context = SessionContext(
        hub, store, limits, now_ms, metrics, access, work, upstream.why_not, desk
    )
    return PushApp(
        context,
        upstream.report,
        request_limits(settings.websocket),
        SettlementEndpoint(settings.settlement, journal, now_ms, metrics),
        klines=kline.enable_kline_service,
        mounts=_mounts(settings, context, upstream),
        waiting=waiting,
        origins=settings.server.allowed_origins,
    )


def view_of(
    settings: Settings, store: KlineStore, feeds: Feeds, monitor: ClockMonitor, demands: Demands
) -> UpstreamView:
    """The feeds of this process."""
    fresh_s, clock_s = settings.service.ready_after_s, settings.service.clock_error_max_s

    def status() -> dict[str, Any]:
        return {
            "version": __version__,
            "epoch": store.epoch,
            "store_pending_rows": store.pending(),
            "store": _store_status(store.statistics()),
            "venues": {
                feed.venue.NAME: {**feed.status(), "on_demand": demands.status(feed.venue.NAME)}
                for feed in feeds.running
            },
        }

    def why_not(venue: str) -> str:
        found = (f for f in feeds.running if venue == f.venue.NAME)
        return next((feed.not_ready(fresh_s) for feed in found), "")

    def not_ready() -> str:
        if (stored := store.statistics()).full:
            return f"the store takes no more candles: {stored.problem or 'the disk is slow'}"
        if clock_s and monitor.worst_s > clock_s:
            return monitor.explain()
        return next((why for feed in feeds.running if (why := feed.not_ready(fresh_s))), "")

    return UpstreamView(
        ServiceReport(status, not_ready, monitor.explain),
        why_not,
        feeds.listing,
        demands,
        lambda venue: VenueOutside(partial(feeds.feed, venue), _is_simulated(settings, venue)),
    )


def _mounts(
    settings: Settings, context: SessionContext, upstream: UpstreamView
) -> dict[str, Mount]:
    """Of the dialects whose venue is fed, by name."""
    made = {}
    for name, dialect in DIALECTS.items():
        own: DialectSettings = getattr(settings.dialects, name)
        markets = [
            MarketData(
                venue,
                context,
                upstream.listing,
                _is_simulated(settings, venue),
                own.simulated_ok,
                _passing(context, upstream, venue, own),
            )
            for venue, exchange in settings.exchanges.items()
            if exchange.enabled and dialect.venue in ("", venue)
        ]
        if own.enabled and markets:
            made[name] = dialect.make(markets)
    return made


def _passing(
    context: SessionContext, upstream: UpstreamView, venue: str, own: DialectSettings
) -> Passing | None:
    if not own.passthrough or upstream.outside is None:
        return None
    outside = upstream.outside(venue)
    return Passing(venue, own.passed_on(), outside, context, own.websocket_api_url)


def _is_simulated(settings: Settings, venue: str) -> bool:
    return settings.simulator.enabled and settings.simulator.venue == venue


def _store_status(store: StoreStatistics) -> dict[str, Any]:
    sizes = store.sizes
    return {
        "place": store.place,
        "pending_rows": store.pending,
        "problem": store.problem,
        "file_bytes": sizes.file_bytes,
        "wal_bytes": sizes.wal_bytes,
        "free_bytes": sizes.free_bytes,
        "rows": {interval.value: rows for interval, rows in sizes.rows.items()},
        "pruned_rows": store.pruned,
        "refused_rows": store.refused,
    }


async def start_simulator(
    nursery: trio.Nursery, settings: Settings, environment: Environment
) -> Callable[[ExchangeSettings], ExchangeSettings]:
    """Start the exchange in a box; returns what puts its addresses into a venue's settings."""
    from .simulator.exchanges import serve_exchange  # a tenth of the start, and only for this

    box = settings.simulator
    listeners = await _bind(environment, box.host, box.port, "simulator.port")
    serve = partial(serve_exchange, box, listeners=listeners, now_ms=environment.now_ms)
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


async def start_server(
    nursery: trio.Nursery,
    app: PushApp,
    settings: Settings,
    environment: Environment,
    draining: trio.Event,
    certificate: Certificate,
    places: MakePlaces = _only_here,
) -> str:
    """Bind and serve; returns host:port.  Raises StartError where the port is taken."""
    whole, key = app.whole(with_admin=not settings.server.admin_host), "server.port"
    return await _serve(
        nursery, app, whole, settings, environment, draining, certificate, key, places
    )


async def _serve(
    nursery: trio.Nursery,
    app: PushApp,
    served: Application,
    settings: Settings,
    environment: Environment,
    draining: trio.Event,
    certificate: Certificate,
    key: str,
    places: MakePlaces,
) -> str:
    server = settings.server
    listeners = await _bind(environment, server.host, server.port, key)
    limits = server_limits(
        settings.websocket, _UNSWEPT_S, CLOSE_TIMEOUT_S + _client_timeouts(settings).sweep_s
    )
    limits = with_http_rate(limits, settings.limits.http_requests_per_second)
    allowed = _clients_allowed(settings, environment)
    per_ip = clients_per_ip(settings.websocket.max_connections_per_ip, allowed, server.host)
    start = partial(
        serve,
        served,
        listeners=with_tls(listeners, certificate),
        limits=evolve(limits, max_connections=allowed, max_connections_per_ip=per_ip),
        rules=admission_rules(settings),
        metrics=app.context.metrics,
        stop_accepting=draining,
        waiting=app.waiting,
        probes=app.probes(),
        places=places(key),
    )
    await nursery.start(start, name=f"push server {key}")
    return bound_address(listeners[0])


def _clients_allowed(settings: Settings, environment: Environment) -> int:
    """``max_connections``, or what the limit of open files leaves for it, which is then said."""
    wanted = settings.websocket.max_connections
    files = environment.open_files(wanted + RESERVED_FILES)
    allowed = clients_within(wanted, files)
    if allowed < wanted:
        log.warning(
            "server.few_descriptors",
            open_files=int(files),
            max_connections=wanted,
            clients=allowed,
            advice=f"raise the hard limit (ulimit -Hn, LimitNOFILE=) to {wanted + RESERVED_FILES},"
            " or lower websocket.max_connections",
        )
    return allowed


async def start_dialects(
    nursery: trio.Nursery,
    app: PushApp,
    settings: Settings,
    environment: Environment,
    draining: trio.Event,
    certificate: Certificate,
    places: MakePlaces = _only_here,
) -> dict[str, str]:
    """The dialects that have a bind of their own; returns host:port by name.  They have the limits
    of the clients' port, each for itself."""
    bound = {}
    for name, mount in app.mounts.items():
        own: DialectSettings = getattr(settings.dialects, name)
        if own.host:
            server = evolve(settings.server, host=own.host, port=own.port)
            alone = evolve(settings, server=server)
            key = f"dialects.{name}.port"
            bound[name] = await _serve(
                nursery,
                app,
                app.alone(mount),
                alone,
                environment,
                draining,
                certificate,
                key,
                places,
            )
    return bound


async def start_admin(
    nursery: trio.Nursery, app: PushApp, settings: Settings, environment: Environment
) -> str:
    """The pages for operators on a bind of their own, if set; answers until the very end."""
    server = settings.server
    if not server.admin_host:
        return ""
    listeners = await _bind(environment, server.admin_host, server.admin_port, "server.admin_port")
    start = partial(
        serve,
        app.admin(),
        listeners=listeners,
        limits=admin_limits(settings.websocket),
        rules=admin_rules(server),
        metrics=app.context.metrics,
        stop_accepting=trio.Event(),
        waiting=app.waiting,
        probes=app.probes(),
    )
    await nursery.start(start, name="admin server")
    return bound_address(listeners[0])


def urls(settings: Settings, address: str, admin: str) -> dict[str, str]:
    secure = "s" if settings.server.tls_cert_file else ""
    found = {"websocket": f"ws{secure}://{address}/ws", "http": f"http{secure}://{address}"}
    return found | ({"admin": f"http://{admin}"} if admin != address else {})


async def _bind(
    environment: Environment, host: str, port: int, key: str
) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
    try:
        return await environment.listen(host, port)
    except OSError as error:
        raise bind_error(error, host, port, key) from None


def bind_error(error: OSError, host: str, port: int, key: str) -> StartError:
    """Why the service cannot listen there; ``key`` is the setting of the port."""
    if isinstance(error, socket.gaierror) or error.errno in _OF_THE_HOST:
        key = key.removesuffix("port") + "host"
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = f"; is it running already?  Another port: --set {key}={port + 1}"
    return StartError(f"{key}: cannot listen on {host}:{port}: {error}{hint}")


async def sweep(app: PushApp, settings: Settings) -> Never:
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
