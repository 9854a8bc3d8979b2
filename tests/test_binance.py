"""Binance USD-M on the wire (forms of exchanges.md, 2026-11)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.core import history
from trio_feed.errors import BadMessage
from trio_feed.model import Instrument, Interval, Source, Trade, plain
from trio_feed.venues import (
    Ack,
    GoingAway,
    Ignored,
    Instruments,
    Kind,
    KlineUpdate,
    RestQuestion,
    Rows,
    Venue,
)
from trio_feed.venues.binance import spot as binance
from trio_feed.venues.binance import usdm as binance_usdm

CONTINUOUS: dict[str, Any] = {
    "e": "continuous_kline", "E": 1607443058651, "ps": "BTCUSDT", "ct": "PERPETUAL",
    "k": {
        "t": 1607443020000, "T": 1607443079999, "i": "1m", "f": 116467658886, "L": 116468012423,
        "o": "18787.00", "c": "18804.04", "h": "18804.04", "l": "18786.54", "v": "197.664",
        "n": 543, "x": False, "q": "3715253.19494", "V": "184.769", "Q": "3472925.84746", "B": "0",
    },
}  # fmt: skip
AGG_TRADE: dict[str, Any] = {
    "e": "aggTrade", "E": 1672515782136, "s": "BNBUSDT", "a": 5933014, "p": "0.001", "q": "100",
    "nq": "100", "f": 100, "l": 105, "T": 1672515782130, "m": True, "st": 1,
}  # fmt: skip


BTC, ETH, BNB = (
    Instrument("binance_usdm", f"{base}USDT", f"{base}USDT", "perpetual", base, "USDT")
    for base in ("BTC", "ETH", "BNB")
)
DATED = Instrument("binance_usdm", "BTCUSDT_261225", "BTCUSDT_261225", "future", "BTC", "USDT")
STOCK = Instrument("binance_usdm", "TSLAUSDT", "TSLAUSDT", "tradifi_perpetual", "TSLA", "USDT")
CHINESE = Instrument("binance", "这是测试币456", "这是测试币456", "perpetual")
TABLE = Instruments([BTC, ETH, BNB, DATED, STOCK, CHINESE])


def parsed(message: Any) -> Any:
    (event,) = binance_usdm.parse(json.dumps(message), TABLE)
    return event


def test_continuous_kline_raw_and_combined() -> None:
    event = parsed(CONTINUOUS)
    assert isinstance(event, KlineUpdate)
    assert (event.symbol, event.interval) == ("BTCUSDT", Interval.M1)
    assert (event.kline.open_ms, event.kline.closed) == (1607443020000, False)
    assert [plain(v) for v in (event.kline.open, event.kline.high)] == ["18787.00", "18804.04"]
    assert (event.kline.trades, event.kline.source) == (543, Source.EXCHANGE)
    name = "btcusdt_perpetual@continuousKline_1m"
    assert parsed({"stream": name, "data": CONTINUOUS}) == event


def test_plain_kline_carries_its_own_symbol() -> None:
    frame = {**CONTINUOUS, "e": "kline", "s": "ETHUSDT"}
    del frame["ps"], frame["ct"]
    event = parsed(frame)
    assert event.symbol == "ETHUSDT"
    assert (event.kline.first_trade_id, event.kline.last_trade_id) == (116467658886, 116468012423)
    quiet = {**frame, "k": {**frame["k"], "f": -1, "L": -1, "n": 0}}
    kline = parsed(quiet).kline
    assert (kline.first_trade_id, kline.last_trade_id, kline.trades) == (None, None, 0)


def test_the_ids_of_a_continuous_kline_are_no_trade_ids() -> None:
    kline = parsed(CONTINUOUS).kline
    assert (kline.first_trade_id, kline.last_trade_id) == (None, None)
    bought = kline.taker_buy_volume, kline.taker_buy_quote_volume
    assert [plain(volume) for volume in bought if volume is not None] == [
        "184.769",
        "3472925.84746",
    ]


@pytest.mark.parametrize(
    ("pair", "contract", "symbol"),
    [
        ("BTCUSDT", "PERPETUAL", "BTCUSDT"), ("TSLAUSDT", "TRADIFI_PERPETUAL", "TSLAUSDT"),
        ("BTCUSDT", "CURRENT_QUARTER", None), ("BTCUSDT", "TRADIFI_PERPETUAL", None),
        ("TSLAUSDT", "PERPETUAL", None), ("BTCUSDT_261225", "CURRENT_QUARTER", None),
        ("NOBODY", "PERPETUAL", None),
    ],
)  # fmt: skip
def test_a_continuous_kline_is_matched_by_pair_and_contract(
    pair: str, contract: str, symbol: str | None
) -> None:
    event = parsed({**CONTINUOUS, "ps": pair, "ct": contract})
    assert event.symbol == symbol if symbol else isinstance(event, Ignored)


def test_a_dated_contract_is_asked_for_by_its_own_symbol() -> None:
    """``current_quarter`` is another contract after each delivery."""
    stream = binance_usdm.stream(Kind.KLINE, DATED, Interval.M1)
    assert (stream.path, stream.name) == ("/market", "btcusdt_261225@kline_1m")
    question = binance_usdm.klines_question(DATED, Interval.M1, 1599040000000, 1, 0)
    assert question.path == "/fapi/v1/klines"
    assert question.params["symbol"] == "BTCUSDT_261225"
    assert not {"pair", "contractType"} & set(question.params)
    latest = binance_usdm.latest_question(DATED, Interval.M1)
    assert latest == RestQuestion(
        "/fapi/v1/klines", {"symbol": "BTCUSDT_261225", "interval": "1m", "limit": 1}
    )
    frame = {**CONTINUOUS, "e": "kline", "s": "BTCUSDT_261225"}
    assert parsed(frame).symbol == "BTCUSDT_261225"


TRADE = {"e": "trade", "E": 1672515782136, "T": 1672515782136, "s": "BTCUSDT", "t": 5266583935,
         "p": "61800.30", "q": "0.006", "X": "MARKET", "m": False}  # fmt: skip


def test_placeholders_are_no_trades() -> None:
    assert isinstance(parsed(TRADE), Trade)
    assert isinstance(parsed({**TRADE, "X": "INSURANCE_FUND"}), Trade)
    assert parsed({**TRADE, "X": "NA", "p": "0", "q": "0"}) == Ignored("placeholder trade")


@pytest.mark.parametrize("frame", [CONTINUOUS, AGG_TRADE, TRADE])
def test_coin_m_is_told_apart(frame: dict[str, Any]) -> None:
    assert not isinstance(parsed({**frame, "st": 1}), Ignored)
    assert parsed({**frame, "st": 2}) == Ignored("COIN-M")


def test_a_liquidation_says_its_market_outside_or_inside() -> None:
    order = {"s": "BNBUSDT", "S": "SELL", "q": "0.014", "p": "9910", "ap": "9910",
             "T": 1568014460893}  # fmt: skip
    frame = {"e": "forceOrder", "E": 1568014460893, "o": order}
    assert parsed(frame).symbol == "BNBUSDT"
    assert parsed({**frame, "st": 1, "o": {**order, "st": 1}}).symbol == "BNBUSDT"
    assert parsed({**frame, "st": 2}) == Ignored("COIN-M")
    assert parsed({**frame, "o": {**order, "st": 2}}) == Ignored("COIN-M")


def listed(**changes: Any) -> dict[str, Any]:
    row = {
        "symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING",
        "baseAsset": "BTC", "quoteAsset": "USDT",
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.10"},
                    {"filterType": "LOT_SIZE", "stepSize": "0.001"}],
    }  # fmt: skip
    return row | changes


def test_odd_rows_of_a_listing_are_left_out_and_said() -> None:
    rows = [
        listed(), None, 5, listed(symbol=None), listed(symbol=""), listed(filters=None),
        listed(filters=[{"filterType": "LOT_SIZE", "stepSize": "NaN"}]),
        listed(symbol="BTCUSDT_261225", contractType="CURRENT_QUARTER"),
        listed(symbol="BTCUSD_PERP", pair="BTCUSD", contractSize=100),
        listed(symbol="TSLAUSDT", contractType="TRADIFI_PERPETUAL", filters=[]),
        listed(symbol="XUSDT", filters=[{"filterType": []}, {"filterType": "LOT_SIZE"}]),
    ]  # fmt: skip
    found = binance_usdm.parse_instruments(json.dumps({"symbols": rows}).encode())
    assert [(each.symbol, each.kind) for each in found.good] == [
        ("BTCUSDT", "perpetual"), ("BTCUSDT_261225", "future"), ("BTCUSD_PERP", "perpetual"),
        ("TSLAUSDT", "tradifi_perpetual"), ("XUSDT", "perpetual"),
    ]  # fmt: skip
    assert len(found.bad) == 6
    assert all(error.sample for error in found.bad)
    assert [bool(each.unavailable) for each in found.good] == [False, False, True, False, False]


@pytest.mark.parametrize("venue", [binance, binance_usdm])
def test_names_of_other_alphabets(venue: Venue) -> None:
    one = [venue.stream(Kind.AGG_TRADE, CHINESE)]
    (plan,) = venue.plan("wss://host", one, 50)
    assert plan.url.endswith("/ws/%E8%BF%99%E6%98%AF%E6%B5%8B%E8%AF%95%E5%B8%81456@aggTrade")
    assert plan.url.isascii()
    (plan,) = venue.plan("wss://host", [*one, venue.stream(Kind.AGG_TRADE, BTC)], 50)
    assert "这是测试币456@aggTrade" in plan.subscribe[0].text
    assert parsed({**AGG_TRADE, "s": "这是测试币456"}).symbol == "这是测试币456"


def test_agg_trade_with_and_without_the_new_fields() -> None:
    event = parsed(AGG_TRADE)
    assert isinstance(event, Trade)
    assert (event.trade_id, event.first_id, event.last_id) == (5933014, 100, 105)
    assert (plain(event.price), plain(event.quantity)) == ("0.001", "100")
    assert event.buyer_is_maker
    old = {k: v for k, v in AGG_TRADE.items() if k not in ("nq", "st")}
    assert parsed(old) == event
    assert parsed({**AGG_TRADE, "brandNew": {"a": [1]}}) == event


def test_digits_pass_through() -> None:
    price = "0.123456789012345678"
    assert plain(parsed({**AGG_TRADE, "p": price}).price) == price


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"result": None, "id": 1}, Ack("1")),
        ({"result": ["a"], "id": 3}, Ack("3")),
        ({"code": 2, "msg": "Invalid request: x", "id": 7}, Ack("7", "2 Invalid request: x")),
        ({"code": 3, "msg": "Invalid JSON"}, Ack("", "3 Invalid JSON")),
        ({"error": {"code": 2, "msg": "no"}, "id": 4}, Ack("4", '{"code": 2, "msg": "no"}')),
        ({"e": "serverShutdown", "E": 1770123456789}, GoingAway()),
        ({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}}, GoingAway()),
        ({"stream": "x@y", "data": {"e": "compositeIndex", "u": 1}}, Ignored("compositeIndex")),
    ],
)
def test_replies_and_notices(message: Any, expected: Any) -> None:
    assert parsed(message) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "", "nonsense", "null", "[]", "3", "{}", '{"e":5}', '{"e":"neverHeardOf"}',
        '{"stream":"a","data":3}', '{"stream":"a","data":{}}', "[" * 100_000, b"\xff\xfe\x00",
        b'{"e":"\xff"}', json.dumps({**CONTINUOUS, "ps": ""}), json.dumps({**AGG_TRADE, "p": 1.5}),
        json.dumps({**AGG_TRADE, "p": "NaN"}), json.dumps({**AGG_TRADE, "p": "1e41"}),
        json.dumps({**AGG_TRADE, "a": 2**63}), json.dumps({**AGG_TRADE, "f": -1, "l": -1}),
        json.dumps({**CONTINUOUS, "E": 2**63}),
        json.dumps({**CONTINUOUS, "k": {**CONTINUOUS["k"], "n": 2**63}}),
        json.dumps({**CONTINUOUS, "k": {**CONTINUOUS["k"], "n": -1}}),
        json.dumps({**CONTINUOUS, "k": {**CONTINUOUS["k"], "V": "many"}}),
        json.dumps({**AGG_TRADE, "f": 0, "l": 2**63 - 1}), json.dumps({**AGG_TRADE, "p": "-5"}),
        json.dumps({**AGG_TRADE, "f": 1, "l": 1_000_001}), json.dumps({**AGG_TRADE, "p": "0"}),
        json.dumps({**AGG_TRADE, "q": "-1"}),
        json.dumps({**AGG_TRADE, "q": "9" * 100}), json.dumps({**AGG_TRADE, "T": 1672515782}),
        json.dumps({**CONTINUOUS, "k": {**CONTINUOUS["k"], "i": "7m"}}),
        json.dumps({**CONTINUOUS, "k": {**CONTINUOUS["k"], "t": 10**30}}),
        json.dumps({**CONTINUOUS, "k": {**CONTINUOUS["k"], "x": "yes"}}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_bad_message(raw: str | bytes) -> None:
    with pytest.raises(BadMessage):
        binance_usdm.parse(raw, TABLE)


@given(st.sampled_from([CONTINUOUS, AGG_TRADE]), st.data())
def test_mutations_raise_nothing_else(frame: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps(frame).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for raw in (bytes(text), bytes(text[:cut])):
        try:
            binance_usdm.parse(raw, TABLE)
        except BadMessage:
            continue


def test_one_stream_stands_in_the_url_several_are_subscribed_to() -> None:
    one = [binance_usdm.stream(Kind.KLINE, BTC, Interval.M1)]
    (plan,) = binance_usdm.plan("wss://host", one, 50)
    assert plan.url == "wss://host/market/ws/btcusdt_perpetual@continuousKline_1m"
    assert plan.subscribe == ()
    two = [*one, binance_usdm.stream(Kind.AGG_TRADE, BTC)]
    (plan,) = binance_usdm.plan("wss://host", two, 50)
    assert plan.url == "wss://host/market/stream"
    assert json.loads(plan.subscribe[0].text) == {
        "method": "SUBSCRIBE",
        "params": ["btcusdt_perpetual@continuousKline_1m", "btcusdt@aggTrade"],
        "id": 1,
    }
    assert [len(p.streams) for p in binance_usdm.plan("wss://host", two, 1)] == [1, 1]


def test_many_streams_stay_within_the_limits() -> None:
    names = [f"A{n}USDT" for n in range(2500)]
    streams = [
        binance_usdm.stream(Kind.AGG_TRADE, Instrument("x", n, n, "perpetual")) for n in names
    ]
    plans = binance_usdm.plan("wss://host", streams, 10_000)
    assert [len(p.streams) for p in plans] == [1024, 1024, 452]
    for plan in plans:
        sizes = [len(json.loads(frame.text)["params"]) for frame in plan.subscribe]
        assert max(sizes) <= 200
        assert sum(sizes) == len(plan.streams)


def test_rest_rows_are_closed_but_the_last() -> None:
    row = [1499040000000, "0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815",
           1499644799999, "2434.19055334", 308, "1756.87402397", "28.46694368", "0"]  # fmt: skip
    body = json.dumps([row, [1499644800000, *row[1:]]]).encode()
    first, second = binance_usdm.parse_klines(body, BTC).good
    assert (first.closed, second.closed) == (True, False)
    assert plain(first.volume) == "148976.11427815"
    assert first.source is Source.BACKFILL
    assert binance_usdm.parse_klines(b"[]", BTC) == Rows([])
    assert plain(first.taker_buy_volume or first.open) == "1756.87402397"
    assert plain(first.taker_buy_quote_volume or first.open) == "28.46694368"
    assert (first.first_trade_id, first.last_trade_id) == (None, None)
    for bad in (b"", b"{}", b'{"code":-1121,"msg":"Invalid symbol."}', b"[[1]]", b"[null]",
                json.dumps([row, [row[0] - 1, *row[1:]]]).encode()):  # fmt: skip
        with pytest.raises(BadMessage):
            binance_usdm.parse_klines(bad, BTC)


def test_rest_questions() -> None:
    question = binance_usdm.klines_question(BTC, Interval.H1, 1599040000000, 3, 0)
    assert question.path == "/fapi/v1/continuousKlines"
    assert question.params == {
        "pair": "BTCUSDT", "contractType": "PERPETUAL", "interval": "1h",
        "startTime": 1599040000000, "limit": 4,
    }  # fmt: skip
    trades = binance_usdm.trades_question(BTC, 77)
    assert trades is not None
    assert trades.params == {"symbol": "BTCUSDT", "fromId": 77, "limit": 1000}
    rows = [{k: v for k, v in AGG_TRADE.items() if k not in ("e", "E", "s")}]
    (trade,) = binance_usdm.parse_trades(json.dumps(rows).encode(), BNB).good
    assert (trade.symbol, trade.trade_id) == ("BNBUSDT", 5933014)


@pytest.mark.parametrize(
    ("bars", "limit", "weight"),
    [
        (-5, 2, 1), (0, 2, 1), (1, 2, 1), (98, 99, 1), (99, 100, 2), (498, 499, 2), (499, 500, 5),
        (999, 1000, 5), (1000, 1001, 10), (1499, 1500, 10), (1500, 1500, 10), (10**12, 1500, 10),
    ],
)  # fmt: skip
def test_a_question_is_as_large_as_what_is_missing(bars: int, limit: int, weight: int) -> None:
    for instrument in (BTC, DATED):
        question = binance_usdm.klines_question(instrument, Interval.M1, 1599040000000, bars, 0)
        assert (question.params["limit"], question.weight) == (limit, weight)


@pytest.mark.parametrize("venue", [binance, binance_usdm])
def test_a_question_never_begins_before_the_exchange(venue: Venue) -> None:
    for start in (-(10**13), -1, 0, venue.BEGAN_MS - 1):
        question = venue.klines_question(BTC, Interval.MO1, start, 1000, 1.8e12)
        assert question.params["startTime"] == venue.BEGAN_MS
    late = venue.klines_question(BTC, Interval.MO1, venue.BEGAN_MS + 1, 1, 1.8e12)
    assert late.params["startTime"] == venue.BEGAN_MS + 1


ROW = [1599040020000, "1", "4", "0.5", "2E+0", "10", 1599040079999, "20", 3, "4", "8", "0"]


def page(*rows: Any) -> bytes:
    return json.dumps(rows).encode()


def row_at(minute: int, **changes: Any) -> list[Any]:
    row = [ROW[0] + minute * 60_000, *ROW[1:]]
    for column, value in changes.items():
        row[int(column[1:])] = value
    return row


@pytest.mark.parametrize(
    "odd",
    [
        None, 5, "x", {}, [], ROW[:11], row_at(1, c0=None), row_at(1, c1=1.5), row_at(1, c1="NaN"),
        row_at(1, c5="1e41"), row_at(1, c8=-1), row_at(1, c8=2**63), row_at(1, c0=2**63),
        row_at(1, c9="many"), row_at(1, c0=5),
    ],
)  # fmt: skip
def test_an_odd_row_does_not_spoil_a_page(odd: Any) -> None:
    rows = binance.parse_klines(page(row_at(0), odd, row_at(2), row_at(3)), BTC)
    assert [kline.open_ms - ROW[0] for kline in rows.good] == [0, 120_000, 180_000]
    assert [kline.closed for kline in rows.good] == [True, True, False]
    (bad,) = rows.bad
    assert bad.sample
    with pytest.raises(BadMessage, match="no row"):
        binance.parse_klines(page(odd), BTC)


def test_an_odd_row_at_the_end_closes_nothing() -> None:
    rows = binance.parse_klines(page(row_at(0), row_at(1), None), BTC)
    assert [kline.closed for kline in rows.good] == [True, False]
    assert len(rows.bad) == 1


def test_further_columns_and_exponents_are_welcome() -> None:
    rows = binance.parse_klines(page([*ROW, "new", {"x": [1]}]), BTC)
    (kline,) = rows.good
    assert not rows.bad
    assert (kline.close, plain(kline.close), kline.trades) == (2, "2", 3)


def test_a_row_twice_counts_once_as_it_came_last() -> None:
    rows = binance.parse_klines(page(row_at(0), row_at(1), row_at(1, c4="3"), row_at(2)), BTC)
    assert [plain(kline.close) for kline in rows.good] == ["2", "3", "2"]
    assert len(rows.bad) == 1


def test_odd_trades_of_a_page() -> None:
    trades = [
        AGG_TRADE, None, {**AGG_TRADE, "a": 5933015, "p": None},
        {**AGG_TRADE, "a": 5933015, "f": -1, "l": -1, "p": "0", "q": "0"},
        {**AGG_TRADE, "a": 5933016}, {**AGG_TRADE, "a": 2**63},
    ]  # fmt: skip
    rows = binance.parse_trades(page(*trades), BNB)
    assert [trade.trade_id for trade in rows.good] == [5933014, 5933016]
    assert len(rows.bad) == 4
    with pytest.raises(BadMessage, match="order"):
        binance.parse_trades(page({**AGG_TRADE, "a": 5933015}, AGG_TRADE), BNB)


BODIES: dict[str, tuple[Any, Any]] = {
    "klines": (binance_usdm.parse_klines, [ROW, row_at(1)]),
    "trades": (binance_usdm.parse_trades, [AGG_TRADE, {**AGG_TRADE, "a": 5933015}]),
    "instruments": (
        lambda body, _: binance_usdm.parse_instruments(body),
        {"symbols": [listed(), listed(symbol="ETHUSDT")]},
    ),
}


@given(st.sampled_from(sorted(BODIES)), st.data())
def test_mutated_answers_raise_nothing_else(name: str, data: st.DataObject) -> None:
    read, body = BODIES[name]
    text = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for raw in (bytes(text), bytes(text[:cut])):
        try:
            rows = read(raw, BTC)
        except BadMessage:
            continue
        assert isinstance(rows, Rows)
        assert rows.good or not rows.bad


def test_what_trade_ids_prove() -> None:
    assert (binance.TRADE_IDS, binance_usdm.TRADE_IDS) == ("dense", "dense")


@pytest.mark.parametrize(
    ("bars", "weight"), [(history.FIRST_PAGE + 1, 2), (history.PAGE, 2), (history.PAGE + 1, 5)]
)
def test_pages_of_history_are_the_largest_of_their_price(bars: int, weight: int) -> None:
    """The running candle is asked for with the first page; each question asks for one more."""
    assert binance_usdm.klines_question(BNB, Interval.M1, 0, bars, 0.0).weight == weight
