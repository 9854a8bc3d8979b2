"""What spot does otherwise than USD-M: paths, limits, REST, refusals; serverShutdown on both."""

from decimal import Decimal
from typing import Any

import h11
import pytest
import trio
from support.exchange import START, ask, collect, open_box, say
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from trio_feed.model import Interval

MINUTE = 60_000


async def closed_with(websocket: WebSocketConnection) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        await collect(websocket, 60)
    assert caught.value.reason is not None
    return caught.value.reason.code


@pytest.mark.parametrize("path", ["/market/ws", "/public/stream", "/private/ws", "/ws-api/v2"])
async def test_spot_has_no_routes(path: str, autojump_clock: MockClock) -> None:
    async with open_box(venue="binance") as box:
        with pytest.RaisesGroup(ConnectionRejected):
            async with box.websocket(path):
                pass


@pytest.mark.parametrize(
    "name",
    [
        "!ticker@arr",  # retired on 2026-03-26
        "BTCUSDT@kline_1m",
        "btcusdt@kline_30s",
        "btcusdt@depth@250ms",
        "btcusdt@depth7",
        "btcusdt_perpetual@continuousKline_1m",
        "btcusdt@markPrice",
        "nosuchusdt@trade",
    ],
)
async def test_spot_silence(name: str, autojump_clock: MockClock) -> None:
    """Acked, and nothing comes."""
    async with open_box(venue="binance") as box, box.websocket("/ws") as websocket:
        assert await say(websocket, {"method": "SUBSCRIBE", "params": [name], "id": 1}) == {
            "result": None,
            "id": 1,
        }
        assert await collect(websocket, 45) == []


async def test_spot_candles(autojump_clock: MockClock) -> None:
    """Every two seconds, every second for 1s; the closing frame at the end; eight decimals."""
    path = "/stream?streams=btcusdt@kline_1m/btcusdt@kline_1s"
    async with open_box(venue="binance") as box, box.websocket(path) as websocket:
        messages = [m["data"] for m in await collect(websocket, 61.5)]
        candle = box.market.candle("BTCUSDT", Interval.M1, START)
    minutes = [m for m in messages if m["k"]["i"] == "1m"]
    assert [m["E"] - START for m in minutes[:3]] == [2000, 4000, 6000]
    closed = [m["k"] for m in minutes if m["k"]["x"]]
    assert [Decimal(closed[0][key]) for key in "ohlcv"] == [
        candle.open, candle.high, candle.low, candle.close, candle.volume
    ]  # fmt: skip
    assert len(closed[0]["c"].partition(".")[2]) == 8
    seconds = [m["k"]["t"] for m in messages if m["k"]["i"] == "1s" and m["k"]["x"]]
    assert seconds == list(range(START, START + 61_000, 1000))


async def test_five_messages_a_second(autojump_clock: MockClock) -> None:
    async with open_box(venue="binance") as box, box.websocket("/ws") as websocket:
        for _ in range(3):
            for n in range(5):
                await say(websocket, {"method": "LIST_SUBSCRIPTIONS", "id": n})
            await trio.sleep(1.01)
        for _ in range(6):
            await websocket.ping()
        assert await closed_with(websocket) == 1008


async def test_a_ping_every_20_seconds(autojump_clock: MockClock) -> None:
    """Without pongs it ends after the first minute without one; with pongs it lives on."""
    async with open_box(venue="binance") as box:
        stream = await box.network.dial("box", 443)
        http = h11.Connection(h11.CLIENT)
        upgrading = (
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        )
        assert (await ask(stream, http, "/ws", *upgrading)).status == 101
        received = b""
        while data := await stream.receive_some():
            received += data
        assert 60 < trio.current_time() <= 85
        assert received.count(b"\x89\x00") == 3
        async with box.websocket("/ws") as websocket:
            assert await collect(websocket, 605) == []
            assert len(box.exchange.connections) == 1


