"""Every kind of message, to the letter; and which message makes which other one superfluous."""

import json
from decimal import Decimal as D
from typing import Any

import pytest
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message
from support.wire import payload_of

from trio_feed.bus.base import Published, Upstream
from trio_feed.model import (
    BookView,
    Channel,
    ChannelKey,
    ChannelMessage,
    Interval,
    Price,
    PrivateMessage,
    Source,
    StatusMessage,
    StreamState,
    Ticker,
    Trade,
)
from trio_feed.push import messages
from trio_feed.push.fanout.encoded import EncodedMessage, encoded, encoded_once, prefix_of
from trio_feed.push.fanout.frames import reply_frame
from trio_feed.push.protocol import Since, Subscribe, Target, Unsubscribe

TARGET = Target("BTCUSDT", Channel.KLINE, Interval.M1, "m1", None)
TICKER = Ticker("BTCUSDT", D("1.10"), D("2"), None, D("4"), D("5"), None, D("7"), D("8"), D("9"),
                D("10"), event_ms=77)  # fmt: skip
TRADE = Trade("BTCUSDT", 5, 3, 4, D("1.50"), D("0.10"), 1234, True, 1239)
PRICE = Price("BTCUSDT", D("0.000000010"), 'k"y', 88)
BOOK = BookView(
    "BTCUSDT", ((D("1.0"), D("2")), (D("0.9"), D("3"))), ((D("1.1"), D("4")),), False, 9, 66
)


def line_of(data: Any, channel: Channel = Channel.TRADE) -> ChannelMessage:
    return ChannelMessage(
        ChannelKey("okx", "BTCUSDT", channel), data, Source.EXCHANGE, 7, 8, 1000.25
    )


def body(data: Any) -> dict[str, Any]:
    text = messages.data_head(Channel.TRADE) + messages.data_tail(line_of(data), 2000.75)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(
    ("data", "event_ms", "text"),
    [
        (
            TICKER, 77,
            '{"last":1.10,"open":2,"high":null,"low":4,"volume":5,"quote_volume":null,"bid":7,'
            '"bid_size":8,"ask":9,"ask_size":10}',
        ),
        (
            TRADE, 1239,
            '{"trade_id":5,"first_id":3,"last_id":4,"price":1.50,"quantity":0.10,"side":"sell",'
            '"time":1234}',
        ),
        (
            evolve(TRADE, buyer_is_maker=False, event_ms=0), 1234,
            '{"trade_id":5,"first_id":3,"last_id":4,"price":1.50,"quantity":0.10,"side":"buy",'
            '"time":1234}',
        ),
        (PRICE, 88, '{"price":0.000000010,"key":"k\\"y","time":88}'),
        (BOOK, 66, '{"bids":[[1.0,2],[0.9,3]],"asks":[[1.1,4]],"stale":false,"update_id":9}'),
        (
            evolve(BOOK, stale=True, bids=(), event_ms=0), 0,
            '{"bids":[],"asks":[[1.1,4]],"stale":true,"update_id":9}',
        ),
    ],
)  # fmt: skip
def test_lines_to_the_letter(data: Any, event_ms: int, text: str) -> None:
    assert messages.data_tail(line_of(data), 2000.75) == (
        f'"exchange":"okx","epoch":7,"offset":8,"source":"exchange","event_time":{event_ms},'
        f'"received_at":1000.250,"sent_at":2000.750,"data":{text},"timestamp":2000}},'
        '"timestamp":2000}'
    )


def test_a_candle_to_the_letter() -> None:
    row = evolve(kline(), taker_buy_volume=D("0.70"), first_trade_id=1, last_trade_id=7)
    text = (
        f'{{"time":{T0 // 1000},"open":100.00,"high":101.00,"low":99.00,"close":100.50,'
        '"volume":1.500,"quote_volume":150.75,"trades":7,"taker_buy_volume":0.70,'
        '"taker_buy_quote_volume":null,"first_trade_id":1,"last_trade_id":7,'
        '"is_final":true,"update_type":"final","update_count":3,"source":"exchange",'
        '"complete":true}'
    )
    assert messages.candle(row, 3) == text
    sent = evolve(message(row, epoch=4, offset=5, count=3), received_ms=1000.25)
    assert messages.data_tail(sent, 2000.75) == (
        f'"exchange":"binance_usdm","epoch":4,"offset":5,"source":"exchange",'
        f'"event_time":{row.event_ms},"received_at":1000.250,"sent_at":2000.750,"data":{text},'
        '"timestamp":2000},"timestamp":2000}'
    )


