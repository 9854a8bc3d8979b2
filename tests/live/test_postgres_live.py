"""PostgreSQL as the store: what an operator can get wrong, and a server that goes away."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC
from pathlib import Path

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from support.make import MINUTE, SERIES, T0, kline, message
from support.postgres import PostgresServer, postgres_server

from trio_feed.errors import StartError, StoreError
from trio_feed.metrics import Metrics
from trio_feed.model import Interval, Series
from trio_feed.settings import DatabaseUrl, SettlementSettings, StoreSettings
from trio_feed.store import BufferedStore, KlineStore, open_journal, open_store

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        made.sql(
            "CREATE ROLE locked LOGIN PASSWORD 's3cret'",
            "CREATE ROLE poor LOGIN",
            "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'",
        )
        rules = made.folder / "data" / "pg_hba.conf"
        rules.write_text(
            "host all locked all scram-sha-256\nhost all shut_out all reject\n" + rules.read_text()
        )
        made.sql("SELECT pg_reload_conf()")
        yield made


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Of an empty database."""
    server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
    return server.url()


def opened(
    url: str, *, simulated: bool = False, now_ms: float = 1000.0, **more: object
) -> AbstractAsyncContextManager[KlineStore]:
    settings = StoreSettings(url=DatabaseUrl(url), **more)  # type: ignore[arg-type]
    return open_store(settings, simulated=simulated, now_ms=now_ms, metrics=Metrics())


async def problem(url: str, **more: bool) -> str:
    with trio.fail_after(30), pytest.raises(StartError) as raised:
        async with opened(url, **more):
            pass
    text = str(raised.value)
    assert "\n" not in text
    assert "s3cret" not in text
    assert text.startswith("store.url: postgresql://")
    return text


def put(store: KlineStore, n: int, offset: int, series: Series = SERIES) -> None:
    store.put(message(kline(T0 + n * MINUTE), series, epoch=store.epoch, offset=offset))


