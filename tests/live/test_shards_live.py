"""PostgreSQL with several writers: the checks of the memory twin, and what only a server does."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define
from structlog.testing import capture_logs
from support import shard_contract as shards
from support import store_contract
from support.make import MINUTE, SERIES, T0, kline, message
from support.postgres import PostgresServer, postgres_server
from support.shard_contract import BTC, ETH, ETHER, Cluster, Node, after, opens, shard_of

from trio_feed.errors import StartError, StoreError
from trio_feed.metrics import Metrics
from trio_feed.settings import DatabaseUrl, StoreSettings
from trio_feed.store import (
    KlineStore,
    Sharing,
    look_at_database,
    open_reading_store,
    open_shared_store,
    open_store,
)
from trio_feed.store.shards import SharedStore

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@define
class Database:
    """See :class:`support.shard_contract.Cluster`."""

    server: PostgresServer
    of: Callable[[str, str], str] = shard_of
    user: str = "feed"
    name: str = "postgres"

    @property
    def settings(self) -> StoreSettings:
        url = DatabaseUrl(self.server.url(self.name, user=self.user))
        return StoreSettings(url=url, keep=store_contract.KEEP)

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[Node]:
        fenced: list[str] = []
        async with open_shared_store(
            self.settings, Sharing(self.of, fenced.extend), simulated=False, metrics=Metrics()
        ) as store:
            assert isinstance(store, SharedStore)
            yield Node(store, fenced)

    def reader(self) -> AbstractAsyncContextManager[KlineStore]:
        return open_reading_store(self.settings, simulated=False, metrics=Metrics())

    def sole(self) -> AbstractAsyncContextManager[KlineStore]:
        return open_store(self.settings, simulated=False, now_ms=1, metrics=Metrics())

    @asynccontextmanager
    async def slow(self) -> AsyncIterator[None]:
        """A lock on the candles, which stops a write behind its fence."""
        import psycopg

        with psycopg.connect(self.server.url()) as db:
            db.execute("LOCK TABLE trio_feed.klines IN EXCLUSIVE MODE")
            yield
            db.rollback()


@pytest.fixture
def database(server: PostgresServer) -> Database:
    """An empty one."""
    server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
    return Database(server)


@pytest.mark.parametrize("check", shards.CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Callable[[Cluster], Awaitable[None]], database: Database) -> None:
    with trio.fail_after(60):
        await check(database)


@pytest.mark.parametrize("check", store_contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["unwritten", "written"])
async def test_it_is_a_store_as_any(
    check: Callable[[store_contract.Kit], Awaitable[None]], kind: str, database: Database
) -> None:
    database.of = lambda venue, symbol: "all"
    with trio.fail_after(30):
        async with database.writer() as node:
            store = node.store
            store.epoch = await store.claim("all", store_contract.EPOCH)

            async def retain() -> None:
                await store.flush()
                await store.retain()

            written = store.flush if kind == "written" else trio.lowlevel.checkpoint
            await check(store_contract.Kit(store, written, retain))


async def problem(opening: AbstractAsyncContextManager[object]) -> str:
    with trio.fail_after(30), pytest.raises(StartError) as raised:
        async with opening:
            pass
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith("store.url: postgresql://")
    return text


async def test_nodes_that_start_together_make_the_tables_once(server: PostgresServer) -> None:
    """Each asks what is there before it waits for the one that makes them."""

    async def open_one(number: int) -> None:
        opened = database.writer() if number % 2 else database.reader()
        async with opened:
            pass

    for turn in range(5):
        name = f"together{turn}"
        server.sql(f"CREATE DATABASE {name}")
        database = Database(server, name=name)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(open_one, number)


async def test_tables_of_the_first_version_get_theirs(
    server: PostgresServer, database: Database
) -> None:
    async with database.sole() as store:
        store.put(message(kline(), epoch=store.epoch))
    server.sql("DROP TABLE trio_feed.shards", "UPDATE trio_feed.versions SET version = 1")
    with capture_logs() as lines:
        async with database.writer() as node:
            assert await opens(node.store) == [0]
            assert await node.claim() > store.epoch
    (line,) = [line for line in lines if line["event"] == "store.migrated"]
    assert (line["before"], line["now"]) == (1, 2)


async def test_check_connect_asks_a_reader_for_less(
    server: PostgresServer, database: Database
) -> None:
    server.sql("DROP ROLE IF EXISTS analyst", "CREATE ROLE analyst LOGIN")
    url = Database(server, user="analyst").settings.url
    _, problem, advice = await look_at_database(url, ["store"], reads=True)
    assert "empty: start a node that writes first" in f"{problem}; {advice}"
    async with database.writer():
        pass
    server.sql("GRANT USAGE ON SCHEMA trio_feed TO analyst")
    server.sql("GRANT SELECT ON trio_feed.versions TO analyst")
    _, problem, advice = await look_at_database(url, ["store"], reads=True)
    assert "analyst may not read " in problem
    assert advice.startswith("as owner: GRANT SELECT")
    server.sql("GRANT SELECT ON ALL TABLES IN SCHEMA trio_feed TO analyst")
    found, problem, _ = await look_at_database(url, ["store"], reads=True)
    assert "store: schema 2" in found
    assert not problem
    server.sql("UPDATE trio_feed.versions SET version = 1 WHERE part = 'store'")
    _, problem, _ = await look_at_database(url, ["store"], reads=True)
    assert "its store has schema 1, not 2" in problem
    server.sql("DROP OWNED BY analyst", "DROP ROLE analyst")


async def test_what_a_reader_may(server: PostgresServer, database: Database) -> None:
    server.sql("DROP ROLE IF EXISTS analyst", "CREATE ROLE analyst LOGIN")
    server.sql("ALTER ROLE analyst SET default_transaction_read_only = on")
    analyst = Database(server, user="analyst")
    said = await problem(analyst.reader())
    assert "empty: start a node that writes first (it is a standby, or read-only;" in said
    async with database.reader() as reader:  # its user may make the tables
        assert await opens(reader) == []
    assert "give the user the rights: see docs/postgresql.md" in await problem(analyst.reader())
    server.sql("GRANT USAGE ON SCHEMA trio_feed TO analyst")
    server.sql("GRANT SELECT ON trio_feed.versions TO analyst")
    said = await problem(analyst.reader())
    assert "analyst may not read " in said
    assert said.endswith("as owner: GRANT SELECT ON ALL TABLES IN SCHEMA trio_feed TO analyst")
    server.sql("GRANT SELECT ON ALL TABLES IN SCHEMA trio_feed TO analyst")
    async with database.writer() as node, analyst.reader() as reader:
        node.put(0, (await node.claim(), 1))
        await node.store.flush()
        assert await opens(reader) == [0]
        assert isinstance(reader, SharedStore)
        assert reader.identity == node.store.identity != ""
        await reader.measure()
        assert reader.statistics().sizes.file_bytes > 0
    server.sql("UPDATE trio_feed.versions SET version = 1 WHERE part = 'store'")
    assert "its store has schema 1, not 2: start a node" in await problem(analyst.reader())
    server.sql("UPDATE trio_feed.versions SET version = 99")
    for each in (database, analyst):
        assert "written by a newer version of trio_feed (schema 99" in await problem(each.reader())
    server.sql("DROP OWNED BY analyst", "DROP ROLE analyst")


async def test_kinds_do_not_mix(database: Database) -> None:
    def opening(*, simulated: bool) -> list[AbstractAsyncContextManager[object]]:
        sharing = Sharing(shard_of, lambda shards: None)
        more = {"simulated": simulated, "metrics": Metrics()}
        return [
            open_shared_store(database.settings, sharing, **more),  # type: ignore[arg-type]
            open_reading_store(database.settings, **more),  # type: ignore[arg-type]
            open_store(database.settings, now_ms=1, **more),  # type: ignore[arg-type]
        ]

    for each in opening(simulated=False):
        async with each:
            pass
    for each in opening(simulated=True):
        assert "it holds real candles and this run has simulated ones" in await problem(each)


async def test_a_claim_does_not_wait_for_a_session_that_stands_still(
    server: PostgresServer, database: Database
) -> None:
    """A process that is paused in the middle of a batch, whose locks the server keeps: its session
    is ended.  When it goes on it is fenced."""
    program = PAUSED.format(path=[str(ROOT), str(ROOT / "tests")], url=server.url())
    with trio.fail_after(60):
        async with database.writer() as node, database.reader() as reader:
            with subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
            ) as process:
                try:
                    assert process.stdout is not None
                    read = process.stdout.readline
                    assert (await trio.to_thread.run_sync(read)).startswith("writing")
                    process.send_signal(signal.SIGSTOP)
                    with capture_logs() as lines:
                        epoch = await node.claim()
                    assert [line["event"] for line in lines] == ["store.writer_ended"]
                    assert f"trio_feed {process.pid}@" in lines[0]["writer"]
                    node.put(0, (epoch, 1))
                    await node.store.flush()
                    process.send_signal(signal.SIGCONT)
                    assert await trio.to_thread.run_sync(read) == f"fenced {[BTC]}\n"
                finally:
                    process.kill()
            assert await opens(reader) == [0]
            assert node.fenced == []


PAUSED = textwrap.dedent("""
    import os, sys, time, trio
    sys.path[:0] = {path!r}
    from support.make import MINUTE, SERIES, T0, kline, message
    from support.shard_contract import BTC, shard_of
    from trio_feed.metrics import Metrics
    from trio_feed.settings import DatabaseUrl, StoreSettings
    from trio_feed.store import Sharing, open_shared_store
    from trio_feed.store.postgres import writer

    apply, told = writer._apply, []

    def slowly(*of, **more):
        if not told:
            told.append(True)
            print("writing", flush=True)
            time.sleep(0.3)  # it is stopped here
        apply(*of, **more)

    writer._apply = slowly

    async def main():
        settings = StoreSettings(url=DatabaseUrl({url!r}), flush_interval_s=0.01)
        fenced = trio.Event()

        def tell(shards):
            print("fenced", shards, flush=True)
            fenced.set()

        async with open_shared_store(
            settings, Sharing(shard_of, tell), simulated=False, metrics=Metrics()
        ) as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                epoch = await store.claim(BTC, 1)
                for n in range(5000):
                    store.put(message(kline(T0 + n * MINUTE), epoch=epoch, offset=n + 1))
                await fenced.wait()
                nursery.cancel_scope.cancel()

    import structlog
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main)
""")


KILLED = textwrap.dedent("""
    import sys, trio
    sys.path[:0] = {path!r}
    from support.make import MINUTE, SERIES, T0, kline, message
    from support.shard_contract import BTC, shard_of
    from trio_feed.metrics import Metrics
    from trio_feed.settings import DatabaseUrl, StoreSettings
    from trio_feed.store import Sharing, open_shared_store

    async def main():
        settings = StoreSettings(url=DatabaseUrl({url!r}))
        sharing = Sharing(shard_of, lambda shards: None)
        async with open_shared_store(
            settings, sharing, simulated=False, metrics=Metrics()
        ) as store:
            epoch = await store.claim(BTC, 1)
            ends = await store.stored_ends()
            n = 0 if not ends else (ends[SERIES].kline.open_ms - T0) // MINUTE + 1
            for offset in range(1, 10**6, 20):
                for k in range(20):
                    row = kline(T0 + n * MINUTE)
                    store.put(message(row, epoch=epoch, offset=offset + k))
                    n += 1
                await store.flush()
                print(epoch, offset + 19, n, flush=True)

    trio.run(main)
