"""The small tasks beside a venue's driver; each runs until cancelled."""

from typing import Never

import structlog
import trio

from ..core.coverage import coverage
from ..errors import StoreError
from ..metrics import Metrics
from ..model import Interval, Series, StreamState
from ..store import KlineStore
from .driver import Driver
from .pool import Pool
from .troubles import Troubles

_MEASURE_S = 30.0
_WINDOWS_MS = {"hour": 3_600_000, "day": 86_400_000}
_READ_ROWS = 50_000
"""Stored minutes that are read at once: more than a month has."""
_READ_AGAIN_S = 5.0


async def run_timer(driver: Driver) -> Never:
    """Wake engines when they want to be."""
    while True:
        at = driver.wake_due()
        with trio.move_on_at(float(at)):
            await driver.queues.earlier.wait()
        await trio.lowlevel.checkpoint()


async def run_loader(driver: Driver, store: KlineStore) -> Never:
    """Read stored minutes for rolled-up candles.  A store that cannot be read is asked again."""
    troubles = Troubles(structlog.get_logger().bind(venue=driver.rules.venue), "load.failed")
    queues = driver.queues
    while True:
        while not queues.loads:
            queues.more_loads = trio.Event()
            await queues.more_loads.wait()
        load, engine = queues.loads.popleft()
        series = Series(driver.rules.venue, load.symbol, Interval.M1)
        try:
            minutes = await store.history(series, limit=_READ_ROWS, start_ms=load.start_ms)
        except StoreError as error:
            troubles.say(error, stream=str(series))
            queues.loads.appendleft((load, engine))
            await trio.sleep(_READ_AGAIN_S)
            continue
        troubles.over()
        if driver.engines.get(load.symbol) is engine:
            inside = [minute for minute in minutes if minute.open_ms < load.end_ms]
            driver.perform(engine, engine.loaded(load, inside, driver.now()))


async def run_rotator(driver: Driver, pool: Pool) -> Never:
    """Replace connections that an engine wants replaced."""
    queues = driver.queues
    while True:
        while not queues.rotations:
            queues.more_rotations = trio.Event()
            await queues.more_rotations.wait()
        rotation = queues.rotations.popleft()
        pool.rotate(rotation.stream, rotation.reason)


async def run_gauges(driver: Driver, metrics: Metrics) -> Never:
    """Gauges that are not worth a look at every message."""
    name, started = driver.rules.venue, float(driver.now().exchange)
    while True:
        await trio.sleep(_MEASURE_S)
        states = [s for e in driver.engines.values() for s in e.upstream.liveness.states()]
        for state in ("new", StreamState.LIVE, StreamState.STALE):
            metrics.stream_states.labels(name, state).set(states.count(state))
        metrics.held_series.labels(name).set(driver.holding())
        now = driver.now()
        for window, length_ms in _WINDOWS_MS.items():
            since = max(started, float(now.exchange) - length_ms)
            found = [
                coverage(ledger, since, float(now.exchange))
                for engine in driver.engines.values()
                for ledger in engine.candles.ledgers.values()
                if engine.prices is None  # whose candles are sparse
            ]
            due, out = sum(d for d, _ in found), sum(o for _, o in found)
            metrics.coverage.labels(name, window).set(out / due if due else 1.0)
