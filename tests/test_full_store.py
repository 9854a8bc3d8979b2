"""The whole service while its store takes nothing more: it waits, and then nothing is wrong."""

import pytest
import trio
from support.stack import Stack, open_stack, settings_for_tests

from trio_feed.model import Interval, Series
from trio_feed.store import MemoryStore
from trio_feed.store.base import Sizes, StoreStatistics

S1 = Series("binance_usdm", "BTCUSDT", Interval.S1)
M1 = Series("binance_usdm", "BTCUSDT", Interval.M1)


class Gate:
    """What :meth:`MemoryStore.wait_capacity` waits for while it is shut, and the store is full."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.opened.set()
        self.waiting = 0

    def shut(self) -> None:
        self.opened = trio.Event()

    async def wait_capacity(self, _store: MemoryStore) -> bool:
        full = not self.opened.is_set()
        self.waiting += full
        await self.opened.wait()
        self.waiting -= full
        return full


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(MemoryStore, "wait_capacity", lambda store: gate.wait_capacity(store))
    full = property(lambda _store: not gate.opened.is_set())
    monkeypatch.setattr(MemoryStore, "is_full", full)
    return gate


async def stored(stack: Stack, series: Series) -> dict[int, object]:
    return {k.open_ms: k for k in await stack.ready.store.history(series, limit=5000)}


async def test_nothing_is_asked_for_or_closed_meanwhile(
    gate: Gate, autojump_clock: trio.abc.Clock
) -> None:
    """Not by time, not by REST: what there is no room for must not come in by another door."""
    settings = settings_for_tests(".trade_intervals=['1s']")
    with trio.fail_after(3_600):
        async with open_stack(settings, trades_per_minute=600) as stack:
            await trio.sleep(30)
            gate.shut()
            await trio.sleep(2)
            before, asked = await stored(stack, S1), stack.exchange.requests
            await trio.sleep(300)
            assert gate.waiting >= 2  # processor, workers
            assert await stored(stack, S1) == before
            assert stack.exchange.requests == asked
            gate.opened.set()
            await trio.sleep(90)
            rows = await stored(stack, S1)
            assert max(rows) > max(before) + 300_000
            for series in (S1, M1):
                for open_ms, kline in (await stored(stack, series)).items():
                    truth = stack.market.candle("BTCUSDT", series.interval, open_ms)
                    assert not kline.complete or prices(kline) == prices(truth)
            minutes = sorted(await stored(stack, M1))
            assert minutes == list(range(minutes[0], minutes[-1] + 60_000, 60_000))


def prices(kline: object) -> tuple[object, ...]:
    return tuple(getattr(kline, name) for name in ("open", "high", "low", "close", "volume"))


@pytest.mark.parametrize("problem", ["database or disk is full", ""])
async def test_not_ready_names_the_store(
    problem: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """It said that a connection was silent, and only the log named the disk."""
    with trio.fail_after(600):
        async with open_stack(settings_for_tests()) as stack:
            await trio.sleep(30)
            assert stack.ready.app.report.not_ready() == ""
            full = StoreStatistics(100, Sizes({}), 0, 0, problem, full=True)
            monkeypatch.setattr(MemoryStore, "statistics", lambda _store: full)
            why = problem or "the disk is slow"
            assert stack.ready.app.report.not_ready() == f"the store takes no more candles: {why}"
            assert stack.ready.app.report.status()["store"]["problem"] == problem
