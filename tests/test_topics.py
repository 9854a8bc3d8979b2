"""How requests find topics, who gets a message of one, and where somebody sent away resumes."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from support.make import MINUTE, SERIES, T0, kline, message

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews
from trio_feed.model import Channel, ChannelKey, Interval, Series, StreamKey
from trio_feed.push.fanout.coalescing import WriteCoalescer
from trio_feed.push.fanout.encoded import EncodedMessage, encoded, prefix_of
from trio_feed.push.fanout.fan_out import FanOut, audiences
from trio_feed.push.fanout.resume import resume_points
from trio_feed.push.fanout.send_queue import QueuedFrame
from trio_feed.push.fanout.topics import Subscription, Topic, Topics, nearest
from trio_feed.push.protocol import RequestError, Subscribe, Target

HOUR = Series("binance_usdm", "BTCUSDT", Interval.H1)
OKX = Series("okx", "BTCUSDT", Interval.M1)
TRADES = ChannelKey("okx", "BTCUSDT", Channel.TRADE)
ETH = Series("okx", "ETHUSDT", Interval.M1)


def target(
    symbol: str = "BTCUSDT", *, exchange: str | None = None, channel: Channel = Channel.KLINE,
    interval: Interval = Interval.M1,
) -> Target:  # fmt: skip
    if channel is Channel.KLINE:
        return Target(symbol, channel, interval, interval.value, exchange)
    return Target(symbol, channel, None, "", exchange)


def topic(stream_key: StreamKey) -> Topic:
    bus = LocalBus(epoch=1, history_rows=5, resume_messages=5, now_ms=lambda: 0.0)
    bus.open(stream_key)
    return Topic(bus._streams[stream_key])


def topics(*stream_keys: StreamKey, default: str = "binance_usdm") -> Topics:
    made = Topics(default)
    for stream_key in stream_keys:
        made.add(topic(stream_key))
    return made


ALL = (OKX, SERIES, HOUR, TRADES, ETH)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (target(), SERIES),
        (target(interval=Interval.H1), HOUR),
        (target(exchange="okx"), OKX),
        (target("btcusdt"), SERIES),
        (target("BTC-USDT-SWAP"), SERIES),
        (target("btc-usdt-swap"), SERIES),
        (target(exchange="okx", channel=Channel.TRADE), TRADES),
        (target("ETHUSDT"), ETH),  # the default venue has it not
    ],
)
def test_a_request_finds_its_topic(wanted: Target, found: StreamKey) -> None:
    made = topics(*ALL)
    made.name("BTC-USDT-SWAP", "BTCUSDT")
    assert made.find(wanted).stream_key == found


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (target("XRP"), "symbol: 'XRP' is not one of BTCUSDT ETHUSDT"),
        (target(exchange="kraken"), "exchange: 'kraken' has no BTCUSDT; one of okx binance_usdm"),
        (
            target(interval=Interval.D1),
            "interval: '1d' is not one of 1h 1m for BTCUSDT",
        ),
        (
            target(exchange="okx", channel=Channel.TICKER),
            "channel: 'ticker' is not one of trade for BTCUSDT",
        ),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(wanted: Target, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        topics(*ALL).find(wanted)
    assert (str(caught.value), caught.value.code) == (problem, 1002)
    with pytest.raises(RequestError) as caught:
        topics(*ALL).find(wanted, code=7)
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("name", "known", "first"),
    [
        ("BTCUSD", ["ETHUSDT", "SOLUSDT", "BTCUSDT"], ["BTCUSDT"]),
        ("eth-usdt-swap", ["BTCUSDT", "ETHUSDT"], ["ETHUSDT", "BTCUSDT"]),
        ("binanse", ["okx", "spinpet", "binance_usdm", "binance"], ["binance", "binance_usdm"]),
        ("XRP", ["B", "A"], ["B", "A"]),  # nothing is like it
        ("", ["B", "A"], ["B", "A"]),
    ],
)
def test_the_nearest_names_come_first(name: str, known: list[str], first: list[str]) -> None:
    assert nearest(name, known)[: len(first)] == first
    assert sorted(nearest(name, known)) == sorted(known)


def test_an_error_names_the_nearest_first() -> None:
    symbols = [f"A{n}USDC" for n in range(30)]
    made = topics(*(Series("okx", symbol, Interval.M1) for symbol in [*symbols, "DOGEUSDT"]))
    with pytest.raises(RequestError, match="symbol: 'DOGEUSD' is not one of DOGEUSDT A"):
        made.find(target("DOGEUSD"))
    intervals = (Interval.S1, Interval.M1, Interval.H1, Interval.H4, Interval.W1)
    made = topics(*(Series("okx", "BTCUSDT", each) for each in intervals), default="okx")
    with pytest.raises(RequestError, match="interval: '2h' is not one of 1h 4h 1m 1w 1s for"):
        made.find(target(interval=Interval.H2))
    made = topics(*(Series(v, "BTCUSDT", Interval.M1) for v in ("okx", "binance")), default="okx")
    with pytest.raises(RequestError, match="'binanc' has no BTCUSDT; one of binance okx"):
        made.find(target(exchange="binanc"))


@pytest.mark.parametrize(("count", "end"), [(20, "S19"), (21, "S19 ...")])
def test_at_most_twenty_names_are_listed(count: int, end: str) -> None:
    made = topics(*(Series("okx", f"S{n:02}", Interval.M1) for n in range(count)))
    with pytest.raises(RequestError) as caught:
        made.find(target("X"))
    assert str(caught.value).endswith(f"S18 {end}")


def test_an_alias_of_nothing_is_nothing() -> None:
    made = topics(SERIES)
    made.name("A", "XRP")
    with pytest.raises(RequestError, match="symbol: 'A'"):
        made.find(target("A"))


def test_what_is_removed_is_not_found_any_more() -> None:
    made = topics(*ALL)
    assert made.symbols == ["BTCUSDT", "ETHUSDT"]
    assert made.intervals == [Interval.M1, Interval.H1]
    for stream_key in (HOUR, ETH):
        made.remove(made.by_key[stream_key])
    assert (made.symbols, made.intervals) == (["BTCUSDT"], [Interval.M1])
    assert set(made.by_key) == {OKX, SERIES, TRADES}
    made.remove(made.by_key[OKX])
    assert made.intervals == [Interval.M1]  # one of two minutes is left
    made.remove(made.by_key[TRADES])
    assert made.find(target()).stream_key == SERIES
    made.remove(made.by_key[SERIES])
    assert (made.symbols, made.intervals) == ([], [])


# ---------------------------------------------------------------- one message to many


class Receiver:
    transport, waiting = SimpleNamespace(ready_fd=-1, bytes_out=0), ()

    def __init__(self, name: str, log: list[tuple[str, bytes]]) -> None:
        self.name, self.log = name, log

    def push(self, entry: QueuedFrame) -> None:
        self.log.append((self.name, entry.frame))

    enqueue = push


def subscribed(there: Topic, receiver: Any, subscription_id: str | None = None) -> Subscription:
    wanted = target()
    request = Subscribe(wanted, subscription_id, None, None)
    own = prefix_of(wanted, subscription_id, deflated=False)
    made = Subscription(receiver, there, request, own)
    there.add(made)
    return made


def numbered(offset: int = 1, *, epoch: int = 1, ephemeral: bool = False) -> EncodedMessage:
    return encoded(message(kline(), offset=offset, epoch=epoch), 5.0, ephemeral=ephemeral)


async def test_portions_of_a_fan_out(autojump_clock: trio.abc.Clock) -> None:
    there, log = topic(SERIES), list[tuple[str, bytes]]()
    all_ = [subscribed(there, Receiver(name, log)) for name in "abcd"]
    fan_out, direct = FanOut(numbered(), there.audiences, timed=True), WriteCoalescer()
    assert fan_out.step(2, direct) is False
    assert [name for name, _ in log] == ["a", "b"]
    assert [fan_out.left_out_of(each) for each in all_] == [None, None, 0, 0]
    there.remove(all_[2])  # c has gone meanwhile
    subscribed(there, Receiver("late", log))
    assert fan_out.step(2, direct) is True
    assert [name for name, _ in log] == ["a", "b", "d"]
    assert fan_out.step(2, direct) is True
    assert log[0][1] is log[1][1] is log[2][1]  # framed once for the same prefix


async def test_who_has_subscribed_anew_gets_it_not_twice(autojump_clock: trio.abc.Clock) -> None:
    there, log = topic(SERIES), list[tuple[str, bytes]]()
    receiver = Receiver("a", log)
    subscribed(there, receiver)
    fan_out = FanOut(numbered(), there.audiences, timed=True)
    subscribed(there, receiver, "new")
    assert fan_out.step(9, WriteCoalescer()) is True
    assert log == []


async def test_each_has_its_own_words(autojump_clock: trio.abc.Clock) -> None:
    there, log = topic(SERIES), list[tuple[str, bytes]]()
    subscribed(there, Receiver("a", log))
    subscribed(there, Receiver("b", log), "mine")
    FanOut(numbered(), there.audiences, timed=True).step(9, WriteCoalescer())
    assert [b'"subscription_id":"mine"' in frame for _, frame in log] == [False, True]


# ---------------------------------------------------------------- where to resume


def at(there: Topic, offset: int) -> Topic:
    """With so many messages behind it."""
    bus = LocalBus(epoch=1, history_rows=5, resume_messages=5, now_ms=lambda: 0.0)
    bus._streams[there.stream_key] = there.stream  # type: ignore[assignment]
    for n in range(offset):
        assert isinstance(there.stream_key, Series)
        bus.publish(CandleNews(there.stream_key, kline(T0 + n * MINUTE), 1, 0.0))
    return there


def waiting(
    subscription: Subscription | None,
    content: EncodedMessage | None,
    *,
    push: bool = True,
    left_out: int = 0,
) -> QueuedFrame:
    return QueuedFrame(b"x", 0.0, push, subscription, content, left_out)


@pytest.mark.parametrize(
    ("entries", "point"),
    [
        ([], (1, 9)),
        ([("own", 6, 0)], (1, 5)),
        ([("own", 6, 2)], (1, 3)),  # two before it are left out: they have not been sent either
        ([("own", 6, 0), ("own", 7, 0)], (1, 5)),
        ([("other", 4, 0), ("own", 8, 0)], (1, 7)),
        ([("ephemeral", 9, 0)], (1, 9)),
        ([("ephemeral", 9, 0), ("own", 6, 0)], (1, 5)),
        ([("status", 0, 0)], (1, 9)),  # a status has no number
        ([("history", 0, 0)], None),  # its history was not written: it begins anew
        ([("history", 0, 0), ("own", 6, 0)], None),
        ([("nobody", 0, 0)], (1, 9)),
    ],
)
def test_before_the_first_that_was_not_written(
    entries: list[tuple[str, int, int]], point: tuple[int, int] | None
) -> None:
    there, other = at(topic(SERIES), 9), topic(OKX)
    log: list[tuple[str, bytes]] = []
    own, others = subscribed(there, Receiver("a", log)), subscribed(other, Receiver("a", log))
    queue = []
    for kind, offset, left_out in entries:
        match kind:
            case "own":
                queue.append(waiting(own, numbered(offset), left_out=left_out))
            case "other":
                queue.append(waiting(others, numbered(offset)))
            case "ephemeral":
                queue.append(waiting(own, numbered(offset, ephemeral=True)))
            case "status":
                queue.append(waiting(own, None))
            case "history":
                queue.append(waiting(own, None, push=False))
            case _:
                queue.append(waiting(None, None, push=False))
    points = resume_points([own], queue)
    if point is None:
        assert points == []
        return
    assert points == [
        {
            "symbol": "BTCUSDT",
            "interval": "1m",
            "exchange": "binance_usdm",
            "epoch": point[0],
            "offset": point[1],
        }
    ]


def test_a_message_that_is_under_way_has_not_been_written() -> None:
    there, log = at(topic(SERIES), 9), list[tuple[str, bytes]]()
    own, done = subscribed(there, Receiver("a", log)), subscribed(there, Receiver("b", log))
    for offset, ephemeral in ((7, False), (8, True), (8, False), (9, False)):
        rest = audiences([own] if offset < 9 else [own, done])
        there.under_way.append(FanOut(numbered(offset, ephemeral=ephemeral), rest, timed=True))
    points = resume_points([own, done], [])
    assert [point["offset"] for point in points] == [6, 8]


def test_an_ephemeral_message_under_way_is_none() -> None:
    there, log = at(topic(SERIES), 9), list[tuple[str, bytes]]()
    own = subscribed(there, Receiver("a", log))
    there.under_way.append(FanOut(numbered(9, ephemeral=True), there.audiences, timed=True))
    assert [point["offset"] for point in resume_points([own], [])] == [9]
