"""``scripts/bench store``: candles onto the disk and back.

Read in three ways: from the store, which the target is of; as a client's ``history`` with that
limit, whose answer is text; and as one without a limit, which the bus has in memory.

Beside the store: the same rows, made before, through ``sqlite3.executemany`` into a table with the
same columns and key, in transactions of the same size: what Python's SQLite can do at most.  Wall
time, for the disk belongs to it.

And the same through PostgreSQL, where a server is installed: one of the bench's own, with its
defaults (each batch is on the disk when it is answered, which SQLite in WAL mode leaves to the next
checkpoint).
"""

import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import trio

from trio_feed.bus.local import LocalStream
from trio_feed.collector import spare_collector
from trio_feed.metrics import Metrics
from trio_feed.model import Interval, KlineMessage, Series
from trio_feed.push.fanout import history
from trio_feed.settings import DatabaseUrl, KlineSettings, StoreSettings
from trio_feed.store import BufferedStore, open_store
from trio_feed.store.sqlite.rows import NAMES, to_row

from ..postgres_server import postgres_server, why_not
from .core import candle
from .processes import MEASURED, pin
from .result import Result, Target

_BATCH = 10_000
_READ = 1_000
_T0 = 1_700_000_040_000
_UPSERTS, _RAW = "trio_feed: upserts", "sqlite3.executemany, rows made before"
_LAST, _RAW_LAST = f"trio_feed: last {_READ} candles of a series", f"sqlite3: last {_READ} rows"
_ASKED, _RECENT = f"hub: a client's last {_READ} candles", "hub: a client's history without a limit"
_POSTGRES, _POSTGRES_LAST = "PostgreSQL: upserts", f"PostgreSQL: last {_READ} candles of a series"
_SHARE = "upserts / executemany"


def run(quick: bool) -> Result:
    pin(MEASURED)
    spare_collector()  # as a service has it
    rounds, series, candles = (2, 100, 200) if quick else (5, 500, 200)
    result = Result(
        "store",
        "candles/s",
        {_SHARE: (_UPSERTS, _RAW), "last 1,000 / plain SELECT": (_LAST, _RAW_LAST)},
        [Target(_UPSERTS, 100_000), Target(_LAST, 2.0, most=True)],
    )
    result.rounds(
        rounds,
        {
            _UPSERTS: partial(trio.run, _upserts, series, candles),
            _RAW: partial(_raw_upserts, series, candles),
        },
    )
    in_ms = (_LAST, _RAW_LAST, _ASKED, _RECENT, _POSTGRES_LAST)
    result.units |= dict.fromkeys(in_ms, "ms")
    trio.run(_reads, result, series, _READ + 200)
    if why := why_not():
        result.skip("PostgreSQL", why)
        return result
    with postgres_server(fsync=True) as server:
        url = server.url()
        for _ in range(rounds):
            server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
            result.add(_POSTGRES, trio.run(_upserts, series, candles, url))
        server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
        trio.run(_postgres_reads, result, series, _READ + 200, url)
    return result


def messages(series: int, candles: int) -> Iterator[list[KlineMessage]]:
    """Closed candles of all series, minute by minute, in batches."""
    keys = [Series("bench", f"S{n}USDT", Interval.M1) for n in range(series)]
    batch: list[KlineMessage] = []
    for minute in range(candles):
        for number, key in enumerate(keys):
            kline = candle(_T0 + minute * 60_000, number, closed=True)
            batch.append(KlineMessage(key, kline, 1, minute + 1, 1, 0.0))
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def settings_of(folder: str, url: str = "") -> StoreSettings:
    path = str(Path(folder, "bench.db"))
    return StoreSettings(path=path, url=DatabaseUrl(url), max_pending_rows=1_000_000)


async def _upserts(series: int, candles: int, url: str = "") -> float:
    took = 0.0
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(
            settings_of(folder, url), simulated=False, now_ms=1.0, metrics=Metrics()
        ) as store:
            assert isinstance(store, BufferedStore)
            for batch in messages(series, candles):
                began = time.perf_counter()
                for message in batch:
                    store.put(message)
                await store.flush()
                took += time.perf_counter() - began
    return series * candles / took


def _raw_upserts(series: int, candles: int) -> float:
    columns, marks = ", ".join(NAMES), ", ".join("?" * (len(NAMES) + 3))
    put = (
        f"INSERT INTO klines (series_id, {columns}, epoch, offset) VALUES ({marks})"
        " ON CONFLICT (series_id, open_ms) DO UPDATE SET close = excluded.close"
    )
    took = 0.0
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(str(Path(folder, "raw.db")), isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"CREATE TABLE klines (series_id, {columns}, epoch, offset)")
        db.execute("CREATE UNIQUE INDEX by_open ON klines (series_id, open_ms)")
        ids: dict[Series, int] = {}
        for batch in messages(series, candles):
            rows = [
                (ids.setdefault(m.series, len(ids)), *to_row(m.kline), m.epoch, m.offset)
                for m in batch
            ]
            began = time.perf_counter()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(put, rows)
            db.execute("COMMIT")
            took += time.perf_counter() - began
        db.close()
    return series * candles / took


async def _reads(result: Result, series: int, candles: int) -> None:
    """From a file in which every series has more than is asked for."""
    series = min(series, 100)  # what matters is that one is not alone in the file
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(folder)
        async with open_store(settings, simulated=False, now_ms=1.0, metrics=Metrics()) as store:
            assert isinstance(store, BufferedStore)
            for batch in messages(series, candles):
                for message in batch:
                    store.put(message)
                await store.flush()
            db = sqlite3.connect(settings.path)
            kept = KlineSettings().history_data_limit
            for number in range(20):
                key = Series("bench", f"S{number * 7 % series}USDT", Interval.M1)
                began = time.perf_counter()
                found = await store.history(key, limit=_READ)
                result.add(_LAST, (time.perf_counter() - began) * 1000)
                assert len(found) == _READ
                recent = deque(((kline, 1) for kline in found), kept)
                stream = LocalStream(key, 7, 0, recent, _T0, 1)
                for row, limit in ((_ASKED, _READ), (_RECENT, kept)):
                    began = time.perf_counter()
                    text = await history.latest(store, stream, "", limit)
                    result.add(row, (time.perf_counter() - began) * 1000)
                    assert text.count('"time"') == limit
                result.add(_RAW_LAST, _timed_ms(partial(_select, db, number + 1)))
            db.close()


async def _postgres_reads(result: Result, series: int, candles: int, url: str) -> None:
    """The same questions to the same candles."""
    series, settings = min(series, 100), settings_of("", url)
    async with open_store(settings, simulated=False, now_ms=1.0, metrics=Metrics()) as store:
        assert isinstance(store, BufferedStore)
        for batch in messages(series, candles):
            for message in batch:
                store.put(message)
            await store.flush()
        for number in range(20):
            key = Series("bench", f"S{number * 7 % series}USDT", Interval.M1)
            began = time.perf_counter()
            found = await store.history(key, limit=_READ)
            result.add(_POSTGRES_LAST, (time.perf_counter() - began) * 1000)
            assert len(found) == _READ


def _select(db: sqlite3.Connection, key: int) -> Sequence[object]:
    return db.execute(
        f"SELECT {', '.join(NAMES)} FROM klines WHERE series_id = ? ORDER BY open_ms DESC LIMIT ?",
        (key, _READ),
    ).fetchall()


def _timed_ms(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1000
