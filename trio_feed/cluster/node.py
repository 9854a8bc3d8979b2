"""This process as one of several nodes.

A node that feeds publishes on a bus of its own, and what it publishes of the shards that it owns
goes into their logs.  A node that serves reads the logs of all shards.  Who does both reads what
itself has written, as everybody does: so a client sees the same at any node.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Never

import structlog
import trio
from attrs import define, evolve, field

from .. import __version__
from ..bus import wire
from ..bus.base import Reader
from ..bus.engine.base import Engine, EngineFault, shard_of, shards_of
from ..bus.engine.feeding import Feeding
from ..bus.engine.following import Following
from ..bus.engine.opening import make_engine
from ..bus.engine.shadow import Shadow
from ..bus.engine.writing import Writing
from ..bus.local import LocalBus
from ..bus.remote import RemoteBus
from ..environment import Environment
from ..errors import StartError
from ..feeds import Feeds
from ..ingest.driver import EVERY
from ..ingest.fed import FedInstruments
from ..metrics import Metrics
from ..model import Instrument
from ..push.edge.routes import ServiceReport
from ..push.fanout.hub import Hub
from ..settings import EngineSettings, Settings
from ..store import (
    CandleReader,
    KlineStore,
    MemoryDatabase,
    ShardStore,
    Sharing,
    open_reading_store,
    open_shared_store,
    open_store,
)
from ..venues import Instruments
from ..wiring import OpenSymbols, UpstreamView
from . import registry
from .caught_up import CaughtUp
from .registry import Said

log = structlog.get_logger()

MakeEngine = Callable[[EngineSettings, bytes], AbstractAsyncContextManager[Engine]]

_SAY_S = 1.0
_LIST_S = 5.0
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
    feeding: Feeding | None = None
    following: Following | None = None
    said: dict[str, Said] = field(factory=dict)
    """By name what all nodes said last."""
    tables: dict[str, Instruments] = field(factory=dict)
    _started_ms: float = 0.0
    _store: ShardStore | None = None
    _venues: Feeds | None = None

    @property
    def name(self) -> str:
        return self.settings.node.name

    @property
    def feeds(self) -> bool:
        return "ingest" in self.settings.node.roles

    @property
    def serves(self) -> bool:
        return "push" in self.settings.node.roles

    def fed_settings(self) -> Settings:
        """For the feeds of this node."""
        return self.settings if self.feeds else evolve(self.settings, exchanges={})

    def shard_of(self, venue: str, symbol: str) -> str:
        return shard_of(venue, symbol, _shards_of(self.settings, venue))

    @asynccontextmanager
    async def open_store(
        self, *, simulated: bool, metrics: Metrics, twin: MemoryDatabase | None
    ) -> AsyncIterator[KlineStore]:
        """The common database; one that is only read, where this node does not feed."""
        if not self.feeds:
            async with open_reading_store(
                self.settings.store, simulated=simulated, metrics=metrics, twin=twin
            ) as store:
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
        ) as self._store:
            yield self._store

    def make_bus(self, store: KlineStore) -> LocalBus:
        """What the feeds of this node publish to."""
        kline = self.settings.kline
        bus = LocalBus(
            epoch=lambda key: 0 if self.feeding is None else self.feeding.writing.epoch_of(key),
            history_rows=kline.history_data_limit,
            resume_messages=kline.resume_messages,
            now_ms=self.environment.now_ms,
        )
        if self._store is not None:
            self.feeding = self._make_feeding(bus, self._store)
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
            self._way,
            self.shards,
            store,
            writing,
            self._refresh,
            self._feeders,
            self.environment.now_ms,
            self.environment.random,
            tick_s=engine.tick_ms / 1000,
            lease_s=engine.lease_s,
            retain_s=engine.retain_s,
            retain_bytes=engine.retain_bytes,
        )
        if engine.standby == "hot":
            writing.follow_shadow(Shadow(feeding.says, trio.current_time))
        return feeding

    def reader(self, bus: LocalBus, store: CandleReader) -> Reader:
        """What the hub of this node listens to."""
        if not self.serves:
            return bus
        kline = self.settings.kline
        make_bus = partial(
            RemoteBus,
            history_rows=kline.history_data_limit,
            resume_messages=kline.resume_messages,
            tell_kept=_kept,
            now=trio.current_time,
            repairs=True,
        )
        self.following = Following(self._way, self.shards, store, make_bus, self.environment.random)
        return self.following

    def reading_store(self, store: CandleReader) -> CandleReader:
        following = self.following
        return store if following is None else CaughtUp(store, following.handed_out)

    def own_feeds(self, feeds: Feeds) -> None:
        """They feed what this node owns."""
        self._venues = feeds
        if self.feeding is not None:
            feeds.owned = self.feeding.owns

    async def _refresh(self, venue: str) -> None:
        if self._venues is not None:
            await self._venues.refresh(venue)

    def _feeders(self) -> list[str]:
        found = {name for name, said in self.said.items() if said.feeds}
        return sorted(found | ({self.name} if self.feeds else set()))

    @asynccontextmanager
    async def _way(self) -> AsyncIterator[Engine]:
        """The engine of this node mends its connections by itself."""
        await trio.lowlevel.checkpoint()
        yield self.engine

    # Tasks

    async def run(self, view: UpstreamView, clients: Callable[[], int]) -> Never:
        """Feed, read, and say how it goes.  Until cancelled."""
        async with trio.open_nursery() as nursery:
            if self.feeding is not None:
                nursery.start_soon(self.feeding.run, name="engine feeding")
                nursery.start_soon(self._tell_listings, name="engine listings")
            if self.following is not None:
                nursery.start_soon(self.following.run, name="engine following")
            nursery.start_soon(self._say, view, clients, name="engine registry")
        raise AssertionError("unreachable")

    async def drain(self) -> None:
        """Hand the shards over; while :meth:`run` runs, and after the feeds ended."""
        if self.feeding is not None:
            with trio.move_on_after(DRAIN_S):
                await self.feeding.drain()

    async def _say(self, view: UpstreamView, clients: Callable[[], int]) -> Never:
        looked = 0
        while True:
            venues = [] if self._venues is None else self._venues.names
            said = Said(
                self.name,
                self.holder,
                __version__,
                list(self.settings.node.roles),
                sorted(self.feeding.own) if self.feeding is not None else [],
                venues,
                {venue: why for venue in venues if (why := view.why_not(venue))},
                view.report.not_ready(),
                clients(),
                self._started_ms,
                {},
            )
            try:
                await self.engine.put_node(self.name, registry.written(said), registry.TTL_S)
                self.said = registry.read_all(await self.engine.nodes())
                if looked % round(_LIST_S / _SAY_S) == 0:
                    await self._read_listings()
            except EngineFault:
                pass  # those who feed and read say so
            looked += 1
            await trio.sleep(_SAY_S)

    async def _read_listings(self) -> None:
        for venue, exchange in self.settings.exchanges.items():
            if exchange.enabled:
                body = await self.engine.value(registry.listing_key(venue))
                if body is not None:
                    self.tables[venue] = Instruments(registry.read_listing(body))

    async def _tell_listings(self) -> Never:
        """The lists of what this node feeds, for nodes that ask no exchange."""
        told: dict[str, bytes] = {}
        while True:
            for venue in [] if self._venues is None else self._venues.names:
                found = self._listed(venue)
                body = registry.write_listing(found)
                if found and told.get(venue) != body:
                    try:
                        await self.engine.put_value(registry.listing_key(venue), body)
                    except EngineFault:
                        break
                    told[venue] = body
            await trio.sleep(_LIST_S)

    def _listed(self, venue: str) -> list[Instrument]:
        """All of the settings, whoever feeds them: each such node says the same."""
        exchange = self.settings.exchanges[venue]
        assert self._venues is not None, "there are feeds"
        feed = self._venues.feed_of(venue)
        table = None if feed is None else feed.table
        if table is None:
            return []
        if EVERY in exchange.symbols:
            return list(self._venues.listing(venue).fed())
        named = (table.of_symbol(symbol) for symbol in exchange.symbols)
        return [each for each in named if each is not None]

    # What the push side is told

    def view(self, own: UpstreamView, hub: Hub) -> UpstreamView:
        """``own``: of this node's feeds."""

        def status() -> dict[str, Any]:
            return {
                **own.report.status(),
                "node": self.name,
                "nodes": {name: said.shown() for name, said in sorted(self.said.items())},
                "shards": self._shards_shown(),
                "engine": {"kind": self.settings.engine.kind, "problem": self._problem()},
            }

        def not_ready() -> str:
            if self.following is not None and (why := self.following.why_not()):
                return why
            if self.feeding is not None and self.feeding.problem:
                return f"engine: {self.feeding.problem}"
            return "" if self.serves and not self.feeds else own.report.not_ready()

        def why_not(venue: str) -> str:
            if own_why := own.why_not(venue):
                return own_why
            said = (each.why_not.get(venue, "") for each in self.said.values())
            return next((why for why in said if why), "")

        def listing(venue: str) -> FedInstruments:
            if not self.serves:
                return own.listing(venue)  # type: ignore[return-value]
            table = self.tables.get(venue, Instruments())
            return FedInstruments(table, OpenSymbols(hub, venue))

        return evolve(
            own,
            report=ServiceReport(status, not_ready, own.report.clock),
            why_not=why_not,
            listing=listing,
            outside=None,
        )

    def _problem(self) -> str:
        found = [each.problem for each in (self.feeding, self.following) if each is not None]
        return next((problem for problem in found if problem), "")

    def _shards_shown(self) -> Mapping[str, str]:
        """By shard the node that feeds it."""
        owners = {shard: name for name, said in self.said.items() for shard in said.shards}
        return {shard: owners.get(shard, "") for shard in self.shards}


