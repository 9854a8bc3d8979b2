"""TradingView's UDF: what a Charting Library asks, over the whole service."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from support.stack import START_MS, Stack, open_stack, settings_for_tests
from test_app import http
from trio.testing import MockClock

from trio_feed.model import Interval

SYMBOL = "binance_usdm:BTCUSDT"
MORE = (".channels=['kline','trade','ticker']", ".intervals=['1m','1d']", ".trade_intervals=['1s']")
OK = "dialects.udf.simulated_ok=true"


@asynccontextmanager
async def charts(*more: str) -> AsyncIterator[Stack]:
    async with open_stack(settings_for_tests(*MORE, *more), trades_per_minute=60) as stack:
        await trio.sleep(200)
        yield stack


async def ask_whole(stack: Stack, target: str) -> tuple[str, Any]:
    """The head in lower case, and the JSON of the body, whatever the status."""
    async with http(stack) as client:
        _, head, body = await client.ask(f"/udf{target}")
        return head.decode().lower(), json.loads(body)


async def ask(stack: Stack, target: str) -> Any:
    return (await ask_whole(stack, target))[1]


def now_s() -> int:
    return int(START_MS / 1000 + trio.current_time())


def history(first: int, end: int, **more: object) -> str:
    extra = "".join(f"&{name}={value}" for name, value in more.items())
    return f"/history?symbol={SYMBOL}&resolution=1&from={first}&to={end}{extra}"


async def test_what_a_chart_asks_first(autojump_clock: MockClock) -> None:
    async with charts() as stack:
        config = await ask(stack, "/config")
        assert config["supports_search"] is True
        assert config["supported_resolutions"] == ["1", "1D"]  # no seconds: read as minutes
        assert [each["value"] for each in config["exchanges"]] == ["", "binance_usdm"]
        found = await ask(stack, f"/symbols?symbol={SYMBOL}")
        assert found == await ask(stack, "/symbols?symbol=btcusdt")
        assert (found["ticker"], found["session"], found["timezone"]) == (SYMBOL, "24x7", "Etc/UTC")
        assert (found["minmov"], found["pricescale"], found["has_intraday"]) == (1, 10, True)
        assert found["supported_resolutions"] == ["1", "1D"]
        (match,) = await ask(stack, "/search?query=btc&type=&exchange=&limit=30")
        assert (match["symbol"], match["ticker"]) == ("BTCUSDT", SYMBOL)
        assert await ask(stack, "/search?query=doge&type=&exchange=&limit=30") == []
        assert abs(await ask(stack, "/time") - now_s()) <= 1
        quotes = await ask(stack, f"/quotes?symbols={SYMBOL},NOPE")
        good, bad = quotes["d"]
        assert (good["s"], good["n"], bad["s"]) == ("ok", SYMBOL, "error")
        assert 0 < good["v"]["low_price"] <= good["v"]["lp"] <= good["v"]["high_price"]


async def test_history_ends_before_to_and_has_the_exchanges_values(
    autojump_clock: MockClock,
) -> None:
    async with charts() as stack:
        end = now_s() // 60 * 60
        bars = await ask(stack, history(end - 300, end))
        assert (bars["s"], bars["t"]) == ("ok", [end - 300 + 60 * n for n in range(5)])
        truth = stack.market.candle("BTCUSDT", Interval.M1, bars["t"][1] * 1000)
        assert bars["o"][1] == float(truth.open)
        assert bars["v"][1] == float(truth.volume)
        running = await ask(stack, history(end - 60, end + 60))
        assert running["t"] == [end - 60, end], "the open one comes as well"


async def test_a_poller_gets_two_bars_and_a_hole_the_bars_before_it(
    autojump_clock: MockClock,
) -> None:
    async with charts() as stack:
        end = now_s() // 60 * 60
        polled = await ask(stack, history(end + 3600, end + 7200, countback=2))
        assert polled["t"] == [end - 60, end], "older than `from`, as nothing is in it"
        nothing = await ask(stack, history(end + 3600, end + 7200))
        assert nothing == {"s": "no_data", "nextTime": end}
        before_all = await ask(stack, history(0, 60_000, countback=300))
        assert before_all == {"s": "no_data"}, "there the history begins, and the chart stops"


async def walk(stack: Stack, end: int, most: int) -> list[int]:
    """The bars that a strict chart has when it is scrolled to the left as far as that goes.

    By TradingView's page on PeriodParams (2025-06-22), not by the library, which is not free:
    ``from`` inclusive, ``to`` exclusive, at least ``countback`` bars before ``to``; on ``no_data``
    it goes on at ``nextTime``, and without one it never asks for older bars again."""
    have: list[int] = []
    while True:
        got = await ask(stack, history(end - 60 * most, end, countback=most))
        if got["s"] == "no_data":
            if "nextTime" not in got:
                return have
            assert got["nextTime"] < end, "a step to the left"
            end = got["nextTime"] + 1
            continue
        bars = got["t"]
        assert got["s"] == "ok"
        assert bars == sorted(set(bars))
        assert bars[-1] < end
        assert {len(got[name]) for name in "ohlcv"} == {len(bars)}
        assert all(
            low <= min(first, last) and max(first, last) <= high
            for first, high, low, last in zip(got["o"], got["h"], got["l"], got["c"], strict=True)
        )
        have = [*bars, *have]
        end = bars[0]


async def test_a_chart_can_be_scrolled_to_where_the_history_begins(
    autojump_clock: MockClock,
) -> None:
    async with charts(".history_bars=100") as stack:
        whole = await walk(stack, now_s() + 3600, 30)
        assert len(whole) >= 100
        assert whole == [whole[0] + 60 * n for n in range(len(whole))]
        assert whole[-1] == now_s() // 60 * 60


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("/symbols?symbol=NOPE", "unknown_symbol"),
        ("/symbols", "unknown_symbol"),
        (f"/history?symbol={SYMBOL}&resolution=7&from=1&to=2", "resolution: BTCUSDT has 1 1D"),
        (f"/history?symbol={SYMBOL}&resolution=1&from=x&to=2", "from: not a whole number"),
        (f"/history?symbol={SYMBOL}&resolution=1&from=5&to=5", "from: not before to"),
        (f"/history?symbol={SYMBOL}&resolution=1&from=1&to={'9' * 5000}", "to: not a whole"),
        ("/marks", "/udf/marks: not served"),
    ],
)
async def test_errors_are_json(target: str, problem: str, autojump_clock: MockClock) -> None:
    async with charts() as stack:
        answer = await ask(stack, target)
        assert answer["s"] == "error"
        assert answer["errmsg"].startswith(problem)


async def test_simulated_data_is_served_where_that_is_said(autojump_clock: MockClock) -> None:
    simulated = ("simulator.enabled=true", "simulator.host=box", "simulator.port=82")
    async with charts(*simulated) as stack:
        answer = await ask(stack, "/config")
        assert "dialects.udf.simulated_ok" in answer["errmsg"]
    async with charts(*simulated, OK) as stack:
        head, found = await ask_whole(stack, f"/symbols?symbol={SYMBOL}")
        assert found["description"].endswith("(simulated)")
        assert "x-trio-feed-source: simulated" in head


async def test_a_group_of_symbols_says_the_same_as_each(autojump_clock: MockClock) -> None:
    async with charts() as stack:
        table = await ask(stack, "/symbol_info?group=binance_usdm")
        one = await ask(stack, f"/symbols?symbol={SYMBOL}")
        assert table["symbol"] == [one["name"]]
        assert table["ticker"] == [one["ticker"]]
        assert table["minmovement"] == [one["minmov"]]
        assert table["pricescale"] == [one["pricescale"]]
        assert table["has-intraday"] == [one["has_intraday"]]
        assert table["supported-resolutions"] == [one["supported_resolutions"]]
        assert (table["session-regular"], table["timezone"]) == (one["session"], one["timezone"])
        assert table["type"] == one["type"]
        assert {len(column) for column in table.values() if isinstance(column, list)} == {1}
        assert await ask(stack, "/symbol_info") == table
        head, error = await ask_whole(stack, "/symbol_info?group=NYSE")
        assert head.startswith("http/1.1 404")
        assert error == {"s": "error", "errmsg": "group: one of binance_usdm"}
