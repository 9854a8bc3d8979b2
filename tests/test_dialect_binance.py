"""Binance's dialect over the whole service: what its clients send and get, on virtual time."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio_websocket
from attrs import evolve
from support.make import kline as candle
from support.make import trade
from support.stack import START_MS, Stack, open_stack, settings_for_tests
from test_app import http
from test_server import KEY, UPGRADE, get, until_closed
from trio.testing import MockClock

from trio_feed.dialects.binance import encoders
from trio_feed.model import Interval

ALL = ".channels=['kline','trade','ticker','book','bbo','mark_price','liquidation']"
SPOT = ".channels=['kline','trade','ticker','book','bbo']"
NOT_FED = "are not fed: see exchanges.binance_usdm.symbols and .channels"


class Socket:
    """A client's WebSocket."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection

    async def ask(self, method: str, *params: Any, number: Any = 1) -> None:
        request = {"method": method, "params": list(params), "id": number}
        await self.connection.send_message(json.dumps(request))

    async def send(self, text: str) -> None:
        await self.connection.send_message(text)

    async def next(self) -> Any:
        with trio.fail_after(200):
            return json.loads(await self.connection.get_message())

    async def answer(self) -> Any:
        """The next message that is no event."""
        while "id" not in (message := await self.next()):
            pass
        return message

    async def event(self, kind: str) -> dict[str, Any]:
        """The next event of a kind, raw or wrapped."""
        while (message := await self.next()).get("data", message).get("e") != kind:
            pass
        return message


@asynccontextmanager
async def socket(stack: Stack, path: str, address: str = "") -> AsyncIterator[Socket]:
    host, _, port = (address or stack.ready.address).rpartition(":")
    stream = await stack.network.dial(host, int(port))
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, f"{host}:{port}", path, message_queue_size=10_000
        )
        yield Socket(connection)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def usdm(*more: str) -> AsyncIterator[Stack]:
    async with open_stack(settings_for_tests(ALL, *more), trades_per_minute=60) as stack:
        await trio.sleep(30)
        yield stack


@asynccontextmanager
async def spot(*more: str) -> AsyncIterator[Stack]:
    settings = settings_for_tests(SPOT, *more, venue="binance")
    async with open_stack(settings, trades_per_minute=60) as stack:
        await trio.sleep(30)
        yield stack


USDM_STREAMS = {
    "btcusdt@aggTrade": "aggTrade",
    "btcusdt@trade": "trade",
    "btcusdt@kline_1m": "kline",
    "btcusdt_perpetual@continuousKline_1m": "continuous_kline",
    "btcusdt@ticker": "24hrTicker",
    "btcusdt@miniTicker": "24hrMiniTicker",
    "btcusdt@bookTicker": "bookTicker",
    "btcusdt@depth@100ms": "depthUpdate",
    "btcusdt@depth5@100ms": "depthUpdate",
    "btcusdt@markPrice@1s": "markPriceUpdate",
}


@pytest.mark.parametrize("path", ["", "/public", "/market"])
async def test_every_stream_of_usdm_on_every_path(path: str, autojump_clock: MockClock) -> None:
    async with usdm() as stack:
        names = "/".join(USDM_STREAMS)
        async with socket(stack, f"/binance_usdm{path}/stream?streams={names}") as client:
            kinds: dict[str, str] = {}
            while kinds.keys() != USDM_STREAMS.keys():
                message = await client.next()
                kinds[message["stream"]] = message["data"]["e"]
            assert kinds == USDM_STREAMS


async def test_a_stream_that_is_not_known_is_silent_in_the_url(autojump_clock: MockClock) -> None:
    """ccxt opens /ws/0 and /stream/0, and subscribes then."""
    async with usdm() as stack, socket(stack, "/binance_usdm/ws/0") as client:
        await client.ask("SUBSCRIBE", "btcusdt@aggTrade")
        assert await client.next() == {"result": None, "id": 1}
        event = await client.next()
        assert (event["e"], event["s"], event["st"]) == ("aggTrade", "BTCUSDT", 1)


