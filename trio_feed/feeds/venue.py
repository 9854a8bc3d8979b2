"""Everything of one venue: its connections, its processor, its backfill workers, in one nursery."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Never

import structlog
import trio

from ..errors import BadMessage, NetworkError
from ..metrics import Metrics
from ..model import KlineMessage, Series
from ..net.limits import WeightBudget
from ..net.rest import open_rest
from ..net.tunnel import Route
from ..settings import ExchangeSettings
from ..store import KlineStore
from ..store.base import Tail
from ..supervise import Backoff, supervise
from ..venues import Plan, Stream, Venue
from ..world import World
from .backfill import run_worker
from .connection import Connection, ConnectionState, Incoming
from .pipeline import Pipeline


class VenueFeed:
    """One venue of the settings.  Made from the store's tails, run once with :meth:`run`."""

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        *,
        world: World,
        environ: Mapping[str, str] | None,
        tails: Mapping[Series, Tail],
        store: KlineStore,
        publish: Callable[[KlineMessage], None],
        simulated: bool,
        metrics: Metrics,
    ) -> None:
        self.venue, self.settings = venue, settings
        self._world, self._store, self._metrics = world, store, metrics
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        connection = settings.connection
        self._route = Route(
            dial=world.dial,
            proxy_settings=connection.proxy,
            environ=environ,
            ca_file=connection.ca_file,
            timeout_s=connection.tunnel_timeout_s,
        )
        self.pipeline = Pipeline(
            venue,
            settings,
            tails=tails,
            store=store,
            publish=publish,
            now_ms=world.now_ms,
            simulated=simulated,
            metrics=metrics,
        )
        base_url = connection.websocket_url or venue.WEBSOCKET_URL
        plans = venue.plan(base_url, self._streams(), connection.streams_per_connection)
        self.connections = [ConnectionState(n, plan) for n, plan in enumerate(plans, start=1)]

    def __repr__(self) -> str:
        live = sum(state.status == "live" for state in self.connections)
        return f"<feed {self.venue.NAME} {live}/{len(self.connections)} connections live>"

    def status(self) -> dict[str, Any]:
        """A snapshot for the status page."""
        return {
            "connections": [state.statistics() for state in self.connections],
            "series": len(self.pipeline.ledgers),
            "series_held": self.pipeline.held(),
            "series_behind": self.pipeline.behind(),
        }

    def not_ready(self, fresh_s: float) -> str:
        """Why this venue's data is not fresh; empty when it is."""
        oldest = self._world.now_ms() - fresh_s * 1000
        for state in self.connections:
            if state.status != "live":
                return f"{self.venue.NAME}: connection {state.id} is {state.status}"
            if state.last_message_ms is None or state.last_message_ms < oldest:
                return f"{self.venue.NAME}: connection {state.id} is silent"
        if behind := self.pipeline.behind():
            return f"{self.venue.NAME}: {behind} series lack closed candles"
        return ""

    async def run(self) -> Never:
        """Until cancelled.  A lost connection restarts alone; anything else is a bug."""
        settings, connection = self.settings, self.settings.connection
        outlet, inlet = trio.open_memory_channel[Incoming](settings.buffer_messages)
        async with (
            open_rest(
                connection.rest_url or self.venue.REST_URL,
                route=self._route,
                timeout_s=connection.rest_timeout_s,
                budget=WeightBudget(connection.rest_weight_per_minute),
                now_ms=self._world.now_ms,
            ) as rest,
            trio.open_nursery() as nursery,
        ):
            name = self.venue.NAME
            nursery.start_soon(self._process, inlet, name=f"{name} processor")
            if settings.trade_intervals:
                nursery.start_soon(self._close_by_time, name=f"{name} candle clock")
            for number in range(settings.backfill_workers):
                worker = partial(
                    run_worker,
                    self.pipeline,
                    rest,
                    self.venue,
                    now_ms=self._world.now_ms,
                    metrics=self._metrics,
                )
                nursery.start_soon(worker, name=f"{name} backfill {number}")
            for state in self.connections:
                nursery.start_soon(self._supervise, state, outlet, name=f"{name} {state.id}")
        raise AssertionError("the venue's tasks run until cancelled")

    async def _supervise(
        self, state: ConnectionState, outlet: trio.MemorySendChannel[Incoming]
    ) -> Never:
        settings = self.settings.connection
        backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s)
        connection = Connection(
            state=state,
            venue=self.venue,
            route=self._route,
            settings=settings,
            outlet=outlet,
            backoff=backoff,
            now_ms=self._world.now_ms,
            metrics=self._metrics,
            up=self._up,
            down=self._down,
        )

        def lost(error: NetworkError, delay_s: float) -> None:
            state.status, state.problem = "waiting", str(error)
            self._metrics.connections_lost.labels(self.venue.NAME, type(error).__name__).inc()
            self._log.warning(
                "connection.lost",
                connection=state.id,
                reason=type(error).__name__,
                problem=str(error),
                retry_s=round(delay_s, 3),
            )

        await supervise(connection.run, backoff=backoff, chance=self._world.random, on_lost=lost)

    def _up(self, plan: Plan) -> None:
        self.pipeline.resumed(plan.streams)

    def _down(self, plan: Plan) -> None:
        self.pipeline.lost(plan.streams)

    async def _process(self, inlet: trio.MemoryReceiveChannel[Incoming]) -> None:
        held = self._metrics.held_series.labels(self.venue.NAME)
        bad = self._metrics.bad_messages.labels(self.venue.NAME)
        async for event, received in inlet:
            await self._store.room()
            try:
                self.pipeline.handle(event, received)
            except BadMessage as error:
                bad.inc()
                self._log.warning("message.bad", problem=str(error))
            held.set(self.pipeline.held())

    async def _close_by_time(self) -> Never:
        """Trade candles end on time even when nobody trades."""
        while True:
            at = self.pipeline.next_close_ms()
            now = self._world.now_ms()
            await trio.sleep(1.0 if at is None else max(0.05, (at - now) / 1000))
            self.pipeline.advance()

    def _streams(self) -> list[Stream]:
        streams = [
            self.venue.kline_stream(symbol, interval)
            for symbol in self.settings.symbols
            for interval in self.settings.intervals
        ]
        if self.settings.trade_intervals:
            streams += [self.venue.trade_stream(symbol) for symbol in self.settings.symbols]
        return streams
