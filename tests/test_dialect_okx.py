"""OKX's dialect over the whole service: what its clients send and get, on virtual time."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio_websocket
from support.stack import START_MS, Stack, open_stack, settings_for_tests
from test_dialect_binance import Socket, ask, asked_at, request_for, socket
from test_server import KEY, UPGRADE, get, until_closed
from trio.testing import MockClock

from trio_feed.dialects.okx import encoders, errors
from trio_feed.push.edge.work import Busy

MORE = (
    ".symbols=['BTCUSDT','BTCUSDTSWAP']",
    ".channels=['kline','trade','ticker','bbo','mark_price']",
    ".intervals=['1m','1h','1d']",
)
BOOKS = ".channels=['kline','trade','ticker','book','bbo','mark_price']"
SPOT, SWAP = "BTC-USDT", "BTC-USDT-SWAP"
WRONG = "Please use the correct URL, channel and parameters referring to API document."


@asynccontextmanager
async def okx(*more: str, **box: Any) -> AsyncIterator[Stack]:
    settings = settings_for_tests(*MORE, *more, venue="okx")
    async with open_stack(settings, trades_per_minute=60, **box) as stack:
        await trio.sleep(5)
        yield stack


class Client:
    """Of one WebSocket."""

    def __init__(self, wire: Socket) -> None:
        self.wire = wire

    async def op(self, op: str, *args: Any, **more: Any) -> None:
        await self.wire.send(json.dumps({**more, "op": op, "args": list(args)}))

    async def next(self) -> Any:
        return await self.wire.next()

    async def answer(self) -> Any:
        """The next message that is no data, without the connection's name."""
        while "event" not in (message := await self.next()):
            pass
        assert len(message.pop("connId")) == 8
        return message

    async def row(self, channel: str) -> Any:
        """The next row of a channel."""
        while (message := await self.next()).get("data") is None or (
            message["arg"]["channel"] != channel
        ):
            pass
        (row,) = message["data"]
        return row


@asynccontextmanager
async def client(stack: Stack, path: str = "public") -> AsyncIterator[Client]:
    async with socket(stack, f"/okx/ws/v5/{path}") as wire:
        yield Client(wire)


def arg(channel: str, inst_id: str = SPOT, **more: str) -> dict[str, str]:
    return {"channel": channel, "instId": inst_id, **more}


async def rows(stack: Stack, target: str) -> list[Any]:
    status, answer, _ = await ask(stack, f"/okx/api/v5/{target}")
    assert (status, answer["code"], answer["msg"]) == (200, "0", ""), answer
    data: list[Any] = answer["data"]
    return data


CHANNELS = {
    "tickers": ["instType", "instId", "last", "lastSz", "askPx", "askSz", "bidPx", "bidSz",
                "open24h", "high24h", "low24h", "sodUtc0", "sodUtc8", "volCcy24h", "vol24h", "ts"],
    "trades": ["instId", "tradeId", "px", "sz", "side", "ts", "count"],
    "trades-all": ["instId", "tradeId", "px", "sz", "side", "ts"],
    "books": ["asks", "bids", "ts", "checksum", "prevSeqId", "seqId"],
    "books5": ["asks", "bids", "instId", "ts", "seqId"],
    "bbo-tbt": ["asks", "bids", "ts", "seqId"],
    "mark-price": ["instType", "instId", "markPx", "ts"],
    "funding-rate": ["instType", "instId", "fundingRate", "fundingTime", "nextFundingRate",
                     "nextFundingTime", "interestRate", "maxFundingRate", "minFundingRate",
                     "premium", "prevFundingTime", "settFundingRate", "ts"],
}  # fmt: skip


