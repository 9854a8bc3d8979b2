"""``scripts/bench core``: CPU of engine, bus and hub per event, in one process, no socket.

The events are made before; what is measured is ``Driver.take``: the symbol's engine, and the
performing of what it wants done (publish on a real bus with a real hub without subscribers, store
in memory).  Twenty symbols; the clock is turned by hand, an event comes each 0.1 ms.
"""

import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
import trio
from trio.testing import MockClock

from trio_feed.bus.local import LocalBus
from trio_feed.core.opening import End
from trio_feed.core.questions import Rules
from trio_feed.core.streams import Data, Kind, KlineUpdate, Stream
from trio_feed.environment import Environment, mono
from trio_feed.ingest.connection import BATCH
from trio_feed.ingest.context import FeedContext
from trio_feed.ingest.driver import Driver
from trio_feed.instants import Wall
from trio_feed.metrics import Metrics
from trio_feed.model import BookTop, Channel, Interval, Kline, Source, Trade
from trio_feed.push.fanout.hub import Hub
from trio_feed.settings import ExchangeSettings
from trio_feed.store import MemoryStore
from trio_feed.venues.binance import usdm

from .processes import MEASURED, pin
from .result import Result

BUILT = (Interval.S1, Interval.S30, Interval.M1)
T0 = 1_795_955_000_000
_SYMBOLS = 20
Make = Callable[[Sequence[str], int, float, float], Iterator[Data]]
_LENGTHS_MS = {Interval.S1: 1_000, Interval.S30: 30_000, Interval.M1: 60_000}
_TRADES: dict[str, dict[str, Any]] = {
    "aggTrade -> trade channel": {"channels": (Channel.TRADE,)},
    "aggTrade -> 1s, 30s and 1m candles": {
        "channels": (Channel.KLINE,), "trade_intervals": BUILT,
    },
    "aggTrade -> both": {
        "channels": (Channel.KLINE, Channel.TRADE), "trade_intervals": BUILT,
    },
    "aggTrade -> both, every update": {
        "channels": (Channel.KLINE, Channel.TRADE), "trade_intervals": BUILT,
        "publish_interval_ms": 0,
    },
}  # fmt: skip
_OTHERS: dict[str, dict[str, Any]] = {
    "continuousKline -> 1m": {"channels": (Channel.KLINE,), "intervals": (Interval.M1,)},
    "bookTicker -> ticker": {"channels": (Channel.TICKER,)},
}


def run(quick: bool) -> Result:
    pin(MEASURED)
    number, rounds = (5_000, 3) if quick else (20_000, 5)
    result = Result("core", "us CPU/event")
    kinds: dict[str, Callable[[], float]] = {
        row: partial(virtual, _measure, trades, settings, number)
        for row, settings in _TRADES.items()
    }
    klines, tops = _OTHERS
    both = _TRADES["aggTrade -> both"]
    kinds[f"aggTrade -> both, {BATCH} in a read"] = partial(
        virtual, _measure, trades, both, number, BATCH
    )
    kinds[klines] = partial(virtual, _measure, candles, _OTHERS[klines], number)
    kinds[tops] = partial(virtual, _measure, best_prices, _OTHERS[tops], number)
    result.rounds(rounds, kinds)
    return result


async def _measure(make: Make, settings: dict[str, Any], number: int, at_once: int = 1) -> float:
    driver = driver_with(_SYMBOLS, **settings)
    return cost_us(driver, make, number, at_once=at_once)