async def test_requests_and_their_errors(autojump_clock: MockClock) -> None:
    async with usdm() as stack, socket(stack, "/binance_usdm/ws") as client:
        uuid = "9a7c1e0e-7f2c-4f8e-a5f4-1d9c1b6a2f10"
        for number in (7, -1, "seven", uuid, None):
            await client.ask("LIST_SUBSCRIPTIONS", number=number)
            assert await client.answer() == {"result": [], "id": number}
        await client.ask("SUBSCRIBE", "btcusdt@markPrice", "ethusdt@trade")
        assert await client.answer() == {
            "error": {
                "code": 2,
                "msg": "Invalid request: invalid stream ethusdt@trade: trade of ETHUSDT " + NOT_FED,
            },
            "id": 1,
        }
        await client.ask("LIST_SUBSCRIPTIONS")
        assert (await client.answer())["result"] == []  # all of them, or none
        for text, code, problem in (
            ("{", 3, "Invalid JSON"),
            ("[]", 2, "expected an object"),
            ('{"id":1}', 2, "missing field `method`"),
            ('{"method":"subscribe","id":1}', 2, "unknown variant `subscribe`"),
            ('{"method":"SUBSCRIBE","params":["a"],"id":1.5}', 2, "request ID must be"),
            ('{"method":"SUBSCRIBE","params":[5],"id":1}', 2, "must be a string"),
            ('{"method":"SUBSCRIBE","params":{},"id":1}', 2, "params must be an array"),
            ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1s"],"id":1}', 2, "1s candles"),
            ('{"method":"SUBSCRIBE","params":["btcusdt@kline_30s"],"id":1}', 2, "no stream"),
            ('{"method":"SUBSCRIBE","params":["BTCUSDT"],"id":1}', 2, "no stream"),
            ('{"method":"GET_PROPERTY","params":["x"],"id":1}', 0, "Unknown property"),
            ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2, "property name must be"),
            ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1, "expected Boolean"),
            ('{"method":"SET_PROPERTY","params":["combined",true,1],"id":1}', 2, "too many"),
        ):
            await client.send(text)
            error = (await client.answer())["error"]
            assert (error["code"], problem in error["msg"]) == (code, True), (text, error)


async def test_properties_and_unsubscribing(autojump_clock: MockClock) -> None:
    async with usdm() as stack, socket(stack, "/binance_usdm/ws/btcusdt@aggTrade") as client:
        assert (await client.next())["e"] == "aggTrade"
        await client.ask("SET_PROPERTY", "combined", True)
        assert await client.answer() == {"result": None, "id": 1}
        event = await client.next()
        assert (event["stream"], event["data"]["e"]) == ("btcusdt@aggTrade", "aggTrade")
        await client.ask("GET_PROPERTY", "combined")
        assert await client.answer() == {"result": True, "id": 1}
        await client.ask("SUBSCRIBE", "btcusdt@trade")
        await client.answer()
        await client.ask("UNSUBSCRIBE", "btcusdt@aggTrade", "never@trade")
        assert await client.answer() == {"result": None, "id": 1}
        await client.ask("LIST_SUBSCRIPTIONS")
        assert (await client.answer())["result"] == ["btcusdt@trade"]
        for _ in range(5):
            assert (await client.next())["stream"] == "btcusdt@trade"


async def test_too_many_streams(autojump_clock: MockClock) -> None:
    async with usdm("kline.max_subscriptions_per_client=1") as stack:
        async with socket(stack, "/binance_usdm/ws/btcusdt@ticker") as client:
            await client.ask("SUBSCRIBE", "btcusdt@ticker")  # has it already
            assert (await client.answer())["result"] is None
            await client.ask("SUBSCRIBE", "btcusdt@trade")
            assert (await client.answer())["error"] == {
                "code": 4,
                "msg": "Too many subscriptions: the limit is 1",
            }


