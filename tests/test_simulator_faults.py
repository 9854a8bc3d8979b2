"""Faults of the boxes' REST pages, and candles that are changed afterwards."""

from decimal import Decimal

import pytest
import trio
from attrs import evolve
from support.exchange import START, collect, open_box
from support.okx_box import BUSINESS, open_okx
from trio.testing import MockClock

from trio_feed.model import Interval
from trio_feed.simulator import ResponseFaults

MINUTE = 60_000
CANDLES = f"/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime={START}"
OKX_CANDLES = f"market/candles?instId=BTC-USDT&bar=1m&before={START - 1}"


async def test_a_page_without_its_oldest_row(autojump_clock: MockClock) -> None:
    await trio.sleep(150)
    async with open_box() as box:
        box.exchange.faults.rest_missing_row(1)
        box.exchange.faults.rest_missing_row(2)
        pages = [await box.ask_json(CANDLES) for _ in range(3)]
        assert [len(page) for page in pages] == [2, 2, 3]
        assert pages[0] == pages[2][1:]


async def test_a_stale_page(autojump_clock: MockClock) -> None:
    await trio.sleep(150)
    async with open_box() as box:
        box.exchange.faults.rest_stale(60.0)
        assert await box.ask_json("/fapi/v1/time") == {"serverTime": START + 150_000}
        stale, fresh = [await box.ask_json(CANDLES) for _ in range(2)]
        assert [row[0] for row in stale] == [row[0] for row in fresh[:2]]
        assert stale[0] == fresh[0]
        assert stale[1] != fresh[1]  # it was running then


async def test_pages_of_okx(autojump_clock: MockClock) -> None:
    await trio.sleep(150)
    async with open_okx() as box:
        whole = await box.data(OKX_CANDLES)
        assert [int(row[0]) for row in whole] == [START + n * MINUTE for n in (2, 1, 0)]
        box.exchange.faults.rest_missing_row()
        assert await box.data(OKX_CANDLES) == whole[:-1]
        box.exchange.faults.rest_stale(60.0)
        assert [row[0] for row in await box.data(OKX_CANDLES)] == [row[0] for row in whole[1:]]


def test_no_fault_is_left_after_clear() -> None:
    faults = ResponseFaults()

    def page() -> list[int]:
        rows: list[int] = faults.rows(
            "/klines", 10_000, lambda at: [at, at + 1], newest_first=False
        )
        return rows

    faults.rest_stale(5.0, 2)
    faults.rest_missing_row(2)
    assert page() == [5_001]
    faults.clear()
    assert page() == [10_000, 10_001]


async def test_a_correction_is_told_and_answered(autojump_clock: MockClock) -> None:
    async with (
        open_box(trades=4, push_ms=30_000) as box,
        box.websocket("/market/ws/btcusdt_perpetual@continuousKline_1m") as websocket,
    ):
        await collect(websocket, 70)
        kline = box.market.candle("BTCUSDT", Interval.M1, START)
        new = evolve(kline, volume=kline.volume * 2)
        takers = box.exchange.correct("BTCUSDT", new)
        assert takers == {Interval.M1: box.exchange.connections}
        told = [m["k"] for m in await collect(websocket, 5)]
        assert [(k["t"], k["x"], Decimal(k["v"])) for k in told] == [(START, True, new.volume)]
        assert Decimal((await box.ask_json(CANDLES))[0][5]) == new.volume
        assert box.exchange.correct("ETHUSDT", new) == {Interval.M1: []}


async def test_a_correction_is_in_the_longer_candle(autojump_clock: MockClock) -> None:
    """In its close where it still runs, and pushed anew where it has ended."""
    name = "/market/ws/btcusdt_perpetual@continuousKline_3m"
    async with open_box(trades=4, push_ms=30_000) as box, box.websocket(name) as websocket:
        three = box.market.open_of("BTCUSDT", Interval.M3, START + 3 * 60_000)
        await collect(websocket, (three + 4 * 60_000 - START) / 1000)
        market = box.market
        for minute in (three + 2 * 60_000, three + 3 * 60_000):
            old = market.candle("BTCUSDT", Interval.M1, minute)
            takers = box.exchange.correct("BTCUSDT", evolve(old, volume=old.volume * 2))
            assert (Interval.M3 in takers) == (minute < three + 3 * 60_000)
        told = [m["k"] for m in await collect(websocket, 130)]
        finals = {k["t"]: Decimal(k["v"]) for k in told if k["x"]}
        for start in (three, three + 3 * 60_000):
            minutes = [market.candle("BTCUSDT", Interval.M1, start + n * 60_000) for n in range(3)]
            assert finals[start] == sum(kline.volume for kline in minutes)


async def test_a_correction_at_okx(autojump_clock: MockClock) -> None:
    async with (
        open_okx() as box,
        box.websocket(BUSINESS, "candle1m:BTC-USDT") as websocket,
    ):
        assert await collect(websocket, 70)
        kline = box.market.candle("BTCUSDT", Interval.M1, START)
        new = evolve(kline, volume=kline.volume * 2)
        assert box.exchange.correct("BTCUSDT", new) == {Interval.M1: box.exchange.connections}
        rows = [m["data"][0] for m in await collect(websocket, 5)]
        told = [row for row in rows if row[0] == str(START)]
        assert [(Decimal(row[5]), row[8]) for row in told] == [(new.volume, "1")]


@pytest.mark.parametrize("every_ms", [100, 10_000])
async def test_books_are_pushed_as_often_as_asked(every_ms: int, autojump_clock: MockClock) -> None:
    async with open_box(book_push_ms=every_ms) as box:
        async with box.websocket("/public/ws/btcusdt@depth@100ms") as websocket:
            times = [message["E"] for message in await collect(websocket, 60)]
    assert all(time % every_ms == 0 for time in times)
    assert len(times) >= 50_000 / every_ms
