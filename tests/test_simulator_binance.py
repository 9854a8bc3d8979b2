"""The Binance box over memory streams and virtual time, driven by clients that we did not write."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import h11
import pytest
import trio
import trio.testing
from support.counted import count_steps
from support.exchange import START, Box, ask, collect, open_box, say, settled
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection

from trio_feed.core.calendar import open_of
from trio_feed.model import Interval
from trio_feed.simulator import ResponseFaults

MINUTE = 60_000
DAY_S = 24 * 3600


async def closed_with(websocket: WebSocketConnection) -> tuple[int, str | None]:
    """Read until the other side closes -> code and reason."""

    async def read() -> None:
        while True:
            await websocket.get_message()

    with pytest.raises(ConnectionClosed) as caught:
        await read()
    assert caught.value.reason is not None
    return caught.value.reason.code, caught.value.reason.reason


async def test_the_ticker_sleeps_from_event_to_event(autojump_clock: MockClock) -> None:
    """A virtual day of one stream: it wakes for what it pushes, however fine its grid is."""
    steps = count_steps()
    closed, pushed = [], 0
    async with open_box(symbols=("BTCUSDT",), trades=4, push_ms=30_000) as box:
        async with box.websocket("/market/ws/btcusdt_perpetual@continuousKline_1m") as websocket:
            for message in await collect(websocket, DAY_S - 1):
                pushed += 1
                if message["k"]["x"]:
                    closed.append(message["k"]["t"])
    assert closed == list(range(START, START + 1439 * MINUTE, MINUTE))
    assert pushed < steps.count < 20 * pushed


async def test_continuous_candles(autojump_clock: MockClock) -> None:
    """The documented keys; at most one push per 250 ms; the closing frame right at the end."""
    async with open_box() as box:
        async with box.websocket("/market/ws/btcusdt_perpetual@continuousKline_1m") as websocket:
            messages = await collect(websocket, 61)
        assert list(messages[0]) == ["e", "E", "ps", "ct", "k"]
        assert " ".join(messages[0]["k"]) == "t T i f L o c h l v n x q V Q B"
        opened = [m for m in messages if m["k"]["t"] == START]
        assert [m["k"]["x"] for m in opened] == [False] * (len(opened) - 1) + [True]
        assert len(opened) > 100
        times = [m["E"] for m in opened]
        assert min(b - a for a, b in pairwise(times)) >= 250
        last = opened[-1]
        assert last["E"] == START + MINUTE == last["k"]["T"] + 1
        candle = box.market.candle("BTCUSDT", Interval.M1, START)
        assert [Decimal(last["k"][key]) for key in "ohlcv"] == [
            candle.open, candle.high, candle.low, candle.close, candle.volume
        ]  # fmt: skip
        assert last["k"]["n"] == 240
        half = next(m for m in opened if m["E"] >= START + 30_000)
        partial = box.market.partial("BTCUSDT", Interval.M1, START, half["E"])
        assert partial is not None
        assert (Decimal(half["k"]["c"]), half["k"]["n"]) == (partial.close, partial.trades)


async def test_combined_kline_and_trades(autojump_clock: MockClock) -> None:
    """Trades come one frame each within 100 ms, ids without a hole, and add up to the candle."""
    path = "/market/stream?streams=ethusdt@kline_1m/ethusdt@aggTrade"
    async with open_box() as box, box.websocket(path) as websocket:
        messages = await collect(websocket, 119)
    trades = [m["data"] for m in messages if m["stream"] == "ethusdt@aggTrade"]
    candles = [m["data"] for m in messages if m["stream"] == "ethusdt@kline_1m"]
    assert " ".join(trades[0]) == "e E s a p q nq f l T m st"
    assert " ".join(candles[0]["k"]) == "t T s i f L o c h l v n x q V Q B"
    ids = [t["a"] for t in trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert all(0 <= t["E"] - t["T"] < 100 and t["E"] % 100 == 0 for t in trades)
    closing = next(c["k"] for c in candles if c["k"]["x"])
    inside = [t for t in trades if closing["t"] <= t["T"] <= closing["T"]]
    prices = [Decimal(t["p"]) for t in inside]
    assert sum(Decimal(t["q"]) for t in inside) == Decimal(closing["v"])
    assert [prices[0], max(prices), min(prices), prices[-1]] == [
        Decimal(closing[key]) for key in "ohlc"
    ]
    assert (closing["f"], closing["L"]) == (inside[0]["a"], inside[-1]["a"])


async def test_same_seed_same_frames(autojump_clock: MockClock) -> None:
    async def run(box: Box) -> list[Any]:
        async with box.websocket("/market/ws/btcusdt@aggTrade") as websocket:
            return await collect(websocket, 20)

    async with open_box() as box:
        first = await run(box)
        prices = [str(t.price) for t in box.market.trades("BTCUSDT", START, START + 20_000)]
    assert prices == [m["p"] for m in first]
    assert len(first) == 80


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("", "btcusdt@kline_1m"),
        ("/public", "btcusdt@kline_1m"),
        ("/private", "btcusdt@kline_1m"),
        ("/market", "BTCUSDT@kline_1m"),
        ("/market", "btcusdt@kline_1s"),
        ("/market", "btcusdt@kline_2m"),
        ("/market", "nosuchusdt@kline_1m"),
        ("/market", "btcusdt_current_quarter@continuousKline_1m"),
    ],
)
async def test_silent_streams(base: str, name: str, autojump_clock: MockClock) -> None:
    """The wrong path or name: upgrade fine, SUBSCRIBE acked, nothing ever comes, no error."""
    async with open_box() as box:
        async with box.websocket(f"{base}/ws/{name}") as one, box.websocket(f"{base}/ws") as two:
            request = {"method": "SUBSCRIBE", "params": [name], "id": 1}
            assert await say(two, request) == {"result": None, "id": 1}
            assert await say(two, {"method": "LIST_SUBSCRIPTIONS", "id": 2}) == {
                "result": [name],
                "id": 2,
            }
            assert await collect(one, 120) == []
            assert await collect(two, 120) == []


async def test_subscribe_and_unsubscribe(autojump_clock: MockClock) -> None:
    names = ["btcusdt@aggTrade", "btcusdt_perpetual@continuousKline_1s"]
    async with open_box() as box, box.websocket("/market/stream") as websocket:
        assert await collect(websocket, 5) == []
        assert await say(websocket, {"method": "SUBSCRIBE", "params": names, "id": "a1"}) == {
            "result": None,
            "id": "a1",
        }
        assert {m["stream"] for m in await collect(websocket, 5.01)} == set(names)
        await websocket.send_message(
            '{"method":"UNSUBSCRIBE","params":["btcusdt@aggTrade"],"id":2}'
        )
        await websocket.send_message('{"method":"SET_PROPERTY","params":["combined",false],"id":3}')
        rest = [m for m in await collect(websocket, 5) if "result" not in m]
        assert {m["e"] for m in rest} == {"continuous_kline"}


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ('{"method":"GET_PROPERTY","params":["combined"],"id":2}', {"result": False, "id": 2}),
        ('{"method":"LIST_SUBSCRIPTIONS","id":null}', {"result": [], "id": None}),
        (
            '{"method":"GET_PROPERTY","params":["other"],"id":2}',
            {"code": 0, "msg": "Unknown property", "id": 2},
        ),
        (
            '{"method":"SET_PROPERTY","params":["combined",1],"id":2}',
            {"code": 1, "msg": "Invalid value type: expected Boolean"},
        ),
        (
            '{"method":"SET_PROPERTY","params":[1,true],"id":2}',
            {"code": 2, "msg": "Invalid request: property name must be a string"},
        ),
        (
            '{"method":"SET_PROPERTY","params":["combined",true,1],"id":2}',
            {"code": 2, "msg": "Invalid request: too many parameters"},
        ),
        (
            '{"method":"LIST_SUBSCRIPTIONS","id":1.5}',
            {"code": 2, "msg": "Invalid request: request ID must be an unsigned integer"},
        ),
        (
            '{"method":"DANCE","id":1}',
            {
                "code": 2,
                "msg": "Invalid request: unknown variant `DANCE`, expected one of `SUBSCRIBE`, "
                "`UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY` "
                "at line 1 column 28",
            },
        ),
        (
            '{"id":1}',
            {"code": 2, "msg": "Invalid request: missing field `method` at line 1 column 8"},
        ),
        (
            "hello",
            {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"},
        ),
        (
            "[" * 20_000,
            {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"},
        ),
        (
            '{"method":"SUBSCRIBE","params":["x"],"id":' + "1" * 5000 + "}",
            {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"},
        ),
    ],
)
async def test_control_replies(request_: str, reply: Any, autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket("/market/ws") as websocket:
        assert await say(websocket, request_) == reply


async def test_too_many_streams(autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket("/market/ws") as websocket:
        names = [f"s{n}@aggTrade" for n in range(1025)]
        assert await say(websocket, {"method": "SUBSCRIBE", "params": names, "id": 1}) == {
            "code": 2,
            "msg": "Invalid request: too many parameters",
        }
        assert (await say(websocket, {"method": "SUBSCRIBE", "params": names[:-1], "id": 1}))[
            "result"
        ] is None


async def test_too_many_messages(autojump_clock: MockClock) -> None:
    """Ten messages in a second are fine, pings count, the eleventh ends the connection."""
    async with open_box() as box, box.websocket("/market/ws") as websocket:
        for _ in range(3):
            for n in range(5):
                await say(websocket, {"method": "LIST_SUBSCRIPTIONS", "id": n})
                await websocket.ping()
            await trio.sleep(1.01)
        for _ in range(11):
            await websocket.ping()
        assert await closed_with(websocket) == (1008, "Too many requests")


async def test_a_connection_lives_for_24_hours(autojump_clock: MockClock) -> None:
    async with (
        open_box(trades=4, push_ms=60_000) as box,
        box.websocket("/market/ws/btcusdt@kline_1d") as websocket,
    ):
        (connection,) = box.exchange.connections
        assert await closed_with(websocket) == (1001, "going away")
        assert trio.current_time() == pytest.approx(DAY_S, abs=1)
        await settled(lambda: not box.exchange.connections)
        assert not connection.queue.too_slow


async def test_without_pongs_it_ends(autojump_clock: MockClock) -> None:
    """A ping every three minutes; ten minutes without a pong are the end."""
    async with open_box() as box:
        stream = await box.network.dial("box", 443)
        await upgrade(stream, "/market/ws")
        received = b""
        while data := await stream.receive_some():
            received += data
    assert 600 < trio.current_time() < 800
    assert received.count(b"\x89\x00") == 3
    assert b"Pong timeout" in received


async def upgrade(stream: trio.abc.Stream, path: str) -> None:
    """A WebSocket upgrade by hand; the client then does nothing on its own."""
    await stream.send_all(
        f"GET {path} HTTP/1.1\r\nHost: box\r\nConnection: keep-alive, Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455, 1.3


async def test_a_client_that_does_not_read_is_dropped(autojump_clock: MockClock) -> None:
    """It ends within the send deadline; another client misses nothing meanwhile."""
    async with open_box() as box, trio.open_nursery() as nursery:
        theirs, ours = trio.testing.lockstep_stream_pair()
        nursery.start_soon(box.exchange.serve_stream, theirs)
        await upgrade(ours, "/market/ws/btcusdt@aggTrade")
        async with box.websocket("/market/ws/btcusdt@aggTrade") as websocket:
            await settled(lambda: len(box.exchange.connections) == 2)
            ids = [m["a"] for m in await collect(websocket, 30)]
            assert len(box.exchange.connections) == 1
        assert ids == list(range(ids[0], ids[0] + 120))


async def test_a_full_queue_drops_the_client(autojump_clock: MockClock) -> None:
    async with open_box(trades=60_000) as box, trio.open_nursery() as nursery:
        theirs, ours = trio.testing.lockstep_stream_pair()
        nursery.start_soon(box.exchange.serve_stream, theirs)
        await upgrade(ours, "/market/ws/btcusdt@aggTrade")
        await settled(lambda: box.exchange.slow_clients == 1, within_s=9)
        assert box.exchange.connections == []


async def test_levers_on_a_connection(autojump_clock: MockClock) -> None:
    path = "/market/ws/btcusdt@aggTrade"
    async with open_box() as box:
        async with box.websocket(path) as websocket:
            box.exchange.connections[0].abort()
            assert await closed_with(websocket) == (1006, None)
        async with box.websocket(path) as websocket:
            box.exchange.connections[0].close(1012, "restart")
            assert await closed_with(websocket) == (1012, "restart")
        async with box.websocket(path) as websocket:
            assert len(await collect(websocket, 10)) == 40
            box.exchange.connections[0].mute()
            assert await collect(websocket, 60) == []
            await websocket.ping()
            assert (await say(websocket, {"method": "LIST_SUBSCRIPTIONS", "id": 1}))["id"] == 1
        await settled(lambda: not box.exchange.connections)
        assert (box.exchange.dials, box.exchange.upgrades) == (3, 3)


async def test_refused_upgrades(autojump_clock: MockClock) -> None:
    faults = ResponseFaults()
    faults.refuse_upgrades(503)
    upgrading = (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )

    async def knock(box: Box, path: str) -> int:
        stream = await box.network.dial("box", 443)
        return (await ask(stream, h11.Connection(h11.CLIENT), path, *upgrading)).status

    async with open_box(faults=faults) as box:
        box.exchange.refuse_upgrades(429, count=2)
        assert [await knock(box, "/market/ws") for _ in range(4)] == [503, 429, 429, 101]
        assert await knock(box, "/nowhere") == 404
        assert await knock(box, "/market/stream/btcusdt@aggTrade") == 404
        names = "/".join(f"s{n}@x" for n in range(1025))
        assert await knock(box, f"/market/stream?streams={names}") == 400
        with pytest.raises(ValueError, match="200"):
            box.exchange.refuse_upgrades(200)


KLINES = "/fapi/v1/continuousKlines?pair=BTCUSDT&contractType=PERPETUAL"


async def test_klines(autojump_clock: MockClock) -> None:
    """Which rows, in which order, and the open bar at the end."""
    async with open_box() as box:
        await trio.sleep(90.5)
        rows = await box.ask_json(f"{KLINES}&interval=1m")
        opens = [row[0] for row in rows]
        assert opens == list(range(START - 498 * MINUTE, START + 2 * MINUTE, MINUTE))
        assert [len(row) for row in rows] == [12] * 500
        candle = box.market.candle("BTCUSDT", Interval.M1, START)
        assert rows[-2][:9] == [
            START, f"{candle.open}", f"{candle.high}", f"{candle.low}", f"{candle.close}",
            f"{candle.volume}", START + MINUTE - 1, f"{candle.quote_volume:f}", 240,
        ]  # fmt: skip
        assert 0 < rows[-1][8] < 240
        start = START - 1000 * MINUTE
        from_start = await box.ask_json(f"{KLINES}&interval=1m&startTime={start - 1}&limit=3")
        assert [row[0] for row in from_start] == [start, start + MINUTE, start + 2 * MINUTE]
        to_end = await box.ask_json(f"{KLINES}&interval=1m&endTime={start + 1}&limit=2")
        assert [row[0] for row in to_end] == [start - MINUTE, start]
        between = f"&startTime={start}&endTime={start + 5 * MINUTE}"
        assert len(await box.ask_json(f"{KLINES}&interval=1m{between}")) == 6
        assert await box.ask_json(f"{KLINES}&interval=1m&startTime={START + 10**12}") == []
        assert await box.ask_json(f"{KLINES}&interval=1m&endTime=1000") == []
        months = await box.ask_json(f"{KLINES}&interval=1M&startTime=0")
        assert months[0][0] == box.market.listed_ms
        assert months[-1][0] == open_of(Interval.MO1, START)
        same = await box.ask_json("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1500")
        assert len(same) == 1500
        assert same[-500:] == rows
        assert box.exchange.requests == 8


async def test_agg_trades(autojump_clock: MockClock) -> None:
    path = "/fapi/v1/aggTrades?symbol=BTCUSDT"
    async with open_box() as box:
        rows = await box.ask_json(path)
        assert len(rows) == 500
        assert " ".join(rows[0]) == "a p q nq f l T m"
        assert START - 1000 < rows[-1]["T"] <= START
        again = await box.ask_json(f"{path}&fromId={rows[100]['a']}&limit=1000")
        assert again == rows[100:]
        window = f"&startTime={rows[3]['T']}&endTime={rows[9]['T']}"
        assert await box.ask_json(path + window) == rows[3:10]
        old = START - 48 * 3_600_000
        for query in (f"&startTime={old - 1}", "&fromId=5", f"&endTime={old - 1}"):
            answer = await box.get(path + query)
            assert answer.status == 400
            assert answer.json() == {
                "code": -4166,
                "msg": "Search window is restricted to recent 2 days only.",
            }
        assert (await box.ask_json(f"{path}&startTime={old}&limit=1"))[0]["T"] >= old
        assert await box.ask_json(f"{path}&fromId={10**17}") == []
        hours = await box.get(f"{path}&startTime={START - 7_200_001}&endTime={START}")
        assert hours.json()["code"] == -1127


async def test_small_endpoints(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        assert await box.ask_json("/fapi/v1/ping") == {}
        assert await box.ask_json("/fapi/v1/time") == {"serverTime": START}
        info = await box.ask_json("/fapi/v1/exchangeInfo")
        assert info["rateLimits"][0]["limit"] == 2400
        first = info["symbols"][0]
        assert (first["symbol"], first["baseAsset"], first["quoteAsset"]) == (
            "BTCUSDT", "BTC", "USDT",
        )  # fmt: skip
        assert first["filters"][0]["tickSize"] == "0.1"
        assert first["filters"][1]["stepSize"] == "0.001"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/fapi/v1/klines?symbol=NOSUCH&interval=1m", 400, -1121),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=2m", 400, -1120),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1s", 400, -1120),
        ("/fapi/v1/klines?symbol=BTCUSDT", 400, -1102),
        ("/fapi/v1/klines?interval=1m", 400, -1102),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1501", 400, -1130),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime=x", 400, -1102),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime=5&endTime=4", 400, -1023),
        ("/fapi/v1/continuousKlines?pair=BTCUSDT&interval=1m", 400, -1102),
        ("/fapi/v1/continuousKlines?pair=BTCUSDT&interval=1m&contractType=X", 400, -1130),
        ("/fapi/v1/nothing", 404, -5000),
    ],
)
async def test_rest_errors(target: str, status: int, code: int, autojump_clock: MockClock) -> None:
    async with open_box() as box:
        answer = await box.get(target)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert "x-mbx-used-weight-1m" in answer.headers


async def test_weight_then_429_then_a_ban(autojump_clock: MockClock) -> None:
    """Weights by limit; one connection for all; the ban says until when, and ends then."""
    async with open_box() as box:
        stream, http = await box.network.dial("box", 443), h11.Connection(h11.CLIENT)

        async def weight_of(limit: int) -> int:
            nonlocal used
            answer = await ask(stream, http, f"{KLINES}&interval=1d&limit={limit}")
            http.start_next_cycle()
            before, used = used, int(answer.headers["x-mbx-used-weight-1m"])
            return used - before

        used = 0
        assert [await weight_of(n) for n in (99, 100, 499, 500, 1000, 1001)] == [1, 2, 2, 5, 5, 10]
        statuses = []
        for _ in range(130):
            answer = await ask(stream, http, "/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1")
            http.start_next_cycle()
            statuses.append(answer.status)
        assert statuses == [200] * 118 + [429] * 5 + [418] * 7
        assert f"banned until {START + 120_000}." in answer.json()["msg"]
        await stream.aclose()
        await trio.sleep(119)
        assert (await box.get("/fapi/v1/time")).status == 418
        await trio.sleep(1.1)
        assert (await box.get("/fapi/v1/time")).status == 200
        assert box.exchange.dials == 3


async def test_owed_rest_faults(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        for status in (451, 418, 429):
            box.exchange.rest_status(status)
        answers = [await box.get("/fapi/v1/time") for _ in range(4)]
        assert [a.status for a in answers] == [451, 418, 429, 200]
        assert answers[0].headers["content-type"] == "text/html"
        assert "banned until" in answers[1].json()["msg"]
