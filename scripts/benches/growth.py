"""``scripts/bench growth``: what a message costs with 10 series and with 2,000, and a delivery with
100 clients and with 10,000.  Time is CPU; calls are of Python functions and know no machine.

The engines are those of :mod:`.core` (real bus and hub); the clients are real senders behind a
transport that takes everything and does nothing, so what is seen is our own bookkeeping.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from types import FrameType
from typing import Any

import trio

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import ChannelNews
from trio_feed.environment import mono
from trio_feed.instants import Wall
from trio_feed.metrics import Metrics
from trio_feed.model import Channel, ChannelKey, Interval, Source, Trade
from trio_feed.push.fanout.encoded import prefix_of
from trio_feed.push.fanout.hub import Hub
from trio_feed.push.fanout.send_queue import SendQueue
from trio_feed.push.fanout.sender import ClientSender
from trio_feed.push.fanout.topics import Subscription
from trio_feed.push.fanout.voice import NativeVoice
from trio_feed.push.protocol import Subscribe, Target

from .core import BUILT, Make, candles, cost_us, driver_with, trades, virtual
from .processes import MEASURED, pin
from .result import Result
from .result import Target as Bound

_SERIES = (10, 2_000)
_CLIENTS = (100, 10_000)
_MOST = 1.3


def run(quick: bool) -> Result:
    pin(MEASURED)
    rounds, messages = (2, 4_000) if quick else (5, 10_000)
    result = Result("growth", "us CPU")
    both = {"channels": (Channel.KLINE, Channel.TRADE), "trade_intervals": BUILT}
    # A symbol has one series of the exchange's candles, or three that are built.
    kinds: dict[str, tuple[Make, int, dict[str, Any]]] = {
        "kline": (candles, 1, {"channels": (Channel.KLINE,), "intervals": (Interval.M1,)}),
        "aggTrade, trades and three candles": (trades, 3, both),
    }
    for kind, (make, each, settings) in kinds.items():
        few, many = (_title(kind, number, "series") for number in _SERIES)
        measures = {
            title: partial(virtual, _message_us, make, max(3, number // each), settings, messages)
            for title, number in zip((few, many), _SERIES, strict=True)
        }
        result.rounds(rounds, measures)
        _bound(result, f"{kind}: 2,000 series / 10", many, few)
        counts = {
            f"calls: {title}": partial(
                virtual, _message_calls, make, max(3, number // each), settings
            )
            for title, number in zip((few, many), _SERIES, strict=True)
        }
        result.rounds(1, counts, "calls/message")
        _bound(result, f"{kind}: calls, 2,000 series / 10", f"calls: {many}", f"calls: {few}")
    few, many = (_title("delivery", number, "clients") for number in _CLIENTS)
    for title, number in zip((few, many), _CLIENTS, strict=True):
        for _ in range(rounds):
            cost_us, number_of_calls = trio.run(_delivery, number, max(20_000, number))
            result.add(title, cost_us)
        result.add(f"calls: {title}", number_of_calls, "calls/delivery")
    _bound(result, "delivery: 10,000 clients / 100", many, few)
    _bound(result, "delivery: calls, 10,000 clients / 100", f"calls: {many}", f"calls: {few}")
    return result


def _title(what: str, number: int, of: str) -> str:
    return f"{what}, {number:,} {of}"


def _bound(result: Result, title: str, above: str, below: str) -> None:
    result.ratios = {**result.ratios, title: (above, below)}
    result.targets = [*result.targets, Bound(title, _MOST, most=True)]


async def _message_us(make: Make, symbols: int, settings: dict[str, Any], number: int) -> float:
    """Each symbol has a message each 20 ms, so that many cost no more for other reasons."""
    return cost_us(driver_with(symbols, **settings), make, number, each_ms=20.0)


async def _message_calls(make: Make, symbols: int, settings: dict[str, Any]) -> float:
    driver = driver_with(symbols, **settings)
    first, now_ms = list(driver.engines)[:1], time.time() * 1000
    events = [(event,) for event in make(first, 40, now_ms, 0.1)]
    driver.wake_due()
    for event in events[:20]:
        driver.take(event, mono(), Wall(now_ms))
    numbers = [
        calls(lambda event=event: driver.take(event, mono(), Wall(now_ms)))  # type: ignore[misc]
        for event in events[20:]
    ]
    return float(sorted(numbers)[len(numbers) // 2])


async def _delivery(clients: int, deliveries: int) -> tuple[float, float]:
    """(CPU in us, calls) per delivery of one stream to all."""
    hub, publish = _hub_with(clients)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        publish()
        await _written(hub)
        rounds = max(1, deliveries // clients)
        gc.collect()
        began = time.process_time()
        for _ in range(rounds):
            publish()
            await _written(hub)
        took = time.process_time() - began
        # Of the coalescer's own, without the event loop's.
        number = calls(publish)
        while hub.coalescer.busy:
            number += calls(hub.coalescer.turn)
        nursery.cancel_scope.cancel()
    return took / rounds / clients * 1e6, number / clients


async def _written(hub: Hub) -> None:
    while hub.coalescer.busy:
        await trio.lowlevel.checkpoint()


class _Taker:
    """A transport that takes all at once."""

    peer, behind, unsent, bytes_out, last_received = "memory", False, 0, 0, 0.0
    ready_fd = os.open(os.devnull, os.O_WRONLY)

    def write_now(self, frames: Sequence[bytes]) -> int:
        return len(frames)

    def begun(self, frame: bytes, taken: int) -> None: ...

    async def send_frames(self, frames: Sequence[bytes]) -> None: ...

    def abort(self) -> None: ...


def _hub_with(clients: int) -> tuple[Hub, Callable[[], None]]:
    """A hub with so many subscribers of one stream, and what publishes on it."""

    def now_ms() -> float:
        return time.time() * 1000

    metrics = Metrics()
    bus = LocalBus(epoch=7, history_rows=10, resume_messages=10, now_ms=now_ms)
    hub = Hub(bus, default_venue="bench", now_ms=now_ms, metrics=metrics)
    key = ChannelKey("bench", "BTCUSDT", Channel.TRADE)
    bus.open(key)
    target = Target("BTCUSDT", Channel.TRADE, None, "", None)
    topic = hub.find(target)
    request = Subscribe(target, None, None, None)
    prefix = prefix_of(target, None, deflated=False)
    voice = NativeVoice(now_ms)
    for _ in range(clients):
        sender = ClientSender(
            hub, SendQueue(1000, 1 << 20), now_ms, metrics, _Taker(), voice, deflated=False
        )
        sender.subscribe(Subscription(sender, topic, request, prefix))
    number = 0

    def publish() -> None:
        nonlocal number
        number += 1
        price, now = Decimal("85000.1"), now_ms()
        data = Trade("BTCUSDT", number, number, number, price, Decimal("0.125"), int(now), True)
        bus.publish(ChannelNews(key, data, Source.SIMULATED, now))

    return hub, publish


def calls(do: Callable[[], object]) -> int:
    """Python functions that run; those of C are not counted."""
    number = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal number
        number += event == "call"

    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        do()
    finally:
        sys.setprofile(None)
        gc.enable()
    return number - 1  # that of ``do`` itself
