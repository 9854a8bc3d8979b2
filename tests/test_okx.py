"""OKX v5 on the wire and over REST (forms of exchanges.md section 5, 2026-11)."""

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.core import calendar
from trio_feed.core.bars import TradeBars
from trio_feed.core.streams import POLLED, BookRule, Kind, KlineUpdate, Stream
from trio_feed.errors import BadMessage
from trio_feed.model import (
    BookTop,
    BookUpdate,
    DayOpens,
    Funding,
    Instrument,
    Interval,
    Kline,
    MarkPrice,
    Source,
    Ticker,
    Trade,
    plain,
)
from trio_feed.net.limits import FrameBudget
from trio_feed.venues.base import (
    Ack,
    GoingAway,
    Ignored,
    Pong,
    RestQuestion,
    Venue,
)
from trio_feed.venues.instruments import Instruments
from trio_feed.venues.okx import venue as okx
from trio_feed.venues.rows import Rows

D = Decimal
BTC = Instrument("okx", "BTCUSDT", "BTC-USDT", "spot", "BTC", "USDT")
SWAP = Instrument(
    "okx", "BTCUSDTSWAP", "BTC-USDT-SWAP", "perpetual", "BTC", "USDT", contract_size=D("0.01")
)
INVERSE = Instrument(
    "okx", "BTCUSDSWAP", "BTC-USD-SWAP", "inverse_perpetual", "BTC", "USD", contract_size=D(100)
)
TABLE = Instruments([BTC, SWAP, INVERSE])

TICKER: dict[str, Any] = {
    "instType": "SPOT", "instId": "BTC-USDT", "last": "63707.3", "lastSz": "0.00164251",
    "askPx": "63707.3", "askSz": "0.15455902", "bidPx": "63707.2", "bidSz": "1.70080521",
    "open24h": "63958.9", "high24h": "64496.9", "low24h": "63309.4", "sodUtc0": "63484.7",
    "sodUtc8": "63445.9", "volCcy24h": "229576048.730317321", "vol24h": "3601.1585121",
    "ts": "1786613174873",
}  # fmt: skip
TRADE: dict[str, Any] = {
    "instId": "BTC-USDT", "tradeId": "130639474", "px": "42219.9", "sz": "0.12060306",
    "side": "buy", "ts": "1630048897897", "count": "3", "source": "0", "seqId": 1234,
}  # fmt: skip
SINGLE = {k: v for k, v in TRADE.items() if k not in ("count", "seqId")}
CANDLE = ["1597026360000", "8533.02", "8553.74", "8527.17", "8548.26", "45247", "529.5858061",
          "5529.5858061", "0"]  # fmt: skip
BOOK: dict[str, Any] = {
    "asks": [["8476.98", "415", "0", "13"], ["8477.00", "7", "0", "2"]],
    "bids": [["8476.97", "256", "0", "12"]],
    "ts": "1597026383085", "checksum": 0, "prevSeqId": -1, "seqId": 123456,
}  # fmt: skip
TOP: dict[str, Any] = {
    "asks": [["111.06", "55154", "0", "2"]], "bids": [["111.05", "57745", "0", "2"]],
    "ts": "1670324386802", "seqId": 363996337,
}  # fmt: skip


def frame(channel: str, *rows: Any, native: str = "BTC-USDT", **more: Any) -> dict[str, Any]:
    return {"arg": {"channel": channel, "instId": native}, **more, "data": list(rows)}


def parsed(message: Any) -> Any:
    """The one event of a message."""
    (event,) = okx.parse(json.dumps(message), TABLE)
    return event


def test_satisfies_the_contract() -> None:
    venue: Venue = okx
    assert (venue.NAME, venue.LISTED) == ("okx", True)
    assert BookRule(streams_snapshots=True, may_lack_ids=True) == venue.BOOK_RULE
    assert (venue.WEBSOCKET_URL, venue.REST_URL) == ("wss://ws.okx.com", "https://openapi.okx.com")
    assert venue.HEARTBEAT is not None
    assert (venue.HEARTBEAT.text, venue.HEARTBEAT.after_s) == ("ping", 20.0)
    assert venue.TRADE_KIND in venue.KINDS


# --- candles


def test_candle_of_spot() -> None:
    event = parsed(frame("candle1m", CANDLE))
    assert isinstance(event, KlineUpdate)
    assert (event.symbol, event.interval) == ("BTCUSDT", Interval.M1)
    assert event.kline == Kline(
        1597026360000, D("8533.02"), D("8553.74"), D("8527.17"), D("8548.26"),
        volume=D("45247"), quote_volume=D("5529.5858061"), trades=0, closed=False,
        source=Source.EXCHANGE,
    )  # fmt: skip
    assert event.kline.event_ms == 0


def test_candle_of_a_derivative_has_its_base_volume_in_volccy() -> None:
    for native in ("BTC-USDT-SWAP", "BTC-USD-SWAP"):
        kline = parsed(frame("candle1H", CANDLE, native=native)).kline
        assert (plain(kline.volume), plain(kline.quote_volume)) == ("529.5858061", "5529.5858061")


def test_candle_closes_with_confirm_and_may_come_with_more_fields() -> None:
    closed = [*CANDLE[:8], "1"]
    assert parsed(frame("candle1m", closed)).kline.closed
    assert parsed(frame("candle1m", [*closed, "new", {"x": 1}])).kline.closed
    assert len(okx.parse(json.dumps(frame("candle1m", closed, CANDLE)), TABLE)) == 2


