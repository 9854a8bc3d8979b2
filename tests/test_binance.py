"""Binance USD-M on the wire (forms of exchanges.md, 2026-11)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.errors import BadMessage
from trio_feed.model import Instrument, Interval, Source, Trade, plain
from trio_feed.venues import Ack, GoingAway, Ignored, Instruments, Kind, KlineUpdate, binance_usdm

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
TABLE = Instruments([BTC, ETH, BNB])


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
    assert parsed(frame).symbol == "ETHUSDT"


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
        json.dumps({**AGG_TRADE, "p": "NaN"}), json.dumps({**AGG_TRADE, "p": "1e9"}),
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
    first, second = binance_usdm.parse_klines(body, BTC)
    assert (first.closed, second.closed) == (True, False)
    assert plain(first.volume) == "148976.11427815"
    assert first.source is Source.BACKFILL
    assert binance_usdm.parse_klines(b"[]", BTC) == []
    for bad in (b"", b"{}", b'{"code":-1121,"msg":"Invalid symbol."}', b"[[1]]",
                json.dumps([row, row]).encode()):  # fmt: skip
        with pytest.raises(BadMessage):
            binance_usdm.parse_klines(bad, BTC)


def test_rest_questions() -> None:
    question = binance_usdm.klines_question(BTC, Interval.H1, 1499040000000, 0)
    assert question.path == "/fapi/v1/continuousKlines"
    assert question.params["contractType"] == "PERPETUAL"
    assert (question.params["limit"], question.weight) == (1500, 10)
    trades = binance_usdm.trades_question(BTC, 77)
    assert trades is not None
    assert trades.params == {"symbol": "BTCUSDT", "fromId": 77, "limit": 1000}
    rows = [{k: v for k, v in AGG_TRADE.items() if k not in ("e", "E", "s")}]
    (trade,) = binance_usdm.parse_trades(json.dumps(rows).encode(), BNB)
    assert (trade.symbol, trade.trade_id) == ("BNBUSDT", 5933014)
