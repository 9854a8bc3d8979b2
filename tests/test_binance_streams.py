"""Every stream kind of Binance spot and USD-M in its form of 2026: plain, wrapped, with fields
that are new, absent, or unknown."""

import json
from typing import Any

import pytest

from trio_feed.core.streams import POLLED
from trio_feed.errors import BadMessage
from trio_feed.model import (
    BookTop,
    BookUpdate,
    Instrument,
    Interval,
    Liquidation,
    MarkPrice,
    Ticker,
    Trade,
    plain,
)
from trio_feed.venues import Ignored, Instruments, Kind, KlineUpdate, Venue
from trio_feed.venues.binance import spot as binance
from trio_feed.venues.binance import usdm as binance_usdm

TABLE = Instruments([Instrument("x", "BNBUSDT", "BNBUSDT", "spot", "BNB", "USDT")])
BNB = next(iter(TABLE))
E, T = 1672515782136, 1672515782130

TICKER = {
    "e": "24hrTicker", "E": E, "s": "BNBUSDT", "p": "0.0015", "P": "250.00", "w": "0.0018",
    "c": "0.0025", "Q": "10", "o": "0.0010", "h": "0.0025", "l": "0.0010", "v": "10000",
    "q": "18", "O": 0, "C": 86400000, "F": 0, "L": 18150, "n": 18151,
}  # fmt: skip
SPOT_TICKER = TICKER | {"x": "0.0009", "b": "0.0024", "B": "10", "a": "0.0026", "A": "100"}
MINI = {
    "e": "24hrMiniTicker", "E": E, "s": "BNBUSDT", "c": "0.0025", "o": "0.0010", "h": "0.0025",
    "l": "0.0010", "v": "10000", "q": "18",
}  # fmt: skip
TOP = {
    "u": 400900217, "s": "BNBUSDT", "b": "25.35190000", "B": "31.21000000", "a": "25.36520000",
    "A": "40.66000000",
}  # fmt: skip
DEPTH = {
    "e": "depthUpdate", "E": E, "s": "BNBUSDT", "U": 157, "u": 160, "b": [["0.0024", "10"]],
    "a": [["0.0026", "0"]],
}  # fmt: skip
PARTIAL = {"lastUpdateId": 160, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]}
TRADE = {
    "e": "trade", "E": E, "s": "BNBUSDT", "t": 12345, "p": "0.001", "q": "100", "T": T, "m": True,
    "M": True,
}  # fmt: skip
AGG = {
    "e": "aggTrade", "E": E, "s": "BNBUSDT", "a": 12345, "p": "0.001", "q": "100", "f": 100,
    "l": 105, "T": T, "m": False, "M": True,
}  # fmt: skip
KLINE = {
    "e": "kline", "E": E, "s": "BNBUSDT",
    "k": {"t": 1672515780000, "T": 1672515839999, "s": "BNBUSDT", "i": "1m", "f": 100, "L": 200,
          "o": "0.0010", "c": "0.0020", "h": "0.0025", "l": "0.0015", "v": "1000", "n": 100,
          "x": True, "q": "1.0000", "V": "500", "Q": "0.500", "B": "123456"},
}  # fmt: skip
MARK = {
    "e": "markPriceUpdate", "E": E, "s": "BNBUSDT", "p": "11794.15000000", "i": "11784.62659091",
    "P": "11784.25641265", "r": "0.00038167", "T": 1562306400000,
}  # fmt: skip
FORCE = {
    "e": "forceOrder", "E": E,
    "o": {"s": "BNBUSDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": "0.014", "p": "9910",
          "ap": "9911", "X": "FILLED", "l": "0.014", "z": "0.014", "T": T},
}  # fmt: skip
UM = {"ps": "BNBUSDT", "st": 1}

