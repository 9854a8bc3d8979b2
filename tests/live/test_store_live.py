"""SQLite on a real disk: threads and files, so on the real clock."""

import sqlite3
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest
import trio
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message

from trio_feed.errors import StartError
from trio_feed.metrics import Metrics
from trio_feed.model import Hole
from trio_feed.settings import StoreSettings
from trio_feed.store import KlineStore, open_store


def opened(
    path: Path, *, simulated: bool = False, now_ms: float = 1000.0, **more: float
) -> AbstractAsyncContextManager[KlineStore]:
    settings = StoreSettings(path=str(path), **more)  # type: ignore[arg-type]
    return open_store(settings, simulated=simulated, now_ms=now_ms, metrics=Metrics())


async def test_rows_are_readable_before_and_after_they_are_on_disk(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with opened(tmp_path / "a.db") as store:
            rows = [kline(T0 + n * MINUTE, close=f"1.{n}00000000000000000") for n in range(5)]
            for number, row in enumerate(rows):
                store.put(message(row, epoch=store.epoch, offset=number + 1))
            store.put_hole(SERIES, Hole(T0 - MINUTE, T0 - MINUTE))
            assert await store.history(SERIES, limit=9) == rows
            assert store.pending() == 6
        async with opened(tmp_path / "a.db") as store:
            again = await store.history(SERIES, limit=9)
            assert again == rows
            assert [str(row.close) for row in again] == [str(row.close) for row in rows]
            stored_end = (await store.stored_ends())[SERIES]
            assert (stored_end.kline, stored_end.settled_ms) == (rows[-1], rows[-1].open_ms)
            assert await store.first_open(SERIES) == T0
            assert await store.history(SERIES, limit=2, start_ms=T0 + MINUTE) == rows[1:3]
            assert await store.history(SERIES, limit=2, end_ms=T0 + 2 * MINUTE) == rows[:2]


def put(store: KlineStore, n: int, offset: int, close: str = "100.50", **more: bool) -> None:
    row = message(kline(T0 + n * MINUTE, close), epoch=store.epoch, offset=offset)
    store.put(evolve(row, **more))


Told = list[tuple[int, int, str, bool]]


async def after(store: KlineStore, epoch: int, offset: int, **more: int) -> Told | None:
    """(minute, offset, close, whether a revision) of everything after that number."""
    found = await store.after(SERIES, epoch, offset, **{"limit": 100, **more})
    if found is None:
        return None
    return [
        ((m.kline.open_ms - T0) // MINUTE, m.offset, str(m.kline.close), m.revision) for m in found
    ]


async def test_what_went_out_after_a_number_is_known_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with trio.fail_after(10):
        async with opened(path, flush_interval_s=60) as store:
            first = store.epoch
            put(store, 0, 4)
            put(store, 1, 8)
            expected = [(1, 8, "100.50", False)]
            assert await after(store, first, 4) == expected
            await store.flush()  # type: ignore[attr-defined]
            assert await after(store, first, 4) == expected
            put(store, 2, 9)
            put(store, 1, 10, "100.75", revision=True)  # one on disk, one not
            expected = [
                (1, 8, "100.75", False), (2, 9, "100.50", False), (1, 10, "100.75", True)
            ]  # fmt: skip
            assert await after(store, first, 5) == expected
            assert await after(store, first, 5, limit=2) is None
        async with opened(path) as store:
            assert await after(store, first, 5) == expected
            assert await after(store, first, 99) == []
            put(store, 3, 2)
            assert await after(store, first, 9) == [expected[2], (3, 2, "100.50", False)]
            assert await after(store, first + 12345, 1) is None
            (stored_end,) = (await store.stored_ends()).values()
            assert stored_end.kline.open_ms == T0 + 3 * MINUTE


async def test_after_a_kill_only_what_is_certain_is_told(tmp_path: Path) -> None:
    """The killed process may have told a client of candles that it had not written yet."""
    path = tmp_path / "a.db"
    with trio.fail_after(10):
        async with opened(path) as store:
            killed = store.epoch
            put(store, 0, 4)
            put(store, 1, 8)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE epochs SET written_to_the_end = 0")
        async with opened(path) as store:
            assert await after(store, killed, 8) == []
            assert await after(store, killed, 4) == [(1, 8, "100.50", False)]
            assert await after(store, killed, 9) is None
            known, unknown = T0 + MINUTE, T0 + 2 * MINUTE
            assert await after(store, killed, 9, closed_ms=unknown) is None
            put(store, 2, 1)
            assert await after(store, killed, 9, closed_ms=known) == [(2, 1, "100.50", False)]


async def test_history_that_is_fetched_does_not_disturb_resuming_from_an_earlier_run(
    tmp_path: Path,
) -> None:
    """A page of the past was told as freshly closed while it waited, and ended all resuming of
    earlier runs once it was written."""
    path = tmp_path / "a.db"
    with trio.fail_after(10):
        async with opened(path) as store:
            first = store.epoch
            for n in range(3):
                put(store, n, n + 1)
        async with opened(path) as store:
            for n in range(-20, 0):
                put(store, n, 0)  # as the driver puts history
            assert await after(store, first, 3) == []
        async with opened(path) as store:
            assert await after(store, first, 3) == []
            assert await after(store, first, 2) == [(2, 3, "100.50", False)]
            put(store, 3, 1)
            assert await after(store, first, 3) == [(3, 1, "100.50", False)]


async def test_candles_that_do_not_exist_are_not_forgotten(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with opened(tmp_path / "a.db") as store:
            put(store, 0, 4)
            store.put_hole(SERIES, Hole(T0 + MINUTE, T0 + 3 * MINUTE))
            (stored_end,) = (await store.stored_ends()).values()  # not on disk yet
            assert (stored_end.kline.open_ms, stored_end.settled_ms) == (T0, T0 + 3 * MINUTE)
        async with opened(tmp_path / "a.db") as store:
            (stored_end,) = (await store.stored_ends()).values()
            assert stored_end.settled_ms == T0 + 3 * MINUTE


async def test_epochs_grow_even_when_the_clock_does_not(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", now_ms=5000) as store:
        first = store.epoch
    async with opened(tmp_path / "a.db", now_ms=10) as store:
        assert store.epoch > first


async def test_simulated_and_real_candles_never_share_a_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", simulated=True):
        pass
    with pytest.raises(StartError, match="holds simulated candles"):
        async with opened(tmp_path / "a.db"):
            pass


async def test_an_unusable_path_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StartError, match=r"store\.path: .*cannot be opened"):
        async with opened(tmp_path / "file" / "a.db"):
            pass
    (tmp_path / "b.db").write_text("this is not a database, it is far too short and wrong" * 50)
    with pytest.raises(StartError, match="not a database"):
        async with opened(tmp_path / "b.db"):
            pass


async def test_a_batch_that_the_disk_refuses_is_kept_and_written_later(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with trio.fail_after(30):
        async with opened(path, flush_interval_s=0.001) as store, trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            store.put(message(kline()))
            while not store._metrics.store_errors._value.get():  # type: ignore[attr-defined]
                await trio.sleep(0.05)
            assert store.pending() == 1
            assert await store.history(SERIES, limit=5) == [kline()]
            other.execute("ROLLBACK")
            other.close()
            while store.pending():
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
    async with opened(path) as store:
        assert await store.history(SERIES, limit=5) == [kline()]


async def test_a_cursor_comes_back_after_a_restart_with_the_candles_before_it(
    tmp_path: Path,
) -> None:
    with trio.fail_after(10):
        async with opened(tmp_path / "a.db") as store:
            put(store, 0, 1)
            store.put_cursor("chain", "one")
            assert store.pending() == 2
        async with opened(tmp_path / "a.db") as store:
            assert await store.cursor("chain") == "one"
            assert set(await store.stored_ends()) == {SERIES}
