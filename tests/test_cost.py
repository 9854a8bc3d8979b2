"""What one message costs, in function calls: bounded, and the same however many symbols there are.

Calls are counted and not seconds, so the answer is the same on every machine.
"""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import trio
from attrs import evolve
from support.bench import Bench
from support.engine import CANDLES, TRADES, end_at, minute
from support.make import T0, trade

from trio_feed.core.streams import Data, KlineUpdate
from trio_feed.model import Channel, Interval

M1 = Interval.M1


def calls(do: Callable[[], object]) -> int:
    """Python functions that run; those of C are not counted."""
    number = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal number
        number += event == "call"

    gc.collect()
    gc.disable()  # what other tests have left behind is not this message's
    sys.setprofile(count)
    try:
        do()
    finally:
        sys.setprofile(None)
        gc.enable()
    return number


def driver_with(symbols: int, **more: Any) -> Bench:
    names = ("BTCUSDT", *(f"S{n}USDT" for n in range(symbols - 1)))
    bench = Bench(symbols=names, **more)
    for name in names:
        bench.driver.open(name, {M1: end_at(minute(-1))})
        streams = [evolve(s, symbol=name, name=f"{name}{s.name}") for s in (CANDLES, TRADES)]
        bench.driver.use(name, streams)
        bench.driver.up(streams)
    return bench


def cost(bench: Bench, make: Callable[[int], Data]) -> int:
    """Of the twentieth message: what is made once has been made by then."""
    for n in range(1, 20):
        bench.take(make(n))
    message = make(20)
    return calls(lambda: bench.take(message))


def running(n: int) -> KlineUpdate:
    return KlineUpdate("BTCUSDT", M1, evolve(minute(0, closed=False), event_ms=T0 + n))


MESSAGES = {
    "kline": (running, {}, 55),
    "trade": (
        lambda n: trade(n, T0 + n),
        {"channels": (Channel.TRADE,), "trade_intervals": ()},
        45,
    ),
    "trade_of_candles": (
        lambda n: trade(n, T0 + n),
        {"trade_intervals": (Interval.S1, Interval.S30)},
        51,
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_costs_the_same_with_five_symbols_and_with_five_hundred(
    name: str, autojump_clock: trio.abc.Clock
) -> None:
    make, settings, most = MESSAGES[name]
    few, many = (cost(driver_with(number, **settings), make) for number in (5, 500))
    assert few == many
    assert few <= most
