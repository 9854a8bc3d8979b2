"""Parent and workers under virtual time: each client has what it would have of one process."""

import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
import trio_websocket
from support.fleet import MemoryFleet
from support.make import T0, trade
from support.memory import MemoryNetwork
from support.private import balance, event, keys_for
from support.stack import (
    PushClient,
    Stack,
    client_on,
    open_stack,
    settings_for_tests,
    virtual_now_ms,
)

from trio_feed import service
from trio_feed.core.effects import TradeNews
from trio_feed.environment import Environment
from trio_feed.errors import StartError
from trio_feed.model import Channel, ChannelKey, Source
from trio_feed.push.private.auth import PUBLISHER_KEY, new_key
from trio_feed.settings import Settings, SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.telemetry import Exporters

BTC_TRADES = {"symbol": "BTCUSDT", "channel": "trade"}
MORE = (".channels=['kline', 'trade']", ".intervals=['1m', '5m']", "server.workers=2")


@asynccontextmanager
async def open_workers(
    *more: str,
    symbols: tuple[str, ...] = ("BTCUSDT",),
    venue: str = "binance_usdm",
    reload: Callable[[], Settings] | None = None,
    exporters: Exporters | None = None,
    killed: int = 0,
) -> AsyncIterator[tuple[Stack, MemoryFleet]]:
    """The whole service with two workers.  ``reload``: the settings after a SIGHUP; ``killed``: so
    many workers are killed before they serve."""
    settings = settings_for_tests(*MORE, *more, venue=venue)
    network = MemoryNetwork()
    environment = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    fleet = MemoryFleet(network, environment, killed=killed)
    box = SimulatorSettings(
        venue=venue, symbols=symbols, kline_push_ms=10_000, trades_per_minute=20
    )
    async with trio.open_nursery() as nursery:
        listeners = await network.listen("exchange", 80)
        exchange: Any = await nursery.start(
            partial(serve_exchange, box, listeners=listeners, now_ms=virtual_now_ms)
        )
        ready = await nursery.start(
            partial(
                service.run,
                settings,
                environment,
                fleet=fleet.opened,
                reload=reload,
                exporters=exporters,
            )
        )
        stack = Stack(network, exchange.market, exchange, ready, environment, None)  # type: ignore[arg-type]
        yield stack, fleet
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(stack: Stack, worker: int) -> AsyncIterator[PushClient]:
    """A client of that worker, which may go before it."""
    stream = await stack.network.dial(f"push-{worker}", 80)
    async with client_on(stream, "push") as client:
        yield client


async def ask(
    stack: Stack, worker: int, path: str, head: str = "", body: bytes = b""
) -> tuple[int, str]:
    """GET (with a body: POST) over a connection of its own -> status and body."""
    method = "POST" if body else "GET"
    stream = await stack.network.dial(f"push-{worker}", 80)
    await stream.send_all(
        f"{method} {path} HTTP/1.1\r\nHost: push\r\n{head}Connection: close\r\n\r\n".encode() + body
    )
    data = b""
    with trio.fail_after(30):
        while piece := await stream.receive_some(65536):
            data += piece
    await trio.aclose_forcefully(stream)
    start, _, rest = data.partition(b"\r\n\r\n")
    if b"chunked" in start:
        rest = b"".join(rest.split(b"\r\n")[1::2])
    return int(start.split()[1]), rest.decode()


async def metric(stack: Stack, worker: int, name: str) -> float:
    _, page = await ask(stack, worker, "/metrics")
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


async def test_clients_of_all_workers_get_the_same(autojump_clock: trio.abc.Clock) -> None:
    async with open_workers() as (stack, fleet):
        assert stack.ready.address == "push:80"
        async with client_of(stack, 1) as one, client_of(stack, 2) as two:
            for client in (one, two):
                await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=5)
                await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep(300)
            numbers = []
            for client in (one, two):
                history = (await client.of_type("history_data"))["data"]
                assert len(history["data"]) == 5
                rows = client.candles(final=True)
                times = [row["time"] for row in [*history["data"], *rows]]
                assert times == list(range(times[0], times[0] + 60 * len(times), 60))
                assert len(rows) >= 4
                numbers.append([m["data"] for m in client.messages if m["type"] == "kline_data"])
            shorter = min(map(len, numbers))
            assert shorter > 10
            pairs = [[(d["epoch"], d["offset"], d["data"]) for d in found] for found in numbers]
            assert pairs[0][-shorter:] == pairs[1][-shorter:]
            trades = [
                [m["data"]["offset"] for m in c.messages if m["type"] == "trade_data"]
                for c in (one, two)
            ]
            assert trades[0][-5:] == trades[1][-5:]
            assert trades[0] == list(range(trades[0][0], trades[0][-1] + 1))
        assert fleet.started == 2


