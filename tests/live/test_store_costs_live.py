"""A question costs what its answer is long, whatever the file holds; and no file grows for ever.

Steps of SQLite's machine and query plans are counted, not time.
"""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.lowlevel
from attrs import evolve
from structlog.testing import capture_logs
from support import old_stores
from support.make import MINUTE, SERIES, T0, kline, message

from trio_feed.errors import StoreError
from trio_feed.metrics import Metrics
from trio_feed.model import Interval, Series
from trio_feed.settings import StoreSettings
from trio_feed.settings.fields import Duration
from trio_feed.store import BufferedStore, open_store
from trio_feed.store.sqlite import backend as backend_module
from trio_feed.store.sqlite import file, open_sqlite, opening, reader, writer
from trio_feed.store.sqlite.backend import SqliteBackend
from trio_feed.store.sqlite.writer import SqliteWriter

T = TypeVar("T")
ROWS = 200_000


@asynccontextmanager
async def opened(path: Path, **more: object) -> AsyncIterator[tuple[BufferedStore, SqliteBackend]]:
    settings = StoreSettings(path=str(path), **more)  # type: ignore[arg-type]
    with trio.fail_after(120):
        async with open_store(settings, simulated=False, now_ms=1, metrics=Metrics()) as store:
            assert isinstance(store, BufferedStore)
            assert isinstance(store.backend, SqliteBackend)
            yield store, store.backend


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with 200,000 candles of two series, as this version leaves it."""
    path = tmp_path_factory.mktemp("large") / "a.db"
    old_stores.make(path, "2 with ids", rows=ROWS // 2)
    backend = open_sqlite(path, simulated=False, now_ms=1)
    backend._close(True)
    return path


def test_a_start_does_not_read_the_candles(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, made = opening.connect, []

    def connect_counted(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_progress_handler(lambda: steps.append(1) or 0, 100)
        made.append(connection)
        return connection

    steps: list[int] = []
    monkeypatch.setattr(opening, "connect", connect_counted)
    backend = open_sqlite(large, simulated=False, now_ms=1)
    ends = backend.readers[0].ends(None, None)
    assert {series.symbol: end.last_stream_id for series, end in ends.items()} == {
        "BTCUSDT": 7000 + ROWS // 2 - 1,
        "ETHUSDT": 7000 + ROWS // 2 - 1,
    }
    assert backend.readers[0].first_open(SERIES) == old_stores.START
    assert len(steps) < 50, "a scan of the candles is 10,000 and more"
    assert len(made) > 2
    backend._close(True)


def test_questions_cost_what_their_answers_are_long(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_sqlite(large, simulated=False, now_ms=1)
    asked = backend.readers[0]
    monkeypatch.setattr(reader, "_STEPS_BETWEEN_LOOKS", 10)
    looks: list[int] = []
    monkeypatch.setattr(reader.time, "monotonic", lambda: looks.append(1) or 0.0)

    def cost(question: Callable[[], T]) -> tuple[T, int]:
        looks.clear()
        return question(), len(looks) * 10

    last = ROWS // 2
    epoch = old_stores.EPOCH

    def after(offset: int, limit: int = 1500, epoch: int = epoch, closed: int | None = None):  # type: ignore[no-untyped-def]
        return lambda: asked.after(SERIES, epoch, offset, closed, limit, exact=False)

    rows, steps = cost(after(last - 10))
    assert (len(rows), steps < 2_000) == (10, True)
    rows, steps = cost(after(last - 1000))
    assert (len(rows), steps < 100_000) == (1000, True)
    rows, steps = cost(after(1, limit=100))
    assert (rows, steps < 3_000) == (None, True)
    rows, steps = cost(after(1, limit=100, epoch=1))  # of an epoch that nobody knows
    assert (rows, steps < 3_000) == (None, True)
    old = old_stores.START + 60_000
    rows, steps = cost(after(1, limit=100, epoch=1, closed=old))
    assert (rows, steps < 20_000) == (None, True)
    for where in ((None, None), (old, None), (None, old + 10**8), (old, old + 10**9)):
        klines, steps = cost(lambda where=where: asked.history(SERIES, 100, *where))
        assert (len(klines), steps < 5_000) == (100, True)
    backend._close(True)


def test_every_plan_is_a_search(tmp_path: Path) -> None:
    """Only the small table of ends may be read as a whole."""
    backend = open_sqlite(tmp_path / "a.db", simulated=False, now_ms=1)
    connection = backend.writer.connection
    questions = {
        name: text
        for module in (reader, writer)
        for name, text in vars(module).items()
        if isinstance(text, str) and name not in ("_SOME_ENDS", "_HISTORY")  # parts of others
        if text.startswith(("SELECT", "DELETE")) and "{" not in text
    }
    assert len(questions) > 15
    for name, text in questions.items():
        values = ("[]",) * text.count("?")
        rows = connection.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall()
        for step in (row[3] for row in rows):
            small = ("SCAN e", "SCAN ends", "SCAN series", "SCAN json_each")
            assert not step.startswith("SCAN") or step.startswith(small), (name, step)
            assert "TEMP B-TREE" not in step or name == "_LAST_REVISION", (name, step)
    backend._close(True)


async def test_a_slow_question_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, go_on = Series("okx", "SLOW", Interval.M1), threading.Event()
    history = reader.SqliteReader.history

    def sometimes_slow(self, series, *rest):  # type: ignore[no-untyped-def]
        if series == slow:
            go_on.wait(60)
        return history(self, series, *rest)

    monkeypatch.setattr(reader.SqliteReader, "history", sometimes_slow)
    async with opened(tmp_path / "a.db") as (store, _), trio.open_nursery() as nursery:
        store.put(message(kline(), epoch=store.epoch))
        await store.flush()
        try:
            for _ in range(2):
                nursery.start_soon(lambda: store.history(slow, limit=5))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                assert len(await store.history(SERIES, limit=5)) == 1
                assert len(await store.stored_ends()) == 1
            store.put(message(kline(T0 + MINUTE), epoch=store.epoch, offset=2))
            await store.flush()
        finally:
            go_on.set()


async def test_a_question_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "a.db") as (store, _):
        for n in range(2000):
            store.put(message(kline(T0 + n * MINUTE), epoch=store.epoch, offset=n + 1))
        await store.flush()
        with monkeypatch.context() as patch, capture_logs() as lines:
            patch.setattr(reader, "_DEADLINE_S", -1.0)
            patch.setattr(reader, "_STEPS_BETWEEN_LOOKS", 100)
            with pytest.raises(StoreError, match="it took too long"):
                await store.history(SERIES, limit=2000)
        assert [line["event"] for line in lines] == ["store.read_failed"]
        assert len(await store.history(SERIES, limit=2000)) == 2000


# --- growing and shrinking ------------------------------------------------------------------------


def fill(store: BufferedStore, rows: int, first: int = 0) -> None:
    for n in range(first, first + rows):
        store.put(message(kline(T0 + n * MINUTE), epoch=store.epoch, offset=n + 1))


KEEP = {Interval.M1: Duration("1d")}
"""1440 candles."""


@pytest.mark.parametrize("old", [True, False])
async def test_the_file_shrinks(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "a.db"
    if old:
        old_stores.make(path, "2")
    async with opened(path, keep=KEEP) as (store, _):
        fill(store, 30_000)
        await store.flush()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        assert before > 2_500_000
        await store.retain()
        sizes = store.statistics().sizes
        assert path.stat().st_size == sizes.file_bytes < before / 4
        assert sizes.free_bytes <= 64 * 4096
        assert sizes.rows[Interval.M1] == 1441
        assert len(await store.history(SERIES, limit=5000)) == 1441
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_retention_goes_in_small_steps_between_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that comes while much is to be deleted waits for one step only."""
    sizes: list[int] = []
    prune = SqliteWriter.prune

    def watched(self, keep, wall_ms, limit):  # type: ignore[no-untyped-def]
        sizes.append(prune(self, keep, wall_ms, limit))
        return sizes[-1]

    monkeypatch.setattr(SqliteWriter, "prune", watched)
    async with opened(tmp_path / "a.db", keep=KEEP) as (store, _):
        fill(store, 30_000)
        await store.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.retain)
            while not sizes:
                await trio.lowlevel.checkpoint()
            fill(store, 1, 30_000)
            await store.flush()
            assert 0 < len(sizes) < 5
        assert max(sizes) <= 2000
        assert sum(sizes) == store.statistics().pruned == 30_001 - 1441
        assert len(await store.history(SERIES, limit=5000)) == 1441


