"""What all nodes of a cluster have to agree on: the database, and what is fed."""

import pytest
import structlog
import trio
from attrs import evolve
from support.cluster import SYMBOLS, RunningCluster, open_cluster, settings_of
from test_cluster import until_ready
from test_cluster_operations import of

from trio_feed.bus.engine.memory import MemoryEngine
from trio_feed.cluster import cluster_of
from trio_feed.cluster.agreement import GRACE_S, differing, digest_of
from trio_feed.cluster.registry import Said
from trio_feed.commands import status as status_command
from trio_feed.errors import StartError
from trio_feed.model import Interval
from trio_feed.settings import ExchangeSettings
from trio_feed.store import MemoryDatabase


@pytest.mark.parametrize("roles", ["['ingest', 'push']", "['push']"])
async def test_a_node_with_another_database_is_refused(
    roles: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Else it takes shards, and their candles are in the database of which the others know
    nothing."""
    async with open_cluster() as cluster:
        await cluster.start("one")
        await until_ready(cluster, "one")
        refused = pytest.RaisesExc(
            StartError,
            match=r'^engine\.prefix: "tf" is of a cluster with another database there '
            r"\(.*database \w+, here .*database \w+\); give this node the same store\.url",
        )
        with pytest.RaisesGroup(refused, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                cluster.nursery, own = nursery, cluster.nursery
                await cluster.start("two", roles, database=MemoryDatabase())
                nursery.cancel_scope.cancel()
        cluster.nursery = own
        await cluster.start("two", roles)
        await until_ready(cluster, "two")


async def test_nodes_that_would_feed_other_things_are_not_ready_until_they_agree(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else a node with half of the symbols takes shards, and nobody feeds the other half."""
    less = ".symbols=['BTCUSDT', 'ETHUSDT']"
    async with open_cluster() as cluster:
        with structlog.testing.capture_logs() as lines:
            await cluster.start("one", "['ingest', 'push']")
            await cluster.start("push1", "['push']", less)  # it feeds nothing
            await until_ready(cluster, "one")
            await cluster.start("in2", "['ingest']", less)
            await trio.sleep(10)
            code, _ = await cluster.get("in2", "/ready")
            assert code == 503, "it never agreed with anybody"
            code, _ = await cluster.get("one", "/ready")
            assert code == 200, "it may be the first to hear of other settings"
            assert gauge(cluster, "one") == gauge(cluster, "in2") == 1
            await trio.sleep(GRACE_S)
            for name, other in (("one", "in2"), ("in2", "one")):
                code, answer = await cluster.get(name, "/ready")
                assert code == 503
                assert f"node {other} has other symbols, intervals or channels" in answer["reason"]
                assert "of binance_usdm than this one" in answer["reason"]
                _, page = await cluster.get(name, "/api/v1/status")
                assert page["differs"] == {other: ["binance_usdm"]}
                line = f"{other} has other [exchanges] than {name}: binance_usdm"
                assert line in status_command.text(page, "http://x")
            code, _ = await cluster.get("push1", "/ready")
            assert code == 200
            _, page = await cluster.get("push1", "/api/v1/status")
            assert "than this one" in page["nodes"]["in2"]["not_ready"]
            told = [line for line in lines if line["event"] == "node.differs"]
            assert sorted(line["node"] for line in told) == ["in2", "one"]
            assert all(line["venues"] == ["binance_usdm"] for line in told)
            # As a SIGHUP does; the order is no difference.
            same = f".symbols={list(reversed(SYMBOLS))}"
            await cluster.nodes["in2"].ready.venues.apply(settings_of("in2", "['ingest']", same))
            await trio.sleep(30)
            for name in cluster.nodes:
                assert (await cluster.get(name, "/ready"))[0] == 200
                _, page = await cluster.get(name, "/api/v1/status")
                assert page["differs"] == {}
                assert gauge(cluster, name) == 0


async def owned(cluster: RunningCluster, *names: str) -> int:
    """Shards of nodes, as they say."""
    number = 0
    for name in names:
        _, page = await cluster.get(name, "/api/v1/status")
        number += len(page["nodes"][name]["shards"])
    return number


async def test_who_differs_from_its_start_on_takes_no_shard_while_another_node_can(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A kill of an owner must not cost what this node's settings lack; alone it is all there is."""
    less = ".symbols=['BTCUSDT', 'ETHUSDT']"
    async with open_cluster() as cluster:
        for name in ("one", "two"):
            await cluster.start(name, "['ingest']")
        await until_ready(cluster, "two")
        await cluster.start("wrong", "['ingest']", less)
        everything = 2
        for _ in range(30):
            await trio.sleep(2)
            assert await owned(cluster, "wrong") == 0
            assert await owned(cluster, "one", "two") == everything
        cluster.kill("two")
        for _ in range(30):
            await trio.sleep(2)
            assert await owned(cluster, "wrong") == 0
        assert await owned(cluster, "one") == everything
        cluster.kill("one")
        await trio.sleep(30)
        assert await owned(cluster, "wrong") == everything
        # Now the other one is new, and waits until it is told the same.
        await cluster.start("one", "['ingest']")
        await trio.sleep(60)
        assert await owned(cluster, "one") == 0
        settings = settings_of("wrong", "['ingest']")
        await cluster.nodes["wrong"].ready.venues.apply(settings)
        await trio.sleep(60)
        for name in ("one", "wrong"):
            assert await owned(cluster, name) == everything // 2


async def test_settings_may_go_round_the_nodes_one_by_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    less = ".symbols=['BTCUSDT', 'ETHUSDT']"
    async with open_cluster() as cluster:
        for name in ("one", "two"):
            await cluster.start(name, "['ingest']")
            await until_ready(cluster, name)
        for name in ("one", "two"):
            settings = settings_of(name, "['ingest']", less)
            await cluster.nodes[name].ready.venues.apply(settings)
            for _ in range(5):
                await trio.sleep(8)
                for each in cluster.nodes:
                    assert (await cluster.get(each, "/ready"))[0] == 200
        assert gauge(cluster, "one") == gauge(cluster, "two") == 0


def gauge(cluster: RunningCluster, node: str) -> float:
    return of(cluster, node, "nodes_differing")


def test_what_is_compared_of_nodes_that_feed() -> None:
    def node(name: str, fed: dict[str, str] | None, role: str = "ingest") -> Said:
        return Said(name, name, "1", [role], [], [], {}, "", 0, 5.0, {}, fed=fed)

    own = node("a", {"x": "1", "y": "2"})
    others = [
        own,
        node("same", {"y": "2", "x": "1"}),
        node("less", {"x": "1"}),
        node("more", {"x": "3", "y": "2", "z": "4"}),
        node("older", None),
        node("serves", {}, "push"),
    ]
    found = {each.name: each for each in others}
    assert differing(own, found) == {"less": ["y"], "more": ["x", "z"]}
    assert differing(node("a", {}, "push"), found) == {}
    one = ExchangeSettings(symbols=("A", "B"), intervals=(Interval.M1, Interval.M5))
    assert digest_of(one) == digest_of(evolve(one, symbols=("B", "A"), close_grace_s=9.0))
    for other in (
        evolve(one, symbols=("A",)),
        evolve(one, intervals=one.intervals[1:]),
        evolve(one, trade_intervals=()),
        evolve(one, rollup_intervals=(Interval.W1,)),
        evolve(one, channels=()),
    ):
        assert digest_of(one) != digest_of(other)


async def test_who_cannot_name_the_database_yet_begins_no_cluster(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its reader may not give it an identity: the first that writes does."""
    async with open_cluster() as cluster:
        engine = MemoryEngine(cluster.server)
        identity, cluster.database.identity = cluster.database.identity, ""
        await cluster.start("push1", "['push']")
        await trio.sleep(5)
        assert await engine.cluster() is None
        cluster.database.identity = identity
        await cluster.start("in1", "['ingest']")
        await until_ready(cluster, "push1")
        ours = cluster_of(settings_of("in1", "['ingest']"), identity)
        assert await engine.cluster() == ours


@pytest.mark.parametrize("is_ours", [True, False])
async def test_a_node_learns_the_identity_that_its_database_got_later(
    is_ours: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """And then knows whether it reads what the others write."""
    async with open_cluster() as cluster:
        theirs = MemoryDatabase(identity="")
        database = cluster.database if is_ours else theirs
        identity, database.identity = database.identity or "abc", ""
        await cluster.start("push1", "['push']", database=database)
        await trio.sleep(10)
        database.identity = identity
        await cluster.start("in1", "['ingest']")
        await trio.sleep(20)
        code, answer = await cluster.get("push1", "/ready")
        if is_ours:
            assert code == 200
        else:
            assert code == 503
            assert "of a cluster with another database there" in answer["reason"]
            assert "give this node the same store.url" in answer["reason"]


async def test_a_lease_of_nobody_is_said_and_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        engine, shard = MemoryEngine(cluster.server), "binance_usdm.1"
        assert await engine.take_lease(shard, "somebody", 1e9)
        with structlog.testing.capture_logs() as lines:
            await cluster.start("in1", "['ingest']")
            await trio.sleep(60)
        (said,) = [line for line in lines if line["event"] == "lease.foreign"]
        assert (said["shard"], said["holder"]) == (shard, "somebody")
        code, answer = await cluster.get("in1", "/ready")
        assert code == 503
        assert answer["reason"] == (
            "shard binance_usdm.1: its lease (the engine's key tf:{binance_usdm.1}:lease) is held"
            ' by "somebody", which is no node of this cluster; if it does not end by itself (PTTL'
            " says -1), delete that key"
        )
        assert (await engine.holders([shard]))[shard] == "somebody"
        await engine.drop_lease(shard, "somebody")
        await until_ready(cluster, "in1")


async def test_leases_of_nodes_that_come_and_go_are_no_strangers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        with structlog.testing.capture_logs() as lines:
            for name in ("one", "two", "three"):
                await cluster.start(name, "['ingest']")
                await trio.sleep(20)
            cluster.kill("one")
            await trio.sleep(20)
            cluster.nodes["two"].scope.cancel()
            await trio.sleep(20)
        assert [line for line in lines if line["event"] == "lease.foreign"] == []