@pytest.mark.parametrize("path", ["public", "business"])
async def test_every_channel_on_both_urls(path: str, autojump_clock: MockClock) -> None:
    async with okx(BOOKS) as stack, client(stack, path) as bot:
        wanted = [*CHANNELS, "candle1m", "candle1H", "candle1Dutc"]
        await bot.op("subscribe", *(arg(name, SWAP) for name in wanted), id="a1")
        acks, seen = [], {}
        while len(seen) < len(wanted):
            message = await bot.next()
            if "event" in message:
                assert list(message) == ["id", "event", "arg", "connId"]
                acks.append((message["id"], message["event"], message["arg"]["channel"]))
                continue
            name = message["arg"]["channel"]
            assert message["arg"] == arg(name, SWAP)
            assert list(message) == ["arg", *(["action"] if name == "books" else []), "data"]
            seen.setdefault(name, message["data"][0])
        assert acks == [("a1", "subscribe", name) for name in wanted]
        for name, fields in CHANNELS.items():
            assert list(seen[name]) == fields
        assert {len(seen[f"candle{bar}"]) for bar in ("1m", "1H", "1Dutc")} == {9}
        assert seen["tickers"]["instType"] == "SWAP"


async def test_what_a_channel_begins_with(autojump_clock: MockClock) -> None:
    """How things stand comes right behind the acknowledgement; of single trades nothing does."""
    async with okx(BOOKS) as stack, client(stack) as bot:
        for name in ("candle1m", "tickers", "trades", "books", "books5", "bbo-tbt"):
            await bot.op("subscribe", arg(name))
            assert (await bot.next())["event"] == "subscribe"
            message = await bot.next()
            while message["arg"]["channel"] != name:  # news of what was subscribed to before
                message = await bot.next()
            assert message.get("action") == ("snapshot" if name == "books" else None)
            await bot.op("unsubscribe", arg(name))
            assert (await bot.answer())["event"] == "unsubscribe"
        at = trio.current_time()
        await bot.op("subscribe", arg("trades-all"))
        assert (await bot.next())["event"] == "subscribe"
        newest = await rows(stack, f"market/trades?instId={SPOT}&limit=1")
        first = await bot.row("trades-all")
        assert int(first["tradeId"]) == int(newest[0]["tradeId"]) + 1
        assert trio.current_time() > at


async def test_contracts_and_coins(autojump_clock: MockClock) -> None:
    """Spot counts coins, a swap contracts of 0.01 BTC; candles have both."""
    async with okx() as stack, client(stack) as bot:
        market = stack.market
        for name in (SPOT, SWAP):
            await bot.op("subscribe", arg("trades-all", name))
        got: dict[str, Any] = {}
        while len(got) < 2:
            message = await bot.next()
            if "data" in message:
                got.setdefault(message["arg"]["instId"], message["data"][0])
        for name, size in ((SPOT, Decimal(1)), (SWAP, Decimal("0.01"))):
            row = got[name]
            (trade,) = [*market.trades_from("BTCUSDT", int(row["tradeId"]), 1)]
            assert Decimal(row["px"]) == trade.price
            assert Decimal(row["sz"]) * size == trade.quantity
            assert row["side"] == ("sell" if trade.buyer_is_maker else "buy")
        spot, swap = [await rows(stack, f"market/candles?instId={i}") for i in (SPOT, SWAP)]
        for one, other in zip(spot[1:], swap[1:], strict=True):
            assert (one[:5], one[7:]) == (other[:5], other[7:])
            assert Decimal(one[5]) == Decimal(other[5]) * Decimal("0.01") == Decimal(other[6])
            assert one[6] == one[7]