async def test_a_path_that_is_none_is_said_in_the_dialects_words(autojump_clock: MockClock) -> None:
    async with usdm() as stack:
        host, _, port = stack.ready.address.rpartition(":")
        stream = await stack.network.dial(host, int(port))
        request = get(UPGRADE, KEY, path=b"/binance_usdm/ws-api/v3")
        await stream.send_all(request.replace(b"Host: x", b"Host: push"))
        refused = await until_closed(stream)
        assert refused.startswith(b"HTTP/1.1 404")
        assert b'"code":-1020' in refused


async def test_events_of_an_account_are_not_here(autojump_clock: MockClock) -> None:
    async with usdm() as stack:
        host, _, port = stack.ready.address.rpartition(":")
        stream = await stack.network.dial(host, int(port))
        path = b"/binance_usdm/private/ws?listenKey=abc"
        await stream.send_all(get(UPGRADE, KEY, path=path).replace(b"Host: x", b"Host: push"))
        refused = await until_closed(stream)
        assert refused.startswith(b"HTTP/1.1 404")
        assert b'"code":-1020' in refused
        async with socket(stack, "/binance_usdm/private/stream") as idle:  # SDKs open all three
            await idle.ask("LIST_SUBSCRIPTIONS")
            assert (await idle.answer())["result"] == []


async def ask(stack: Stack, target: str) -> tuple[int, Any, str]:
    async with http(stack) as client:
        status, head, body = await client.ask(target)
        return status, json.loads(body), head.decode().lower()


async def test_a_book_kept_by_the_rules_equals_ours(autojump_clock: MockClock) -> None:
    """Spot: U is the u before it + 1, and the snapshot's id is the u of an event."""
    async with spot() as stack, socket(stack, "/binance/ws/btcusdt@depth@100ms") as client:
        events = [await client.next() for _ in range(3)]
        _, snapshot, _ = await ask(stack, "/binance/api/v3/depth?symbol=BTCUSDT&limit=1000")
        last = snapshot["lastUpdateId"]
        assert last < 2**53  # JavaScript's whole numbers, and 64 bits
        book = {side: dict(snapshot[side]) for side in ("bids", "asks")}
        while events[-1]["u"] < last + 20:
            events.append(await client.next())
        for before, event in pairwise(events):
            assert event["U"] == before["u"] + 1
        assert last in [event["u"] for event in events]
        for event in events:
            if event["u"] <= last:
                continue
            for side, rows in (("bids", event["b"]), ("asks", event["a"])):
                for price, size in rows:
                    book[side][price] = size
                    if not float(size):
                        del book[side][price]
        shown = await ask(stack, "/binance/api/v3/depth?symbol=BTCUSDT&limit=1000")
        while shown[1]["lastUpdateId"] != events[-1]["u"]:
            event = await client.next()
            events.append(event)
            for side, rows in (("bids", event["b"]), ("asks", event["a"])):
                for price, size in rows:
                    book[side][price] = size
                    if not float(size):
                        del book[side][price]
        assert {side: dict(shown[1][side]) for side in book} == book


@pytest.mark.parametrize("asked", [False, True])
async def test_who_takes_a_snapshot_and_subscribes_then_misses_nothing(
    asked: bool, autojump_clock: MockClock
) -> None:
    """python-binance: its first event has to begin right behind its snapshot."""
    async with spot() as stack:
        _, snapshot, _ = await ask(stack, "/binance/api/v3/depth?symbol=BTCUSDT&limit=1000")
        await trio.sleep(2)
        path = "/binance/stream" if asked else "/binance/ws/btcusdt@depth"
        async with socket(stack, path) as client:
            if asked:
                await client.ask("SUBSCRIBE", "btcusdt@depth")
                assert await client.next() == {"result": None, "id": 1}  # before its events
            last, first = snapshot["lastUpdateId"], 0
            for _ in range(30):
                event = await client.event("depthUpdate")
                event = event.get("data", event)
                if event["u"] <= snapshot["lastUpdateId"]:
                    continue
                assert event["U"] == last + 1
                first, last = first or event["u"], event["u"]
            assert last > first + 10


