"""The whole service as several nodes: any client at any node has what a single process gives."""

import signal
from itertools import pairwise

import pytest
import trio
from attrs import evolve
from support.cluster import SYMBOLS, VENUE, RunningCluster, open_cluster
from support.stack import PushClient, virtual_now_ms

from trio_feed.bus.engine.memory import LOST_REQUEST, NO_FAULT, Fault
from trio_feed.client.numbers import Numbers
from trio_feed.model import Interval

MINUTE = 60


async def subscribed(client: PushClient, symbol: str = "BTCUSDT") -> None:
    await client.ask(type="subscribe", symbol=symbol, interval="1m", limit=5)
    await client.of_type("subscription_confirmed")


def times_of(client: PushClient) -> list[int]:
    history = next(m for m in client.messages if m["type"] == "history_data")["data"]["data"]
    return [row["time"] for row in [*history, *client.candles(final=True)]]


def check_whole(client: PushClient, least: int) -> None:
    times = times_of(client)
    assert times == list(range(times[0], times[0] + MINUTE * len(times), MINUTE))
    assert len(times) >= least


async def until_ready(cluster: RunningCluster, name: str) -> None:
    with trio.fail_after(60):
        while (await cluster.get(name, "/ready"))[0] != 200:  # noqa: ASYNC110
            await trio.sleep(0.5)


async def test_a_client_of_a_push_node_gets_what_ingest_nodes_feed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("in2", "['ingest']")
        await cluster.start("push1", "['push']")
        await cluster.start("push2", "['push']")
        await until_ready(cluster, "push1")
        await until_ready(cluster, "push2")
        async with cluster.client("push1") as one, cluster.client("push2") as two:
            for symbol in SYMBOLS:
                await one.ask(type="subscribe", symbol=symbol, interval="1m", limit=5)
            await subscribed(two)
            await trio.sleep(5 * MINUTE)
            check_whole(two, 8)
            rows = [m["data"] for m in one.messages if m["type"] == "kline_data"]
            assert {row["symbol"] for row in rows} == set(SYMBOLS)
        _, status = await cluster.get("push2", "/api/v1/status")
        assert set(status["nodes"]) == {"in1", "in2", "push1", "push2"}
        assert set(status["shards"].values()) == {"in1", "in2"}


