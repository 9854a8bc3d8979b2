"""Sessions and hub together, over a fake transport on virtual time."""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest
import trio
from support.make import MINUTE, SERIES, T0
from support.node import LIMITS, TICKERS, TRADES, Client, Node, connected, times

from trio_feed.errors import StoreError
from trio_feed.metrics import total as over_all_labels
from trio_feed.model import Interval, Series, StatusMessage, StreamState
from trio_feed.push.fanout.sender import ClientTimeouts


async def test_history_then_confirmation_then_updates(autojump_clock: trio.abc.Clock) -> None:
    node = Node(stored=3)
    async with connected(node) as client:
        answer = await client.subscribe(subscription_id="s1")
        assert times(answer["data"]["data"]) == [-3, -2, -1]
        assert answer["data"]["has_more"] is False
        node.publish(0, closed=False)
        update = await client.next("kline_data")
        assert update["data"]["subscription_id"] == "s1"
        assert times([update["data"]["data"]]) == [0]


class Together:
    """While ``more`` is set, the next message is there already."""

    more = False

    def reading_ahead(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


async def test_what_is_asked_together_is_answered_together(
    autojump_clock: trio.abc.Clock,
) -> None:
    node, inbox = Node(), Together()
    node.bus.open(TRADES)
    node.bus.open(TICKERS)
    async with connected(node, inbox=inbox) as client:
        inbox.more, before = True, client.writes
        await client.request(type="subscribe", symbol="BTCUSDT", channel="trade")
        await trio.testing.wait_all_tasks_blocked()
        assert client.writes == before
        inbox.more = False
        await client.request(type="subscribe", symbol="BTCUSDT", channel="ticker")
        await trio.testing.wait_all_tasks_blocked()
        assert client.writes == before + 1
        assert [m["data"]["channel"] for m in client.take()] == ["trade", "ticker"]
        # What waits for the store, or for others' work, keeps nothing back.
        inbox.more = True
        await client.request(type="unsubscribe", symbol="BTCUSDT", channel="trade")
        await client.request(type="subscribe", symbol="BTCUSDT", channel="trade")
        await client.request(type="history", symbol="BTCUSDT", interval="1m")
        await trio.testing.wait_all_tasks_blocked()
        kinds = [m["type"] for m in client.take()]
        assert kinds == ["unsubscribe_confirmed", "subscription_confirmed", "history_data"]


async def test_a_running_candle_is_sent_at_once(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    node.publish(0, closed=False)
    async with connected(node) as client:
        answer = await client.subscribe()
        assert answer["data"]["data"] == []
        assert (await client.next("kline_data"))["data"]["offset"] == 1


async def test_a_revision_is_told_and_changes_the_history(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    node.publish(0)
    async with connected(node) as client:
        await client.subscribe()
        node.revise(0, "100.75")
        update = await client.next("kline_data")
        assert update["data"]["data"]["update_type"] == "revision"
        answer = await client.subscribe()
        assert [row["close"] for row in answer["data"]["data"]] == [100.75]


async def test_subscribers_are_told_of_their_stream(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe(subscription_id="s1")
        node.bus.publish(
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
    node = Node(recent=5, stored=20)
    async with connected(node) as client:
        answer = await client.subscribe(limit=limit)
        expected = list(range(-20, 0))[-limit:]
        assert times(answer["data"]["data"]) == expected
        assert answer["data"]["has_more"] is (limit < 20)


async def test_no_gap_and_no_overlap_while_candles_close(autojump_clock: trio.abc.Clock) -> None:
    """The store is slow, and candles close faster than it answers: more than the ring holds."""
    node = Node(recent=5, stored=20)
    quick = node.store.history

    async def slow(*args: Any, **more: Any) -> Any:
        rows = await quick(*args, **more)
        await trio.sleep(1)
        return rows

    node.store.history = slow  # type: ignore[method-assign]

    async def keep_closing() -> None:
        for n in range(40):
            node.publish(n)
            await trio.sleep(0.15)

    async with connected(node) as client, trio.open_nursery() as nursery:
        nursery.start_soon(keep_closing)
        await trio.sleep(0.5)
        answer = await client.subscribe(limit=100)
        seen = times(answer["data"]["data"])
        while seen[-1] < 39:
            seen += times([(await client.next("kline_data"))["data"]["data"]])
        assert seen == list(range(-20, 40))


async def test_each_subscriber_gets_its_own_prefix(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as one, connected(node) as two:
        await one.subscribe(interval="m1", subscription_id="a")
        await two.subscribe()
        node.publish(0)
        first, second = await one.next("kline_data"), await two.next("kline_data")
        assert first["data"]["interval"] == "m1"
        assert first["data"]["subscription_id"] == "a"
        assert second["data"]["interval"] == "1m"
        assert "subscription_id" not in second["data"]
        assert first["data"]["data"] == second["data"]["data"]


async def test_unsubscribe_ends_the_updates(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        assert (await client.next("unsubscribe_confirmed"))["data"]["success"] is True
        node.publish(0)
        await client.request(type="list")
        assert (await client.next("subscriptions"))["data"] == []
        await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        assert (await client.next("error"))["code"] == 1002


async def test_errors_answer_and_never_close(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
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
    async with connected(Node()) as client:
        answer = await client.subscribe(symbol="btcusdt")
        assert answer["data"]["symbol"] == "btcusdt"


async def test_a_venues_own_name_is_understood(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    node.bus.alias("BTC-USDT", "BTCUSDT")
    async with connected(node) as client:
        answer = await client.subscribe(symbol="BTC-USDT")
        assert answer["data"]["symbol"] == "BTC-USDT"
        node.publish(0)
        assert (await client.next("kline_data"))["data"]["symbol"] == "BTC-USDT"
        await client.request(type="unsubscribe", symbol="btc-usdt", interval="1m")
        await client.next("unsubscribe_confirmed")


async def test_the_default_venue_answers_for_a_shared_symbol(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    node.bus.open(Series("another", "BTCUSDT", Interval.M1), [], None)
    async with connected(node) as client:
        assert (await client.subscribe())["data"]["exchange"] == "binance_usdm"
        answer = await client.subscribe(exchange="another")
        assert answer["data"]["exchange"] == "another"


async def test_subscriptions_are_limited_and_replaceable(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    for interval in (Interval.M5, Interval.H1):
        node.bus.open(Series("binance_usdm", "BTCUSDT", interval), [], None)
    async with connected(node) as client:
        await client.subscribe(subscription_id="old")
        await client.subscribe(interval="5m")
        await client.subscribe(subscription_id="new")
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1h")
        assert "limit of subscriptions is 2" in (await client.next("error"))["message"]
        node.publish(0)
        assert (await client.next("kline_data"))["data"]["subscription_id"] == "new"
        await client.request(type="ping")
        await client.next("pong")


async def test_a_client_that_does_not_read_is_dropped_alone(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node) as good, connected(node) as bad:
        await good.subscribe()
        await bad.subscribe()
        bad.stall()
        for n in range(LIMITS.max_queued + 5):
            node.publish(n)
            assert times([(await good.next("kline_data"))["data"]["data"]]) == [n]
        bad.reading.set()
        await bad.gone.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert bad.closed == (4408, "too slow")
        assert node.metrics.subscriptions._value.get() == 1


async def test_a_client_that_asks_faster_than_it_reads_waits(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    async with connected(node) as client:
        client.stall()
        for _ in range(50):
            await client.request(type="ping")
        await trio.testing.wait_all_tasks_blocked()
        assert client.requests.statistics().current_buffer_used > 30
        client.reading.set()
        for _ in range(50):
            await client.next("pong")


async def test_nothing_is_left_behind(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        await client.ask.send(None)
        await trio.testing.wait_all_tasks_blocked()
        assert node.metrics.clients._value.get() == 0
    topic = next(iter(node.hub.topics))
    assert topic.subscriptions == {}


async def test_history_by_range(autojump_clock: trio.abc.Clock) -> None:
    node = Node(stored=20)

    async def ask(client: Client, **more: Any) -> list[int]:
        await client.request(type="history", symbol="BTCUSDT", interval="1m", **more)
        return times((await client.next("history_data"))["data"]["data"])

    second = T0 // 1000
    async with connected(node) as client:
        assert await ask(client) == [-5, -4, -3, -2, -1]
        assert await ask(client, limit=2, **{"from": second - 600}) == [-10, -9]
        assert await ask(client, limit=2, to=second - 600) == [-12, -11]
        assert await ask(client, **{"from": second - 180, "to": second - 60}) == [-3, -2]


async def history(client: Client, **more: Any) -> list[tuple[int, float]]:
    await client.request(type="history", symbol="BTCUSDT", interval="1m", **more)
    rows = (await client.next("history_data"))["data"]["data"]
    return [(times([row])[0], row["close"]) for row in rows]


async def test_a_revision_of_a_candle_older_than_the_ring_changes_the_history(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node(recent=2)
    for n in range(6):
        node.publish(n)
    async with connected(node) as client:
        await client.subscribe()
        node.revise(1, "77.00")
        told = (await client.next("kline_data"))["data"]
        assert (told["offset"], told["data"]["update_type"]) == (7, "revision")
        changed = [(n, 77.0 if n == 1 else 100.5) for n in range(6)]
        assert await history(client, limit=5) == changed[1:]
        assert await history(client, limit=2, **{"from": T0 // 1000 + 60}) == changed[1:3]


async def test_a_revision_while_the_store_is_being_read_is_not_lost(
    autojump_clock: trio.abc.Clock,
) -> None:
    """What was read before it is old, and its message is before the history's offset."""
    node = Node(recent=2)
    for n in range(6):
        node.publish(n)
    quick, asked = node.store.history, 0

    async def slow(*args: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        rows = await quick(*args, **more)
        if asked == 1:
            node.revise(1, "77.00")
        return rows

    node.store.history = slow  # type: ignore[method-assign]
    async with connected(node) as client:
        answer = await client.subscribe(limit=5)
        assert answer["data"]["offset"] == 7
        assert [row["close"] for row in answer["data"]["data"]] == [77.0, *[100.5] * 4]


@pytest.mark.parametrize("catches_up_s", [1.0, None])
async def test_a_store_that_is_behind_is_waited_for_two_seconds(
    catches_up_s: float | None, autojump_clock: trio.abc.Clock
) -> None:
    """Then there is none: one side of a hole would look like the whole."""
    node = Node(recent=5, stored=4)
    for n in range(8):
        node.publish(n)
    quick, began = node.store.history, trio.current_time()

    async def behind(*args: Any, **more: Any) -> Any:
        rows = await quick(*args, **more)
        caught_up = catches_up_s is not None and trio.current_time() >= began + catches_up_s
        return rows if caught_up else [row for row in rows if row.open_ms < T0 + MINUTE]

    node.store.history = behind  # type: ignore[method-assign]
    async with connected(node) as client:
        before = trio.current_time()
        if catches_up_s is not None:
            answer = await client.subscribe(limit=100)
            assert times(answer["data"]["data"]) == list(range(-4, 8))
            assert trio.current_time() - before == pytest.approx(catches_up_s, abs=0.1)
            return
        start = T0 // 1000 - 120
        for request in (
            {"type": "subscribe", "limit": 100, "id": 1},
            {"type": "history", "limit": 20, "from": start, "id": 2},
        ):
            before = trio.current_time()
            await client.request(symbol="BTCUSDT", interval="1m", **request)
            refused = await client.next("error")
            assert (refused["code"], refused["id"]) == (1003, request["id"])
            assert trio.current_time() - before == pytest.approx(2.0, abs=0.1)
        asked = trio.current_time()
        assert [n for n, _ in await history(client, limit=2, **{"from": start})] == [-2, -1]
        assert trio.current_time() == asked  # the store has all of it
        assert [n for n, _ in await history(client, to=T0 // 1000 + 60)] == [-4, -3, -2, -1, 0]


# ---------------------------------------------------------------- what is counted, and the sweep


def total(node: Node, name: str, *labels: str) -> float:
    metric = getattr(node.metrics, name)
    return over_all_labels(metric.labels(*labels) if labels else metric)


async def test_requests_and_errors_are_counted_by_kind(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        for kind in ("unsubscribe", "history", "subscribe"):
            await client.request(type=kind, symbol="BTCUSDT", interval="1m")
        await client.request(type="ping")
        await client.request(type="list")
        await client.request(type="auth", token="x")
        await client.request(type="unsubscribe", symbol="XRP", interval="1m")
        await client.request(type="history", symbol="XRP", interval="1m")
        await client.ask.send("nonsense")
        await trio.testing.wait_all_tasks_blocked()
        kinds = ("subscribe", "unsubscribe", "history", "ping", "list", "auth")
        assert [total(node, "requests", kind) for kind in kinds] == [2, 2, 2, 1, 1, 1]
        codes = [total(node, "request_errors", code) for code in ("1001", "1002", "1003")]
        assert codes == [1, 1, 1]
        assert total(node, "clients") == 1


async def test_subscriptions_and_messages_are_counted(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as one, connected(node) as two:
        for client in (one, two, one):
            await client.subscribe()
        assert total(node, "subscriptions") == 2  # a second one of the same replaces the first
        node.publish(0)
        node.publish(1)
        assert total(node, "pushed") == 4
        await one.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        await trio.testing.wait_all_tasks_blocked()
        assert total(node, "subscriptions") == 1
        node.bus.close(SERIES)
        assert total(node, "subscriptions") == 0
        assert not two.session.engaged


async def test_a_list_says_what_was_asked_for(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        assert not client.session.engaged
        await client.subscribe(interval="m1", subscription_id="s", provisional=True)
        assert client.session.engaged
        await client.request(type="list")
        answer = await client.next("subscriptions")
        assert answer["data"] == [
            {
                "symbol": "BTCUSDT", "interval": "m1", "subscription_id": "s",
                "exchange": "binance_usdm", "channel": "kline", "provisional": True,
            }
        ]  # fmt: skip


async def test_the_line_of_a_client_on_the_status_page(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        session = client.session
        await client.subscribe()
        assert session.statistics() == {
            "client_id": session.client_id, "peer": client.peer, "subscriptions": 1,
            "authenticated": False, "queued_messages": 0, "queued_bytes": 0,
            "queued_age_ms": 0.0, "conflated": 0, "bytes_out": client.bytes_out,
        }  # fmt: skip
        client.stall()
        node.publish(0, closed=False)
        await trio.testing.wait_all_tasks_blocked()  # that one is with the draining task
        for n in range(3):
            node.publish(0, closed=False, close=f"100.{n}")
        assert session.statistics()["conflated"] == 2
        assert total(node, "conflated") == 2
        assert repr(session) == f"<client {session.client_id} 1 subscriptions, 1 queued>"


@pytest.mark.parametrize(
    ("silent_s", "pings", "aborted"),
    [(9.9, 0, False), (10.0, 1, False), (20.0, 1, False), (20.1, 0, True)],
)
async def test_a_sweep_pings_and_aborts_at_its_limits(
    silent_s: float, pings: int, aborted: bool, autojump_clock: trio.abc.Clock
) -> None:
    timeouts = ClientTimeouts(ping_s=10.0, silence_s=20.0, stall_s=5.0)
    async with connected(Node()) as client:
        await trio.sleep(100)
        now = trio.current_time()
        client.last_received = now - silent_s
        client.session.sweep(now, timeouts)
        assert (client.pings, client.aborted) == (pings, aborted)
        client.session.sweep(now + 9.9, timeouts)  # a ping is not followed by another so soon
        assert client.pings <= max(pings, 1)


@pytest.mark.parametrize(("stuck_s", "dropped"), [(4.9, False), (5.0, True)])
async def test_a_sweep_drops_who_takes_nothing(
    stuck_s: float, dropped: bool, autojump_clock: trio.abc.Clock
) -> None:
    timeouts = ClientTimeouts(ping_s=1000.0, silence_s=2000.0, stall_s=5.0)
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        await trio.sleep(50)
        client.session.sweep(trio.current_time(), timeouts)
        client.stall()
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()
        node.publish(1)
        began = trio.current_time()
        waiting = client.session.sweep(began + stuck_s, timeouts)
        assert total(node, "slow_clients") == dropped
        assert waiting == client.session.statistics()["queued_bytes"] > 0
        client.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (client.closed == (4408, "too slow")) is dropped
        if dropped:
            assert client.session.sweep(began + 99, timeouts) == 0


async def test_bytes_are_counted_once(autojump_clock: trio.abc.Clock) -> None:
    timeouts = ClientTimeouts(1000.0, 2000.0, 1000.0)
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        for _ in range(2):
            client.session.sweep(trio.current_time(), timeouts)
            assert total(node, "push_bytes") == client.bytes_out
        node.publish(0)
        await client.ask.send(None)
        await trio.testing.wait_all_tasks_blocked()
        assert total(node, "push_bytes") == client.bytes_out
        assert total(node, "clients") == 0


async def test_a_status_that_waits_has_no_number_and_hides_none(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Who is dropped with a status in its queue resumes behind the last message all the same."""
    timeouts = ClientTimeouts(1000.0, 2000.0, 5.0)
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        node.publish(0)
        client.session.sweep(trio.current_time(), timeouts)
        client.stall()
        status = StatusMessage(SERIES, StreamState.STALE, "silence")
        for _ in range(2):
            node.bus.publish(status)
            await trio.testing.wait_all_tasks_blocked()
        client.session.sweep(trio.current_time() + 5, timeouts)
        client.reading.set()
        with trio.fail_after(60):
            await client.gone.wait()
        (last,) = [m for m in client.take() if m["type"] == "reconnect"]
        assert [(point["epoch"], point["offset"]) for point in last["since"]] == [(1, 1)]


async def test_statuses_are_bounded_as_pushes_are(autojump_clock: trio.abc.Clock) -> None:
    node = Node()
    async with connected(node) as client:
        await client.subscribe()
        client.stall()
        node.publish(0)
        await trio.testing.wait_all_tasks_blocked()  # with the draining task
        for n in range(LIMITS.max_queued + 1):
            assert total(node, "slow_clients") == 0, n
            node.bus.publish(StatusMessage(SERIES, StreamState.STALE, f"{n}"))
        assert total(node, "slow_clients") == 1


@pytest.mark.parametrize("number", ["mine", 7, 1.5])
async def test_every_reply_repeats_the_id_of_its_request(
    number: Any, autojump_clock: trio.abc.Clock
) -> None:
    node = Node(stored=3)
    asked = {"symbol": "BTCUSDT", "interval": "1m", "subscription_id": "s", "id": number}
    async with connected(node) as client:

        async def replies(**fields: Any) -> list[tuple[str, Any]]:
            await client.request(**fields)
            await trio.testing.wait_all_tasks_blocked()
            return [(answer["type"], answer.get("id")) for answer in client.take()]

        assert await replies(type="subscribe", **asked) == [
            ("history_data", number), ("subscription_confirmed", number),
        ]  # fmt: skip
        assert await replies(type="history", **asked) == [("history_data", number)]
        assert await replies(type="list", id=number) == [("subscriptions", number)]
        assert await replies(type="ping", id=number) == [("pong", number)]
        assert await replies(type="auth", token="tfk_x", id=number) == [("error", number)]
        assert await replies(type="unsubscribe", **asked) == [("unsubscribe_confirmed", number)]
        assert await replies(type="unsubscribe", **asked) == [("error", number)]
        for wrong in ({"interval": "7m"}, {"symbol": "NOSUCH"}, {"exchange": "x"}):
            for kind in ("subscribe", "history"):
                assert await replies(**{"type": kind, **asked, **wrong}) == [("error", number)]
        assert await replies(type="ping") == [("pong", None)]
        assert await replies(type="nonsense") == [("error", None)]


async def test_replies_repeat_the_subscription_id_where_there_is_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node(stored=3)
    async with connected(node) as client:
        page = await client.subscribe(subscription_id="s")
        assert page["data"]["subscription_id"] == "s"
        fields = {"symbol": "BTCUSDT", "interval": "1m"}
        await client.request(type="history", **fields, subscription_id="h")
        assert (await client.next("history_data"))["data"]["subscription_id"] == "h"
        await client.request(type="history", **fields)
        assert "subscription_id" not in (await client.next("history_data"))["data"]
        await client.request(type="subscribe", symbol="X", interval="1m", subscription_id="s")
        assert (await client.next("error"))["subscription_id"] == "s"


async def test_a_store_that_fails_is_answered_with_the_id(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is gone")

    node = Node(stored=3, recent=1)
    async with connected(node) as client:
        monkeypatch.setattr(node.store, "history", fails)
        for kind in ("history", "subscribe"):
            await client.request(type=kind, symbol="BTCUSDT", interval="1m", limit=3, id=kind)
            error = await client.next("error")
            assert (error["code"], error["id"]) == (1003, kind)


async def test_a_subscriber_learns_that_its_symbol_is_waited_for(
    autojump_clock: trio.abc.Clock,
) -> None:
    node = Node()
    node.bus.set_waiting(SERIES.venue, SERIES.symbol, "not in the venue's list")
    async with connected(node) as client:
        await client.request(type="subscribe", symbol="BTCUSDT", interval="1m")
        await client.next("history_data")
        confirmed = (await client.next("subscription_confirmed"))["data"]
        assert (confirmed["success"], confirmed["upstream"]) == (True, "waiting")
        assert confirmed["problem"] == "not in the venue's list"


async def test_only_the_last_of_two_subscriptions_to_a_stream_is_active(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A message that is on its way to the first is not handed to it any more."""
    node = Node()
    async with connected(node) as client:
        subscriptions = client.session.sender.subscriptions
        await client.subscribe()
        [first] = subscriptions.values()
        await client.subscribe()
        [second] = subscriptions.values()
        assert (first.active, second.active) == (False, True)
        await client.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        await client.next("unsubscribe_confirmed")
        assert not second.active