@pytest.mark.parametrize(
    ("interval", "channel"),
    [
        (Interval.S1, "candle1s"), (Interval.M1, "candle1m"), (Interval.M3, "candle3m"),
        (Interval.M5, "candle5m"), (Interval.M15, "candle15m"), (Interval.M30, "candle30m"),
        (Interval.H1, "candle1H"), (Interval.H2, "candle2H"), (Interval.H4, "candle4H"),
        (Interval.H6, "candle6Hutc"), (Interval.H12, "candle12Hutc"), (Interval.D1, "candle1Dutc"),
        (Interval.D3, "candle3Dutc"), (Interval.W1, "candle1Wutc"), (Interval.MO1, "candle1Mutc"),
    ],
)  # fmt: skip
def test_intervals_open_on_utc(interval: Interval, channel: str) -> None:
    stream = okx.stream(Kind.KLINE, BTC, interval)
    name = f"{channel}:BTC-USDT"
    assert stream == Stream("/ws/v5/business", name, "BTCUSDT", Kind.KLINE, interval)
    assert parsed(frame(channel, CANDLE)).interval is interval
    assert interval in okx.INTERVALS


def test_what_okx_does_not_have() -> None:
    assert frozenset(Interval) - okx.INTERVALS == {Interval.S30, Interval.H8}
    for interval in (Interval.S30, Interval.H8, None):
        with pytest.raises(ValueError, match="candles"):
            okx.stream(Kind.KLINE, BTC, interval)
    for kind in frozenset(Kind) - okx.KINDS:
        with pytest.raises(ValueError, match=str(kind)):
            okx.stream(kind, BTC)


@pytest.mark.parametrize("channel", ["candle1D", "candle6H", "candle1W", "candle8Hutc", "candle"])
def test_candles_that_open_on_other_boundaries_are_never_mistaken(channel: str) -> None:
    with pytest.raises(BadMessage, match="unknown channel"):
        parsed(frame(channel, CANDLE))


# --- trades


def test_aggregated_trade() -> None:
    event = parsed(frame("trades", TRADE))
    assert event == Trade(
        "BTCUSDT", 130639474, 130639472, 130639474, D("42219.9"), D("0.12060306"), 1630048897897,
        buyer_is_maker=False,
    )  # fmt: skip
    assert parsed(frame("trades", {**TRADE, "count": "1"})).first_id == 130639474
    assert parsed(frame("trades", {**TRADE, "brandNew": [{}]})) == event


def test_single_trade_and_its_sides() -> None:
    event = parsed(frame("trades-all", SINGLE))
    assert (event.trade_id, event.first_id, event.last_id) == (130639474,) * 3
    assert not event.buyer_is_maker
    assert parsed(frame("trades-all", {**SINGLE, "side": "sell"})).buyer_is_maker


def test_trades_of_contracts_are_converted() -> None:
    contracts = {**SINGLE, "sz": "415"}
    sizes = {
        native: plain(parsed(frame("trades-all", contracts, native=native)).quantity)
        for native in ("BTC-USDT", "BTC-USDT-SWAP")
    }
    assert sizes == {"BTC-USDT": "415", "BTC-USDT-SWAP": "4.15"}


@pytest.mark.parametrize(
    ("contracts", "price", "base", "quote"),
    [
        ("415", "50000", "0.83", "41500"),
        ("1", "30000", "0.0033333333333333333333", "100"),
        ("3", "42219.9", "0.0071056539688630243084", "300"),
    ],
)
def test_trades_of_inverse_contracts_are_in_base_and_in_quote(
    contracts: str, price: str, base: str, quote: str
) -> None:
    row = {**SINGLE, "sz": contracts, "px": price}
    event = parsed(frame("trades-all", row, native="BTC-USD-SWAP"))
    assert (plain(event.quantity), plain(event.quote_quantity)) == (base, quote)
    assert parsed(frame("trades-all", row, native="BTC-USDT-SWAP")).quote_quantity is None


