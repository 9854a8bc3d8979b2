"""The contract of stores on SQLite and PostgreSQL: with all rows unwritten, and with all on the
disk."""

import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message
from support.postgres import PostgresServer, postgres_server
from support.store_contract import CHECKS, EPOCH, KEEP, OTHER, Kit

from trio_feed.metrics import Metrics
from trio_feed.model import Hole, Interval
from trio_feed.settings import DatabaseUrl, StoreSettings
from trio_feed.store import BufferedStore, KlineStore, MemoryStore, open_store


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    """Of an empty store."""
    if request.param == "sqlite":
        return StoreSettings(path=str(tmp_path / "a.db"), keep=KEEP)
    server = request.getfixturevalue("server")
    server.sql("DROP SCHEMA IF EXISTS trio_feed CASCADE")
    return StoreSettings(url=DatabaseUrl(server.url()), keep=KEEP)


def rows(settings: StoreSettings, question: str) -> list[tuple[int, ...]]:
    if settings.url:
        import psycopg

        with psycopg.connect(settings.url.reveal(), options="-csearch_path=trio_feed") as db:
            return db.execute(question).fetchall()
    with closing(sqlite3.connect(settings.path)) as connection:
        return connection.execute(question).fetchall()


@pytest.mark.parametrize("kind", ["unwritten", "written"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[Kit], Awaitable[None]], kind: str, settings: StoreSettings
) -> None:
    with trio.fail_after(30):
        async with open_store(settings, simulated=False, now_ms=EPOCH, metrics=Metrics()) as store:
            assert isinstance(store, BufferedStore)

            async def retain() -> None:
                await store.flush()
                await store.retain()

            written = store.flush if kind == "written" else trio.lowlevel.checkpoint
            await check(Kit(store, written, retain))


async def answers(store: KlineStore) -> list[object]:
    """Everything that can be asked of a store whose last message was number 400 or less."""
    found: list[object] = [sorted((await store.stored_ends()).items(), key=str)]
    for series in (SERIES, OTHER):
        found.append(await store.first_open(series))
        found.append(await store.history(series, limit=500))
        found.append(await store.history(series, limit=7, end_ms=T0 + 60 * MINUTE))
        found.append(await store.history(series, limit=7, start_ms=T0 + 60 * MINUTE))
        found.append(await store.revisions(series, limit=100))
        for offset in range(0, 400, 7):
            found.append(await store.after(series, EPOCH, offset, limit=60))
    return found


SEEDS = [*(("sqlite", n) for n in range(6)), ("postgres", 0), ("postgres", 1)]


@pytest.mark.parametrize(("settings", "seed"), SEEDS, indirect=["settings"])
async def test_memory_and_databases_are_twins(seed: int, settings: StoreSettings) -> None:
    """Whatever is put and deleted, in whatever batches; and the table of ends is what a scan of
    the candles would say."""
    chance = random.Random(seed)
    with trio.fail_after(60):
        async with open_store(settings, simulated=False, now_ms=EPOCH, metrics=Metrics()) as store:
            assert isinstance(store, BufferedStore)
            twin = MemoryStore(EPOCH, {Interval.M1: 60 * MINUTE})
            assert store.epoch == twin.epoch
            minute = {SERIES: 0, OTHER: 0}
            for offset in range(1, 400):
                series = chance.choice((SERIES, OTHER))
                what = chance.random()
                if what < 0.04:
                    hole = Hole(T0 + minute[series] * MINUTE, T0 + (minute[series] + 2) * MINUTE)
                    for one in (store, twin):
                        one.put_hole(series, hole)
                    continue
                revised = what < 0.15
                minute[series] += 0 if revised else chance.choice((1, 1, 1, 3))
                n = minute[series] - (chance.randrange(30) if revised else 0)
                row = kline(T0 + n * MINUTE, f"{offset}.5")
                row = evolve(row, last_stream_id=chance.choice((0, offset)))
                sent = message(row, series, epoch=EPOCH, offset=offset)
                for one in (store, twin):
                    one.put(evolve(sent, revision=revised))
                if chance.random() < 0.1:
                    await store.flush()
                if chance.random() < 0.01:
                    await store.flush()
                    await store.retain()
                    await twin.retain()
            assert await answers(store) == await answers(twin)
            await store.flush()
            assert await answers(store) == await answers(twin)
            await store.flush()
            await store.retain()
            await twin.retain()
            assert await answers(store) == await answers(twin)
            assert store.statistics().sizes.rows == twin.statistics().sizes.rows
            assert store.statistics().pruned == twin.statistics().pruned > 0
    kept = "SELECT series_id, first_open_ms, last_open_ms, candles FROM ends ORDER BY 1"
    scan = "SELECT series_id, min(open_ms), max(open_ms), count(*) FROM klines GROUP BY 1"
    assert rows(settings, kept) == rows(settings, f"{scan} ORDER BY 1")