REFUSED: tuple[tuple[str, str, str], ...] = (
    ("{", "60012", "Invalid request: {"),
    ("[]", "60012", "Invalid request: []"),
    ('{"op":7}', "60012", 'Invalid request: {"op":7}'),
    ('{"args":[]}', "60012", 'Invalid request: {"args":[]}'),
    ('{"op":"subscribe"}', "60012", 'Invalid request: {"op":"subscribe"}'),
    ('{"op":"subscribe","argss":[]}', "60012", 'Invalid request: {"op":"subscribe","argss":[]}'),
    ('{"op":"subscribe","args":[],"id":7}', "60012", "Invalid request: "),
    ('{"op":"subscribe","args":[],"id":"a-b"}', "60012", "Invalid request: "),
    ('{"op":"subscribe","args":[],"id":"' + "a" * 33 + '"}', "60012", "Invalid request: "),
    ('{"op":"subscribe","args":[]}', "60013", "Invalid args"),
    ('{"op":"subscribe","args":{}}', "60013", "Invalid args"),
    ('{"op":"subscribe","args":["tickers:BTC-USDT"]}', "60013", "Invalid args"),
    ('{"op":"subscribe","args":[{"instId":"BTC-USDT"}]}', "60013", "Invalid args"),
    ('{"op":"subscribe","args":[{"channel":7,"instId":"BTC-USDT"}]}', "60013", "Invalid args"),
    ('{"op":"subscribe","args":[{"channel":"a","x":' + "9" * 400 + "}]}", "60013", "Invalid args"),
    ('{"op":"subscribe","args":[' + '{"channel":"a"},' * 1000 + '{"channel":"a"}]}', "60013",
     "Invalid args"),
    ('{"op":"Subscribe","args":[]}', "60019", "Invalid op: Subscribe"),
    ('{"op":"login","args":[{"apiKey":"k"}]}', "60032", "API key doesn't exist."),
    ('{"op":"order","id":"1","args":[{}]}', "60011", "Please log in."),
    ("[" * 20_000, "60012", "Invalid request: [[[["),
    ('"\\ud800"', "60012", "Invalid request: "),
)  # fmt: skip


async def test_requests_that_are_refused(autojump_clock: MockClock) -> None:
    async with okx() as stack, client(stack) as bot:
        for text, code, problem in REFUSED:
            await bot.wire.send(text)
            error = await bot.answer()
            assert (error["event"], error["code"]) == ("error", code), (text[:80], error)
            assert error["msg"].startswith(problem), (text[:80], error)
            assert len(error["msg"]) < 400
        await bot.wire.send("ping")  # the connection is fine
        assert await bot.wire.connection.get_message() == "pong"


async def test_arguments_are_answered_one_by_one(autojump_clock: MockClock) -> None:
    async with okx() as stack, client(stack) as bot:
        odd = [
            arg("tickers", "BTCUSDT"),
            arg("candle1D"),
            arg("candle5m"),
            arg("candle30s"),
            arg("index-tickers"),
            {"channel": "tickers"},
            arg("funding-rate"),
            arg("mark-price"),
            arg("orders"),
            arg("books-l2-tbt"),
            arg("tickers", instType="SPOT"),
        ]
        await bot.op("subscribe", *odd, id="x")
        got = [await bot.answer() for _ in odd]
        assert {each["id"] for each in got} == {"x"}
        assert [each.get("code", each["event"]) for each in got] == [
            "60018", "60018", "60018", "60018", "60018", "60018", "60018", "60018", "60011",
            "60011", "subscribe",
        ]  # fmt: skip
        exact = "Wrong URL or channel:{},instId:BTC-USDT doesn't exist. " + WRONG
        days = " (trio_feed: 1D opens on days of UTC+8, which are not kept here: ask for 1Dutc)"
        assert got[1]["msg"] == exact.format("candle1D") + days
        assert got[2]["msg"].startswith(exact.format("candle5m") + " (trio_feed: 5m candles of")
        assert "exchanges.okx.intervals" in got[2]["msg"]
        assert got[4]["msg"] == exact.format("index-tickers")
        assert got[5]["msg"] == (
            f"Wrong URL or channel:tickers doesn't exist. {WRONG} (trio_feed: instId is missing)"
        )
        assert got[-1]["arg"] == arg("tickers", instType="SPOT")  # as it was sent