async def test_streams_of_the_whole_market_at_a_worker_take_what_is_fed_later(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The streams of a symbol come to a worker before the instrument does, by whose name a dialect
    writes."""
    more = (".channels=['kline','ticker']", ".history_bars=5")
    symbols = ("BTCUSDT", "ETHUSDT")
    async with open_workers(*more, symbols=symbols, venue="binance") as (stack, _):
        stream = await stack.network.dial("push-1", 80)
        async with trio.open_nursery() as nursery:
            client = await trio_websocket.wrap_client_stream(
                nursery, stream, "push", "/binance/ws/!ticker@arr", message_queue_size=1000
            )
            listed = json.loads(await client.get_message())
            assert {event["s"] for event in listed} == {"BTCUSDT"}
            both = settings_for_tests(
                *MORE, *more, ".symbols=['BTCUSDT','ETHUSDT']", venue="binance"
            )
            await stack.ready.venues.apply(both)
            with trio.fail_after(120):
                while "ETHUSDT" not in {e["s"] for e in json.loads(await client.get_message())}:
                    pass
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


async def test_each_trade_of_a_burst_from_the_subscription_on(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Also of bursts that come before the parent knows that somebody at a worker wants them, and at
    a worker that has just begun."""
    key = ChannelKey("binance_usdm", "BTCUSDT", Channel.TRADE)
    numbers = count(10_000_000)
    async with open_workers() as (stack, fleet):
        await trio.sleep(5)

        def burst() -> None:
            """Five trades at once."""
            trades = tuple(trade(next(numbers), T0) for _ in range(5))
            stack.ready.bus.publish(TradeNews(key, trades, Source.EXCHANGE, 1.0))

        async def follow(worker: int) -> list[int]:
            """The ids of what a client gets, from before its subscription on."""
            async with client_of(stack, worker) as client, trio.open_nursery() as nursery:
                burst()
                nursery.start_soon(partial(client.ask, type="subscribe", **BTC_TRADES))
                for _ in range(20):  # some reach the worker before what it subscribed to is kept
                    burst()
                    await trio.lowlevel.checkpoint()
                await client.of_type("subscription_confirmed")
                burst()
                await trio.sleep(1)
                told = [m["data"] for m in client.messages if m["type"] == "trade_data"]
                assert not any(row.get("conflated") for row in told)
                offsets = [row["offset"] for row in told]
                assert offsets == list(range(offsets[0], offsets[-1] + 1))
                ids = [row["data"]["trade_id"] for row in told]
                return [number for number in ids if number >= 10_000_000]  # not the exchange's

        for worker in (1, 2):
            ids = await follow(worker)
            assert ids[-1] == next(numbers) - 1
            assert len(ids) > 10
        fleet.kill(2)
        while fleet.started < 3 or not await served_by(stack, 2):
            burst()
            await trio.sleep(0.01)
        ids = await follow(2)
        assert ids[-1] == next(numbers) - 1


async def served_by(stack: Stack, worker: int) -> bool:
    try:
        return (await ask(stack, worker, "/health"))[0] == 200
    except OSError:
        return False


async def resumed(client: PushClient, last: dict[str, Any]) -> list[dict[str, Any]]:
    since = {"epoch": last["epoch"], "offset": last["offset"], "time": last["data"]["time"]}
    await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", since=since)
    confirmed = await client.of_type("subscription_confirmed")
    assert confirmed["data"]["recovered"] is True
    return client.candles(final=True)


async def last_of(client: PushClient) -> dict[str, Any]:
    data: list[dict[str, Any]] = [m["data"] for m in client.messages if m["type"] == "kline_data"]
    return data[-1]


@pytest.mark.parametrize("away_s", [0.5, 200.0])
async def test_a_client_resumes_at_another_worker(
    away_s: float, autojump_clock: trio.abc.Clock
) -> None:
    """Its number is the parent's, so it counts everywhere; by the ring and by the store."""
    async with open_workers("kline.resume_messages=2") as (stack, _):
        async with client_of(stack, 1) as one:
            await one.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=1)
            await trio.sleep(150)
            last, had = await last_of(one), one.candles(final=True)
        await trio.sleep(away_s)
        async with client_of(stack, 2) as two:
            await resumed(two, last)
            await trio.sleep(90)
            times = [row["time"] for row in [*had, *two.candles(final=True)]]
            assert times == list(range(times[0], times[0] + 60 * len(times), 60))
            assert len(times) >= 3


