"""Every stream of both Binance boxes: its form, its rhythm, its ids; virtual time."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from support.exchange import START, Box, collect, open_box
from trio.testing import MockClock

from trio_feed.core.streams import POLLED
from trio_feed.model import Instrument, Interval
from trio_feed.simulator.binance.spot import SPOT
from trio_feed.simulator.binance.statistics import Statistics
from trio_feed.simulator.binance.usdm import USDM
from trio_feed.venues.base import Ignored, Stream
from trio_feed.venues.binance import spot as binance
from trio_feed.venues.binance import usdm as binance_usdm
from trio_feed.venues.instruments import Instruments

CLIENTS = {"binance": binance, "binance_usdm": binance_usdm}
SPOT_TICKER = "e E s p P w x c Q b B a A o h l v q O C F L n"
USDM_TICKER = "e E s p P w c Q o h l v q O C F L n ps st"
USDM_DEPTH = "e E T s U u pu b a ps st"
SPOT_STREAMS = [
    # stream, keys, milliseconds between two
    ("btcusdt@aggTrade", "e E s a p q f l T m M", None),
    ("btcusdt@trade", "e E s t p q T m M", None),
    ("btcusdt@kline_1m", "e E s k", 2000),
    ("btcusdt@kline_1s", "e E s k", 1000),
    ("btcusdt@ticker", SPOT_TICKER, 1000),
    ("btcusdt@miniTicker", "e E s c o h l v q", 1000),
    ("btcusdt@bookTicker", "u s b B a A", None),
    ("btcusdt@depth5", "lastUpdateId bids asks", 1000),
    ("btcusdt@depth20@100ms", "lastUpdateId bids asks", 100),
    ("btcusdt@depth", "e E s U u b a", 1000),
    ("btcusdt@depth@100ms", "e E s U u b a", 100),
    ("!miniTicker@arr", "e E s c o h l v q", 1000),
]
USDM_STREAMS = [
    ("market", "btcusdt@aggTrade", "e E s a p q nq f l T m st", None),
    ("market", "btcusdt@kline_1m", "e E s k", 250),
    ("market", "btcusdt_perpetual@continuousKline_1s", "e E ps ct k", 250),
    ("market", "btcusdt@ticker", USDM_TICKER, 2000),
    ("market", "btcusdt@miniTicker", "e E s c o h l v q ps st", 2000),
    ("market", "btcusdt@markPrice", "e E s p i P r ap T st", 3000),
    ("market", "btcusdt@markPrice@1s", "e E s p i P r ap T st", 1000),
    ("market", "!miniTicker@arr", "e E s c o h l v q ps st", 2000),
    ("market", "!ticker@arr", USDM_TICKER, 2000),
    ("market", "!markPrice@arr@1s", "e E s p i P r ap T st", 1000),
    ("public", "btcusdt@trade", "e E T s t p q X m", None),
    ("public", "btcusdt@bookTicker", "e u E T s ps b B a A st", None),
    ("public", "btcusdt@depth", USDM_DEPTH, 250),
    ("public", "btcusdt@depth@100ms", USDM_DEPTH, 100),
    ("public", "btcusdt@depth@500ms", USDM_DEPTH, 500),
    ("public", "btcusdt@depth10", USDM_DEPTH, 250),
    ("public", "btcusdt@depth5@100ms", USDM_DEPTH, 100),
]


@pytest.mark.parametrize(("name", "keys", "every_ms"), SPOT_STREAMS)
async def test_spot_streams(
    name: str, keys: str, every_ms: int | None, autojump_clock: MockClock
) -> None:
    async with open_box(venue="binance") as box, box.websocket(f"/ws/{name}") as websocket:
        check(await collect(websocket, 15), keys, every_ms)


@pytest.mark.parametrize(("path", "name", "keys", "every_ms"), USDM_STREAMS)
async def test_usdm_streams(
    path: str, name: str, keys: str, every_ms: int | None, autojump_clock: MockClock
) -> None:
    """On its path it has this form and rhythm; on the others, and upper case, it is silent."""
    async with open_box() as box:
        async with box.websocket(f"/{path}/ws/{name}") as websocket:
            check(await collect(websocket, 15), keys, every_ms)
        for other in {"market", "public", "private"} - {path}:
            async with box.websocket(f"/{other}/ws/{name}") as websocket:
                assert await collect(websocket, 15) == []
        async with box.websocket(f"/ws/{name}") as websocket:
            assert bool(await collect(websocket, 15)) is (path == "public")
        async with box.websocket(f"/{path}/ws/{name.upper()}") as websocket:
            assert await collect(websocket, 15) == []


def check(messages: Sequence[Any], keys: str, every_ms: int | None) -> None:
    """All of one form; event times on the grid of ``every_ms``, and most of its points used."""
    rows = [row for m in messages for row in (m if isinstance(m, list) else [m])]
    assert {" ".join(row) for row in rows} == {keys}
    times = [row["E"] for row in rows if "E" in row]
    assert times == sorted(times)
    if every_ms is None:
        assert len(rows) > 40  # four trades a second
        return
    assert 15_000 / every_ms * 0.4 <= len(messages) <= 15_000 / every_ms + 15
    assert all(at % every_ms == 0 for at in times)
    assert all(row.get("s", "BTCUSDT") in ("BTCUSDT", "ETHUSDT") for row in rows)


async def test_spot_diff_depth_and_snapshot(autojump_clock: MockClock) -> None:
    """Section 1.5: ids without a hole; snapshot and stream give the market's own book."""
    async with open_box(venue="binance") as box:
        async with box.websocket("/ws/btcusdt@depth@100ms") as websocket:
            events = await collect(websocket, 3.05)
            snapshot = await box.ask_json("/api/v3/depth?symbol=BTCUSDT&limit=5000")
            events += await collect(websocket, 20)
        assert all(a["u"] + 1 == b["U"] <= b["u"] for a, b in pairwise(events))
        last = snapshot["lastUpdateId"]
        assert events[0]["U"] <= last + 1  # else the snapshot would be too old
        later = [event for event in events if event["u"] > last]
        assert later[0]["U"] <= last + 1 <= later[0]["u"]
        assert_book(box, snapshot, later, later[-1]["E"])