def test_built_candles_of_inverse_contracts_are_in_the_exchanges_units() -> None:
    """vol is contracts, volCcy base currency (rounded by OKX), volCcyQuote the contracts' USD."""
    builder = TradeBars((Interval.M1,))
    base = Fraction(0)
    for number, px in enumerate(["42219.9", "42220.1", "42221.3", "42230"]):
        base += Fraction(300) / Fraction(px)
        at = 1630048920000 + (number // 3) * 60_000  # the last trade closes the minute
        row = {**SINGLE, "tradeId": str(7 + number), "px": px, "sz": "3", "ts": str(at)}
        builder.add(parsed(frame("trades", row, native="BTC-USD-SWAP")), at)
        if number == 2:
            exact = base
    ((_, kline),), _, _ = builder.collect()
    assert (kline.open_ms, kline.closed) == (1630048920000, True)
    assert plain(kline.quote_volume) == "900"
    assert abs(Fraction(kline.volume) - exact) < Fraction(1, 10**20)


def test_digits_pass_through_however_many() -> None:
    digits = "123456789012345678901234567890.123456789012345678901234567890"
    event = parsed(frame("trades", {**TRADE, "px": digits, "sz": digits}))
    assert (plain(event.price), plain(event.quantity)) == (digits, digits)
    event = parsed(frame("trades", {**TRADE, "sz": digits}, native="BTC-USDT-SWAP"))
    assert plain(event.quantity) == "1234567890123456789012345678.90123456789012345678901234567890"


# --- tickers


def test_ticker_of_spot() -> None:
    assert parsed(frame("tickers", TICKER)) == Ticker(
        "BTCUSDT", last=D("63707.3"), open=D("63958.9"), high=D("64496.9"), low=D("63309.4"),
        volume=D("3601.1585121"), quote_volume=D("229576048.730317321"),
        bid=D("63707.2"), bid_size=D("1.70080521"), ask=D("63707.3"), ask_size=D("0.15455902"),
        event_ms=1786613174873, opens=DayOpens(D("0.00164251"), D("63484.7"), D("63445.9")),
    )  # fmt: skip


def test_ticker_of_a_derivative() -> None:
    row = {**TICKER, "instType": "SWAP", "vol24h": "779573", "volCcy24h": "2620.289", "bidSz": "4"}
    event = parsed(frame("tickers", row, native="BTC-USDT-SWAP"))
    assert (event.volume, event.quote_volume) == (D("2620.289"), None)
    assert plain(event.bid_size) == "0.04"
    assert plain(event.opens.last_size) == "0.0000164251"
    inverse = parsed(frame("tickers", row, native="BTC-USD-SWAP"))
    assert (inverse.volume, inverse.quote_volume) == (D("2620.289"), D("77957300"))


FUNDING = {
    "formulaType": "noRate", "fundingRate": "0.0001875391284828",
    "fundingTime": "1700726400000", "impactValue": "", "instId": "BTC-USDT-SWAP",
    "instType": "SWAP", "interestRate": "0.0001", "method": "next_period",
    "maxFundingRate": "0.00375", "minFundingRate": "-0.00375", "nextFundingRate": "",
    "nextFundingTime": "1700755200000", "premium": "-0.00012", "prevFundingTime": "1700697600000",
    "settFundingRate": "0.0001418433662153", "settState": "settled", "ts": "1700724675402",
}  # fmt: skip


def test_mark_price_and_funding_of_a_swap() -> None:
    row = {
        "instType": "SWAP",
        "instId": "BTC-USDT-SWAP",
        "markPx": "63700.1",
        "ts": "1700724675401",
    }
    assert parsed(frame("mark-price", row, native="BTC-USDT-SWAP")) == MarkPrice(
        "BTCUSDTSWAP", D("63700.1"), None, None, 0, 1700724675401
    )
    assert parsed(frame("funding-rate", FUNDING, native="BTC-USDT-SWAP")) == Funding(
        "BTCUSDTSWAP", rate=D("0.0001875391284828"), time_ms=1700726400000,
        next_ms=1700755200000, event_ms=1700724675402, previous_ms=1700697600000,
        settled=D("0.0001418433662153"), premium=D("-0.00012"), interest=D("0.0001"),
        lowest=D("-0.00375"), highest=D("0.00375"),
    )  # fmt: skip
    bare = {name: FUNDING[name] for name in ("fundingRate", "fundingTime", "ts")}
    event = parsed(frame("funding-rate", bare, native="BTC-USDT-SWAP"))
    assert (event.next_ms, event.settled, event.highest) == (0, None, None)
    event = parsed(frame("funding-rate", {**FUNDING, "fundingRate": ""}, native="BTC-USDT-SWAP"))
    assert isinstance(event, Ignored)


def test_ticker_without_bid_or_ask() -> None:
    event = parsed(frame("tickers", {**TICKER, "bidPx": "", "bidSz": "", "open24h": ""}))
    assert (event.bid, event.bid_size, event.open) == (None, None, None)
    assert event.ask == D("63707.3")
    needed = {"last": "1.50", "ts": "1786613174873"}
    bare = parsed(frame("tickers", needed))
    assert (plain(bare.last), bare.volume, bare.ask_size) == ("1.50", None, None)
    assert isinstance(parsed(frame("tickers", {**TICKER, "last": ""})), Ignored)


# --- books


def test_book_snapshot_and_update() -> None:
    event = parsed(frame("books", BOOK, action="snapshot"))
    assert event == BookUpdate(
        "BTCUSDT", 123456, 123456, -1,
        bids=((D("8476.97"), D("256")),),
        asks=((D("8476.98"), D("415")), (D("8477.00"), D("7"))),
        snapshot=True, event_ms=1597026383085,
    )  # fmt: skip
    row = {**BOOK, "prevSeqId": 123456, "seqId": 123457, "asks": [["8477.00", "0", "0", "0"]]}
    event = parsed(frame("books", row, action="update"))
    assert (event.snapshot, event.previous_id, event.last_id) == (False, 123456, 123457)
    assert event.asks == ((D("8477.00"), D(0)),)


def test_book_of_a_recording_has_no_sequence_but_a_checksum() -> None:
    old = {**{k: v for k, v in BOOK.items() if "eqId" not in k}, "checksum": -855196043}
    event = parsed(frame("books", old, action="update"))
    assert (event.first_id, event.last_id, event.previous_id) == (0, 0, None)
    assert event.checksum == -855196043
    assert parsed(frame("books", BOOK, action="update")).checksum is None
    del old["checksum"]
    assert parsed(frame("books", old, action="update")).checksum is None


def test_book_of_contracts_is_converted_and_so_has_no_checksum() -> None:
    row = {**BOOK, "checksum": -855196043}
    event = parsed(frame("books", row, native="BTC-USDT-SWAP", action="update"))
    assert [plain(size) for _, size in (*event.bids, *event.asks)] == ["2.56", "4.15", "0.07"]
    assert event.checksum is None


def test_keep_alive_and_reset_keep_their_ids() -> None:
    row = {**BOOK, "asks": [], "bids": [], "prevSeqId": 15, "seqId": 15}
    event = parsed(frame("books", row, action="update"))
    assert (event.bids, event.asks, event.previous_id, event.last_id) == ((), (), 15, 15)
    event = parsed(frame("books", {**row, "seqId": 3}, action="update"))
    assert (event.previous_id, event.last_id) == (15, 3)


def test_five_levels_are_a_whole_of_their_own() -> None:
    event = parsed(frame("books5", {**TOP, "instId": "BTC-USDT"}))
    assert isinstance(event, BookUpdate)
    assert (event.snapshot, event.partial, event.last_id) == (True, True, 363996337)
    assert event.previous_id is None


def test_top() -> None:
    assert parsed(frame("bbo-tbt", TOP)) == BookTop(
        "BTCUSDT", D("111.05"), D("57745"), D("111.06"), D("55154"), 363996337, 1670324386802
    )
    top = parsed(frame("bbo-tbt", {**TOP, "bids": []}, native="BTC-USDT-SWAP"))
    assert (top.bid, top.bid_size, plain(top.ask_size)) == (None, None, "551.54")


# --- control messages

SUBSCRIBED: dict[str, Any] = {
    "id": "1512", "event": "subscribe", "arg": {"channel": "tickers", "instId": "BTC-USDT"},
    "connId": "accb8e21",
}  # fmt: skip
WRONG_URL: dict[str, Any] = {
    "event": "error", "code": "60018", "connId": "2b5dc6ac",
    "msg": "Wrong URL or channel:candle1s,instId:BTC-USDT-SWAP doesn't exist. Please use the "
    "correct URL, channel and parameters referring to API document.",
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SUBSCRIBED, Ack("tickers:BTC-USDT")),
        ({"event": "unsubscribe", "arg": SUBSCRIBED["arg"]}, Ack("tickers:BTC-USDT")),
        (
            {"event": "notice", "code": "64008", "msg": "The connection will soon be closed"},
            GoingAway(),
        ),
        ({"event": "notice", "code": "64999", "msg": "Lunch"}, Ignored("notice")),
        ({"event": "login", "code": "0", "msg": ""}, Ignored("login")),
        (
            {"event": "channel-conn-count", "channel": "orders", "connCount": "2"},
            Ignored("channel-conn-count"),
        ),
        (
            {"event": "channel-conn-count-error", "channel": "orders", "connCount": "30"},
            Ignored("channel-conn-count-error"),
        ),
    ],
)
def test_replies_and_notices(message: Any, expected: Any) -> None:
    assert parsed(message) == expected


