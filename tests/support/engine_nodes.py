"""Nodes around one engine and one database, in virtual time: the real ones but for their feed.

The feed is a market of minutes (of ten seconds each), and of a trade a second, that anybody can
ask; it opens where the database ends, and its trades behind those that clients got, as the real one
does, tells what was missed, and goes on.
"""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any, Never

import trio
from attrs import define, field

from trio_feed.bus.base import Published, Stream
from trio_feed.bus.engine.attempts import Attempts
from trio_feed.bus.engine.base import (
    Engine,
    Entry,
    EntryId,
    LogReader,
    shard_of,
    shards_of,
)
from trio_feed.bus.engine.feeding import Feeding
from trio_feed.bus.engine.following import Following
from trio_feed.bus.engine.memory import NO_FAULT, EngineServer, Fault, MemoryEngine
from trio_feed.bus.engine.shadow import Shadow
from trio_feed.bus.engine.shared import SharedLog
from trio_feed.bus.engine.writing import Writing
from trio_feed.bus.local import LocalBus
from trio_feed.bus.remote import RemoteBus
from trio_feed.core.effects import CandleNews, TradeNews
from trio_feed.metrics import Metrics
from trio_feed.model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    Interval,
    Kline,
    KlineMessage,
    Series,
    Source,
    StatusMessage,
    StreamState,
    Trade,
)
from trio_feed.settings import StoreSettings
from trio_feed.store import MemoryDatabase, Sharing, open_reading_store, open_shared_store

VENUE = "binance"
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
SHARDS = 2
PERIOD_S = 10.0
STEP = 60_000
ALL_SHARDS = shards_of(VENUE, SHARDS)
of_shard = partial(shard_of, shards=SHARDS)


def series_of(symbol: str) -> Series:
    return Series(VENUE, symbol, Interval.M1)


def trades_of(symbol: str) -> ChannelKey:
    return ChannelKey(VENUE, symbol, Channel.TRADE)


def candle(k: int, *, closed: bool = True, volume: int = 1) -> Kline:
    one = Decimal(k + 1)
    return Kline(k * STEP, one, one, one, one, Decimal(volume), one, 1, closed, Source.EXCHANGE)


def closed_count() -> int:
    """So many candles the market has closed."""
    return int(trio.current_time() / PERIOD_S)


@define(eq=False)
class Cluster:
    """What nodes share."""

    server: EngineServer = field(factory=EngineServer)
    database: MemoryDatabase = field(factory=MemoryDatabase)
    chance: random.Random = field(factory=lambda: random.Random(1))
    feeders: dict[str, "Feeder"] = field(factory=dict)
    watchers: list["Watcher"] = field(factory=list)
    hot: bool = False
    corrections: int = 0


@define(eq=False)
class Reach:
    """A node's way to the engine, which may be cut."""

    cluster: Cluster
    fault: Callable[[str], Fault] = lambda call: NO_FAULT

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Engine]:
        await trio.lowlevel.checkpoint()
        yield MemoryEngine(self.cluster.server, 0.5, lambda call: self.fault(call))


@define(eq=False)
class Machine:
    """Several watchers read one log together, as a node and its workers do; small windows, and
    each answer is under way for up to ``lag_s``."""

    cluster: Cluster
    fault: Callable[[str], Fault] = lambda call: NO_FAULT
    windows_bytes: int = 1_500
    lag_s: float = 1.0
    log: SharedLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        engine = MemoryEngine(self.cluster.server, 0.5, lambda call: self.fault(call))
        self.log = SharedLog(engine, self.windows_bytes)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LogReader]:
        await trio.lowlevel.checkpoint()
        yield Pipe(self)


@define(eq=False)
class Pipe:
    """As :class:`trio_feed.workers.remote_log.RemoteLog`."""

    machine: Machine

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> Mapping[str, Sequence[Entry]]:
        found = await self.machine.log.read(after, wait_s=wait_s, limit=limit)
        await self._is_under_way()
        return found

    async def since_checkpoint(self, shard: str) -> Sequence[Entry]:
        found = await self.machine.log.since_checkpoint(shard)
        await self._is_under_way()
        return found

    async def _is_under_way(self) -> None:
        await trio.sleep(self.machine.cluster.chance.uniform(0, self.machine.lag_s))


