"""Whatever clients, feeds and the network do: nobody misses, doubles or mixes up a message.

Hypothesis makes up the story, trio plays it in guest mode (so that a synchronous test can hold its
tasks between the steps), and a naive model, the list of all that was ever published, judges it.
"""

import itertools
import queue
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, evolve, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.make import SERIES
from support.node import LIMITS, TICKERS, TRADES, Client, Node, connected

from trio_feed.model import Channel, ChannelKey, Interval, KlineMessage, Series
from trio_feed.push.fanout.coalescing import WriteCoalescer

SERIES5 = Series("binance_usdm", "BTCUSDT", Interval.M5)
KEYS: list[Series | ChannelKey] = [SERIES, SERIES5, TRADES, TICKERS]
MANY = evolve(LIMITS, max_subscriptions=10, max_queued=12)
NAMES = st.sampled_from([None, "a", "b"])
WHERE = st.sampled_from(KEYS)
WHO = st.integers(0, 1)
STEPS = st.integers(1, 12)


def words_of(stream_key: Series | ChannelKey) -> dict[str, str]:
    if isinstance(stream_key, Series):
        return {"symbol": stream_key.symbol, "interval": stream_key.interval.value}
    return {"symbol": stream_key.symbol, "channel": stream_key.channel.value}


def stream_key_of(data: dict[str, Any]) -> Series | ChannelKey:
    if "interval" in data:
        return Series(data["exchange"], data["symbol"], Interval.parse(data["interval"]))
    return ChannelKey(data["exchange"], data["symbol"], Channel(data["channel"]))


@define
class Sight:
    """What one client program knows of one stream, over all its connections."""

    offset: int = -1
    finals: list[int] = field(factory=list)
    """Offsets of the final candles and revisions since it began afresh."""
    began: int = 0
    name: str | None = None
    live: bool = False
    wanted: bool = False
    """Subscribed when last heard of."""
    provisional: bool = False
    """It asked for provisional candles."""
    ahead: int = 0
    """Number of the last provisional candle that it saw."""


@define
class Player:
    """A client program: its connection, if it has one, and what it has seen."""

    sights: dict[Any, Sight] = field(factory=lambda: defaultdict(Sight))
    client: Client | None = None
    leave: trio.Event = field(factory=trio.Event)