def cost_us(
    driver: Driver, make: Make, number: int, each_ms: float = 2.0, at_once: int = 1
) -> float:
    """CPU per event of all symbols in turn, ``at_once`` of them in one read; each symbol has one
    every ``each_ms`` milliseconds.
    The clock is turned by hand, and the driver woken when it wants to be; a tenth of the events
    come before, so that what is made once has been made."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    names = list(driver.engines)
    step_s, before = each_ms / 1000 / len(names), max(len(names) * 2, number // 10)
    events = list(make(names, before + number, _wall_ms(), step_s * 1000))
    gc.collect()
    gc.freeze()  # as a service does that has started
    due, began, counted = driver.wake_due(), 0.0, 0
    for place in range(0, len(events), at_once):
        if not counted and place >= before:
            began, counted = time.process_time(), len(events) - place
        clock.jump(step_s * at_once)
        if float(due) <= trio.current_time() or driver.queues.earlier.is_set():
            due = driver.wake_due()
        driver.take(events[place : place + at_once], mono(), Wall(_wall_ms()))
    took = time.process_time() - began
    gc.unfreeze()
    return took / counted * 1e6


def _wall_ms() -> float:
    return T0 + trio.current_time() * 1000


def virtual(measure: Callable[..., Awaitable[Any]], *given: Any) -> Any:
    """Run it on a clock that is turned by hand."""
    return trio.run(measure, *given, clock=MockClock())


def driver_with(symbols: int, **more: Any) -> Driver:
    """A venue's driver with so many symbols whose streams are up; inside of :func:`virtual`."""
    chosen: dict[str, Any] = {"intervals": (), "trade_intervals": (), "audit_after_s": 0.0}
    settings = ExchangeSettings(symbols=tuple(_names(symbols)), **(chosen | more))
    rules = Rules(
        "binance_usdm",
        frozenset(set(Interval) - {Interval.S1, Interval.S30}),
        Kind.AGG_TRADE,
        book_rule=usdm.BOOK_RULE,
        book_snapshot_levels=1000,
        page=1_500,
        began_ms=1_567_900_000_000,
    )

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    bus = LocalBus(epoch=7, history_rows=1000, resume_messages=1000, now_ms=_wall_ms)
    metrics, store = Metrics(), MemoryStore(7)
    Hub(bus, default_venue="binance_usdm", now_ms=_wall_ms, metrics=metrics)
    here = Environment(_nowhere, _nowhere, _wall_ms, random.Random(1))
    driver = Driver(rules, settings, FeedContext(here, None, store, bus, metrics))
    for name in settings.symbols:
        ends = {each: _end(each) for each in (*settings.intervals, *settings.trade_intervals)}
        engine = driver.open(name, ends)
        for stream_key in engine.stream_keys:
            bus.open(stream_key)
        streams = _streams(name, settings)
        driver.use(name, streams)
        driver.up(streams)
    return driver


async def _nowhere(*_: Any) -> Any:
    raise AssertionError("nothing is dialled here")


def _names(number: int) -> list[str]:
    return [f"S{n}USDT" for n in range(number)]


def _streams(name: str, settings: ExchangeSettings) -> list[Stream]:
    lower = name.lower()
    found = [
        Stream("market", f"{lower}_perpetual@continuousKline_{each}", name, Kind.KLINE, each)
        for each in settings.intervals
    ]
    if settings.trade_intervals or Channel.TRADE in settings.channels:
        found.append(Stream("market", f"{lower}@aggTrade", name, Kind.AGG_TRADE))
    if Channel.TICKER in settings.channels:
        found.append(Stream("public", f"{lower}@bookTicker", name, Kind.TOP))
    return found


def _end(interval: Interval) -> End:
    """The stored series ends with the candle before the present one."""
    now_ms = int(_wall_ms())
    length = _LENGTHS_MS[interval]
    before = now_ms // length * length - length
    return End(candle(before, 0, closed=True), before)


def candle(open_ms: int, n: int, *, closed: bool) -> Kline:
    return Kline(
        open_ms=open_ms, open=Decimal("66440.7"), high=Decimal("66450.1"), low=Decimal("66430.0"),
        close=Decimal(f"{66440.7 + n % 50 * 0.1:.1f}"), volume=Decimal(n) / 8,
        quote_volume=Decimal(n) * 100, trades=n, closed=closed, source=Source.EXCHANGE,
        event_ms=open_ms + n,
    )  # fmt: skip


def trades(names: Sequence[str], number: int, at_ms: float, step_ms: float) -> Iterator[Data]:
    for n in range(number):
        nth, price = n // len(names) + 1, Decimal(f"{66440.7 + n // 991 % 50 * 0.1:.1f}")
        quantity = Decimal(f"0.{n % 97 + 1:03d}")
        at = int(at_ms + n * step_ms)
        yield Trade(
            names[n % len(names)], nth, nth * 2, nth * 2 + 1, price, quantity, at, bool(n % 2)
        )


def candles(names: Sequence[str], number: int, at_ms: float, step_ms: float) -> Iterator[Data]:
    for n in range(number):
        at = int(at_ms + n * step_ms)
        kline = candle(at // 60_000 * 60_000, n, closed=False)
        yield KlineUpdate(names[n % len(names)], Interval.M1, kline)


def best_prices(names: Sequence[str], number: int, at_ms: float, step_ms: float) -> Iterator[Data]:
    for n in range(number):
        bid, ask = Decimal(f"{66440.7 + n % 50 * 0.1:.1f}"), Decimal("66450.1")
        yield BookTop(
            names[n % len(names)], bid, Decimal("3.125"), ask, Decimal("1.25"), n + 1,
            int(at_ms + n * step_ms),
        )  # fmt: skip