async def test_accounts_are_not_here(autojump_clock: MockClock) -> None:
    async with okx() as stack, client(stack, "private") as bot:
        await bot.op("login", {"apiKey": "k", "passphrase": "p", "timestamp": "1", "sign": "s"})
        assert (await bot.answer())["code"] == "60032"
        await bot.op("subscribe", {"channel": "orders", "instType": "ANY"}, arg("tickers"))
        assert [(await bot.answer())["code"] for _ in range(2)] == ["60011", "60018"]
        status, error, _ = await ask(stack, "/okx/api/v5/account/balance")
        assert (status, error["code"]) == (401, "50103")


async def test_unsubscribing(autojump_clock: MockClock) -> None:
    async with okx() as stack, client(stack) as bot:
        await bot.op("subscribe", arg("trades"), arg("trades-all"))
        await bot.row("trades-all")
        await bot.op("unsubscribe", arg("trades"), arg("tickers"), arg("tickers", "NO-NE"), id="u")
        answers = [await bot.answer() for _ in range(3)]
        assert answers[0] == {"id": "u", "event": "unsubscribe", "arg": arg("trades")}
        assert [each["event"] for each in answers] == ["unsubscribe", "unsubscribe", "error"]
        for _ in range(5):
            assert (await bot.next())["arg"]["channel"] == "trades-all"


async def test_too_many_channels(autojump_clock: MockClock) -> None:
    async with okx("kline.max_subscriptions_per_client=1") as stack, client(stack) as bot:
        await bot.op("subscribe", arg("trades"), arg("trades"), arg("tickers"))
        answers = [await bot.answer() for _ in range(3)]
        assert [each.get("code") for each in answers] == [None, None, "60013"]
        assert "the limit of channels is 1" in answers[2]["msg"]


async def test_clients_beyond_their_rate(autojump_clock: MockClock) -> None:
    limits = ("websocket.requests_per_second=1", "websocket.request_burst=2")
    async with okx(*limits) as stack, client(stack) as bot:
        for number in range(3):
            await bot.op("subscribe", arg("none"), id=str(number))
        answers = [await bot.answer() for _ in range(3)]
        assert [(each["id"], each["code"]) for each in answers] == [
            ("0", "60018"), ("1", "60018"), ("2", "60014"),
        ]  # fmt: skip