@define(eq=False)
class Feeder:
    """A node that feeds.  ``scope`` cancelled: it is killed."""

    name: str
    cluster: Cluster
    reach: Reach = field(init=False)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    feeding: Feeding = field(init=False)
    bus: LocalBus = field(init=False)
    store: Any = None
    next: dict[str, int] = field(factory=dict)
    """By symbol that is fed: the candle that is open."""
    traded: dict[str, int] = field(factory=dict)
    """By symbol that is fed: the last trade that was told."""
    opened: int = 0
    turn: trio.Lock = field(factory=trio.Lock)

    def __attrs_post_init__(self) -> None:
        self.reach = Reach(self.cluster)

    async def run(self, task_status: trio.TaskStatus["Feeder"]) -> None:
        late: list[Feeding] = []
        sharing = Sharing(of_shard, lambda shards: late[0].fenced(shards))
        settings = StoreSettings(flush_interval_s=0.2)
        metrics = Metrics()
        with self.scope:
            async with (
                open_shared_store(
                    settings, sharing, simulated=False, metrics=metrics, twin=self.cluster.database
                ) as self.store,
                trio.open_nursery() as nursery,
            ):
                writing_box: list[Writing] = []
                self.bus = LocalBus(
                    epoch=lambda key: writing_box[0].epoch_of(key),
                    history_rows=10,
                    resume_messages=10,
                    now_ms=self.now_ms,
                )
                writing = Writing(
                    self.bus,
                    of_shard,
                    self.store.oldest_pending,
                    keep_s=30.0,
                    buffer_bytes=100_000,
                )
                writing_box.append(writing)
                if self.cluster.hot:
                    writing.follow_shadow(
                        Shadow(
                            lambda v, s: self.feeding.says(v, s),
                            trio.current_time,
                            lambda v, s: self.feeding.last_trade(v, s),
                        )
                    )
                self.feeding = Feeding(
                    f"{self.name}:{self.cluster.chance.randrange(10**9)}",
                    Attempts(self.reach.open, self.cluster.chance),
                    ALL_SHARDS,
                    self.store,
                    writing,
                    self.refresh,
                    lambda: list(self.cluster.feeders),
                    self.now_ms,
                )
                late.append(self.feeding)
                if self.cluster.hot:
                    await self.feeding.follow_all(partial(self.refresh, VENUE))
                nursery.start_soon(self.store.run)
                nursery.start_soon(self.feeding.run)
                nursery.start_soon(self.feed)
                self.cluster.feeders[self.name] = self
                task_status.started(self)

    def now_ms(self) -> float:
        return trio.current_time() * 1000

    def kill(self) -> None:
        """As kill -9 does: nothing that is pending is written."""
        self.cluster.feeders.pop(self.name, None)
        self.store.backend.kill()
        self.scope.cancel()

    async def leave(self) -> None:
        """In order."""
        self.cluster.feeders.pop(self.name, None)
        await self.feeding.drain()
        self.scope.cancel()

    async def refresh(self, venue: str) -> None:
        async with self.turn:
            await self._refresh(venue)

    async def _refresh(self, venue: str) -> None:
        wanted = [symbol for symbol in SYMBOLS if self.feeding.owns(venue, symbol)]
        new = [symbol for symbol in wanted if symbol not in self.next]
        ends = await self.store.stored_ends(venue, new)
        for symbol in [symbol for symbol in self.next if symbol not in wanted]:
            del self.next[symbol]
            self.bus.close(series_of(symbol))
            self.bus.close(trades_of(symbol))
        for symbol in new:
            end = ends.get(series_of(symbol))
            history = [] if end is None else [end.kline]
            first = None if end is None else end.first_open_ms
            self.bus.open(series_of(symbol), history, first)
            self.bus.open(trades_of(symbol))
            self.next[symbol] = 0 if end is None else end.kline.open_ms // STEP + 1
            last = self.feeding.last_trade(venue, symbol)
            self.traded[symbol] = _last_id() if last is None else last.trade_id
            self.opened += 1

    async def feed(self) -> Never:
        number = 0
        while True:
            number += 1
            for symbol in list(self.next):
                self.tell(symbol)
            await trio.sleep(self.cluster.chance.uniform(0.3, 1.5))

    def tell(self, symbol: str) -> None:
        series = series_of(symbol)
        while self.next[symbol] < closed_count():
            self._publish(series, self.next[symbol], closed=True)
            self.next[symbol] += 1
        self._publish(series, self.next[symbol], closed=False)
        trades = tuple(
            Trade(symbol, n, n, n, Decimal(1), Decimal(1), n * 1000, False)
            for n in range(self.traded[symbol] + 1, _last_id() + 1)
        )
        self.traded[symbol] = _last_id()
        if trades:
            self.bus.publish(TradeNews(trades_of(symbol), trades, Source.EXCHANGE, self.now_ms()))

    def correct(self, symbol: str, back: int) -> None:
        """The exchange has another volume of a candle so far behind the last closed one."""
        k = self.next[symbol] - 1 - back
        if k < 0:
            return
        self.cluster.corrections += 1
        row = candle(k, volume=1 + self.cluster.corrections)
        news = CandleNews(series_of(symbol), row, 1, self.now_ms(), revision=True)
        message = self.bus.publish(news)
        assert isinstance(message, KlineMessage), "it is stored"
        self.store.put(message)

    def _publish(self, series: Series, k: int, *, closed: bool) -> None:
        after = (k - 1) * STEP if k else None
        message = self.bus.publish(
            CandleNews(series, candle(k, closed=closed), 1, self.now_ms(), after_ms=after)
        )
        if closed and isinstance(message, KlineMessage):
            self.store.put(message)