async def test_the_writer_applies_retention_by_itself(tmp_path: Path) -> None:
    metrics = Metrics()
    settings = StoreSettings(path=str(tmp_path / "a.db"), keep=KEEP)
    with trio.fail_after(60), capture_logs() as lines:
        async with open_store(settings, simulated=False, now_ms=1, metrics=metrics) as store:
            assert isinstance(store, BufferedStore)
            fill(store, 3_000)
            await store.flush()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                while not store.statistics().sizes.rows:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert {"event": "store.pruned", "rows": 1559, "log_level": "info"} in lines
    text = metrics.exposition().decode()
    assert 'trio_feed_store_rows{interval="1m"} 1441.0' in text
    assert "trio_feed_store_pruned_rows_total 1559.0" in text
    size = store.statistics().sizes.file_bytes
    assert f'trio_feed_store_bytes{{part="file"}} {float(size)}' in text


async def test_the_log_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of another program keeps it from being moved; when it is gone the log is cut."""
    path = tmp_path / "a.db"
    wal = tmp_path / "a.db-wal"
    monkeypatch.setattr(backend_module, "_WAL_CUT_BYTES", 2**20)
    monkeypatch.setattr(file, "_WAL_LIMIT_BYTES", 2**19)
    async with opened(path) as (store, _):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM klines").fetchall()
            for part in range(10):
                fill(store, 4_000, part * 4_000)
                await store.flush()
            assert wal.stat().st_size > 2**20
            assert len(await store.history(SERIES, limit=50_000)) == 40_000
            other.execute("COMMIT")
        for part in range(2):
            fill(store, 4_000, 40_000 + part * 4_000)
            await store.flush()
        assert wal.stat().st_size <= 2**20
        await store.measure()
        assert store.statistics().sizes.wal_bytes == wal.stat().st_size


async def test_a_revision_and_its_candle_in_one_batch(tmp_path: Path) -> None:
    """The values before come from the batch itself, and candles are counted once."""
    async with opened(tmp_path / "a.db") as (store, backend):
        first = message(kline(close="1.0"), epoch=store.epoch, offset=1)
        again = evolve(message(kline(close="2.0"), epoch=store.epoch, offset=2), revision=True)
        late = message(kline(T0 - MINUTE), epoch=store.epoch, offset=3)
        for sent in (first, again, late, evolve(late, kline=kline(T0 - MINUTE, "3.0"))):
            store.put(sent)
        await store.flush()
        (revision,) = await store.revisions(SERIES, limit=5)
        assert revision.before == first.kline
        await store.measure()
        assert dict(store.statistics().sizes.rows) == {Interval.M1: 2}
        (counted_rows,) = backend.writer.connection.execute("SELECT candles FROM ends").fetchone()
        assert counted_rows == 2


async def test_what_is_written_while_a_question_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest values win, though the file was read before they were written."""
    read, go_on = threading.Event(), threading.Event()
    history = reader.SqliteReader.history

    def held(self, *question):  # type: ignore[no-untyped-def]
        rows = history(self, *question)
        read.set()
        go_on.wait(60)
        return rows

    async with opened(tmp_path / "a.db") as (store, _):
        store.put(message(kline(close="1.0"), epoch=store.epoch, offset=1))
        await store.flush()
        store.put(evolve(message(kline(close="2.0"), epoch=store.epoch, offset=2), revision=True))
        monkeypatch.setattr(reader.SqliteReader, "history", held)
        answers = []

        async def ask() -> None:
            answers.append(await store.history(SERIES, limit=5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.to_thread.run_sync(read.wait)
            await store.flush()
            third = message(kline(close="3.0"), epoch=store.epoch, offset=3)
            store.put(evolve(third, revision=True))
            store.put(message(kline(T0 + MINUTE), epoch=store.epoch, offset=4))
            await store.flush()
            go_on.set()
        assert [str(k.close) for k in answers[0]] == ["3.0", "100.50"]