async def test_a_worker_that_is_killed_is_replaced_and_its_clients_resume_anywhere(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_workers() as (stack, fleet):
        async with client_of(stack, 1) as one, client_of(stack, 2) as other:
            await other.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=1)
            await one.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=1)
            await one.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep(150)
            last, had = await last_of(one), one.candles(final=True)
            (trade, *_) = [m["data"] for m in reversed(one.messages) if m["type"] == "trade_data"]
            fleet.kill(1)
            await trio.sleep(20)  # some trades
            assert fleet.started == 3
            for worker in (1, 2):  # all workers keep the trades that one's clients wanted
                async with client_of(stack, worker) as again:
                    since = {"epoch": trade["epoch"], "offset": trade["offset"]}
                    await again.ask(
                        type="subscribe", symbol="BTCUSDT", channel="trade", since=since
                    )
                    first = await again.wait_for(lambda m: m["type"] == "trade_data")
                    assert first["data"]["offset"] == trade["offset"] + 1
            await trio.sleep(60)
            for worker in (1, 2):
                async with client_of(stack, worker) as again:
                    await resumed(again, last)
                    await trio.sleep(70)
                    times = [row["time"] for row in [*had, *again.candles(final=True)]]
                    assert times == list(range(times[0], times[0] + 60 * len(times), 60))
            times = [row["time"] for row in other.candles(final=True)]
            assert times == list(range(times[0], times[0] + 60 * len(times), 60))
        assert await metric(stack, 2, "trio_feed_worker_ends_total") == 1


async def test_pages_are_over_all_workers(autojump_clock: trio.abc.Clock) -> None:
    async with open_workers() as (stack, fleet):
        async with client_of(stack, 1) as one, client_of(stack, 2) as two:
            for client in (one, two, two):
                await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=1)
            await trio.sleep(130)
            for worker in (1, 2):
                code, text = await ask(stack, worker, "/api/v1/status")
                status = json.loads(text)
                assert (code, len(status["clients"])) == (200, 2)
                assert [each["clients"] for each in status["workers"]] == [1, 1]
                assert status["venues"]
                assert await metric(stack, worker, "trio_feed_subscriptions ") == 2
                assert await metric(stack, worker, "trio_feed_clients ") == 2
                kinds = await metric(stack, worker, 'trio_feed_requests_total{kind="subscribe"}')
                assert kinds == 3
                assert (await ask(stack, worker, "/ready"))[0] == 200
                code, text = await ask(
                    stack, worker, "/api/v1/klines?symbol=BTCUSDT&interval=1m&limit=3"
                )
                assert (code, len(json.loads(text)["data"])) == (200, 3)
            pushed = await metric(stack, 1, "trio_feed_pushed_messages_total")
            stage = 'trio_feed_push_latency_seconds_count{stage="written"}'
            written = await metric(stack, 1, stage)
            bucket = 'trio_feed_push_latency_seconds_bucket{le="+Inf",stage="written"}'
            assert await metric(stack, 1, bucket) == written > 0
            fleet.kill(2)
            await trio.sleep(5)
            assert await metric(stack, 1, "trio_feed_clients ") == 1
            assert await metric(stack, 1, "trio_feed_pushed_messages_total") >= pushed


async def test_limits_hold_for_all_workers_together(autojump_clock: trio.abc.Clock) -> None:
    async with open_workers("websocket.max_connections=2") as (stack, fleet):
        async with client_of(stack, 1), client_of(stack, 2):
            for worker in (1, 2):
                assert (await ask(stack, worker, "/api/v1/symbols"))[0] == 503
                assert (await ask(stack, worker, "/health"))[0] == 200  # probes always
        assert (await ask(stack, 1, "/api/v1/symbols"))[0] == 200
        async with client_of(stack, 2), client_of(stack, 2):
            assert (await ask(stack, 1, "/api/v1/symbols"))[0] == 503
            fleet.kill(2)
            await trio.sleep(1)
            assert (await ask(stack, 1, "/api/v1/symbols"))[0] == 200  # their places are free


