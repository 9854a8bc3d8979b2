"""Fan-out: written once, framed once, written to sockets at once or together."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from attrs import evolve
from support.make import SERIES, T0, kline, message
from support.node import LIMITS, TICKERS, TRADES, Client, Node, connected, numbers

from trio_feed.core.effects import CandleNews
from trio_feed.model import Channel, ChannelKey, Interval, Series, StatusMessage, StreamState
from trio_feed.push import messages
from trio_feed.push.fanout.coalescing import WriteCoalescer
from trio_feed.push.fanout.encoded import encoded
from trio_feed.push.fanout.orphans import SETTLE_S
from trio_feed.push.fanout.send_queue import QueuedFrame
from trio_feed.push.fanout.sender import ClientTimeouts


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every message that was written down."""
    seen: list[Any] = []
    original = messages.data_tail

    def counted(message: Any, now: float) -> str:
        seen.append(message)
        return original(message, now)

    monkeypatch.setattr(messages, "data_tail", counted)
    return seen


async def test_written_once_and_framed_once_for_the_same_prefix(
    written: list[Any], autojump_clock: trio.abc.Clock
) -> None:
    node = Node()
    async with connected(node) as one, connected(node) as two, connected(node) as own:
        for client in (one, two):
            await client.subscribe()
        await own.subscribe(subscription_id="mine")
        node.publish(0)
        frames = [client.frames[-1] for client in (one, two, own)]
        assert frames[0] is frames[1]
        assert (await own.next("kline_data"))["data"]["subscription_id"] == "mine"
        assert len(written) == 1


async def test_nothing_is_written_down_for_nobody(
    written: list[Any], autojump_clock: trio.abc.Clock
) -> None:
    node = Node()
    node.bus.open(TRADES)
    for n in range(10):
        node.publish(n)
        node.trade()
    assert written == []


