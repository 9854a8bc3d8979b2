"""Files of 0.1.0 are brought to today's schema in place; nothing of them is lost on the way."""

import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support import old_stores
from support.make import MINUTE, SERIES, kline, message
from support.old_stores import EPOCH, SCHEMAS, START

from trio_feed.errors import StartError
from trio_feed.metrics import Metrics
from trio_feed.model import Interval, Series
from trio_feed.settings import StoreSettings
from trio_feed.store import BufferedStore, open_store
from trio_feed.store.sqlite import open_sqlite

HOURS = Series("binance_usdm", "ETHUSDT", Interval.H1)


def opened(path: Path) -> Any:
    settings = StoreSettings(path=str(path))
    return open_store(settings, simulated=False, now_ms=EPOCH + 1, metrics=Metrics())


def shape(path: Path) -> dict[str, Any]:
    """Tables with their columns, and indexes; not the order of the columns."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
        tables = {
            name: {tuple(row[1:]) for row in connection.execute(f"PRAGMA table_info({name})")}
            for kind, name in names
            if kind == "table"
        }
        (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        return {**tables, "indexes": {n for kind, n in names if kind == "index"}, "mode": mode}


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_what_an_old_file_holds_is_all_there(tmp_path: Path, schema: str) -> None:
    path = tmp_path / "a.db"
    old_stores.make(path, schema)
    with trio.fail_after(30):
        async with opened(path) as store:
            stored_ends = await store.stored_ends()
            assert set(stored_ends) == {SERIES, HOURS}
            stored_end = stored_ends[SERIES]
            assert stored_end.kline.open_ms == START + 9 * MINUTE
            assert (stored_end.first_open_ms, stored_end.settled_ms) == (START, START + 12 * MINUTE)
            assert stored_end.last_stream_id == (7009 if schema == "2 with ids" else 0)
            assert stored_ends[HOURS].settled_ms == START + 9 * 60 * MINUTE
            rows = await store.history(SERIES, limit=50)
            assert [k.open_ms for k in rows] == [START + n * MINUTE for n in range(10)]
            assert str(rows[5].close) == "100.15"
            assert [k.complete for k in rows] == [n != 3 for n in range(10)]
            assert (rows[0].first_trade_id, rows[0].taker_buy_volume) == (None, None)
            after = await store.after(SERIES, EPOCH, 8, limit=50)
            if schema == "1":  # it did not keep which epochs were written to the end
                assert after is None
                known = START + 8 * MINUTE
                after = await store.after(SERIES, EPOCH, 8, closed_ms=known, limit=50)
                assert [m.offset for m in after] == [10]
            else:
                numbers = [(m.offset, m.revision) for m in after]
                assert numbers == [(9, False), (10, False), (500, True)]
                (revision,) = await store.revisions(SERIES, limit=5)
                assert (revision.learned_ms, revision.before) == (0, None)
            store.put(message(kline(START + 10 * MINUTE), epoch=store.epoch))
        async with opened(path) as store:
            assert len(await store.history(SERIES, limit=50)) == 11
            await store.retain()
            assert dict(store.statistics().sizes.rows) == {Interval.M1: 11, Interval.H1: 10}


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_a_migrated_file_is_as_a_new_one(tmp_path: Path, schema: str) -> None:
    old_stores.make(tmp_path / "old.db", schema)
    with capture_logs() as lines:
        for name in ("old.db", "new.db"):
            async with opened(tmp_path / name):
                pass
    (line,) = [line for line in lines if line["event"] == "store.migrated"]
    assert (line["before"], line["now"]) == (int(schema[0]), 3)
    old, new = shape(tmp_path / "old.db"), shape(tmp_path / "new.db")
    assert {k: strict(v) for k, v in old.items()} == {k: strict(v) for k, v in new.items()}
    assert new["mode"] == 2  # incremental


def strict(columns: Any) -> Any:
    """Without defaults: a column that was there from the beginning had none."""
    if not isinstance(columns, set) or not columns or isinstance(next(iter(columns)), str):
        return columns
    return {(name, kind, not_null) for name, kind, not_null, _, _ in columns}


_KILLED = """
import os, sqlite3, sys
from pathlib import Path
from trio_feed.store.sqlite import opening

