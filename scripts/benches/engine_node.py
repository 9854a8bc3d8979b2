"""A node of the engine's bench: the writing or the reading half, each with everything between what
is published and the socket of a client, but no exchange and no database.

The job: ``role`` (``write`` or ``read``), ``url``; of who reads also ``name`` and ``workers``.
Prints ``{"port": ..}`` (of who reads) once it is up, then answers ``stream SECONDS RATE`` (who
writes: trades, ``RATE`` a second over 500 symbols) or ``cpu`` (who reads): ``messages``,
``seconds``, ``cpu_s`` with workers, ``parent_s`` without.  Half of the messages are open candles.
"""

import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
import trio

from scripts.child import workers_of
from trio_feed import service
from trio_feed.bus import wire
from trio_feed.bus.engine.attempts import Attempts
from trio_feed.bus.engine.base import Engine, shard_of, shards_of
from trio_feed.bus.engine.feeding import Feeding
from trio_feed.bus.engine.opening import make_engine
from trio_feed.bus.engine.writing import Writing
from trio_feed.bus.local import LocalBus
from trio_feed.collector import spare_collector
from trio_feed.core.effects import CandleNews, ChannelNews
from trio_feed.environment import real_environment
from trio_feed.metrics import Metrics
from trio_feed.model import Channel, ChannelKey, Interval, Kline, Series, Source, Trade
from trio_feed.settings import EngineSettings, StoreSettings, load
from trio_feed.store import MemoryDatabase, Sharing, open_shared_store

from .processes import cpu_s
from .servers_ours import _SETTINGS

STREAMS = 500
SYMBOLS = [f"S{n}USDT" for n in range(STREAMS)]
SHARDS = 8
VENUE = "binance_usdm"
_PACE_S = 0.001
_BURST = 50
_CLUSTER = f"wire {wire.VERSION}, {SHARDS} shards of each venue".encode()


async def _write(url: str) -> None:
    """The ingest side: a local bus, and what puts it into the logs."""
    settings = EngineSettings("valkey", (url,), shards=SHARDS)
    of_shard = partial(shard_of, shards=SHARDS)
    async with (
        make_engine(settings, _CLUSTER) as engine,
        open_shared_store(
            StoreSettings(), Sharing(of_shard, lambda _shards: None), simulated=True,
            metrics=Metrics(), twin=MemoryDatabase(),
        ) as store,
        trio.open_nursery() as nursery,
    ):  # fmt: skip
        now_ms = real_environment().now_ms
        made: list[Writing] = []
        bus = LocalBus(
            epoch=lambda key: made[0].epoch_of(key), history_rows=10, resume_messages=10,
            now_ms=now_ms,
        )  # fmt: skip
        writing = Writing(bus, of_shard, store.oldest_pending, keep_s=30, buffer_bytes=2**26)
        made.append(writing)
        for symbol in SYMBOLS:
            bus.open(ChannelKey(VENUE, symbol, Channel.TRADE))
            bus.open(Series(VENUE, symbol, Interval.M1))

        @asynccontextmanager
        async def way() -> AsyncIterator[Engine]:
            await trio.lowlevel.checkpoint()
            yield engine

        feeding = Feeding(
            "writer:1", Attempts(way, random.Random(1)), shards_of(VENUE, SHARDS), store, writing,
            _nothing, lambda: ["writer"], now_ms, tick_s=settings.tick_ms / 1000,
            lease_s=settings.lease_s,
        )  # fmt: skip
        nursery.start_soon(feeding.run)
        spare_collector()
        while len(writing.owners) < SHARDS:
            await trio.sleep(0.05)
        _say({"port": 0})
        async for line in trio.wrap_file(sys.stdin):
            _, seconds, rate = line.split()
            _say(await _stream(bus, float(seconds), float(rate)))
        nursery.cancel_scope.cancel()


async def _nothing(_venue: str) -> None:
    await trio.lowlevel.checkpoint()


async def _stream(bus: LocalBus, seconds: float, rate: float) -> dict[str, Any]:
    began, own, messages = time.perf_counter(), time.process_time(), 0
    price, quantity = Decimal("85000.10"), Decimal("0.125")
    opened_ms = int(time.time()) // 60 * 60_000
    candle = Kline(
        opened_ms, price, price, price, price, quantity, price * quantity, 7, False, Source.TRADES
    )
    while (passed := time.perf_counter() - began) < seconds:
        due = min(messages + _BURST, int(passed * rate))
        while messages < due:
            symbol = SYMBOLS[messages // 2 % STREAMS]
            now = time.time() * 1000
            if messages % 2:
                bus.publish(CandleNews(Series(VENUE, symbol, Interval.M1), candle, messages, now))
            else:
                key, micros = ChannelKey(VENUE, symbol, Channel.TRADE), time.monotonic_ns() // 1000
                data = Trade(symbol, micros, micros, micros, price, quantity, int(now), True)
                bus.publish(ChannelNews(key, data, Source.SIMULATED, now))
            messages += 1
        await trio.sleep(_PACE_S)
    return {
        "messages": messages,
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - own,
    }


async def _read(url: str, name: str = "reader", workers: int = 1) -> None:
    """The push side: the whole service, whose database is one in memory."""
    settings = load(
        assignments=[
            *(each for each in _SETTINGS if not each.startswith(("simulator.", "store."))),
            "engine.kind=valkey", f"engine.urls=['{url}']", f"engine.shards={SHARDS}",
            f"node.name={name}", "node.roles=['push']", "store.url=postgresql://nowhere/none",
            f"server.workers={workers}",
        ]
    )  # fmt: skip
    database = MemoryDatabase(identity="of the bench")  # the same for all who read
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(
            partial(service.run, settings, real_environment(), database=database)
        )
        spare_collector()
        hub = ready.app.context.hub
        while len(hub.symbols_of(VENUE)) < STREAMS:
            await trio.sleep(0.05)
        _say({"port": int(ready.address.rpartition(":")[2])})
        began, own, of_workers = time.perf_counter(), time.process_time(), _workers_s()
        async for _ in trio.wrap_file(sys.stdin):
            now, used, of_all = time.perf_counter(), time.process_time(), _workers_s()
            taken = {"cpu_s": used - own + of_all - of_workers, "parent_s": used - own}
            _say({"seconds": now - began, **taken})
            began, own, of_workers = time.perf_counter(), time.process_time(), _workers_s()
        nursery.cancel_scope.cancel()


def _workers_s() -> float:
    return sum(map(cpu_s, workers_of(os.getpid())))


def _say(found: object) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    job = json.loads(sys.argv[1])
    if job["role"] == "write":
        trio.run(_write, job["url"])
    else:
        trio.run(_read, job["url"], job.get("name", "reader"), job.get("workers", 1))