class Book:
    """A client's book, kept as OKX says it, its ids checked as ccxt does."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, str]] = {}
        self.number = 0

    def take(self, message: dict[str, Any]) -> None:
        (row,) = message["data"]
        if message["action"] == "snapshot":
            assert row["prevSeqId"] == -1
            self.sides = {"bids": {}, "asks": {}}
        else:
            assert row["prevSeqId"] == self.number
        assert row["seqId"] > self.number
        assert row["checksum"] == 0
        self.number = row["seqId"]
        for side, levels in self.sides.items():
            for price, size, unused, orders in row[side]:
                assert (unused, orders) == ("0", "0")
                levels.pop(price, None)
                if float(size):
                    levels[price] = size


def shown(row: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {side: {level[0]: level[1] for level in row[side]} for side in ("bids", "asks")}


@pytest.mark.parametrize("inst_id", [SPOT, SWAP])
async def test_a_book_kept_by_the_rules_equals_ours(
    inst_id: str, autojump_clock: MockClock
) -> None:
    """At every update, across a resync of ours and with clients that come and go."""
    async with okx(BOOKS, ".book_levels=30") as stack, AsyncExitStack() as clients:
        bot = await clients.enter_async_context(client(stack))
        await bot.op("subscribe", arg("books", inst_id))
        assert (await bot.next())["event"] == "subscribe"
        book, compared, later = Book(), 0, None
        for turn in range(40):
            message = await bot.next()
            assert message["action"] == ("update" if turn else "snapshot")
            book.take(message)
            assert len(book.sides["bids"]) <= 30
            if turn == 20:
                stack.exchange.gap_books(inst_id)
            if turn in (10, 30):
                async with client(stack) as guest:
                    await guest.op("subscribe", arg("books", inst_id))
                    await guest.next()
                    later = Book()
                    later.take(await guest.next())
                    while later.number < book.number:
                        later.take(await guest.next())
                    while book.number < later.number:
                        book.take(await bot.next())
                    assert later.sides == book.sides
            (row,) = await rows(stack, f"market/books?instId={inst_id}&sz=400")
            if row["seqId"] == book.number:
                compared += 1
                assert shown(row) == book.sides
        assert compared > 15
        assert later is not None


async def test_a_book_begins_again_for_who_subscribes_again(autojump_clock: MockClock) -> None:
    async with okx(BOOKS) as stack, client(stack) as bot:
        for _ in range(3):
            await bot.op("subscribe", arg("books"))
            book, message = Book(), await bot.next()
            while message.get("action") != "snapshot":
                message = await bot.next()
            for _ in range(4):
                book.take(message)
                message = await bot.next()


async def test_partial_books_are_the_top_of_the_whole(autojump_clock: MockClock) -> None:
    async with okx(BOOKS) as stack, client(stack) as bot:
        await bot.op("subscribe", arg("books"), arg("books5"), arg("bbo-tbt"))
        book, fives, tops = Book(), 0, []
        while fives < 10 or len(tops) < 3:
            message = await bot.next()
            if "event" in message:
                continue
            name, (row,) = message["arg"]["channel"], message["data"]
            if name == "books":
                book.take(message)
            elif name == "books5":
                fives += 1
                assert len(row["bids"]) == len(row["asks"]) == 5
                if row["seqId"] == book.number:
                    for side, best in (("bids", max), ("asks", min)):
                        assert row[side][0][0] == best(book.sides[side], key=float)
            else:
                tops.append(row)
        for before, after in pairwise(tops):
            assert before["seqId"] < after["seqId"]
            assert float(after["bids"][0][0]) < float(after["asks"][0][0])


async def test_candles_by_rest(autojump_clock: MockClock) -> None:
    async with okx() as stack:
        base = f"market/candles?instId={SPOT}"
        found = await rows(stack, base)
        opens = [int(row[0]) for row in found]
        assert opens == [opens[0] - 60_000 * n for n in range(len(opens))]  # newest first
        assert len(opens) > 20
        now = START_MS + trio.current_time() * 1000
        assert opens[0] <= now < opens[0] + 60_000
        assert [row[8] for row in found[:2]] == ["0", "1"]
        history = await rows(stack, base.replace("candles", "history-candles"))
        assert [int(row[0]) for row in history] == opens[1:]
        page = await rows(stack, f"{base.replace('candles', 'history-candles')}&limit=3")
        assert page == history[:3]
        for bounds, wanted in (
            ("limit=2", opens[:2]),
            (f"after={opens[3]}", opens[4:]),
            (f"before={opens[3]}", opens[:3]),
            (f"before={opens[8]}&after={opens[3]}", opens[4:8]),
            (f"before={opens[8]}&after={opens[3]}&limit=2", opens[4:6]),
            (f"after={opens[-1]}", []),
            (f"before={opens[0]}", []),
        ):
            assert [int(row[0]) for row in await rows(stack, f"{base}&{bounds}")] == wanted, bounds
        utc = await rows(stack, f"{base}&bar=1Dutc")
        assert {int(row[0]) % 86_400_000 for row in utc} == {0}


async def test_trades_by_rest(autojump_clock: MockClock) -> None:
    async with okx() as stack:
        await rows(stack, f"market/trades?instId={SPOT}")  # from now on they are kept
        await trio.sleep(60)
        found = await rows(stack, f"market/trades?instId={SPOT}&limit=500")
        ids = [int(row["tradeId"]) for row in found]
        assert ids == list(range(ids[0], ids[-1] - 1, -1))
        assert len(ids) > 50
        base = f"market/history-trades?instId={SPOT}"
        for bounds, wanted in (
            ("limit=5", ids[:5]),
            (f"after={ids[4]}&limit=5", ids[5:10]),
            (f"before={ids[3]}", ids[:3]),
            (f"type=1&before={ids[9]}&after={ids[4]}", ids[5:9]),
        ):
            page = [int(row["tradeId"]) for row in await rows(stack, f"{base}&{bounds}")]
            assert page == wanted, bounds
        at = int(found[4]["ts"])
        page = await rows(stack, f"{base}&type=2&after={at}")
        assert [row for row in found if int(row["ts"]) < at][:100] == page


async def test_the_other_questions(autojump_clock: MockClock) -> None:
    async with okx(BOOKS) as stack:
        (time,) = await rows(stack, "public/time")
        assert abs(int(time["ts"]) - START_MS - trio.current_time() * 1000) < 1000
        (spot,) = await rows(stack, "public/instruments?instType=SPOT")
        (swap,) = await rows(stack, "public/instruments?instType=SWAP&instFamily=BTC-USDT")
        assert await rows(stack, "public/instruments?instType=FUTURES") == []
        assert await rows(stack, "public/instruments?instType=SWAP&uly=ETH-USDT") == []
        names = ("instType", "instId", "baseCcy", "quoteCcy", "settleCcy", "ctVal", "ctValCcy",
                 "ctType", "tickSz", "lotSz", "minSz", "state", "uly", "instFamily")  # fmt: skip
        truth = {
            row["instId"]: row
            for each in ("SPOT", "SWAP")
            for row in json.loads(await listed(stack, each))["data"]
        }
        for row in (spot, swap):
            for name in names:
                said, real = row[name], truth[row["instId"]][name]
                both = {said, real}
                assert len(both) == 1 or len({Decimal(text) for text in both}) == 1, name
        (one,) = await rows(stack, f"market/ticker?instId={SPOT}")
        assert await rows(stack, "market/tickers?instType=SPOT") == [one]
        assert list(one) == CHANNELS["tickers"]
        assert float(one["low24h"]) <= float(one["last"]) <= float(one["high24h"])
        (book,) = await rows(stack, f"market/books?instId={SPOT}")
        assert (len(book["bids"]), len(book["asks"])) == (1, 1)
        (mark,) = await rows(stack, f"public/mark-price?instId={SWAP}")
        assert await rows(stack, "public/mark-price?instType=SWAP") == [mark]
        assert float(mark["markPx"]) > 0
        (funding,) = await rows(stack, f"public/funding-rate?instId={SWAP}")
        assert await rows(stack, "public/funding-rate?instId=ANY") == [funding]
        assert int(funding["fundingTime"]) > START_MS
        assert int(funding["nextFundingTime"]) - int(funding["fundingTime"]) == 8 * 3_600_000


async def listed(stack: Stack, kind: str) -> bytes:
    """The exchange's own answer."""
    stream = await stack.network.dial("exchange", 80)
    target = f"/api/v5/public/instruments?instType={kind}"
    await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await until_closed(stream)
    return answer.partition(b"\r\n\r\n")[2]