async def test_a_killed_ingest_node_costs_no_candle(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster() as cluster:
        await cluster.start("one")
        await cluster.start("two")
        await cluster.start("push", "['push']")
        await until_ready(cluster, "push")
        async with cluster.client("push") as client:
            await subscribed(client)
            await trio.sleep(2.5 * MINUTE)
            cluster.kill("one")
            await trio.sleep(2.5 * MINUTE)
            await cluster.start("three")
            cluster.kill("two")
            await trio.sleep(3.2 * MINUTE)
            check_whole(client, 10)
            states = [m["data"]["status"] for m in client.messages if m["type"] == "stream_status"]
            assert states.count("stale") <= 4
            assert states[-1] == "live"


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(("standby", "after_s"), [("cold", 40), ("hot", 40), ("hot", 2)])
async def test_trades_go_on_where_they_ended_when_another_node_takes_over(
    standby: str, after_s: float, killed: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """In cold standby what was traded meanwhile is fetched, as after a lost connection; in hot, too
    what was before the node began."""
    more = f"engine.standby={standby}"
    async with open_cluster() as cluster:
        await cluster.start("one", "['ingest']", more)
        await cluster.start("push", "['push']", more)
        await until_ready(cluster, "push")
        async with cluster.client("push") as client:
            for symbol in SYMBOLS:
                await client.ask(type="subscribe", symbol=symbol, channel="trade")
            await trio.sleep(30)
            await cluster.start("two", "['ingest']", more)
            await trio.sleep(after_s)  # each has a half, in cold standby
            if killed:
                cluster.kill("one")
            else:
                cluster.nodes["one"].scope.cancel()
            await trio.sleep(2 * MINUTE)
            states = [m["data"] for m in client.messages if m["type"] == "stream_status"]
            assert "unrepairable" not in [each["status"] for each in states]
            fetched = killed and standby == "cold"
            assert not fetched or "repaired" in [each["status"] for each in states]
            for symbol in SYMBOLS:
                told = (m["data"] for m in client.messages if m["type"] == "trade_data")
                rows = [each["data"] for each in told if each["symbol"] == symbol]
                ids = [(row["first_id"], row["last_id"]) for row in rows]
                assert all(b[0] == a[1] + 1 for a, b in pairwise(ids)), symbol
                assert len(rows) > 20


@pytest.mark.parametrize("away_s", [4.0, 12.0])
async def test_trades_that_an_owner_stored_and_could_not_say_are_not_lost(
    away_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """The engine stands still for its owner for longer than the lease, which feeds on and stores
    candles made of trades that are in no log; who takes over fetches these trades, too."""
    made = ".trade_intervals=['1s']"
    async with open_cluster() as cluster:
        one = await cluster.start("one", "['ingest']", made)
        await cluster.start("push", "['push']", made)
        await until_ready(cluster, "push")
        async with cluster.client("push") as client:
            for symbol in SYMBOLS:
                await client.ask(type="subscribe", symbol=symbol, channel="trade")
                await client.ask(type="subscribe", symbol=symbol, interval="1s", limit=1)
            await trio.sleep(20)
            await cluster.start("two", "['ingest']", made)
            for _ in range(3):
                await trio.sleep(MINUTE)
                one.fault = LOST_REQUEST
                await trio.sleep(away_s)
                one.fault = NO_FAULT
            await trio.sleep(MINUTE)
            states = [m["data"] for m in client.messages if m["type"] == "stream_status"]
            assert "unrepairable" not in [each["status"] for each in states]
            assert "repaired" in [each["status"] for each in states]
            for symbol in SYMBOLS:
                check_trades(client, symbol)


def check_trades(client: PushClient, symbol: str) -> None:
    """All of them came, once each, and the 1s candles are made of them."""
    told = (m["data"] for m in client.messages if m["type"] == "trade_data")
    rows = [each["data"] for each in told if each["symbol"] == symbol]
    ids = [(row["first_id"], row["last_id"]) for row in rows]
    assert all(b[0] == a[1] + 1 for a, b in pairwise(ids)), symbol
    assert len(rows) > 60
    volumes = dict[int, float]()
    for row in rows:
        second = row["time"] // 1000
        volumes[second] = volumes.get(second, 0.0) + row["quantity"]
    updates = (m["data"] for m in client.messages if m["type"] == "kline_data")
    found = [u["data"] for u in updates if u["symbol"] == symbol and u["interval"] == "1s"]
    closed = [row for row in found if row["update_type"] == "final"]
    assert len(closed) > 120
    for row, after in pairwise(closed):
        assert after["time"] == row["time"] + 1
    for row in closed[2:]:  # the first ones began before the client came
        assert row["complete"]
        assert row["volume"] == pytest.approx(volumes.get(row["time"], 0.0)), row


async def test_a_client_moves_between_nodes_without_a_gap(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        for name in ("one", "two"):
            await cluster.start(name)
            await until_ready(cluster, name)
        async with cluster.client("one") as client:
            await subscribed(client)
            await trio.sleep(2.5 * MINUTE)
            check_whole(client, 5)
            last = [m["data"] for m in client.messages if m["type"] == "kline_data"][-1]
            times = times_of(client)
        await trio.sleep(1.5 * MINUTE)
        cluster.kill("one")
        await trio.sleep(1.5 * MINUTE)
        async with cluster.client("two") as again:
            since = {"epoch": last["epoch"], "offset": last["offset"], "time": times[-1]}
            await again.ask(type="subscribe", symbol="BTCUSDT", interval="1m", since=since)
            answer = await again.of_type("subscription_confirmed")
            assert answer["data"]["recovered"] is True
            await trio.sleep(1.2 * MINUTE)
            times += [row["time"] for row in again.candles(final=True)]
            assert times == list(range(times[0], times[0] + MINUTE * len(times), MINUTE))


async def test_a_node_that_owns_nothing_is_ready_and_nobody_repeats_old_reasons(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await until_ready(cluster, "in1")
        await cluster.start("in2", "['ingest']")
        await cluster.start("push", "['push']")
        await trio.sleep(4)  # in2 gets its share later
        _, status = await cluster.get("in2", "/api/v1/status")
        assert set(status["shards"].values()) == {"in1"}
        await until_ready(cluster, "push")
        assert (await cluster.get("in2", "/ready"))[0] == 200
        await trio.sleep(1.5)
        _, status = await cluster.get("push", "/api/v1/status")
        assert {node["venues"].get("binance_usdm", "") for node in status["nodes"].values()} == {""}
        assert {node["not_ready"] for node in status["nodes"].values()} == {""}
        await trio.sleep(MINUTE)
        async with cluster.client("push") as client:
            await subscribed(client)
            answer = await client.of_type("subscription_confirmed")
            assert answer["data"]["upstream"] == "live"


async def test_a_node_that_lost_the_exchange_leaves_its_shards_to_a_standby(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        hot = "engine.standby=hot"
        await cluster.start("one", "['ingest', 'push']", hot)
        await cluster.start("two", "['ingest', 'push']", hot)
        await cluster.start("push", "['push']", hot)
        await until_ready(cluster, "push")
        async with cluster.client("push") as client:
            await subscribed(client)
            await trio.sleep(1.5 * MINUTE)
            cluster.cut_off("one")
            await trio.sleep(2.5 * MINUTE)
            _, status = await cluster.get("push", "/api/v1/status")
            assert set(status["shards"].values()) == {"two"}
            await trio.sleep(1.2 * MINUTE)
            check_whole(client, 9)
            assert not [
                m
                for m in client.messages
                if m["type"] == "stream_status" and m["data"]["status"] == "unrepairable"
            ]


async def test_a_node_that_ends_hands_over_though_its_exchange_does_not_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its connections wait for two seconds to be closed from the other side."""
    async with open_cluster() as cluster:
        await cluster.start("one", "['ingest']")
        await cluster.start("push", "['push']")
        await until_ready(cluster, "push")
        await cluster.start("two", "['ingest']")
        await trio.sleep(30)
        one = cluster.nodes["one"]
        one.hears_nothing = True
        one.send_signal(signal.SIGTERM)
        await trio.sleep(1.9)  # each node looks once a second who there is, and owns what
        _, status = await cluster.get("push", "/api/v1/status")
        assert set(status["shards"].values()) == {"two"}


async def test_what_only_the_owner_heard_is_in_what_the_next_one_makes_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A minute was corrected while a node in hot standby did not hear its exchange: when it owns
    the symbol, the longer candle that it makes has that minute, too, and no second look of its own
    is needed for that (after 15 minutes)."""
    hot = [
        "engine.standby=hot",
        ".intervals=['1m']",
        ".rollup_intervals=['5m']",
        ".audit_after_s=600",
        ".channels=['kline']",
    ]
    async with open_cluster() as cluster:
        await cluster.start("one", "['ingest']", *hot)
        await cluster.start("two", "['ingest']", *hot)
        await cluster.start("push", "['push']", *hot)
        await until_ready(cluster, "push")
        async with cluster.client("push") as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="5m", limit=5)
            await client.of_type("subscription_confirmed")
            market = cluster.exchange.market
            now_ms = virtual_now_ms()
            first_ms = market.next_open("BTCUSDT", Interval.M5, int(now_ms - now_ms % 300_000))
            await trio.sleep((first_ms - now_ms) / 1000 + 1.2 * MINUTE)
            cluster.cut_off("two")
            await trio.sleep(15)  # what it owned is the other's
            old = market.candle("BTCUSDT", Interval.M1, first_ms)
            cluster.exchange.correct("BTCUSDT", evolve(old, volume=old.volume + 1))
            await trio.sleep(1)
            cluster.nodes["two"].is_cut_off = False
            await trio.sleep(20)  # its streams are back
            cluster.nodes["two"].is_cut_off = True  # nothing can be asked
            await trio.sleep(1 * MINUTE)
            cluster.kill("one")
            await trio.sleep(4 * MINUTE)
            (made,) = [r for r in client.candles(final=True) if r["time"] * 1000 == first_ms]
            wanted = market.candle("BTCUSDT", Interval.M5, first_ms)
            assert made["volume"] == float(wanted.volume)
            assert not [r for r in client.candles(final=False) if r["update_type"] == "revision"]


def check_numbers(client: PushClient) -> int:
    """Every message as a client of ours counts them; returns how many were left out."""
    known, left_out = dict[str, Numbers](), 0
    for message in client.messages:
        data = message.get("data", {})
        kind = "trade" if data.get("channel") == "trade" else "kline"
        if message["type"] == "subscription_confirmed":
            known.setdefault(kind, Numbers(kind)).begin(data["epoch"], data["offset"])
        elif message["type"] in ("kline_data", "trade_data"):
            if data.get("snapshot"):
                continue
            conflated = data.get("conflated", 0)
            kind = message["type"].removesuffix("_data")
            known[kind].take(data["epoch"], data["offset"], conflated)
            left_out += conflated
    assert set(known) == {"kline", "trade"}
    return left_out


async def test_a_reader_whose_log_was_cut_counts_what_it_left_out(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in", "['ingest']")
        push = await cluster.start("push", "['push']")
        await until_ready(cluster, "push")
        async with cluster.client("push") as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await client.wait_for(lambda m: m["type"] == "subscription_confirmed")
            await subscribed(client)
            await trio.sleep(1.5 * MINUTE)
            push.fault = Fault(arrives=False)
            await trio.sleep(2.2 * MINUTE)
            for shard in (f"{VENUE}.{number}" for number in range(2)):
                cluster.server.cut(shard, keep=2)
            push.fault = NO_FAULT
            await trio.sleep(2.5 * MINUTE)
            check_whole(client, 8)
            assert check_numbers(client) > 0