async def test_no_event_of_a_book_is_empty(autojump_clock: MockClock) -> None:
    """Of what changed below the levels that are shown.  nautilus fails with an event of nothing,
    and ids have to follow each other, so that none can be left out."""
    few = spot(".book_levels=1")
    async with few as stack, socket(stack, "/binance/ws/btcusdt@depth@100ms") as client:
        events = [await client.next() for _ in range(100)]
        assert [event["u"] for event in events if not event["b"] + event["a"]] == []
        assert {after["U"] - before["u"] for before, after in pairwise(events)} == {1}


KLINES = "/binance_usdm/fapi/v1/klines?symbol=BTCUSDT&interval=1m"


async def test_candles_by_rest(autojump_clock: MockClock) -> None:
    async with usdm() as stack:
        status, rows, head = await ask(stack, KLINES)
        assert status == 200
        assert "x-mbx-used-weight-1m: 5" in head
        opens = [row[0] for row in rows]
        assert opens == [opens[0] + 60_000 * n for n in range(len(rows))]
        assert len(rows) >= 20
        assert [row[6] - row[0] for row in rows] == [59_999] * len(rows)
        assert {len(row) for row in rows} == {12}
        assert opens[-1] <= START_MS + trio.current_time() * 1000 < rows[-1][6]  # the open one
        start, end = opens[3], opens[6]
        assert [r[0] for r in (await ask(stack, f"{KLINES}&limit=2"))[1]] == opens[-2:]
        both = f"{KLINES}&startTime={start}&endTime={end}"
        assert [r[0] for r in (await ask(stack, both))[1]] == opens[3:7]
        assert [r[0] for r in (await ask(stack, f"{both}&limit=2"))[1]] == opens[3:5]
        assert [r[0] for r in (await ask(stack, f"{KLINES}&startTime=0&limit=3"))[1]] == opens[:3]
        before = f"{KLINES}&endTime={end - 1}&limit=2"
        assert [r[0] for r in (await ask(stack, before))[1]] == opens[4:6]
        pair = "/binance_usdm/fapi/v1/continuousKlines?pair=BTCUSDT&contractType=PERPETUAL"
        assert (await ask(stack, f"{pair}&interval=1m&startTime={start}&endTime={end}"))[1] == (
            await ask(stack, both)
        )[1]


ERRORS = {
    "klines?interval=1m": (-1102, "Mandatory parameter 'symbol' was not sent"),
    "klines?symbol=&interval=1m": (-1102, "Mandatory parameter 'symbol'"),
    "klines?symbol=XYZ&interval=1m": (-1121, "Invalid symbol."),
    "klines?symbol=btcusdt&interval=1m": (-1100, "Illegal characters found in parameter 'symbol'"),
    "klines?symbol=BTCUSDT&interval=1s": (-1120, "Invalid interval."),
    "klines?symbol=BTCUSDT&interval=7m": (-1120, "Invalid interval."),
    "klines?symbol=BTCUSDT&interval=1w": (-1020, "not fed"),
    "klines?symbol=BTCUSDT&interval=1m&limit=abc": (-1100, "parameter 'limit'"),
    "klines?symbol=BTCUSDT&interval=1m&limit=1501": (-1130, "parameter 'limit' is not valid"),
    "klines?symbol=BTCUSDT&interval=1m&startTime=": (-1105, "Parameter 'startTime' was empty."),
    "klines?symbol=BTCUSDT&symbol=BTCUSDT&interval=1m": (-1101, "Duplicate"),
    "depth?symbol=BTCUSDT&limit=3": (-4021, "3 is not valid depth limit"),
    "aggTrades?symbol=BTCUSDT&fromId=-1": (-1100, "parameter 'fromId'"),
    "aggTrades?symbol=BTCUSDT&startTime=1": (-1020, "the oldest kept here is"),
    "ticker/24hr?symbol=BTCUSDT&type=X": (-1139, "type"),
}