ERRORS = {
    "market/candles": (400, "50014", "Parameter instId can not be empty."),
    "market/candles?instId=": (400, "50014", "Parameter instId can not be empty."),
    "market/candles?instId=BTCUSDT": (200, "51001", "Instrument ID, Instrument ID code, or Spread"),
    "market/candles?instId=BTC-USDT&bar=1d": (200, "51000", "Parameter bar error."),
    "market/candles?instId=BTC-USDT&bar=1D": (
        200,
        "51000",
        "Parameter bar error. (trio_feed: 1D opens on days of UTC+8, which are not kept here: ask ",
    ),
    "market/candles?instId=BTC-USDT&bar=2D": (200, "51000", "Parameter bar error."),
    "market/candles?instId=BTC-USDT&bar=5m": (200, "51000", "Parameter bar error. (trio_feed: 5m"),
    "market/candles?instId=BTC-USDT&limit=0": (200, "51000", "Parameter limit error."),
    "market/candles?instId=BTC-USDT&limit=abc": (200, "51000", "Parameter limit error."),
    "market/candles?instId=BTC-USDT&after=-1": (200, "51000", "Parameter after error."),
    "market/candles?instId=BTC-USDT&before=1e9": (200, "51000", "Parameter before error."),
    "market/candles?instId=BTC-USDT&after=" + "9" * 20: (200, "51000", "Parameter after error."),
    "market/candles?instId=BTC-USDT&instId=X": (200, "51000", "Parameter instId error."),
    "market/books?instId=BTC-USDT&sz=401": (200, "51000", "Parameter sz error."),
    "market/books?instId=BTC-USDT&sz=0": (200, "51000", "Parameter sz error."),
    "market/tickers": (400, "50014", "Parameter instType can not be empty."),
    "market/tickers?instType=spot": (200, "51000", "Parameter instType error."),
    "market/history-trades?instId=BTC-USDT&type=3": (200, "51000", "Parameter type error."),
    "market/history-trades?instId=BTC-USDT&type=2&before=1": (200, "51000", "Parameter before"),
    "market/history-trades?instId=BTC-USDT&after=1": (200, "51000", "Parameter after error. (trio"),
    "public/instruments?instType=OPTION": (400, "50015", "Either parameter uly or instFamily"),
    "public/funding-rate": (400, "50014", "Parameter instId can not be empty."),
    "public/funding-rate?instId=BTC-USDT": (200, "51000", "Parameter instId error."),
    "public/mark-price": (400, "50014", "Parameter instType can not be empty."),
    "public/mark-price?instId=BTC-USDT": (200, "51000", "Parameter instId error. (trio_feed: spot"),
    "market/nothing": (404, 404, "Not Found"),
}


