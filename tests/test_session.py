"""Sessions and hub together, over a fake transport on virtual time."""

from typing import Any

import pytest
import trio
from support.desk import LIMITS, Client, Desk, connected, times
from support.make import MINUTE, SERIES, T0

from trio_feed.model import Interval, Series, StatusMessage, StreamState


async def test_history_then_confirmation_then_updates(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk(stored=3)
    async with connected(desk) as client:
        answer = await client.subscribe(subscription_id="s1")
        assert times(answer["data"]["data"]) == [-3, -2, -1]
        assert answer["data"]["has_more"] is False
        desk.publish(0, closed=False)
        update = await client.next("kline_data")
        assert update["data"]["subscription_id"] == "s1"
        assert times([update["data"]["data"]]) == [0]


async def test_a_running_candle_is_sent_at_once(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    desk.publish(0, closed=False)
    async with connected(desk) as client:
        answer = await client.subscribe()
        assert answer["data"]["data"] == []
        assert (await client.next("kline_data"))["data"]["offset"] == 1


async def test_a_revision_is_told_and_changes_the_history(
    autojump_clock: trio.abc.Clock,
) -> None:
    desk = Desk()
    desk.publish(0)
    async with connected(desk) as client:
        await client.subscribe()
        desk.revise(0, "100.75")
        update = await client.next("kline_data")
        assert update["data"]["data"]["update_type"] == "revision"
        answer = await client.subscribe()
        assert [row["close"] for row in answer["data"]["data"]] == [100.75]


async def test_subscribers_are_told_of_their_stream(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.subscribe(subscription_id="s1")
        desk.bus.publish(
            StatusMessage(SERIES, StreamState.REPAIRING, "reconnected", T0, T0 + MINUTE)
        )
        told = await client.next("stream_status")
        assert told["data"] == {
            "symbol": "BTCUSDT",
            "interval": "1m",
            "subscription_id": "s1",
            "exchange": "binance_usdm",
            "status": "repairing",
            "reason": "reconnected",
            "from": T0 // 1000,
            "to": (T0 + MINUTE) // 1000,
        }


@pytest.mark.parametrize("limit", [3, 5, 8, 100])
async def test_history_is_ring_and_store_together(
    limit: int, autojump_clock: trio.abc.Clock
) -> None:
    desk = Desk(recent=5, stored=20)
    async with connected(desk) as client:
        answer = await client.subscribe(limit=limit)
        expected = list(range(-20, 0))[-limit:]
        assert times(answer["data"]["data"]) == expected
        assert answer["data"]["has_more"] is (limit < 20)


async def test_no_gap_and_no_overlap_while_candles_close(autojump_clock: trio.abc.Clock) -> None:
    """The store is slow, and candles close faster than it answers: more than the ring holds."""
    desk = Desk(recent=5, stored=20)
    quick = desk.store.history

    async def slow(*args: Any, **more: Any) -> Any:
        rows = await quick(*args, **more)
        await trio.sleep(1)
        return rows

    desk.store.history = slow  # type: ignore[method-assign]

    async def keep_closing() -> None:
        for n in range(40):
            desk.publish(n)
            await trio.sleep(0.15)

    async with connected(desk) as client, trio.open_nursery() as nursery:
        nursery.start_soon(keep_closing)
        await trio.sleep(0.5)
        answer = await client.subscribe(limit=100)
        seen = times(answer["data"]["data"])
        while seen[-1] < 39:
            seen += times([(await client.next("kline_data"))["data"]["data"]])
        assert seen == list(range(-20, 40))


async def test_each_subscriber_gets_its_own_words(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    async with connected(desk) as one, connected(desk) as two:
        await one.subscribe(interval="m1", subscription_id="a")
        await two.subscribe()
        desk.publish(0)
        first, second = await one.next("kline_data"), await two.next("kline_data")
        assert first["data"]["interval"] == "m1"
        assert first["data"]["subscription_id"] == "a"
        assert second["data"]["interval"] == "1m"
        assert "subscription_id" not in second["data"]
        assert first["data"]["data"] == second["data"]["data"]


async def test_unsubscribe_ends_the_updates(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.subscribe()
        await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        assert (await client.next("unsubscribe_confirmed"))["data"]["success"] is True
        desk.publish(0)
        await client.request(type="list")
        assert (await client.next("subscriptions"))["data"] == []
        await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        assert (await client.next("error"))["code"] == 1002


async def test_errors_answer_and_never_close(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.ask.send("nonsense")
        assert (await client.next("error"))["code"] == 1001
        await client.request(type="subscribe", symbol="NOSUCH", interval="1m")
        error = await client.next("error")
        assert (error["code"], "BTCUSDT" in error["message"]) == (1002, True)
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1h")
        assert "interval: '1h' is not one of 1m" in (await client.next("error"))["message"]
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m", exchange="x")
        assert "exchange: 'x'" in (await client.next("error"))["message"]
        await client.request(type="history", symbol="NOSUCH", interval="1m")
        assert (await client.next("error"))["code"] == 1003
        await client.request(type="ping", id=1)
        assert await client.next() == {"type": "pong", "id": 1}


async def test_symbols_are_found_whatever_their_case(autojump_clock: trio.abc.Clock) -> None:
    async with connected(Desk()) as client:
        answer = await client.subscribe(symbol="btcusdt")
        assert answer["data"]["symbol"] == "btcusdt"


async def test_a_venues_own_name_is_understood(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    desk.bus.alias("BTC-USDT", "BTCUSDT")
    async with connected(desk) as client:
        answer = await client.subscribe(symbol="BTC-USDT")
        assert answer["data"]["symbol"] == "BTC-USDT"
        desk.publish(0)
        assert (await client.next("kline_data"))["data"]["symbol"] == "BTC-USDT"
        await client.request(type="unsubscribe", symbol="btc-usdt", interval="1m")
        await client.next("unsubscribe_confirmed")


async def test_the_default_venue_answers_for_a_shared_symbol(
    autojump_clock: trio.abc.Clock,
) -> None:
    desk = Desk()
    desk.bus.open(Series("another", "BTCUSDT", Interval.M1), [], None)
    async with connected(desk) as client:
        assert (await client.subscribe())["data"]["exchange"] == "binance_usdm"
        answer = await client.subscribe(exchange="another")
        assert answer["data"]["exchange"] == "another"


async def test_subscriptions_are_limited_and_replaceable(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    for interval in (Interval.M5, Interval.H1):
        desk.bus.open(Series("binance_usdm", "BTCUSDT", interval), [], None)
    async with connected(desk) as client:
        await client.subscribe(subscription_id="old")
        await client.subscribe(interval="5m")
        await client.subscribe(subscription_id="new")
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1h")
        assert "2 subscriptions" in (await client.next("error"))["message"]
        desk.publish(0)
        assert (await client.next("kline_data"))["data"]["subscription_id"] == "new"
        await client.request(type="ping")
        await client.next("pong")


async def test_a_client_that_does_not_read_is_dropped_alone(
    autojump_clock: trio.abc.Clock,
) -> None:
    desk = Desk()
    async with connected(desk) as good, connected(desk) as bad:
        await good.subscribe()
        await bad.subscribe()
        bad.stall()
        for n in range(LIMITS.max_queued + 5):
            desk.publish(n)
            assert times([(await good.next("kline_data"))["data"]["data"]]) == [n]
        bad.reading.set()
        await bad.gone.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert bad.closed == (4408, "too slow")
        assert desk.metrics.subscriptions._value.get() == 1


async def test_a_client_that_asks_faster_than_it_reads_waits(
    autojump_clock: trio.abc.Clock,
) -> None:
    desk = Desk()
    async with connected(desk) as client:
        client.stall()
        for _ in range(50):
            await client.request(type="ping")
        await trio.testing.wait_all_tasks_blocked()
        assert client.requests.statistics().current_buffer_used > 30
        client.reading.set()
        for _ in range(50):
            await client.next("pong")


async def test_nothing_is_left_behind(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.subscribe()
        await client.ask.send(None)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.metrics.clients._value.get() == 0
    topic = next(iter(desk.hub.topics))
    assert topic.subscriptions == {}


async def test_history_by_range(autojump_clock: trio.abc.Clock) -> None:
    desk = Desk(stored=20)

    async def ask(client: Client, **more: Any) -> list[int]:
        await client.request(type="history", symbol="BTCUSDT", interval="1m", **more)
        return times((await client.next("history_data"))["data"]["data"])

    second = T0 // 1000
    async with connected(desk) as client:
        assert await ask(client) == [-5, -4, -3, -2, -1]
        assert await ask(client, limit=2, **{"from": second - 600}) == [-10, -9]
        assert await ask(client, limit=2, to=second - 600) == [-12, -11]
        assert await ask(client, **{"from": second - 180, "to": second - 60}) == [-3, -2]
