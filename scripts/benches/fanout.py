"""How fast the push endpoint is: the real service on loopback and many cheap clients; ``--help``.

The clients live in a process of their own (:mod:`bench_push_clients`) and only count what comes.
Deliveries are counted when the kernel has taken them; the last line is JSON with all figures.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import structlog
import trio
from attrs import define, field

from trio_feed import service
from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import ChannelNews
from trio_feed.environment import real_environment
from trio_feed.model import Channel, ChannelKey, Source, Trade
from trio_feed.push.app import PushApp
from trio_feed.push.session import Session
from trio_feed.settings import load

ROUNDS = 15
ALL = "ALLUSDT"
STREAMS = 500
EACH = 10
_SPARE_FILES = 200
_CLIENTS = Path(__file__).with_name("bench_push_clients.py")


@define
class Publisher:
    """Trades, which are never conflated, onto the service's bus."""

    app: PushApp
    bus: LocalBus
    offsets: dict[str, int] = field(factory=dict)

    def open(self, symbol: str) -> None:
        self.bus.open(ChannelKey("bench", symbol, Channel.TRADE))

    def publish(self, symbol: str) -> None:
        offset = self.offsets[symbol] = self.offsets.get(symbol, 0) + 1
        now = time.time() * 1000
        number = 10**6 + offset
        data = Trade(
            symbol, number, number, number, Decimal("85000.10"), Decimal("0.125"), int(now), True
        )
        line = ChannelKey("bench", symbol, Channel.TRADE)
        self.bus.publish(ChannelNews(line, data, Source.SIMULATED, now))


class Lag:
    """How late a task that wants to run every millisecond does, in milliseconds."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    async def run(self) -> None:
        while True:
            due = trio.current_time() + 0.001
            await trio.sleep_until(due)
            self.delays.append((trio.current_time() - due) * 1000)

    def take(self) -> dict[str, float]:
        delays, self.delays = sorted(self.delays), []
        if not delays:
            return {}
        return {
            "lag_p99_ms": round(delays[int(len(delays) * 0.99)], 1),
            "lag_max_ms": round(delays[-1], 1),
        }


def rss_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def written(app: PushApp) -> dict[Session, int]:
    """Bytes to each client so far."""
    return {session: session.statistics()["bytes_out"] for session in app.sessions}


async def quiet(app: PushApp, frozen: int) -> None:
    """Wait until nothing waits for anybody who reads."""
    while True:
        waiting = sum(session.statistics()["queued_messages"] > 0 for session in app.sessions)
        if waiting <= frozen:
            return
        await trio.sleep(0.01)


async def one_to_all(publisher: Publisher) -> float:
    """The seconds of one message to everybody."""
    began = time.perf_counter()
    publisher.publish(ALL)
    while publisher.app.context.hub.coalescer.busy:
        await trio.lowlevel.checkpoint()
    return time.perf_counter() - began


async def many_streams(publisher: Publisher, frozen: int, rounds: int) -> float:
    """Deliveries a second when all streams have news all the time."""
    clients = len(publisher.app.sessions)
    began = time.perf_counter()
    for _ in range(rounds):
        for n in range(STREAMS):
            publisher.publish(f"S{n}USDT")
            await trio.lowlevel.checkpoint()
    while publisher.app.context.hub.coalescer.busy:
        await trio.lowlevel.checkpoint()
    took = time.perf_counter() - began
    await quiet(publisher.app, frozen)
    return rounds * clients * EACH / took


def plain_loop(sends: Sequence[Callable[[bytes], int]], frame: bytes) -> float:
    """The seconds of nothing but the system call, to the same sockets."""
    began = time.perf_counter()
    for send in sends:
        with suppress(BlockingIOError):  # a frozen client
            send(frame)
    return time.perf_counter() - began


@asynccontextmanager
async def clients(address: str, number: int, frozen: int) -> AsyncIterator[float]:
    """Connected and subscribed; gives the seconds that took."""
    command = [sys.executable, str(_CLIENTS), address, str(number), str(frozen)]
    command += [ALL, str(STREAMS), str(EACH)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        began = time.perf_counter()
        said = await process.stdout.receive_some()
        if said != b"ready\n":
            raise SystemExit("the clients did not all get in")
        yield time.perf_counter() - began
    finally:
        process.kill()
        await process.wait()


async def measure(ready: service.Ready, number: int) -> dict[str, Any]:
    app, frozen = ready.app, max(1, number // 100)
    publisher = Publisher(app, ready.bus)
    for symbol in (ALL, *(f"S{n}USDT" for n in range(STREAMS))):
        publisher.open(symbol)
    gc.collect()
    before, lag = rss_kb(), Lag()
    result: dict[str, Any] = {"clients": number, "frozen": frozen}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        async with clients(ready.address, number, frozen) as took:
            result["connect_s"] = round(took, 1)
            result["connecting"] = lag.take()
            gc.collect()
            result["kb_per_client"] = round((rss_kb() - before) / number, 1)
            frame = await one_frame(publisher)
            sends = [plain_send(session) for session in app.sessions]
            lag.take()
            ours, plain = [], []
            for _ in range(ROUNDS):  # in turns, so that other load on the machine meets both
                ours.append(await one_to_all(publisher))
                await trio.sleep(0.1)
                plain.append(plain_loop(sends, frame))
                await trio.sleep(0.1)
            result["one_to_all_per_s"] = int(number / median(ours))
            result["plain_send_per_s"] = int(number / median(plain))
            await quiet(app, frozen)
            result["one_to_all"] = await lag_of(lag, partial(one_to_all, publisher))
            result["streams_per_s"] = int(await many_streams(publisher, frozen, 5))
            result["streams"] = lag.take()
            result["frame_bytes"] = len(frame)
            result["still_connected"] = len(app.sessions)
        nursery.cancel_scope.cancel()
    for name in ("one_to_all", "streams"):
        ratio = result[f"{name}_per_s"] / result["plain_send_per_s"]
        result[f"{name}_to_plain"] = round(ratio, 2)
    return result


async def one_frame(publisher: Publisher) -> bytes:
    """A binary frame as long as one of ours."""
    app, before = publisher.app, written(publisher.app)
    await one_to_all(publisher)
    await trio.sleep(0.5)
    size = int(median(after - before[s] for s, after in written(app).items())) - 4
    return b"\x82\x7e" + size.to_bytes(2, "big") + bytes(size)


async def lag_of(lag: Lag, job: Callable[[], Awaitable[object]]) -> dict[str, float]:
    lag.take()
    for _ in range(ROUNDS):
        await job()
        await trio.sleep(0.05)
    return lag.take()


def plain_send(session: Any) -> Callable[[bytes], int]:
    """The system call itself, past everything of ours."""
    descriptor = session._transport._fd

    def send(frame: bytes) -> int:
        return os.write(descriptor, frame)

    return send


async def main(number: int) -> None:
    settings = load(
        assignments=[
            "server.port=0", "store.path=:memory:", "simulator.enabled=true",
            "exchanges.binance_usdm.symbols=['BTCUSDT']", "exchanges.binance_usdm.history_bars=10",
            f"websocket.max_connections={number + 10}",
            "kline.connection_timeout=3600", "websocket.ping_interval=3600000",
        ]
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(service.run, settings, real_environment())
        result = await measure(ready, number)
        print(json.dumps(result))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    wanted = parser.parse_args().clients
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = min(wanted, hard - _SPARE_FILES)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    trio.run(main, possible)