async def test_errors_by_rest(autojump_clock: MockClock) -> None:
    async with okx() as stack:
        for target, (status, code, problem) in ERRORS.items():
            said, error, head = await ask(stack, f"/okx/api/v5/{target}")
            assert (said, error["code"]) == (status, code), (target, error)
            assert error["msg"].startswith(problem), (target, error)
            assert "content-type: application/json" in head
        assert (await ask(stack, "/okx/nothing"))[1]["error_code"] == "404"


async def test_a_channel_that_is_not_fed(autojump_clock: MockClock) -> None:
    async with okx(".channels=['kline']") as stack, client(stack) as bot:
        for name in ("trades", "tickers", "books", "mark-price"):
            await bot.op("subscribe", arg(name, SWAP))
            error = await bot.answer()
            assert error["code"] == "60018"
            assert "are not fed: see exchanges.okx.channels" in error["msg"]
        _, error, _ = await ask(stack, f"/okx/api/v5/market/ticker?instId={SPOT}")
        assert error["code"] == "51000"
        assert "ticker of BTC-USDT are not fed: see exchanges.okx.channels" in error["msg"]


async def test_who_is_not_served_is_told_in_okxs_form(autojump_clock: MockClock) -> None:
    async with okx("websocket.max_connections=1") as stack:
        path = "/okx/api/v5/public/time"
        held = await stack.network.dial("push", 80)
        await held.send_all(f"GET {path} HTTP/1.1\r\nHost: push\r\n\r\n".encode())
        await held.receive_some(65536)
        answer = await asked_at(stack, stack.ready.address, request_for(path))
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "50011"
        await held.aclose()
        await trio.sleep(1)
        strange = request_for(path, "Origin: http://evil.example")
        answer = await asked_at(stack, stack.ready.address, strange)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "50030"


def test_no_turn_says_when_to_come_again() -> None:
    reply = errors.busy(Busy("too many rows", 2.5))
    assert (reply.status, reply.headers) == (429, {"Retry-After": "3"})


async def test_a_farewell(autojump_clock: MockClock) -> None:
    async with okx() as stack, client(stack) as bot:
        await bot.op("subscribe", arg("trades"))
        stack.ready.app.disconnect_all(lambda: 5)
        while (notice := await bot.answer())["event"] != "notice":
            pass
        assert notice["code"] == "64008"
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await bot.next()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1012


