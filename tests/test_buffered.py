"""The store in front of a database that fails: what it says, in virtual time."""

from collections.abc import Sequence
from typing import Any, cast

import trio
from structlog.testing import capture_logs
from support.make import MINUTE, T0, kline, message

from trio_feed.metrics import Metrics
from trio_feed.store.backend import Backend, StoreFault
from trio_feed.store.base import Entry
from trio_feed.store.buffered import BufferedStore, BufferLimits


class Fragile:
    """A database that takes what it is given, or says why not."""

    epoch, place = 1, "nowhere"

    def __init__(self) -> None:
        self.problem = ""
        self.written: list[Entry] = []

    async def write(self, batch: Sequence[Entry]) -> None:
        await trio.lowlevel.checkpoint()
        if self.problem:
            raise StoreFault(self.problem, "mend it")
        self.written += batch

    async def shrink(self) -> bool:
        return False

    async def sizes(self) -> Any:
        raise StoreFault("not asked for here", "")


async def test_a_problem_that_comes_back_is_said_again_at_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Fragile()
    store = BufferedStore(cast("Backend", backend), BufferLimits(0.1, 100, {}), Metrics())
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            for n in range(2):
                backend.problem = "full"
                store.put(message(kline(T0 + n * MINUTE), offset=n + 1))
                await trio.sleep(10)
                assert store.pending() == 1
                backend.problem = ""
                await trio.sleep(10)
                assert store.pending() == 0
            nursery.cancel_scope.cancel()
    events = [line["event"] for line in logs if line["event"].startswith("store.write")]
    assert events == ["store.write_failed", "store.write_recovered"] * 2
    assert len(backend.written) == 2
