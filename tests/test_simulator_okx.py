"""What the OKX box pushes: memory streams, virtual time, a client that we did not write."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from support.counted import count_steps
from support.okx_box import (
    BUSINESS,
    PUBLIC,
    START,
    collect,
    listen,
    now_ms,
    open_okx,
    subscribe,
)
from trio.testing import MockClock

from trio_feed.model import Interval
from trio_feed.simulator import Market, ResponseFaults
from trio_feed.simulator.machinery.wire import Request
from trio_feed.simulator.market.books import Books, Level, Levels
from trio_feed.simulator.okx.bars import BARS, Candles
from trio_feed.simulator.okx.book_sources import BookSource
from trio_feed.simulator.okx.channels import source_of
from trio_feed.simulator.okx.data import MarketData, Sequences
from trio_feed.simulator.okx.listing import find_instrument
from trio_feed.simulator.okx.rest import OkxRest
from trio_feed.simulator.okx.rows import Channel, aggregates

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
DAY = 24 * HOUR
D = Decimal


def rows_of(messages: Sequence[Any], channel: str, inst_id: str = "BTC-USDT") -> list[Any]:
    """The rows of one channel, in order."""
    arg = {"channel": channel, "instId": inst_id}
    return [row for m in messages if m.get("arg") == arg for row in m.get("data", ())]


# --- candles --------------------------------------------------------------------------------------


async def test_the_feed_sleeps_from_event_to_event(autojump_clock: MockClock) -> None:
    """Four virtual hours of one stream: it wakes for what it pushes, however fine its grid is."""
    steps = count_steps()
    async with open_okx(symbols=("BTCUSDT",), trades=4, push_ms=30_000) as box:
        async with box.websocket(BUSINESS, "candle1m:BTC-USDT") as websocket:
            rows = rows_of(await listen(websocket, 4 * 3600 - 1), "candle1m")
    closed = [int(row[0]) for row in rows if row[-1] == "1"]
    assert closed == list(range(START, START + 239 * MINUTE, MINUTE))
    assert len(rows) < steps.count < 40 * len(rows)


async def test_candles(autojump_clock: MockClock) -> None:
    """The documented row; at most one push a second; the closing one right at the end."""
    async with open_okx() as box, box.websocket(BUSINESS) as websocket:
        await trio.sleep(0.3)
        await websocket.send_message(subscribe("candle1m:BTC-USDT", "candle1m:BTC-USDT-SWAP"))
        messages = await collect(websocket, 60)
        spot, swap = (rows_of(messages, "candle1m", i) for i in ("BTC-USDT", "BTC-USDT-SWAP"))
        assert {len(row) for row in spot} == {9}
        assert all(isinstance(value, str) for row in spot for value in row)
        opened = [row for row in spot if int(row[0]) == START]
        assert [row[-1] for row in opened] == ["0"] * (len(opened) - 1) + ["1"]
        assert len(opened) == 1 + 60  # what there was, and each second
        candle = box.market.candle("BTCUSDT", Interval.M1, START)
        wanted = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        assert [D(value) for value in opened[-1][1:6]] == [*wanted]
        assert D(opened[-1][6]) == D(opened[-1][7]) == candle.quote_volume
        closing = next(row for row in swap if row[-1] == "1")
        assert D(closing[5]) == candle.volume * 100
        assert (D(closing[6]), D(closing[7])) == (candle.volume, candle.quote_volume)


async def test_every_bar_is_pushed_and_closed_by_its_calendar(autojump_clock: MockClock) -> None:
    """UTC bars of 6H and longer open at midnight UTC, the others at midnight of UTC+8."""
    names = {name: f"candle{name}" for name in BARS if name != "1s"}
    async with open_okx(symbols=("BTCUSDT",), trades=4, push_ms=60_000) as box:
        async with box.websocket(BUSINESS, *(f"{c}:BTC-USDT" for c in names.values())) as websocket:
            messages = await listen(websocket, 12 * 3600 + 1)
    midnight = START + 12 * HOUR
    for name, channel in names.items():
        rows = rows_of(messages, channel)
        bar = BARS[name]
        assert {int(row[0]) for row in rows} == {
            bar.open_of(at) for at in range(START, midnight, MINUTE)
        }
        closed = [int(row[0]) for row in rows if row[-1] == "1"]
        assert (
            closed
            == sorted({bar.open_of(at) for at in range(START, midnight, MINUTE)})[: len(closed)]
        )
        assert all(bar.next_open(at) <= midnight + SECOND for at in closed)
    hours = {n: datetime.fromtimestamp(BARS[n].open_of(START) / 1000, UTC).hour for n in names}
    assert {n: h for n, h in hours.items() if n.endswith("utc")} == {
        "6Hutc": 12, "12Hutc": 12, "1Dutc": 0, "2Dutc": 0, "3Dutc": 0, "5Dutc": 0, "1Wutc": 0,
        "1Mutc": 0, "3Mutc": 0,
    }  # fmt: skip
    assert [hours[n] for n in ("6H", "12H", "1D", "1W", "1M", "3M")] == [10, 4, 16, 16, 16, 16]


@pytest.mark.parametrize("name", [*BARS])
def test_bars_follow_each_other(name: str) -> None:
    bar = BARS[name]
    at = bar.open_of(START)
    for _ in range(200):
        assert bar.open_of(at) == at
        assert bar.open_of(bar.next_open(at) - 1) == at
        assert bar.previous_open(bar.next_open(at)) == at
        at = bar.previous_open(at)


@pytest.mark.parametrize(
    ("name", "day"),
    [("1M", "2026-10-31"), ("3M", "2026-09-30"), ("1Mutc", "2026-11-01"), ("3Mutc", "2026-10-01"),
     ("1Wutc", "2026-11-16"), ("1W", "2026-11-15")],
)  # fmt: skip
def test_where_long_bars_open(name: str, day: str) -> None:
    opened = datetime.fromtimestamp(BARS[name].open_of(START) / 1000, UTC)
    assert f"{opened:%Y-%m-%d}" == day


def test_put_together_bars_agree_with_the_market() -> None:
    """A bar that the market does not know holds what its minutes hold."""
    market = Market(7, ("BTCUSDT",), 4)
    candles = Candles(market)
    bar = BARS["6H"]
    open_ms = bar.open_of(START)
    for now in (START, START + 7 * HOUR):
        kline = candles.state("BTCUSDT", bar, open_ms, now)
        assert kline is not None
        end = min(now, bar.next_open(open_ms))
        minutes = [market.candle("BTCUSDT", Interval.M1, at) for at in range(open_ms, end, MINUTE)]
        assert kline.closed == (now > START)
        assert (kline.open_ms, kline.open, kline.close) == (
            open_ms, minutes[0].open, minutes[-1].close
        )  # fmt: skip
        assert kline.volume == sum(minute.volume for minute in minutes)
        assert kline.high == max(minute.high for minute in minutes)
        assert kline.trades == 4 * len(minutes)


# --- trades and tickers ---------------------------------------------------------------------------


async def test_trades(autojump_clock: MockClock) -> None:
    """Ids without a hole in trades-all, and the same trades joined in ``trades``."""
    async with open_okx(trades=6_000) as box:
        async with (
            box.websocket(PUBLIC, "trades:BTC-USDT", "trades:SOL-USDT") as public,
            box.websocket(BUSINESS, "trades-all:BTC-USDT", "trades-all:SOL-USDT") as business,
        ):
            await trio.sleep(10.05)
            joined, single = await collect(public, 0.01), await collect(business, 0.01)
    for inst_id in ("BTC-USDT", "SOL-USDT"):
        some, each = rows_of(joined, "trades", inst_id), rows_of(single, "trades-all", inst_id)
        assert list(some[0]) == [
            "instId", "tradeId", "px", "sz", "side", "ts", "count", "source", "seqId"
        ]  # fmt: skip
        assert list(each[0]) == ["instId", "tradeId", "px", "sz", "side", "source", "ts"]
        ids = [int(row["tradeId"]) for row in each]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert int(some[0]["ts"]) <= START < int(some[1]["ts"])  # the last one before comes first
        by_id = {int(row["tradeId"]): row for row in each}
        for row in some[1:]:
            last, count = int(row["tradeId"]), int(row["count"])
            inside = [by_id[n] for n in range(last - count + 1, last + 1)]
            assert {(i["px"], i["side"]) for i in inside} == {(row["px"], row["side"])}
            assert sum(D(i["sz"]) for i in inside) == D(row["sz"])
        assert sum(int(row["count"]) for row in some[1:]) == len(each)
        assert [row["seqId"] for row in some] == sorted(row["seqId"] for row in some)
    assert any(row["count"] != "1" for row in rows_of(joined, "trades", "SOL-USDT"))


async def test_tickers(autojump_clock: MockClock) -> None:
    names = ("tickers:BTC-USDT", "tickers:BTC-USDT-SWAP", "tickers:ETH-USDT")
    async with open_okx() as box:
        async with box.websocket(PUBLIC, *names) as websocket:
            messages = await listen(websocket, 25)
        spot = rows_of(messages, "tickers")
        assert list(spot[0]) == [
            "instType", "instId", "last", "lastSz", "askPx", "askSz", "bidPx", "bidSz", "open24h",
            "high24h", "low24h", "sodUtc0", "sodUtc8", "volCcy24h", "vol24h", "ts",
        ]  # fmt: skip
        assert 90 < len(spot) <= 101  # with each trade: four a second
        last = spot[-1]
        (trade,) = [*box.market.trades("BTCUSDT", START, now_ms())][-1:]
        assert (D(last["last"]), D(last["lastSz"])) == (trade.price, trade.quantity)
        assert D(last["bidPx"]) < D(last["askPx"])
        assert D(last["low24h"]) <= D(last["last"]) <= D(last["high24h"])
        minutes = [
            box.market.candle("BTCUSDT", Interval.M1, at)
            for at in range(START - DAY, START, MINUTE)
        ]
        first = spot[0]
        assert D(first["open24h"]) == minutes[0].open
        assert D(first["vol24h"]) == sum(m.volume for m in minutes)
        assert D(first["volCcy24h"]) == sum(m.quote_volume for m in minutes)
        assert D(first["high24h"]) == max(m.high for m in minutes)
        assert D(first["sodUtc0"]) == minutes[720].open
        assert D(first["sodUtc8"]) == minutes[240].open
        swap = rows_of(messages, "tickers", "BTC-USDT-SWAP")[0]
        assert D(swap["vol24h"]) == 100 * D(first["vol24h"])
        assert D(swap["volCcy24h"]) == D(first["vol24h"])


# --- books ----------------------------------------------------------------------------------------


def play(rows: Sequence[Any]) -> dict[str, dict[D, str]]:
    """A book by the documented rules: a snapshot, then absolute quantities; 0 removes."""
    sides: dict[str, dict[D, str]] = {"bids": {}, "asks": {}}
    seq_id = None
    for row in rows:
        if row["prevSeqId"] == -1:
            sides = {"bids": {}, "asks": {}}
        else:
            assert row["prevSeqId"] == seq_id
        seq_id = row["seqId"]
        assert row["checksum"] == 0
        for name, side in sides.items():
            for price, size, zero, _orders in row[name]:
                assert zero == "0"
                if size == "0":
                    assert side.pop(D(price), None)
                else:
                    side[D(price)] = size
    return sides


async def test_books_chain_and_agree_with_rest(autojump_clock: MockClock) -> None:
    """400 levels at any time; what REST says a moment later is the same book with the same id."""
    async with open_okx() as box:
        await trio.sleep(0.05)
        for inst_id, factor in (("BTC-USDT", 1), ("ETH-USDT-SWAP", 10)):
            async with box.websocket(PUBLIC, f"books:{inst_id}") as websocket:
                messages = await listen(websocket, 20)
                rest = (await box.data(f"market/books?instId={inst_id}&sz=400"))[0]
            assert [m["action"] for m in messages] == ["snapshot"] + ["update"] * (
                len(messages) - 1
            )
            rows = rows_of(messages, "books", inst_id)
            assert list(rows[0]) == ["asks", "bids", "ts", "checksum", "prevSeqId", "seqId"]
            assert all(int(row["ts"]) % 100 == 0 for row in rows)
            sides = play(rows)
            for name in ("bids", "asks"):
                assert len(sides[name]) == 400
                assert {D(level[0]): level[1] for level in rest[name]} == sides[name]
            assert 100 < len(rows) <= 201
            assert rows[-1]["seqId"] <= rest["seqId"]
            levels = box.exchange.data.books[inst_id[:3] + "USDT"].levels(
                int(rows[-1]["ts"]) // 100, 400
            )
            assert {p: q * factor for p, q in levels[0]} == {
                p: D(q) for p, q in sides["bids"].items()
            }


async def test_partial_books_agree_with_the_whole(autojump_clock: MockClock) -> None:
    """Each comes when it changed, in OKX's order, and says what ``books`` says at that id."""
    async with open_okx() as box:
        names = [f"{name}:BTC-USDT-SWAP" for name in ("books5", "books", "bbo-tbt")]
        async with box.websocket(PUBLIC, *names) as websocket:
            messages = await listen(websocket, 10)
    book: dict[str, dict[D, str]] = {}
    past: list[Any] = []
    for message in messages:
        (row,), name = message["data"], message["arg"]["channel"]
        if name == "books":
            book = play([*past, row])
            past.append(row)
        elif name == "books5":
            assert list(row) == ["asks", "bids", "ts", "instId", "seqId"]
            assert len(row["asks"]) == len(row["bids"]) == 5
            if book:
                best = sorted(book["bids"], reverse=True)[:5]
                assert [D(level[0]) for level in row["bids"]] == best
                assert [level[1] for level in row["bids"]] == [book["bids"][p] for p in best]
        else:
            assert list(row) == ["asks", "bids", "ts", "seqId"]
            assert len(row["asks"]) == len(row["bids"]) == 1
    by_time = defaultdict(list)
    for message in messages[3:]:
        by_time[message["data"][0]["ts"]].append(message["arg"]["channel"])
    order = ["bbo-tbt", "books", "books5"]
    assert all(names == [n for n in order if n in names] for names in by_time.values())
    assert order in by_time.values()