async def test_simulated_data_is_not_served_unasked(autojump_clock: MockClock) -> None:
    own = ("simulator.enabled=true", "simulator.venue=okx", "simulator.port=82")
    async with okx(*own, "simulator.host=box") as stack:
        status, error, head = await ask(stack, "/okx/api/v5/public/time")
        assert (status, error["code"]) == (403, "50030")
        assert "dialects.okx.simulated_ok = true" in error["msg"]
        assert "x-trio-feed-source: simulated" in head
        host, _, port = stack.ready.address.rpartition(":")
        stream = await stack.network.dial(host, int(port))
        request = get(UPGRADE, KEY, path=b"/okx/ws/v5/public").replace(b"Host: x", b"Host: push")
        await stream.send_all(request)
        assert (await until_closed(stream)).startswith(b"HTTP/1.1 403")


async def test_simulated_data_that_is_asked_for_is_labelled(autojump_clock: MockClock) -> None:
    own = ("simulator.enabled=true", "simulator.venue=okx", "simulator.port=82")
    async with okx(*own, "simulator.host=box", "dialects.okx.simulated_ok=true") as stack:
        status, _, head = await ask(stack, "/okx/api/v5/public/time")
        assert (status, "x-trio-feed-source: simulated" in head) == (200, True)
        async with client(stack) as bot:
            await bot.op("subscribe", arg("trades"))
            assert (await bot.row("trades"))["instId"] == SPOT


async def test_a_bind_of_its_own(autojump_clock: MockClock) -> None:
    async with okx("dialects.okx.host=bots", "dialects.okx.port=81") as stack:
        async with socket(stack, "/ws/v5/business", "bots:81") as wire:
            bot = Client(wire)
            await bot.op("subscribe", arg("candle1m"))
            assert len(await bot.row("candle1m")) == 9


async def test_a_message_is_written_once_for_all_clients(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    written: list[object] = []
    write = encoders.trade

    def counted(*words: Any, **more: Any) -> str:
        written.append(words)
        return write(*words, **more)

    async with okx() as stack, AsyncExitStack() as clients:
        bots = [await clients.enter_async_context(client(stack)) for _ in range(5)]
        for bot in bots:
            await bot.op("subscribe", arg("trades-all"))
            assert (await bot.next())["event"] == "subscribe"
        monkeypatch.setattr(encoders, "trade", counted)
        got = [[await bot.row("trades-all") for _ in range(3)] for bot in bots]
        assert all(each == got[0] for each in got)
        assert len(written) == 3


async def test_fifty_bots_cost_the_exchange_what_one_does(autojump_clock: MockClock) -> None:
    async with okx() as stack:
        dials, asked = stack.exchange.dials, stack.exchange.requests
        statuses = []

        async def one() -> None:
            async with client(stack) as bot:
                await bot.op("subscribe", arg("candle1m"), arg("trades"))
                target = f"/okx/api/v5/market/candles?instId={SPOT}&limit=300"
                statuses.append((await ask(stack, target))[0])
                assert (await bot.row("trades"))["instId"] == SPOT

        for _ in range(2):  # all of them start again at once
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(one)
        assert statuses == [200] * 100
        assert (stack.exchange.dials, stack.exchange.requests) == (dials, asked)


async def test_candles_from_before_an_instrument_was_asked_for_are_no_pushes(
    autojump_clock: MockClock,
) -> None:
    """A bot would act on a hundred old closes as on news; the history is REST's."""
    async with okx(".symbols='on_demand'") as stack:
        await trio.sleep(90)
        asked_ms = START_MS + trio.current_time() * 1000
        async with client(stack, "business") as there:
            await there.op("subscribe", arg("candle1m"))
            opens = [int((await there.row("candle1m"))[0])]
            while len(opens) < 5 or opens[-1] == opens[0]:  # until the running one has closed
                opens.append(int((await there.row("candle1m"))[0]))
            assert min(opens) + 60_000 > asked_ms
            assert opens == sorted(opens)