@pytest.mark.parametrize(
    ("closed", "revision", "provisional", "final", "kind"),
    [
        (True, False, False, True, "final"),
        (True, True, False, True, "revision"),
        (False, False, False, False, "realtime"),
        (False, False, True, False, "realtime"),
    ],
)
def test_kinds_of_candles(
    closed: bool, revision: bool, provisional: bool, final: bool, kind: str
) -> None:
    sent = evolve(message(kline(closed=closed)), revision=revision, provisional=provisional)
    row = json.loads("{" + messages.data_tail(sent, 0).split('"data":', 1)[1].rsplit(",", 2)[0][1:])
    assert (row["is_final"], row["update_type"]) == (final, kind)
    assert row.get("provisional") is (True if provisional else None)


@pytest.mark.parametrize(
    ("trades", "volume", "shown"), [(0, "1", None), (0, "0", 0), (3, "0", 3), (3, "1", 3)]
)
def test_trades_that_are_not_known(trades: int, volume: str, shown: int | None) -> None:
    row = evolve(kline(volume=volume), trades=trades, complete=trades == 3)
    said = json.loads(messages.candle(row, 1))
    assert (said["trades"], said["complete"]) == (shown, trades == 3)


@pytest.mark.parametrize(
    ("first", "last", "more"),
    [(None, None, {}), (T0, None, {"from": T0 // 1000}), (None, T0, {"to": T0 // 1000}),
     (0, T0 + 999, {"from": 0, "to": T0 // 1000})],
)  # fmt: skip
def test_a_status(first: int | None, last: int | None, more: dict[str, int]) -> None:
    status = StatusMessage(SERIES, StreamState.REPAIRING, 'a "gap"', first, last)
    assert json.loads(messages.stream_status(TARGET.splice("s"), status, 2000.75)) == {
        "type": "stream_status",
        "data": {
            "symbol": "BTCUSDT", "interval": "m1", "subscription_id": "s",
            "exchange": "binance_usdm", "status": "repairing", "reason": 'a "gap"', **more,
        },
        "timestamp": 2000,
    }  # fmt: skip


@pytest.mark.parametrize("since", [None, Since(1, 2)])
@pytest.mark.parametrize("provisional", [False, True])
def test_a_confirmation(since: Since | None, provisional: bool) -> None:
    request = Subscribe(TARGET, "s", None, since, provisional)
    answer = {
        "symbol": "BTCUSDT", "interval": "m1", "subscription_id": "s", "success": True,
        "message": "subscribed", "epoch": 3, "offset": 4, "upstream": "stale",
        "problem": "silence",
    }  # fmt: skip
    answer |= {"provisional": True} if provisional else {}
    answer |= {} if since is None else {"recovered": True}
    text = messages.subscription_confirmed(
        request, 3, 4, Upstream("stale", "silence"), 2000.75, recovered=True
    )
    assert json.loads(text) == {
        "type": "subscription_confirmed", "data": answer, "timestamp": 2000,
    }  # fmt: skip
    live = json.loads(messages.subscription_confirmed(request, 3, 4, Upstream("live"), 1.0))
    assert "problem" not in live["data"]
    assert live["data"].get("recovered") is (None if since is None else False)


def test_the_other_answers() -> None:
    assert json.loads(messages.unsubscribe_confirmed(Unsubscribe(TARGET, None), 2000.75)) == {
        "type": "unsubscribe_confirmed",
        "data": {
            "symbol": "BTCUSDT", "interval": "m1", "subscription_id": None, "success": True,
        },
        "timestamp": 2000,
    }  # fmt: skip
    assert json.loads(messages.error(1002, "no", 2000.75)) == {
        "type": "error", "code": 1002, "message": "no", "timestamp": 2000,
    }  # fmt: skip
    assert json.loads(messages.subscriptions([{"a": 1}], 2000.75)) == {
        "type": "subscriptions", "data": [{"a": 1}], "timestamp": 2000,
    }  # fmt: skip
    assert json.loads(messages.connection_success("id", ["A"], [Interval.M1], 2999.0)) == {
        "type": "connection_success", "client_id": "id", "server_time": 2,
        "supported_symbols": ["A"], "supported_intervals": ["m1", "1m"],
    }  # fmt: skip
    event = PrivateMessage(7, 3, '"type":"trade"', 1.0)
    assert messages.private_event(event, 5, 2000.75) == (
        '{"type":"trade","epoch":5,"offset":3,"sent_at":2000.750}'
    )


def test_a_history_to_the_letter() -> None:
    text = messages.history_body(
        TARGET.splice(), "okx", [messages.candle(kline(), 3)], has_more=False, epoch=1, offset=2
    )
    assert text == (
        '{"symbol":"BTCUSDT","interval":"m1","exchange":"okx","epoch":1,"offset":2,"data":['
        + messages.candle(kline(), 3)
        + '],"has_more":false,"total_count":1}'
    )
    assert messages.history_data("X", 2000.75) == (
        '{"type":"history_data","data":X,"timestamp":2000}'
    )


# ---------------------------------------------------------------- messages


def numbered(**more: Any) -> EncodedMessage:
    made = {
        "epoch": 1, "offset": 5, "received_ms": 0.0, "sent_ms": 0.0, "whole": True,
        "open_ms": T0, "final": False, "message": message(kline()), **more,
    }  # fmt: skip
    return EncodedMessage(**made)


OPEN, FINAL = {"whole": True}, {"whole": False, "final": True}


@pytest.mark.parametrize(
    ("newer", "queued", "replaces"),
    [
        (OPEN, OPEN, True),
        (OPEN, FINAL, False),  # what is final goes out in any case
        (FINAL, OPEN, True),
        ({**FINAL, "open_ms": T0 + MINUTE}, OPEN, False),  # of another candle
        ({**OPEN, "open_ms": T0 + MINUTE}, OPEN, True),
        ({**FINAL, "final": False}, OPEN, False),  # a revision
        ({**OPEN, "epoch": 2}, OPEN, False),
        ({**OPEN, "ephemeral": True}, OPEN, False),
        (OPEN, {**OPEN, "ephemeral": True}, False),
        ({**OPEN, "ephemeral": True}, {**OPEN, "ephemeral": True}, True),
    ],
)
def test_what_takes_the_place_of_what(
    newer: dict[str, Any], queued: dict[str, Any], replaces: bool
) -> None:
    assert numbered(**newer).replaces(numbered(**queued)) is replaces


@pytest.mark.parametrize(
    ("data", "whole", "final", "open_ms"),
    [
        (message(kline(closed=False)), True, False, T0),
        (message(kline()), False, True, T0),
        (evolve(message(kline()), revision=True), False, False, T0),
        (line_of(TRADE), False, False, None),
        (line_of(PRICE), False, False, None),
        (line_of(TICKER, Channel.TICKER), True, False, None),
        (line_of(BOOK, Channel.BOOK), True, False, None),
    ],
)
def test_what_a_message_is(data: Any, whole: bool, final: bool, open_ms: int | None) -> None:
    made = encoded(data, 9.5)
    assert (made.whole, made.final, made.open_ms, made.sent_ms) == (whole, final, open_ms, 9.5)
    assert (made.epoch, made.offset, made.ephemeral) == (data.epoch, data.offset, False)
    shown = encoded_once(Published(data, 9.5, ephemeral=True, provisional=True))
    assert (shown.ephemeral, shown.provisional) == (True, True)
    once = Published(data, 9.5)
    assert encoded_once(once) is encoded_once(once)


@pytest.mark.parametrize(
    ("left_out", "snapshot", "extra"),
    [(0, False, {}), (3, False, {"conflated": 3}), (0, True, {"snapshot": True}),
     (3, True, {"conflated": 3, "snapshot": True})],
)  # fmt: skip
def test_what_is_said_of_those_left_out(left_out: int, snapshot: bool, extra: Any) -> None:
    own = prefix_of(TARGET, None, deflated=False)
    data = json.loads(
        payload_of(own.frame(encoded(message(kline()), 0), left_out, snapshot=snapshot))
    )
    found = {name: data["data"][name] for name in ("conflated", "snapshot") if name in data["data"]}
    assert found == extra


@pytest.mark.parametrize(("size", "deflated"), [(255, False), (256, True)])
def test_from_which_length_on_a_reply_is_compressed(size: int, deflated: bool) -> None:
    assert (reply_frame("x" * size, deflated=True)[0] & 0x40 > 0) is deflated


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_the_payload_of_a_frame(size: int) -> None:
    text = "x" * size
    assert payload_of(reply_frame(text, deflated=False)) == text.encode()
