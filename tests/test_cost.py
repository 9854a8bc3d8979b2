"""What one message costs, in function calls: bounded, and the same however many symbols there are;
what one delivery of it costs, the same however many clients there are.

Calls are counted and not seconds, so the answer is the same on every machine.
"""

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest
import trio
from attrs import evolve
from support.bench import Bench
from support.engine import CANDLES, TRADES, end_at, minute
from support.make import T0, trade
from support.node import TRADES as TRADES_KEY
from support.node import Node
from support.stack import open_stack, settings_for_tests

from trio_feed.core.streams import Data, KlineUpdate
from trio_feed.model import Channel, Interval
from trio_feed.push.fanout.encoded import prefix_of
from trio_feed.push.fanout.send_queue import SendQueue
from trio_feed.push.fanout.sender import ClientSender
from trio_feed.push.fanout.topics import Subscription
from trio_feed.push.fanout.voice import NativeVoice
from trio_feed.push.protocol import Subscribe, Target

M1 = Interval.M1
MOST_QUEUED = 3
"""Calls per message and client, where messages wait for the coalescer's turn."""


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
    "kline": (running, {}, 50),
    "trade": (
        lambda n: trade(n, T0 + n),
        {"channels": (Channel.TRADE,), "trade_intervals": ()},
        44,
    ),
    "trade_of_candles": (
        lambda n: trade(n, T0 + n),
        {"trade_intervals": (Interval.S1, Interval.S30)},
        46,
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


def of_the_symbol(bench: Bench, make: Callable[[str, int], Data]) -> list[object]:
    """Whose methods a message runs, without what the messages of another symbol meet as well."""
    met: dict[str, dict[int, object]] = {}
    for symbol in ("BTCUSDT", "S1USDT"):
        for n in range(1, 20):
            bench.take(make(symbol, n))
        own = met[symbol] = {}

        def note(frame: FrameType, event: str, _argument: Any, own: Any = own) -> None:
            if event == "call" and "self" in frame.f_locals:
                own[id(frame.f_locals["self"])] = frame.f_locals["self"]

        message = make(symbol, 20)
        sys.setprofile(note)
        try:
            bench.take(message)
        finally:
            sys.setprofile(None)
    one, other = met.values()
    return [each for key, each in one.items() if key not in other]


OF_A_SYMBOL = {"kline": 13, "trade_of_candles": 12}


@pytest.mark.parametrize("name", OF_A_SYMBOL)
async def test_few_objects_of_a_symbol_are_met_and_none_has_a_dict(
    name: str, autojump_clock: trio.abc.Clock
) -> None:
    """With thousands of symbols each of them is a miss of the cache, and its ``__dict__`` one
    more."""
    make, settings, _most = MESSAGES[name]
    bench = driver_with(5, **settings)
    met = of_the_symbol(bench, lambda symbol, n: evolve(make(n), symbol=symbol))
    assert bench.driver.engines["BTCUSDT"] in met
    assert not [type(each).__name__ for each in met if hasattr(each, "__dict__")]
    assert len(met) <= OF_A_SYMBOL[name]


async def test_trades_of_one_read_cost_together_little_more_than_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    bench = driver_with(5, **MESSAGES["trade_of_candles"][1])
    bench.take(*(trade(n, T0 + n) for n in range(1, 20)))
    engine, now = bench.driver.engines["BTCUSDT"], bench.driver.now()
    several = [trade(n, T0 + n) for n in range(20, 84)]
    assert calls(lambda: engine.take(several, now)) <= 22


class Taker:
    """A transport that takes everything at once and keeps nothing."""

    peer, behind, unsent, bytes_out, last_received = "memory", False, 0, 0, 0.0
    ready_fd = os.open(os.devnull, os.O_WRONLY)

    def write_now(self, frames: Sequence[bytes]) -> int:
        return len(frames)

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        raise AssertionError("nothing waits here")

    def abort(self) -> None:
        raise AssertionError("nobody is slow here")


def node_with(clients: int) -> Node:
    """So many subscribers of one stream of trades."""
    node = Node()
    node.bus.open(TRADES_KEY)
    target = Target(TRADES_KEY.symbol, Channel.TRADE, None, "", None)
    topic, request = node.hub.find(target), Subscribe(target, None, None, None)
    for _ in range(clients):
        queue = SendQueue(1000, 1 << 20)
        voice, now_ms = NativeVoice(lambda: float(T0)), lambda: float(T0)
        sender = ClientSender(node.hub, queue, now_ms, node.metrics, Taker(), voice, deflated=False)
        prefix = prefix_of(target, None, deflated=False)
        sender.subscribe(Subscription(sender, topic, request, prefix))
    return node


def per_delivery(clients: int, messages: int) -> float:
    """Calls from publishing to the last write, with the coalescer's turns, without the loop's."""
    node = node_with(clients)

    def publish() -> None:
        for _ in range(messages):
            node.trade()
        while node.hub.coalescer.busy:
            node.hub.coalescer.turn()

    return calls(publish) / clients / messages


async def test_a_delivery_costs_the_same_for_two_hundred_clients_and_for_four_thousand(
    autojump_clock: trio.abc.Clock,
) -> None:
    few, many = per_delivery(200, 1), per_delivery(4_000, 1)
    assert few <= 0.4  # of the message and the coalescer; a delivery by itself has none
    assert many <= few * 1.3


async def test_a_delivery_that_is_written_together_with_others_is_bounded_as_well(
    autojump_clock: trio.abc.Clock,
) -> None:
    assert per_delivery(200, 20) <= MOST_QUEUED
    assert per_delivery(4_000, 20) <= MOST_QUEUED  # where each message is handed out in portions


async def test_who_publishes_a_burst_to_many_does_not_hand_it_out_in_its_own_turn(
    autojump_clock: trio.abc.Clock,
) -> None:
    """As many as come with one read, or all others would stand still for as long as that takes."""

    def published(clients: int) -> int:
        node = node_with(clients)
        node.trade()
        return calls(lambda: [node.trade() for _ in range(200)])

    assert published(300) == published(3_000)


async def test_to_show_running_candles_nothing_else_is_gone_through(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Ten times a second, of each symbol: what is to be asked does not change by that."""
    bench = driver_with(1, **MESSAGES["trade_of_candles"][1])
    bench.take(trade(1, T0 + 1))
    bench.driver.wake_due()
    bench.take(trade(2, T0 + 2))
    bench.take(trade(3, T0 + 3))
    due = bench.driver.wake_due()
    await trio.sleep_until(float(due))
    assert calls(bench.driver.wake_due) <= 50


class Steps(trio.abc.Instrument):
    """Of all tasks by name, without its number; and the Python calls of our own code."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self.calls = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name.rstrip("0123456789 ")] += 1

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        path = frame.f_code.co_filename
        own = "/trio_feed/" in path and "/simulator/" not in path and "/testing/" not in path
        self.calls += own and event == "call"


async def test_a_message_that_comes_alone_wakes_its_reader_and_nobody_else(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A turn of the event loop costs more than all that is done with a message."""
    settings = settings_for_tests(".trade_intervals=['1s', '30s']", ".channels=['kline', 'trade']")
    with trio.fail_after(600):
        async with open_stack(settings, trades_per_minute=1_200) as stack:
            await trio.sleep(120)
            (feed,) = stack.ready.feeds
            (state,) = feed.connections
            steps, before = Steps(), state.message_count
            trio.lowlevel.add_instrument(steps)
            sys.setprofile(steps.note)
            try:
                await trio.sleep(60)
            finally:
                sys.setprofile(None)
                trio.lowlevel.remove_instrument(steps)
            messages = state.message_count - before
    assert messages > 1_000
    # A read brings two messages here; of its three steps two are the memory stream's.
    assert steps.of["connection"] <= 1.6 * messages
    assert steps.of["binance_usdm processor"] <= 0.05 * messages
    assert steps.calls <= 105 * messages  # with the running candles, ten times a second