def _kept(_stream: int) -> None:
    """Each node keeps what its own clients need."""


def _shards_of(settings: Settings, venue: str) -> int:
    """A venue whose symbols come by themselves is one shard."""
    exchange = settings.exchanges.get(venue)
    return 1 if exchange is not None and EVERY in exchange.symbols else settings.engine.shards


@asynccontextmanager
async def open_node(
    settings: Settings, environment: Environment, make: MakeEngine = make_engine
) -> AsyncIterator[Node | None]:
    """This process as a node; None: it is alone.  Raises StartError."""
    if settings.engine.kind == "memory":
        yield None
        return
    shards = [
        shard
        for venue, exchange in settings.exchanges.items()
        if exchange.enabled
        for shard in shards_of(venue, _shards_of(settings, venue))
    ]
    cluster = f"wire {wire.VERSION}, {settings.engine.shards} shards of each venue".encode()
    async with make(settings.engine, cluster) as engine:
        name = settings.node.name
        try:
            others = registry.read_all(await engine.nodes())
        except EngineFault as fault:
            raise StartError(f"engine.urls: {fault}") from None
        holder = f"{name}:{secrets.token_hex(4)}"
        node = Node(settings, environment, engine, holder, shards, said=others)
        node._started_ms = environment.now_ms()
        yield node


@asynccontextmanager
async def open_stores(
    settings: Settings,
    node: Node | None,
    environment: Environment,
    metrics: Metrics,
    twin: MemoryDatabase | None,
) -> AsyncIterator[KlineStore]:
    """The store of a process that is alone, or that of all nodes.  Raises StartError."""
    simulated = settings.simulator.enabled
    if node is not None:
        async with node.open_store(simulated=simulated, metrics=metrics, twin=twin) as shared:
            yield shared
        return
    now_ms = environment.now_ms()
    async with open_store(
        settings.store, simulated=simulated, now_ms=now_ms, metrics=metrics
    ) as store:
        yield store
