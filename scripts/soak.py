"""The service as a process on real sockets and the real clock, killed again and again.

This process holds the simulated exchange (so that it outlives the service), one client of the push
endpoint that comes back after every kill and keeps each closed candle it receives, and the judge:
the market is a function of seed and time, so the truth of any candle can be asked for.  Every
second kill strikes the moment the client received a closed candle, when it may not be on disk yet.

``exchange`` series are those that the exchange can supply again: they have to be whole since the
start, in the store and at the client.  ``built`` series are made of trades here; from their first
candle on they have to be whole too, because the trades of a pause are fetched (``built_missing``).
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio
import trio_websocket
from attrs import define, field

from scripts import soak_cluster
from scripts.soak_cluster import ClusterPlan
from scripts.soak_record import SERIES, VALUES, Key, Plan, Record, Stored, Values, read_store
from scripts.soak_seeds import simulate_many
from trio_feed.core import calendar
from trio_feed.core.calendar import next_open, open_of
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator import Market, binance_exchange, serve

ROOT = Path(__file__).resolve().parent.parent
MUST_BE_ZERO = (
    "lost", "told_but_lost", "built_missing", "duplicated", "out_of_order", "wrong_values",
    "damaged", "crashes",
)  # fmt: skip
HISTORY_BARS = 600
"""The first service tells them and may be killed before it has written any; the next one begins
with its own last ones, and may take that many seconds to get there."""
READY_S = 30.0
"""From the start of the process until /ready says yes."""
SETTLE_S = 20.0
"""What is not repaired this long after a start, or after the end, counts as lost."""
HANDSHAKE_S = 5.0
_ENDS = (
    trio.BrokenResourceError, trio.TooSlowError, trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
)  # fmt: skip
"""How a connection of the client ends."""
AIM_S = 62.0
"""A kill that waits for a closed candle waits this long."""


@define
class Soak:
    """One run.  ``address`` is where the service listens now, if it does."""

    plan: Plan
    market: Market
    folder: Path
    started_ms: float
    record: Record = field(factory=Record)
    address: str = ""
    changed: trio.Event = field(factory=trio.Event)
    kills: int = 0
    pauses: int = 0
    crashes: int = 0
    restart_s: list[float] = field(factory=list)
    told_but_lost: set[tuple[Key, int]] = field(factory=set)
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    @property
    def store(self) -> Path:
        return self.folder / "candles.db"

    def move(self, address: str) -> None:
        self.address = address
        self.changed.set()
        self.changed = trio.Event()

    def expected(self, key: Key, end_ms: float) -> Iterator[int]:
        """Open times of what has to be there of a series that the exchange has: whatever closed
        since the start and by ``end_ms``."""
        interval = key[1]
        at = open_of(interval, int(self.started_ms))
        while next_open(interval, at) <= end_ms:
            yield at
            at = next_open(interval, at)

    def truth(self, key: Key, open_ms: int) -> Values:
        kline = self.market.candle(*key, open_ms)
        return tuple(float(getattr(kline, name)) for name in VALUES)


def write_settings(soak: Soak, exchange: str) -> Path:
    """The service's settings as a file; ``exchange`` is host:port."""
    plan = soak.plan
    supplied, built = plan.intervals
    path = soak.folder / "soak.toml"
    path.write_text(
        f"""
[server]
port = 0
[store]
path = {json.dumps(str(soak.store))}
[logging]
format = "json"
[exchanges.{plan.venue}]
symbols = {json.dumps(plan.symbols)}
intervals = {json.dumps(supplied)}
trade_intervals = {json.dumps(built)}
history_bars = {HISTORY_BARS}
[exchanges.{plan.venue}.connection]
websocket_url = "ws://{exchange}"
rest_url = "http://{exchange}"
backoff_min_s = 0.1
"""
    )
    return path