@pytest.mark.parametrize(
    ("venue", "base"), [("binance", ""), ("binance_usdm", "/market"), ("binance_usdm", "/public")]
)
async def test_server_shutdown(venue: str, base: str, autojump_clock: MockClock) -> None:
    """Every open connection is told, in its own form, and lives on."""
    async with (
        open_box(venue=venue) as box,
        box.websocket(f"{base}/ws") as raw,
        box.websocket(f"{base}/stream") as wrapped,
    ):
        await trio.sleep(5)
        box.exchange.announce_shutdown()
        event = {"e": "serverShutdown", "E": START + 5000}
        assert await collect(raw, 1) == [event]
        assert await collect(wrapped, 1) == [{"stream": "!serverShutdown", "data": event}]
        assert len(box.exchange.connections) == 2


DAY_KEYS = (
    "symbol priceChange priceChangePercent weightedAvgPrice lastPrice lastQty openPrice highPrice "
    "lowPrice volume quoteVolume openTime closeTime firstId lastId count"
)
TOP_KEYS = "bidPrice bidQty askPrice askQty"


@pytest.mark.parametrize(
    ("venue", "target", "keys"),
    [
        ("binance", "/api/v3/ping", ""),
        ("binance", "/api/v3/time", "serverTime"),
        ("binance", "/api/v3/aggTrades?symbol=BTCUSDT", "a p q f l T m M"),
        ("binance", "/api/v3/trades?symbol=BTCUSDT",
         "id price qty quoteQty time isBuyerMaker isBestMatch"),
        ("binance", "/api/v3/depth?symbol=BTCUSDT", "lastUpdateId bids asks"),
        ("binance", "/api/v3/ticker/24hr?symbol=BTCUSDT", f"{DAY_KEYS} prevClosePrice {TOP_KEYS}"),
        ("binance", "/api/v3/ticker/24hr", f"{DAY_KEYS} prevClosePrice {TOP_KEYS}"),
        ("binance", "/api/v3/ticker/bookTicker?symbol=BTCUSDT", f"symbol {TOP_KEYS}"),
        ("binance", "/api/v3/ticker/price", "symbol price"),
        ("binance_usdm", "/fapi/v1/aggTrades?symbol=BTCUSDT", "a p q nq f l T m"),
        ("binance_usdm", "/fapi/v1/trades?symbol=BTCUSDT",
         "id price qty quoteQty time isBuyerMaker isRPITrade"),
        ("binance_usdm", "/fapi/v1/depth?symbol=BTCUSDT", "lastUpdateId E T bids asks"),
        ("binance_usdm", "/fapi/v1/ticker/24hr?symbol=BTCUSDT", DAY_KEYS),
        ("binance_usdm", "/fapi/v1/ticker/bookTicker", f"symbol {TOP_KEYS} time"),
        ("binance_usdm", "/fapi/v1/ticker/price?symbol=BTCUSDT", "symbol price time"),
        ("binance_usdm", "/fapi/v1/premiumIndex?symbol=BTCUSDT",
         "symbol markPrice indexPrice estimatedSettlePrice lastFundingRate interestRate "
         "nextFundingTime time"),
    ],
)  # fmt: skip
async def test_rest_forms(venue: str, target: str, keys: str, autojump_clock: MockClock) -> None:
    async with open_box(venue=venue) as box:
        answer = await box.ask_json(target)
    assert " ".join(answer[0] if isinstance(answer, list) else answer) == keys


async def test_spot_rest(autojump_clock: MockClock) -> None:
    async with open_box(venue="binance") as box:
        rows = await box.ask_json("/api/v3/klines?symbol=BTCUSDT&interval=1s&limit=1500")
        assert len(rows) == 1000  # asked for more than there may be: cut, not refused
        assert rows[0][1] == f"{Decimal(rows[0][1]):.8f}"
        old = START - 1000 * 86_400_000
        trades = f"/api/v3/aggTrades?symbol=BTCUSDT&startTime={old}&limit=3"
        assert (await box.ask_json(trades))[0]["T"] >= old  # kept for ever
        book = await box.ask_json("/api/v3/depth?symbol=BTCUSDT")
        assert (len(book["bids"]), len(book["asks"])) == (100, 100)
        whole = await box.ask_json("/api/v3/depth?symbol=BTCUSDT&limit=9999")
        assert len(whole["bids"]) > 1000
        last = (await box.ask_json("/api/v3/trades?symbol=BTCUSDT&limit=1"))[-1]
        top = await box.ask_json("/api/v3/ticker/bookTicker?symbol=BTCUSDT")
        assert last["price"] in (top["bidPrice"], top["askPrice"])


