"""What strangers order and do not read, over real sockets, and one good client beside them.

Figures are printed, never asserted: machines differ.
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import trio
import websockets.sync.client
from attacks import GONE, dialled
from test_hostile_live import gauge, memory_kib
from test_service_live import Running, running

ROWS = 5000
KLINES = f"/api/v1/klines?symbol=BTCUSDT&interval=1m&limit={ROWS}"
WAITING = 4 * 2**20
SETTINGS = (
    f"exchanges.binance_usdm.history_bars={ROWS}",
    "exchanges.binance_usdm.symbols=['BTCUSDT']",
    "exchanges.binance_usdm.intervals=['1m']",
    "exchanges.binance_usdm.trade_intervals=[]",
    f"limits.waiting_bytes={WAITING}",
)


def rows(base: str) -> int:
    with suppress(OSError, ValueError), urlopen(base + KLINES, timeout=20) as answer:
        return int(json.load(answer)["total_count"])
    return 0


async def filled(base: str) -> None:
    with trio.fail_after(90):
        while await trio.to_thread.run_sync(rows, base) < ROWS:
            await trio.sleep(0.2)


def subscribe(url: str) -> float:
    """A new client; seconds until its confirmation."""
    began = time.perf_counter()
    with websockets.sync.client.connect(url) as client:
        client.send('{"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "limit": 100}')
        for text in client:
            if json.loads(text)["type"] == "subscription_confirmed":
                break
    return time.perf_counter() - began


def request(method: str) -> bytes:
    return f"{method} {KLINES} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def abandon(port: int, method: str, pipelined: int) -> None:
    async def one() -> None:
        with suppress(*GONE):
            async with dialled(port) as stream:
                await stream.send_all(request(method) * pipelined)
                await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)


def cpu_s(service: Running) -> float:
    return int(Path(f"/proc/{service.process.pid}/schedstat").read_text().split()[0]) / 1e9


async def test_abandoned_requests_and_slow_readers_harm_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, *SETTINGS) as service:
        urls = (await service.event("service.ready"))["urls"]
        base, port = urls["http"], int(urls["http"].rpartition(":")[2])
        await filled(base)
        for method, pipelined in (("HEAD", 1), ("GET", 1), ("GET", 3)):
            before_s = cpu_s(service)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(abandon, port, method, pipelined)
                await trio.sleep(0.02)
                wait_s = await trio.to_thread.run_sync(subscribe, urls["websocket"])
            print(
                f"50 abandoned {method} x {pipelined}: a new client waited {wait_s:.3f} s,"
                f" the service worked {cpu_s(service) - before_s:.2f} s"
            )
        before_kib, most_kib, most = memory_kib(service), 0, 0.0
        async with trio.open_nursery() as readers:

            async def never_reads() -> None:
                async with dialled(port) as stream:
                    with suppress(*GONE):
                        await stream.send_all(request("GET") * 4)
                    await trio.sleep_forever()

            for _ in range(40):
                readers.start_soon(never_reads)
            for _ in range(50):
                await trio.sleep(0.1)
                most = max(most, await gauge(base, "trio_feed_waiting_bytes"))
                most_kib = max(most_kib, memory_kib(service))
            assert await trio.to_thread.run_sync(subscribe, urls["websocket"]) > 0
            readers.cancel_scope.cancel()
        more_mib = (most_kib - before_kib) / 1024
        print(f"40 slow readers: {most / 2**20:.1f} MiB waiting, {more_mib:.1f} MiB more in all")
        assert 0 < most <= WAITING
        refused = [line for line in service.lines if line["event"] == "client.refused"]
        assert {line["reason"] for line in refused} == {"waiting_bytes"}
        assert len(refused) <= 3  # sampled
        with trio.fail_after(60):
            while await gauge(base, "trio_feed_waiting_bytes") > 0:
                await trio.sleep(0.2)
        assert await gauge(base, "trio_feed_client_crashes_total") == 0
        service.process.terminate()
        assert await service.process.wait() == 0
