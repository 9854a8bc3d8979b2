"""The real service with workers, and trades put onto its bus, for :mod:`.workers`.

The job says ``workers``.  Prints ``{"port": ..}``, then answers ``stream SECONDS``: trades on 500
streams as fast as the workers take them, for so long.  The answer: ``messages``, ``deliveries``,
``seconds``, ``cpu_s`` of the processes that serve clients (with one process: of that), ``feed_s``
of the one that publishes (0: the same), ``rss_kb`` of each that serves.
"""

import json
import sys
import time
from decimal import Decimal
from typing import Any

import structlog
import trio

from trio_feed import service
from trio_feed.collector import spare_collector
from trio_feed.core.effects import ChannelNews
from trio_feed.environment import real_environment
from trio_feed.metrics import total
from trio_feed.model import Channel, ChannelKey, Source, Trade
from trio_feed.settings import load
from trio_feed.workers.pages import AllPages

from .processes import cpu_s, rss_kb
from .servers_ours import _SETTINGS

STREAMS = 500
_AHEAD_BYTES = 64 * 1024
_TURN = 50


class Publisher:
    def __init__(self, ready: service.Ready) -> None:
        self.ready = ready
        self.keys = [ChannelKey("bench", f"S{n}USDT", Channel.TRADE) for n in range(STREAMS)]
        for key in self.keys:
            ready.bus.open(key)
        pages = ready.app.operators
        self.pages = pages if isinstance(pages, AllPages) else None

    async def pids(self) -> list[int]:
        if self.pages is None:
            return []
        status = json.loads(await self.pages.status())
        return [worker["pid"] for worker in status["workers"]]

    async def delivered(self) -> float:
        if self.pages is not None:
            await self.pages.metrics()
        return total(self.ready.app.context.metrics.pushed)

    async def room(self) -> None:
        """Until nothing waits for the workers."""
        await trio.lowlevel.checkpoint()
        if self.pages is None:
            while self.ready.app.context.hub.coalescer.busy:
                await trio.lowlevel.checkpoint()
            return
        while max(link.pipe.bytes_waiting for link in self.pages.links.values()) > _AHEAD_BYTES:
            await trio.sleep(0.0005)

    async def stream(self, seconds: float) -> dict[str, Any]:
        pids, own = await self.pids(), time.process_time()
        cpu, before = sum(map(cpu_s, pids)), await self.delivered()
        began, messages = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for key in self.keys:
                micros, now = time.monotonic_ns() // 1000, time.time() * 1000
                data = Trade(
                    key.symbol, micros, micros, micros, Decimal("85000.10"), Decimal("0.125"),
                    int(now), True,
                )  # fmt: skip
                self.ready.bus.publish(ChannelNews(key, data, Source.SIMULATED, now))
                messages += 1
                if not messages % _TURN:
                    await self.room()
        after = await self.delivered()
        while (now_there := await self.delivered()) > after:
            after = now_there
        took = time.perf_counter() - began
        own = time.process_time() - own
        workers_cpu = sum(map(cpu_s, pids)) - cpu
        return {
            "messages": messages,
            "deliveries": after - before,
            "seconds": took,
            "cpu_s": workers_cpu if pids else own,
            "feed_s": own if pids else 0.0,
            "rss_kb": [rss_kb(pid) for pid in pids] or [rss_kb()],
        }


async def _main(workers: int) -> None:
    settings = load(assignments=[*_SETTINGS, f"server.workers={workers}"])
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(service.run, settings, real_environment())
        spare_collector()
        publisher = Publisher(ready)
        await trio.sleep(1)
        _say({"port": int(ready.address.rpartition(":")[2])})
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            _, seconds = line.split()
            _say(await publisher.stream(float(seconds)))
        nursery.cancel_scope.cancel()


def _say(found: object) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    trio.run(_main, json.loads(sys.argv[1])["workers"])
