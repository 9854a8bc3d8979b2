"""Open interest: asked for again and again, from the simulated exchange to every kind of client."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
from support.stack import START_MS, Stack, open_stack, push_client, settings_for_tests
from test_dialect_binance import ask, socket
from trio.testing import MockClock

from trio_feed.client import OpenInterestUpdate, wire
from trio_feed.client.messages import Stream as Subscribed
from trio_feed.core.channels import body
from trio_feed.dialects.okx import encoders
from trio_feed.errors import BadMessage
from trio_feed.model import Channel, Instrument, OpenInterest
from trio_feed.simulator.market.interest import held
from trio_feed.venues.binance import usdm
from trio_feed.venues.okx import venue as okx

BTC = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual")
SWAP = Instrument("okx", "BTCUSDTSWAP", "BTC-USDT-SWAP", "perpetual")
D = Decimal


@asynccontextmanager
async def fed(venue: str, symbol: str, *more: str) -> AsyncIterator[Stack]:
    channels = ".channels=['kline','open_interest']"
    symbols = f".symbols={json.dumps([symbol])}"
    settings = settings_for_tests(symbols, channels, ".open_interest_s=10", *more, venue=venue)
    async with open_stack(settings) as stack:
        yield stack


def test_the_words_of_binance() -> None:
    """The example of its page (USD-M, 2026-05-28)."""
    answer = b'{"openInterest":"10659.509","symbol":"BTCUSDT","time":1589437530011}'
    found = OpenInterest("BTCUSDT", D("10659.509"), None, 1589437530011)
    assert usdm.parse_open_interest(answer, BTC) == found
    question = usdm.open_interest_question(BTC)
    assert (question.path, question.params, question.weight) == (
        "/fapi/v1/openInterest", {"symbol": "BTCUSDT"}, 1,
    )  # fmt: skip
    assert body(found) == '{"amount":10659.509,"worth":null,"time":1589437530011}'


def test_the_words_of_okx() -> None:
    """The example of its page (v5, 2026-07)."""
    answer = (
        b'{"code":"0","data":[{"instId":"BTC-USDT-SWAP","instType":"SWAP","oi":"2125419.62",'
        b'"oiCcy":"21254.1962","oiUsd":"1300000000.5","ts":"1597026383085"}],"msg":""}'
    )
    found = OpenInterest("BTCUSDTSWAP", D("21254.1962"), D("1300000000.5"), 1597026383085)
    assert okx.parse_open_interest(answer, SWAP) == found
    assert okx.open_interest_question(Instrument("okx", "BTCUSDT", "BTC-USDT", "spot")) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[]", b"{}", b'{"openInterest":"x","time":1}', b'{"openInterest":1,"time":1}',
        b'{"openInterest":"1","time":-1}', b'{"openInterest":"NaN","time":1}', b"\xff",
        b'{"openInterest":"1","time":' + b"9" * 5000 + b"}", b"[" * 5000,
    ],
)  # fmt: skip
def test_answers_that_are_none(answer: bytes) -> None:
    with pytest.raises(BadMessage):
        usdm.parse_open_interest(answer, BTC)
    with pytest.raises(BadMessage):
        okx.parse_open_interest(answer, SWAP)
    with pytest.raises(BadMessage):
        okx.parse_open_interest(b'{"code":"0","msg":"","data":[' + answer + b"]}", SWAP)


def test_the_typed_client_has_it() -> None:
    text = (
        '{"type":"open_interest_data","data":{"symbol":"BTCUSDT","exchange":"binance_usdm",'
        '"epoch":1,"offset":2,"source":"exchange","event_time":7,"received_at":8.0,"sent_at":9.0,'
        '"data":{"amount":1.50,"worth":null,"time":7}}}'
    )
    message = wire.parse(text)
    assert isinstance(message, wire.OpenInterestData)
    value = message.data.data.value("BTCUSDT", 7)
    assert value == OpenInterest("BTCUSDT", D("1.50"), None, 7)
    stream = Subscribed("BTCUSDT", Channel.OPEN_INTEREST, None, "binance_usdm")
    assert OpenInterestUpdate(stream, value, message.data.origin).open_interest == value  # type: ignore[arg-type]


@pytest.mark.parametrize("venue", ["binance_usdm", "okx"])
async def test_all_the_way(venue: str, autojump_clock: MockClock) -> None:
    symbol = "BTCUSDT" if venue == "binance_usdm" else "BTCUSDTSWAP"
    async with fed(venue, symbol) as stack, push_client(stack) as client:
        await client.ask(type="subscribe", symbol=symbol, channel="open_interest")
        seen: list[int] = []
        while len(seen) < 4:

            def fresh(message: dict[str, Any]) -> bool:
                kind = message["type"] == "open_interest_data"
                return kind and message["data"]["data"]["time"] not in seen

            row = (await client.wait_for(fresh))["data"]["data"]
            seen.append(row["time"])
            assert D(str(row["amount"])) == held(stack.market, "BTCUSDT", seen[-1])
        assert [after - before for before, after in pairwise(seen)] == [10_000] * 3
        offsets = [
            m["data"]["offset"] for m in client.messages if m["type"] == "open_interest_data"
        ]
        assert offsets == sorted(set(offsets))


async def test_who_waits_hears_of_an_exchange_that_does_not_answer(
    autojump_clock: MockClock,
) -> None:
    async with fed("binance_usdm", "BTCUSDT") as stack, push_client(stack) as client:
        await client.ask(type="subscribe", symbol="BTCUSDT", channel="open_interest")
        await client.of_type("open_interest_data")
        stack.exchange.rest_status(500, 4)

        def status(state: str) -> Callable[[dict[str, Any]], bool]:
            return lambda m: m["type"] == "stream_status" and m["data"]["status"] == state

        told = await client.wait_for(status("stale"))
        assert "not answered" in told["data"]["reason"]
        await client.wait_for(status("live"))


async def test_rest_of_the_dialect(autojump_clock: MockClock) -> None:
    async with fed("binance_usdm", "BTCUSDT") as stack:
        await trio.sleep(25)
        path = "/binance_usdm/fapi/v1/openInterest"
        _, answer, _ = await ask(stack, f"{path}?symbol=BTCUSDT")
        amount = str(held(stack.market, "BTCUSDT", answer["time"]))
        assert answer == {"openInterest": amount, "symbol": "BTCUSDT", "time": answer["time"]}
        assert START_MS <= answer["time"] <= START_MS + 25_000
        status, error, _ = await ask(stack, path)
        assert (status, error["code"]) == (400, -1102)


async def test_of_okxs_dialect(autojump_clock: MockClock) -> None:
    """The channel begins with the last word, REST has the same row; contracts and coins."""
    async with fed("okx", "BTCUSDTSWAP") as stack:
        await trio.sleep(25)
        path = "/okx/api/v5/public/open-interest"
        swap = f"{path}?instType=SWAP&instId=BTC-USDT-SWAP"
        (row,) = (await ask(stack, swap))[1]["data"]
        assert list(row) == ["instType", "instId", "oi", "oiCcy", "oiUsd", "ts"]
        assert (row["instType"], row["instId"]) == ("SWAP", "BTC-USDT-SWAP")
        assert D(row["oiCcy"]) == held(stack.market, "BTCUSDT", int(row["ts"]))
        assert D(row["oi"]) == D(row["oiCcy"]) / D("0.01")
        assert (await ask(stack, f"{path}?instType=SWAP"))[1]["data"] == [row]
        for wrong, code in (("", "50014"), ("?instType=SPOT", "51000"), ("?instType=X", "51000"),
                            ("?instType=FUTURES&instId=BTC-USDT-SWAP", "51000"),
                            ("?instType=SWAP&instId=NO-NE", "51001")):  # fmt: skip
            assert (await ask(stack, path + wrong))[1]["code"] == code
        async with socket(stack, "/okx/ws/v5/public") as client:
            arg = {"channel": "open-interest", "instId": "BTC-USDT-SWAP"}
            await client.send(json.dumps({"op": "subscribe", "args": [arg]}))
            assert (await client.next())["event"] == "subscribe"
            said = [await client.next() for _ in range(2)]
            assert [each["arg"] for each in said] == [arg, arg]
            assert [list(each["data"][0]) for each in said] == [list(row)] * 2


def test_contracts_of_an_inverse_one_are_dollars() -> None:
    coin = Instrument("okx", "BTCUSDSWAP", "BTC-USD-SWAP", "inverse_perpetual", "BTC", "USD",
                      contract_size=D(100))  # fmt: skip
    told = OpenInterest("BTCUSDSWAP", D("12.5"), D("1300000"), 7)
    row = json.loads(encoders.open_interest(coin, told))
    assert (row["oi"], row["oiCcy"], row["oiUsd"], row["ts"]) == ("13000", "12.5", "1300000", "7")
    unknown = OpenInterest("BTCUSDSWAP", D("12.5"), None, 7)
    assert json.loads(encoders.open_interest(coin, unknown))["oi"] == ""


async def test_without_the_channel_it_is_refused(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        await trio.sleep(5)
        path = "/binance_usdm/fapi/v1/openInterest?symbol=BTCUSDT"
        status, error, _ = await ask(stack, path)
        assert (status, error["code"]) == (400, -1020)
        assert "open_interest of BTCUSDT is not fed" in error["msg"]


async def test_a_small_budget_makes_the_rounds_longer(autojump_clock: MockClock) -> None:
    """The exchange is never asked for more than the budget, and candles still come."""
    more = (".connection.rest_weight_per_minute=20", ".open_interest_s=1", ".history_bars=5")
    async with fed("binance_usdm", "BTCUSDT", *more) as stack:
        await trio.sleep(120)
        before = stack.exchange.weight
        await trio.sleep(600)
        spent = stack.exchange.weight - before
        assert 100 <= spent <= 20 * 11