SAMPLES: list[tuple[Venue, str, dict[str, Any], type]] = [
    (binance, "bnbusdt@ticker", SPOT_TICKER, Ticker),
    (binance, "bnbusdt@miniTicker", MINI, Ticker),
    (binance, "bnbusdt@bookTicker", TOP, BookTop),
    (binance, "bnbusdt@depth@100ms", DEPTH, BookUpdate),
    (binance, "bnbusdt@depth20@100ms", PARTIAL, BookUpdate),
    (binance, "bnbusdt@trade", TRADE, Trade),
    (binance, "bnbusdt@aggTrade", AGG, Trade),
    (binance, "bnbusdt@kline_1m", KLINE, KlineUpdate),
    (binance_usdm, "bnbusdt@ticker", TICKER | UM, Ticker),
    (binance_usdm, "bnbusdt@miniTicker", MINI | UM, Ticker),
    (binance_usdm, "bnbusdt@bookTicker", TOP | UM | {"e": "bookTicker", "E": E, "T": T}, BookTop),
    (binance_usdm, "bnbusdt@depth@100ms", DEPTH | UM | {"T": T, "pu": 149}, BookUpdate),
    (binance_usdm, "bnbusdt@depth20@100ms", DEPTH | UM | {"T": T, "pu": 149}, BookUpdate),
    (binance_usdm, "bnbusdt@trade", TRADE | {"X": "MARKET"}, Trade),
    (binance_usdm, "bnbusdt@aggTrade", AGG | {"nq": "100", "st": 1}, Trade),
    (binance_usdm, "bnbusdt@kline_1m", KLINE, KlineUpdate),
    (binance_usdm, "bnbusdt@markPrice@1s", MARK | {"ap": "11794.15", "st": 1}, MarkPrice),
    (binance_usdm, "bnbusdt@markPrice", MARK, MarkPrice),
    (binance_usdm, "bnbusdt@forceOrder", FORCE, Liquidation),
    (binance_usdm, "bnbusdt@forceOrder", FORCE | UM, Liquidation),
]


def one(venue: Venue, message: Any) -> Any:
    (event,) = venue.parse(json.dumps(message), TABLE)
    return event


@pytest.mark.parametrize(("venue", "stream", "sample", "kind"), SAMPLES)
def test_each_form(venue: Venue, stream: str, sample: dict[str, Any], kind: type) -> None:
    wrapped = one(venue, {"stream": stream, "data": sample})
    assert type(wrapped) is kind
    assert wrapped.symbol == "BNBUSDT"
    assert one(venue, {"stream": stream, "data": sample | {"brandNew": [1]}}) == wrapped
    if "e" in sample and "depth20" not in stream:
        assert one(venue, sample) == wrapped
    for field in sample:
        less = {name: value for name, value in sample.items() if name != field}
        try:
            venue.parse(json.dumps({"stream": stream, "data": less}), TABLE)
        except BadMessage:
            continue


def test_values_land_where_they_belong() -> None:
    ticker = one(binance, SPOT_TICKER)
    assert [plain(v) for v in (ticker.last, ticker.open, ticker.high, ticker.low)] == [
        "0.0025", "0.0010", "0.0025", "0.0010",
    ]  # fmt: skip
    assert [plain(v) for v in (ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size)] == [
        "0.0024", "10", "0.0026", "100",
    ]  # fmt: skip
    assert one(binance_usdm, TICKER).bid is None
    top = one(binance, TOP)
    assert (plain(top.bid), plain(top.ask_size), top.update_id) == (
        "25.35190000", "40.66000000", 400900217,
    )  # fmt: skip
    depth = one(binance, DEPTH)
    assert (depth.first_id, depth.last_id, depth.previous_id, depth.snapshot) == (
        157, 160, None, False,
    )  # fmt: skip
    assert plain(depth.asks[0][1]) == "0"
    futures = one(binance_usdm, DEPTH | {"pu": 149})
    assert futures.previous_id == 149
    partial = one(binance, {"stream": "bnbusdt@depth5", "data": PARTIAL})
    assert (partial.partial, partial.snapshot, partial.last_id) == (True, True, 160)
    levels = one(binance_usdm, {"stream": "bnbusdt@depth5@500ms", "data": DEPTH | {"pu": 1}})
    assert levels.partial
    trade = one(binance, TRADE)
    assert (trade.trade_id, trade.first_id, trade.last_id, trade.buyer_is_maker) == (
        12345, 12345, 12345, True,
    )  # fmt: skip
    mark = one(binance_usdm, MARK)
    assert (plain(mark.funding_rate), mark.next_funding_ms) == ("0.00038167", 1562306400000)
    forced = one(binance_usdm, FORCE)
    assert (forced.sold, plain(forced.average_price), forced.time_ms) == (True, "9911", T)


