"""What the client says and makes of the answers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from support.make import kline

from trio_feed.client.candles import Candles
from trio_feed.client.channel import ChannelSubscription
from trio_feed.client.conversation import AuthRefused, Conversation, SentAway
from trio_feed.client.messages import (
    Authenticated,
    BookUpdate,
    CandleUpdate,
    ConnectionChange,
    History,
    PrivateEvent,
    ServerError,
    Stream,
    StreamStatus,
    TickerUpdate,
    TokenExpires,
    TradeUpdate,
)
from trio_feed.client.numbers import OutOfStep
from trio_feed.errors import BadMessage
from trio_feed.model import Channel, Interval, Price, StreamState, Ticker, Trade
from trio_feed.push import messages
from trio_feed.settings import Secret

CANDLES = Stream("BTCUSDT", Channel.KLINE, Interval.M1)
TRADES = Stream("BTCUSDT", Channel.TRADE, exchange="okx")
ROW = (
    '{"time":%d,"open":1.10,"high":1.20,"low":1.0,"close":1.15,"volume":0.00000001,'
    '"quote_volume":7,"trades":3,"is_final":true,"update_type":"final","update_count":2,'
    '"source":"simulated","complete":true}'
)
ORIGIN = (
    '"exchange":"okx","epoch":%d,"offset":%d,"source":"exchange","event_time":5,'
    '"received_at":6.5,"sent_at":7.5,"timestamp":8'
)
HISTORY = (
    '{"type":"history_data","data":{"symbol":"BTCUSDT","interval":"1m","exchange":"okx","epoch":1,'
    f'"offset":3,"data":[{ROW % 60}],"has_more":true,"total_count":1}},"timestamp":1}}'
)
TRADE = '{"trade_id":9,"first_id":8,"last_id":9,"price":1.10,"quantity":2,"side":"sell","time":4}'
PRICE = '{"price":1.10,"key":"k","time":4}'
TICKER = (
    '{"last":1.10,"open":null,"high":2,"low":1,"volume":3,"quote_volume":4,"bid":1.0,'
    '"bid_size":null,"ask":1.2,"ask_size":5}'
)
BOOK = '{"bids":[[1.10,2]],"asks":[],"stale":true,"update_id":9}'


def confirmed(**more: Any) -> str:
    return json.dumps({"type": "subscription_confirmed", "data": {"success": True, **more}})


def data(kind: str, stream: Stream, offset: int, body: str, epoch: int = 1) -> str:
    return (
        f'{{"type":"{kind}","data":{{"symbol":"BTCUSDT","subscription_id":"{stream}",'
        f'{ORIGIN % (epoch, offset)},"data":{body}}},"timestamp":8}}'
    )


def error(code: int, problem: str = "no") -> str:
    return json.dumps({"type": "error", "code": code, "message": problem})


def talking(*streams: Stream) -> Conversation:
    conversation = Conversation()
    for stream in streams:
        conversation.subscribe(
            ChannelSubscription(stream) if stream.interval is None else Candles(stream, 5)
        )
    conversation.connected()
    return conversation


def requests(conversation: Conversation) -> list[dict[str, Any]]:
    """What would be sent now."""
    found = []
    while (request := conversation.next_request()) is not None:
        found.append(request)
    return found


@pytest.mark.parametrize("known", [True, False])
def test_a_candle_comes_out_as_the_server_had_it(known: bool) -> None:
    """All columns, with what the source does not say."""
    row = evolve(kline(closed=False), trades=0, event_ms=5)
    if known:
        row = evolve(
            row,
            trades=9,
            first_trade_id=2**60,
            last_trade_id=2**60 + 8,
            taker_buy_volume=Decimal("0.70"),
            taker_buy_quote_volume=Decimal("70.3500000000000000001"),
        )
    conversation = talking(CANDLES)
    requests(conversation)
    conversation.take(HISTORY)
    conversation.take(confirmed(epoch=1, offset=3))
    body = messages.candle(row, 2, provisional=known)
    (update,) = conversation.take(data("kline_data", CANDLES, 3, body))
    assert isinstance(update, CandleUpdate)
    assert (update.kline, update.provisional) == (row, known)


def test_one_request_at_a_time() -> None:
    conversation = talking(CANDLES, TRADES)
    conversation.ask(CANDLES, {"limit": 3})
    (first,) = requests(conversation)
    assert first == {
        "type": "subscribe", "symbol": "BTCUSDT", "interval": "1m",
        "subscription_id": "BTCUSDT:1m", "limit": 5,
    }  # fmt: skip
    assert conversation.take('{"type":"connection_success","client_id":"x"}') == []
    assert conversation.take(confirmed()) == []
    assert requests(conversation) == []
    (history,) = conversation.take(HISTORY)
    assert isinstance(history, History)
    (kline,) = history.candles
    assert (str(kline.open), str(kline.close), kline.volume) == ("1.10", "1.15", Decimal("1e-8"))
    (second,) = requests(conversation)
    assert second == {
        "type": "subscribe", "symbol": "BTCUSDT", "channel": "trade", "exchange": "okx",
        "subscription_id": "okx:BTCUSDT:trade",
    }  # fmt: skip
    assert conversation.take(confirmed(epoch=1, offset=4)) == []
    assert requests(conversation) == [
        {"type": "history", "symbol": "BTCUSDT", "interval": "1m", "limit": 3}
    ]
    (answer,) = conversation.take(HISTORY)
    assert isinstance(answer, History)
    assert answer.requested


@pytest.mark.parametrize(
    ("channel", "body", "kind", "content"),
    [
        (
            Channel.TRADE, TRADE, TradeUpdate,
            Trade("BTCUSDT", 9, 8, 9, Decimal("1.10"), Decimal(2), 4, True, 5),
        ),
        (Channel.TRADE, PRICE, TradeUpdate, Price("BTCUSDT", Decimal("1.10"), "k", 4)),
        (
            Channel.TICKER, TICKER, TickerUpdate,
            Ticker("BTCUSDT", Decimal("1.10"), None, Decimal(2), Decimal(1), Decimal(3),
                   Decimal(4), Decimal("1.0"), None, Decimal("1.2"), Decimal(5), 5),
        ),
        (Channel.BOOK, BOOK, BookUpdate, None),
    ],
)  # fmt: skip
def test_lines(channel: Channel, body: str, kind: type, content: Any) -> None:
    stream = Stream("BTCUSDT", channel)
    conversation = talking(stream)
    requests(conversation)
    conversation.take(confirmed(epoch=1, offset=4))
    (event,) = conversation.take(data(f"{channel}_data", stream, 5, body))
    assert type(event) is kind
    if isinstance(event, BookUpdate):
        assert event.book.bids == ((Decimal("1.10"), Decimal(2)),)
        assert event.book.stale
    else:
        assert content in (getattr(event, "trade", None), getattr(event, "ticker", None))
    assert event.origin.sent_ms == 7.5
    with pytest.raises(OutOfStep):
        conversation.take(data(f"{channel}_data", stream, 7, body))


@pytest.mark.parametrize("recovered", [True, False])
def test_a_line_says_whether_it_missed_something(recovered: bool) -> None:
    conversation = talking(TRADES)
    requests(conversation)
    conversation.take(confirmed(epoch=1, offset=4))
    conversation.take(data("trade_data", TRADES, 5, TRADE))
    conversation.lost()
    conversation.connected()
    (again,) = requests(conversation)
    assert again["since"] == {"epoch": 1, "offset": 5}
    (change,) = conversation.take(confirmed(recovered=recovered, epoch=1, offset=9))
    assert isinstance(change, ConnectionChange)
    assert (change.stream, change.recovered) == (TRADES, recovered)
    assert len(conversation.take(data("trade_data", TRADES, 6 if recovered else 10, TRADE))) == 1


def test_a_refused_subscription_is_over() -> None:
    conversation = talking(CANDLES, TRADES)
    requests(conversation)
    assert conversation.take(error(1002)) == [ServerError(1002, "no", CANDLES)]
    assert conversation.streams == [TRADES]
    (request,) = requests(conversation)
    assert request["channel"] == "trade"


def test_a_refusal_of_what_was_served_before_is_asked_again() -> None:
    """A server that has just started does not know its symbols yet."""
    conversation = talking(TRADES)
    requests(conversation)
    conversation.take(confirmed(epoch=1, offset=4))
    conversation.lost()
    conversation.connected()
    requests(conversation)
    assert conversation.take(error(1002)) == []
    assert requests(conversation) == []
    conversation.retry()
    assert requests(conversation)[0]["since"] == {"epoch": 1, "offset": 4}


def test_an_error_of_the_store_is_asked_again_but_a_question_is_answered() -> None:
    conversation = talking(CANDLES)
    requests(conversation)
    assert conversation.take(error(1003)) == []
    conversation.ask(CANDLES, {})
    assert requests(conversation)[0]["type"] == "history"
    assert conversation.take(error(1003)) == [ServerError(1003, "no", CANDLES)]
    conversation.retry()
    assert requests(conversation)[0]["type"] == "subscribe"


def test_a_question_outlives_the_connection() -> None:
    conversation = talking()
    conversation.ask(CANDLES, {"limit": 2})
    assert len(requests(conversation)) == 1
    conversation.lost()
    assert requests(conversation) == []
    conversation.connected()
    assert requests(conversation)[0]["limit"] == 2


def test_unsubscribe_then_subscribe_anew() -> None:
    conversation = talking(TRADES)
    requests(conversation)
    conversation.unsubscribe(TRADES)
    conversation.subscribe(ChannelSubscription(TRADES))
    assert conversation.take(confirmed(epoch=1, offset=4)) == []
    assert conversation.take(data("trade_data", TRADES, 5, TRADE)) == []
    (ending,) = requests(conversation)
    assert ending["type"] == "unsubscribe"
    assert conversation.take(data("trade_data", TRADES, 6, TRADE)) == []
    conversation.take('{"type":"unsubscribe_confirmed","data":{"success":true}}')
    (anew,) = requests(conversation)
    assert "since" not in anew
    conversation.take(confirmed(epoch=1, offset=8))
    assert len(conversation.take(data("trade_data", TRADES, 9, TRADE))) == 1
    with pytest.raises(ValueError, match="there is a subscription"):
        conversation.subscribe(ChannelSubscription(TRADES))
    conversation.unsubscribe(TRADES)
    with pytest.raises(KeyError):
        conversation.unsubscribe(TRADES)


def test_ending_a_subscription_while_it_is_filled() -> None:
    conversation = talking(CANDLES)
    requests(conversation)
    conversation.take(confirmed())
    conversation.take(HISTORY)
    row = data("kline_data", CANDLES, 4, ROW % 300)
    assert conversation.take(row) == []
    (fetch,) = requests(conversation)
    assert (fetch["type"], fetch["from"]) == ("history", 61)
    conversation.unsubscribe(CANDLES)
    conversation.subscribe(Candles(CANDLES, 5))
    assert conversation.take(HISTORY) == []
    assert [r["type"] for r in requests(conversation)] == ["unsubscribe"]


def test_private_events() -> None:
    conversation = talking(TRADES)
    conversation.lost()
    conversation.authenticate(Secret("key"))
    conversation.connected()
    (auth,) = requests(conversation)
    assert auth == {"type": "auth", "token": "key"}
    assert conversation.take('{"type":"auth.success","user_id":1001}') == [Authenticated(1001)]
    order = {"order_id": 1, "status": "FILLED", "filled_qty": "0.001", "avg_price": "85000.00"}
    frame = json.dumps({"type": "order.update", "data": order, "epoch": 1, "offset": 7})
    (event,) = conversation.take(frame)
    assert isinstance(event, PrivateEvent)
    assert event.kind == "order.update"
    assert event.data["order_id"] == 1
    assert str(event.data["avg_price"]) == "85000.00"
    assert event.data["filled_qty"] == Decimal("0.001")
    assert conversation.take(frame) == []
    conversation.lost()
    conversation.connected()
    (auth,) = requests(conversation)
    assert auth["since"] == {"epoch": 1, "offset": 7}
    accepted, resumed = conversation.take('{"type":"auth.success","user_id":1,"recovered":true}')
    assert accepted == Authenticated(1)
    assert isinstance(resumed, ConnectionChange)
    assert (resumed.stream, resumed.recovered) == (None, True)
    with pytest.raises(OutOfStep, match="private events"):
        conversation.take(frame.replace('"offset": 7', '"offset": 9'))


def test_a_broadcast_is_an_event_of_the_user_in_the_senders_own_words() -> None:
    conversation = Conversation()
    conversation.authenticate(Secret("tfk_x"))
    conversation.connected()
    conversation.take(json.dumps({"type": "auth.success", "user_id": 1, "epoch": 1, "offset": 6}))
    words = {"text": "halt", "price": "85000.10"}
    frame = json.dumps({"type": "broadcast", "data": words, "epoch": 1, "offset": 7})
    (event,) = conversation.take(frame)
    assert event == PrivateEvent("broadcast", words, 1, 7)


def test_a_fresh_token_is_shown_at_once_and_from_then_on() -> None:
    conversation = talking()
    conversation.authenticate(Secret("old"))
    conversation.authenticate(Secret("fresh"))
    assert requests(conversation) == [{"type": "auth", "token": "old"}]
    conversation.take('{"type":"auth.success","user_id":1001}')
    assert requests(conversation) == [{"type": "auth", "token": "fresh"}]
    conversation.lost()
    conversation.connected()
    assert requests(conversation) == [{"type": "auth", "token": "fresh"}]
    assert conversation.take(error(1001)) == [ServerError(1001, "no")]


def test_a_refused_token_is_the_end() -> None:
    conversation = Conversation()
    conversation.authenticate(Secret("wrong"))
    conversation.connected()
    requests(conversation)
    with pytest.raises(AuthRefused, match="not known"):
        conversation.take(error(1004, "token: not known"))
    assert "wrong" not in repr(conversation)


def test_what_else_a_server_says() -> None:
    conversation = talking(TRADES)
    requests(conversation)
    conversation.take(confirmed(epoch=1, offset=4))
    status = {"subscription_id": str(TRADES), "status": "stale", "reason": "quiet", "from": 1}
    assert conversation.take(json.dumps({"type": "stream_status", "data": status})) == [
        StreamStatus(TRADES, StreamState.STALE, "quiet", 1)
    ]
    expiring = '{"type":"auth.expiring","user_id":1001,"expires_at":1734533790000}'
    assert conversation.take(expiring) == [TokenExpires(1001, 1734533790000)]
    assert conversation.take('{"type":"of the future"}') == []
    assert conversation.take(error(1005)) == [ServerError(1005, "no")]
    with pytest.raises(SentAway) as caught:
        conversation.take('{"type":"reconnect","after_ms":1500,"since":[]}')
    assert caught.value.after_s == 1.5
    for bad in ("nonsense", "[]", '{"type":"reconnect"}', '{"type":5}', b"\xff"):
        with pytest.raises(BadMessage):
            conversation.take(bad)
