"""What people who run a cluster see of it: status, metrics, a name given twice, versions."""

import io
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from prometheus_client.parser import text_string_to_metric_families
from support.cluster import RunningCluster, open_cluster, settings_of
from test_cluster import subscribed, until_ready

from trio_feed.bus import wire
from trio_feed.bus.engine import Append, Engine, EngineFault, Entry
from trio_feed.bus.engine.memory import (
    LOST_REQUEST,
    NO_FAULT,
    UNREACHABLE,
    EngineServer,
    MemoryEngine,
)
from trio_feed.bus.engine.opening import patiently
from trio_feed.cluster import cluster_of
from trio_feed.cluster.registry import Known, Said, written
from trio_feed.commands import probe_shared
from trio_feed.commands import status as status_command
from trio_feed.commands.probe import Step
from trio_feed.commands.probe_report import probe_all
from trio_feed.commands.probe_shared import probe_engine
from trio_feed.environment import real_environment
from trio_feed.errors import StartError
from trio_feed.settings import EngineSettings

MINUTE = 60


def samples(cluster: RunningCluster, name: str) -> Iterator[tuple[str, dict[str, str], float]]:
    page = cluster.nodes[name].ready.app.context.metrics.exposition().decode()
    for family in text_string_to_metric_families(page):
        for each in family.samples:
            yield each.name.removeprefix("trio_feed_"), dict(each.labels), each.value


def of(cluster: RunningCluster, node: str, metric: str, **labels: str) -> float:
    found = [v for n, had, v in samples(cluster, node) if n == metric and had == labels]
    return found[0] if found else math.nan