""")


async def test_kill_9_of_an_owner_and_a_claim_at_once(
    server: PostgresServer, database: Database
) -> None:
    """What it said is written is there; when the claim is through nothing of it comes any more; its
    epoch is known to its last row and not beyond."""
    program = KILLED.format(path=[str(ROOT), str(ROOT / "tests")], url=server.url())
    with trio.fail_after(120):
        async with database.writer() as node, database.reader() as reader:
            for turn in range(4):
                with subprocess.Popen(
                    [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
                ) as process:
                    try:
                        assert process.stdout is not None
                        for _ in range(5 + turn):
                            line = await trio.to_thread.run_sync(process.stdout.readline)
                    finally:
                        process.kill()
                    epoch = await node.claim()
                    found = await reader.stored_ends()
                    words = f"{line} {process.stdout.read()}".split()
                old, offset, count = map(int, words[-3:])
                last = (found[SERIES].kline.open_ms - T0) // MINUTE
                assert last + 1 in (count, count + 20)  # a COMMIT that it was not told of
                number = old, offset + last + 1 - count
                node.put(last + 1, (epoch, 1))
                await node.store.flush()
                assert await after(reader, number) == [(last + 1, (epoch, 1))]
                assert await after(reader, (old, number[1] + 1)) is None
                anchored = await after(reader, (old, number[1] + 1), closed=last + 1)
                assert anchored == []
                assert await store_is_whole(reader, last + 2)


async def store_is_whole(store: KlineStore, count: int) -> bool:
    rows = await store.history(SERIES, limit=count + 100)
    return [row.open_ms for row in rows] == [T0 + n * MINUTE for n in range(count)]


async def test_a_session_of_another_user_is_waited_for(
    server: PostgresServer, database: Database
) -> None:
    """Its end is not ours to bring about."""
    import psycopg

    from trio_feed.store.postgres.locks import _SHARD_LOCKS, _key

    server.sql("DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN")
    server.sql("GRANT CREATE ON DATABASE postgres TO plain")
    plain = Database(server, user="plain")
    with trio.fail_after(30):
        async with plain.writer() as node:
            with psycopg.connect(server.url()) as other:  # a superuser
                other.execute(
                    "SELECT pg_advisory_xact_lock_shared(%s, %s)", (_SHARD_LOCKS, _key(BTC))
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(node.claim)
                    with capture_logs() as lines:
                        while not lines:
                            await trio.sleep(0.05)
                    assert lines[0]["event"] == "store.writer_ended"
                    other.rollback()
            assert await node.claim() > 0
    server.sql("DROP SCHEMA trio_feed CASCADE", "DROP OWNED BY plain", "DROP ROLE plain")


async def test_a_server_that_restarts_loses_no_claim(
    server: PostgresServer, database: Database
) -> None:
    with trio.fail_after(90):
        async with database.writer() as one, database.writer() as two:
            epochs = await one.claim(BTC), await two.claim(ETH)
            async with trio.open_nursery() as nursery:
                for node in (one, two):
                    nursery.start_soon(node.store.run)
                server.stop(signal.SIGKILL)
                one.put(0, (epochs[0], 1))
                two.put(0, (epochs[1], 1), series=ETHER)
                with pytest.raises(StoreError, match=f"shard {BTC} cannot be claimed: "):
                    await two.claim(BTC)
                await trio.to_thread.run_sync(server.start)
                while one.store.pending() or two.store.pending():
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
            assert (one.fenced, two.fenced) == ([], [])
            said = await problem(database.sole())  # they have their locks again
            assert f"is being written by another trio_feed ({os.getpid()}@" in said
            assert await one.store.release(BTC, epochs[0])
        async with database.reader() as reader:
            assert (await opens(reader), await opens(reader, ETHER)) == ([0], [0])
            assert await after(reader, (epochs[0], 9)) == []


async def test_copying_is_refused_while_several_write(database: Database, tmp_path: Path) -> None:
    from trio_feed.store.copying import copy_into_postgres

    file = tmp_path / "a.db"
    async with open_store(
        StoreSettings(path=str(file)), simulated=False, now_ms=1, metrics=Metrics()
    ) as store:
        store.put(message(kline(), epoch=store.epoch))
    url = database.settings.url
    async with database.writer():
        with pytest.raises(StartError, match="a trio_feed uses it"):
            await trio.to_thread.run_sync(copy_into_postgres, file, url)
    await trio.to_thread.run_sync(copy_into_postgres, file, url)
    async with database.writer() as node:
        assert await opens(node.store) == [0]
        assert await node.claim() > store.epoch