class Story(RuleBasedStateMachine):
    """Each step waits until nothing moves any more, and then looks at what came."""

    def __init__(self) -> None:
        super().__init__()
        self._host: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._jobs, self._todo = trio.open_memory_channel[Any](1)
        self._over: list[Any] = []
        trio.lowlevel.start_guest_run(
            self._stage,
            run_sync_soon_threadsafe=self._host.put,
            done_callback=self._over.append,
            clock=trio.testing.MockClock(),
        )
        self.published: dict[Any, list[bool]] = {stream_key: [] for stream_key in KEYS}
        """Of each stream's messages in order: whether it must never be left out."""
        self.shown = itertools.count(1)

    async def _stage(self) -> None:
        async with trio.open_nursery() as self.nursery:
            async for job, done in self._todo:
                await job()
                await trio.testing.wait_all_tasks_blocked()
                done.append(True)
            self.nursery.cancel_scope.cancel()

    async def _connection(
        self, leave: trio.Event, task_status: trio.TaskStatus[Client] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with connected(self.node, MANY) as client:
            task_status.started(client)
            await leave.wait()

    def play(self, job: Callable[[], Awaitable[None]]) -> None:
        done: list[bool] = []
        self._host.put(lambda: self._jobs.send_nowait((job, done)))
        while not done and not self._over:
            self._host.get(timeout=30)()
        if self._over:
            self._over[0].unwrap()

    @initialize(ring=st.sampled_from([2, 5, 40]), at_once=st.sampled_from([0, 2, 256]))
    def begin(self, ring: int, at_once: int) -> None:
        async def job() -> None:
            self.node = Node(ring=ring)
            for stream_key in KEYS[1:]:
                self.node.bus.open(stream_key)
            self.node.hub.coalescer = WriteCoalescer(at_once, chunk=1)
            self.players = [Player(), Player()]
            self.candles = {SERIES: itertools.count(), SERIES5: itertools.count()}
            self.current = {series: next(at) for series, at in self.candles.items()}
            self.nursery.start_soon(self.node.hub.run)
            self.node.flushing = True

        self.play(job)
        for who, stream_key in itertools.product((0, 1), (SERIES, TRADES)):
            self._ask(who, stream_key, type="subscribe")

    async def _connect(self, player: Player) -> Client:
        if player.client is None:
            player.leave = trio.Event()
            player.client = await self.nursery.start(self._connection, player.leave)
        return player.client

    @rule(who=WHO, stream_key=WHERE, name=NAMES, provisional=st.booleans())
    def subscribe(
        self, who: int, stream_key: Series | ChannelKey, name: str | None, provisional: bool
    ) -> None:
        more = {"provisional": provisional} if isinstance(stream_key, Series) else {}
        self._ask(who, stream_key, type="subscribe", subscription_id=name, **more)

    @rule(who=WHO, name=NAMES)
    def come_back(self, who: int, name: str | None) -> None:
        """With a new connection, and all that it had before."""
        self.disconnect(who)
        for stream_key, sight in list(self.players[who].sights.items()):
            if sight.wanted:
                more: dict[str, Any] = {"since": {"epoch": 1, "offset": sight.offset}}
                if sight.provisional:
                    more["provisional"] = True
                self._ask(who, stream_key, type="subscribe", subscription_id=name, **more)

    @rule(who=WHO, stream_key=WHERE)
    def unsubscribe(self, who: int, stream_key: Series | ChannelKey) -> None:
        self._ask(who, stream_key, type="unsubscribe")

    def _ask(self, who: int, stream_key: Series | ChannelKey, **request: Any) -> None:
        async def job() -> None:
            client = await self._connect(self.players[who])
            await client.request(**words_of(stream_key), **request)

        self.play(job)
        self.look()

    @rule(who=WHO)
    def disconnect(self, who: int) -> None:
        player = self.players[who]

        async def job() -> None:
            player.leave.set()

        self.play(job)
        self.look()
        player.client = None
        for sight in player.sights.values():
            sight.live = False

    @rule(who=WHO)
    def stall(self, who: int) -> None:
        client = self.players[who].client
        if client is not None:
            client.stall()

    @rule(who=WHO)
    def read_again(self, who: int) -> None:
        async def job() -> None:
            client = self.players[who].client
            if client is not None:
                client.reading.set()

        self.play(job)
        self.look()

    @rule(series=st.sampled_from([SERIES, SERIES5]), updates=st.integers(0, 4), close=st.booleans())
    def candle(self, series: Series, updates: int, close: bool) -> None:
        """Some updates of the open candle, and perhaps its end."""

        async def job() -> None:
            for _ in range(updates):
                self._publish(series, False)
            if close:
                self._publish(series, True)
                self.current[series] = next(self.candles[series])

        self.play(job)
        self.look()

    def _publish(self, series: Series, closed: bool) -> None:
        self.node.publish(self.current[series], closed=closed, series=series)
        self.published[series].append(closed)

    @rule(series=st.sampled_from([SERIES, SERIES5]), back=st.integers(1, 4))
    def revise(self, series: Series, back: int) -> None:
        async def job() -> None:
            if self.current[series] >= back:
                self.node.revise(self.current[series] - back, "100.75", series)
                self.published[series].append(True)

        self.play(job)
        self.look()

    @rule(series=st.sampled_from([SERIES, SERIES5]), number=STEPS)
    def provisional(self, series: Series, number: int) -> None:
        """Candles before which something is missing, each with a close that tells its number."""

        async def job() -> None:
            for _ in range(number):
                ahead = self.current[series] + 2
                self.node.provisional(ahead, series=series, close=str(next(self.shown)))

        self.play(job)
        self.look()

    @rule(number=STEPS)
    def trades(self, number: int) -> None:
        async def job() -> None:
            for _ in range(number):
                self.node.trade()
                self.published[TRADES].append(True)

        self.play(job)
        self.look()

    @rule(number=STEPS)
    def tickers(self, number: int) -> None:
        async def job() -> None:
            for _ in range(number):
                self.node.ticker()
                self.published[TICKERS].append(False)

        self.play(job)
        self.look()

    @precondition(lambda self: hasattr(self, "players"))
    @rule()
    def look(self) -> None:
        """Every client reads what has come, and checks it as it would at home."""
        for player in self.players:
            if player.client is None:
                continue
            for told in player.client.take():
                self._see(player, told)
            if player.client.closed is not None:
                player.client = None
                for sight in player.sights.values():
                    sight.live = False

    def _see(self, player: Player, told: dict[str, Any]) -> None:
        data = told.get("data")
        match told["type"]:
            case "subscription_confirmed":
                stream_key = stream_key_of({"exchange": "binance_usdm", **data})
                sight = player.sights[stream_key]
                if data.get("recovered"):
                    assert data["offset"] == sight.offset
                else:
                    assert data["offset"] <= len(self.published[stream_key])
                    sight.began, sight.finals = data["offset"], []
                sight.offset, sight.name = data["offset"], data["subscription_id"]
                sight.live = sight.wanted = True
                sight.provisional = data.get("provisional", False)
            case "unsubscribe_confirmed":
                sight = player.sights[stream_key_of({"exchange": "binance_usdm", **data})]
                sight.live = sight.wanted = False
            case "kline_data" | "trade_data" | "ticker_data":
                self._data(player.sights[stream_key_of(data)], stream_key_of(data), data)
            case "reconnect":
                for point in told["since"]:
                    assert point["offset"] == player.sights[stream_key_of(point)].offset
            case kind:
                assert kind in ("history_data", "error", "connection_success")

    def _data(self, sight: Sight, stream_key: Series | ChannelKey, data: dict[str, Any]) -> None:
        assert sight.live
        assert data.get("subscription_id") == sight.name
        if data["data"].get("provisional"):
            self._provisional(sight, stream_key, data)
            return
        if data.get("snapshot"):
            assert data["offset"] <= sight.offset
            return
        left_out = data.get("conflated", 0)
        assert data["offset"] == sight.offset + 1 + left_out
        assert not any(self.published[stream_key][sight.offset : data["offset"] - 1])
        sight.offset = data["offset"]
        if self.published[stream_key][sight.offset - 1]:
            sight.finals.append(sight.offset)
        due = self.published[stream_key][sight.began : sight.offset]
        assert sight.finals == [sight.began + n for n, must in enumerate(due, 1) if must]

    def _caught_up(self, sight: Sight, stream_key: Series | ChannelKey) -> None:
        """The last provisional candle, if it still stands, has been seen by who asked."""
        (stream,) = [t.stream for t in self.node.hub.topics if t.stream_key == stream_key]
        if sight.live and sight.provisional and stream.provisional is not None:
            message = stream.provisional.message
            assert isinstance(message, KlineMessage)
            assert sight.ahead == int(message.kline.close)

    def _provisional(
        self, sight: Sight, stream_key: Series | ChannelKey, data: dict[str, Any]
    ) -> None:
        """Only for who asked, in order, and its number takes no part in the counting."""
        assert sight.provisional
        number = int(data["data"]["close"])
        assert number > sight.ahead or (data.get("snapshot") and number == sight.ahead)
        sight.ahead = number
        assert "conflated" not in data
        assert data["offset"] <= sight.offset
        assert data.get("snapshot") or data["offset"] == sight.offset

    def teardown(self) -> None:
        """When all read again, everybody who is subscribed has seen all of it."""
        try:
            if hasattr(self, "players") and not self._over:
                for who in (0, 1):
                    self.read_again(who)
                for player in self.players:
                    for stream_key, sight in player.sights.items():
                        assert not sight.live or sight.offset == len(self.published[stream_key])
                        self._caught_up(sight, stream_key)
        finally:
            self._host.put(self._jobs.close)
            while not self._over:
                self._host.get(timeout=30)()
        self._over[0].unwrap()


Story.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestStory = Story.TestCase