async def test_any_node_shows_all(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("push1", "['push']")
        await until_ready(cluster, "push1")
        async with cluster.client("push1") as client:
            await subscribed(client)
            await trio.sleep(5)
            for name in cluster.nodes:
                _, page = await cluster.get(name, "/api/v1/status")
                assert page["node"] == name
                assert page["nodes"].keys() == {"in1", "push1"}
                push, ingest = page["nodes"]["push1"], page["nodes"]["in1"]
                assert (push["roles"], push["clients"], push["shards"]) == (["push"], 1, [])
                assert ingest["shards"] == sorted(page["shards"])
                assert all(each["ready"] and each["age_s"] <= 2 for each in (push, ingest))
                assert push["urls"]["websocket"].endswith("/ws")
                assert page["engine"]["problem"] == page["database"]["problem"] == ""
        _, page = await cluster.get("push1", "/api/v1/status")
        assert page["shards_heard_s"].keys() == page["shards"].keys()
        text = status_command.text(page, "http://push1")
        assert "node push1; engine valkey: ok; database: ok" in text
        (row,) = [line for line in text.splitlines() if " in1 " in line]
        assert "ingest" in row
        assert "binance_usdm.0 binance_usdm.1" in row
        cluster.kill("in1")
        await trio.sleep(8)
        _, page = await cluster.get("push1", "/api/v1/status")
        assert page["nodes"]["in1"]["age_s"] >= 7
        await trio.sleep(8)
        _, page = await cluster.get("push1", "/api/v1/status")
        assert page["nodes"].keys() == {"push1"}
        assert set(page["shards"].values()) == {""}
        text = status_command.text(page, "http://push1")
        assert "fed by nobody: binance_usdm.0 binance_usdm.1" in text


async def test_a_node_counts_what_it_does_with_the_engine(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("push1", "['push']")
        await until_ready(cluster, "push1")
        await trio.sleep(2 * MINUTE)
        assert of(cluster, "in1", "engine_up", side="feed") == 1
        assert of(cluster, "push1", "engine_up", side="read") == 1
        assert of(cluster, "in1", "shard_owned", venue="binance_usdm", shard="binance_usdm.0") == 1
        assert of(cluster, "in1", "shard_changes_total", change="taken") == 2
        assert 0 < of(cluster, "in1", "engine_lease_age_seconds") < 3
        appends = of(cluster, "in1", "engine_appends_total")
        assert appends > 100
        assert of(cluster, "in1", "engine_append_bytes_total") > 100 * appends
        assert 0 < of(cluster, "in1", "engine_append_seconds_count") <= appends
        assert of(cluster, "push1", "engine_read_entries_total") >= appends - 10
        assert of(cluster, "push1", "engine_read_lag_seconds_count") > 50
        assert of(cluster, "push1", "engine_read_lag_seconds_bucket", le="1.0") > 50
        assert of(cluster, "push1", "shard_silent_seconds", shard="binance_usdm.1") < 2
        assert of(cluster, "push1", "database_up") == 1
        assert of(cluster, "push1", "nodes", role="push") == 1
        assert math.isnan(of(cluster, "push1", "engine_appends_total")), "it feeds nothing"

        cluster.database.away = True
        for node in cluster.nodes.values():
            node.fault = LOST_REQUEST
        await trio.sleep(10)
        assert of(cluster, "in1", "engine_up", side="feed") == 0
        assert of(cluster, "push1", "engine_up", side="read") == 0
        assert of(cluster, "in1", "database_up") == of(cluster, "push1", "database_up") == 0
        assert of(cluster, "in1", "engine_waiting_messages") > 10
        assert of(cluster, "in1", "engine_waiting_bytes") > 1000
        _, page = await cluster.get("push1", "/api/v1/status")
        assert page["database"]["problem"]
        assert page["engine"]["problem"]
        cluster.database.away = False
        for node in cluster.nodes.values():
            node.fault = NO_FAULT
        await trio.sleep(10)
        assert of(cluster, "in1", "engine_waiting_messages") < 10
        assert of(cluster, "push1", "database_up") == 1


async def test_a_database_that_takes_no_rows_is_said_where_clients_do_not_suffer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A full disk, or one that became read-only: questions are answered."""
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("push1", "['push']")
        await until_ready(cluster, "push1")
        cluster.database.refuses = "could not extend file: No space left on device"
        await trio.sleep(2 * MINUTE)
        code, answer = await cluster.get("in1", "/ready")
        assert (code, answer["reason"]) == (
            503,
            "database :memory:: it takes no candles: could not extend file: No space left on"
            " device; make room, or let it be written",
        )
        assert of(cluster, "in1", "database_up") == 0
        assert (await cluster.get("push1", "/ready"))[0] == 200, "its clients have live data"
        _, page = await cluster.get("push1", "/api/v1/status")
        assert "No space left" in page["nodes"]["in1"]["not_ready"]
        cluster.database.refuses = ""
        await until_ready(cluster, "in1")


@pytest.mark.parametrize("failing", [2, 3])
async def test_a_start_outlives_some_answers_that_do_not_come(
    failing: int, autojump_clock: trio.testing.MockClock
) -> None:
    """A machine that is busy, as it is when all start, answers late."""
    asked: list[str] = []

    async def ask() -> str:
        await trio.lowlevel.checkpoint()
        asked.append("")
        if len(asked) <= failing:
            raise EngineFault("no answer in 1 s")
        return "here"

    if failing == 2:
        assert await patiently(ask) == "here"
    else:
        with pytest.raises(EngineFault, match="no answer"):
            await patiently(ask)
    assert len(asked) == 3


@pytest.mark.parametrize("symbols", [None, ["NONEUSDT"]])
async def test_a_node_that_feeds_is_not_ready_without_its_database_whatever_it_feeds(
    symbols: list[str] | None, autojump_clock: trio.testing.MockClock
) -> None:
    """Without candles to write it does not notice by itself; and it could take no shard."""
    more = [] if symbols is None else [f"exchanges.binance_usdm.symbols={symbols}"]
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']", *more)
        await trio.sleep(10)
        before, _ = await cluster.get("in1", "/ready")
        cluster.database.away = True
        await trio.sleep(20)
        code, answer = await cluster.get("in1", "/ready")
        assert code == 503
        assert before == 503 or "database" in answer["reason"]
        cluster.database.away = False
        await trio.sleep(20)
        code, answer = await cluster.get("in1", "/ready")
        assert code == before
        assert "database" not in answer.get("reason", "")


async def test_what_the_engine_lacks_is_also_seen_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Somebody changed its configuration, or a right of our user; the nodes go on."""
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("push1", "['push']")
        await until_ready(cluster, "push1")
        lacks = "it drops keys when it is full: set maxmemory-policy noeviction, not allkeys-lru"
        with structlog.testing.capture_logs() as lines:
            cluster.server.lacks.append(lacks)
            await trio.sleep(MINUTE)
            told = [line["problem"] for line in lines if line["event"] == "engine.unfit"]
            assert told == [lacks, lacks], "once for each node"
            for name in cluster.nodes:
                _, page = await cluster.get(name, "/api/v1/status")
                assert page["engine"]["lacks"] == lacks
                assert of(cluster, name, "engine_fit") == 0
                assert (await cluster.get(name, "/ready"))[0] == 200
            assert f"the engine is not as it has to be: {lacks}" in status_command.text(page, "x")
            cluster.server.lacks.clear()
            await trio.sleep(MINUTE)
        assert [line["event"] for line in lines].count("engine.fit") == 2
        assert of(cluster, "push1", "engine_fit") == 1


async def test_an_engine_that_lets_no_new_connection_in_is_told_before_one_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its password was changed: connections that are open stay so.  One that is away is told by
    those who use it."""
    async with open_cluster() as cluster:
        node = await cluster.start("in1", "['ingest']")
        await until_ready(cluster, "in1")
        with structlog.testing.capture_logs() as lines:
            node.fault = LOST_REQUEST
            await trio.sleep(MINUTE)
            node.fault = NO_FAULT
            await trio.sleep(MINUTE)
            assert "engine.unfit" not in [line["event"] for line in lines]
            assert [line["event"] for line in lines].count("engine.feeding") == 1
            node.lets_nobody_in = True
            await trio.sleep(MINUTE)
        (line,) = [line for line in lines if line["event"] == "engine.unfit"]
        assert line["problem"] == f"it lets no new connection in: {UNREACHABLE}"
        assert (await cluster.get("in1", "/ready"))[0] == 200


async def test_lists_of_instruments_are_said_again_to_an_engine_that_lost_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else a node that comes later knows no symbol."""
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("push1", "['push']")
        await until_ready(cluster, "push1")
        await trio.sleep(10)
        cluster.server.empty()
        await trio.sleep(10)
        await cluster.start("push2", "['push']")
        await until_ready(cluster, "push2")
        _, page = await cluster.get("push2", "/api/v1/symbols")
        assert page == (await cluster.get("push1", "/api/v1/symbols"))[1]
        assert "BTCUSDT" in str(page)


async def test_a_name_that_a_running_node_has_is_refused_and_one_of_a_dead_node_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        await cluster.start("one")
        taken = pytest.RaisesExc(StartError, match=r'node\.name: "one" is taken')
        with pytest.RaisesGroup(taken, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                cluster.nursery, own = nursery, cluster.nursery
                await cluster.start("one", "['push']")
        cluster.nursery = own
        cluster.kill("one")
        await cluster.start("one")
        await until_ready(cluster, "one")


async def test_an_emptied_engine_stays_the_one_of_its_cluster(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else a node with another number of shards begins a cluster in the middle of this one."""
    async with open_cluster() as cluster:
        await cluster.start("push1", "['push']")
        await trio.sleep(5)
        cluster.server.empty()
        await trio.sleep(2.5)
        engine = MemoryEngine(cluster.server)
        ours = cluster_of(settings_of("push1", "['push']"), cluster.database.identity)
        assert await engine.cluster() == ours
        cluster.server.empty()
        other = cluster_of(settings_of("a", "['push']", "engine.shards=9"))
        await engine.join(other)
        with structlog.testing.capture_logs() as lines:
            await trio.sleep(5)
        (line,) = [line for line in lines if line["event"] == "node.foreign"]
        assert '"tf" is of another cluster there' in line["problem"]


def said(name: str, holder: str, beat: int) -> Said:
    return Said(name, holder, "1", ["push"], [], [], {}, "", 0, 5.0, {}, beat)


def test_another_process_of_our_name_is_seen_and_our_own_earlier_one_is_not() -> None:
    known, old = Known("a", "a:2"), written(said("a", "a:1", 7))
    known.begin({"a": old}, 0.0)
    assert not known.is_taken({"a": old})
    assert known.is_taken({"a": written(said("a", "a:1", 8))})
    known.take({"a": old}, said("a", "a:2", 0), 1.0)
    known.take({"a": written(said("a", "a:2", 0))}, said("a", "a:2", 1), 2.0)
    assert known.twin is None
    known.take({"a": written(said("a", "a:1", 8))}, said("a", "a:2", 2), 3.0)
    assert known.twin is not None
    assert known.twin.holder == "a:1"
    known.take({"a": written(said("a", "a:2", 2))}, said("a", "a:2", 3), 4.0)
    assert known.twin is None


def test_who_says_nothing_new_grows_old() -> None:
    known, other = Known("a", "a:1"), written(said("b", "b:1", 4))
    known.take({"b": other}, said("a", "a:1", 0), 1.0)
    known.take({"b": other}, said("a", "a:1", 1), 5.0)
    assert {n: each["age_s"] for n, each in known.shown(6.0).items()} == {"a": 1.0, "b": 5.0}


async def test_a_log_of_another_version_is_one_line_and_the_node_is_not_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        engine = MemoryEngine(cluster.server, 1.0, lambda _call: NO_FAULT)
        body = bytes([wire.VERSION + 1]) + b"whatever"
        await engine.append([Append("binance_usdm.0", (0, 0), (5, 1), body, checkpoint=True)])
        with structlog.testing.capture_logs() as lines:
            await cluster.start("push1", "['push']")
            await trio.sleep(20)
        why = f"wire {wire.VERSION + 1}, this one reads {wire.VERSION}"
        code, answer = await cluster.get("push1", "/ready")
        assert code == 503
        assert why in answer["reason"]
        assert "update" in answer["reason"]
        told = [line["problem"] for line in lines if line["event"] == "engine.lost"]
        assert len(told) == 1
        assert why in told[0]


async def test_an_engine_that_takes_nothing_is_a_line_per_node_and_none_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its disk is full, or it has too few replicas: questions are answered."""
    async with open_cluster() as cluster:
        nodes = [await cluster.start("in1", "['ingest']")]
        await trio.sleep(10)
        nodes.append(await cluster.start("in2", "['ingest']"))  # which has nothing yet
        await trio.sleep(2)
        for node in nodes:
            node.writes_nothing = True
        with structlog.testing.capture_logs() as lines:
            await trio.sleep(30)
        for node in nodes:
            code, answer = await cluster.get(node.name, "/ready")
            assert (code, answer["reason"]) == (503, f"engine: {UNREACHABLE}")
        told = [line["event"] for line in lines if line.get("problem") == UNREACHABLE]
        assert len(told) <= 4, "a line where it is used, and one where shards are taken"
        for node in nodes:
            node.writes_nothing = False
        await trio.sleep(10)
        for node in nodes:
            assert (await cluster.get(node.name, "/ready"))[0] == 200
        _, status = await cluster.get("in1", "/api/v1/status")
        assert "" not in status["shards"].values()


async def probed(server: EngineServer) -> Step:
    @asynccontextmanager
    async def open_engine(_settings: EngineSettings) -> AsyncIterator[Engine]:
        await trio.lowlevel.checkpoint()
        yield MemoryEngine(server, 1.0, lambda _call: NO_FAULT)

    steps: list[Step] = []
    good = await probe_engine(settings_of("a", "['push']"), steps.append, open_engine)
    (step,) = steps
    assert good is step.ok
    return step


async def test_check_connect_finds_what_a_start_would_find_and_makes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = EngineServer()
    engine = MemoryEngine(server, 1.0, lambda _call: NO_FAULT)
    step = await probed(server)
    assert (step.name, step.ok) == ("engine", True)
    assert step.detail == "valkey://engine:6379: no node is there yet"
    assert await engine.cluster() is None
    await engine.join(cluster_of(settings_of("a", "['push']")))
    await engine.put_node("in1", b"whatever", 10)
    assert (await probed(server)).detail.endswith("nodes there: in1")
    server.empty()
    await engine.join(cluster_of(settings_of("a", "['push']"), "an identity"))
    await engine.put_node("in1", b"whatever", 10)
    assert (await probed(server)).detail.endswith("nodes there: in1")
    server.lacks.append("it forgets all when it is restarted: set appendonly yes")
    step = await probed(server)
    assert not step.ok
    assert step.detail == server.lacks.pop()
    server.stop()
    assert not (await probed(server)).ok
    server.start()
    server.empty()
    await engine.join(cluster_of(settings_of("a", "['push']", "engine.shards=9")))
    step = await probed(server)
    assert '"tf" is of another cluster there' in step.detail
    assert step.advice == "give this one another prefix"


async def test_a_node_that_only_serves_dials_no_exchange(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    async def look(_url: object, _parts: object, *, reads: bool) -> tuple[str, str, str]:
        await trio.lowlevel.checkpoint()
        asked.append(reads)
        return "PostgreSQL 15", "", ""

    @asynccontextmanager
    async def open_engine(_settings: EngineSettings) -> AsyncIterator[Engine]:
        await trio.lowlevel.checkpoint()
        yield MemoryEngine(EngineServer(), 1.0, lambda _call: NO_FAULT)

    monkeypatch.setattr(probe_shared, "look_at_database", look)
    out = io.StringIO()
    settings = settings_of("a", "['push']")
    code = await probe_all(settings, out, False, real_environment(), open_engine=open_engine)
    assert (code, asked) == (0, [True])
    assert "binance_usdm: fed by other nodes, nothing to dial" in out.getvalue()
    assert "PostgreSQL 15" in out.getvalue()


async def test_a_node_takes_clients_when_it_knows_what_there_is(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first look at the engine takes a while; who comes back at once is not told 1002."""
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("one", "['push']")
        await until_ready(cluster, "one")
        look = MemoryEngine.since_checkpoint

        async def slow(engine: MemoryEngine, shard: str) -> list[Entry]:
            await trio.sleep(0.4)
            return await look(engine, shard)

        monkeypatch.setattr(MemoryEngine, "since_checkpoint", slow)
        await cluster.start("two", "['push']")
        async with cluster.client("two") as client:
            with trio.fail_after(30):
                await subscribed(client)
            (hello,) = [m for m in client.messages if m["type"] == "connection_success"]
            assert "BTCUSDT" in hello["supported_symbols"]
