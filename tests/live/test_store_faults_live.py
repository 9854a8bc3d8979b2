"""What a disk and its operator do to the store's file, and what the store says and does then."""

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.make import MINUTE, SERIES, T0, kline, message

from trio_feed.errors import StartError, StoreError
from trio_feed.metrics import Metrics
from trio_feed.settings import SettlementSettings, StoreSettings
from trio_feed.store import open_journal, open_store
from trio_feed.store.buffered import BufferedStore
from trio_feed.store.sqlite.backend import SqliteBackend

Lines = list[Any]


@asynccontextmanager
async def opened(path: Path, **more: float) -> AsyncIterator[BufferedStore]:
    settings = StoreSettings(path=str(path), **more)  # type: ignore[arg-type]
    async with open_store(settings, simulated=False, now_ms=1000, metrics=Metrics()) as store:
        assert isinstance(store, BufferedStore)
        yield store


@asynccontextmanager
async def writing(path: Path, **more: float) -> AsyncIterator[tuple[BufferedStore, Lines]]:
    """A store that writes, and what it logs."""
    with trio.fail_after(60), capture_logs() as lines:
        async with opened(path, flush_interval_s=0.001, **more) as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                yield store, lines
                nursery.cancel_scope.cancel()


def database(store: BufferedStore) -> SqliteBackend:
    assert isinstance(store.backend, SqliteBackend)
    return store.backend


def put(store: BufferedStore, *minutes: int) -> None:
    for n in minutes:
        store.put(message(kline(T0 + n * MINUTE), epoch=store.epoch, offset=n + 1))