class StubBooks:
    """A book of one level that changes when it is told to."""

    def __init__(self) -> None:
        self.size = D(1)

    def __getitem__(self, symbol: str) -> "StubBooks":
        return self

    def levels(self, step: int, n: int) -> tuple[Levels, Levels]:
        bid: Level = (D(99), self.size)
        return (bid,), ((D(101), D(5)),)


def book_source() -> tuple[BookSource, StubBooks, Sequences]:
    market = Market(7, ("BTCUSDT",), 4)
    instrument = find_instrument(market, "BTC-USDT")
    assert instrument is not None
    books: Any = StubBooks()
    sequences = Sequences()
    data = MarketData(market, books, Candles(market), sequences, 1000)
    source = BookSource(Channel("books", "BTC-USDT"), instrument, data, 0, START)
    return source, books, sequences


def test_a_quiet_book_says_so_every_minute() -> None:
    """Empty sides, and the same id twice; the chain goes on from there."""
    source, books, _ = book_source()
    (snapshot,) = [json.loads(message) for message in source.snapshot()]
    messages = [
        (at, json.loads(message)["data"][0])
        for at in range(START + 100, START + 125_000, 100)
        for message in source.news(at)
    ]
    assert [at - START for at, _ in messages] == [60_000, 120_000]
    for at, row in messages:
        assert (row["asks"], row["bids"], row["ts"]) == ([], [], str(at))
        assert row["prevSeqId"] == row["seqId"] == snapshot["data"][0]["seqId"]
    books.size = D(2)
    (change,) = [json.loads(message)["data"][0] for message in source.news(source.due_ms)]
    assert change["prevSeqId"] == messages[-1][1]["seqId"] < change["seqId"]
    assert [level[:3] for level in change["bids"]] == [["99", "2", "0"]]
    assert change["asks"] == []


