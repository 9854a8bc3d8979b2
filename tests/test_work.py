"""The gate that orders of rows pass: who waits, who is refused, and who is not in the way."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from trio_feed.metrics import Metrics
from trio_feed.push.edge.turns import Asker, asker_at
from trio_feed.push.edge.work import SHORT_ROWS, Busy, WorkGate, WorkLimits

WIDE = WorkLimits(
    rows_per_s=1e9, row_burst=10**9, total_rows_per_s=1e9, total_row_burst=10**9, wait_s=1000
)


class Kit:
    """``order`` takes a second of work; ``done`` is who was served when."""

    def __init__(self, limits: WorkLimits) -> None:
        self.metrics = Metrics()
        self.gate = WorkGate(limits, self.metrics)
        self.done: list[tuple[str, float]] = []
        self.refused: list[tuple[str, float]] = []
        self.at_once = self.most_at_once = 0

    async def order(self, address: str, client: str, rows: int, work_s: float = 1) -> None:
        name = f"{address}/{client}"
        try:
            async with self.gate.turn(Asker(address, client), rows):
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    await trio.sleep(work_s)
                finally:
                    self.at_once -= 1
                self.done.append((name, trio.current_time()))
        except Busy as busy:
            self.refused.append((name, busy.retry_after_s))

    def count(self, reason: str) -> float:
        return float(self.metrics.orders_refused.labels(reason)._value.get())


async def together(*orders: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for order in orders:
            nursery.start_soon(order)
            await trio.testing.wait_all_tasks_blocked()


async def test_nobody_waits_behind_one_client(autojump_clock: MockClock) -> None:
    kit = Kit(WIDE)

    async def flood() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(kit.order, "flood", str(n), 5000)

    async def good() -> None:
        await kit.order("good", "g", 5000)

    async def neighbour() -> None:
        await kit.order("flood", "short", 100, 0.01)

    await together(flood, good, neighbour)
    served = dict(kit.done)
    assert served["good/g"] <= 1.1  # the flood has one place, the other one was free
    assert served["flood/short"] <= 0.1  # a short order of the same address
    assert kit.most_at_once <= 4
    assert max(served.values()) == pytest.approx(50, abs=1)


async def test_an_address_beyond_its_budget_waits_and_then_is_refused(
    autojump_clock: MockClock,
) -> None:
    kit = Kit(WorkLimits(rows_per_s=100, row_burst=1000, debt_wait_s=5))
    await kit.order("a", "1", 1000, 0)
    await kit.order("a", "1", 300, 0)  # waits until the budget is above nothing
    assert kit.done[-1][1] == pytest.approx(0.01, abs=0.02)
    await kit.order("a", "1", 400, 0)
    assert kit.done[-1][1] == pytest.approx(3, abs=0.1)
    await kit.order("a", "1", 300, 0)
    assert kit.done[-1][1] == pytest.approx(7, abs=0.1)
    await kit.order("a", "1", 1000, 0)  # and leaves a debt of ten seconds
    assert kit.done[-1][1] == pytest.approx(10, abs=0.1)
    await kit.order("a", "2", 1, 0)
    assert kit.refused == [("a/2", pytest.approx(10, abs=0.1))]
    assert kit.count("budget") == 1
    await kit.order("b", "1", 1000, 0)
    assert kit.done[-1] == ("b/1", pytest.approx(10, abs=0.1))
    await trio.sleep(10)
    await kit.order("a", "2", 1, 0)
    assert kit.done[-1][0] == "a/2"


async def test_what_was_cancelled_while_it_waited_costs_nothing(autojump_clock: MockClock) -> None:
    kit = Kit(WorkLimits(rows_per_s=100, row_burst=20_000))
    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(kit.order, "a", str(n), 5000)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert kit.done == kit.refused == []
    await kit.order("a", "after", 5000, 0)
    assert kit.done == [("a/after", pytest.approx(0.5, abs=0.01))]


async def test_long_orders_of_all_addresses_have_one_rate_and_short_ones_pass(
    autojump_clock: MockClock,
) -> None:
    kit = Kit(WorkLimits(total_rows_per_s=1000, total_row_burst=5000, wait_s=1000))

    async def long() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(kit.order, f"address {n}", "x", 5000, 0)

    async def short() -> None:
        await trio.sleep(1)
        await kit.order("short", "x", SHORT_ROWS, 0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(long)
        nursery.start_soon(short)
    assert dict(kit.done)["short/x"] == pytest.approx(1, abs=0.01)
    assert max(at for _, at in kit.done) == pytest.approx(90, abs=6)


async def test_who_waits_for_too_long_is_refused(autojump_clock: MockClock) -> None:
    kit = Kit(WorkLimits(wait_s=10))
    await together(
        lambda: kit.order("a", "slow", 5000, 100),
        lambda: kit.order("a", "waits", 5000),
    )
    assert [name for name, _ in kit.refused] == ["a/waits"]
    assert kit.count("queue") == 1
    await kit.order("a", "later", 5000)
    assert kit.done[-1][0] == "a/later"


async def test_too_many_waiting_are_refused_at_once(autojump_clock: MockClock) -> None:
    kit = Kit(WorkLimits(waiting_per_address=3))
    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(kit.order, "a", str(n), 5000)
        nursery.start_soon(kit.order, "b", "x", 5000)
    assert len(kit.refused) == 6
    assert len(kit.done) == 5


async def test_short_orders_of_this_machine_cost_nothing_long_ones_do(
    autojump_clock: MockClock,
) -> None:
    metrics = Metrics()
    gate = WorkGate(WorkLimits(rows_per_s=1, row_burst=1000), metrics)
    for host, served in (("127.0.0.1", 100), ("::1", 100), ("192.0.2.1", 6)):
        asker = asker_at(host, "x")
        answers = 0
        with suppress(Busy):
            for _ in range(100):
                async with gate.turn(asker, SHORT_ROWS):
                    answers += 1
        assert answers == served
        long = SHORT_ROWS + 1000
        with suppress(Busy):
            for _ in range(3):
                async with gate.turn(asker, long):
                    answers += 1
        assert answers == served + (host != "192.0.2.1")
    gate.spend(asker_at("192.0.2.2", "x"), 5000)  # what turned out to be more than a short one
    with pytest.raises(Busy):
        async with gate.turn(asker_at("192.0.2.2", "y"), 1):
            pass