async def test_what_can_be_wrong_with_a_url_is_one_line(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = server.url(user="locked")
    assert "it wants a password; correct the password" in await problem(locked)
    wrong = await problem(server.url(user="locked", password="s3cret_not"))
    assert "it refuses the password; correct the password" in wrong
    assert "there is no such database; create it: createdb" in await problem(server.url("nothing"))
    assert "there is no such user" in await problem(server.url(user="nobody"))
    assert "libpq knows no colour; correct the URL" in await problem(f"{url}?colour=s3cret")
    typo = await problem(f"{url}?sslmode=requird")
    assert 'invalid sslmode value: "requird"; correct the URL, or' in typo
    typo = await problem(f"{url}?keepalives_idle=a")
    assert ': invalid integer value "a" for connection option "keepalives_idle"; correct' in typo
    assert "not in from here; see its pg_hba.conf" in await problem(server.url(user="shut_out"))
    assert "encoding is LATIN1, not UTF8; make one with" in await problem(server.url("latin"))
    away = url.replace(str(server.port), "1")
    assert "nothing listens there; is the server running" in await problem(away)
    assert "no such host" in await problem("postgresql://feed@no.such.host.invalid/x")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    assert "may not make the schema trio_feed; as owner: GRANT CREATE ON DATABASE" in await problem(
        locked
    )
    server.sql("GRANT CREATE ON DATABASE postgres TO locked")
    async with opened(locked):
        pass
    server.sql("REVOKE CREATE ON DATABASE postgres FROM locked")
    async with opened(locked):  # its tables are there
        pass
    assert "may not make tables in the schema trio_feed; as owner: GRANT" in await problem(
        server.url(user="poor")
    )
    server.sql("ALTER ROLE poor SET default_transaction_read_only = on")
    assert "it is a standby, or read-only" in await problem(server.url(user="poor"))


async def test_a_password_file_is_read(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.sql("GRANT CREATE ON DATABASE postgres TO locked")
    file = tmp_path / "pass"
    file.write_text("127.0.0.1:*:*:locked:s3cret\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    async with opened(server.url(user="locked")):
        pass


async def test_a_socket_will_do(server: PostgresServer, url: str) -> None:
    there = f"postgresql://feed@/postgres?host={server.folder}&port={server.port}"
    async with opened(there) as store:
        put(store, 0, 1)
        assert store.statistics().place == "postgresql://feed@/postgres"
    async with opened(url) as store:
        assert len(await store.history(SERIES, limit=5)) == 1


async def test_the_journal_names_its_setting(server: PostgresServer, url: str) -> None:
    away = DatabaseUrl(url.replace(str(server.port), "1"))
    for settings, key in (
        (SettlementSettings(), "store.url"), (SettlementSettings(url=away), "settlement.url")
    ):  # fmt: skip
        with pytest.raises(StartError, match=f"^{key}: postgresql://.*nothing listens there"):
            async with open_journal(settings, "", url=away, now_ms=lambda: 1.0, metrics=Metrics()):
                pass


async def test_one_process_writes(url: str) -> None:
    async with opened(url) as store:
        said = await problem(url)
        assert f"is being written by another trio_feed ({os.getpid()}@" in said
        assert said.endswith("end it, or give each its own database")
        put(store, 0, 1)
    async with opened(url) as store:
        assert len(await store.history(SERIES, limit=5)) == 1


async def test_kinds_and_epochs(url: str) -> None:
    async with opened(url, now_ms=5000) as store:
        first = store.epoch
    assert "it holds real candles and this run has simulated ones" in await problem(
        url, simulated=True
    )
    async with opened(url, now_ms=10) as store:
        assert store.epoch > first


async def test_a_newer_schema_is_left_alone(server: PostgresServer, url: str) -> None:
    async with opened(url):
        pass
    server.sql("UPDATE trio_feed.versions SET version = 99")
    assert "written by a newer version of trio_feed (schema 99, this one reads up to" in (
        await problem(url)
    )


async def test_a_schema_of_something_else_is_left_alone(server: PostgresServer, url: str) -> None:
    server.sql("CREATE SCHEMA trio_feed", "CREATE TABLE trio_feed.series (x integer)")
    assert 'relation "series" already exists; its schema trio_feed is not ours' in await problem(
        url
    )
    assert server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'trio_feed'") == [(1,)]


async def test_processes_that_start_at_once_make_one_set_of_tables(
    server: PostgresServer, url: str
) -> None:
    from trio_feed.store.postgres import open_postgres_journal

    async def start() -> None:
        made = await trio.to_thread.run_sync(
            lambda: open_postgres_journal(DatabaseUrl(url), "store.url", now_ms=1)
        )
        epochs.add(made.epoch)
        made.close()

    epochs: set[int] = set()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(start)
    assert epochs == {1}
    assert server.sql("SELECT version FROM trio_feed.versions") == [(1,)]


async def test_a_migration_that_fails_leaves_nothing(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_feed.store.postgres import opening, schema

    broken = schema.Part("store", (*schema.STORE.steps, ("CREATE TABLE half (a int)", "NONSENSE")))
    async with opened(url):
        pass
    monkeypatch.setattr(opening, "STORE", broken)
    assert "syntax error" in await problem(url)
    assert server.sql("SELECT to_regclass('trio_feed.half'), version FROM trio_feed.versions") == [
        (None, schema.STORE.version)
    ]


async def test_after_a_kill_only_what_is_certain_is_told(server: PostgresServer, url: str) -> None:
    """The killed process may have told a client of candles that it had not written yet."""
    async with opened(url) as store:
        killed = store.epoch
        put(store, 0, 4)
        put(store, 1, 8)
    server.sql("UPDATE trio_feed.epochs SET written_to_the_end = false")
    async with opened(url) as store:
        found = await store.after(SERIES, killed, 4, limit=9)
        assert [m.offset for m in found or ()] == [8]
        assert await store.after(SERIES, killed, 9, limit=9) is None
        at = {"limit": 9, "closed_ms": T0 + MINUTE}
        assert await store.after(SERIES, killed, 9, **at) == []
    async with opened(url) as store:  # and one that ended in order is known to its end
        assert await store.after(SERIES, store.epoch - 1, 99, limit=9) == []


async def test_rows_wait_while_the_server_is_away(server: PostgresServer, url: str) -> None:
    """Questions are refused at once meanwhile; afterwards all is there, once."""
    with trio.fail_after(60), capture_logs() as logs:
        async with opened(url, flush_interval_s=0.01) as store, trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            put(store, 0, 1)
            while store.pending():
                await trio.sleep(0.01)
            server.stop()
            for n in range(1, 50):
                put(store, n, n + 1)
            while not store.statistics().problem:
                await trio.sleep(0.01)
            assert store.pending() == 49
            for _ in range(20):
                with pytest.raises(StoreError, match="stored candles cannot be read"):
                    await store.history(SERIES, limit=500)
            await trio.to_thread.run_sync(server.start)
            while store.pending():
                await trio.sleep(0.01)
            assert store.statistics().problem == ""
            assert len(await store.history(SERIES, limit=500)) == 50
            # And one that was away while nobody asked is not noticed at all.
            await trio.to_thread.run_sync(server.stop)
            await trio.to_thread.run_sync(server.start)
            assert len(await store.history(SERIES, limit=500)) == 50
            nursery.cancel_scope.cancel()
    names = [line["event"] for line in logs]
    assert names.count("store.write_failed") in (1, 2)  # nothing listens, then it starts
    assert "store.write_recovered" in names
    assert {line["path"] for line in logs if "path" in line} == {url}


async def test_a_server_that_says_nothing_is_left_in_time(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP: the kernel goes on taking what is sent."""
    from trio_feed.store.postgres import backend

    monkeypatch.setattr(backend, "READ_S", 0.8)
    with trio.fail_after(60):
        async with opened(url, flush_interval_s=0.01) as store, trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            put(store, 0, 1)
            while store.pending():
                await trio.sleep(0.01)
            assert len(await store.history(SERIES, limit=5)) == 1
            server.pause(on=True)
            try:
                with pytest.raises(StoreError, match="it took too long"):
                    await store.history(SERIES, limit=5)
                put(store, 1, 2)
            finally:
                server.pause(on=False)
            while store.pending():
                await trio.sleep(0.01)
            assert len(await store.history(SERIES, limit=5)) == 2
            server.pause(on=True)
            try:
                with trio.move_on_after(0.05) as scope:  # a task that is cancelled is not kept
                    await store.history(SERIES, limit=5)
                assert scope.cancelled_caught
            finally:
                server.pause(on=False)
            assert len(await store.history(SERIES, limit=5)) == 2
            nursery.cancel_scope.cancel()


async def test_a_writer_that_lost_its_lock_writes_nothing(server: PostgresServer, url: str) -> None:
    """Its connection was cut, and another process began to write."""
    import psycopg

    with trio.fail_after(60):
        async with opened(url) as store:
            assert isinstance(store, BufferedStore)
            put(store, 0, 1)
            await store.flush()
            with psycopg.connect(url, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks"
                    " WHERE locktype = 'advisory' AND granted"
                )
                while not other.execute("SELECT pg_try_advisory_lock(%s, 2)", (0x7466,)).fetchone()[
                    0
                ]:  # type: ignore[index]
                    await trio.sleep(0.01)
                put(store, 1, 2)
                for _ in range(3):
                    await store.last_flush()
                    assert store.pending() == 1
            while store.pending():  # until the server has seen the other one's end
                await store.last_flush()
                await trio.sleep(0.05)
    assert server.sql("SELECT count(*) FROM trio_feed.klines") == [(2,)]


async def test_one_bad_row_does_not_stop_the_others(url: str) -> None:
    with capture_logs() as logs:
        async with opened(url) as store:
            put(store, 0, 1)
            longest = evolve(kline(T0 + MINUTE), close=kline().close.scaleb(-20_000))
            store.put(message(longest, epoch=store.epoch, offset=2))
            put(store, 2, 3)
            assert isinstance(store, BufferedStore)
            await store.flush()
            assert [k.open_ms for k in await store.history(SERIES, limit=9)] == [
                T0, T0 + 2 * MINUTE
            ]  # fmt: skip
            assert await store.after(SERIES, store.epoch, 1, limit=9) is None
    assert [line["event"] for line in logs] == ["store.row_refused"]


async def test_rows_that_the_ends_do_not_know(server: PostgresServer, url: str) -> None:
    """Somebody wrote into the tables by hand; a batch goes on all the same."""
    async with opened(url) as store:
        assert isinstance(store, BufferedStore)
        put(store, 0, 1)
        await store.flush()
        server.sql(
            "INSERT INTO trio_feed.klines SELECT (k).* FROM (SELECT k FROM trio_feed.klines k) x"
            " ON CONFLICT DO NOTHING",
            f"UPDATE trio_feed.klines SET open_ms = {T0 + MINUTE}",
        )
        put(store, 1, 2)
        await store.flush()
        assert [k.open_ms for k in await store.history(SERIES, limit=9)] == [T0 + MINUTE]


async def test_retention_goes_in_bounded_steps_the_oldest_first(url: str) -> None:
    keep = {Interval.M1: 50.0 * MINUTE}
    async with opened(url) as store:
        assert isinstance(store, BufferedStore)
        others = [evolve(SERIES, symbol=f"S{n}") for n in range(3)]
        for series in others:
            for n in range(100):
                put(store, n, n + 1, series)
        await store.flush()
        steps = []
        while not steps or steps[-1]:
            steps.append(await store.backend.prune(keep, 1e15, 20))
            for series in others:
                opens = [k.open_ms for k in await store.history(series, limit=500)]
                assert opens == list(range(opens[0], T0 + 100 * MINUTE, MINUTE)), "a hole"
        assert sum(steps) == 3 * 49
        assert steps[:-2] == [20] * 7


async def test_candles_can_be_asked_for_in_sql(server: PostgresServer, url: str) -> None:
    async with opened(url) as store:
        put(store, 0, 1)
    ((venue, symbol, interval, at, close),) = server.sql(
        "SELECT venue, symbol, interval, open_time AT TIME ZONE 'UTC', close::text"
        " FROM trio_feed.candles"
    )
    assert (venue, symbol, interval) == (SERIES.venue, SERIES.symbol, SERIES.interval)
    assert (at.replace(tzinfo=UTC).timestamp() * 1000, close) == (T0, "100.50")


async def test_what_the_page_shows_can_be_asked(server: PostgresServer, url: str) -> None:
    async with opened(url) as store:
        put(store, 0, 1)
    server.sql("DROP ROLE IF EXISTS analyst", "CREATE ROLE analyst LOGIN")
    page = (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        for statement in filter(str.strip, block.split(";")):
            server.sql(statement)
    with pytest.raises(Exception, match="permission denied"):
        server.sql("SET ROLE analyst", "DELETE FROM trio_feed.klines")
    assert server.sql("SET ROLE analyst", "SELECT count(*) FROM trio_feed.candles") == [(1,)]
    server.sql("DROP OWNED BY analyst", "DROP ROLE analyst")


async def test_every_question_reaches_its_rows_by_an_index(
    server: PostgresServer, url: str
) -> None:
    import psycopg

    from trio_feed.store.postgres import reader, writer

    async with opened(url, max_pending_rows=100_000) as store:
        assert isinstance(store, BufferedStore)
        for n in range(200):
            for s in range(20):
                put(store, n, n + 1, Series("v", f"S{s}", Interval.M1))
        await store.flush()
    server.sql("ANALYZE trio_feed.klines, trio_feed.ends, trio_feed.series")
    names, ends = ("v", "S3", "1m"), (T0, T0 + 9 * MINUTE, 5)
    for question, values in (
        (reader.FORWARD, (*names, *ends)),
        (reader.BACKWARD, (*names, *ends)),
        (reader.NUMBERS, (3, T0, 64)),
        (reader.FROM_OPEN, (3, T0, 64)),
        (reader.REVISIONS, (*names, *ends)),
        (reader.LAST_REVISION, (3, 1)),
        (reader.REVISED_AFTER, (3, 1, 1, 5)),
        (writer._CUT, (3, T0, 5)),
    ):
        with psycopg.connect(url, options="-csearch_path=trio_feed") as db:
            plan = "\n".join(
                row[0] for row in psycopg.ClientCursor(db).execute(f"EXPLAIN {question}", values)
            )
        assert "Seq Scan on klines" not in plan, plan
        assert "klines_pkey" in plan or "revisions" in plan, plan


KILLED = textwrap.dedent("""
    import sys, trio
    sys.path[:0] = {path!r}
    from support.make import MINUTE, SERIES, T0, kline, message
    from trio_feed.metrics import Metrics
    from trio_feed.settings import DatabaseUrl, StoreSettings
    from trio_feed.store import open_store

    async def main():
        settings = StoreSettings(url=DatabaseUrl({url!r}), flush_interval_s=0.001)
        async with open_store(settings, simulated=False, now_ms=1, metrics=Metrics()) as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                ends = await store.stored_ends()
                n = 0 if not ends else (ends[SERIES].kline.open_ms - T0) // MINUTE + 1
                while True:
                    for _ in range(20):
                        store.put(message(kline(T0 + n * MINUTE), epoch=store.epoch, offset=n + 1))
                        n += 1
                    while store.pending():
                        await trio.sleep(0.001)
                    print(n, file=sys.stderr)

    trio.run(main)
""")


async def test_kill_9_of_server_and_service_in_the_middle(server: PostgresServer, url: str) -> None:
    """Whatever dies, a row that the store said is written is there, none is there twice, and the
    next process goes on behind the last."""
    program = KILLED.format(path=[str(ROOT), str(ROOT / "tests")], url=url)

    async def follow(process: subprocess.Popen[str]) -> int:
        """Returns how many rows it said are written, later than now."""
        assert process.stderr is not None
        for _ in range(30):
            line = await trio.to_thread.run_sync(process.stderr.readline)
        return int(line)

    with trio.fail_after(120):
        for turn in range(4):
            with subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True,
            ) as process:  # fmt: skip
                try:
                    said = await follow(process)
                    if turn % 2:
                        await trio.to_thread.run_sync(server.stop, signal.SIGKILL)
                        await trio.to_thread.run_sync(server.start)
                        said = await follow(process)  # the same process goes on
                finally:
                    process.kill()
            ((rows, last, kept),) = server.sql(
                "SELECT count(*), max(open_ms), (SELECT candles FROM trio_feed.ends)"
                " FROM trio_feed.klines"
            )
            assert rows == kept == (last - T0) // MINUTE + 1, "a hole, or the ends are wrong"
            assert rows >= said