def _last_id() -> int:
    """Of the market's trades."""
    return int(trio.current_time())


@define(eq=False)
class Watcher:
    """A node that serves, and a client with everything.  What breaks a promise raises."""

    cluster: Cluster
    machine: Machine | None = None
    reach: Reach | Machine = field(init=False)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    following: Following = field(init=False)
    ends: dict[Series, int] = field(factory=dict)
    numbers: dict[Any, tuple[int, int]] = field(factory=dict)
    trade_ids: dict[Any, int] = field(factory=dict)
    told: list[StatusMessage] = field(factory=list)
    torn: set[Any] = field(factory=set)
    """Of these it was told that trades are missing since the last one."""
    closings: list[Any] = field(factory=list)
    corrected: dict[Series, dict[int, Kline]] = field(factory=dict)
    """The last correction of each candle, of those after the one numbered ``since``."""
    since: int = 0
    store: Any = None

    def __attrs_post_init__(self) -> None:
        self.reach = self.machine or Reach(self.cluster)

    async def run(self, task_status: trio.TaskStatus["Watcher"]) -> None:
        with self.scope:
            async with open_reading_store(
                StoreSettings(), simulated=False, metrics=Metrics(), twin=self.cluster.database
            ) as self.store:
                attempts = Attempts(self.reach.open, self.cluster.chance)
                self.following = Following(attempts, ALL_SHARDS, self.store, self._bus)
                self.following.listen(self)
                self.cluster.watchers.append(self)
                self.since = self.cluster.corrections
                task_status.started(self)
                await self.following.run()

    def _bus(self) -> RemoteBus:
        return RemoteBus(
            history_rows=10,
            resume_messages=10,
            tell_kept=lambda stream: None,
            now=trio.current_time,
            repairs=True,
        )

    # From the bus

    def opened(self, stream: Stream) -> None:
        key = stream.stream_key
        if isinstance(key, Series) and stream.recent:
            self.ends[key] = stream.recent[-1][0].open_ms // STEP
        self.numbers[key] = stream.epoch, stream.offset

    def closed(self, stream: Stream) -> None:
        self.closings.append(stream.stream_key)

    def aliased(self, native: str, symbol: str) -> None: ...

    def described(self, stream: Stream) -> None: ...

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        self.told.append(status)
        if status.state is StreamState.UNREPAIRABLE:
            self.torn.add(status.stream_key)

    def published(self, stream: Stream, published: Published) -> None:
        message, key = published.message, stream.stream_key
        number = message.epoch, message.offset
        assert number > self.numbers[key], f"{key}: {number} after {self.numbers[key]}"
        self.numbers[key] = number
        if isinstance(message, ChannelMessage):
            assert isinstance(message.data, Trade), "only trades are fed"
            trade_id, last_id = message.data.trade_id, self.trade_ids.get(key, -1)
            assert trade_id > last_id, "a trade came twice"
            silent = trade_id > last_id + 1 and last_id >= 0 and key not in self.torn
            assert not silent, f"{key}: {trade_id} after {last_id}, and nothing was told"
            self.torn.discard(key)
            self.trade_ids[key] = trade_id
            return
        assert isinstance(key, Series), "a candle"
        k, last = message.kline.open_ms // STEP, self.ends.get(key, -1)
        if message.revision:
            assert k <= last, f"{key}: candle {k} is corrected after {last}"
            self.corrected.setdefault(key, {})[k] = message.kline
            return
        assert k == last + 1, f"{key}: candle {k} after {last}"
        if message.kline.closed:
            self.ends[key] = k

    def has_all(self, until: int) -> bool:
        return all(self.ends.get(series_of(symbol), -1) >= until for symbol in SYMBOLS)

    def is_calm(self) -> bool:
        streams = [s for r in self.following.readings.values() for s in r.bus.streams]
        return all(stream.upstream.state == "live" for stream in streams)


def told(watcher: Watcher, state: StreamState) -> list[StatusMessage]:
    return [status for status in watcher.told if status.state is state]