def test_arrays_hold_several_and_the_other_market_is_told_apart() -> None:
    rows = [MINI | UM, MINI | {"st": 2, "s": "BTCUSD_PERP", "ps": "BTCUSD"}]
    events = binance_usdm.parse(json.dumps({"stream": "!miniTicker@arr", "data": rows}), TABLE)
    assert [type(event) for event in events] == [Ticker, Ignored]


def test_strangers_are_not_guessed() -> None:
    for message in (TICKER, TOP, DEPTH, TRADE, AGG, MARK):
        event = one(binance_usdm, message | {"s": "NOBODY"})
        assert isinstance(event, Ignored)


PUBLIC = {Kind.TOP, Kind.BOOK, Kind.BOOK_LEVELS, Kind.TRADE}


@pytest.mark.parametrize("kind", sorted(binance_usdm.KINDS - POLLED))
def test_each_stream_goes_to_its_path(kind: Kind) -> None:
    """On the wrong path a stream is acknowledged and silent, since 2026-04-23."""
    stream = binance_usdm.stream(kind, BNB, Interval.M1)
    assert stream.path == ("/public" if kind in PUBLIC else "/market")
    for plan in binance_usdm.plan("wss://host", [stream], 50):
        assert plan.url.startswith(f"wss://host{stream.path}/")


def test_paths_are_never_mixed_on_one_connection() -> None:
    streams = [
        binance_usdm.stream(kind, BNB, Interval.M1) for kind in sorted(binance_usdm.KINDS - POLLED)
    ]
    plans = binance_usdm.plan("wss://host", streams, 1024)
    assert [{stream.path for stream in plan.streams} for plan in plans] == [
        {"/market"}, {"/public"},
    ]  # fmt: skip


@pytest.mark.parametrize("venue", [binance, binance_usdm])
def test_a_kind_that_does_not_exist_is_refused_before_dialling(venue: Venue) -> None:
    with pytest.raises(ValueError, match="has no price streams"):
        venue.stream(Kind.PRICE, BNB)


def test_frames_without_a_symbol_come_combined() -> None:
    stream = binance.stream(Kind.BOOK_LEVELS, BNB)
    (plan,) = binance.plan("wss://host", [stream], 1)
    assert plan.url == "wss://host/stream"


def test_spot_rest() -> None:
    for bars, limit in ((0, 2), (1, 2), (998, 999), (999, 1000), (1000, 1000), (10**9, 1000)):
        question = binance.klines_question(BNB, Interval.S1, 1672515780000, bars, 0)
        assert question.params["limit"] == limit <= binance.PAGE
        assert (question.path, question.weight, question.until_ms) == ("/api/v3/klines", 2, None)
        assert question.params["startTime"] == 1672515780000
    book = binance.book_question(BNB)
    assert book is not None
    assert (book.path, book.weight) == ("/api/v3/depth", 50)
    assert binance.parse_book(json.dumps(PARTIAL).encode(), BNB).snapshot
    usdm = binance_usdm.parse_book(json.dumps(PARTIAL | {"E": E, "T": T}).encode(), BNB)
    assert usdm.event_ms == E
    for bad in (b"", b"[]", b'{"lastUpdateId":1}', b'{"lastUpdateId":1,"bids":[["x","1"]]}'):
        with pytest.raises(BadMessage):
            binance.parse_book(bad, BNB)
        with pytest.raises(BadMessage):
            binance.parse_instruments(bad)


@pytest.mark.parametrize("native", ["币安人生USDT", "STRAßEUSDT", "\u0130STUSDT"])
def test_names_of_any_alphabet_come_back_from_a_stream_in_lower_case(native: str) -> None:
    """``"straße".upper()`` is ``"STRASSE"``."""
    instrument = Instrument("x", native, native, "spot", "B", "USDT")
    name = binance.stream(Kind.BOOK_LEVELS, instrument).name
    message = json.dumps({"stream": name, "data": PARTIAL}, ensure_ascii=False)
    (event,) = binance.parse(message, Instruments([instrument]))
    assert isinstance(event, BookUpdate)
    assert event.symbol == native
