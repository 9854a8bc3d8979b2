"""Everything of one venue: its connections, its processor, its backfill workers, in one nursery."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Never

import structlog
import trio
from attrs import asdict, evolve
from trio_util import AsyncValue

from ..core import calendar
from ..core.coverage import coverage
from ..environment import Environment
from ..errors import BadMessage, NetworkError
from ..metrics import Metrics
from ..model import Channel, Instrument, Interval, Series, Subject
from ..net.budgets import Budgets
from ..net.egress import make_egress
from ..net.rest import RestClient, open_rest
from ..net.route import Route
from ..settings import ExchangeSettings
from ..store import KlineStore
from ..store.base import Tail
from ..supervise import Backoff
from ..venues import AnyInstrument, Instruments, Kind, Plan, Stream, Venue
from . import instruments
from .backfill import run_worker
from .connection import ConnectionState, Incoming
from .firsts import Firsts
from .links import Links
from .outlet import Publish
from .pipeline import EVERY, Pipeline
from .watch import Watch

_MEASURE_S = 30.0
_WINDOWS_MS = {"hour": 3_600_000, "day": 86_400_000}

_HOLD_BOOKS_MS = 500.0
"""With redundancy: how much one connection may be ahead of the other."""
_CAUGHT_UP_MS = 1_000
"""A message this old was not kept waiting."""


class VenueFeed:
    """One venue of the settings.  Made from the store's tails, run once with :meth:`run`.

    ``carrying``: how many of its links deliver.

    ``budgets`` are the process's.  ``cache`` is where the instrument table is kept on disk; None:
    nowhere.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        *,
        world: Environment,
        environ: Mapping[str, str] | None,
        tails: Mapping[Series, Tail],
        store: KlineStore,
        publish: Publish,
        announce: Callable[[Subject], None],
        name: Callable[[str, str], None],
        simulated: bool,
        metrics: Metrics,
        budgets: Budgets,
        cache: Path | None = None,
    ) -> None:
        self.venue, self.settings = venue, settings
        self.instruments: Instruments = Instruments()
        self.carrying = AsyncValue(0)
        self._fit: Callable[[], None] = lambda: None
        self._name = name
        self._world, self._store, self._metrics, self._cache = world, store, metrics, cache
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._late = False
        connection = settings.connection
        self._dials = budgets.dials(venue.SHARES, *venue.DIALS)
        self._route = Route(
            dial=world.dial,
            proxy_settings=connection.proxy,
            environ=environ,
            ca_file=connection.ca_file,
            timeout_s=connection.tunnel_timeout_s,
            egress=make_egress(connection),
            dials=self._dials,
            now_ms=world.now_ms,
        )
        self._weights = budgets.weights(
            venue.SHARES, connection.rest_weight_per_minute, venue.BURST_S
        )
        self.pipeline = Pipeline(
            venue,
            settings,
            tails=tails,
            store=store,
            publish=publish,
            announce=announce,
            renew=lambda symbol: self._links.renew(symbol, Kind.BOOK),
            now_ms=world.now_ms,
            simulated=simulated,
            metrics=metrics,
        )

        self._links = Links(
            venue,
            connection,
            route=self._route,
            world=world,
            metrics=metrics,
            instruments=lambda: self.instruments,
            up=self._up,
            down=self._down,
        )
        self._firsts = Firsts(_HOLD_BOOKS_MS if connection.redundancy > 1 else 0.0)
        self.watch = Watch(
            venue,
            connection,
            instruments=lambda: self.instruments,
            flows=self.pipeline.flows,
            stalled=lambda stream, reason: self.pipeline.lost([stream], reason),
            rotate=lambda stream: self._links.rotate(stream, "stale"),
            beside=self._links.beside,
            metrics=metrics,
        )

    def __repr__(self) -> str:
        return f"<feed {self.venue.NAME} {self._links!r}>"

    def _up(self, plan: Plan) -> None:
        self.carrying.value += 1
        self.pipeline.resumed(plan.streams)
        self.watch.up(plan.streams)

    def _down(self, plan: Plan) -> None:
        self.carrying.value -= 1
        self._firsts.forget(stream.symbol for stream in plan.streams if stream.kind is Kind.BOOK)
        self.watch.lost(plan.streams)
        self.pipeline.lost(plan.streams)

    @property
    def connections(self) -> list[ConnectionState]:
        """Of every connection that there is now."""
        return self._links.states

    def status(self) -> dict[str, Any]:
        """A snapshot for the status page."""
        egress = self._route.egress
        proxies = () if egress is None else egress.statistics(self._world.now_ms())
        return {
            "connections": [state.statistics() for state in self.connections],
            "proxies": [asdict(proxy) for proxy in proxies],
            "dials_waiting": self._dials.waiting,
            "rest_waiting": self._weights.waiting,
            "instruments": len(self.instruments),
            "series": len(self.pipeline.ledgers),
            "series_held": self.pipeline.held(),
            "series_behind": self.pipeline.behind(),
            "stale_books": self.pipeline.stale_books(),
            "streams": self.watch.statistics(),
        }

    def not_ready(self, fresh_s: float) -> str:
        """Why this venue's data is not fresh; empty when it is."""
        name, oldest = self.venue.NAME, self._world.now_ms() - fresh_s * 1000
        if not self._links.links:
            return f"{name}: no instruments yet"
        for link in self._links.links:
            if not link.live:
                return f"{name}: {link.name} does not deliver"
            if (link.last_message_ms or 0) < oldest:
                return f"{name}: {link.name} is silent"
        if behind := self.pipeline.behind():
            return f"{name}: {behind} series lack closed candles"
        return ""

    async def change(
        self, settings: ExchangeSettings, tails: Mapping[Series, Tail]
    ) -> list[Subject]:
        """Take other symbols; ``settings`` differ in nothing else.  New ones go on where their
        stored series end.  Returns what there is no more."""
        old, self.settings = self.settings.symbols, settings
        gone = [symbol for symbol in old if symbol not in settings.symbols]
        closed = [subject for symbol in gone for subject in self.pipeline.close(symbol)]
        new = [symbol for symbol in settings.symbols if symbol not in old]
        for symbol in new:
            self.pipeline.open(symbol, tails)
        await self._seed_rollups(new)
        self._fit()
        return closed

    async def run(self) -> Never:
        """Until cancelled.  A lost connection restarts alone; anything else is a bug."""
        outlet, inlet = trio.open_memory_channel[Incoming](self.settings.buffer_messages)
        name = self.venue.NAME
        await self._seed_rollups(self.settings.symbols)
        async with AsyncExitStack() as stack:
            rest = await self._open_rest(stack)
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(self._process, inlet, name=f"{name} processor")
            nursery.start_soon(self._measure, name=f"{name} gauges")
            if self.settings.connection.redundancy > 1:
                nursery.start_soon(self._links.part, name=f"{name} lanes")
            if self.settings.trade_intervals:
                nursery.start_soon(self._close_by_time, name=f"{name} candle clock")
            if rest is None:
                self._apply(AnyInstrument(name, "token"), nursery, outlet)
            else:
                self._start_workers(rest, nursery)
                nursery.start_soon(self.watch.run, rest, name=f"{name} watch")
                nursery.start_soon(self._keep_instruments, rest, nursery, outlet)
            await trio.sleep_forever()
        raise AssertionError("the venue's tasks run until cancelled")

    async def _open_rest(self, stack: AsyncExitStack) -> RestClient | None:
        connection = self.settings.connection
        url = connection.rest_url or self.venue.REST_URL
        if not url:
            return None
        return await stack.enter_async_context(
            open_rest(
                url,
                route=evolve(self._route, dials=None),  # the limit is on WebSockets
                timeout_s=connection.rest_timeout_s,
                weights=self._weights,
                now_ms=self._world.now_ms,
            )
        )

    def _start_workers(self, rest: RestClient, nursery: trio.Nursery) -> None:
        name = self.venue.NAME
        work = partial(
            run_worker,
            self.pipeline,
            rest,
            venue=name,
            now_ms=self.pipeline.now_ms,
            room=self._store.room,
            metrics=self._metrics,
        )
        for number in range(self.settings.backfill_workers):
            nursery.start_soon(work, name=f"{name} backfill {number}")

    async def _keep_instruments(
        self, rest: RestClient, nursery: trio.Nursery, outlet: trio.MemorySendChannel[Incoming]
    ) -> Never:
        """The table at start, then every refresh; what is listed or delisted changes streams."""
        connection = self.settings.connection
        backoff = Backoff(connection.backoff_min_s, connection.backoff_max_s)
        table = await instruments.load(self.venue, rest, self._world, self._cache, backoff)
        while True:
            self._apply(table, nursery, outlet)
            await trio.sleep(self.settings.instruments_refresh_s)
            try:
                copy = await instruments.fetch(self.venue, rest, self._world.now_ms)
                table = instruments.parse(self.venue, copy)
            except (NetworkError, BadMessage) as error:
                self._log.warning("instruments.failed", problem=str(error))
            else:
                await instruments.write(self._cache, copy)

    def _apply(
        self, table: Instruments, nursery: trio.Nursery, outlet: trio.MemorySendChannel[Incoming]
    ) -> None:
        """Use the table from now on, and make the connections fit it."""
        self.instruments = table
        self._fit = partial(self._apply, table, nursery, outlet)
        self.pipeline.use(table)
        for symbol in self.settings.symbols:
            instrument = table.find(symbol)
            if instrument is not None:
                self._name(instrument.native, symbol)
        streams = self._streams(table)
        self.watch.keep(streams)
        self._links.apply(streams, nursery, outlet)

    async def _process(self, inlet: trio.MemoryReceiveChannel[Incoming]) -> None:
        held = self._metrics.held_series.labels(self.venue.NAME)
        bad = self._metrics.bad_messages.labels(self.venue.NAME)
        while True:
            self.watch.hold = True  # what comes meanwhile is not missing, it waits for room
            self._late |= await self._store.room()
            self.watch.hold = inlet.statistics().current_buffer_used > 0
            events, received = await inlet.receive()
            try:
                self.pipeline.handle(self._firsts.news(events, received), received)
            except BadMessage as error:
                bad.inc()
                self._log.warning("message.bad", problem=str(error))
            self.watch.heard(events)
            held.set(self.pipeline.held())
            self._late = self._late and self.pipeline.lag_ms() > _CAUGHT_UP_MS

    async def _close_by_time(self) -> Never:
        """Trade candles end on time even when nobody trades; but not while the trades of that
        time may still wait to be handled, because the store had no room."""
        while True:
            at = self.pipeline.next_close_ms()
            now = self.pipeline.now_ms()
            await trio.sleep(1.0 if at is None else max(0.05, (at - now) / 1000))
            self._late |= await self._store.room()
            if not self._late:
                self.pipeline.advance()

    async def _measure(self) -> Never:
        """Gauges that are not worth a look at every message."""
        name, started = self.venue.NAME, self._world.now_ms()
        while True:
            await trio.sleep(_MEASURE_S)
            self.watch.count()
            now = self._world.now_ms()
            for window, length_ms in _WINDOWS_MS.items():
                since = max(started, now - length_ms)
                found = [coverage(each, since, now) for each in self.pipeline.ledgers.values()]
                due, out = sum(d for d, _ in found), sum(o for _, o in found)
                self._metrics.coverage.labels(name, window).set(out / due if due else 1.0)

    async def _seed_rollups(self, symbols: Collection[str]) -> None:
        """Running rolled-up candles begin with the minutes that are stored of them."""
        for series in self.pipeline.rolled():
            if series.symbol not in symbols:
                continue
            minutes = Series(series.venue, series.symbol, Interval.M1)
            start_ms = self.pipeline.ledgers[series].expected
            most = calendar.count(Interval.M1, start_ms, int(self._world.now_ms()))
            stored = await self._store.history(minutes, limit=most + 1, start_ms=start_ms)
            self.pipeline.seed_rollup(series, stored)

    def _streams(self, table: Instruments) -> dict[Stream, None]:
        """What the settings want of what the table knows, in the settings' order."""
        streams: list[Stream] = []
        for symbol in self.settings.symbols:
            instrument = table.find(symbol)
            if instrument is None or (not instrument.trading and symbol != EVERY):
                problem = "not in the venue's list" if instrument is None else "not trading"
                self._log.warning("symbol.unavailable", symbol=symbol, problem=problem)
            else:
                streams += self._streams_of(instrument)
        return dict.fromkeys(streams)

    def _streams_of(self, instrument: Instrument) -> list[Stream]:
        venue, settings = self.venue, self.settings
        channels = settings.channels
        streams = [venue.stream(Kind.KLINE, instrument, i) for i in settings.intervals]
        kinds = []
        if settings.trade_intervals or Channel.TRADE in channels:
            kinds.append(venue.TRADE_KIND)
            if instrument.kind.startswith("inverse"):
                self._log.warning(
                    "symbol.inverse",
                    symbol=instrument.symbol,
                    problem="quantities are in quote currency, and so is the volume of candles "
                    "that are built from its trades",
                )
        if Channel.TICKER in channels:
            kinds += [kind for kind in (Kind.TICKER, Kind.TOP) if kind in venue.KINDS]
        if Channel.BOOK in channels:
            kinds.append(Kind.BOOK)
        return streams + [venue.stream(kind, instrument) for kind in kinds]