async def test_spot_exchange_info(autojump_clock: MockClock) -> None:
    async with open_box(venue="binance") as box:
        info = await box.ask_json("/api/v3/exchangeInfo?permissions=SPOT")
        assert [row["symbol"] for row in info["symbols"]] == ["BTCUSDT", "ETHUSDT"]
        assert info["rateLimits"][0]["limit"] == 6000
        assert info["symbols"][0]["filters"][0]["tickSize"] == "0.10000000"
        some = await box.ask_json('/api/v3/exchangeInfo?symbols=["ETHUSDT"]')
        assert [row["symbol"] for row in some["symbols"]] == ["ETHUSDT"]
        box.market.delist("ETHUSDT")
        one = await box.ask_json("/api/v3/exchangeInfo?symbol=ETHUSDT")
        assert one["symbols"][0]["status"] == "BREAK"


@pytest.mark.parametrize(
    ("venue", "target", "status", "code"),
    [
        ("binance", "/api/v3/klines?symbol=NOSUCH&interval=1m", 400, -1121),
        ("binance", "/api/v3/klines?symbol=BTCUSDT&interval=30s", 400, -1120),
        ("binance", "/api/v3/klines?symbol=BTCUSDT", 400, -1102),
        ("binance", "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=0", 400, -1130),
        ("binance", "/api/v3/exchangeInfo?symbol=NOSUCH", 400, -1121),
        ("binance", "/api/v3/exchangeInfo?symbols=NOSUCH", 400, -1100),
        ("binance", "/api/v3/nothing", 404, -5000),
        ("binance", "/fapi/v1/time", 404, -5000),
        ("binance_usdm", "/api/v3/time", 404, -5000),
        ("binance_usdm", "/fapi/v1/depth?symbol=BTCUSDT&limit=30", 400, -4021),
        ("binance_usdm", "/fapi/v1/trades?symbol=BTCUSDT&limit=1001", 400, -1130),
    ],
)
async def test_refusals(
    venue: str, target: str, status: int, code: int, autojump_clock: MockClock
) -> None:
    async with open_box(venue=venue) as box:
        answer = await box.get(target)
    assert (answer.status, answer.json()["code"]) == (status, code)


async def test_spot_weight(autojump_clock: MockClock) -> None:
    """6000 a minute; 429, then 418, both saying in seconds when to come back."""
    weights = {
        "depth?symbol=BTCUSDT&limit=100": 5, "depth?symbol=BTCUSDT&limit=500": 25,
        "depth?symbol=BTCUSDT&limit=1000": 50, "depth?symbol=BTCUSDT&limit=5000": 250,
        "klines?symbol=BTCUSDT&interval=1d": 2, "aggTrades?symbol=BTCUSDT&limit=1": 4,
        "trades?symbol=BTCUSDT&limit=1": 25, "exchangeInfo": 20, "ticker/24hr": 80,
        "ticker/24hr?symbol=BTCUSDT": 2, "ticker/bookTicker": 4,
    }  # fmt: skip
    async with open_box(venue="binance") as box:
        await trio.sleep(30)
        used = 0
        for target, weight in weights.items():
            answer = await box.get(f"/api/v3/{target}")
            used += weight
            assert int(answer.headers["x-mbx-used-weight-1m"]) == used, target
        statuses: list[Any] = []
        while len(statuses) < 6 or statuses[-1][0] != 418:
            answer = await box.get("/api/v3/depth?symbol=BTCUSDT&limit=5000")
            if answer.status != 200:
                statuses.append((answer.status, answer.headers.get("retry-after")))
        assert statuses == [(429, "30")] * 5 + [(418, "120")]
        assert f"IP banned until {START + 150_000}." in answer.json()["msg"]
        await trio.sleep(120.1)
        assert (await box.get("/api/v3/ping")).status == 200


async def test_usdm_does_not_say_when_to_come_back(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        box.exchange.rest_status(429)
        assert "retry-after" not in (await box.get("/fapi/v1/ping")).headers