async def test_a_machine_without_another_process_is_tried_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_workers() as (stack, fleet):
        fleet.refuses = 3
        fleet.kill(1)
        await trio.sleep(10)
        assert (fleet.started, fleet.refuses) == (3, 0)
        assert await metric(stack, 1, "trio_feed_worker_ends_total") == 4


async def test_a_worker_that_says_nothing_is_replaced(autojump_clock: trio.abc.Clock) -> None:
    async with open_workers() as (stack, fleet):
        await trio.sleep(5)

        async def stuck(_piece: Any) -> None:
            await trio.sleep_forever()

        fleet.running[1].theirs.send_all = stuck
        await trio.sleep(4)
        assert fleet.started == 2
        await trio.sleep(6)
        assert fleet.started == 3
        async with client_of(stack, 1) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await client.of_type("history_data")
        ends = 'trio_feed_worker_ends_total{reason="silent"}'
        assert await metric(stack, 2, ends) == 1


async def test_a_worker_that_takes_nothing_is_replaced(autojump_clock: trio.abc.Clock) -> None:
    async with open_workers() as (stack, fleet):
        await trio.sleep(5)

        async def stuck(_piece: Any) -> None:
            await trio.sleep_forever()

        fleet.running[1].stream.send_all = stuck  # type: ignore[method-assign]
        await trio.sleep(20)
        assert fleet.started == 3
        assert await metric(stack, 2, 'trio_feed_worker_ends_total{reason="slow"}') == 1


async def test_a_worker_that_is_killed_before_it_serves_is_replaced(
    autojump_clock: trio.abc.Clock,
) -> None:
    """For memory, or by a signal to all processes of the service: nothing that anybody could mend,
    for which a service manager would leave it ended."""
    async with open_workers(killed=3) as (stack, fleet):
        assert fleet.started == 5
        async with client_of(stack, 1) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await client.of_type("history_data")


async def test_a_worker_that_never_comes_up_ends_the_start(
    autojump_clock: trio.abc.Clock,
) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(StartError, match=r"worker \d did not start: killed$"),
        flatten_subgroups=True,
    ):
        async with open_workers(killed=99):
            pytest.fail("it must not come up")


