"""Which venues are fed: started with the service, and changed while it runs.

Each feed has a cancel scope of its own, so that one goes without the others noticing.  A change of
``symbols`` reaches the running feed, one of ``rest_weight_per_minute`` the budget that venues of
one exchange share (the last change counts for all of them); any other change of a venue's table
means a new feed, which goes on where the old one ended.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Never

import structlog
import trio
from attrs import define, evolve, field, frozen

from .bus.base import Publisher
from .environment import Environment
from .fallback import stand_in
from .ingest.driver import EVERY
from .ingest.venue import VenueFeed
from .metrics import Metrics
from .model import Kline, Series, Subject
from .net.budgets import Budgets
from .settings import ExchangeSettings, Settings
from .store import MEMORY, KlineStore
from .store.base import Tail
from .venues import Kind, make_venue

log = structlog.get_logger()

_RESTART_ONLY = (
    "simulator", "kline", "websocket", "server", "store", "logging", "proxy", "service",
)  # fmt: skip
"""Tables that are read once, at start."""


@define(eq=False)
class Fed:
    """A feed and how it is ended."""

    feed: VenueFeed
    settings: ExchangeSettings
    stand_in: Callable[[], Awaitable[None]] | None = None
    """Runs beside the feed, for when it is out of reach."""
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)

    async def run(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    if self.stand_in is not None:
                        nursery.start_soon(self.stand_in)
                    await self.feed.run()
        finally:
            self.over.set()


@frozen
class Surroundings:
    """What every feed is made with.  ``environ`` is where proxy variables are read, if at all;
    ``boxed`` names the venue that a simulator stands in for, and ``box`` its addresses."""

    world: Environment
    environ: Mapping[str, str] | None
    store: KlineStore
    bus: Publisher
    metrics: Metrics
    budgets: Budgets = field(factory=Budgets)
    """What may be asked of the exchanges; outlives any feed."""
    boxed: str = ""
    box: Callable[[ExchangeSettings], ExchangeSettings] = lambda exchange: exchange


class Roster:
    """The feeds of the service.  :meth:`open` once, then :meth:`run`; :meth:`apply` at any time."""

    def __init__(self, settings: Settings, around: Surroundings) -> None:
        self._settings, self._around = settings, around
        self._fed: dict[str, Fed] = {}
        self._histories: dict[Subject, tuple[Iterable[Kline], int | None]] = {}
        self._nursery: trio.Nursery
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<Roster {' '.join(self._fed)}>"

    @property
    def feeds(self) -> list[VenueFeed]:
        return [fed.feed for fed in self._fed.values()]

    @property
    def names(self) -> list[str]:
        return list(self._fed)

    def clock_errors_ms(self) -> dict[str, float | None]:
        """By how much our calendar is ahead of each venue's; None while unknown."""
        return {name: fed.feed.clock_error_ms() for name, fed in self._fed.items()}

    def clock_stepped(self) -> None:
        """One of our clocks was moved."""
        for feed in self.feeds:
            feed.clock_stepped()

    async def open(self) -> None:
        """Make the feeds of the settings and their topics, without running them."""
        for name, exchange in _enabled(self._settings).items():
            await self._make(name, exchange)

    async def run(self) -> Never:
        """Run the feeds until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for name, fed in self._fed.items():
                self._nursery.start_soon(fed.run, name=f"feed {name}")
            await trio.sleep_forever()
        raise AssertionError("feeds run until cancelled")

    async def apply(self, settings: Settings) -> None:
        """Make the feeds fit ``settings``, which were checked; those that do not change go on
        undisturbed.  Other tables than ``exchanges`` are not looked at, but for a warning."""
        async with self._turn:
            wanted, old = _enabled(settings), self._settings
            self._settings = evolve(old, exchanges=settings.exchanges)
            for name in _differing(old, settings):
                log.warning("settings.need_restart", table=name)
            for name in [name for name in self._fed if name not in wanted]:
                self._close(await self._end(name))
            for name, exchange in wanted.items():
                fed = self._fed.get(name)
                if fed is None:
                    await self._start(name, exchange)
                    continue
                if fed.settings == exchange:
                    continue
                self._resize(fed, exchange)
                if fed.settings == exchange:
                    continue  # nothing else has changed
                if _only_symbols_differ(fed.settings, exchange):
                    await self._change(fed, exchange)
                else:
                    before = await self._end(name)
                    feed = await self._start(name, exchange)
                    self._close(before - set(feed.subjects()))
            log.info("settings.applied", venues=list(self._fed))

    def _resize(self, fed: Fed, exchange: ExchangeSettings) -> None:
        """Requests that wait already are sent by the new budget too."""
        old = fed.settings.connection.rest_weight_per_minute
        new = exchange.connection.rest_weight_per_minute
        if new != old:
            connection = evolve(fed.settings.connection, rest_weight_per_minute=new)
            fed.settings = evolve(fed.settings, connection=connection)
            self._around.budgets.resize(fed.feed.venue.SHARES, new)
            log.info("budget.changed", venue=fed.feed.venue.NAME, rest_weight_per_minute=new)

    async def _start(self, name: str, exchange: ExchangeSettings) -> VenueFeed:
        fed = await self._make(name, exchange)
        self._nursery.start_soon(fed.run, name=f"feed {name}")
        log.info("venue.started", venue=name)
        return fed.feed

    async def _end(self, name: str) -> set[Subject]:
        """Stop a feed.  Returns what it consisted of."""
        fed = self._fed.pop(name)
        fed.scope.cancel()
        await fed.over.wait()
        log.info("venue.ended", venue=name)
        return set(fed.feed.subjects())

    def _close(self, subjects: Iterable[Subject]) -> None:
        for subject in subjects:
            self._around.bus.close(subject)

    async def _change(self, fed: Fed, exchange: ExchangeSettings) -> None:
        feed, fed.settings = fed.feed, exchange
        name = feed.venue.NAME
        new = [symbol for symbol in exchange.symbols if symbol not in feed.settings.symbols]
        tails = await self._remember(name, evolve(exchange, symbols=tuple(new)))
        before = set(feed.subjects())
        self._close(feed.change(self._boxed(name, exchange), tails))
        for subject in feed.subjects():
            if subject not in before:
                self._announce(feed, subject)
        log.info("venue.changed", venue=name, symbols=list(exchange.symbols))

    async def _make(self, name: str, exchange: ExchangeSettings) -> Fed:
        """A feed that goes on where the store ends, and its topics."""
        around = self._around
        tails = await self._remember(name, exchange)
        boxed = self._boxed(name, exchange)
        feed = VenueFeed(
            make_venue(name, boxed),
            boxed,
            world=around.world,
            environ=around.environ if self._settings.proxy.from_env else None,
            tails=tails,
            store=around.store,
            bus=around.bus,
            simulated=around.boxed == name,
            metrics=around.metrics,
            budgets=around.budgets,
            cache=_cache(self._settings, name),
        )
        for subject in feed.subjects():
            self._announce(feed, subject)
        fed = self._fed[name] = Fed(feed, exchange)
        if exchange.fallback == "simulated":
            fed.stand_in = partial(stand_in, feed, world=around.world, bus=around.bus)
        return fed

    def _boxed(self, name: str, exchange: ExchangeSettings) -> ExchangeSettings:
        return self._around.box(exchange) if self._around.boxed == name else exchange

    async def _remember(self, name: str, exchange: ExchangeSettings) -> Mapping[Series, Tail]:
        """Where the venue's stored series end; their last candles wait for :meth:`_announce`."""
        store, rows = self._around.store, self._settings.kline.history_data_limit
        symbols = None if EVERY in exchange.symbols else exchange.symbols
        tails = await store.tails(name, symbols)
        for series, tail in tails.items():
            history = await store.history(series, limit=rows)
            self._histories[series] = history, tail.first_open_ms
        return tails

    def _announce(self, feed: VenueFeed, subject: Subject) -> None:
        history, first_ms = self._histories.pop(subject, ((), None))
        sparse = feed.venue.TRADE_KIND is Kind.PRICE
        self._around.bus.open(subject, history, first_ms, sparse=sparse)


def _enabled(settings: Settings) -> dict[str, ExchangeSettings]:
    return {name: exchange for name, exchange in settings.exchanges.items() if exchange.enabled}


def _differing(old: Settings, new: Settings) -> list[str]:
    """Tables that differ and are not looked at while the service runs."""
    return [name for name in _RESTART_ONLY if getattr(old, name) != getattr(new, name)]


def _only_symbols_differ(old: ExchangeSettings, new: ExchangeSettings) -> bool:
    same = evolve(new, symbols=old.symbols) == old
    return same and EVERY not in (*old.symbols, *new.symbols)


def _cache(settings: Settings, venue: str) -> Path | None:
    """The instrument table's copy lies beside the store."""
    if settings.store.path == MEMORY:
        return None
    return Path(settings.store.path).with_suffix(f".{venue}.instruments.json")
