"""This process as one of several nodes.

A node that feeds publishes on a bus of its own, and what it publishes of the shards that it owns
goes into their logs.  A node that serves reads the logs of all shards.  Who does both reads what
itself has written, as everybody does: so a client sees the same at any node.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Never

import structlog
import trio
from attrs import define, evolve, field

from ..bus.base import Reader
from ..bus.engine.attempts import Attempts
from ..bus.engine.base import Engine, EngineFault, LogReader, shard_of
from ..bus.engine.feeding import Feeding
from ..bus.engine.following import Following, bus_of_log
from ..bus.engine.shadow import Shadow
from ..bus.engine.shared import shared_log
from ..bus.engine.takeovers import venue_of
from ..bus.engine.writing import Writing
from ..bus.local import LocalBus
from ..environment import Environment
from ..feeds import Feeds
from ..metrics import Figures, Metrics
from ..settings import Settings
from ..start_wait import StartWait
from ..store import (
    CandleReader,
    KlineStore,
    MemoryDatabase,
    ShardStore,
    Sharing,
    open_reading_store,
    open_shared_store,
)
from ..wiring import UpstreamView
from . import figures, registry
from .agreement import Agreement, digests_of
from .caught_up import CaughtUp
from .database import DatabaseWatch
from .fitness import EngineWatch
from .foreign import ForeignLeases
from .freshness import Freshness
from .listings import Listings
from .membership import Membership
from .registry import Known
from .shards import has_any, shards_of_venue
from .speaking import speak
from .unfed import Unfed

log = structlog.get_logger()

_AT_ONCE_S = 0.001
_FIRST_READ_S = 5.0
DRAIN_S = 3.0
"""At the end shards are handed over within it, or are free when their leases run out."""


@define(eq=False)
class Node:
    """Made by :func:`open_node`; its parts are made in the order of the methods here."""

    settings: Settings
    environment: Environment
    engine: Engine
    holder: str
    shards: list[str]
    known: Known
    listings: Listings
    membership: Membership
    urls: Mapping[str, str] = field(factory=dict)
    """Where this node serves."""
    log: LogReader = field(init=False)
    """What is read here, by this process and its workers."""
    feeding: Feeding | None = None
    following: Following | None = None
    started_ms: float = 0.0
    agreement: Agreement = field(factory=Agreement)
    unfed: Unfed = field(factory=Unfed)
    database: DatabaseWatch = field(init=False)
    fitness: EngineWatch = field(init=False)
    foreign: ForeignLeases = field(init=False)
    freshness: Freshness = field(init=False)
    store: ShardStore | None = None
    """The common database, where this node feeds."""
    fed: Feeds | None = None
    """The feeds that run here."""
    own_why_not: Callable[[str], str] = lambda _venue: ""
    """By venue that is fed here why its data is not fresh."""
    left: trio.Event = field(factory=trio.Event)
    """This node is about to end."""
    _handed_over: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.freshness = Freshness(self.known)
        self.database = DatabaseWatch(self.membership)
        self.fitness = EngineWatch(self.engine, lambda: not self.engine_problem)
        self.foreign = ForeignLeases(self.settings.engine)
        has_workers = self.settings.server.workers > 1
        self.log = shared_log(self.engine, len(self.shards)) if has_workers else self.engine

    @property
    def name(self) -> str:
        return self.settings.node.name

    @property
    def engine_problem(self) -> str:
        """Why the engine is not used now; empty: it is."""
        found = [each.problem for each in (self.feeding, self.following) if each is not None]
        return next((problem for problem in found if problem), "")

    @property
    def feeds(self) -> bool:
        return "ingest" in self.settings.node.roles

    @property
    def serves(self) -> bool:
        return "push" in self.settings.node.roles

    def take_settings(self, settings: Settings) -> Settings:
        """Those of the start, or read anew.  Returns what the feeds of this node have of them."""
        known = self.venues()
        if late := [v for v, each in settings.exchanges.items() if each.enabled and v not in known]:
            # They have no shards.
            log.warning("settings.need_restart", keys=[f"exchanges.{venue}" for venue in late])
        exchanges = {v: each for v, each in settings.exchanges.items() if v not in late}
        self.unfed.exchanges = {} if self.feeds else exchanges
        return evolve(settings, exchanges=exchanges if self.feeds else {})

    def venues(self) -> list[str]:
        """Those of all nodes."""
        return [name for name, each in self.settings.exchanges.items() if each.enabled]

    def shard_of(self, venue: str, symbol: str) -> str:
        return shard_of(venue, symbol, shards_of_venue(self.settings, venue))

    @asynccontextmanager
    async def open_store(
        self, *, simulated: bool, metrics: Metrics, twin: MemoryDatabase | None, wait: StartWait
    ) -> AsyncIterator[KlineStore]:
        """The common database; one that is only read, where this node does not feed.  Raises
        StartError, also where it is not that of the other nodes."""
        if not self.feeds:
            async with open_reading_store(
                self.settings.store, simulated=simulated, metrics=metrics, twin=twin, wait=wait
            ) as store:
                await wait.until_there(partial(self.membership.begin, store))
                yield store
            return

        def fenced(shards: Collection[str]) -> None:
            if self.feeding is not None:
                self.feeding.fenced(shards)

        async with open_shared_store(
            self.settings.store,
            Sharing(self.shard_of, fenced),
            simulated=simulated,
            metrics=metrics,
            twin=twin,
            wait=wait,
        ) as self.store:
            await wait.until_there(partial(self.membership.begin, self.store))
            yield self.store

    def make_bus(self, store: KlineStore) -> LocalBus:
        """What the feeds of this node publish to."""
        kline = self.settings.kline
        bus = LocalBus(
            epoch=lambda key: 0 if self.feeding is None else self.feeding.writing.epoch_of(key),
            history_rows=kline.history_data_limit,
            resume_messages=kline.resume_messages,
            now_ms=self.environment.now_ms,
        )
        if self.store is not None:
            self.feeding = self._make_feeding(bus, self.store)
        return bus

    def _make_feeding(self, bus: LocalBus, store: ShardStore) -> Feeding:
        engine = self.settings.engine
        writing = Writing(
            bus,
            self.shard_of,
            store.oldest_pending,
            keep_s=max(30.0, 3 * engine.lease_s),
            buffer_bytes=engine.buffer_bytes,
        )
        feeding = Feeding(
            self.holder,
            self._attempts(),
            self.shards,
            store,
            writing,
            self._refresh,
            self._feeders,
            self.environment.now_ms,
            tick_s=engine.tick_ms / 1000,
            lease_s=engine.lease_s,
            retain_s=engine.retain_s,
            retain_bytes=engine.retain_bytes,
        )
        if engine.standby == "hot":
            shadow = Shadow(feeding.says, trio.current_time, feeding.last_trade)
            writing.follow_shadow(shadow)
        return feeding

    def _attempts(self) -> Attempts[Engine]:
        return Attempts(self._way, self.environment.random)

    def reader(self, bus: LocalBus, store: CandleReader) -> Reader:
        """What the hub of this node listens to."""
        if not self.serves:
            return bus
        make_bus = partial(bus_of_log, self.settings.kline)
        attempts = Attempts(self._way_to_log, self.environment.random)
        self.following = Following(attempts, self.shards, store, make_bus, self.environment.now_ms)
        return self.following

    def reading_store(self, store: CandleReader) -> CandleReader:
        following = self.following
        return store if following is None else CaughtUp(store, following.handed_out)

    async def open_feeds(self, feeds: Feeds) -> None:
        """They feed what this node owns, or follows.  Raises StoreError."""
        self._own(feeds)
        await (feeds.open() if self.feeding is None else self.feeding.follow_all(feeds.open))

    def _own(self, feeds: Feeds) -> None:
        self.fed = feeds
        if self.feeding is not None:
            feeds.owned = self.feeding.owns
            feeds.told = self.feeding.last_trade
            self.feeding.recall = self._recall
            fed, roles = digests_of(feeds.exchanges), list(self.settings.node.roles)
            own = registry.first_words(self.name, self.holder, roles, self.started_ms, fed)
            self.agreement.note(own, self.known.said, trio.current_time())
            self.feeding.may_take = self.agreement.may_take
            if self.settings.engine.standby == "hot":
                self.feeding.is_worse = lambda venue: self.freshness.is_worse(
                    venue, trio.current_time()
                )

    async def _refresh(self, venue: str) -> None:
        if self.fed is not None:
            await self.fed.refresh(venue)

    async def _recall(self, shard: str) -> None:
        venue = venue_of(shard)
        if self.fed is not None:
            await self.fed.recall(venue, lambda symbol: self.shard_of(venue, symbol) == shard)

    def _feeders(self) -> list[str]:
        found = {name for name, said in self.known.said.items() if said.feeds and not said.waits}
        return sorted(found | ({self.name} if self.feeds else set()))

    @asynccontextmanager
    async def _way(self) -> AsyncIterator[Engine]:
        """The engine of this node mends its connections by itself."""
        await trio.lowlevel.checkpoint()
        yield self.engine

    @asynccontextmanager
    async def _way_to_log(self) -> AsyncIterator[LogReader]:
        await trio.lowlevel.checkpoint()
        yield self.log

    # Tasks

    async def run(self, view: UpstreamView, store: KlineStore, clients: Callable[[], int]) -> Never:
        """Feed, read, and say how it goes.  Until cancelled."""
        async with trio.open_nursery() as nursery:
            if self.feeding is not None:
                nursery.start_soon(self.feeding.run, name="engine feeding")
                assert self.fed is not None, "there are feeds"
                nursery.start_soon(self.listings.tell, self.fed, name="engine listings")
            if self.following is not None:
                nursery.start_soon(self.following.run, name="engine following")
            nursery.start_soon(speak, self, view, clients, name="engine registry")
            nursery.start_soon(self.database.run, store, name="database watchman")
            nursery.start_soon(self.fitness.run, name="engine watchman")
            nursery.start_soon(self._hand_over, name="engine handover")
        raise AssertionError("unreachable")

    def leave(self) -> None:
        """Before the feeds end: what they say then goes to nobody.  The shards are handed over
        beside that, for an exchange may let a connection that closes wait."""
        if self.feeding is not None:
            self.feeding.leave()
        self.left.set()

    async def until_reads(self) -> None:
        """Where others feed everything: until this node knows how it stands, while :meth:`run`
        runs, or for a while.  An earlier client would hear that there is no such symbol."""
        if self.following is None:
            return
        with trio.move_on_after(_FIRST_READ_S), suppress(EngineFault):
            if all((await self.engine.holders(self.shards)).values()):
                await self.following.begun.wait()
                await self.listings.read()

    async def drain(self) -> None:
        """Leave, and wait until the shards are handed over; while :meth:`run` runs."""
        self.leave()
        with trio.move_on_after(DRAIN_S):
            await self._handed_over.wait()

    async def _hand_over(self) -> None:
        """Leave the list of nodes, and hand the shards over."""
        await self.left.wait()
        with trio.move_on_after(DRAIN_S):
            with suppress(EngineFault):
                await self.engine.put_node(self.name, b"", _AT_ONCE_S)
            if self.feeding is not None:
                await self.feeding.drain()
        self._handed_over.set()

    def give_view(self, own: UpstreamView) -> None:
        """``own``: of this node's feeds."""
        self.own_why_not = own.why_not

    def figures(self) -> Figures:
        """Those of :data:`.figures.INSTRUMENTS`."""
        return figures.read(
            self.shards,
            self.known.said.values(),
            self.feeding,
            self.following,
            trio.current_time(),
            engine_fit=not self.fitness.lacks,
            database_up=not self.database.problem,
            differing=len(self.agreement.differs),
            unfed=self.unfed.count,
        )

    def why_not_here(self, venue: str) -> str:
        """Nothing is to be said of a venue of which this node owns nothing."""
        own = set() if self.feeding is None else self.feeding.own
        return self.own_why_not(venue) if has_any(own, venue) else ""