async def test_a_worker_of_another_version_does_not_serve(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's files were replaced while the service runs."""
    monkeypatch.setattr("trio_feed.workers.worker.__version__", "0.0.1")
    with pytest.RaisesGroup(
        pytest.RaisesExc(StartError, match=r"worker \d did not start.*restart it"),
        flatten_subgroups=True,
    ):
        async with open_workers():
            pytest.fail("it must not come up")


async def test_private_events_reach_every_worker(autojump_clock: trio.abc.Clock) -> None:
    """Reported at one, delivered at another, resumed at any."""
    publisher, publisher_sha = new_key(PUBLISHER_KEY)
    keys, auth = keys_for(1001)
    (row,) = auth.api_keys
    settings = (
        f"auth.api_keys=[{{name='{row.name}', user_id=1001, sha256='{row.sha256}'}}]",
        f"settlement.publishers=[{{name='engine', sha256='{publisher_sha}'}}]",
    )

    async def post(stack: Stack, worker: int, *events: Any) -> Any:
        body = json.dumps(events).encode()
        head = f"Authorization: Bearer {publisher}\r\nContent-Length: {len(body)}\r\n"
        return await ask(stack, worker, "/api/v1/settlement/events", head, body)

    async with open_workers(*settings) as (stack, fleet):
        async with client_of(stack, 2) as two:
            await two.ask(type="auth", token=keys[1001])
            epoch = (await two.of_type("auth.success"))["epoch"]
            code, text = await post(stack, 1, event("a", "balance.update", balance(), 1001))
            assert (code, json.loads(text)["accepted"]) == (200, 1)
            assert (await two.of_type("balance.update"))["offset"] == 1
            code, text = await post(stack, 2, event("a", "balance.update", balance(), 1001))
            assert json.loads(text)["duplicates"] == 1
            fleet.kill(2)
        await post(stack, 1, event("b", "balance.update", balance(), 1001))
        await trio.sleep(2)
        for worker in (1, 2):
            async with client_of(stack, worker) as again:
                since = {"epoch": epoch, "offset": 0}
                await again.ask(type="auth", token=keys[1001], since=since)
                await again.wait_for(lambda m: m.get("offset") == 2 and "balance" in m["type"])
                told = [m["offset"] for m in again.messages if m["type"] == "balance.update"]
                assert told == [1, 2]


async def test_what_takes_time_at_a_worker_is_exported(autojump_clock: trio.abc.Clock) -> None:
    """By the parent, with the number of the worker."""
    in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = in_memory.InMemorySpanExporter()
    publisher, digest = new_key(PUBLISHER_KEY)
    settings = f"settlement.publishers=[{{name='engine', sha256='{digest}'}}]"
    async with open_workers(settings, exporters=Exporters(exporter)) as (stack, _):
        for worker, body in ((1, b"[]"), (2, b"no JSON")):
            head = f"Authorization: Bearer {publisher}\r\nContent-Length: {len(body)}\r\n"
            await ask(stack, worker, "/api/v1/settlement/events", head, body)
        await trio.sleep(1)
    waited = 0
    while not exporter.get_finished_spans() and waited < 500:
        time.sleep(0.01)  # the SDK's own thread, on the machine's clock
        waited += 1
    found = [span for span in exporter.get_finished_spans() if span.name == "settlement.batch"]
    assert [span.attributes["worker"] for span in found] == [1, 2]
    assert [span.attributes.get("events.accepted") for span in found] == [0, None]
    assert [span.status.description for span in found] == [None, "BadBody"]


async def test_dialects_are_served_by_every_worker(autojump_clock: trio.abc.Clock) -> None:
    more = ("dialects.binance_usdm.enabled=true", "dialects.udf.enabled=true")
    async with open_workers(*more) as (stack, _):
        await trio.sleep(130)
        for worker in (1, 2):
            code, text = await ask(stack, worker, "/binance_usdm/fapi/v1/exchangeInfo")
            assert (code, [s["symbol"] for s in json.loads(text)["symbols"]]) == (200, ["BTCUSDT"])
            path = "/binance_usdm/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=2"
            code, text = await ask(stack, worker, path)
            assert (code, len(json.loads(text))) == (200, 2)
            code, text = await ask(stack, worker, "/udf/symbols?symbol=BTCUSDT")
            assert (code, json.loads(text)["name"]) == (200, "BTCUSDT")


@asynccontextmanager
async def served(workers: int) -> AsyncIterator[PushClient]:
    """A client of a service with one process, or with workers."""
    if workers == 1:
        async with open_stack(settings_for_tests(*MORE[:2])) as stack:
            stream = await stack.network.dial("push", 80)
            async with client_on(stream, "push") as client:
                yield client
    else:
        async with open_workers() as (stack, _), client_of(stack, 1) as client:
            yield client


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_last_word_is_when_to_come_back(
    workers: int, autojump_clock: trio.abc.Clock
) -> None:
    """Of connections that the feeds give up at the end nobody hears: none of them was lost."""
    async with served(workers) as client:
        await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=1)
        await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
        await trio.sleep(30)
        before = len(client.messages)
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(8)
        assert [message["type"] for message in client.messages[before:]] == ["reconnect"]
        closed = client.connection.closed
        assert closed is not None
        assert (closed.code, closed.reason) == (1012, "service restart")


async def test_the_service_drains_its_workers(autojump_clock: trio.abc.Clock) -> None:
    """Clients of all workers are asked to come back, and then the service ends in order."""
    async with open_workers() as (stack, fleet):
        async with client_of(stack, 1) as one, client_of(stack, 2) as two:
            await trio.sleep(1)
            signal.raise_signal(signal.SIGTERM)
            for client in (one, two):
                with trio.fail_after(4):
                    await client.of_type("reconnect")
        await trio.sleep(10)
        assert all(spawned.gone.is_set() for spawned in fleet.running.values())
        assert [spawned.problem for spawned in fleet.running.values()] == ["drained"] * 2
        assert fleet.started == 2
