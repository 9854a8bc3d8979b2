"""The small tasks beside a venue's driver: what they wait for, and what they do then."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from support.bench import Bench
from support.engine import CANDLES, TRADES, end_at, minute
from support.make import MINUTE, T0

from trio_feed.core.effects import Load
from trio_feed.core.streams import KlineUpdate
from trio_feed.errors import StoreError
from trio_feed.ingest.tasks import run_gauges, run_loader, run_rotator
from trio_feed.model import Interval, Kline, Series

M1, M5 = Interval.M1, Interval.M5


class Engine:
    """Notes what was loaded for it."""

    def __init__(self) -> None:
        self.found: list[tuple[Load, list[int]]] = []

    def loaded(self, load: Load, minutes: list[Kline], now: str) -> str:
        assert now == "now"
        self.found.append((load, [(m.open_ms - T0) // MINUTE for m in minutes]))
        return "effects"


class Desk:
    """What the tasks see of a driver."""

    def __init__(self, **engines: Any) -> None:
        self.rules = SimpleNamespace(venue="binance_usdm")
        self.engines = engines
        self.queues = SimpleNamespace(
            loads=deque(), more_loads=trio.Event(), rotations=deque(), more_rotations=trio.Event()
        )
        self.performed: list[tuple[Any, Any]] = []

    def now(self) -> str:
        return "now"

    def perform(self, engine: Any, effects: Any) -> None:
        self.performed.append((engine, effects))

    def load(self, symbol: str, engine: Any, start: int = 0, end: int = 5) -> Load:
        load = Load(symbol, M5, T0 + start * MINUTE, T0 + end * MINUTE)
        self.queues.loads.append((load, engine))
        self.queues.more_loads.set()
        return load


class Store:
    def __init__(self, *problems: str) -> None:
        self.problems, self.asked = list(problems), list[tuple[Any, ...]]()

    async def history(self, series: Series, *, limit: int, start_ms: int) -> list[Kline]:
        self.asked.append((series, limit, start_ms, trio.current_time()))
        await trio.lowlevel.checkpoint()
        if self.problems:
            raise StoreError(self.problems.pop(0))
        return [minute(n) for n in range(9) if T0 + n * MINUTE >= start_ms]


async def loading(desk: Any, store: Any, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await run_loader(desk, store)


async def test_the_minutes_of_a_candle_are_read(autojump_clock: trio.abc.Clock) -> None:
    engine, store = Engine(), Store()
    desk = Desk(BTCUSDT=engine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loading, desk, store, 10)
        await trio.testing.wait_all_tasks_blocked()
        load = desk.load("BTCUSDT", engine, 1, 4)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.found == [(load, [1, 2, 3])]  # up to its end, exclusive
        assert desk.performed == [(engine, "effects")]
        second = desk.load("BTCUSDT", engine, 8, 20)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.found[1:] == [(second, [8])]
    series = Series("binance_usdm", "BTCUSDT", M1)
    assert [row[:3] for row in store.asked] == [
        (series, 50_000, T0 + MINUTE), (series, 50_000, T0 + 8 * MINUTE),
    ]  # fmt: skip


async def test_a_store_that_cannot_be_read_is_asked_again_in_order(
    autojump_clock: trio.abc.Clock,
) -> None:
    engine, store = Engine(), Store("locked", "locked")
    desk = Desk(BTCUSDT=engine)
    loads = [desk.load("BTCUSDT", engine, n, n + 1) for n in range(2)]
    with capture_logs() as logs:
        await loading(desk, store, 20)
    assert [load for load, _ in engine.found] == loads
    assert [row[3] for row in store.asked] == [0, 5, 10, 10]
    assert [(line["event"], line["problem"]) for line in logs] == [("load.failed", "locked")] * 2


async def test_a_symbol_that_was_closed_or_opened_anew_gets_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    old, new = Engine(), Engine()
    desk = Desk(BTCUSDT=new)
    desk.load("BTCUSDT", old)
    desk.load("ETHUSDT", old)
    await loading(desk, Store(), 1)
    assert (old.found, new.found, desk.performed) == ([], [], [])


async def test_connections_are_replaced_in_order(autojump_clock: trio.abc.Clock) -> None:
    desk: Any = Desk()
    rotated: list[tuple[str, str]] = []
    pool: Any = SimpleNamespace(rotate=lambda stream, why: rotated.append((stream, why)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_rotator, desk, pool)
        for names in (("a", "b"), ("c",)):
            await trio.testing.wait_all_tasks_blocked()
            for name in names:
                desk.queues.rotations.append(SimpleNamespace(stream=name, reason=f"{name}!"))
            desk.queues.more_rotations.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert rotated == [("a", "a!"), ("b", "b!"), ("c", "c!")]


async def test_gauges_are_measured_each_half_minute(autojump_clock: trio.abc.Clock) -> None:
    """Half of the candles that are due in ten minutes come."""
    bench = Bench()
    bench.driver.open("BTCUSDT", {M1: end_at(minute(-1))})
    bench.driver.use("BTCUSDT", [CANDLES, TRADES])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_gauges, bench.driver, bench.metrics)
        for n in range(5):
            await trio.sleep(60)
            bench.take(KlineUpdate("BTCUSDT", M1, minute(n)))
        await trio.sleep(5)
        assert bench.count("coverage", "hour") == bench.count("coverage", "day") == 1.0
        await trio.sleep(300 + 24)
        # At 10:00 the ninth was overdue, and the tenth not yet.
        assert bench.count("coverage", "hour") == pytest.approx(5 / 9)
        assert bench.count("held_series") == bench.driver.holding()
        states = [*bench.driver.engines["BTCUSDT"].upstream.liveness.states()]
        for state in ("new", "live", "stale"):
            assert bench.count("stream_states", state) == states.count(state)
        nursery.cancel_scope.cancel()
