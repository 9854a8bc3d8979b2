"""TimescaleDB: ``klines`` becomes a hypertable where the extension is there at the first start.

With a server that has it (``PG_VERSIONS=timescale scripts/postgres_versions``) it is the real one;
elsewhere a stand-in of its catalogue and of the two functions that we call, which notes the calls.
"""

from collections.abc import Iterator

import pytest
import trio
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message
from support.postgres import PostgresServer, postgres_server

from trio_feed.metrics import Metrics
from trio_feed.model import Interval
from trio_feed.settings import DatabaseUrl, StoreSettings
from trio_feed.settings.fields import Duration
from trio_feed.store import BufferedStore, open_store
from trio_feed.store.opening import look_at_database

WEEK = 7 * 24 * 60
WEEK_MS = WEEK * MINUTE
STAND_IN = (
    "CREATE SCHEMA IF NOT EXISTS ts",
    "CREATE SCHEMA IF NOT EXISTS _timescaledb_catalog",
    "CREATE TABLE _timescaledb_catalog.hypertable (schema_name name, table_name name,"
    " time_column name, chunk_ms bigint)",
    # https://docs.timescale.com/api/latest/hypertable/create_hypertable_old/
    "CREATE FUNCTION ts.create_hypertable(relation regclass, time_column_name name,"
    " partitioning_column name DEFAULT NULL, number_partitions integer DEFAULT NULL,"
    " associated_schema_name name DEFAULT NULL, associated_table_prefix name DEFAULT NULL,"
    " chunk_time_interval anyelement DEFAULT NULL::bigint) RETURNS boolean LANGUAGE sql AS $$"
    " INSERT INTO _timescaledb_catalog.hypertable SELECT n.nspname, c.relname, time_column_name,"
    " chunk_time_interval FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = relation; SELECT true $$",
    "CREATE FUNCTION ts.hypertable_size(hypertable regclass) RETURNS bigint LANGUAGE sql AS $$"
    " SELECT 1000000000 $$",
)
EXTENSION = (
    "SET allow_system_table_mods = on",
    "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)"
    " SELECT 99999, 'timescaledb', oid, 'ts'::regnamespace, false, '0' FROM pg_roles"
    " WHERE rolname = current_user",
)
NO_EXTENSION = ("SET allow_system_table_mods = on", "DELETE FROM pg_extension WHERE oid = 99999")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        if not is_real(made):
            made.sql(*STAND_IN)
        yield made


def is_real(server: PostgresServer) -> bool:
    return bool(server.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'"))


@pytest.fixture
def empty(server: PostgresServer) -> PostgresServer:
    """With no schema of ours; of a stand-in without the extension."""
    server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
    if not is_real(server):
        server.sql("DELETE FROM _timescaledb_catalog.hypertable", *NO_EXTENSION)
    return server


def extend(server: PostgresServer) -> None:
    real = ("CREATE EXTENSION IF NOT EXISTS timescaledb",)
    server.sql(*(real if is_real(server) else EXTENSION))


def hypertables(server: PostgresServer) -> list[tuple[object, ...]]:
    there = "SELECT to_regclass('_timescaledb_catalog.hypertable') IS NOT NULL"
    if not server.sql(there)[0][0]:
        return []
    return server.sql("SELECT schema_name, table_name FROM _timescaledb_catalog.hypertable")


async def candles_of_three_weeks(server: PostgresServer) -> int:
    """Write, revise, delete and read them, over two starts.  Returns the bytes that they take."""
    keep = {Interval.M1: Duration("7d")}
    settings = StoreSettings(url=DatabaseUrl(server.url()), keep=keep)
    size = 0
    with trio.fail_after(120):
        for turn in range(2):
            async with open_store(
                settings, simulated=False, now_ms=1000.0, metrics=Metrics()
            ) as store:
                assert isinstance(store, BufferedStore)
                for n in range(turn * 30, 3 * WEEK, 60):
                    row = kline(T0 + n * MINUTE, f"{n}.5")
                    sent = message(row, SERIES, epoch=store.epoch, offset=n + 1)
                    store.put(evolve(sent, received_ms=T0 + 4.0 * WEEK_MS))
                revised = message(kline(T0, "7.5"), SERIES, epoch=store.epoch, offset=4 * WEEK)
                store.put(evolve(revised, revision=True, received_ms=T0 + 4.0 * WEEK_MS))
                await store.flush()
                await store.measure()
                size = store.statistics().sizes.file_bytes
                rows = await store.history(SERIES, limit=500)
                assert rows[-1].open_ms > T0 + (3 * WEEK - 61) * MINUTE
                await store.retain()
                await store.measure()
                left = store.statistics().sizes.rows[Interval.M1]
                assert left <= (turn + 1) * (WEEK // 60 + 1)
                assert store.statistics().pruned > 0
    assert server.sql(f"SELECT max(open_ms) - min(open_ms) <= {WEEK_MS} FROM trio_feed.klines")[0][
        0
    ]
    return size


async def test_candles_lie_in_a_hypertable(empty: PostgresServer) -> None:
    extend(empty)
    size = await candles_of_three_weeks(empty)
    assert hypertables(empty) == [("trio_feed", "klines")], "made once"
    found, problem, _ = await look_at_database(DatabaseUrl(empty.url()), ["store"])
    assert "TimescaleDB" in found
    assert problem == ""
    if is_real(empty):
        ((chunks,),) = empty.sql("SELECT num_chunks FROM timescaledb_information.hypertables")
        assert chunks >= 3
    else:
        made = empty.sql("SELECT time_column, chunk_ms FROM _timescaledb_catalog.hypertable")
        assert made == [("open_ms", WEEK_MS)]
        assert size > 1_000_000_000, "its chunks are counted"


async def test_an_extension_that_comes_later_changes_nothing(empty: PostgresServer) -> None:
    if is_real(empty):
        pytest.skip("the one session of that server has it loaded")
    settings = StoreSettings(url=DatabaseUrl(empty.url()))
    async with open_store(settings, simulated=False, now_ms=1.0, metrics=Metrics()):
        pass
    extend(empty)
    size = await candles_of_three_weeks(empty)
    assert hypertables(empty) == []
    assert 0 < size < 1_000_000_000