def test_gap_and_reset_of_a_book() -> None:
    source, books, sequences = book_source()

    def change() -> list[Any]:
        books.size += 1
        return [json.loads(message)["data"][0] for message in source.news(source.due_ms)]

    (one,) = change()
    sequences.gaps["BTC-USDT"] = 2
    assert change() == change() == []
    (two,) = change()
    assert two["prevSeqId"] == one["seqId"] + 20
    sequences.resets.add("BTC-USDT")
    (three,), (four,) = change(), change()
    assert three["prevSeqId"] == two["seqId"]
    assert three["seqId"] < three["prevSeqId"]
    assert (four["prevSeqId"], four["seqId"]) == (three["seqId"], three["seqId"] + 10)


def test_aggregates_are_the_same_however_they_are_cut() -> None:
    """Windows of 100 ms by the clock: pushes of any rhythm give the same aggregates."""
    market = Market(7, ("SOLUSDT",), 6_000)
    trades = [*market.trades("SOLUSDT", START + 1, START + 2_001)]
    whole = aggregates(trades)
    cut = [
        each
        for at in range(START, START + 2_000, 100)
        for each in aggregates(market.trades("SOLUSDT", at + 1, at + 101))
    ]
    assert whole == cut
    assert len(whole) < len(trades)


@pytest.mark.parametrize("name", ["books", "books5", "bbo-tbt", "tickers", "trades"])
def test_a_listing_says_nothing_before_its_first_trade(name: str) -> None:
    """Who subscribed early gets the snapshot when there is a book."""
    market = Market(7, ("BTCUSDT",), 4)
    market.list_symbol("NEWUSDT", listed_ms=START + MINUTE)
    instrument = find_instrument(market, "NEW-USDT")
    assert instrument is not None
    first_ms = next(market.trades_from("NEWUSDT", 0, 1)).time_ms
    data = MarketData(market, Books(market), Candles(market), Sequences(), 1000)
    (before,) = _ticker_rows(data, START)
    assert (before["last"], before["bidPx"], before["vol24h"]) == ("", "", "")

    source = source_of(data, Channel(name, "NEW-USDT"), START)
    assert source is not None
    assert [*source.snapshot()] == []
    told = []
    while not told:
        at = source.due_ms
        told = [json.loads(message) for message in source.news(at)]
    assert at - 100 < first_ms <= at
    (row,) = told[0]["data"]
    if name == "books":
        assert (told[0]["action"], row["prevSeqId"]) == ("snapshot", -1)
        assert len(row["bids"]) == len(row["asks"]) == 400
        (now,) = [json.loads(message) for message in source.snapshot()]
        assert now == told[0]
        (change,) = [json.loads(m)["data"][0] for m in source.news(source.due_ms)]
        assert change["prevSeqId"] == row["seqId"]


def _ticker_rows(data: MarketData, now_ms: int) -> list[Any]:
    request = Request("GET", "/api/v5/market/ticker", {"instId": "NEW-USDT"})
    return list(json.loads(OkxRest(ResponseFaults(), data).respond(request, now_ms).body)["data"])