def test_pong_is_not_json() -> None:
    assert tuple(okx.parse("pong", TABLE)) == tuple(okx.parse(b"pong", TABLE)) == (Pong(),)


def test_an_error_that_names_its_stream() -> None:
    ack = parsed(WRONG_URL)
    assert (ack.name, ack.stream_only) == ("candle1s:BTC-USDT-SWAP", True)
    assert ack.error.startswith("60018 Wrong URL or channel:candle1s")
    longer = {**WRONG_URL, "msg": "channel:tickers,instType:SPOT,instId:BTC-USDT doesn't exist"}
    assert parsed(longer).name == "tickers:BTC-USDT"
    assert parsed({**WRONG_URL, "arg": SUBSCRIBED["arg"]}).name == "tickers:BTC-USDT"


@pytest.mark.parametrize(
    ("code", "stream_only"),
    [
        ("60008", True), ("60012", True), ("60013", True), ("60018", True), ("64001", True),
        ("64002", True), ("64003", True), ("64004", True), ("60014", False), ("60011", False),
        ("64007", False), ("99999", False),
    ],
)  # fmt: skip
def test_errors_of_a_stream_and_of_the_connection(code: str, stream_only: bool) -> None:
    message = {"id": "3", "event": "error", "code": code, "msg": "no", "connId": "a4d3ae55"}
    assert parsed(message) == Ack("", f"{code} no", stream_only)


def test_errors_are_never_empty_or_endless() -> None:
    assert parsed({"event": "error"}) == Ack("", "unknown error")
    echo = {"event": "error", "code": "60012", "msg": "x" * 10_000}
    assert len(parsed(echo).error) == 300


def test_a_strangers_data_is_ignored_and_no_data_is_nothing() -> None:
    assert isinstance(parsed(frame("trades", TRADE, native="NEW-USDT")), Ignored)
    assert list(okx.parse(json.dumps(frame("trades")), TABLE)) == []


# --- what does not fit


