"""The task tree of one venue.

venue
├─ processor        messages of all connections -> driver, one after the other; those that come
│                   alone go there from their connection
├─ timer            wakes the engines whose time has come
├─ fetcher x N      REST questions, the most urgent first, one budget
├─ loader           stored minutes for candles that are made of them
├─ rotator          connections that are to be replaced
├─ instruments      the venue's list, at start and again
├─ gauges
├─ chain            of a venue whose prices are repaired: what to ask its nodes
├─ retirer          symbols that came by themselves and are idle
└─ pool             connections, each restarted by itself
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import structlog
import trio
from attrs import asdict, evolve

from ..core.opening import End
from ..core.settled import has_candles
from ..environment import mono
from ..metrics import ProxySample
from ..model import Channel, Interval, Series, StreamKey, Trade
from ..model.demand import SUBSCRIBE
from ..net.egress import make_egress, policy_of_one
from ..net.proxy_health import ProxyStatistics
from ..net.rest import RestClient
from ..net.route import Route
from ..settings import ExchangeSettings
from ..store.base import StoredEnd
from ..venues import AnyInstrument, Instruments, Venue
from ..venues.base import ChainVenue, OpenInterestVenue
from .connection import BATCH, ConnectionState
from .context import FeedContext
from .driver import EVERY, Driver
from .fed import FedInstruments
from .fetcher import Fetcher
from .intake import Intake, Outlet
from .listing import ListKeeper
from .newcomers import Newcomers
from .polls import OpenInterestPoll
from .pool import Pool
from .processor import Processor
from .readiness import why_not_ready
from .rest_clients import RestClients
from .rules import rules_of
from .symbols import WantedSymbols
from .tasks import run_gauges, run_loader, run_rotator, run_timer

if TYPE_CHECKING:
    from .chain import ChainFeed


class VenueFeed:
    """One venue of the settings.  Made from the store's ends, run once with :meth:`run`.

    ``cache`` is where the instrument table is kept on disk; None: nowhere.  ``demanded``: those of
    the symbols that are fed because clients asked for them.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        context: FeedContext,
        stored_ends: Mapping[Series, StoredEnd],
        cache: Path | None = None,
        demanded: Collection[str] = (),
    ) -> None:
        self.venue, self.settings = venue, settings
        self._environment, self._store = context.environment, context.store
        self._metrics = context.metrics
        self._metrics.expect(venue.NAME)
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._table: Instruments | None = None
        self.listed = trio.Event()
        """Set when the venue's list is known."""
        self._fit: Callable[[], None] = lambda: None
        self._chain: ChainFeed | None = None
        connection = settings.connection
        self._dials = context.budgets.dials(venue.SHARES, *venue.DIALS)
        if connection.proxy.address and not connection.proxy.enabled:
            self._log.warning(
                "proxy.not_used", address=connection.proxy.address, problem="enabled is false"
            )
        self._route = Route(
            dial=context.environment.dial,
            proxy_settings=connection.proxy,
            environ=context.environ,
            ca_file=connection.ca_file,
            timeout_s=connection.tunnel_timeout_s,
            tls_strict=connection.tls_strict,
            egress=make_egress(connection),
            environ_pools={},
            policy=policy_of_one(connection),
            dials=self._dials,
        )
        self.driver = Driver(rules_of(venue, context.keep), settings, context)
        self.driver.demanded = frozenset(demanded)
        self.pool = Pool(
            venue,
            connection,
            route=self._route,
            environment=context.environment,
            metrics=context.metrics,
            driver=self.driver,
        )
        self._clients = RestClients(
            venue, settings, evolve(self._route, dials=None), context.budgets, self.driver
        )
        self._symbols = WantedSymbols(venue, self.driver, context.bus)
        self._keeper = ListKeeper(
            venue,
            settings,
            context.environment,
            cache,
            self.driver.note_answer,
            self._symbols.awaited,
            self.pool.carrying,
        )
        self._newcomers = Newcomers(self.driver, context.store, context.bus)
        self._broke_off = ""
        for symbol in self._first_symbols(stored_ends):
            self._open(symbol, stored_ends)

    def __repr__(self) -> str:
        return f"<feed {self.venue.NAME} {self.pool!r}>"

    @property
    def connections(self) -> list[ConnectionState]:
        """Of every connection that there is now."""
        return self.pool.states

    def stream_keys(self) -> list[StreamKey]:
        """Everything that one can subscribe to."""
        return self.driver.stream_keys()

    @property
    def rest(self) -> RestClient | None:
        """What asks the venue, while it is open."""
        return self._clients.rest

    @property
    def route(self) -> Route:
        """Its way out."""
        return self._route

    @property
    def table(self) -> Instruments | None:
        """The venue's list; None: it is not known yet."""
        return self._table

    def instruments(self, *, every: bool = False) -> FedInstruments:
        """Those that are fed, as far as the venue's list is known.  ``every``: see
        :class:`.FedInstruments`."""
        table = Instruments() if self._table is None else self._table
        return FedInstruments(table, self.driver.engines, every)

    def is_settled(self, symbol: str, kind: str) -> bool:
        """What a client that asks for this ``kind`` (see :class:`.Wish`) waits for is there."""
        engine = self.driver.engines.get(symbol)
        if engine is None or kind == SUBSCRIBE:
            return engine is not None
        return has_candles(engine, Interval(kind), self.driver.now())

    def is_begun(self, symbol: str, kind: str) -> bool:
        """Some of it is there, so that an answer is no guess."""
        engine = self.driver.engines.get(symbol)
        if engine is None or kind == SUBSCRIBE:
            return engine is not None
        ledger = engine.candles.ledgers.get(Interval(kind))
        return ledger is None or not ledger.fresh

    def proxies(self) -> list[ProxySample]:
        """A snapshot for the metrics."""
        name = self.venue.NAME
        return [
            ProxySample(name, n, p.kind, p.address, p.state == "healthy", p.failures, p.successes)
            for n, p in enumerate(self._proxies(), 1)
        ]

    def _proxies(self) -> Sequence[ProxyStatistics]:
        return [found for pool in self._route.pools for found in pool.statistics(mono())]

    def status(self) -> dict[str, Any]:
        """A snapshot for the status page."""
        return {
            "connections": [state.statistics() for state in self.connections],
            "proxies": [asdict(proxy) for proxy in self._proxies()],
            "dials_waiting": self._dials.waiting,
            "rest_waiting": self._clients.waiting,
            "questions": len(self.driver.queues.fetches),
            "instruments": 0 if self._table is None else len(self._table),
            "unavailable": self._symbols.problems,
            "series": self.driver.series(),
            "series_held": self.driver.holding(),
            "series_behind": self.driver.behind(),
            "stale_books": self.driver.stale_books(),
            "streams": self.driver.streams(),
        }

    def not_ready(self, fresh_s: float) -> str:
        """Why this venue's data is not fresh; empty when it is."""
        rest, oldest_ms = self._clients.rest, self._environment.now_ms() - fresh_s * 1000
        asked = "" if rest is None else rest.problem
        why = self._broke_off or why_not_ready(
            self.pool,
            self.driver,
            self._symbols.problems,
            asked,
            oldest_ms,
            idle=self._table is not None and not self.settings.symbols,
        )
        return f"{self.venue.NAME}: {why}" if why else ""

    def clock_error_ms(self) -> float | None:
        """By how much our calendar is ahead of the exchange's; None while unknown."""
        return self.driver.clock.error_of(self._environment.wall(), mono())

    def clock_stepped(self) -> None:
        """Our calendar and the monotonic clock have parted: what waits for a time looks again."""
        self.driver.clock_stepped()

    def broke_off(self, reason: str) -> None:
        """It is given up: subscribers that do not know of its lost connections hear of them now."""
        self._broke_off = reason
        self._fit = lambda: None  # its nursery is closed
        for engine in self.driver.engines.values():
            self.driver.perform(engine, engine.broke_off(reason))

    def take_over(self, old: "VenueFeed") -> None:
        """This feed takes the place of one that ended or broke off; subscribers were told."""
        for symbol, engine in self.driver.engines.items():
            if (before := old.driver.engines.get(symbol)) is not None:
                engine.take_over(before)

    def go_on(self, symbol: str, trade: Trade) -> None:
        """Another feed told a symbol's trades up to this one."""
        if (engine := self.driver.engines.get(symbol)) is not None:
            engine.go_on(trade)

    def change(
        self,
        settings: ExchangeSettings,
        stored_ends: Mapping[Series, StoredEnd],
        demanded: Collection[str] = (),
    ) -> list[StreamKey]:
        """Take other symbols; ``settings`` differ in nothing that is of concern here.  New ones go
        on where their stored series end.  Returns what there is no more."""
        old, self.settings = self.settings.symbols, settings
        self.driver.settings, self.driver.demanded = settings, frozenset(demanded)
        gone = [symbol for symbol in old if symbol not in settings.symbols]
        closed = [stream_key for symbol in gone for stream_key in self.driver.close(symbol)]
        if self._chain is not None:  # prices of symbols that are new now were ignored before
            self._chain.prices.known_from_now()
        for symbol in settings.symbols:
            if symbol not in old:
                self._open(symbol, stored_ends)
        self._fit()
        if self._table is not None and self._symbols.awaited(self._table):
            self._keeper.ask_again()  # listed since it was fetched, perhaps
        return closed

    def _first_symbols(self, stored_ends: Mapping[Series, StoredEnd]) -> list[str]:
        """Those of the settings; for "every symbol" those that the store knows."""
        named = [symbol for symbol in self.settings.symbols if symbol != EVERY]
        if EVERY in self.settings.symbols:
            known = dict.fromkeys(s.symbol for s in stored_ends if s.venue == self.venue.NAME)
            named += list(known)[: self.settings.most_symbols]
        return list(dict.fromkeys(named))

    def _open(self, symbol: str, stored_ends: Mapping[Series, StoredEnd]) -> None:
        name = self.venue.NAME
        ends = {
            series.interval: End(own.kline, own.settled_ms, own.first_open_ms, own.recent)
            for series, own in stored_ends.items()
            if series.venue == name and series.symbol == symbol
        }
        self.driver.open(symbol, ends)

    async def run(self) -> Never:
        """Until cancelled.  A lost connection restarts alone; anything else is a bug."""
        name = self.venue.NAME
        async with AsyncExitStack() as stack:
            rest = await self._clients.open_rest(stack)
            self._chain = await self._open_chain(stack)
            processor = Processor(self.driver, self._store, self._newcomers, self._chain)
            most = max(1, self.settings.buffer_messages // BATCH)
            intake = Intake(most, self._store, processor.take_now)
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(processor.run, intake, name=f"{name} processor")
            nursery.start_soon(run_timer, self.driver, name=f"{name} timer")
            nursery.start_soon(run_loader, self.driver, self._store, name=f"{name} loader")
            nursery.start_soon(run_rotator, self.driver, self.pool, name=f"{name} rotator")
            nursery.start_soon(run_gauges, self.driver, self._metrics, name=f"{name} gauges")
            if self._chain is not None:
                nursery.start_soon(self._chain.run, name=f"{name} chain")
            if EVERY in self.settings.symbols:
                nursery.start_soon(self._newcomers.retire, name=f"{name} retirer")
            if self.settings.connection.redundancy > 1:
                nursery.start_soon(self.pool.part, name=f"{name} lanes")
            if rest is None:
                self._apply(AnyInstrument(name, "token"), nursery, intake, None)
            else:
                fetcher = Fetcher(self.venue, self.driver, rest, self._store, self._metrics)
                for number in range(self.settings.backfill_workers):
                    nursery.start_soon(fetcher.work, name=f"{name} fetcher {number}")
                if Channel.OPEN_INTEREST in self.settings.channels and isinstance(
                    self.venue, OpenInterestVenue
                ):
                    poll = OpenInterestPoll(
                        self.venue, self.driver, rest, self._listed, self._metrics
                    )
                    nursery.start_soon(poll.run, name=f"{name} open interest")
                use = partial(self._apply, nursery=nursery, outlet=intake, fetcher=fetcher)
                nursery.start_soon(self._keeper.run, rest, use, name=f"{name} instruments")
            await trio.sleep_forever()
        raise AssertionError("the venue's tasks run until cancelled")

    def _listed(self) -> Instruments:
        return Instruments() if self._table is None else self._table

    async def _open_chain(self, stack: AsyncExitStack) -> "ChainFeed | None":
        """The repair of a venue that can be repaired."""
        if not isinstance(self.venue, ChainVenue):
            return None
        from .chain_opening import is_repaired, open_chain  # what no exchange needs

        if not is_repaired(self.venue):
            return None
        nodes = await self._clients.open_nodes(stack)
        chain = await open_chain(
            self.venue, self.settings.solana, self.driver, nodes, self._newcomers
        )
        self.driver.prices_quiet = chain.is_quiet
        self._newcomers.chain = chain.prices
        return chain

    def _apply(
        self,
        table: Instruments,
        nursery: trio.Nursery,
        outlet: Outlet,
        fetcher: Fetcher | None,
    ) -> None:
        """Use the table from now on, and make the connections fit it."""
        self._table = self.pool.instruments = table
        self.listed.set()
        if fetcher is not None:
            fetcher.instruments = table

        def fit() -> None:
            self._apply(table, nursery, outlet, fetcher)

        self._fit = fit
        self.pool.apply(dict.fromkeys(self._symbols.use(table)), nursery, outlet)