async def test_compressed_once_and_readable(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with (
        connected(node, deflated=True) as one,
        connected(node, deflated=True) as two,
        connected(node) as plain,
    ):
        for client in (one, two, plain):
            await client.subscribe()
        node.publish(0)
        assert one.frames[-1] is two.frames[-1]
        assert one.frames[-1][0] == 0xC1
        assert len(one.frames[-1]) < len(plain.frames[-1])
        told = [await client.next("kline_data") for client in (one, two, plain)]
        assert told[0] == told[1] == told[2]


async def test_a_message_is_written_before_publish_returns(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        node.publish(0)
        assert client.waiting() == 1


async def test_a_burst_is_written_together(autojump_clock: trio.abc.Clock) -> None:
    """What is beyond the direct writes waits for the coalescer, in order, and takes one write."""
    node = Node()
    node.hub.coalescer = WriteCoalescer(at_once=3)
    async with connected(node) as client:
        await client.subscribe()
        before = client.writes
        for n in range(9):
            node.publish(n)
        assert (client.waiting(), client.writes - before) == (3, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert (client.waiting(), client.writes - before) == (9, 4)
        assert [m["data"]["offset"] for m in client.take()] == list(range(1, 10))
        node.publish(9)
        assert client.waiting() == 1


async def crowd(node: Node, stack: AsyncExitStack, number: int) -> list[Client]:
    """So many subscribers that a message to all of them is handed out in portions of one."""
    node.hub.coalescer = WriteCoalescer(at_once=2, chunk=1)
    clients = [await stack.enter_async_context(connected(node)) for _ in range(number)]
    for client in clients:
        await client.subscribe()
    return clients


async def test_a_message_to_many_is_handed_out_bit_by_bit_and_in_order(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with AsyncExitStack() as stack:
        clients = await crowd(node, stack, 6)
        for n in range(3):
            node.publish(n)
        assert [client.waiting() for client in clients] == [0] * 6
        await clients[4].request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        late = await stack.enter_async_context(connected(node))
        await late.subscribe()
        await trio.testing.wait_all_tasks_blocked()
        node.publish(3)
        await trio.testing.wait_all_tasks_blocked()
        for client in clients[:4]:
            assert [m["data"]["offset"] for m in client.take()] == [1, 2, 3, 4]
        gone = [m["data"].get("offset") for m in clients[4].take()]
        assert None in gone  # the confirmation, and nothing after it
        assert gone.index(None) == len(gone) - 1
        seen = [m["data"]["offset"] for m in late.take()]
        assert seen == list(range(seen[0], 5))


async def test_with_too_much_under_way_it_goes_into_the_queues(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with AsyncExitStack() as stack:
        clients = await crowd(node, stack, 4)
        for client in clients:
            client.session.sender.send_queue._max_messages = 1_000
        for n in range(100):
            node.publish(n)
        await trio.testing.wait_all_tasks_blocked()
        for client in clients:
            assert [m["data"]["offset"] for m in client.take()] == list(range(1, 101))


async def test_who_is_sent_away_before_its_turn_resumes_before_the_message(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with AsyncExitStack() as stack:
        clients = await crowd(node, stack, 4)
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()
        node.publish(1)
        node.publish(2)
        clients[3].take()
        clients[3].session.sender.disconnect_slow("tried here")
        assert [row["offset"] for row in clients[3].take()[-1]["since"]] == [1]


async def test_others_have_their_turn_while_many_are_written_to(
    autojump_clock: trio.abc.Clock,
) -> None:
    coalescer, turns = WriteCoalescer(), 0

    class Flushable:
        at = -1

        def flush(self) -> None:
            self.at = turns

    clients = [Flushable() for _ in range(1000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run)
        for client in clients:
            coalescer.schedule(client)
        while clients[-1].at < 0:
            turns += 1
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len({client.at for client in clients}) >= 4  # of 8 portions, in any order of tasks


@pytest.mark.parametrize("state", list(StreamState))
async def test_a_new_subscriber_learns_what_is_wrong_with_its_stream(
    state: StreamState, autojump_clock: trio.abc.Clock
) -> None:
    node = Node()
    node.bus.publish(StatusMessage(SERIES, StreamState.STALE, "silence"))
    node.bus.publish(StatusMessage(SERIES, state, "changed"))
    async with connected(node) as client:
        await client.subscribe()
        told = [m["data"]["status"] for m in client.take()]
        well = state in (StreamState.LIVE, StreamState.REPAIRED)
        assert told == ([] if well else [state])


async def test_how_things_stand_is_not_news(autojump_clock: trio.abc.Clock) -> None:
    """The first message says the open candle again; the numbers go on after the confirmation's."""
    node = Node()
    node.publish(0)
    node.publish(1, closed=False)
    node.revise(0, "100.75")
    async with connected(node) as client:
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        history = (await client.next("history_data"))["data"]
        confirmed = (await client.next("subscription_confirmed"))["data"]
        assert (history["epoch"], history["offset"]) == (1, 3)
        assert (confirmed["epoch"], confirmed["offset"]) == (1, 3)
        assert "recovered" not in confirmed
        standing = (await client.next("kline_data"))["data"]
        assert (standing["offset"], standing["snapshot"]) == (2, True)
        node.publish(1)
        news = (await client.next("kline_data"))["data"]
        assert (news["offset"], "snapshot" in news) == (4, False)


async def test_lines_tell_their_last_news(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    node.bus.open(TICKERS)
    node.ticker()
    async with connected(node) as client:
        await client.request(type="subscribe", symbol="BTCUSDT", channel="ticker")
        assert (await client.next("subscription_confirmed"))["data"]["offset"] == 1
        assert (await client.next("ticker_data"))["data"]["snapshot"] is True
        node.ticker()
        assert (await client.next("ticker_data"))["data"]["offset"] == 2


async def test_topics_are_found_among_ten_thousand(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    for n in range(2_000):
        for interval in (Interval.M1, Interval.M5):
            node.bus.open(Series("another", f"S{n}USDT", interval))
        node.bus.open(ChannelKey("another", f"S{n}USDT", Channel.TRADE))
    async with connected(node, LIMITS) as client:
        await client.request(type="subscribe", symbol="S7USDT", channel="trade")
        assert (await client.next("subscription_confirmed"))["data"]["success"] is True
        await client.request(type="subscribe", symbol="S7USDT", channel="book")
        assert "is not one of trade" in (await client.next("error"))["message"]
        await client.request(type="subscribe", symbol="S7USDT", interval="1h")
        assert "is not one of 5m 1m" in (await client.next("error"))["message"]
    assert len(node.hub.symbols) == 2_001
    assert node.hub.intervals == [Interval.M1, Interval.M5]


async def test_a_closed_topic_is_told_and_forgotten(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe(subscription_id="s")
        node.bus.close(SERIES)
        assert (await client.next("stream_status"))["data"]["status"] == "stale"
        await client.request(type="list")
        assert (await client.next("subscriptions"))["data"] == []
        assert node.metrics.subscriptions._value.get() == 0
        assert (node.hub.symbols, node.hub.intervals) == ([], [])
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        assert (await client.next("error"))["code"] == 1002


async def test_what_is_only_shown_leaves_no_trace(autojump_clock: trio.abc.Clock) -> None:
    """It has the number of the message before it: nothing of it is kept, nothing is conflated
    with it, and who resumes from it misses nothing."""
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        client.stall()
        await trio.testing.wait_all_tasks_blocked()
        node.publish(0, closed=False)
        for _ in range(2):
            node.bus.publish(
                CandleNews(SERIES, kline(T0, closed=False), 1, float(T0)), ephemeral=True
            )
        node.publish(0)
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        told = [(m["data"]["epoch"], m["data"]["offset"]) for m in client.take()]
        assert told == [(1, 1), (1, 1), (1, 2)]
        (topic,) = node.hub.topics
        assert (topic.stream.epoch, topic.stream.offset) == (1, 2)
        assert numbers(await client.resume(1, 1)) == [(2, 0)]


def seen(told: list[dict[str, Any]]) -> list[tuple[int, int, bool]]:
    """(minute, offset, provisional) of candle messages."""
    rows = [m["data"] for m in told if m["type"] == "kline_data"]
    return [
        (row["data"]["time"] // 60 - T0 // 60_000, row["offset"], row["data"].get("provisional", 0))
        for row in rows
    ]


async def test_provisional_candles_are_for_those_who_asked(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The others see neither them nor a hole in the numbers."""
    node = Node()
    async with connected(node) as eager, connected(node) as patient:
        await eager.request(type="subscribe", symbol="BTCUSDT", interval="1m", provisional=True)
        await eager.next("history_data")
        confirmed = (await eager.next("subscription_confirmed"))["data"]
        assert confirmed["provisional"] is True
        await patient.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        await patient.next("history_data")
        assert "provisional" not in (await patient.next("subscription_confirmed"))["data"]
        node.publish(0)
        node.provisional(2)
        node.provisional(2)
        node.publish(1)
        node.publish(2, closed=False)
        expected = [(0, 1, False), (2, 1, True), (2, 1, True), (1, 2, False), (2, 3, False)]
        assert seen(eager.take()) == expected
        assert seen(patient.take()) == [(0, 1, False), (1, 2, False), (2, 3, False)]
        for client, asked in ((eager, True), (patient, False)):
            await client.request(type="list")
            (entry,) = (await client.next("subscriptions"))["data"]
            assert entry["provisional"] is asked


async def test_who_comes_while_something_is_missing_sees_the_provisional_candle(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    node.publish(0)
    node.provisional(2)
    async with connected(node) as eager, connected(node) as patient:
        await eager.subscribe(provisional=True)
        await patient.subscribe()
        (told,) = eager.take()
        assert (told["data"]["snapshot"], seen([told])) == (True, [(2, 1, True)])
        assert patient.take() == []
        node.publish(1)
        node.publish(2)
        eager.take()
        assert seen(await eager.resume(1, 1, provisional=True)) == [(1, 2, False), (2, 3, False)]


async def test_a_slow_client_gets_the_latest_provisional_candle_and_right_numbers(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe(provisional=True)
        client.stall()
        await trio.testing.wait_all_tasks_blocked()
        node.publish(0, closed=False)
        node.publish(0)
        for n in (2, 3):
            node.provisional(n)
        node.publish(1)
        for _ in range(2):
            node.publish(2, closed=False)
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        told = client.take()
        assert [row[0] for row in seen(told)] == [0, 3, 1, 2]
        assert numbers(told) == [(2, 1), (2, 0), (3, 0), (5, 1)]


async def test_a_newer_provisional_candle_replaces_the_one_that_was_to_be_said_first(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Which had an older number; nothing numbered was left out."""
    node = Node()
    node.publish(0)
    node.provisional(3)
    node.publish(1)
    async with connected(node) as client:
        client.stall()
        await client.request(type="ping")
        await trio.testing.wait_all_tasks_blocked()  # the pong is on its way, the rest waits
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m", provisional=True)
        await trio.testing.wait_all_tasks_blocked()
        node.provisional(4)
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        told = client.take()
        assert (seen(told), numbers(told)[-1]) == ([(4, 2, True)], (2, 0))


async def test_who_is_sent_away_with_provisional_candles_waiting_misses_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe(provisional=True)
        node.publish(0)
        client.take()
        client.stall()
        await trio.testing.wait_all_tasks_blocked()
        node.provisional(2)
        node.publish(1)
        client.session.sender.disconnect_slow("tried here")
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [row["offset"] for row in client.take()[-1]["since"]] == [1]


async def test_a_provisional_candle_behind_others_is_no_point_to_resume_from(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It is still being handed out, and everything numbered has been."""
    node = Node()
    async with AsyncExitStack() as stack:
        node.hub.coalescer = WriteCoalescer(at_once=2, chunk=1)
        clients = [await stack.enter_async_context(connected(node)) for _ in range(4)]
        for client in clients:
            await client.subscribe(provisional=True)
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()
        node.provisional(2)
        clients[3].take()
        clients[3].session.sender.disconnect_slow("tried here")
        assert [row["offset"] for row in clients[3].take()[-1]["since"]] == [1]


async def test_the_confirmation_says_how_the_upstream_stands(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()

    async def confirmed(client: Client) -> tuple[str, str | None]:
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        await trio.testing.wait_all_tasks_blocked()
        (data,) = [m["data"] for m in client.take() if m["type"] == "subscription_confirmed"]
        return data["upstream"], data.get("problem")

    async with connected(node) as client:
        state, problem = await confirmed(client)
        assert (state, problem) == ("never_connected", "nothing has come from its source yet")
        node.bus.publish(StatusMessage(SERIES, StreamState.STALE, "403 from the proxy"))
        assert await confirmed(client) == ("never_connected", "403 from the proxy")
        node.problems[SERIES.venue] = "#1 does not deliver"
        problem = "403 from the proxy (#1 does not deliver)"
        assert await confirmed(client) == ("never_connected", problem)
        node.problems[SERIES.venue] = "#1: 403 from the proxy"  # the same
        assert await confirmed(client) == ("never_connected", "403 from the proxy")
        node.bus.publish(StatusMessage(SERIES, StreamState.LIVE))
        assert await confirmed(client) == ("live", None)  # of a stream, not of the whole venue
        node.bus.publish(StatusMessage(SERIES, StreamState.STALE))
        problem = "it delivers nothing (#1: 403 from the proxy)"
        assert await confirmed(client) == ("stale", problem)
        node.problems.clear()
        assert await confirmed(client) == ("stale", "it delivers nothing")


async def test_how_long_a_message_took_is_measured(autojump_clock: trio.abc.Clock) -> None:
    """Two seconds after it was received it is published, and written at once."""
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        await trio.sleep(62)
        row = kline(T0)
        node.send(CandleNews(SERIES, row, 1, T0 + 60_000.0))
        for stage in ("published", "written"):
            assert observed(node, stage) == (1, pytest.approx(2))


def observed(node: Node, stage: str) -> tuple[float, float]:
    """How many were measured, and their seconds."""
    found = node.metrics.push_latency.of(stage)
    return sum(found.counts), found.sum_s


async def test_one_of_sixty_four_that_waited_is_measured(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    waited = QueuedFrame(b"x", T0 - 500.0, True, None, encoded(message(kline()), 0.0))
    for entry in [waited] * 63 + [QueuedFrame(b"x", T0 - 500.0, True)]:
        node.hub.sample(entry)
    assert observed(node, "queued") == (0, 0)  # the 64th was no message of a topic
    for entry in [waited] * 64:
        node.hub.sample(entry)
    assert observed(node, "queued") == (1, 0.5)
    for entry in [waited] * 63 + [QueuedFrame(b"x", T0, False, None, waited.message)]:
        node.hub.sample(entry)
    assert observed(node, "queued") == (1, 0.5)  # nor is a reply
    for entry in [QueuedFrame(b"x", T0 + 9_000.0, True, None, waited.message)] * 64:
        node.hub.sample(entry)
    assert observed(node, "queued") == (2, 0.5)  # our calendar was set back: never below zero


async def test_what_is_measured_of_messages(autojump_clock: trio.abc.Clock) -> None:
    """Not what is only shown, nor candles that were fetched or stored; never below zero."""
    node = Node()
    async with connected(node) as client:
        await client.subscribe(provisional=True)
        node.provisional(0)
        row = kline(T0)
        node.send(CandleNews(SERIES, evolve(row, event_ms=0), 1, float(T0)))
        assert observed(node, "published") == observed(node, "written") == (0, 0)
        # One that the log lacked comes out of the database, which keeps no such times.
        node.send(CandleNews(SERIES, kline(T0 + 60_000), 1, 0.0))
        assert observed(node, "published") == observed(node, "written") == (0, 0)
        node.send(CandleNews(SERIES, kline(T0 + 120_000), 1, T0 + 9_000.0))  # of the future
        assert observed(node, "published") == observed(node, "written") == (1, 0)


async def test_names_and_intervals_of_the_hub(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    hour = Series("okx", "ETHUSDT", Interval.H1)
    node.bus.open(hour)
    node.bus.open(TRADES)
    assert node.hub.symbols == ["BTCUSDT", "ETHUSDT"]
    assert node.hub.intervals == [Interval.M1, Interval.H1]
    assert [topic.stream_key for topic in node.hub.topics] == [SERIES, hour, TRADES]
    node.bus.close(hour)
    assert (node.hub.symbols, node.hub.intervals) == (["BTCUSDT"], [Interval.M1])
    node.bus.publish(StatusMessage(SERIES, StreamState.STALE))  # nobody is there to be told


# ---------------------------------------------------------------- what was closed and comes back

LOOK = ClientTimeouts(20.0, 60.0, 60.0)
OTHER = Series("binance_usdm", "ETHUSDT", Interval.M1)


def sweep(*clients: Client) -> None:
    for client in clients:
        client.session.sweep(trio.current_time(), LOOK)


async def told_to_resume(client: Client) -> list[dict[str, Any]]:
    """The resume points with which it is sent away."""
    *_, last = [await client.next() for _ in range(client.waiting())]
    with trio.fail_after(10):
        await client.gone.wait()
    assert client.closed == (4408, "resume")
    assert (last["type"], last["after_ms"]) == ("reconnect", 0)
    return list(last["since"])


async def test_who_was_subscribed_to_what_comes_back_is_sent_away_to_resume(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Else it waits for ever: nothing says that there is a stream again."""
    node = Node()
    node.bus.open(TRADES)
    async with connected(node) as client, connected(node) as other:
        await client.subscribe()
        await other.request(type="subscribe", symbol="BTCUSDT", channel="trade")
        await other.next("subscription_confirmed")
        for n in range(3):
            node.publish(n)
        node.bus.close(SERIES)
        await client.request(type="list")
        told = [await client.next() for _ in range(5)]
        assert [m["type"] for m in told[3:]] == ["stream_status", "subscriptions"]
        assert told[4]["data"] == []
        sweep(client, other)
        node.bus.open(SERIES)
        node.publish(3)
        sweep(client, other)
        points = await told_to_resume(client)
        names = {"symbol": "BTCUSDT", "interval": "1m", "exchange": "binance_usdm"}
        assert points == [{**names, "epoch": 1, "offset": 3}]
        assert other.closed is None, "it lacks nothing"
        assert node.metrics.slow_clients._value.get() == 0  # type: ignore[attr-defined]
    async with connected(node) as again:
        confirmed, candle = await again.resume(1, 3)
        assert confirmed["data"]["recovered"]
        assert (candle["data"]["offset"], candle["data"]["data"]["time"]) == (4, T0 // 1000 + 180)


async def test_it_is_sent_away_once_for_all_that_comes_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    node.bus.open(OTHER)
    async with connected(node) as client:
        await client.subscribe()
        await client.subscribe(symbol="ETHUSDT")
        node.publish(0)
        for key in (SERIES, OTHER):
            node.bus.close(key)
        node.bus.open(SERIES)
        sweep(client)
        await trio.sleep(SETTLE_S - 0.1)
        sweep(client)
        assert client.closed is None, "the other one may follow"
        node.bus.open(OTHER)
        sweep(client)
        points = await told_to_resume(client)
        assert [(p["symbol"], p["offset"]) for p in points] == [("BTCUSDT", 1), ("ETHUSDT", 0)]


async def test_what_stays_away_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    node.bus.open(OTHER)
    async with connected(node) as client:
        await client.subscribe()
        await client.subscribe(symbol="ETHUSDT")
        for key in (SERIES, OTHER):
            node.bus.close(key)
        node.bus.open(OTHER)
        sweep(client)
        await trio.sleep(SETTLE_S)
        sweep(client)
        assert [p["symbol"] for p in await told_to_resume(client)] == ["ETHUSDT"]


@pytest.mark.parametrize("how", ["unsubscribed", "subscribed anew", "closed once more"])
async def test_who_does_not_wait_for_it_stays(how: str, autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        node.bus.close(SERIES)
        await client.next("stream_status")
        if how == "unsubscribed":
            await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
            await client.next("unsubscribe_confirmed")
            await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
            assert (await client.next("error"))["code"] == 1002
        node.bus.open(SERIES)
        if how == "subscribed anew":
            await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
            await client.next("history_data")
            await client.next("subscription_confirmed")
        if how == "closed once more":
            node.bus.close(SERIES)
        for _ in range(3):
            sweep(client)
            await trio.sleep(SETTLE_S)
        assert client.closed is None
        if how == "closed once more":
            node.bus.open(SERIES)
            sweep(client)
            await told_to_resume(client)


async def test_it_resumes_behind_what_it_was_given_before_the_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    """What was under way when the topic was closed goes to nobody any more."""
    node = Node(ring=8)
    async with AsyncExitStack() as stack:
        clients = await crowd(node, stack, 4)
        for n in range(3):
            node.publish(n)
        node.bus.close(SERIES)
        await trio.testing.wait_all_tasks_blocked()
        node.bus.open(SERIES)
        sweep(*clients)
        lacking = 0
        for client in clients:
            seen = [m for m in client.take() if m["type"] in ("kline_data", "reconnect")]
            given = [m["data"]["offset"] for m in seen[:-1]]
            assert given == list(range(1, len(given) + 1))
            assert [p["offset"] for p in seen[-1]["since"]] == [len(given)]
            lacking += len(given) < 3
        assert lacking


async def test_a_topic_that_is_closed_while_its_history_is_read_is_refused(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Else the client is subscribed to what nobody publishes."""
    node = Node(recent=1, stored=5)
    async with connected(node) as client:
        read = node.store.history

        async def slow(*args: Any, **more: Any) -> Any:
            rows = await read(*args, **more)
            node.bus.close(SERIES)
            node.bus.open(SERIES)
            return rows

        node.store.history = slow  # type: ignore[method-assign]
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        assert "removed meanwhile" in (await client.next("error"))["message"]
