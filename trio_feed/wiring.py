"""What the nursery tree of :mod:`.service` is made of: each part from its settings."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen

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
from .feeds import Feeds
from .metrics import Metrics
from .outside import VenueOutside
from .push.app import PushApp
from .push.context import SessionContext, SessionLimits
from .push.demand import Demand, Desk
from .push.edge.configuration import (
    request_limits,
    work_limits,
)
from .push.edge.routes import ServiceReport
from .push.edge.spending import Spending
from .push.edge.work import WorkGate
from .push.fanout.hub import Hub
from .push.fanout.waiting import WaitingBytes
from .push.mounts import Mount
from .push.private.auth import Authenticator
from .push.private.events import PrivateFeed
from .push.private.session import PrivateAccess
from .push.private.settlement_endpoint import SettlementEndpoint
from .settings import Settings
from .settings.dialects import DialectSettings
from .store import MEMORY, CandleReader, EventJournal, KlineStore, StoreStatistics

log = structlog.get_logger()

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


@frozen
class OpenSymbols(Collection[str]):
    """The symbols of a venue of which the hub has streams."""

    hub: Hub
    venue: str

    def __contains__(self, symbol: object) -> bool:
        return isinstance(symbol, str) and self.hub.has(self.venue, symbol)

    def __iter__(self) -> Iterator[str]:
        return iter(self.hub.symbols_of(self.venue))

    def __len__(self) -> int:
        return len(self.hub.symbols_of(self.venue))


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
    spending: Spending | None = None,
) -> PushApp:
    """The push side, from what answers questions and what is known of the feeds.  ``spending``:
    what is spent together with other processes; None: this is the only one."""
    kline = settings.kline
    now_ms, auth = environment.now_ms, settings.auth
    private = PrivateFeed(journal, now_ms, metrics, journal.others)
    limits = SessionLimits(
        max_subscriptions=kline.max_subscriptions_per_client,
        history_rows=kline.history_data_limit,
        max_queued=kline.broadcast_buffer_size,
        max_queued_bytes=settings.websocket.queue_bytes,
        burst=_BURST,
        behind_ms=settings.websocket.behind_s * 1000,
    )
    access = PrivateAccess(Authenticator(auth), private, auth, now_ms, metrics)
    waiting = WaitingBytes(settings.limits.waiting_bytes)
    metrics.waiting_bytes.set_function(lambda: waiting.total)
    spending = spending or Spending()
    work = WorkGate(work_limits(settings.limits), metrics, spending)
    desk = Desk(upstream.demand, now_ms)
    context = SessionContext(
        hub, store, limits, now_ms, metrics, access, work, upstream.why_not, desk, spending
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
        lambda venue: VenueOutside(partial(feeds.feed_of, venue), _is_simulated(settings, venue)),
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
    if upstream.outside is None:
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