@pytest.mark.parametrize(
    "raw",
    [
        "", "ping", "nonsense", "null", "[]", "3", "{}", '{"event":5}', '{"event":"newEvent"}',
        '{"event":"subscribe"}', '{"arg":{"channel":"trades","instId":"BTC-USDT"}}',
        '{"event":"\\ud800"}', "\ud800", '{"data":[]}', '{"arg":3}',
        "[" * 100_000, '{"x":' + "[" * 100_000, b"\xff\xfe\x00", b'{"event":"\xff"}',
        *(json.dumps(message) for message in (
            frame("mystery", TRADE),
            frame("trades", {**TRADE, "px": "NaN"}), frame("trades", {**TRADE, "px": "1e41"}),
            frame("trades", {**TRADE, "px": 1.5}), frame("trades", {**TRADE, "sz": "9" * 100}),
            frame("trades", {**TRADE, "sz": "-1"}), frame("trades", {**TRADE, "sz": ""}),
            frame("trades", {**TRADE, "side": "up"}), frame("trades", {**TRADE, "count": "0"}),
            frame("trades", {**TRADE, "count": "130639476"}),
            frame("trades", {**TRADE, "count": "1000001"}), frame("trades", {**TRADE, "px": "-5"}),
            frame("trades", {**TRADE, "tradeId": "1_0"}), frame("trades", {**TRADE, "ts": ""}),
            frame("trades", {**TRADE, "tradeId": "9" * 5000}),
            frame("trades", {**TRADE, "tradeId": str(2**63)}),
            frame("trades", {**SINGLE, "px": "0"}, native="BTC-USD-SWAP"),
            frame("trades", {**TRADE, "tradeId": "٣"}), frame("trades", {**TRADE, "ts": " 1"}),
            frame("trades", {**TRADE, "ts": "1630048897"}),
            frame("trades", {**TRADE, "ts": "1630048897897000"}),
            frame("candle1m", CANDLE[:8]), frame("candle1m", [*CANDLE[:8], "2"]),
            frame("candle1m", ["", *CANDLE[1:]]), frame("candle1m", {}), frame("candle1m", "x"),
            frame("tickers", {**TICKER, "last": "x"}), frame("tickers", {"last": "1"}),
            frame("books", BOOK), frame("books", BOOK, action="replace"),
            frame("books", {**BOOK, "asks": [["1"]]}, action="update"),
            frame("books", {**BOOK, "seqId": 10**30}, action="update"),
            frame("books", {**BOOK, "seqId": -2}, action="update"),
            frame("books", {**BOOK, "bids": None}, action="update"),
            frame("bbo-tbt", {**TOP, "asks": [["1", "x"]]}),
        )),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_bad_message(raw: str | bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        okx.parse(raw, TABLE)
    assert len(caught.value.sample) <= 200


FRAMES = [
    frame("candle1m", CANDLE), frame("trades", TRADE), frame("trades-all", SINGLE),
    frame("tickers", TICKER), frame("books", BOOK, action="snapshot"), frame("books5", TOP),
    frame("books", {**BOOK, "checksum": -5}, native="BTC-USDT-SWAP", action="update"),
    frame("bbo-tbt", TOP), SUBSCRIBED, WRONG_URL,
]  # fmt: skip


def only_bad_messages(
    data: st.DataObject, message: Any, read: Callable[[bytes], object], most: int = 6
) -> None:
    """``read`` takes the message with some bytes changed, and cut, or raises BadMessage."""
    text = bytearray(json.dumps(message).encode())
    for _ in range(data.draw(st.integers(1, most))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for raw in (bytes(text), bytes(text[:cut])):
        try:
            read(raw)
        except BadMessage:
            continue


@given(st.sampled_from(FRAMES), st.data())
def test_mutated_messages_raise_nothing_else(message: dict[str, Any], data: st.DataObject) -> None:
    only_bad_messages(data, message, lambda raw: okx.parse(raw, TABLE))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(st.sampled_from(FRAMES), st.data())
def test_exchanged_values_raise_nothing_else(message: dict[str, Any], data: st.DataObject) -> None:
    message = json.loads(json.dumps(message))
    spot: Any = message
    while True:
        at = data.draw(st.sampled_from(list(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[at], dict | list) or not spot[at] or data.draw(st.booleans()):
            break
        spot = spot[at]
    spot[at] = data.draw(_JSON)
    try:
        okx.parse(json.dumps(message), TABLE)
    except BadMessage:
        return


# --- connections


def test_streams_and_where_they_are_pushed() -> None:
    found = {kind: okx.stream(kind, BTC, Interval.M1) for kind in okx.KINDS - POLLED}
    assert {
        kind: (stream.path.rpartition("/")[2], stream.name) for kind, stream in found.items()
    } == {
        Kind.KLINE: ("business", "candle1m:BTC-USDT"),
        Kind.TRADE: ("business", "trades-all:BTC-USDT"),
        Kind.AGG_TRADE: ("public", "trades:BTC-USDT"),
        Kind.TICKER: ("public", "tickers:BTC-USDT"),
        Kind.BOOK: ("public", "books:BTC-USDT"),
        Kind.BOOK_LEVELS: ("public", "books5:BTC-USDT"),
        Kind.TOP: ("public", "bbo-tbt:BTC-USDT"),
        Kind.MARK_PRICE: ("public", "mark-price:BTC-USDT"),
        Kind.FUNDING: ("public", "funding-rate:BTC-USDT"),
    }


def test_each_path_has_its_connection() -> None:
    streams = [
        okx.stream(Kind.TICKER, BTC),
        okx.stream(Kind.KLINE, BTC, Interval.M1),
        okx.stream(Kind.TRADE, SWAP),
    ]
    business, public = okx.plan("wss://host:1", streams, 50)
    assert public.url == "wss://host:1/ws/v5/public"
    assert business.url == "wss://host:1/ws/v5/business"
    (frame,) = business.subscribe
    assert json.loads(frame.text) == {
        "id": "1",
        "op": "subscribe",
        "args": [
            {"channel": "candle1m", "instId": "BTC-USDT"},
            {"channel": "trades-all", "instId": "BTC-USDT-SWAP"},
        ],
    }
    assert frame.acks == {stream.name for stream in business.streams}
    assert okx.plan("wss://host", [], 50) == []
    assert [len(plan.streams) for plan in okx.plan("wss://host", streams, 1)] == [1, 1, 1]


def many(kind: Kind, count: int, native: str = "A{}-USDT") -> list[Stream]:
    names = [native.format(n) for n in range(count)]
    return [okx.stream(kind, Instrument("okx", name, name, "spot")) for name in names]


def test_many_streams_stay_within_the_limits() -> None:
    streams = many(Kind.TICKER, 900, "A{}-USD-260327-" + "1" * 60 + "-C")
    plans = okx.plan("wss://host", streams, 10_000)
    assert [len(plan.streams) for plan in plans] == [400, 400, 100]
    assert [stream for plan in plans for stream in plan.streams] == streams
    for plan in plans:
        sent = [json.loads(frame.text) for frame in plan.subscribe]
        assert [message["id"] for message in sent] == [str(n + 1) for n in range(len(sent))]
        assert max(len(message["args"]) for message in sent) <= 50
        assert max(len(frame.text) for frame in plan.subscribe) < 4096
        assert frozenset().union(*(frame.acks for frame in plan.subscribe)) == {
            stream.name for stream in plan.streams
        }
        budget, now = FrameBudget(okx.FRAMES, okx.OPERATIONS), 0.0
        for frame in plan.subscribe:
            now += budget.delay_s(now, len(frame.acks))
            budget.sent(now)
            budget.operated(now, len(frame.acks))
        assert now < 10  # of the 30 s that OKX allows
    (short,) = okx.plan("wss://host", many(Kind.TICKER, 101), 200)
    assert [len(frame.acks) for frame in short.subscribe] == [50, 50, 1]


def test_names_of_other_alphabets() -> None:
    """Frames are UTF-8, and it is their bytes that OKX counts."""
    (plan,) = okx.plan("wss://host", many(Kind.TICKER, 120, "这是测试币{}-USDT" + "币" * 30), 200)
    assert "这是测试币7-USDT" in plan.subscribe[0].text
    assert max(len(frame.text.encode()) for frame in plan.subscribe) < 4096
    assert sum(len(frame.acks) for frame in plan.subscribe) == 120
    chinese = Instrument("okx", "币USDT", "币-USDT", "spot", "币", "USDT")
    raw = json.dumps(frame("trades", TRADE, native="币-USDT"), ensure_ascii=False)
    (event,) = okx.parse(raw.encode(), Instruments([chinese]))
    assert isinstance(event, Trade)
    assert event.symbol == "币USDT"


def test_fewer_than_thirty_books_on_a_connection() -> None:
    streams = [*many(Kind.BOOK, 70), *many(Kind.TICKER, 20), *many(Kind.BOOK_LEVELS, 60)]
    plans = okx.plan("wss://host", streams, 200)
    books = [sum(s.kind is Kind.BOOK for s in plan.streams) for plan in plans]
    assert books == [29, 29, 12]
    assert [stream for plan in plans for stream in plan.streams] == streams


# --- instruments

SPOT_ROW: dict[str, Any] = {
    "instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT",
    "instFamily": "", "uly": "", "ctVal": "", "ctMult": "", "ctValCcy": "", "tickSz": "0.1",
    "lotSz": "0.00000001", "minSz": "0.00001", "state": "live", "ruleType": "normal",
}  # fmt: skip
SWAP_ROW: dict[str, Any] = {
    "instType": "SWAP", "instId": "BTC-USDT-SWAP", "instFamily": "BTC-USDT", "uly": "BTC-USDT",
    "ctType": "linear", "ctVal": "0.01", "ctMult": "1", "ctValCcy": "BTC", "settleCcy": "USDT",
    "tickSz": "0.1", "lotSz": "0.1", "minSz": "0.1", "state": "live", "baseCcy": "",
    "quoteCcy": "", "instIdCode": 10459,
}  # fmt: skip
INVERSE_ROW = {
    **SWAP_ROW, "instId": "BTC-USD-SWAP", "instFamily": "BTC-USD", "uly": "BTC-USD",
    "ctType": "inverse", "ctVal": "100", "ctValCcy": "USD", "settleCcy": "BTC", "lotSz": "1",
}  # fmt: skip
OPTION_ROW = {
    **SWAP_ROW, "instType": "OPTION", "instId": "BTC-USD-260327-100000-C", "uly": "BTC-USD",
    "instFamily": "BTC-USD", "ctType": "", "ctVal": "1", "ctMult": "0.1", "lotSz": "1",
}  # fmt: skip


def answer(*rows: Any, code: str = "0", msg: str = "") -> bytes:
    return json.dumps({"code": code, "msg": msg, "data": list(rows)}).encode()


def listed(*rows: Any) -> list[Instrument]:
    found = okx.parse_instruments(answer(*rows))
    assert not found.bad
    return found.good


def test_questions_for_instruments() -> None:
    questions = okx.instruments_questions()
    assert {question.path for question in questions} == {"/api/v5/public/instruments"}
    assert [question.params["instType"] for question in questions] == ["SPOT", "SWAP"]


def test_instruments() -> None:
    spot, linear, inverse, option = listed(SPOT_ROW, SWAP_ROW, INVERSE_ROW, OPTION_ROW)
    assert spot == Instrument(
        "okx", "BTCUSDT", "BTC-USDT", "spot", "BTC", "USDT",
        tick_size=D("0.1"), step_size=D("0.00000001"),
    )  # fmt: skip
    assert linear == Instrument(
        "okx", "BTCUSDTSWAP", "BTC-USDT-SWAP", "perpetual", "BTC", "USDT",
        contract_size=D("0.01"), tick_size=D("0.1"), step_size=D("0.001"),
    )  # fmt: skip
    assert (inverse.kind, inverse.base, inverse.quote) == ("inverse_perpetual", "BTC", "USD")
    assert inverse.contract_size == 100
    assert (option.kind, option.contract_size) == ("option", D("0.1"))
    assert option.symbol == "BTCUSD260327100000C"


def test_instruments_of_other_forms() -> None:
    (future,) = listed({**SWAP_ROW, "instType": "FUTURES", "instId": "BTC-USDT-260327"})
    assert (future.symbol, future.kind) == ("BTCUSDT260327", "future")
    (old,) = listed({k: v for k, v in SWAP_ROW.items() if k != "instFamily"})
    assert (old.base, old.quote) == ("BTC", "USDT")
    margined = {**SWAP_ROW, "instId": "BTC-USD_UM-SWAP", "instFamily": "BTC-USD_UM"}
    (margined_in_usd,) = listed(margined)
    assert (margined_in_usd.base, margined_in_usd.quote) == ("BTC", "USD")
    assert margined_in_usd.kind == "perpetual"
    (cyrillic,) = listed({**SPOT_ROW, "instId": "币-USDT", "baseCcy": "币"})
    assert cyrillic.symbol == "币USDT"


@pytest.mark.parametrize("state", ["suspend", "preopen", "test", "rebase", "post_only"])
def test_only_live_instruments_are_trading(state: str) -> None:
    spot, swap = listed({**SPOT_ROW, "state": state}, SWAP_ROW)
    assert (spot.trading, swap.trading) == (False, True)


def test_rows_that_are_not_ready_are_left_out() -> None:
    assert listed(
        {**SPOT_ROW, "baseCcy": "", "quoteCcy": "", "state": "preopen"},
        {**SPOT_ROW, "instId": ""},
        {**SWAP_ROW, "instFamily": "", "uly": ""},
        {**SWAP_ROW, "ctVal": "", "state": "preopen"},
        {**SPOT_ROW, "instType": "EVENTS"},
    ) == []  # fmt: skip


# --- REST candles

T0 = 1_790_000_040_000
assert T0 % 60_000 == 0


def rows_of(question: RestQuestion, opens: list[int]) -> list[int]:
    """What OKX answers of candles that open at ``opens``: newest first between the bounds."""
    before, after = int(question.params["before"]), int(question.params["after"])
    inside = [at for at in opens if before < at < after]
    return sorted(inside, reverse=True)[: int(question.params["limit"])]


def test_klines_question_is_at_most_one_whole_page() -> None:
    question = okx.klines_question(BTC, Interval.M1, T0, 1000, T0 + 60_000.0)
    assert question.path == "/api/v5/market/candles"
    assert question.params["instId"] == "BTC-USDT"
    assert (question.params["bar"], question.params["limit"]) == ("1m", 300)
    opens = [T0 + n * 60_000 for n in range(-5, 900)]
    assert rows_of(question, opens) == [T0 + n * 60_000 for n in range(299, -1, -1)]
    before, after = int(question.params["before"]), int(question.params["after"])
    assert sum(before <= at <= after for at in opens) == 300  # were the bounds inclusive after all


@pytest.mark.parametrize("bars", [1, 37, 299, 300, 10_000])
@pytest.mark.parametrize("interval", sorted(okx.INTERVALS))
def test_pages_walk_forward_without_a_hole(interval: Interval, bars: int) -> None:
    first = calendar.open_of(interval, 1_500_000_000_000)
    end = calendar.next_open(interval, first)
    for _ in range(700):
        end = calendar.next_open(interval, end)
    opens = list(calendar.opens(interval, first, end))
    got: list[int] = []
    start = first
    while start < end:
        page = rows_of(okx.klines_question(BTC, interval, start, bars, 1.8e12), opens)
        assert len(page) >= min(
            bars + 1, 299 if interval is not Interval.MO1 else 270, left(opens, start)
        )
        assert len(page) <= (bars + 1 if interval is not Interval.MO1 else bars * 31 // 28 + 2)
        got += reversed(page)
        start = calendar.next_open(interval, got[-1])
    assert got == opens


def left(opens: list[int], start: int) -> int:
    return sum(at >= start for at in opens)


def test_the_window_is_what_an_answer_speaks_of() -> None:
    question = okx.klines_question(BTC, Interval.M1, T0, 3, float(T0))
    assert question.until_ms == question.params["after"] == T0 + 180_001
    assert (question.params["before"], question.params["limit"]) == (T0 - 1, okx.PAGE)
    month = okx.klines_question(BTC, Interval.MO1, T0, 1, float(T0))
    assert month.until_ms == T0 + 31 * 86_400_000 + 1


def test_a_question_never_begins_before_the_exchange() -> None:
    for start in (-(10**13), 0, okx.BEGAN_MS - 1):
        question = okx.klines_question(BTC, Interval.MO1, start, 1000, 1.8e12)
        assert question.params["before"] == okx.BEGAN_MS - 1
        assert question.until_ms == okx.BEGAN_MS + 299 * 28 * 86_400_000 + 1


def test_old_candles_are_in_the_history() -> None:
    for bars, path in ((0, "candles"), (1_300, "candles"), (1_440, "history-candles")):
        question = okx.klines_question(BTC, Interval.H6, T0 - bars * 21_600_000, 9, float(T0))
        assert question.path == f"/api/v5/market/{path}"
        assert question.params["bar"] == "6Hutc"
    assert okx.klines_question(BTC, Interval.S1, T0 - 3_600_000, 1, float(T0)).weight == 2


def test_klines_come_ascending_and_closed_as_confirmed() -> None:
    newer = [str(int(CANDLE[0]) + 60_000), *CANDLE[1:]]
    older = [*CANDLE[:8], "1"]
    first, second = okx.parse_klines(answer(newer, older), BTC).good
    assert (first.open_ms, first.closed) == (1597026360000, True)
    assert (second.open_ms, second.closed) == (1597026420000, False)
    assert (first.source, plain(first.volume)) == (Source.BACKFILL, "45247")
    (swap,) = okx.parse_klines(answer(older), SWAP).good
    assert plain(swap.volume) == "529.5858061"
    assert okx.parse_klines(answer(), BTC) == Rows([])


# --- REST trades and books


def test_trades_question_asks_for_a_hundred_ids() -> None:
    question = okx.trades_question(BTC, 1000)
    assert question is not None
    assert question.path == "/api/v5/market/history-trades"
    assert question.params == {
        "instId": "BTC-USDT", "type": 1, "before": 999, "after": 1100, "limit": 100,
    }  # fmt: skip
    assert rows_of(question, list(range(5000))) == list(range(1099, 999, -1))


def test_trades_come_ascending() -> None:
    newer = {**SINGLE, "tradeId": "130639475"}
    trades = okx.parse_trades(answer(newer, SINGLE), SWAP).good
    assert [trade.trade_id for trade in trades] == [130639474, 130639475]
    assert plain(trades[0].quantity) == "0.0012060306"


def test_book_question_and_answer() -> None:
    question = okx.book_question(SWAP)
    assert question is not None
    assert (question.path, question.params) == (
        "/api/v5/market/books", {"instId": "BTC-USDT-SWAP", "sz": 400},
    )  # fmt: skip
    row = {k: v for k, v in BOOK.items() if k not in ("checksum", "prevSeqId")}
    book = okx.parse_book(answer(row), SWAP)
    assert (book.snapshot, book.partial, book.last_id) == (True, False, 123456)
    assert (book.symbol, book.previous_id) == ("BTCUSDTSWAP", None)
    assert plain(book.bids[0][1]) == "2.56"
    del row["seqId"]
    assert okx.parse_book(answer(row), BTC).last_id == 0


# --- REST answers that do not fit

READERS: dict[str, Callable[[bytes], object]] = {
    "instruments": okx.parse_instruments,
    "klines": lambda body: okx.parse_klines(body, SWAP),
    "trades": lambda body: okx.parse_trades(body, SWAP),
    "book": lambda body: okx.parse_book(body, SWAP),
}
ROWS: dict[str, list[Any]] = {
    "instruments": [SPOT_ROW, INVERSE_ROW],
    "klines": [CANDLE],
    "trades": [SINGLE],
    "book": [BOOK],
}


@pytest.mark.parametrize("name", READERS)
def test_errors_of_rest_carry_code_and_text(name: str) -> None:
    read = READERS[name]
    read(answer(*ROWS[name]))
    with pytest.raises(BadMessage, match="51001 Instrument ID"):
        read(answer(code="51001", msg="Instrument ID doesn't exist"))
    for body in (
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"code":"0"}',
        b'{"code":0,"data":[]}',
        b'{"code":"0","data":{}}',
        b"\xff",
        answer(3),
        answer([]),
        answer({}),
    ):
        with pytest.raises(BadMessage):
            read(body)


@pytest.mark.parametrize("name", ["klines", "trades"])
def test_answers_in_another_order_are_refused(name: str) -> None:
    newer = {"klines": [str(int(CANDLE[0]) + 1), *CANDLE[1:]],
             "trades": {**SINGLE, "tradeId": "130639475"}}  # fmt: skip
    with pytest.raises(BadMessage, match="out of order"):
        READERS[name](answer(*ROWS[name], newer[name]))


@pytest.mark.parametrize("name", ["instruments", "klines", "trades"])
@pytest.mark.parametrize("odd", [None, 3, [], {}, "x", ["1"], {"instId": "A-B"}])
def test_an_odd_row_does_not_spoil_an_answer(name: str, odd: Any) -> None:
    rows: Any = READERS[name](answer(odd, *ROWS[name], odd))
    assert len(rows.good) == len(ROWS[name])
    assert len(rows.bad) == 2


@pytest.mark.parametrize("name", ["klines", "trades"])
def test_a_row_twice_counts_once(name: str) -> None:
    rows: Any = READERS[name](answer(*ROWS[name], *ROWS[name]))
    assert (len(rows.good), len(rows.bad)) == (1, 1)


def test_other_answers_that_do_not_fit() -> None:
    for rows in ([], [BOOK, BOOK]):
        with pytest.raises(BadMessage, match="books in an answer"):
            okx.parse_book(answer(*rows), BTC)
    for change in ({"ctVal": "NaN"}, {"tickSz": "x"}, {"lotSz": "1e41"}):
        with pytest.raises(BadMessage):
            listed({**SWAP_ROW, **change})


@given(st.sampled_from(sorted(READERS)), st.data())
def test_mutated_answers_raise_nothing_else(name: str, data: st.DataObject) -> None:
    message = {"code": "0", "msg": "", "data": ROWS[name]}
    only_bad_messages(data, message, READERS[name])