async def kept(store: BufferedStore) -> list[int]:
    rows = await store.history(SERIES, limit=5000)
    return [(row.open_ms - T0) // MINUTE for row in rows]


def on_disk(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT open_ms FROM klines ORDER BY open_ms").fetchall()
    return [(row[0] - T0) // MINUTE for row in rows]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.sleep(0.01)


def failed(lines: Lines) -> Lines:
    return [line for line in lines if line["event"] == "store.write_failed"]


async def written(store: BufferedStore) -> None:
    await until(lambda: store.pending() == 0)


# --- while it runs --------------------------------------------------------------------------------


async def suffer(
    store: BufferedStore, lines: Lines, path: Path, end: Callable[[], object], advice: str
) -> None:
    """Under a fault: said once, in full; served on; nothing claimed; and it ends."""
    before = on_disk_count(store)
    put(store, 500, 501)
    await until(lambda: store._metrics.store_errors._value.get() >= 3)
    assert store.pending() == 2
    (line,) = failed(lines)
    assert line["path"] == str(path)
    assert advice in line["advice"]
    assert line["pending"] == 2
    assert line["problem"]
    assert (await kept(store))[-2:] == [500, 501]
    assert on_disk_count(store) == before
    end()
    await written(store)
    assert on_disk_count(store) == before + 2
    await until(lambda: any(line["event"] == "store.write_recovered" for line in lines))


def on_disk_count(store: BufferedStore) -> int:
    """Not through a connection of the store's."""
    with closing(sqlite3.connect(store.backend.place)) as connection:
        return int(connection.execute("SELECT count(*) FROM klines").fetchone()[0])


async def test_a_full_database(tmp_path: Path) -> None:
    """SQLite's own bound is its answer to a full disk, too: SQLITE_FULL."""
    path = tmp_path / "a.db"
    async with writing(path) as (store, lines):
        put(store, *range(400))
        await written(store)
        (pages,) = database(store).writer.connection.execute("PRAGMA page_count").fetchone()
        database(store).writer.connection.execute(f"PRAGMA max_page_count = {pages}")
        put(store, *range(600, 700))  # fills the last page

        def make_room() -> None:
            database(store).writer.connection.execute("PRAGMA max_page_count = 1000000")

        await until(lambda: failed(lines))
        assert failed(lines)[0]["advice"] == "make room on the disk"
        assert len(await kept(store)) == 500
        make_room()
        await written(store)
    assert len(on_disk(path)) == 500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def mount(*words: str) -> bool:
    if os.geteuid() != 0:
        return False
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


async def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "a.db"
    async with writing(path) as (store, lines):
        put(store, *range(100))
        await written(store)
        ballast = small_disk / "ballast"
        fill_up(ballast)
        put(store, *range(1000, 2000))
        await until(lambda: failed(lines))
        assert failed(lines)[0]["advice"] == "make room on the disk"
        assert len(await kept(store)) == 1100
        assert len(on_disk(path)) == 100
        ballast.unlink()
        await written(store)
    assert len(on_disk(path)) == 1100


async def test_what_turned_read_only(tmp_path: Path) -> None:
    """A kernel does that to a disk with errors; here SQLite is asked to answer like it."""
    path = tmp_path / "a.db"
    async with writing(path) as (store, lines):
        put(store, *range(10))
        await written(store)
        database(store).writer.connection.execute("PRAGMA query_only = 1")

        def writable_again() -> None:
            database(store).writer.connection.execute("PRAGMA query_only = 0")

        await suffer(store, lines, path, writable_again, "its folder and its file system writable")


async def test_locked_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    )
    async with writing(path) as (store, lines):
        put(store, *range(10))
        await written(store)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            other.stdout.readline()
            await suffer(store, lines, path, other.stdin.close, "another process holds the file")


async def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """As a quota would do: the file cannot grow."""
    path = tmp_path / "a.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with writing(path) as (store, lines):
        put(store, *range(10))
        await written(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            await suffer(
                store,
                lines,
                path,
                lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)),
                "quotas",
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_another_file_in_its_place_is_not_written_to(tmp_path: Path) -> None:
    path, away, other = tmp_path / "a.db", tmp_path / "away.db", tmp_path / "other.db"
    other.write_bytes(b"something else")
    async with writing(path) as (store, lines):
        put(store, *range(10))
        await written(store)
        path.rename(away)
        other.rename(path)
        put(store, 11)
        await until(lambda: failed(lines))
        assert "taken the place" in failed(lines)[0]["problem"]
        assert await kept(store) == [*range(10), 11]
        assert path.read_bytes() == b"something else"
        away.rename(path)
        await written(store)
    assert on_disk(path) == [*range(10), 11]


@pytest.mark.parametrize("with_its_log", [True, False])
async def test_a_deleted_file_is_put_back(tmp_path: Path, with_its_log: bool) -> None:
    path = tmp_path / "data" / "a.db"
    async with writing(path) as (store, lines):
        put(store, *range(300))
        await written(store)
        for file in path.parent.iterdir():
            if with_its_log or file == path:
                file.unlink()
        if with_its_log:
            path.parent.rmdir()
        put(store, 300)
        await written(store)
        (line,) = [line for line in lines if line["log_level"] == "error"]
        assert (line["event"], line["path"]) == ("store.file_put_back", str(path))
        assert await kept(store) == [*range(301)]
        assert on_disk(path) == [*range(301)]
        put(store, 301)
        await written(store)
        assert sorted(file.name for file in path.parent.iterdir() if file.suffix != ".lock") == [
            "a.db",
            "a.db-shm",
            "a.db-wal",
        ]
    assert on_disk(path) == [*range(302)]
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".lock"] == ["a.db"]


async def test_a_deleted_file_is_put_back_at_the_very_end(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with trio.fail_after(10):
        async with opened(path) as store:
            put(store, *range(10))
            await store.flush()
            put(store, 10)
            path.unlink()
    assert on_disk(path) == [*range(11)]


async def test_a_deleted_file_that_cannot_be_put_back_yet(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    path = folder / "a.db"
    async with writing(path) as (store, lines):
        put(store, *range(10))
        await written(store)
        folder.rename(tmp_path / "away")
        folder.write_text("in the way")
        put(store, 10)
        await until(lambda: failed(lines))
        assert store.pending() == 1
        folder.unlink()
        await written(store)
    assert on_disk(path) == [*range(11)]


async def test_a_page_overwritten_while_it_runs(tmp_path: Path) -> None:
    """Who asks is told, the operator is told, and writing waits for somebody to act."""
    path = tmp_path / "a.db"
    async with writing(path) as (store, lines):
        put(store, *range(2000))
        await written(store)
        database(store).writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        spoil(path)
        for reader in database(store).readers:
            reader.connection.execute("PRAGMA cache_size = 0")
        with pytest.raises(StoreError, match="cannot be read: database disk image is malformed"):
            await store.history(SERIES, limit=5000)
        (line,) = [line for line in lines if line["event"] == "store.read_failed"]
        assert line["path"] == str(path)
        assert line["advice"].startswith("the file is damaged: stop the service, move")


def spoil(path: Path) -> None:
    """Overwrite every page but the first."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


async def test_what_waits_is_bounded_and_so_is_the_wait(tmp_path: Path) -> None:
    async with writing(tmp_path / "a.db", max_pending_rows=100) as (store, lines):
        put(store, *range(10))
        await written(store)
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for n in range(10, 1000):
                with trio.move_on_after(0.05) as patience:
                    await store.wait_capacity()
                if patience.cancelled_caught:
                    break
                put(store, n)
            assert store.pending() == 100
            await until(lambda: failed(lines))
            other.execute("ROLLBACK")
            assert await store.wait_capacity() in (True, False)
        await written(store)


# --- at the start ---------------------------------------------------------------------------------


async def refused(path: Path) -> str:
    """Why it does not start; the file is as it was."""
    before = contents(path)
    with pytest.raises(StartError) as caught, trio.fail_after(20):
        async with opened(path):
            pass
    assert contents(path) == before
    text = str(caught.value)
    assert text.startswith(f"store.path: {path}")
    assert "\n" not in text
    return text


def contents(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


async def filled(path: Path, rows: int = 2000) -> None:
    async with opened(path) as store:
        put(store, *range(rows))


async def test_two_writers_of_one_store(tmp_path: Path) -> None:
    path = tmp_path / "data" / "candles.db"
    async with opened(path):
        with pytest.raises(StartError) as refused:
            async with opened(path):
                pass
        problem = str(refused.value)
        assert problem.startswith(f"store.path: {path} is being written by another trio_feed")
        assert f"process {os.getpid()}" in problem
        assert "\n" not in problem
        address = path.as_uri() + "?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as reader:  # who reads is not asked
            assert reader.execute("SELECT count(*) FROM klines").fetchone() == (0,)
    async with opened(path):
        pass


async def test_two_writers_of_one_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "private.db")

    def opened_journal() -> Any:
        return open_journal(SettlementSettings(), path, now_ms=lambda: 1000.0, metrics=Metrics())

    async with opened_journal():
        with pytest.raises(StartError, match=r"settlement\.path: .* another trio_feed"):
            async with opened_journal():
                pass
    async with opened_journal():
        pass


async def test_rubbish_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(os.urandom(20_000))
    assert "not a database; name another file" in await refused(path)
    await filled(tmp_path / "b.db")
    with (tmp_path / "b.db").open("r+b") as file:
        file.write(bytes(100))  # the header
    assert "not a database" in await refused(tmp_path / "b.db")


async def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)
    assert "the file is damaged: stop the service, move the file away" in await refused(path)


async def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged" in await refused(path)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_the_database_of_something_else_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "bookmarks.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    assert "is the database of something else" in await refused(path)


async def test_an_empty_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    await filled(tmp_path / "a.db", 3)
    assert on_disk(tmp_path / "a.db") == [0, 1, 2]


async def test_a_file_that_is_held_is_refused_in_time(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with trio.fail_after(20), pytest.raises(StartError) as caught:
            async with opened(path):
                pass
    assert "another process holds the file" in str(caught.value)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write there; root needs a mount to be kept from it."""
    if os.geteuid() != 0:
        modes = {file: file.stat().st_mode for file in (folder, *folder.iterdir())}
        for file in modes:
            file.chmod(0o555)
        try:
            yield
        finally:
            for file, mode in modes.items():
                file.chmod(mode)
        return
    place = str(folder)
    if not (mount("--bind", place, place) and mount("-o", "remount,ro,bind", place)):
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_place_that_is_read_only_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await filled(folder / "a.db", 3)
    with read_only(folder):
        assert "cannot be opened for writing" in await refused(folder / "a.db")
        assert "cannot be opened for writing" in await refused(folder / "new.db")
        assert "cannot be opened for writing" in await refused(folder / "sub" / "new.db")
    assert on_disk(folder / "a.db") == [0, 1, 2]
