"""Binance's dialect: streams of the whole market, and what is made of our minutes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.stack import START_MS, Stack, open_stack, settings_for_tests
from test_dialect_binance import ask, socket
from test_dialect_passing import until
from trio.testing import MockClock

from trio_feed.dialects.binance import encoders, windows
from trio_feed.model import Kline, Liquidation, Source

SYMBOLS = ("BTCUSDT", "ETHUSDT")
FUTURES = "['kline','ticker','bbo','mark_price','liquidation']"
SPOT = "['kline','ticker','bbo']"
MINUTE = 60_000


@asynccontextmanager
async def fed(venue: str, channels: str, *more: str) -> AsyncIterator[Stack]:
    symbols = f".symbols={json.dumps(SYMBOLS)}"
    settings = settings_for_tests(symbols, f".channels={channels}", *more, venue=venue)
    async with open_stack(settings, symbols=SYMBOLS, trades_per_minute=60, push_ms=2000) as stack:
        await trio.sleep(30)
        yield stack


@pytest.mark.parametrize(
    ("venue", "name", "kind", "every_ms"),
    [
        ("binance_usdm", "!miniTicker@arr", "24hrMiniTicker", 1000),
        ("binance_usdm", "!ticker@arr", "24hrTicker", 1000),
        ("binance_usdm", "!markPrice@arr", "markPriceUpdate", 3000),
        ("binance_usdm", "!markPrice@arr@1s", "markPriceUpdate", 1000),
        ("binance", "!miniTicker@arr", "24hrMiniTicker", 1000),
        ("binance", "!miniTicker@arr@1000ms", "24hrMiniTicker", 1000),
        ("binance", "!miniTicker@arr@3000ms", "24hrMiniTicker", 3000),
        ("binance", "!ticker_1h@arr", "1hTicker", 1000),
    ],
)
async def test_arrays_hold_all_that_is_fed(
    venue: str, name: str, kind: str, every_ms: int, autojump_clock: MockClock
) -> None:
    channels = FUTURES if venue == "binance_usdm" else SPOT
    async with fed(venue, channels, ".history_bars=80") as stack:
        async with socket(stack, f"/{venue}/ws") as client:
            await client.ask("SUBSCRIBE", name)
            assert await client.answer() == {"result": None, "id": 1}
            await client.ask("LIST_SUBSCRIPTIONS")
            while isinstance(listed := await client.next(), list):
                pass
            assert listed["result"] == [name]
            seen: set[str] = set()
            times = []
            for _ in range(8):
                array = await client.next()
                assert {event["e"] for event in array} == {kind}
                named = [event["s"] for event in array]
                assert len(set(named)) == len(named)
                seen |= {*named}
                times.append(trio.current_time())
            assert seen == {*SYMBOLS}
            spans = [after - before for before, after in pairwise(times)]
            assert min(spans) >= every_ms / 1000 - 0.001
            await client.ask("UNSUBSCRIBE", name)
            while isinstance(answer := await client.next(), list):
                pass
            assert answer["result"] is None
            topics = stack.ready.app.context.hub
            assert all(not topic.subscriptions for topic in topics._topics.values())


async def test_single_events_of_the_whole_market(autojump_clock: MockClock) -> None:
    async with fed("binance_usdm", FUTURES) as stack:
        path = "/binance_usdm/stream?streams=!bookTicker/btcusdt@bookTicker"
        async with socket(stack, path) as client:
            seen: set[tuple[str, str]] = set()
            while len(seen) < 3:
                message = await client.next()
                assert message["data"]["e"] == "bookTicker"
                seen.add((message["stream"], message["data"]["s"]))
            assert seen == {
                ("!bookTicker", "BTCUSDT"), ("!bookTicker", "ETHUSDT"),
                ("btcusdt@bookTicker", "BTCUSDT"),
            }  # fmt: skip


@pytest.mark.parametrize("name", ["btcusdt@forceOrder", "!forceOrder@arr"])
async def test_liquidations(name: str, autojump_clock: MockClock) -> None:
    async with fed("binance_usdm", FUTURES) as stack:
        async with socket(stack, f"/binance_usdm/ws/{name}") as client:
            with trio.fail_after(10_000):  # a minute in three has one
                while True:
                    event = json.loads(await client.connection.get_message())
                    if event["o"]["s"] == "BTCUSDT":
                        break
            assert event["e"] == "forceOrder"
            order = event["o"]
            assert order.keys() == {*"SsofqpXlzT", "ap"}
            assert (order["o"], order["f"], order["X"]) == ("LIMIT", "IOC", "FILLED")
            assert order["q"] == order["l"] == order["z"]
            assert (event.get("ps"), event.get("st")) == (
                ("BTCUSDT", 1) if name.startswith("!") else (None, None)
            )


def test_a_liquidation_to_the_letter() -> None:
    """The example of "Liquidation Order Streams" (USD-M, 2026-05-28)."""
    size, price = Decimal("0.014"), Decimal("9910")
    own = Liquidation("BTCUSDT", True, price, price, size, 1568014460893)
    assert encoders.force_order("BTCUSDT", own, 1568014460893) == (
        '{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC",'
        '"q":"0.014","p":"9910","ap":"9910","X":"FILLED","l":"0.014","z":"0.014",'
        '"T":1568014460893}}'
    )


async def test_streams_of_one_market_are_none_of_the_other(autojump_clock: MockClock) -> None:
    async with fed("binance", SPOT) as stack, socket(stack, "/binance/ws") as client:
        for name in ("!markPrice@arr", "!forceOrder@arr", "!all@arr", "btcusdt@avgPrice_1m"):
            await client.ask("SUBSCRIBE", name)
            assert "no stream of this market" in (await client.answer())["error"]["msg"]
        await client.ask("SUBSCRIBE", "btcusdt@ticker_4h")  # more minutes than are at hand
        error = (await client.answer())["error"]["msg"]
        assert "kline.history_data_limit = 240" in error


async def minutes_of(stack: Stack) -> list[list[Any]]:
    _, rows, _ = await ask(stack, "/binance/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1000")
    return rows  # type: ignore[no-any-return]


async def test_a_window_is_the_sum_of_its_minutes(autojump_clock: MockClock) -> None:
    async with fed("binance", SPOT, ".history_bars=80") as stack:
        rows = await minutes_of(stack)
        now_ms = START_MS + trio.current_time() * 1000
        for size, minutes in (("1m", 1), ("59m", 59), ("1h", 60)):
            target = f"/binance/api/v3/ticker?symbol=BTCUSDT&windowSize={size}"
            _, answer, _ = await ask(stack, target)
            first_ms = int(now_ms - minutes * MINUTE) // MINUTE * MINUTE
            inside = [row for row in rows if row[0] >= first_ms]
            assert answer["openTime"] == first_ms == inside[0][0]
            assert answer["openPrice"] == inside[0][1]
            assert answer["lastPrice"] == inside[-1][4]
            assert answer["highPrice"] == str(max(Decimal(row[2]) for row in inside))
            assert Decimal(answer["volume"]) == sum(Decimal(row[5]) for row in inside)
            assert answer["count"] == sum(row[8] for row in inside)
        names = '["BTCUSDT","ETHUSDT"]'
        _, both, _ = await ask(
            stack, f"/binance/api/v3/ticker?symbols={names}&windowSize=5m&type=MINI"
        )
        assert [row["symbol"] for row in both] == [*SYMBOLS]
        assert "priceChange" not in both[0]
        _, average, _ = await ask(stack, "/binance/api/v3/avgPrice?symbol=BTCUSDT")
        assert (average["mins"], rows[-1][0] <= average["closeTime"]) == (5, True)
        worth, volume = (sum(Decimal(row[at]) for row in rows[-5:]) for at in (7, 5))
        assert abs(Decimal(average["price"]) - worth / volume) < Decimal("0.01")


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("ticker?windowSize=1h", -1102),
        ("ticker?symbol=BTCUSDT&windowSize=60m", -1127),
        ("ticker?symbol=BTCUSDT&windowSize=0m", -1127),
        ("ticker?symbol=BTCUSDT&windowSize=8d", -1127),
        ("ticker?symbol=BTCUSDT&type=X", -1139),
        ("ticker?symbol=BTCUSDT&windowSize=2h", -1020),
        ('ticker?symbols=["BTCUSDT","BTCUSDT"]', -1151),
        ("ticker?symbols=[]", -1101),
        ("avgPrice", -1102),
        ("avgPrice?symbol=XYZ", -1121),
    ],
)
async def test_windows_that_are_none(target: str, code: int, autojump_clock: MockClock) -> None:
    async with fed("binance", SPOT, ".history_bars=80") as stack:
        status, error, _ = await ask(stack, f"/binance/api/v3/{target}")
        assert (status, error["code"]) == (400, code), error


async def test_the_average_price_streamed(autojump_clock: MockClock) -> None:
    async with fed("binance", SPOT) as stack:
        async with socket(stack, "/binance/ws/btcusdt@avgPrice") as client:
            event = await client.event("avgPrice")
            assert (event["s"], event["i"]) == ("BTCUSDT", "5m")
            _, answer, _ = await ask(stack, "/binance/api/v3/avgPrice?symbol=BTCUSDT")
            assert abs(Decimal(event["w"]) - Decimal(answer["price"])) < 100


def minute(number: int, close: str, volume: str, *, trades: int = 1) -> Kline:
    price = Decimal(close)
    return Kline(
        open_ms=number * MINUTE, open=price, high=price + 1, low=price - 1, close=price,
        volume=Decimal(volume), quote_volume=price * Decimal(volume), trades=trades, closed=True,
        source=Source.EXCHANGE,
        first_trade_id=number * 10 if trades else None,
        last_trade_id=number * 10 + trades - 1 if trades else None,
    )  # fmt: skip


def test_a_window_with_a_hole_is_none() -> None:
    whole = [minute(n, "100", "2", trades=n % 2) for n in range(4)]
    assert windows.window_of(whole, 0, 0) is not None
    assert windows.window_of(whole, -MINUTE, 0) is None
    assert windows.window_of([*whole[:2], whole[3]], 0, 0) is None
    found = windows.window_of(whole, MINUTE, 77)
    assert found is not None
    assert (found.first_id, found.last_id, found.trades, found.close_ms) == (10, 30, 2, 77)
    assert (found.volume, found.quote_volume) == (Decimal(6), Decimal(600))


def test_an_average_without_volume_is_the_last_price() -> None:
    assert windows.average([]) is None
    assert windows.average([minute(0, "7.5", "0")]) == Decimal("7.5")
    # Of six the first is too old.
    rows = [minute(0, "1000.0", "9"), *(minute(n, "10.0", "1") for n in range(1, 5))]
    assert windows.average([*rows, minute(5, "20.0", "1")]) == Decimal("12.0")


def test_names_of_windows() -> None:
    named = {"1m": 1, "59m": 59, "1h": 60, "23h": 1380, "1d": 1440, "7d": 10080}
    assert {name: windows.minutes_of(name) for name in named} == named
    for name in ("0m", "60m", "24h", "8d", "1w", "m", "", "01m", "1m\n", "-1m"):
        assert windows.minutes_of(name) is None


@pytest.mark.parametrize("name", ["!ticker@arr", "!bookTicker", "!ticker_1h@arr"])
async def test_a_symbol_that_is_fed_later_joins_them(name: str, autojump_clock: MockClock) -> None:
    """By the settings (SIGHUP); for clients that are there already, with and without wrapping."""
    symbols, more = ".symbols=['BTCUSDT']", (f".channels={SPOT}", ".history_bars=80")
    settings = settings_for_tests(symbols, *more, venue="binance")
    kinds = {"symbols": SYMBOLS, "trades_per_minute": 60, "push_ms": 2000}
    async with open_stack(settings, **kinds) as stack:
        await trio.sleep(30)
        async with (
            socket(stack, f"/binance/ws/{name}") as bare,
            socket(stack, f"/binance/stream?streams={name}") as wrapped,
        ):
            assert await named_by(bare) == await named_by(wrapped) == {"BTCUSDT"}
            await stack.ready.venues.apply(
                settings_for_tests(f".symbols={json.dumps(SYMBOLS)}", *more, venue="binance")
            )
            for client in (bare, wrapped):
                with trio.fail_after(120):
                    while "ETHUSDT" not in await named_by(client):
                        pass
            await bare.ask("UNSUBSCRIBE", name)
            await bare.connection.aclose()
            await wrapped.connection.aclose()
        await trio.sleep(10)
        topics = stack.ready.app.context.hub
        assert all(not topic.subscriptions for topic in topics._topics.values())


async def named_by(client: Any) -> set[str]:
    """The symbols of the next message."""
    message = await client.next()
    events = message["data"] if "stream" in message else message
    return {event["s"] for event in (events if isinstance(events, list) else [events])}


async def test_they_take_what_others_ask_for_and_keep_none_of_it(autojump_clock: MockClock) -> None:
    settings = settings_for_tests(
        ".symbols='on_demand'", f".channels={SPOT}", ".linger_s=60", venue="binance"
    )
    async with open_stack(settings, symbols=SYMBOLS, trades_per_minute=60) as stack:
        await trio.sleep(30)
        async with socket(stack, "/binance/ws/btcusdt@ticker") as other:
            await other.next()
            async with socket(stack, "/binance/ws/!ticker@arr") as client:
                assert await named_by(client) == {"BTCUSDT"}
                for _ in range(2):  # once more after it was dropped
                    async with socket(stack, "/binance/ws/ethusdt@ticker") as second:
                        await second.next()
                        with trio.fail_after(60):
                            while "ETHUSDT" not in await named_by(client):
                                pass
                    await until(lambda: "ETHUSDT" not in stack.ready.feeds[0].settings.symbols)


async def test_what_may_be_fed_later_is_silent_until_then(autojump_clock: MockClock) -> None:
    """On demand: nobody has asked for a symbol yet, and the exchange refuses none of them."""
    settings = settings_for_tests(
        ".symbols='on_demand'", f".channels={SPOT}", ".linger_s=60", venue="binance"
    )
    async with open_stack(settings, symbols=SYMBOLS, trades_per_minute=60) as stack:
        await trio.sleep(30)
        async with socket(stack, "/binance/ws") as client:
            for name in ("!ticker@arr", "!bookTicker"):
                await client.ask("SUBSCRIBE", name)
                assert await client.answer() == {"result": None, "id": 1}
            await client.ask("UNSUBSCRIBE", "!bookTicker")
            await client.answer()
            await client.ask("LIST_SUBSCRIPTIONS")
            assert (await client.answer())["result"] == ["!ticker@arr"]
            await client.ask("SUBSCRIBE", "!ticker_4h@arr")  # more minutes than are at hand
            error = (await client.answer())["error"]["msg"]
            assert "kline.history_data_limit = 240" in error
            await client.ask("SUBSCRIBE", "btcusdt@ticker")
            await client.answer()
            with trio.fail_after(60):
                while not isinstance(array := await client.next(), list):
                    pass
            assert {event["s"] for event in array} == {"BTCUSDT"}


async def test_a_channel_that_no_fed_symbol_has_is_refused(autojump_clock: MockClock) -> None:
    async with fed("binance", "['kline']") as stack, socket(stack, "/binance/ws") as client:
        await client.ask("SUBSCRIBE", "!bookTicker")
        error = (await client.answer())["error"]
        assert error["code"] == 2
        assert "no symbol has bookTicker: see exchanges.binance.symbols" in error["msg"]


async def test_candles_from_before_a_symbol_was_asked_for_are_no_events(
    autojump_clock: MockClock,
) -> None:
    """A bot would act on a hundred old closes as on news; the history is REST's."""
    settings = settings_for_tests(".symbols='on_demand'", f".channels={SPOT}", venue="binance")
    async with open_stack(settings, symbols=SYMBOLS, trades_per_minute=60) as stack:
        await trio.sleep(90)
        asked_ms = START_MS + trio.current_time() * 1000
        streams = "ethusdt@kline_1m", "ethusdt@avgPrice"
        async with socket(stack, f"/binance/stream?streams={'/'.join(streams)}") as client:
            ends, averages = [], []
            while len(ends) < 5 or ends[-1] == ends[0]:  # until the running one has closed
                message = await client.next()
                if message["stream"] == streams[0]:
                    ends.append(message["data"]["k"]["T"])
                else:
                    averages.append(message["data"]["E"])
            assert min(ends) >= asked_ms
            assert ends == sorted(ends)
            assert len(averages) <= len(ends)