path, left = Path(sys.argv[1]), int(sys.argv[2])
connect = opening.connect

def watched(path):
    def count(statement):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
    connection = connect(path)
    connection.set_trace_callback(count)
    return connection

opening.connect = watched
opening.open_sqlite(path, simulated=False, now_ms=5)
print("through", flush=True)
"""


async def test_a_kill_at_any_statement_loses_nothing(tmp_path: Path) -> None:
    original = tmp_path / "original.db"
    old_stores.make(original, "2 with ids", rows=300)
    through, steps = False, 0
    while not through:
        path = tmp_path / f"{steps}.db"
        shutil.copy(original, path)
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(path), str(steps)], capture_output=True, text=True
        )
        through = "through" in done.stdout
        assert done.returncode == (0 if through else 9), done.stderr
        with trio.fail_after(30):
            async with opened(path) as store:
                assert len(await store.history(SERIES, limit=500)) == 300
                assert len(await store.history(HOURS, limit=500)) == 300
                assert (await store.stored_ends())[SERIES].settled_ms == START + 302 * MINUTE
        assert shape(path)["mode"] == 2
        steps += 4
    assert steps > 40


async def test_a_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    old_stores.make(path, "2")
    before = shape(path)
    with monkeypatch.context() as patch:
        patch.setattr("trio_feed.store.sqlite.schema._FILL_ENDS", "INSERT INTO absent VALUES (1)")
        with pytest.raises(StartError, match="no such table"):
            async with opened(path):
                pass
    assert shape(path) == before
    async with opened(path) as store:
        assert len(await store.history(SERIES, limit=50)) == 10


async def test_a_disk_without_place_for_a_copy_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    old_stores.make(path, "2")
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, path.stat().st_size * 3))
        async with opened(path) as store:
            assert len(await store.history(SERIES, limit=50)) == 10
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "store.not_rewritten"
    ]
    assert shape(path)["mode"] == 0
    async with opened(path):  # there is place again
        pass
    assert shape(path)["mode"] == 2


async def test_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'schema'")
    before = path.read_bytes()
    with pytest.raises(StartError) as caught:
        async with opened(path):
            pass
    assert "written by a newer version of trio_feed (schema 4, this one reads" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_an_old_file_of_the_other_kind_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    old_stores.make(path, "1", kind="simulated")
    before = shape(path)
    with pytest.raises(StartError, match="holds simulated candles"):
        open_sqlite(path, simulated=False, now_ms=5)
    assert shape(path) == before


async def test_a_start_that_was_cut_off_before_its_version_was_written(tmp_path: Path) -> None:
    """0.1.0 made the tables first and wrote its version after."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMAS["2"])
    async with opened(path) as store:
        assert isinstance(store, BufferedStore)
        store.put(message(kline(), epoch=store.epoch))
        await store.flush()
        assert len(await store.history(SERIES, limit=5)) == 1


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_candles_come_into_the_order_of_their_series(tmp_path: Path, schema: str) -> None:
    """Once; and then each reads few pages, whatever came between."""
    path = tmp_path / "a.db"
    old_stores.make(path, schema, rows=300)
    for rewrites in (1, 0):
        with capture_logs() as lines:
            async with opened(path) as store:
                assert len(await store.history(SERIES, limit=500)) == 300
        events = [line["event"] for line in lines]
        assert events.count("store.rewriting") == rewrites
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found = connection.execute("SELECT sql FROM sqlite_master WHERE name LIKE 'klines%'")
            ((text,),) = found.fetchall()
            assert text.endswith("WITHOUT ROWID")
