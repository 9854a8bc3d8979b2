"""A node with workers: its clients have what clients of any node have."""

import trio
from support.cluster import SYMBOLS, VENUE, open_cluster
from test_cluster import MINUTE, check_whole, subscribed, times_of, until_ready

from trio_feed.bus.engine.memory import LOST_REQUEST, NO_FAULT

WORKERS = "server.workers=2"


async def test_clients_of_the_workers_of_a_push_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("in2", "['ingest']")
        await cluster.start("push", "['push']", WORKERS)
        for name in ("push-1", "push-2"):
            await until_ready(cluster, name)
        async with cluster.client("push-1") as one, cluster.client("push-2") as two:
            for symbol in SYMBOLS:
                await one.ask(type="subscribe", symbol=symbol, interval="1m", limit=5)
            await one.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await subscribed(two)
            await trio.sleep(5 * MINUTE)
            check_whole(two, 8)
            rows = [m["data"] for m in one.messages if m["type"] == "kline_data"]
            assert {row["symbol"] for row in rows} == set(SYMBOLS)
            sent = [m["data"] for m in one.messages if m["type"] == "trade_data"]
            trades = [row["data"]["trade_id"] for row in sent]
            assert trades == list(range(trades[0], trades[0] + len(trades)))
            assert len(trades) > 20
            assert not any(row.get("conflated") for row in sent)
            code, page = await cluster.get("push-2", "/api/v1/klines?symbol=BTCUSDT&interval=1m")
            assert (code, page["data"][-1]["time"]) == (200, times_of(two)[-1])
            code, page = await cluster.get("push-1", f"/{VENUE}/fapi/v1/exchangeInfo")
            assert {each["symbol"] for each in page["symbols"]} == set(SYMBOLS)
            _, status = await cluster.get("push-2", "/api/v1/status")
            assert set(status["nodes"]) == {"in1", "in2", "push"}
            assert status["nodes"]["push"]["clients"] == 2
            assert [each["clients"] for each in status["workers"]] == [1, 1]


async def test_a_takeover_as_clients_of_workers_see_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """By a node that feeds and serves, both with workers; then by one that had no part in it."""
    async with open_cluster() as cluster:
        await cluster.start("one", "['ingest', 'push']", WORKERS)
        await cluster.start("two", "['ingest', 'push']", WORKERS)
        await cluster.start("push", "['push']", WORKERS)
        await until_ready(cluster, "push-1")
        async with cluster.client("push-1") as client, cluster.client("two-2") as other:
            for each in (client, other):
                await subscribed(each)
            await trio.sleep(2.5 * MINUTE)
            cluster.kill("one")
            await trio.sleep(2.5 * MINUTE)
            check_whole(other, 8)
            last = [m["data"] for m in other.messages if m["type"] == "kline_data"][-1]
            times = times_of(other)
            await cluster.start("three")
            cluster.kill("two")
            await trio.sleep(3.2 * MINUTE)
            check_whole(client, 10)
            states = [m["data"]["status"] for m in client.messages if m["type"] == "stream_status"]
            assert states[-1] == "live"
        async with cluster.client("push-2") as again:  # what a client had of a worker of another
            since = {"epoch": last["epoch"], "offset": last["offset"], "time": times[-1]}
            await again.ask(type="subscribe", symbol="BTCUSDT", interval="1m", since=since)
            answer = await again.of_type("subscription_confirmed")
            assert answer["data"]["recovered"] is True
            await trio.sleep(1.2 * MINUTE)
            times += [row["time"] for row in again.candles(final=True)]
            assert times == list(range(times[0], times[0] + MINUTE * len(times), MINUTE))


async def test_a_worker_of_a_node_is_killed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        node = await cluster.start("push", "['push']", WORKERS)
        assert node.fleet is not None
        await until_ready(cluster, "push-2")
        async with cluster.client("push-1") as client:
            await subscribed(client)
            await trio.sleep(2.5 * MINUTE)
            last = [m["data"] for m in client.messages if m["type"] == "kline_data"][-1]
            times = times_of(client)
            node.fleet.kill(1)
            await trio.sleep(10)
        async with cluster.client("push-1") as again:
            since = {"epoch": last["epoch"], "offset": last["offset"], "time": times[-1]}
            await again.ask(type="subscribe", symbol="BTCUSDT", interval="1m", since=since)
            answer = await again.of_type("subscription_confirmed")
            assert answer["data"]["recovered"] is True
            await trio.sleep(2.2 * MINUTE)
            times += [row["time"] for row in again.candles(final=True)]
            assert times == list(range(times[0], times[0] + MINUTE * len(times), MINUTE))
            assert len(times) >= 8


async def test_the_engine_is_away_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    """Clients are told, and miss no candle; the workers go on."""
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        node = await cluster.start("push", "['push']", WORKERS)
        await until_ready(cluster, "push-1")
        async with cluster.client("push-1") as client:
            await subscribed(client)
            await trio.sleep(1.5 * MINUTE)
            node.fault = LOST_REQUEST
            await trio.sleep(2 * MINUTE)
            states = [m["data"]["status"] for m in client.messages if m["type"] == "stream_status"]
            assert states[-1] == "stale"
            assert (await cluster.get("push-2", "/ready"))[0] == 503
            node.fault = NO_FAULT
            await trio.sleep(2 * MINUTE)
            check_whole(client, 8)
        assert node.fleet is not None
        assert node.fleet.started == 2


async def test_workers_cost_the_engine_no_reader_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also after one was killed, or the engine forgot everything."""
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        one = await cluster.start("one", "['push']")
        many = await cluster.start("many", "['push']", "server.workers=4")
        assert many.fleet is not None
        for number in range(1, 5):
            await until_ready(cluster, f"many-{number}")
        await trio.sleep(2)
        many.fleet.kill(2)
        await trio.sleep(10)
        cluster.server.empty()
        await trio.sleep(20)
        for node in (one, many):
            node.calls.clear()
        await trio.sleep(MINUTE)
        assert one.calls["read"] > 100
        assert many.calls["read"] <= 1.02 * one.calls["read"]
        assert many.calls["since_checkpoint"] == one.calls["since_checkpoint"] == 0
        for number in range(1, 5):
            assert (await cluster.get(f"many-{number}", "/ready"))[0] == 200
