"""A SQLite store becomes one in PostgreSQL, and nobody notices."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from attrs import evolve
from support import old_stores
from support.make import MINUTE, SERIES, T0, kline, message
from support.postgres import PostgresServer, postgres_server
from test_journal import event, to_all

from trio_feed.cli import main
from trio_feed.metrics import Metrics
from trio_feed.model import Hole, Interval, Series
from trio_feed.settings import DatabaseUrl, SettlementSettings, StoreSettings
from trio_feed.store import BufferedStore, KlineStore, open_journal, open_store
from trio_feed.store.journal_sqlite import open_journal_backend

OTHER = Series("okx", "ETH\tUSDT\\N", Interval.H1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture
def url(server: PostgresServer) -> str:
    server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
    return server.url()


async def answers(store: KlineStore, epoch: int) -> list[object]:
    found: list[object] = [sorted((await store.stored_ends()).items(), key=str)]
    found.append(await store.cursor("chain"))
    for series in (SERIES, OTHER):
        found.append(await store.first_open(series))
        found.append(await store.history(series, limit=500))
        found.append(await store.revisions(series, limit=100))
        for offset in range(0, 130, 7):
            found.append(await store.after(series, epoch, offset, limit=60))
    return found


async def test_candles(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.db"
    before, after = StoreSettings(path=str(path)), StoreSettings(url=DatabaseUrl(url))
    with trio.fail_after(60):
        async with open_store(before, simulated=False, now_ms=9e15, metrics=Metrics()) as store:
            epoch = store.epoch
            for n in range(100):
                for series in (SERIES, OTHER):
                    row = evolve(kline(T0 + n * MINUTE, f"{n}.10"), last_stream_id=n)
                    store.put(message(row, series, epoch=epoch, offset=n + 1))
            revised = message(kline(T0 + 50 * MINUTE, "7.00"), epoch=epoch, offset=120)
            store.put(evolve(revised, revision=True))
            unknown = message(kline(T0 + 200 * MINUTE), epoch=epoch, offset=121)
            store.put(evolve(unknown, revision=True))
            store.put_hole(SERIES, Hole(T0 + 201 * MINUTE, T0 + 210 * MINUTE))
            store.put_cursor("chain", "at\nhere")
        async with open_store(before, simulated=False, now_ms=1, metrics=Metrics()) as store:
            expected = await answers(store, epoch)
        words = ["copy-store", str(path), "--to", url]
        assert await trio.to_thread.run_sync(main, words) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"copied into {url}: 2 series, 201 klines, 1 holes, 2 revisions")
        assert await trio.to_thread.run_sync(main, words) == 2
        assert "it has a store already" in capsys.readouterr().err
        async with open_store(after, simulated=False, now_ms=1, metrics=Metrics()) as store:
            assert store.epoch > epoch
            assert await answers(store, epoch) == expected
            stranger = Series("okx", "NEW", Interval.M1)
            store.put(message(kline(), stranger, epoch=store.epoch, offset=1))
            assert isinstance(store, BufferedStore)
            await store.flush()
            assert len(await store.history(stranger, limit=5)) == 1
            assert await trio.to_thread.run_sync(main, words) == 2
            assert "a trio_feed uses it" in capsys.readouterr().err


@pytest.mark.parametrize("schema", old_stores.SCHEMAS)
async def test_a_file_of_an_earlier_version(url: str, tmp_path: Path, schema: str) -> None:
    path = tmp_path / "a.db"
    old_stores.make(path, schema)
    words = ["copy-store", str(path), "--set", f"store.url={url}"]
    assert await trio.to_thread.run_sync(main, words) == 0
    settings = StoreSettings(url=DatabaseUrl(url))
    async with open_store(settings, simulated=False, now_ms=1, metrics=Metrics()) as store:
        assert len(await store.stored_ends()) == len(old_stores.SERIES)


async def test_private_events(url: str, tmp_path: Path) -> None:
    from trio_feed.store.postgres import open_postgres_journal

    path = tmp_path / "a.private.db"
    with trio.fail_after(60):
        file = open_journal_backend(path, now_ms=77)
        for n in range(50):
            file.settle([event(f"e{n}\\t", (1, 7), (2, None), at_ms=n), to_all(f"all{n}")])
        file.prune(20, 0, 100)
        expected = [file.read(user, 0, 999, 999) for user in (1, 2)]
        heads = [file.head(user) for user in (1, 2)]
        file.close()
        assert await trio.to_thread.run_sync(main, ["copy-store", str(path), "--to", url]) == 0
        made = open_postgres_journal(DatabaseUrl(url), "store.url", now_ms=1)
        assert made.epoch == 77
        assert [made.head(user) for user in (1, 2)] == heads
        assert [made.read(user, 0, 999, 999) for user in (1, 2)] == expected
        again = made.settle([event("e49\\t", (1, 7), (2, None)), event("new", (None, 7))])
        assert [each.status for each in again.outcomes] == ["duplicate", "accepted"]
        assert [(m.user_id, m.offset) for m in again.messages] == [(1, heads[0] + 1)]
        made.close()
        async with open_journal(
            SettlementSettings(), "", url=DatabaseUrl(url), now_ms=lambda: 1.0, metrics=Metrics()
        ) as journal:
            assert journal.epoch == 77


def test_what_cannot_be_copied_is_one_line(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.db").write_bytes(b"nothing of the kind" * 500)
    away = "postgresql://feed:s3cret@127.0.0.1:1/x"
    for words, said in (
        ([str(tmp_path / "none.db"), "--to", away], "no such file"),
        ([str(tmp_path / "x.db"), "--to", away], "file is not a database"),
        ([str(tmp_path / "x.db"), "--to", "mysql://x"], "--to: is not a PostgreSQL URL such as"),
        ([str(tmp_path / "x.db")], "--to: missing, and the settings name no store.url"),
    ):
        assert main(["copy-store", *words]) == 2
        text = capsys.readouterr().err
        assert said in text
        assert text.count("\n") == 1
        assert "s3cret" not in text