async def test_errors_by_rest(autojump_clock: MockClock) -> None:
    async with usdm() as stack:
        await ask(stack, "/binance_usdm/fapi/v1/aggTrades?symbol=BTCUSDT")
        for target, (code, problem) in ERRORS.items():
            status, error, head = await ask(stack, f"/binance_usdm/fapi/v1/{target}")
            assert (status, error["code"]) == (400, code), (target, error)
            assert problem in error["msg"]
            assert "content-type: application/json" in head
        status, error, _ = await ask(stack, "/binance_usdm/fapi/v2/account")
        assert (status, error["code"]) == (404, -1020)


async def test_the_other_questions(autojump_clock: MockClock) -> None:
    async with usdm() as stack:
        base = "/binance_usdm/fapi/v1"
        assert (await ask(stack, f"{base}/ping"))[1] == {}
        now = (await ask(stack, f"{base}/time"))[1]["serverTime"]
        assert abs(now - START_MS - trio.current_time() * 1000) < 1000
        for old in ("ping", "time"):  # clients of both markets ask spot's at their start
            status, answer, head = await ask(stack, f"/binance_usdm/api/v3/{old}")
            assert (status, answer.keys()) == (200, {"time": {"serverTime"}, "ping": set()}[old])
            assert "x-mbx-used-weight: " in head  # the one that unicorn's depth cache reads
        _, info, _ = await ask(stack, f"{base}/exchangeInfo?symbol=NONE")
        (listed,) = info["symbols"]
        assert (listed["symbol"], listed["contractType"]) == ("BTCUSDT", "PERPETUAL")
        assert listed["filters"][0]["filterType"] == "PRICE_FILTER"
        assert float(listed["filters"][0]["tickSize"]) > 0
        _, ticker, _ = await ask(stack, f"{base}/ticker/24hr?symbol=BTCUSDT")
        assert float(ticker["lastPrice"]) > 0
        assert "bidPrice" not in ticker
        _, prices, _ = await ask(stack, f"{base}/ticker/price")
        assert [row["symbol"] for row in prices] == ["BTCUSDT"]
        _, top, _ = await ask(stack, f"{base}/ticker/bookTicker?symbol=BTCUSDT")
        assert 0 < float(top["bidPrice"]) < float(top["askPrice"])
        assert top["lastUpdateId"] > 0
        _, premium, _ = await ask(stack, f"{base}/premiumIndex?symbol=BTCUSDT")
        assert float(premium["markPrice"]) > 0
        async with socket(stack, "/binance_usdm/ws/btcusdt@aggTrade") as client:
            seen = [(await client.next())["a"] for _ in range(5)]
        _, trades, _ = await ask(stack, f"{base}/aggTrades?symbol=BTCUSDT")
        assert seen == [row["a"] for row in trades][-len(seen) :]


async def test_the_best_bid_and_ask_of_spot(autojump_clock: MockClock) -> None:
    """Without type and times, as the exchange writes it."""
    async with spot() as stack:
        async with socket(stack, "/binance/ws/btcusdt@bookTicker") as client:
            first, second = await client.next(), await client.next()
        assert list(first) == ["u", "s", "b", "B", "a", "A"]
        assert first["u"] < second["u"]
        assert 0 < float(second["b"]) < float(second["a"])
        _, tops, _ = await ask(stack, "/binance/api/v3/ticker/bookTicker")
        (top,) = tops
        assert list(top) == ["symbol", "bidPrice", "bidQty", "askPrice", "askQty"]


START = (
    "exchangeInfo", "klines?symbol=BTCUSDT&interval=1m&limit=500", "ticker/24hr",
    "depth?symbol=BTCUSDT&limit=1000", "premiumIndex?symbol=BTCUSDT",
)  # fmt: skip


