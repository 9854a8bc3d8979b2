"""What strangers can order of a running service, and what it costs its good clients: figures.

The simulated exchange is a process of its own, the service another, this one the strangers and one
good client.  Each scenario prints a line of JSON; figures of one machine and one run are compared
with ``quiet`` of the same run, never with another machine.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import trio
import trio_websocket

from trio_feed.push.private.auth import PUBLISHER_KEY, USER_KEY, new_key

ROOT = Path(__file__).parent.parent
ROWS = 5000
KLINES = f"/api/v1/klines?symbol=BTCUSDT&interval=1m&limit={ROWS}"
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_TICKS_S = os.sysconf("SC_CLK_TCK")


class Service:
    """A running service: its process, its port and its log."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def cpu_s(self) -> float:
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS_S

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(log: Path, *sets: str) -> "Iterator[subprocess.Popen[bytes]]":
    words = [word for assignment in sets for word in ("--set", assignment)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trio_feed", "--config", "config/default.toml", *words],
            cwd=ROOT,
            stdout=out,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()


@contextmanager
def started(folder: Path, *more: str) -> Iterator[Service]:
    """A service with a day's trades a minute and 5,000 candles of history in its store."""
    box, port, venue = _free_port(), _free_port(), "exchanges.binance_usdm"
    logs = "logging.format=json"
    market = ("simulator.trades_per_minute=1200", "simulator.symbols=['BTCUSDT']")
    with (
        _process(
            folder / "box.log", f"simulator.port={box}", *market, "server.port=0",
            "store.path=:memory:", f"{venue}.symbols=['BTCUSDT']", f"{venue}.history_bars=0", logs,
        ),
        _process(
            folder / "log", f"server.port={port}", "simulator.enabled=false", logs,
            f"store.path={folder / 'candles.db'}", f"{venue}.history_bars={ROWS}",
            f"{venue}.symbols=['BTCUSDT']", f"{venue}.intervals=['1m']",
            f"{venue}.trade_intervals=['1s']",
            f"{venue}.connection.websocket_url=ws://127.0.0.1:{box}",
            f"{venue}.connection.rest_url=http://127.0.0.1:{box}", *more,
        ) as process,
    ):  # fmt: skip
        service = Service(process, port, folder / "log")
        deadline = time.monotonic() + 120
        while _rows(port) < ROWS:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(service.log.read_text()[-2000:])
            time.sleep(1)
        yield service


def _rows(port: int) -> int:
    with suppress(OSError, ValueError):
        with urlopen(f"http://127.0.0.1:{port}{KLINES}", timeout=20) as answer:
            return int(json.load(answer)["total_count"])
    return 0


async def subscribed_after_s(service: Service) -> float:
    """A new client: from the dial to the confirmation of its subscription."""
    began = time.perf_counter()
    async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{service.port}/ws") as client:
        words = {"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "limit": 100}
        await client.send_message(json.dumps(words))
        while json.loads(await client.get_message())["type"] != "subscription_confirmed":
            pass
    return time.perf_counter() - began


@asynccontextmanager
async def trades(service: Service) -> AsyncIterator[list[float]]:
    """How old trades are, in ms, when a subscriber has them."""
    ages: list[float] = []
    url = f"ws://127.0.0.1:{service.port}/ws"
    async with trio.open_nursery() as nursery, trio_websocket.open_websocket_url(url) as client:

        async def listen() -> None:
            while True:
                message = json.loads(await client.get_message())
                if message["type"] == "trade_data":
                    ages.append(time.time() * 1000 - message["data"]["event_time"])

        words = {"type": "subscribe", "symbol": "BTCUSDT", "channel": "trade"}
        await client.send_message(json.dumps(words))
        nursery.start_soon(listen)
        await trio.sleep(1)
        ages.clear()
        yield ages
        nursery.cancel_scope.cancel()


def share(ages: list[float], part: float) -> float:
    ordered = sorted(ages)
    return round(ordered[int((len(ordered) - 1) * part)], 1) if ordered else -1.0


def latency(ages: list[float]) -> dict[str, float]:
    return {"trades": len(ages), "p50_ms": share(ages, 0.5), "p99_ms": share(ages, 0.99)}


async def quiet(service: Service) -> dict[str, Any]:
    async with trades(service) as ages:
        await trio.sleep(8)
    waits = [await subscribed_after_s(service) for _ in range(5)]
    return latency(ages) | {"subscribe_s": round(max(waits), 3)}


async def abandoned(service: Service, method: str) -> dict[str, Any]:
    """50 strangers ask for 5,000 candles and are gone at once; a new client comes meanwhile."""
    request = f"{method} {KLINES} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def one() -> None:
        stream = await service.dial()
        with suppress(*GONE):
            await stream.send_all(request)
        await trio.sleep(0.05)
        await trio.aclose_forcefully(stream)

    cpu_s = service.cpu_s()
    async with trades(service) as ages, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
        await trio.sleep(0.1)
        wait_s = await subscribed_after_s(service)
        await trio.sleep(3)
    return {
        "new_client_s": round(wait_s, 3),
        "cpu_s": round(service.cpu_s() - cpu_s, 2),
        **latency(ages),
    }


async def patient(service: Service, count: int = 50) -> dict[str, Any]:
    """As many ask for 5,000 candles and read their answers; a new client comes meanwhile."""
    request = f"GET {KLINES} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    said: dict[str, int] = {}

    async def one() -> None:
        stream = await service.dial()
        answer, more = b"", b"x"
        with suppress(*GONE):
            await stream.send_all(request)
            while more:
                more = await stream.receive_some()
                answer = answer or more
        said[answer[9:12].decode()] = said.get(answer[9:12].decode(), 0) + 1
        await stream.aclose()

    async with trades(service) as ages:
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
            await trio.sleep(0.3)
            wait_s = await subscribed_after_s(service)
        took_s = time.perf_counter() - began
    return {
        "new_client_s": round(wait_s, 3),
        "answers": said,
        "took_s": round(took_s, 2),
        **latency(ages),
    }


async def slow_readers(service: Service, count: int = 40) -> dict[str, Any]:
    """Each asks over HTTP, over and over, or over WebSocket, and never reads."""
    requests = f"GET {KLINES} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 4
    words = {"type": "history", "symbol": "BTCUSDT", "interval": "1m", "limit": ROWS}

    async def http() -> None:
        stream = await service.dial()
        with suppress(*GONE):
            await stream.send_all(requests)
        await trio.sleep(20)
        await trio.aclose_forcefully(stream)

    async def websocket() -> None:
        stream = await service.dial()
        upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        upgrade += "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        payload = json.dumps(words).encode()
        frame = bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload
        with suppress(*GONE):
            await stream.send_all(upgrade.encode())
            await stream.receive_some(100)
            await stream.send_all(frame * 4)
        await trio.sleep(20)
        await trio.aclose_forcefully(stream)

    found: dict[str, Any] = {}
    for name, one in (("http", http), ("websocket", websocket)):
        before = most = service.memory_mib()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
            for _ in range(80):
                await trio.sleep(0.25)
                most = max(most, service.memory_mib())
        found[f"{name}_mib"] = round(most - before, 1)
        await trio.sleep(5)
    return found


async def failed_auths(service: Service) -> dict[str, Any]:
    """305 wrong tokens within 3 s, three for each connection."""
    before = service.log.stat().st_size
    token = json.dumps({"type": "auth", "token": "wrong"})

    async def one() -> None:
        with suppress(trio_websocket.ConnectionClosed, trio_websocket.HandshakeError):
            url = f"ws://127.0.0.1:{service.port}/ws"
            async with trio_websocket.open_websocket_url(url) as client:
                for _ in range(3):
                    await client.send_message(token)
                while True:
                    await client.get_message()

    async with trio.open_nursery() as nursery:
        for _ in range(102):
            nursery.start_soon(one)
            await trio.sleep(3 / 102)
    await trio.sleep(2)
    written = service.log.read_bytes()[before:]
    lines = [line for line in written.splitlines() if b"client." in line]
    return {"log_bytes": sum(map(len, lines)), "lines": len(lines)}


async def batches(service: Service, key: str, rounds: int = 5) -> dict[str, Any]:
    """16 publishers report 1,000 events each at once, five times."""

    def body(number: str) -> bytes:
        fields = {"asset": "BTC", "avail": "1.5", "frozen": "0", "change": "+0.1", "reason": "x"}
        kind = "balance.update"
        return json.dumps([
            {"event_id": f"{number}-{i}", "type": kind, "user_id": i + 1, "data": fields}
            for i in range(1000)
        ]).encode()  # fmt: skip

    async def one(number: str, said: dict[str, int]) -> None:
        content = bodies[number]
        head = "POST /api/v1/settlement/events HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: Bearer {key}\r\nConnection: close\r\n"
        stream = await service.dial()
        await stream.send_all(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = b""
        while more := await stream.receive_some():
            answer += more
        said[answer[9:12].decode()] = said.get(answer[9:12].decode(), 0) + 1
        await stream.aclose()

    bodies = {f"{r}.{p}": body(f"{r}.{p}") for r in range(rounds) for p in range(16)}
    said: dict[str, int] = {}
    async with trades(service) as ages:
        began = time.perf_counter()
        for r in range(rounds):
            async with trio.open_nursery() as nursery:
                for p in range(16):
                    nursery.start_soon(one, f"{r}.{p}", said)
        took_s = time.perf_counter() - began
    return latency(ages) | {"answers": said, "took_s": round(took_s, 2)}


Scenario = Callable[[Service], Awaitable[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="names of scenarios; none: all")
    options = parser.parse_args()
    (_, key_sha), (publisher, publisher_sha) = new_key(USER_KEY), new_key(PUBLISHER_KEY)
    scenarios: dict[str, Scenario] = {
        "quiet": quiet,
        "abandoned_head": partial(abandoned, method="HEAD"),
        "abandoned_get": partial(abandoned, method="GET"),
        "patient_get": patient,
        "batches": partial(batches, key=publisher),
        "failed_auths": failed_auths,
        "slow_readers": slow_readers,
    }
    with tempfile.TemporaryDirectory() as folder:
        keys = (
            f"auth.api_keys=[{{name='bench', user_id=1, sha256='{key_sha}'}}]",
            f"settlement.publishers=[{{name='bench', sha256='{publisher_sha}'}}]",
        )
        with started(Path(folder), *keys) as service:
            for name, scenario in scenarios.items():
                if not options.only or name in options.only:
                    print(json.dumps({name: trio.run(scenario, service)}), flush=True)


if __name__ == "__main__":
    main()
