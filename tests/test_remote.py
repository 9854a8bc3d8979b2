"""A node behind the wire sees what a node in the same process sees."""

import random
from typing import Any

import msgspec
import pytest
from attrs import define, field
from support.make import MINUTE, SERIES, T0, kline, trade

from trio_feed.bus import wire
from trio_feed.bus.base import Published, Stream
from trio_feed.bus.local import LocalBus
from trio_feed.bus.outgoing import Outgoing
from trio_feed.bus.remote import OutOfStep, RemoteBus
from trio_feed.core.effects import CandleNews, ChannelNews, TradeNews
from trio_feed.model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    Interval,
    Series,
    Source,
    StatusMessage,
    StreamState,
)

TRADES = ChannelKey("binance_usdm", "BTCUSDT", Channel.TRADE)
HOURS = Series("binance_usdm", "BTCUSDT", Interval.H1)
KEYS = (SERIES, TRADES, HOURS)


@define(eq=False)
class Node:
    """What a hub hears, and its streams."""

    heard: list[Any] = field(factory=list)
    streams: dict[Any, Stream] = field(factory=dict)

    def opened(self, stream: Stream) -> None:
        self.heard.append(("opened", stream.stream_key))
        self.streams[stream.stream_key] = stream

    def closed(self, stream: Stream) -> None:
        self.heard.append(("closed", stream.stream_key))
        del self.streams[stream.stream_key]

    def aliased(self, native: str, symbol: str) -> None:
        self.heard.append((native, symbol))

    def published(self, stream: Stream, published: Published) -> None:
        self.heard.append(facts_of(published))

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        self.heard.append(status)

    def described(self, stream: Stream) -> None:
        self.heard.append(("described", stream.stream_key, stream.first_ms, stream.upstream))


class Deaf(Node):
    """Nobody subscribed to anything."""

    def published(self, stream: Stream, published: Published) -> None: ...


def facts_of(published: Published | None) -> Any:
    if published is None:
        return None
    return (published.message, published.sent_ms, published.ephemeral, published.provisional)


def stands(stream: Stream) -> dict[str, Any]:
    """Everything that a hub can ask a stream."""
    return {
        "number": (stream.epoch, stream.offset),
        "first": (stream.first_ms, stream.sparse, stream.revisions),
        "recent": list(stream.recent),
        "latest": facts_of(stream.latest),
        "provisional": facts_of(stream.provisional),
        "status": (stream.status, stream.upstream),
        "ring": [facts_of(each) for each in stream.after(0, 0)],
        "reach": [stream.continues(7, offset) for offset in range(stream.offset + 2)],
    }


class Pair:
    """A publisher with a node beside it and one behind the wire."""

    def __init__(self) -> None:
        self.bus = LocalBus(epoch=7, history_rows=3, resume_messages=4, now_ms=lambda: 5.0)
        self.items: list[wire.Item] = []
        self.outgoing = Outgoing(self.items.append)
        self.here, self.there = Node(), Node()
        self.bus.listen(self.here)
        self.bus.listen(self.outgoing)
        self.remote = self.node(self.there)

    def node(self, heard: Node) -> RemoteBus:
        made = RemoteBus(
            history_rows=3, resume_messages=4, tell_kept=self.outgoing.keep, now=lambda: 0.0
        )
        made.listen(heard)
        return made

    def carry(self) -> None:
        self.remote.take(wire.read(wire.written(self.items)))
        self.items.clear()

    def check(self) -> None:
        self.carry()
        assert self.there.heard == self.here.heard
        assert self.there.streams.keys() == self.here.streams.keys()
        for key, stream in self.here.streams.items():
            assert stands(self.there.streams[key]) == stands(stream)


def candle(n: int, series: Series = SERIES, *, closed: bool = True, **more: Any) -> CandleNews:
    source = Source.BACKFILL if n % 4 == 0 else Source.EXCHANGE
    return CandleNews(
        series, kline(T0 + n * MINUTE, closed=closed, source=source), n + 1, 1.0, **more
    )


def happen(pair: Pair, chance: random.Random, ends: dict[Series, int]) -> None:
    """One of all the things that a publisher does."""
    bus, key = pair.bus, chance.choice(KEYS)
    open_now = key in pair.here.streams
    what = chance.randrange(11)
    if not open_now:
        rows = [kline(T0 - n * MINUTE) for n in range(chance.randrange(5), 0, -1)]
        bus.open(key, rows if isinstance(key, Series) else (), sparse=chance.random() < 0.3)
    elif what == 0 and chance.random() < 0.3:
        bus.close(key)
    elif what == 1:
        bus.alias(f"native-{chance.randrange(3)}", "BTCUSDT")
    elif what == 2:
        bus.set_waiting(key.venue, key.symbol, chance.choice(["", "not listed"]))
    elif what == 3 and isinstance(key, Series):
        bus.deepen(key, T0 - chance.randrange(100) * MINUTE)
    elif what == 4:
        bus.publish(StatusMessage(key, chance.choice(list(StreamState)), "why", 1, 2))
    elif isinstance(key, ChannelKey):
        news = ChannelNews(key, trade(chance.randrange(99), T0), Source.EXCHANGE, 1.0)
        bus.publish(news, ephemeral=what == 5)
    elif what == 6:
        bus.publish(candle(ends[key] + 1, key, closed=False, provisional=True))
    elif what == 7:
        bus.publish(candle(ends[key] + 1, key, closed=False), ephemeral=True)
    elif what == 8 and ends[key] > 0:
        bus.publish(candle(chance.randrange(ends[key]), key, revision=True))
    else:
        closed = chance.random() < 0.5
        after = T0 + (ends[key] - 1) * MINUTE
        bus.publish(candle(ends[key], key, closed=closed, after_ms=after))
        ends[key] += closed
    if chance.random() < 0.1 and key in pair.here.streams:
        pair.carry()
        pair.there.streams[key].keep()


