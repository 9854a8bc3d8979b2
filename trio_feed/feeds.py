"""Which venues are fed: started with the service, and changed while it runs.

Each feed has a cancel scope of its own, so that one goes without the others noticing.  A change of
``symbols`` reaches the running feed, one of ``rest_weight_per_minute`` the budget that venues of
one exchange share (the last change counts for all of them); any other change of a venue's table
means a new feed, which goes on where the old one ended.  So does a bug in a venue, which ends
neither the others nor the clients.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Never

import structlog
import trio
from attrs import define, evolve, field

from .environment import mono
from .fallback import run_fallback
from .ingest.context import FeedContext
from .ingest.driver import EVERY
from .ingest.fed import FedInstruments
from .ingest.remembered import Remembered
from .ingest.venue import VenueFeed
from .model import Interval, Kline, StreamKey, Trade
from .settings import ExchangeSettings, Settings, needing_restart
from .store import MEMORY
from .supervise import Backoff, BugCount, described, root_cause
from .venues import Instruments, Kind, make_venue

log = structlog.get_logger()

Redirect = Callable[[ExchangeSettings], ExchangeSettings]
Demanded = Callable[[str, ExchangeSettings], Collection[str]]
"""The symbols that clients want of a venue beside those that its settings name."""

Owned = Callable[[str, str], bool]
"""Whether a symbol of a venue is fed by this node; others feed the others."""

Told = Callable[[str, str], Trade | None]
"""The last trade of a symbol of a venue that clients got when another node fed it; None: a symbol
that is opened now begins with what comes."""

_NONE: frozenset[str] = frozenset()
_STARTING = "it was just asked for; its streams are being opened"
_RESTART_MIN_S, _RESTART_MAX_S = 1.0, 60.0
"""Waits before a venue that broke off begins anew."""


@define(eq=False)
class RunningFeed:
    """The feed of a venue and how it is ended.  ``feed`` is another one after a bug."""

    name: str
    feed: VenueFeed
    settings: ExchangeSettings
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)


class Feeds:
    """The feeds of the service.  :meth:`open` once, then :meth:`run`; :meth:`apply` at any time.

    ``redirect`` gives the settings of the venue that is simulated the simulator's addresses; None:
    none is.  ``demanded`` and ``owned`` are asked whenever the symbols of a venue are taken from
    its settings, and ``told`` for each that is new; :meth:`refresh` takes them once more.
    """

    def __init__(
        self, settings: Settings, context: FeedContext, redirect: Redirect | None = None
    ) -> None:
        self._settings, self._context, self._redirect = settings, context, redirect
        self._feeds: dict[str, RunningFeed] = {}
        self._remembered = Remembered(context.store, settings.kline.history_data_limit)
        self._nursery: trio.Nursery
        self._turn = trio.Lock()
        self._bugs = BugCount(settings.service.same_bug_max, settings.service.same_bug_window_s)
        self.demanded: Demanded = lambda _name, _exchange: ()
        self.owned: Owned = lambda _name, _symbol: True
        self.told: Told = lambda _name, _symbol: None

    def __repr__(self) -> str:
        return f"<Feeds {' '.join(self._feeds)}>"

    @property
    def running(self) -> list[VenueFeed]:
        return [own.feed for own in self._feeds.values()]

    @property
    def names(self) -> list[str]:
        return list(self._feeds)

    @property
    def exchanges(self) -> Mapping[str, ExchangeSettings]:
        """The settings that are in force, of the venues that are fed."""
        return _enabled(self._settings)

    def listing(self, name: str) -> FedInstruments:
        """The instruments that are fed of a venue, as far as its list is known."""
        own = self._feeds.get(name)
        if own is None:
            return FedInstruments(Instruments(), ())
        return own.feed.instruments(every=own.settings.on_demand)

    def settings_of(self, name: str) -> ExchangeSettings | None:
        """Of a venue that is fed."""
        own = self._feeds.get(name)
        return None if own is None else own.settings

    def feed_of(self, name: str) -> VenueFeed | None:
        """The feed of a venue that runs now."""
        own = self._feeds.get(name)
        return None if own is None else own.feed

    def clock_errors_ms(self) -> dict[str, float | None]:
        """By how much our calendar is ahead of each venue's; None while unknown."""
        return {name: own.feed.clock_error_ms() for name, own in self._feeds.items()}

    def clock_stepped(self) -> None:
        """One of our clocks was moved."""
        for feed in self.running:
            feed.clock_stepped()

    async def open(self) -> None:
        """Make the feeds of the settings and their topics, without running them."""
        for name, exchange in _enabled(self._settings).items():
            feed = await self._make(name, exchange)
            self._feeds[name] = RunningFeed(name, feed, exchange)

    async def run(self) -> Never:
        """Run the feeds until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for name, own in self._feeds.items():
                self._nursery.start_soon(self._run, own, name=f"feed {name}")
            await trio.sleep_forever()
        raise AssertionError("feeds run until cancelled")

    async def _run(self, own: RunningFeed) -> None:
        """Run a venue's feed until it is ended.  A bug in it ends this venue's feed and no other:
        a new one goes on where the store ends, in the same epoch.  The same bug too often comes
        out."""
        backoff = Backoff(_RESTART_MIN_S, _RESTART_MAX_S)
        try:
            with own.scope:
                while True:
                    began = trio.current_time()
                    try:
                        await self._run_once(own)
                    except Exception as error:
                        cause = root_cause(error)
                        if self._bugs.too_often(cause, mono()):
                            self._note_crash(own, cause, None)
                            raise
                        backoff.succeeded(trio.current_time() - began)
                        delay_s = backoff.next_delay_s(self._context.environment.random)
                        self._note_crash(own, cause, delay_s)
                        await trio.sleep(delay_s)
                        await self._replace(own)
        finally:
            own.over.set()

    async def _run_once(self, own: RunningFeed) -> None:
        environment, bus = self._context.environment, self._context.bus
        async with trio.open_nursery() as nursery:
            if own.settings.fallback == "simulated":
                beside = partial(run_fallback, own.feed, environment=environment, bus=bus)
                nursery.start_soon(beside, name=f"fallback {own.name}")
            await own.feed.run()

    def _note_crash(self, own: RunningFeed, cause: BaseException, delay_s: float | None) -> None:
        """``delay_s`` None: it does not begin anew."""
        log.error(
            "venue.crashed",
            venue=own.name,
            problem=described(cause),
            again_s=None if delay_s is None else round(delay_s, 1),
            exc_info=cause,
        )
        self._context.metrics.venue_crashes.labels(own.name).inc()
        if delay_s is not None:
            own.feed.broke_off("restarting after an error")

    async def _replace(self, own: RunningFeed) -> None:
        async with self._turn:
            old, own.feed = own.feed, await self._make(own.name, own.settings)
            own.feed.take_over(old)
            self._close(set(old.stream_keys()) - set(own.feed.stream_keys()))

    async def apply(self, settings: Settings) -> None:
        """Make the feeds fit ``settings``, which were checked; those that do not change go on
        undisturbed.  Of other tables it is only said what wants a restart."""
        async with self._turn:
            wanted, old = _enabled(settings), self._settings
            self._settings = evolve(old, exchanges=settings.exchanges)
            if restart := needing_restart(old, settings):
                log.warning("settings.need_restart", keys=restart)
            for name in [name for name in self._feeds if name not in wanted]:
                self._close((await self._end(name)).stream_keys())
            for name, exchange in wanted.items():
                own = self._feeds.get(name)
                if own is None:
                    await self._start(name, exchange)
                    continue
                if own.settings == exchange:
                    continue
                self._resize(own, exchange)
                if own.settings == exchange:
                    continue  # nothing else has changed
                if _only_symbols_differ(own.settings, exchange):
                    await self._change(own, exchange)
                    log.info("venue.changed", venue=name, symbols=list(exchange.symbols))
                else:
                    ended = await self._end(name)
                    feed = await self._start(name, exchange, instead_of=ended)
                    self._close(set(ended.stream_keys()) - set(feed.stream_keys()))
            log.info("settings.applied", venues=list(self._feeds), need_restart=restart)

    async def refresh(self, name: str) -> Collection[str]:
        """Feed what is ``demanded`` and ``owned`` of a venue now; returns all symbols that are fed
        of it.  Raises StoreError; then nothing has changed."""
        async with self._turn:
            own = self._feeds.get(name)
            if own is None:
                return ()
            if EVERY in own.settings.symbols:
                await self._restart(own)  # symbols that come by themselves are not changed singly
            else:
                await self._change(own, own.settings)
            return self._feeds[name].feed.settings.symbols

    async def recall(self, name: str, symbols: Callable[[str], bool]) -> None:
        """Another node told these symbols of a venue until now, which are fed here as well: what it
        told last, out of the store, is compared with what this feed has.  Raises StoreError."""
        async with self._turn:
            if (own := self._feeds.get(name)) is None:
                return
            driver = own.feed.driver
            fed = tuple(filter(symbols, driver.engines))
            ends = await self._remembered.ends(name, evolve(own.settings, symbols=fed))
            stored = defaultdict[str, dict[Interval, Sequence[Kline]]](dict)
            for series, end in ends.items():
                stored[series.symbol][series.interval] = end.recent
            for symbol, rows in stored.items():
                driver.recall(symbol, rows)

    async def _restart(self, own: RunningFeed) -> None:
        if self._wanted(own.name, own.settings).symbols != own.feed.settings.symbols:
            ended = await self._end(own.name)
            self._close(ended.stream_keys())
            await self._start(own.name, own.settings)

    def _resize(self, own: RunningFeed, exchange: ExchangeSettings) -> None:
        """Requests that wait already are sent by the new budget too."""
        old = own.settings.connection.rest_weight_per_minute
        new = exchange.connection.rest_weight_per_minute
        if new != old:
            connection = evolve(own.settings.connection, rest_weight_per_minute=new)
            own.settings = evolve(own.settings, connection=connection)
            self._context.budgets.resize(own.feed.venue.SHARES, new)
            log.info("budget.changed", venue=own.feed.venue.NAME, rest_weight_per_minute=new)

    async def _start(
        self, name: str, exchange: ExchangeSettings, instead_of: VenueFeed | None = None
    ) -> VenueFeed:
        feed = await self._make(name, exchange)
        if instead_of is not None:
            feed.take_over(instead_of)
        own = self._feeds[name] = RunningFeed(name, feed, exchange)
        self._nursery.start_soon(self._run, own, name=f"feed {name}")
        log.info("venue.started", venue=name)
        return own.feed

    async def _end(self, name: str) -> VenueFeed:
        """Stop a feed.  Returns it as it was."""
        own = self._feeds.pop(name)
        own.scope.cancel()
        await own.over.wait()
        log.info("venue.ended", venue=name)
        return own.feed

    def _close(self, stream_keys: Iterable[StreamKey]) -> None:
        for stream_key in stream_keys:
            self._context.bus.close(stream_key)

    async def _change(self, own: RunningFeed, exchange: ExchangeSettings) -> None:
        feed, own.settings = own.feed, exchange
        name = feed.venue.NAME
        wanted = self._wanted(name, exchange)
        new = [symbol for symbol in wanted.symbols if symbol not in feed.settings.symbols]
        stored_ends = await self._remembered.read(name, evolve(wanted, symbols=tuple(new)))
        before = set(feed.stream_keys())
        found, demanded = self._redirected(name, wanted), _demanded(exchange, wanted)
        self._close(feed.change(found, stored_ends, demanded))
        self._go_on(feed, new)
        for stream_key in feed.stream_keys():
            if stream_key not in before:
                self._announce(feed, stream_key)
        for symbol in demanded.intersection(new):
            self._context.bus.set_waiting(name, symbol, _STARTING)

    async def _make(self, name: str, exchange: ExchangeSettings) -> VenueFeed:
        """A feed that goes on where the store ends, and its topics."""
        wanted = self._wanted(name, exchange)
        stored_ends = await self._remembered.read(name, wanted)
        found = self._redirected(name, wanted)
        context = evolve(self._context, simulated=self._is_simulated(name))
        cache, demanded = _cache(self._settings, name), _demanded(exchange, wanted)
        venue = make_venue(name, found)
        feed = VenueFeed(venue, found, context, stored_ends, cache, demanded)
        self._go_on(feed, wanted.symbols)
        for stream_key in feed.stream_keys():
            self._announce(feed, stream_key)
        return feed

    def _go_on(self, feed: VenueFeed, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            if (trade := self.told(feed.venue.NAME, symbol)) is not None:
                feed.go_on(symbol, trade)

    def _wanted(self, name: str, exchange: ExchangeSettings) -> ExchangeSettings:
        """The settings with the symbols that are to be fed now."""
        if not exchange.on_demand:
            owned = (symbol for symbol in exchange.symbols if self.owned(name, symbol))
            return evolve(exchange, symbols=tuple(owned))
        named = exchange.named
        more = [symbol for symbol in self.demanded(name, exchange) if symbol not in named]
        return evolve(exchange, symbols=(*named, *more))

    def _is_simulated(self, name: str) -> bool:
        return self._redirect is not None and name == self._settings.simulator.venue

    def _redirected(self, name: str, exchange: ExchangeSettings) -> ExchangeSettings:
        if self._redirect is None or not self._is_simulated(name):
            return exchange
        return self._redirect(exchange)

    def _announce(self, feed: VenueFeed, stream_key: StreamKey) -> None:
        history, first_ms = self._remembered.take(stream_key)
        sparse = feed.venue.TRADE_KIND is Kind.PRICE
        self._context.bus.open(stream_key, history, first_ms, sparse=sparse)


def _enabled(settings: Settings) -> dict[str, ExchangeSettings]:
    return {name: exchange for name, exchange in settings.exchanges.items() if exchange.enabled}


def _only_symbols_differ(old: ExchangeSettings, new: ExchangeSettings) -> bool:
    same = old == evolve(
        new,
        symbols=old.symbols,
        max_symbols=old.max_symbols,
        max_symbols_per_client=old.max_symbols_per_client,
        linger_s=old.linger_s,
    )
    return same and EVERY not in (*old.symbols, *new.symbols)


def _demanded(exchange: ExchangeSettings, wanted: ExchangeSettings) -> frozenset[str]:
    return frozenset(wanted.symbols).difference(exchange.named) if exchange.on_demand else _NONE


def _cache(settings: Settings, venue: str) -> Path | None:
    """The instrument table's copy lies beside the store."""
    if settings.store.path == MEMORY:
        return None
    return Path(settings.store.path).with_suffix(f".{venue}.instruments.json")