async def test_fifty_bots_cost_the_exchange_what_one_does(autojump_clock: MockClock) -> None:
    """One upstream connection and no question more, also when all of them start again at once, with
    all that a bot asks at its start, and from one address: nobody gets a 429."""
    async with usdm(".history_bars=600") as stack:
        dials, asked = stack.exchange.dials, stack.exchange.requests
        statuses = []

        async def bot(number: int) -> None:
            async with socket(stack, "/binance_usdm/ws/btcusdt@kline_1m/btcusdt@aggTrade") as bot:
                for question in START:
                    statuses.append((await ask(stack, f"/binance_usdm/fapi/v1/{question}"))[0])
                assert (await bot.next())["s"] == "BTCUSDT"

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(bot, number)
        assert statuses == [200] * 100 * len(START)
        assert (stack.exchange.dials, stack.exchange.requests) == (dials, asked)


async def test_a_bind_of_its_own(autojump_clock: MockClock) -> None:
    own = ("dialects.binance_usdm.host=bots", "dialects.binance_usdm.port=81")
    async with usdm(*own) as stack:
        (address,) = stack.ready.dialects.values()
        assert address == "bots:81"
        async with socket(stack, "/ws/btcusdt@trade", address) as client:
            assert (await client.next())["e"] == "trade"


async def asked_at(stack: Stack, address: str, request: bytes) -> bytes:
    """The whole answer to one request on a connection of its own."""
    host, _, port = address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    await stream.send_all(request)
    return bytes(await until_closed(stream))


def request_for(path: str, *more: str, method: str = "GET", host: str = "push") -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"Host: {host}", "Connection: close", *more))
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode()


async def test_a_bind_of_its_own_takes_the_prefix_too(autojump_clock: MockClock) -> None:
    """Who changes the port of a URL only leaves the path as it was."""
    own = ("dialects.binance_usdm.host=bots", "dialects.binance_usdm.port=81")
    async with usdm(*own) as stack:
        for base in ("", "/binance_usdm"):
            asked = [
                (await asked_at(stack, "bots:81", request_for(path, method=method, host="bots")))
                for path, method in (
                    (f"{base}/fapi/v1/ping", "GET"),
                    (f"{base}/fapi/v1/ping", "POST"),
                    (f"{base}/fapi/v1/nothing", "GET"),
                )
            ]
            assert [answer[9:12] for answer in asked] == [b"200", b"405", b"404"]
            assert all(b'"code":-1020' in answer for answer in asked[1:])
            async with socket(stack, f"{base}/ws/btcusdt@trade", "bots:81") as client:
                assert (await client.next())["e"] == "trade"
        twice = request_for("/binance_usdm/binance_usdm/fapi/v1/ping", host="bots")
        assert (await asked_at(stack, "bots:81", twice))[9:12] == b"404"


ORIGIN = "Origin: http://evil.example"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (request_for("/binance_usdm/fapi/v1/ping", ORIGIN), 403, -1002),
        (request_for("/binance_usdm/fapi/v1/ping", host="evil.example"), 421, -1002),
        (request_for("/binance_usdm/x", "Content-Length: 9999999", method="POST"), 413, -1000),
        (
            get(UPGRADE, KEY, b"Origin: http://evil.example\r\n", path=b"/binance_usdm/ws"),
            403,
            -1002,
        ),
        (request_for("/udf/time", ORIGIN), 403, "error"),
        (request_for("/api/v1/symbols", ORIGIN), 403, 1002),
    ],
)
async def test_who_is_not_let_in_is_told_in_the_dialects_form(
    request_bytes: bytes, status: int, code: object, autojump_clock: MockClock
) -> None:
    async with usdm("server.allowed_hosts=['push','x']") as stack:
        answer = await asked_at(stack, stack.ready.address, request_bytes)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert int(head[9:12]) == status
        said = json.loads(body)
        assert said.get("code", said.get("s")) == code