@asynccontextmanager
async def open_soak(plan: Plan, folder: Path) -> AsyncIterator[tuple[Soak, Path]]:
    """The exchange and the client, and the settings for a service; all gone on the way out."""
    market = Market(plan.seed, plan.symbols, plan.trades_per_minute)
    soak = Soak(plan, market, folder, time.time() * 1000)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    settings = write_settings(soak, "{}:{}".format(*listener.socket.getsockname()))
    exchange = binance_exchange(
        market, lambda: time.time() * 1000, SimulatorSettings(venue=plan.venue)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, exchange, listeners=[listener]))
        nursery.start_soon(listen, soak)
        yield soak, settings
        nursery.cancel_scope.cancel()


async def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """The whole soak; ``folder`` gets the store, the settings and the service's log.  Empty where
    a signal ended it."""
    result: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_on_signal, nursery.cancel_scope)
        async with open_soak(plan, folder) as (soak, settings):
            end = trio.current_time() + plan.minutes * 60
            chance = random.Random(f"kills {plan.seed}")
            while end - trio.current_time() > plan.kill_every_s:
                await live_and_die(soak, settings, chance)
            result = await last_life(soak, settings, end)
        nursery.cancel_scope.cancel()
    return result


async def end_on_signal(everything: trio.CancelScope) -> None:
    """So that the service is killed, too."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            everything.cancel()


async def live_and_die(soak: Soak, settings: Path, chance: random.Random) -> None:
    """One process: up, what was published before is there, killed in its time."""
    plan, died = soak.plan, trio.Event()
    kill_at = trio.current_time() + plan.kill_every_s * chance.uniform(0.8, 1.2)
    told_before = [(key, at) for key, rows in soak.record.told.items() for at in rows]
    async with trio.open_nursery() as nursery:
        process = await start_service(soak, settings, nursery, died)
        if process is None:
            return
        await check_told(soak, told_before)
        with trio.move_on_at(kill_at):
            await pause(soak, process, kill_at, chance)
            await died.wait()
        process.send_signal(signal.SIGCONT)
        if soak.kills % 2 and not died.is_set():
            keys = [key for key in plan.keys if soak.kills % 4 == 1 or plan.supplied(key)]
            with trio.move_on_after(AIM_S):
                await soak.record.next_final(keys)
        if died.is_set():
            soak.crashes += 1
            soak.log(f"the service ended by itself with {process.returncode}")
        else:
            soak.kills += 1
            process.kill()
        soak.move("")


async def pause(soak: Soak, process: trio.Process, kill_at: float, chance: random.Random) -> None:
    """Stop the process for a while (SIGSTOP, SIGCONT), as a suspended machine does: what comes
    meanwhile waits in the sockets, and no candle may be made up."""
    left_s = kill_at - trio.current_time()
    if soak.plan.pause_s and left_s > 0:
        await trio.sleep(left_s * chance.uniform(0.1, 0.4))
        process.send_signal(signal.SIGSTOP)
        soak.pauses += 1
        await trio.sleep(chance.uniform(0.2, 1.0) * soak.plan.pause_s)
        process.send_signal(signal.SIGCONT)


async def last_life(soak: Soak, settings: Path, end: float) -> dict[str, Any]:
    """The last process is not killed before everything was judged."""
    died = trio.Event()
    told_before = [(key, at) for key, rows in soak.record.told.items() for at in rows]
    async with trio.open_nursery() as nursery:
        process = await start_service(soak, settings, nursery, died)
        if process is not None:
            await check_told(soak, told_before)
            with trio.move_on_at(end):
                await died.wait()
            soak.crashes += died.is_set()
        result = await judge(soak)
        if process is not None and not died.is_set():
            process.kill()
    return result


async def start_service(
    soak: Soak, settings: Path, nursery: trio.Nursery, died: trio.Event
) -> trio.Process | None:
    """A service that is ready, or None: it did not get there, which is a crash.  It is killed at
    the latest when the nursery is cancelled."""
    began, ready = trio.current_time(), trio.Event()
    command = [sys.executable, "-m", "trio_feed", "--config", str(settings)]
    process: trio.Process = await nursery.start(
        partial(
            trio.run_process,
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=False,
        )
    )
    nursery.start_soon(follow_log, soak, process, ready, died)
    with trio.move_on_after(READY_S):
        await ready.wait()
        while soak.address and not await is_ready(soak.address):
            await trio.sleep(0.05)
        if soak.address:
            soak.restart_s.append(trio.current_time() - began)
            return process
    soak.crashes += 1
    soak.log(f"no service after {trio.current_time() - began:.1f} s")
    process.kill()
    return None


async def follow_log(
    soak: Soak, process: trio.Process, ready: trio.Event, died: trio.Event
) -> None:
    """Keeps the log, finds the address in it, sees the process end."""
    rest = b""
    assert process.stdout is not None
    async with await trio.open_file(soak.folder / "service.log", "ab") as file:
        async for chunk in process.stdout:
            await file.write(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["event"] == "service.ready":
                    soak.move(event["urls"]["http"].removeprefix("http://"))
                    ready.set()
    soak.move("")
    died.set()
    ready.set()


async def is_ready(address: str) -> bool:
    """What /ready says."""
    host, _, port = address.rpartition(":")
    try:
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            ask = f"GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            await stream.send_all(ask.encode())
            head = b"".join([chunk async for chunk in stream])
    except (OSError, trio.BrokenResourceError):
        return False
    return head.startswith(b"HTTP/1.1 200")


async def listen(soak: Soak) -> None:
    """The client: comes back for ever, and says each time what it wants."""
    while True:
        while not soak.address:
            await soak.changed.wait()
        host, _, port = soak.address.rpartition(":")
        with suppress(OSError):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await hear(soak, stream)
        await trio.sleep(0.05)


async def hear(soak: Soak, stream: trio.abc.Stream) -> None:
    """One connection, until it ends."""
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(HANDSHAKE_S):  # it never ends where the peer dies meanwhile
                connection = await trio_websocket.wrap_client_stream(
                    nursery, stream, soak.address, "/ws", message_queue_size=10_000,
                    max_message_size=2**24,
                )  # fmt: skip
            soak.record.connected()
            for symbol, interval in soak.plan.keys:
                ask = {"type": "subscribe", "symbol": symbol, "interval": interval}
                await connection.send_message(json.dumps(ask | {"limit": 1000}))
            while True:
                soak.record.note(json.loads(await connection.get_message()))
    except* _ENDS:
        pass


async def check_told(soak: Soak, told_before: Sequence[tuple[Key, int]]) -> None:
    """What the client received before the kill is in the store, or comes back to it soon."""

    async def complete() -> bool:
        stored, _ = await trio.to_thread.run_sync(read_store, soak.store)
        missing.clear()
        missing.update(item for item in told_before if item[1] not in stored.get(item[0], {}))
        return not missing

    missing: set[tuple[Key, int]] = set()
    await until(complete, SETTLE_S)
    for key, open_ms in sorted(missing - soak.told_but_lost):
        soak.log(f"told, and not in the store: {key[0]} {key[1]} {open_ms}")
    soak.told_but_lost |= missing


async def judge(soak: Soak) -> dict[str, Any]:
    """The invariants, once the last candles are there (or do not come)."""
    plan, record, end_ms = soak.plan, soak.record, time.time() * 1000
    supplied = [key for key in plan.keys if plan.supplied(key)]
    expected = [(key, at) for key in supplied for at in soak.expected(key, end_ms)]
    stored: Stored = {}
    damaged = 0

    async def complete() -> bool:
        nonlocal stored, damaged
        stored, damaged = await trio.to_thread.run_sync(read_store, soak.store)
        here = any(missing(item, where) for item in expected for where in (stored, record.told))
        return not here and not any(missing(item, stored) for item in told)

    def missing(item: tuple[Key, int], where: Stored) -> bool:
        return item[1] not in where.get(item[0], {})

    told = [(key, at) for key, rows in record.told.items() for at in rows]
    await until(complete, SETTLE_S)
    lost = [item for item in expected if missing(item, stored) or missing(item, record.told)]
    soak.told_but_lost.update(item for item in told if missing(item, stored))
    for key, at in lost:
        soak.log(f"lost: {key[0]} {key[1]} {at}")
    return {
        "closed_expected": len(expected),
        "closed_in_store": sum(not missing(item, stored) for item in expected),
        "closed_delivered": sum(not missing(item, record.told) for item in expected),
        "built_in_store": sum(len(r) for k, r in stored.items() if not plan.supplied(k)),
        "built_incomplete": sum(not v for rows in stored.values() for v in rows.values()),
        "told": len(told),
        "lost": len(lost),
        "told_but_lost": len(soak.told_but_lost),
        "built_missing": sum(gaps(k, r) for k, r in stored.items() if not plan.supplied(k)),
        "duplicated": sum(count - 1 for count in record.finals.values()),
        "out_of_order": record.out_of_order,
        "wrong_values": wrong(soak, stored) + wrong(soak, record.told) + record.contradicted,
        "damaged": damaged,
        "crashes": soak.crashes,
        "kills": soak.kills,
        "pauses": soak.pauses,
        "connections": record.connections,
        "slowest_start_s": round(max(soak.restart_s, default=0.0), 2),
        "minutes": round((end_ms - soak.started_ms) / 60_000, 2),
        "seed": plan.seed,
        "venue": plan.venue,
    }


def gaps(key: Key, rows: Iterable[int]) -> int:
    """Candles that lie between the first and the last one and are not there."""
    opens = sorted(rows)
    return calendar.count(key[1], opens[0], opens[-1]) + 1 - len(opens) if opens else 0


def wrong(soak: Soak, found: Stored) -> int:
    """Candles that say they are complete and are not what the market says."""
    count = 0
    for key, rows in found.items():
        for open_ms, values in rows.items():
            if values and values != soak.truth(key, open_ms):
                count += 1
                soak.log(f"wrong: {key[0]} {key[1]} {open_ms} {values}")
    return count


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Ask until it holds, or the time is over."""
    end = trio.current_time() + within_s
    while not await condition() and trio.current_time() < end:
        await trio.sleep(0.25)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:cut])
    if options.simulate:
        result = trio.run(simulate_many, options.simulate, options.seed, words[cut + 1 :])
        print(json.dumps(result))
        return int(bool(result["failed_seeds"]))
    minutes = 60 * options.hours if options.hours is not None else options.minutes
    if options.cluster:
        cluster = ClusterPlan(
            minutes,
            options.clients,
            options.kill_every / 2,
            options.seed,
            options.engine,
            standby=options.standby,
            push_workers=options.push_workers,
            faults=tuple(options.fault),
        )
        return soak_cluster.main(cluster, end_on_signal)
    plan = Plan(
        minutes,
        options.kill_every,
        options.seed,
        options.venue,
        built=not options.no_built,
        pause_s=options.pause,
    )
    folder = Path(tempfile.mkdtemp(prefix="trio_feed_soak_"))
    result = trio.run(run, plan, folder)
    if not result:
        return 130
    print(json.dumps(result))
    failed = any(result[name] for name in MUST_BE_ZERO)
    if failed:
        print(f"store and log are kept in {folder}", file=sys.stderr)
    else:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--hours", type=float, help="instead of --minutes")
    parser.add_argument("--kill-every", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument(
        "--pause", type=float, default=0.0, metavar="SECONDS",
        help="also stop each process once for up to so long (SIGSTOP, SIGCONT)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--venue", choices=SERIES, default="binance_usdm")
    parser.add_argument(
        "--no-built", action="store_true", help="without the candles that are built from trades"
    )
    parser.add_argument(
        "--cluster", action="store_true",
        help="two ingest and two push nodes, an engine with sentinels, and PostgreSQL",
    )  # fmt: skip
    parser.add_argument("--clients", type=int, default=200, help="of --cluster")
    parser.add_argument("--engine", choices=("redis", "valkey"), help="of --cluster")
    parser.add_argument("--standby", choices=("cold", "hot"), default="cold", help="of --cluster")
    parser.add_argument(
        "--push-workers", type=int, default=1, metavar="N",
        help="of --cluster: server.workers of the nodes that serve; with more than 1 single workers"
        " are killed and stopped, too",
    )  # fmt: skip
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME",
        help="of --cluster: only this one, once; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--simulate",
        type=int,
        metavar="N",
        help="N seeds of scripts/simulate on all cores instead; what follows -- goes to it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