async def test_usdm_diff_depth_and_snapshot(autojump_clock: MockClock) -> None:
    """Section 2.5: ``pu`` is the previous ``u``, ids have holes, the snapshot is in an event or
    right before one."""
    async with open_box() as box:
        async with box.websocket("/public/ws/btcusdt@depth@100ms") as websocket:
            events = await collect(websocket, 3.05)
            snapshot = await box.ask_json("/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            events += await collect(websocket, 20)
        assert all(a["u"] == b["pu"] < b["U"] - 1 < b["u"] for a, b in pairwise(events))
        last = snapshot["lastUpdateId"]
        later = [event for event in events if event["u"] >= last]
        assert later[0]["U"] <= last <= later[0]["u"] or later[0]["pu"] == last
        assert_book(box, snapshot, later, later[-1]["E"], best=500)
        assert (snapshot["E"], snapshot["T"]) == (START + 3050, START + 3050)


def assert_book(
    box: Box, snapshot: Any, events: Sequence[Any], now_ms: int, best: int = 5000
) -> None:
    sides = [{Decimal(p): Decimal(q) for p, q in snapshot[key]} for key in ("bids", "asks")]
    for event in events:
        for side, key in zip(sides, ("b", "a"), strict=True):
            for price, quantity in event[key]:
                if Decimal(quantity):
                    side[Decimal(price)] = Decimal(quantity)
                else:
                    side.pop(Decimal(price), None)
    path = box.exchange.data.books["BTCUSDT"]
    bids, asks = path.levels(path.step(now_ms), 5000)
    assert sorted(sides[0].items(), reverse=True)[:best] == [*bids[:best]]
    assert sorted(sides[1].items())[:best] == [*asks[:best]]


async def test_slow_depth_is_fast_depth_put_together(autojump_clock: MockClock) -> None:
    path = (
        "/stream?streams=btcusdt@depth/btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@depth5@100ms"
    )
    async with open_box(venue="binance") as box, box.websocket(path) as websocket:
        messages = await collect(websocket, 10.01)
    by: dict[str, list[Any]] = {}
    for message in messages:
        by.setdefault(message["stream"].partition("@")[2], []).append(message["data"])
    assert [e["u"] for e in by["depth"]][-1] == [e["u"] for e in by["depth@100ms"]][-1]
    for slow in by["depth"]:
        parts = [e for e in by["depth@100ms"] if slow["U"] <= e["u"] <= slow["u"]]
        assert (parts[0]["U"], parts[-1]["u"]) == (slow["U"], slow["u"])
        merged = {price: quantity for e in parts for price, quantity in e["b"]}
        assert dict(slow["b"]).items() <= merged.items()
    tops = {t["u"]: ([t["b"], t["B"]], [t["a"], t["A"]]) for t in by["bookTicker"]}
    best = {t["lastUpdateId"]: (t["bids"][0], t["asks"][0]) for t in by["depth5@100ms"]}
    assert len(tops.keys() & best.keys()) > 10
    assert all(tops[u] == best[u] for u in tops.keys() & best.keys())


async def test_tickers_agree_with_candles(autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket("/market/ws/btcusdt@ticker") as websocket:
        last = (await collect(websocket, 90))[-1]
        stats = await box.ask_json("/fapi/v1/ticker/24hr?symbol=BTCUSDT")
        candles = [
            box.market.candle("BTCUSDT", Interval.M1, at)
            for at in range(last["O"], START + 60_000, 60_000)
        ]
        running = box.market.partial("BTCUSDT", Interval.M1, START + 60_000, last["E"])
    assert running is not None
    candles.append(running)
    assert last["O"] == START + 60_000 - 86_400_000
    assert Decimal(last["h"]) == max(c.high for c in candles)
    assert Decimal(last["l"]) == min(c.low for c in candles)
    assert (Decimal(last["o"]), Decimal(last["c"])) == (candles[0].open, candles[-1].close)
    assert Decimal(last["v"]) == sum(c.volume for c in candles)
    assert last["n"] == sum(c.trades for c in candles) == last["L"] - last["F"] + 1
    assert (stats["openTime"], stats["highPrice"], stats["firstId"]) == (
        last["O"], last["h"], last["F"]
    )  # fmt: skip


@pytest.mark.parametrize("venue", ["binance", "binance_usdm"])
async def test_before_the_first_trade_there_is_nothing(
    venue: str, autojump_clock: MockClock
) -> None:
    """A listing: an empty book by REST, zeros in the statistics, then changes that bring it all."""
    root = "/fapi/v1" if venue == "binance_usdm" else "/api/v3"
    async with open_box(venue=venue) as box:
        box.market.list_symbol("NEWUSDT", listed_ms=START + 20_000)
        depth = await box.ask_json(f"{root}/depth?symbol=NEWUSDT&limit=100")
        day = await box.ask_json(f"{root}/ticker/24hr?symbol=NEWUSDT")
        top = await box.ask_json(f"{root}/ticker/bookTicker?symbol=NEWUSDT")
        async with box.websocket("/ws/newusdt@depth@100ms") as websocket:
            (first, *_) = await collect(websocket, 25)
    assert (depth["bids"], depth["asks"]) == ([], [])
    assert (day["count"], day["firstId"], day["lastId"]) == (0, -1, -1)
    for name in ("lastPrice", "volume", "priceChangePercent", "weightedAvgPrice"):
        assert Decimal(day[name]) == 0
    assert (Decimal(top["bidPrice"]), Decimal(top["askQty"])) == (0, 0)
    assert min(len(first["b"]), len(first["a"])) > 500


async def test_liquidations_are_rare_and_seeded(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        async with box.websocket("/market/ws/btcusdt@forceOrder") as websocket:
            orders = await collect(websocket, 3500)
        coming = Statistics(box.market).liquidations("BTCUSDT", START)
        expected = [next(coming) for _ in orders]
    assert 5 < len(orders) < 40
    assert [m["o"]["T"] for m in orders] == [t.time_ms for t in expected]
    assert " ".join(orders[0]["o"]) == "s S o f q p ap X l z T"
    assert all(0 <= m["E"] - m["o"]["T"] < 100 for m in orders)


@pytest.mark.parametrize("dialect", [SPOT, USDM])
def test_every_stream_of_ours_is_in_the_table(dialect: Any) -> None:
    """What our own client would subscribe to exists in the box, on the path it dials."""
    for stream in our_streams(dialect.name):
        form = dialect.suffixes[stream.name.removeprefix("btcusdt")]
        assert form.path == stream.path.removeprefix("/")


@pytest.mark.parametrize("venue", ["binance", "binance_usdm"])
async def test_our_own_client_knows_every_frame(venue: str, autojump_clock: MockClock) -> None:
    client: Any = CLIENTS[venue]
    paths: dict[str, list[str]] = {}
    for stream in our_streams(venue):
        paths.setdefault(stream.path, []).append(stream.name)
    table = Instruments([BTC])
    async with open_box(venue=venue) as box:
        for path, names in paths.items():
            target = f"{path}/stream?streams={'/'.join(names)}"
            async with box.websocket(target) as websocket:
                frames = [await websocket.get_message() for _ in range(600)]
            events = [event for frame in frames for event in client.parse(frame, table)]
            assert len(events) >= 600
            assert not [event for event in events if isinstance(event, Ignored)]


BTC = Instrument("", "BTCUSDT", "BTCUSDT", "spot", "BTC", "USDT")


def our_streams(venue: str) -> list[Stream]:
    client: Any = CLIENTS[venue]
    return [
        client.stream(kind, BTC, interval)
        for kind in client.KINDS - POLLED
        for interval in (client.INTERVALS if kind == "kline" else [None])
    ]
