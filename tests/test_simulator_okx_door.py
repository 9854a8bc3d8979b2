"""The OKX box over memory streams and virtual time: control, connections, levers, REST."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from support.okx_box import (
    BUSINESS,
    PRIVATE,
    PUBLIC,
    START,
    closed_with,
    collect,
    listen,
    now_ms,
    open_okx,
    request,
    subscribe,
)
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection

from trio_feed.model import Interval
from trio_feed.simulator import ResponseFaults
from trio_feed.simulator.okx.control import REQUESTS_PER_HOUR
from trio_feed.simulator.okx.listing import digits

MINUTE, HOUR = 60_000, 3_600_000
D = Decimal


async def say(websocket: WebSocketConnection, text: str) -> Any:
    """Send one control message and take the first reply that is not data."""
    await websocket.send_message(text)
    while True:
        reply = await websocket.get_message()
        if '"event"' in reply:
            return json.loads(reply)


# --- control --------------------------------------------------------------------------------------


async def test_subscribe_and_unsubscribe(autojump_clock: MockClock) -> None:
    """One ack per arg, in order, before its data; the id comes back; extra keys too."""
    names = ("trades:BTC-USDT", "tickers:BTC-USDT", "books5:NO-SUCH")
    async with open_okx() as box, box.websocket(PUBLIC) as websocket:
        await websocket.send_message(request("subscribe", *names, id="a1B2"))
        first = await collect(websocket, 0.05)
        assert [m.get("event", m["arg"]["channel"] if "arg" in m else "") for m in first] == [
            "subscribe", "trades", "subscribe", "tickers", "error"
        ]  # fmt: skip
        conn_id = first[0]["connId"]
        assert first[0] == {
            "id": "a1B2", "event": "subscribe",
            "arg": {"channel": "trades", "instId": "BTC-USDT"}, "connId": conn_id,
        }  # fmt: skip
        assert first[-1] == {
            "id": "a1B2", "event": "error", "code": "60018",
            "msg": "Wrong URL or channel:books5,instId:NO-SUCH doesn't exist. Please use the "
            "correct URL, channel and parameters referring to API document.",
            "connId": conn_id,
        }  # fmt: skip
        await websocket.send_message(request("unsubscribe", "trades:BTC-USDT"))
        rest = await collect(websocket, 5)
        ack = {"event": "unsubscribe", "arg": first[0]["arg"], "connId": conn_id}
        later = rest[rest.index(ack) :]
        assert {m["arg"]["channel"] for m in later[1:]} == {"tickers"}
        again = await say(websocket, request("subscribe", "tickers:BTC-USDT"))
        assert again["event"] == "subscribe"
        await websocket.send_message("ping")
        assert "pong" in [await websocket.get_message() for _ in range(3)]


ARGS = '"args":[{"channel":"tickers","instId":"BTC-USDT"}]'


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        (PUBLIC, '{"op":"subscribe","argss":[]}', "60012"),
        (PUBLIC, "hello", "60012"),
        (PUBLIC, "[]", "60012"),
        (PUBLIC, "[" * 20_000, "60012"),
        (PUBLIC, '{"op":"subscribe","id":' + "1" * 5000 + "}", "60012"),
        (PUBLIC, '{"op":"subscribe","id":"a-b",' + ARGS + "}", "60012"),
        (PUBLIC, '{"op":"subscribe","args":[]}', "60013"),
        (PUBLIC, '{"op":"subscribe","args":["tickers"]}', "60013"),
        (PUBLIC, '{"op":"subscribe","args":[{"instId":"BTC-USDT"}]}', "60013"),
        (PUBLIC, '{"op":"dance",' + ARGS + "}", "60019"),
        (PUBLIC, '{"op":["subscribe"],' + ARGS + "}", "60019"),
        (PUBLIC, '{"op":"subscribe","args":[{"channel":"tickers","instId":5}]}', "60018"),
        (PUBLIC, subscribe("candle1m:BTC-USDT"), "60018"),
        (PUBLIC, subscribe("trades-all:BTC-USDT"), "60018"),
        (PUBLIC, subscribe("tickers:BTCUSDT"), "60018"),
        (PUBLIC, subscribe("tickers:btc-usdt"), "60018"),
        (PUBLIC, request("unsubscribe", "ticker:BTC-USDT"), "60018"),
        (PUBLIC, subscribe("index-candle1m:BTC-USDT"), "64001"),
        (PUBLIC, subscribe("books-l2-tbt:BTC-USDT"), "60011"),
        (PUBLIC, '{"op":"login","args":[{"apiKey":"x"}]}', "60028"),
        (BUSINESS, subscribe("tickers:BTC-USDT"), "60018"),
        (BUSINESS, subscribe("candle1h:BTC-USDT"), "60018"),
        (BUSINESS, subscribe("candle8H:BTC-USDT"), "60018"),
        (BUSINESS, subscribe("candle4Hutc:BTC-USDT"), "60018"),
        (PRIVATE, '{"op":"subscribe","args":[{"channel":"orders","instType":"ANY"}]}', "60011"),
        (PRIVATE, '{"op":"login","args":[{"apiKey":"x"}]}', "60005"),
    ],
)
async def test_errors(path: str, text: str, code: str, autojump_clock: MockClock) -> None:
    """An error, without ``arg``, and the connection lives on."""
    async with open_okx() as box, box.websocket(path) as websocket:
        reply = await say(websocket, text)
        assert list(reply) == ["event", "code", "msg", "connId"]
        assert (reply["event"], reply["code"]) == ("error", code)
        await websocket.send_message("ping")
        assert await websocket.get_message() == "pong"


async def test_480_requests_an_hour(autojump_clock: MockClock) -> None:
    async with open_okx() as box, box.websocket(PUBLIC) as websocket:
        ask, drop = (request(op, "tickers:BTC-USDT") for op in ("subscribe", "unsubscribe"))
        for _ in range(REQUESTS_PER_HOUR // 2):
            assert (await say(websocket, ask))["event"] == "subscribe"
            assert (await say(websocket, drop))["event"] == "unsubscribe"
        refused = await say(websocket, ask)
        assert (refused["event"], refused["code"]) == ("error", "60014")
        await listen(websocket, 3601)
        assert (await say(websocket, ask))["event"] == "subscribe"


# --- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pings", [False, True])
async def test_without_a_subscription_it_ends(pings: bool, autojump_clock: MockClock) -> None:
    async with open_okx() as box, box.websocket(PUBLIC) as websocket:
        await trio.sleep(20)
        if pings:
            await websocket.send_message("ping")
        assert await closed_with(websocket) == (4004, "No data received in 30s")
        assert trio.current_time() == pytest.approx(30, abs=0.1)
        await wait_all_tasks_blocked()
        assert box.exchange.connections == []


async def test_idle_ends_it_and_ping_keeps_it(autojump_clock: MockClock) -> None:
    """30 s after the last thing sent; a pong is one; data are some."""
    async with open_okx(symbols=("BTCUSDT",), trades=4) as box:
        async with box.websocket(BUSINESS, "candle1Mutc:BTC-USDT") as websocket:
            await listen(websocket, 3600)
            assert len(box.exchange.connections) == 1
        async with box.websocket(BUSINESS, "candle1m:BTC-USDT") as websocket:
            with trio.move_on_after(3600):  # some trade every 15 s on average
                assert await closed_with(websocket) == (4004, "No data received in 30s")
        async with box.websocket(BUSINESS, "candle1m:BTC-USDT") as websocket:
            await wait_all_tasks_blocked()
            box.exchange.connections[-1].mute()
            began = trio.current_time()
            assert await listen(websocket, 120) == []  # a ping every 20 s is answered
            assert await closed_with(websocket) == (4004, "No data received in 30s")
            assert trio.current_time() - began == pytest.approx(150, abs=1)


async def test_upgrade_notice(autojump_clock: MockClock) -> None:
    """60 s ahead, and not on /business."""
    async with (
        open_okx() as box,
        box.websocket(PUBLIC, "trades:BTC-USDT") as public,
        box.websocket(BUSINESS, "trades-all:BTC-USDT") as business,
    ):
        await trio.sleep(5)
        box.exchange.announce_upgrade()
        messages = [m for m in await collect(public, 10) if "event" in m][1:]
        assert [(m["event"], m["code"]) for m in messages] == [("notice", "64008")]
        assert list(messages[0]) == ["event", "code", "msg", "connId"]
        events = [m["event"] for m in await collect(business, 1) if "event" in m]
        assert events == ["subscribe"]
        async with box.websocket(PUBLIC, "trades:BTC-USDT") as fresh:
            for websocket in (public, business):
                assert (await closed_with(websocket))[0] == 1001
            assert trio.current_time() == pytest.approx(65, abs=0.5)
            assert await listen(fresh, 60)


async def test_messages_above_64_kb(autojump_clock: MockClock) -> None:
    async with open_okx() as box, box.websocket(PUBLIC) as websocket:
        names = [f"tickers:NAME-NUMBER-{n:05d}" for n in range(1_300)]
        await websocket.send_message(subscribe(*names))
        assert (await closed_with(websocket))[0] == 1009


async def test_levers(autojump_clock: MockClock) -> None:
    async with open_okx() as box:
        async with box.websocket(PUBLIC, "trades:BTC-USDT") as websocket:
            await wait_all_tasks_blocked()
            box.exchange.connections[0].abort()
            assert await closed_with(websocket) == (1006, None)
        async with box.websocket(PUBLIC, "trades:BTC-USDT") as websocket:
            await wait_all_tasks_blocked()
            box.exchange.connections[0].close(1012, "restart")
            assert await closed_with(websocket) == (1012, "restart")
        assert (box.exchange.dials, box.exchange.upgrades) == (2, 2)
        for lever in (box.exchange.gap_books, box.exchange.reset_books):
            with pytest.raises(KeyError):
                lever("BTCUSDT")


async def test_refused_upgrades(autojump_clock: MockClock) -> None:
    faults = ResponseFaults()
    faults.refuse_upgrades(503)
    async with open_okx(faults=faults) as box:
        box.exchange.refuse_upgrades(429, count=2)
        assert [await box.knock(PUBLIC) for _ in range(4)] == [503, 429, 429, 101]
        for path in ("/ws/v5", "/ws/v5/", "/ws/v5/public/", "/ws/v3/public", "/"):
            assert await box.knock(path) == 404
        box.exchange.connects_per_s = 3
        await trio.sleep(2)
        assert [await box.knock(BUSINESS) for _ in range(5)] == [101, 101, 101, 429, 429]
        await trio.sleep(1)
        assert await box.knock(PRIVATE) == 101


async def test_a_full_queue_drops_the_client(autojump_clock: MockClock) -> None:
    async with open_okx(trades=60_000) as box, trio.open_nursery() as nursery:
        theirs, ours = trio.testing.lockstep_stream_pair()
        nursery.start_soon(box.exchange.serve_stream, theirs)
        await ours.send_all(
            b"GET /ws/v5/business HTTP/1.1\r\nHost: box\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await ours.receive_some()
        text = subscribe("trades-all:BTC-USDT").encode()
        await ours.send_all(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
        await trio.sleep(9)
        assert box.exchange.slow_clients == 1
        assert box.exchange.connections == []


async def test_delisted(autojump_clock: MockClock) -> None:
    """Nothing is pushed any more, nothing can be subscribed, and the list says suspend."""
    async with open_okx() as box:
        await trio.sleep(0.05)
        async with box.websocket(PUBLIC, "trades:SOL-USDT") as websocket:
            assert await listen(websocket, 2)
            box.market.delist("SOLUSDT")
            assert await listen(websocket, 10) == []
            assert (await say(websocket, subscribe("books:SOL-USDT-SWAP")))["code"] == "60018"
            box.market.list_symbol("XRPUSDT")
            reply = await say(websocket, subscribe("trades:XRP-USDT"))
            assert reply["event"] == "subscribe"
        rows = await box.data("public/instruments?instType=SWAP")
        assert {row["instId"]: row["state"] for row in rows} == {
            "BTC-USDT-SWAP": "live", "ETH-USDT-SWAP": "live", "SOL-USDT-SWAP": "suspend",
            "XRP-USDT-SWAP": "live",
        }  # fmt: skip


# --- REST -----------------------------------------------------------------------------------------

CANDLES = "market/candles?instId=BTC-USDT&bar=1m"
HISTORY = "market/history-candles?instId=BTC-USDT&bar=1m"


def opens(rows: Sequence[Any]) -> list[int]:
    return [int(row[0]) for row in rows]


async def test_candles_by_rest(autojump_clock: MockClock) -> None:
    """Newest first; exclusive bounds; the open bar in ``candles`` only."""
    async with open_okx() as box:
        await trio.sleep(90.5)
        rows = await box.data(CANDLES)
        assert opens(rows) == list(range(START + MINUTE, START - 99 * MINUTE, -MINUTE))
        assert [row[-1] for row in rows] == ["0"] + ["1"] * 99
        assert (await box.data(HISTORY))[:99] == rows[1:]
        candle = box.market.candle("BTCUSDT", Interval.M1, START)
        assert rows[1] == [
            str(START), *(digits(v) for v in (candle.open, candle.high, candle.low, candle.close)),
            digits(candle.volume), *[digits(candle.quote_volume)] * 2, "1",
        ]  # fmt: skip
        for base in (CANDLES, HISTORY):
            for limit, count in ((1, 1), (300, 300), (301, 300)):
                assert len(await box.data(f"{base}&limit={limit}")) == count
            older = await box.data(f"{base}&after={START}&limit=2")
            assert opens(older) == [START - MINUTE, START - 2 * MINUTE]
            window = f"&after={START}&before={START - 4 * MINUTE}"
            assert opens(await box.data(base + window)) == [START - n * MINUTE for n in (1, 2, 3)]
        newer = await box.data(f"{CANDLES}&before={START - 1000 * MINUTE}&limit=2")
        assert opens(newer) == [START + MINUTE, START]  # the latest page, not the next one
        assert await box.data(f"{CANDLES}&before={START + MINUTE}") == []
        edge = await box.data(f"{CANDLES}&after={START - 1437 * MINUTE}")
        assert opens(edge) == [START - 1438 * MINUTE]  # the 1,440th
        old = await box.data(f"{HISTORY}&after={START - 1437 * MINUTE}")
        assert len(old) == 100
        first = await box.data(
            "market/history-candles?instId=BTC-USDT&bar=1Dutc&after=1567555200000"
        )
        assert opens(first) == [1567468800000, 1567382400000, 1567296000000]
        swap = await box.data("market/candles?instId=BTC-USDT-SWAP&bar=1D&limit=1")
        assert opens(swap) == [START - 20 * HOUR]
        assert D(swap[0][5]) == 100 * D(swap[0][6])


async def test_other_endpoints(autojump_clock: MockClock) -> None:
    async with open_okx() as box:
        assert await box.data("public/time") == [{"ts": str(START)}]
        spot = await box.data("public/instruments?instType=SPOT")
        assert [(r["instId"], r["baseCcy"], r["quoteCcy"], r["tickSz"]) for r in spot] == [
            ("BTC-USDT", "BTC", "USDT", "0.1"),
            ("ETH-USDT", "ETH", "USDT", "0.01"),
            ("SOL-USDT", "SOL", "USDT", "0.001"),
        ]
        swap = await box.data("public/instruments?instType=SWAP")
        assert [(r["instId"], r["ctVal"], r["ctValCcy"], r["lotSz"]) for r in swap] == [
            ("BTC-USDT-SWAP", "0.01", "BTC", "0.1"),
            ("ETH-USDT-SWAP", "0.1", "ETH", "0.01"),
            ("SOL-USDT-SWAP", "1", "SOL", "1"),
        ]
        one = await box.data("public/instruments?instType=SWAP&instId=ETH-USDT-SWAP")
        assert one == swap[1:2]
        assert await box.data("public/instruments?instType=FUTURES") == []
        (book,) = await box.data("market/books?instId=BTC-USDT")
        assert list(book) == ["asks", "bids", "ts", "seqId"]
        assert len(book["asks"]) == len(book["bids"]) == 1
        (ticker,) = await box.data("market/ticker?instId=BTC-USDT")
        assert (await box.data("market/tickers?instType=SPOT"))[0] == ticker


async def test_trades_by_rest(autojump_clock: MockClock) -> None:
    async with open_okx() as box:
        await trio.sleep(3)
        rows = await box.data("market/trades?instId=BTC-USDT&limit=500")
        ids = [int(row["tradeId"]) for row in rows]
        assert ids == list(range(ids[0], ids[0] - 500, -1))
        assert 0 <= now_ms() - int(rows[0]["ts"]) < 1000
        path = "market/history-trades?instId=BTC-USDT"
        assert await box.data(path) == rows[:100]
        assert await box.data(f"{path}&after={ids[100]}") == rows[101:201]
        assert await box.data(f"{path}&after={ids[100]}&before={ids[110]}") == rows[101:110]
        assert await box.data(f"{path}&before={ids[5]}&limit=3") == rows[:3]
        assert await box.data(f"{path}&type=2&after={rows[7]['ts']}&limit=2") == rows[8:10]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("market/candles?instId=NO-SUCH", "51001"),
        ("market/candles?bar=1m", "50014"),
        ("market/candles?instId=BTC-USDT&bar=8H", "51000"),
        ("market/candles?instId=BTC-USDT&after=x", "51000"),
        ("market/candles?instId=BTC-USDT&limit=0", "51000"),
        ("market/books?instId=BTC-USDT&sz=-1", "51000"),
        ("market/history-trades?instId=BTC-USDT&type=3", "51000"),
        ("public/instruments", "50014"),
        ("public/instruments?instType=spot", "51000"),
        ("public/instruments?instType=OPTION", "50015"),
    ],
)
async def test_rest_errors(target: str, code: str, autojump_clock: MockClock) -> None:
    async with open_okx() as box:
        answer = await box.get(f"/api/v5/{target}")
    assert answer.status == 200
    told = answer.json()
    assert (told["code"], told["data"], bool(told["msg"])) == (code, [], True)


async def test_rest_budget(autojump_clock: MockClock) -> None:
    """Per endpoint, in any two seconds."""
    async with open_okx() as box:
        for path, most in ((CANDLES, 40), (HISTORY, 20)):
            statuses = [(await box.get(f"/api/v5/{path}&limit=1")).status for _ in range(most + 2)]
            assert statuses == [200] * most + [429] * 2
        answer = await box.get(f"/api/v5/{CANDLES}")
        assert answer.json()["code"] == "50011"
        await trio.sleep(2)
        assert (await box.get(f"/api/v5/{CANDLES}")).status == 200
        assert (await box.get("/api/v5/nothing")).status == 404
        for status in (451, 429, 503):
            box.exchange.rest_status(status)
        answers = [await box.get("/api/v5/public/time") for _ in range(4)]
        assert [a.status for a in answers] == [451, 429, 503, 200]
        assert answers[1].json()["code"] == "50011"
        assert box.exchange.requests == 71
