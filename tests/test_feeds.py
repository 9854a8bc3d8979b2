"""Symbols and venues come and go while the service runs, and the others do not notice."""

import json
from typing import Any

import pytest
import trio
import trio_websocket
from attrs import evolve
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from support.stack import (
    PushClient,
    Stack,
    client_on,
    open_stack,
    push_client,
    settings_for_tests,
)

from trio_feed.core.symbol import SymbolEngine
from trio_feed.errors import BadMessage
from trio_feed.model import Interval
from trio_feed.push.fanout.hub import Hub
from trio_feed.settings import ExchangeSettings, Settings, load

VENUE = "binance_usdm"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
MINUTE = 60


def with_venues(settings: Settings, **exchanges: ExchangeSettings) -> Settings:
    return evolve(settings, exchanges=exchanges)


def with_change(settings: Settings, **changes: Any) -> Settings:
    return with_venues(settings, **{VENUE: evolve(settings.exchanges[VENUE], **changes)})


def of_symbol(client: PushClient, symbol: str) -> list[dict[str, Any]]:
    return [
        m["data"] for m in client.messages
        if m["type"] == "kline_data" and m["data"]["symbol"] == symbol
    ]  # fmt: skip


def finals(client: PushClient, symbol: str) -> list[int]:
    """Minutes of the closed candles, as numbers from the first one on."""
    times = [d["data"]["time"] for d in of_symbol(client, symbol) if d["data"]["is_final"]]
    return [(time - times[0]) // MINUTE for time in times]


def offsets(client: PushClient, symbol: str) -> list[int]:
    return [data["offset"] for data in of_symbol(client, symbol)]


def lost(stack: Stack) -> float:
    metrics = stack.ready.app.context.metrics
    return sum(
        sample.value
        for family in metrics.connections_lost.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


async def subscribe(client: PushClient, symbol: str) -> None:
    await client.ask(type="subscribe", symbol=symbol, interval="1m")
    await client.wait_for(
        lambda m: m["type"] == "subscription_confirmed" and m["data"]["symbol"] == symbol
    )


async def test_symbols_come_and_go_and_the_others_miss_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".symbols=['BTCUSDT','ETHUSDT']", ".audit_after_s=0")
    with trio.fail_after(10_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack, push_client(stack) as client:
            await trio.sleep(90)
            for symbol in SYMBOLS[:2]:
                await subscribe(client, symbol)
            requests = stack.exchange.requests
            await trio.sleep(5 * MINUTE)
            await stack.ready.venues.apply(with_change(settings, symbols=("BTCUSDT", "SOLUSDT")))
            told = await client.of_type("stream_status")
            assert (told["data"]["symbol"], told["data"]["status"]) == ("ETHUSDT", "stale")
            await subscribe(client, "SOLUSDT")
            await trio.sleep(5 * MINUTE)
            assert finals(client, "BTCUSDT") == list(range(10))
            assert lost(stack) == 0
            assert stack.exchange.requests - requests <= 2  # the new symbol's history, no repair
            assert len(finals(client, "SOLUSDT")) >= 4
            assert len(finals(client, "ETHUSDT")) <= 6
            await client.ask(type="subscribe", symbol="ETHUSDT", interval="1m")
            error = await client.of_type("error")
            assert "ETHUSDT" in error["message"]


async def test_a_symbol_that_comes_back_goes_on_where_it_ended(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".symbols=['BTCUSDT','ETHUSDT']", ".audit_after_s=0")
    without = with_change(settings, symbols=("BTCUSDT",))
    with trio.fail_after(10_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await subscribe(client, "ETHUSDT")
            await trio.sleep(3 * MINUTE)
            await stack.ready.venues.apply(without)
            await trio.sleep(3 * MINUTE)
            before = len(of_symbol(client, "ETHUSDT"))
            await stack.ready.venues.apply(settings)
            await subscribe(client, "ETHUSDT")
            await trio.sleep(3 * MINUTE)
            seen = offsets(client, "ETHUSDT")
            assert len(seen) > before
            assert seen == sorted(set(seen))
            answer = [m for m in client.messages if m["type"] == "history_data"][-1]["data"]["data"]
            times = [row["time"] for row in answer]
            assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))


async def test_who_was_subscribed_to_what_left_and_came_back_resumes_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Each closed candle once, those of the time without the symbol too, and the trades since."""
    settings = settings_for_tests(
        ".symbols=['BTCUSDT','ETHUSDT']", ".channels=['kline','trade']", ".audit_after_s=0"
    )
    without = with_change(settings, symbols=("BTCUSDT",))
    with trio.fail_after(10_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack:
            await trio.sleep(90)
            host, _, port = stack.ready.address.rpartition(":")
            line = await stack.network.dial(host, int(port))
            async with client_on(line, host) as client, push_client(stack) as other:
                for symbol in SYMBOLS[:2]:
                    await subscribe(client, symbol)
                await client.ask(type="subscribe", symbol="ETHUSDT", channel="trade")
                await subscribe(other, "BTCUSDT")
                await trio.sleep(3 * MINUTE)
                await stack.ready.venues.apply(without)
                await trio.sleep(3 * MINUTE)
                await stack.ready.venues.apply(settings)
                away = await client.of_type("reconnect")
                await trio.sleep(MINUTE)
                assert client.connection.closed.code == 4408
                points = {(p["symbol"], p.get("interval", "trade")): p for p in away["since"]}
                assert points.keys() == {
                    ("BTCUSDT", "1m"), ("ETHUSDT", "1m"), ("ETHUSDT", "trade")
                }  # fmt: skip
                async with push_client(stack) as again:
                    for names in points.values():
                        since = {"epoch": names.pop("epoch"), "offset": names.pop("offset")}
                        await again.ask(type="subscribe", **names, since=since)
                    await trio.sleep(3 * MINUTE)
                    told = [m["data"] for m in again.messages if "recovered" in m.get("data", {})]
                    assert [data["recovered"] for data in told] == [True] * 3
                    for symbol in SYMBOLS[:2]:
                        rows = of_symbol(client, symbol) + of_symbol(again, symbol)
                        times = [row["data"]["time"] for row in rows if row["data"]["is_final"]]
                        assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
                        assert len(times) >= 9
            await trio.sleep(MINUTE)
            assert not [m for m in other.messages if m["type"] == "reconnect"]


async def test_another_change_of_a_venue_is_a_new_feed_that_goes_on(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests()
    with trio.fail_after(10_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await subscribe(client, "BTCUSDT")
            await trio.sleep(3 * MINUTE)
            (old,) = stack.ready.feeds
            changed = with_change(settings, channels=("kline", "trade"))
            await stack.ready.venues.apply(changed)
            (new,) = stack.ready.feeds
            assert new is not old
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep(3 * MINUTE)
            assert finals(client, "BTCUSDT") == list(range(len(finals(client, "BTCUSDT"))))
            assert len(finals(client, "BTCUSDT")) >= 5
            seen = offsets(client, "BTCUSDT")
            assert seen == list(range(seen[0], seen[0] + len(seen)))
            assert any(m["type"] == "trade_data" for m in client.messages)


async def test_what_the_exchange_corrected_meanwhile_is_learned_by_the_next_feed(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests()
    with trio.fail_after(10_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await subscribe(client, "BTCUSDT")
            await trio.sleep(5 * MINUTE)
            market = stack.exchange.market
            last = of_symbol(client, "BTCUSDT")[-1]["data"]["time"] * 1000 - 4 * 60_000
            old = market.candle("BTCUSDT", Interval.M1, last)
            market.correct("BTCUSDT", evolve(old, volume=old.volume + 1))  # nobody is told
            await stack.ready.venues.apply(with_change(settings, channels=("kline", "trade")))
            revised = await client.wait_for(
                lambda m: (
                    m["type"] == "kline_data" and m["data"]["data"]["update_type"] == "revision"
                )
            )
            assert revised["data"]["data"]["time"] == last // 1000
            assert revised["data"]["data"]["volume"] == float(old.volume + 1)


async def test_venues_come_and_go(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests()
    usdm = settings.exchanges[VENUE]
    nowhere = evolve(usdm.connection, websocket_url="ws://no", rest_url="http://no")
    both = with_venues(settings, binance_usdm=usdm, binance=evolve(usdm, connection=nowhere))
    with trio.fail_after(10_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await subscribe(client, "BTCUSDT")
            await stack.ready.venues.apply(both)
            assert stack.ready.venues.names == [VENUE, "binance"]
            await trio.sleep(2 * MINUTE)
            await stack.ready.venues.apply(settings)
            assert stack.ready.venues.names == [VENUE]
            await trio.sleep(2 * MINUTE)
            assert stack.ready.feeds[0].connections[0].attempts == 1
            assert finals(client, "BTCUSDT") == list(range(4))
            off = with_change(settings, enabled=False)
            await stack.ready.venues.apply(with_venues(off, binance=both.exchanges["binance"]))
            await client.of_type("stream_status")
            assert stack.exchange.connections == []


async def test_another_request_weight_counts_at_once_and_the_feed_stays(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".connection.rest_weight_per_minute=600")

    def weighing(settings: Settings, weight: int) -> Settings:
        connection = settings.exchanges[VENUE].connection
        return with_change(settings, connection=evolve(connection, rest_weight_per_minute=weight))

    with trio.fail_after(10_000):
        async with open_stack(settings) as stack:
            await trio.sleep(90)
            (feed,) = stack.ready.feeds
            venues = stack.ready.venues
            with capture_logs() as lines:
                await venues.apply(weighing(settings, 2400))
                await venues.apply(weighing(settings, 2400))  # nothing new
            assert stack.ready.feeds == [feed]
            shown = repr(feed._clients._weights)
            assert shown == "<Weights direct: <WeightBudget 2400 of 2400 left>>"
            changed = [line for line in lines if line["event"] == "budget.changed"]
            assert [line["rest_weight_per_minute"] for line in changed] == [2400]
            assert "venue.started" not in [line["event"] for line in lines]
            await venues.apply(with_change(weighing(settings, 60), channels=("kline", "trade")))
            (feed,) = stack.ready.feeds
            assert "of 60 left" in repr(feed._clients._weights)


async def test_what_needs_a_restart_is_said(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests()
    with trio.fail_after(1_000):
        async with open_stack(settings) as stack:
            with capture_logs() as lines:
                moved = evolve(settings, server=evolve(settings.server, port=81))
                await stack.ready.venues.apply(moved)
            (warning,) = [line for line in lines if line["event"] == "settings.need_restart"]
            assert warning["keys"] == ["server.port"]
            assert lines[-1]["event"] == "settings.applied"
            assert lines[-1]["need_restart"] == ["server.port"]


class Bug(Exception):
    """What nobody thought of."""


def break_at(monkeypatch: pytest.MonkeyPatch, *moments: float) -> list[float]:
    """The engine fails at the first message after each of these times."""
    to_come, failed = list(moments), []
    take = SymbolEngine.take

    def broken(self: SymbolEngine, events: Any, now: Any) -> Any:
        if to_come and trio.current_time() >= to_come[0]:
            failed.append(to_come.pop(0))
            raise Bug("once in a blue moon")
        return take(self, events, now)

    monkeypatch.setattr(SymbolEngine, "take", broken)
    return failed


async def test_a_bug_in_a_venue_makes_it_begin_anew_and_no_candle_is_missing(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = break_at(monkeypatch, 150.0, 400.0)
    settings = settings_for_tests("service.same_bug_max=2", ".audit_after_s=0", TRADES, S30)
    with trio.fail_after(10_000), capture_logs() as logs:
        async with (
            open_stack(settings) as stack,
            push_client(stack) as client,
            push_client(stack) as trades,
        ):
            await trio.sleep(90)
            await subscribe(client, "BTCUSDT")
            await trades.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep(10 * MINUTE)
            assert failed == [150.0, 400.0]
            assert finals(client, "BTCUSDT") == list(range(len(finals(client, "BTCUSDT"))))
            assert len(finals(client, "BTCUSDT")) >= 10
            found = offsets(client, "BTCUSDT")
            assert found == list(range(found[0], found[0] + len(found)))
            assert len({data["epoch"] for data in of_symbol(client, "BTCUSDT")}) == 1
            told = [m["data"]["status"] for m in client.messages if m["type"] == "stream_status"]
            assert told.count("stale") == 2
            assert told[-1] in ("live", "repaired")
            assert trades_told(trades) == list(range(len(trades_told(trades))))
            assert not stack.ready.app.report.not_ready()
    crashes = [line for line in logs if line["event"] == "venue.crashed"]
    assert [line["venue"] for line in crashes] == [VENUE] * 2
    assert all(line["problem"].startswith("Bug at test_feeds.py:") for line in crashes)


TRADES = '.channels=["kline", "trade"]'
S30 = '.trade_intervals=["30s"]'
"""Candles of trades go on behind what is stored, so trades of before come again."""


def trades_told(client: PushClient) -> list[int]:
    """Ids of the trades that came, from 0 on."""
    sent = [m for m in client.messages if m["type"] == "trade_data" and not m.get("snapshot")]
    ids = [int(m["data"]["data"]["trade_id"]) for m in sent]
    assert len(ids) > 25
    return [each - ids[0] for each in ids]


async def test_who_subscribes_before_anything_comes_hears_why_and_then_that_it_is_live(
    autojump_clock: trio.abc.Clock,
) -> None:
    network = MemoryNetwork()
    network.down.add(("exchange", 80))
    with trio.fail_after(1_000):
        async with (
            open_stack(settings_for_tests(), network=network) as stack,
            push_client(stack) as client,
        ):
            await trio.sleep(20)
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            confirmed = (await client.of_type("subscription_confirmed"))["data"]
            assert confirmed["upstream"] == "never_connected"
            assert stack.ready.app.report.not_ready() in confirmed["problem"]
            assert "nobody listens at exchange:80" in confirmed["problem"]
            await trio.sleep(100)
            assert not any(m["type"] == "stream_status" for m in client.messages)
            network.down.clear()
            status = (await client.of_type("stream_status"))["data"]
            assert (status["status"], status["interval"]) == ("live", "1m")
            async with push_client(stack) as later:
                await later.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
                confirmed = (await later.of_type("subscription_confirmed"))["data"]
                assert (confirmed["upstream"], "problem" in confirmed) == ("live", False)
                await trio.sleep(100)
                assert not any(m["type"] == "stream_status" for m in later.messages)
            assert sum(m["type"] == "stream_status" for m in client.messages) == 1


async def test_a_venue_that_begins_anew_by_other_settings_says_how_it_stands(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Each trade comes once, and what was stale is not for ever."""
    settings = settings_for_tests(".audit_after_s=0", TRADES, S30)
    with trio.fail_after(10_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(90)
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await trio.sleep(100)
            await stack.ready.venues.apply(with_change(settings, close_grace_s=4.0))
            await trio.sleep(200)
            told = [m["data"] for m in client.messages if m["type"] == "stream_status"]
            by_channel: dict[str, list[str]] = {}
            for each in told:
                by_channel.setdefault(each.get("channel", "kline"), []).append(each["status"])
            assert {name: states[0] for name, states in by_channel.items()} == {
                "trade": "stale", "kline": "stale",
            }  # fmt: skip
            assert {states[-1] for states in by_channel.values()} <= {"live", "repaired"}
            assert trades_told(client) == list(range(len(trades_told(client))))
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade", id="again")
            confirmed = await client.wait_for(lambda m: m.get("id") == "again")
            assert confirmed["data"]["upstream"] == "live"


async def test_the_same_bug_again_and_again_ends_the_process(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = break_at(monkeypatch, 100.0, 110.0, 120.0, 130.0)
    settings = settings_for_tests("service.same_bug_max=2")
    lines = await lines_of_an_end_by_a_bug(settings)
    assert failed == [100.0, 110.0, 120.0]
    crashed = [line for line in lines if line["event"] == "venue.crashed"]
    assert [line["again_s"] is None for line in crashed] == [False, False, True]


async def test_a_bug_beside_the_feeds_ends_the_process_with_a_goodbye_too(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_self: Hub) -> None:
        await trio.sleep(100)
        raise Bug("once in a\nblue moon")

    monkeypatch.setattr(Hub, "run", broken)
    await lines_of_an_end_by_a_bug(settings_for_tests())


async def lines_of_an_end_by_a_bug(settings: Settings) -> list[Any]:
    """The log; a client is asked to come back, as after a signal."""
    with trio.fail_after(10_000), capture_logs() as logs:
        async with trio.open_nursery() as outside:
            with pytest.RaisesGroup(Bug, flatten_subgroups=True):
                async with open_stack(settings) as stack:
                    await outside.start(read_until_asked_to_come_back, stack, outside)
                    await trio.sleep(1_000)
    events = [line["event"] for line in logs]
    ends = [event for event in events if event.startswith(("service.stop", "service.f"))]
    assert ends == ["service.stopping", "service.failed"]
    assert logs[-1]["event"] == "service.failed"
    assert logs[-1]["problem"].startswith("Bug at test_feeds.py:")
    assert logs[-1]["problem"].endswith(": once in a blue moon")
    return list(logs)


async def read_until_asked_to_come_back(
    stack: Stack,
    nursery: trio.Nursery,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    connection = await trio_websocket.wrap_client_stream(
        nursery, stream, f"{host}:{port}", "/ws", message_queue_size=1000
    )
    task_status.started()
    kinds, code = [], None
    try:
        while True:
            kinds.append(json.loads(await connection.get_message())["type"])
    except trio_websocket.ConnectionClosed as closed:
        code = closed.reason.code
    assert (kinds[-1], code) == ("reconnect", 1012)


async def test_a_venue_that_waits_to_begin_anew_can_be_ended(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, 150.0)
    settings = settings_for_tests("service.same_bug_max=2")
    other = load(assignments=["exchanges.okx.symbols=['BTCUSDT']"]).exchanges["okx"]
    with trio.fail_after(10_000), capture_logs() as logs:
        async with open_stack(settings) as stack:
            while not any(line["event"] == "venue.crashed" for line in logs):  # noqa: ASYNC110
                await trio.sleep(0.1)
            await stack.ready.venues.apply(with_venues(settings, okx=evolve(other, enabled=True)))
            assert stack.ready.venues.names == ["okx"]
            await trio.sleep(100)
            assert stack.ready.venues.names == ["okx"]


async def test_what_the_engine_calls_a_bad_message_is_counted_and_no_more(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, failed = SymbolEngine.take, list[float]()

    def odd(self: SymbolEngine, events: Any, now: Any) -> Any:
        if not failed:
            failed.append(trio.current_time())
            raise BadMessage("odd")
        return take(self, events, now)

    with trio.fail_after(600), capture_logs() as logs:
        async with open_stack(settings_for_tests()) as stack:
            await trio.sleep(5)
            monkeypatch.setattr(SymbolEngine, "take", odd)
            await trio.sleep(120)
            bad = stack.ready.app.context.metrics.bad_messages.labels(VENUE)
            assert bad._value.get() == len(failed) == 1
            assert stack.ready.app.context.metrics.failed.labels(VENUE)._value.get() == 1
            assert stack.ready.app.report.not_ready() == ""
    assert [line["problem"] for line in logs if line["event"] == "message.bad"] == ["odd"]