@pytest.mark.parametrize("seed", range(30))
def test_a_node_behind_the_wire_sees_the_same(seed: int) -> None:
    pair, chance, ends = Pair(), random.Random(seed), {SERIES: 0, HOURS: 0}
    for _ in range(150):
        happen(pair, chance, ends)
        pair.check()


@pytest.mark.parametrize("seed", range(30))
def test_a_node_that_comes_later_stands_where_the_others_stand(seed: int) -> None:
    pair, chance, ends = Pair(), random.Random(seed), {SERIES: 0, HOURS: 0}
    for _ in range(chance.randrange(150)):
        happen(pair, chance, ends)
        pair.carry()
    late = Node()
    found = [pair.outgoing.snapshot(number) for number in pair.outgoing.streams]
    pair.remote = pair.node(late)
    pair.remote.take(wire.read(wire.written([each for each in found if each is not None])))
    pair.there, pair.here.heard[:] = late, []
    late.heard.clear()
    for _ in range(50):
        pair.check()
        happen(pair, chance, ends)


def test_values_are_read_when_somebody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, read = Pair(), list[str]()
    pair.there = Deaf()
    pair.remote = pair.node(pair.there)
    monkeypatch.setattr(wire, "candle_of", lambda body: read.append("candle"))
    monkeypatch.setattr(wire, "message_of", lambda key, item: read.append("message"))
    pair.bus.open(SERIES)
    pair.bus.open(TRADES)
    for n in range(3):
        pair.bus.publish(candle(n, closed=False))
        pair.bus.publish(candle(n))
        pair.bus.publish(ChannelNews(TRADES, trade(n, T0), Source.EXCHANGE, 1.0))
    pair.carry()
    assert read == []
    assert len(pair.there.streams[SERIES].recent) == 3
    assert read == ["candle"] * 3


def test_a_candle_that_is_missing_ends_the_node() -> None:
    pair = Pair()
    pair.bus.open(SERIES, [kline(T0)])
    pair.carry()
    pair.bus.publish(candle(1, after_ms=T0))
    pair.items.clear()
    pair.bus.publish(candle(2, after_ms=T0 + MINUTE))
    with pytest.raises(OutOfStep, match="is missing"):
        pair.carry()


def test_keeping_is_told_once() -> None:
    pair = Pair()
    pair.bus.open(SERIES)
    pair.carry()
    pair.there.streams[SERIES].keep()
    pair.there.streams[SERIES].keep()
    assert [type(item) for item in pair.items] == [wire.Kept]
    pair.outgoing.keep(99)
    pair.check()


def test_trades_that_nobody_wants_yet_are_carried_one_by_one() -> None:
    """A client behind the wire has subscribed before that is known at the bus."""
    pair = Pair()
    pair.bus.open(TRADES)
    pair.carry()
    three = tuple(trade(number, T0 + number) for number in (1, 2, 3))
    pair.bus.publish(TradeNews(TRADES, three, Source.EXCHANGE, 0.0))
    pair.carry()
    got = [
        facts[0].data.trade_id for facts in pair.there.heard if isinstance(facts[0], ChannelMessage)
    ]
    assert got == [1, 2, 3]


def test_what_was_lost_of_trades_is_not_resumed_over() -> None:
    """Who was there was told; who was away and comes back is told that it missed something."""
    pair = Pair()
    pair.bus.open(TRADES)
    pair.carry()
    for streams in (pair.here.streams, pair.there.streams):
        streams[TRADES].keep()
    pair.bus.publish(TradeNews(TRADES, (trade(1, T0), trade(2, T0)), Source.EXCHANGE, 1.0))
    pair.check()
    assert stands(pair.there.streams[TRADES])["reach"] == [True, True, True, False]
    pair.bus.publish(StatusMessage(TRADES, StreamState.UNREPAIRABLE, "gone", T0, T0 + 1))
    pair.bus.publish(TradeNews(TRADES, (trade(9, T0),), Source.EXCHANGE, 1.0))
    pair.bus.publish(StatusMessage(TRADES, StreamState.LIVE))
    pair.check()
    assert stands(pair.there.streams[TRADES])["reach"] == [False, False, False, True, False]


def test_a_takeover_that_lost_trades_is_not_resumed_over() -> None:
    """The log was whole, but its next owner does not know what came between."""
    pair = Pair()
    remote = RemoteBus(
        history_rows=3, resume_messages=4, tell_kept=print, now=lambda: 0.0, repairs=True
    )
    node = Node()
    remote.listen(node)
    pair.bus.open(TRADES)
    pair.bus.publish(TradeNews(TRADES, (trade(1, T0),), Source.EXCHANGE, 1.0))
    pair.bus.publish(TradeNews(TRADES, (trade(2, T0),), Source.EXCHANGE, 1.0))
    remote.take(pair.items)
    at = next(item.stream for item in pair.items if isinstance(item, wire.Opened))
    stream = node.streams[TRADES]
    assert stream.continues(7, 1)
    opened = pair.outgoing.snapshot(at)
    assert opened is not None
    opened = msgspec.structs.replace(opened, epoch=8, offset=0, latest=None)
    remote.take([wire.Checkpoint(True, [opened], [], {at: (7, 2)}, [at], [])])
    next_one = ChannelMessage(TRADES, trade(9, T0), Source.EXCHANGE, 8, 1, 1.0)
    remote.take([wire.sent(at, next_one, 1.0)])
    assert not stream.continues(7, 1)
    assert not stream.continues(7, 2)
    assert stream.continues(8, 1)