async def test_one_client_too_many_is_told_in_the_dialects_form(autojump_clock: MockClock) -> None:
    own = ("dialects.binance_usdm.host=bots", "dialects.binance_usdm.port=81")
    async with usdm("websocket.max_connections=1", *own) as stack:
        for address, path in (
            (stack.ready.address, "/binance_usdm/fapi/v1/ping"),
            ("bots:81", "/fapi/v1/ping"),
        ):
            host = address.partition(":")[0]
            held = await stack.network.dial(host, int(address.partition(":")[2]))
            await held.send_all(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            await held.receive_some(65536)
            answer = await asked_at(stack, address, request_for(path, host=host))
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 5\r\n" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == -1003
            await held.aclose()


async def test_a_dialect_that_is_off_is_no_page(autojump_clock: MockClock) -> None:
    async with usdm("dialects.binance_usdm.enabled=false") as stack:
        status, _, _ = await ask(stack, "/binance_usdm/fapi/v1/ping")
        assert status == 404


async def test_usdm_ids_follow_by_pu(autojump_clock: MockClock) -> None:
    """U is the u before it, which passes U <= lastUpdateId <= u and pu == u alike."""
    async with usdm() as stack, socket(stack, "/binance_usdm/ws/btcusdt@depth") as client:
        events = [await client.next() for _ in range(5)]
        for before, event in pairwise(events):
            assert before["u"] == event["pu"] == event["U"] == event["u"] - 1


async def test_simulated_data_is_not_served_unasked(autojump_clock: MockClock) -> None:
    own = ("simulator.enabled=true", "simulator.host=box", "simulator.port=82")
    async with usdm(*own) as stack:
        status, error, head = await ask(stack, "/binance_usdm/fapi/v1/klines?symbol=BTCUSDT")
        assert (status, error["code"]) == (403, -1020)
        assert "dialects.binance_usdm.simulated_ok = true" in error["msg"]
        assert "x-trio-feed-source: simulated" in head
        host, _, port = stack.ready.address.rpartition(":")
        stream = await stack.network.dial(host, int(port))
        request = get(UPGRADE, KEY, path=b"/binance_usdm/ws").replace(b"Host: x", b"Host: push")
        await stream.send_all(request)
        assert (await until_closed(stream)).startswith(b"HTTP/1.1 403")


async def test_simulated_data_that_is_asked_for_is_labelled(autojump_clock: MockClock) -> None:
    own = ("simulator.enabled=true", "simulator.host=box", "simulator.port=82")
    async with usdm(*own, "dialects.binance_usdm.simulated_ok=true") as stack:
        status, _, head = await ask(stack, "/binance_usdm/fapi/v1/ping")
        assert (status, "x-trio-feed-source: simulated" in head) == (200, True)
        async with socket(stack, "/binance_usdm/ws/btcusdt@aggTrade") as client:
            assert (await client.next())["e"] == "aggTrade"


async def test_a_farewell_of_spot(autojump_clock: MockClock) -> None:
    async with spot() as stack, socket(stack, "/binance/stream?streams=btcusdt@kline_1m") as client:
        stack.ready.app.disconnect_all(lambda: 5)
        while (message := await client.next())["stream"] != "!serverShutdown":
            pass
        assert message["data"]["e"] == "serverShutdown"
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await client.next()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1012


async def test_clients_beyond_their_rate(autojump_clock: MockClock) -> None:
    limits = ("websocket.requests_per_second=1", "websocket.request_burst=2")
    async with usdm(*limits) as stack, socket(stack, "/binance_usdm/ws") as client:
        for number in range(3):
            await client.ask("LIST_SUBSCRIPTIONS", number=number)
        assert [(await client.answer()).get("result") for _ in range(2)] == [[], []]
        refused = {"error": {"code": 4, "msg": "Too many requests"}, "id": 2}
        assert await client.answer() == refused


async def test_a_message_is_written_once_for_all_clients(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    written: list[object] = []
    write = encoders.kline

    def counted(*words: Any) -> str:
        written.append(words)
        return write(*words)

    monkeypatch.setattr(encoders, "kline", counted)
    async with usdm() as stack, AsyncExitStack() as clients:
        path = "/binance_usdm/ws/btcusdt@kline_1m"
        opened = [await clients.enter_async_context(socket(stack, path)) for _ in range(5)]
        got = [[await client.next() for _ in range(2)] for client in opened]
        assert all(each == got[0] for each in got)
        assert len(written) == 2


@pytest.mark.parametrize(
    ("worth", "said"),
    [
        ("39415.0459000000000000", "39415.04590000"),  # a sum of ours, of spot
        ("39415.04590000", "39415.04590000"),
        ("2378729.92500", "2378729.92500"),  # USD-M has as many as its factors
        ("0.0000000000120000", "0.0000000000120000"),  # nothing but zeros is cut
        ("10000000000", "10000000000"),
    ],
)
def test_worths_have_the_decimals_of_the_exchange(worth: str, said: str) -> None:
    built = evolve(candle(), quote_volume=Decimal(worth), taker_buy_quote_volume=Decimal(worth))
    row = json.loads(encoders.row(Interval.S1, built))
    assert [row[7], row[10]] == [said, said]
    pushed = json.loads(encoders.kline("BTCUSDT", Interval.S1, built, 0))["k"]
    assert [pushed["q"], pushed["Q"]] == [said, said]
    bought = evolve(trade(1, 1), quote_quantity=Decimal(worth))
    assert json.loads(encoders.trade_row(bought, spot=True))["quoteQty"] == said


@pytest.mark.parametrize("unit", ["MICROSECOND", "microsecond"])
async def test_microseconds_are_refused_and_not_left_out(
    unit: str, autojump_clock: MockClock
) -> None:
    """A client that asked for them would read our milliseconds as times in 1970."""
    async with spot() as stack:
        host, _, port = stack.ready.address.rpartition(":")
        for path in ("ws/btcusdt@trade?", "stream?streams=btcusdt@trade&"):
            stream = await stack.network.dial(host, int(port))
            wanted = f"/binance/{path}timeUnit={unit}".encode()
            await stream.send_all(get(UPGRADE, KEY, path=wanted).replace(b"Host: x", b"Host: push"))
            with trio.fail_after(60):
                refused = await until_closed(stream)
            assert refused.startswith(b"HTTP/1.1 400"), path
            assert b'"code":-1020' in refused
            assert b"milliseconds" in refused
        header = f"X-MBX-TIME-UNIT: {unit}"
        asked = request_for("/binance/api/v3/time", header)
        answer = await asked_at(stack, stack.ready.address, asked)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"milliseconds" in answer
        async with socket(stack, "/binance/ws/btcusdt@trade?timeUnit=MILLISECOND") as client:
            assert (await client.next())["e"] == "trade"


async def test_who_had_a_stream_that_left_and_came_back_is_closed_as_a_slow_one_is(
    autojump_clock: MockClock,
) -> None:
    """Else nothing more came of it; a stream of the whole market takes it in by itself."""
    both = settings_for_tests(ALL, ".symbols=['BTCUSDT','ETHUSDT']")
    name = "binance_usdm"
    one = evolve(both.exchanges[name], symbols=("BTCUSDT",))
    without = evolve(both, exchanges={name: one})
    symbols = ("BTCUSDT", "ETHUSDT")
    async with open_stack(both, symbols=symbols, trades_per_minute=60) as stack:
        await trio.sleep(30)
        streams = f"/{name}/ws/ethusdt@kline_1m"
        async with (
            socket(stack, streams) as client,
            socket(stack, streams) as unsubscribed,
            socket(stack, f"/{name}/ws/!miniTicker@arr") as whole,
        ):
            for each in (client, unsubscribed):
                await each.event("kline")
            await stack.ready.venues.apply(without)
            await unsubscribed.ask("UNSUBSCRIBE", "ethusdt@kline_1m")
            assert (await unsubscribed.answer())["result"] is None
            await trio.sleep(30)
            await stack.ready.venues.apply(both)
            with suppress(trio_websocket.ConnectionClosed):
                while True:
                    await client.next()
            assert client.connection.closed is not None
            assert client.connection.closed.code == 1008
            await trio.sleep(30)
            for each in (unsubscribed, whole):
                assert each.connection.closed is None
