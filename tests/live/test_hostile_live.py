"""A corpus of hostile clients against the running service, with a good one beside them: the process
lives, the good client notices nothing, the memory comes back."""

import gc
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attacks
import attrs
import trio
from attacks import ATTACKS, Seen
from test_service_live import Running, page, running, wait_ready

GOOD_CLIENT = Path(__file__).parent / "good_client.py"
FLOOR_S = 0.020
"""Below that a p99 says more about a loaded machine than about the service."""
MARGIN_KIB = 30 * 1024
SETTINGS = (
    "websocket.compression=true",
    "websocket.handshake_timeout_s=2",
    "logging.level=info",
    "dialects.binance_usdm.simulated_ok=true",
    "dialects.udf.simulated_ok=true",
)

EXPECTED: dict[Callable[[int], Awaitable[Seen]], Callable[[Seen], bool]] = {
    attacks.malformed_handshakes: lambda seen: set(seen) == {"as expected"},
    attacks.slow_heads: lambda seen: seen == {"dropped": 200},
    attacks.half_open: lambda seen: seen == {"dropped": 100, "torn": 100},
    attacks.data_after_close: lambda seen: set(seen) <= {1000, None},
    attacks.fragmented_flood: lambda seen: set(seen) <= {1008, 1009, "reset"},
    attacks.ping_flood: lambda seen: set(seen) <= {1008, "reset"},
    attacks.zip_bombs: lambda seen: seen == {1009: 50},
    attacks.deep_json: lambda seen: (
        set(seen)
        <= {
            frozenset({"connection_success", 1001}),
            frozenset({1001}),  # the welcome came together with the 101
        }
    ),
    attacks.subscription_bombs: lambda seen: seen[1008] == 4 and seen[1002] > 0,
    attacks.dialect_bombs: lambda seen: (
        seen[1008] + seen["reset"] == 4 and {("error", 2), ("error", 4)} <= set(seen)
    ),
    attacks.dialect_questions: lambda seen: (
        seen["answered"] == 4
        and {b"200", b"400", b"404"} <= set(seen) <= {b"200", b"400", b"404", b"429", "answered"}
    ),
    attacks.connects: lambda seen: seen["connected"] + seen[b"101"] > 2900,
}
"""What each attack must have seen."""


@attrs.define
class GoodClient:
    asked: list[tuple[float, float]] = attrs.field(factory=list)
    offsets: list[int] = attrs.field(factory=list)

    def p99(self, began: float, ended: float) -> float:
        """Seconds until an answer, of the questions asked in that time."""
        took = sorted(took for at, took in self.asked if began <= at <= ended)
        assert len(took) > 20, "the good client was hardly served"
        return took[int(len(took) * 0.99)]


@asynccontextmanager
async def good_client(url: str) -> AsyncIterator[GoodClient]:
    """Runs beside the body; what it saw is there afterwards."""
    client = GoodClient()
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(GOOD_CLIENT), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        said = bytearray()

        async def listen() -> None:
            assert process.stdout is not None
            async for chunk in process.stdout:
                said.extend(chunk)

        nursery.start_soon(listen)
        try:
            yield client
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.fail_after(30):
                assert await process.wait() == 0, "the good client was disturbed"
        finally:
            process.kill()
    told = json.loads(said)
    client.asked, client.offsets = told["asked"], told["offsets"]


def memory_kib(service: Running) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def scheduled_ns(service: Running) -> tuple[int, int]:
    """How long the service has run, and how long it was ready to run while others did."""
    run, waited, _ = Path(f"/proc/{service.process.pid}/schedstat").read_text().split()
    return int(run), int(waited)


async def gauge(base: str, name: str) -> float:
    status, text = await page(base, "/metrics")
    assert status == 200, (status, text)
    return float(text.partition(f"\n{name} ")[2].split()[0])


async def recovered(service: Running, base: str, baseline_kib: int) -> int:
    """Wait until the hostile clients are forgotten and their memory has come back."""
    with trio.fail_after(60):
        while await gauge(base, "trio_feed_clients") > 1:
            await trio.sleep(0.2)
        while (now_kib := memory_kib(service)) > baseline_kib + MARGIN_KIB:
            await trio.sleep(0.5)
    return now_kib


async def test_hostile_clients_harm_only_themselves(tmp_path: Path) -> None:
    phases: dict[str, tuple[float, float]] = {}
    unforeseen: list[tuple[str, Seen]] = []

    @asynccontextmanager
    async def phase(name: str) -> AsyncIterator[None]:
        began = time.monotonic()
        yield
        phases[name] = (began, time.monotonic())

    gc.collect()
    async with running(tmp_path, *SETTINGS) as service:
        await wait_ready(service)
        urls = (await service.event("service.ready"))["urls"]
        port = int(urls["http"].rpartition(":")[2])
        await attacks.connects(port, seconds=1)  # what the first clients leave is no leak
        async with good_client(urls["websocket"]) as good:
            await trio.sleep(2)
            baseline_kib = memory_kib(service)
            async with phase("calm before"):
                await trio.sleep(4)
            run_ns, waited_ns = scheduled_ns(service)
            for attack in ATTACKS:
                async with phase(attack.__name__):
                    with trio.fail_after(60):
                        seen = await attack(port)
                    await trio.sleep(1)
                unforeseen += [] if EXPECTED[attack](seen) else [(attack.__name__, seen)]
            run_ns, waited_ns = (
                now - before
                for now, before in zip(scheduled_ns(service), (run_ns, waited_ns), strict=True)
            )
            async with phase("calm after"):
                await trio.sleep(4)
            after_kib = await recovered(service, urls["http"], baseline_kib)
        crashes = await gauge(urls["http"], "trio_feed_client_crashes_total")
        service.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            assert await service.process.wait() == 0
    whole_s = good.p99(phases[ATTACKS[0].__name__][0], phases[ATTACKS[-1].__name__][1])
    figures = {name: round(good.p99(*times) * 1000, 1) for name, times in phases.items()}
    print(f"p99 ms {figures}, under attack {whole_s * 1000:.1f}")
    print(f"ran {run_ns / 1e9:.1f} s, waited for others {waited_ns / 1e9:.1f} s")
    print(f"RSS KiB {baseline_kib} -> {after_kib}")
    assert unforeseen == []
    assert crashes == 0
    assert good.offsets == list(range(good.offsets[0], good.offsets[0] + len(good.offsets)))
    calm_s = max(good.p99(*phases["calm before"]), good.p99(*phases["calm after"]))
    # On a machine that others use too, the service is slowed down by what they take from it.
    slowdown = (run_ns + waited_ns) / run_ns
    assert whole_s <= 2 * max(calm_s, FLOOR_S) * slowdown, (slowdown, figures)
