import json
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from support.make import T0, kline, message

from trio_feed.bus.base import Upstream
from trio_feed.model import Channel, Interval
from trio_feed.push import messages, parsing, protocol
from trio_feed.push.protocol import (
    History,
    ListSubscriptions,
    Ping,
    RequestError,
    Since,
    Subscribe,
    Target,
)

TARGET = Target("BTCUSDT", Channel.KLINE, Interval.M1, "m1", None)


def request(**fields: Any) -> Any:
    return parsing.parse_request(json.dumps(fields))


@pytest.mark.parametrize("key", ["type", "msg_type"])
def test_both_dialects(key: str) -> None:
    parsed = request(**{key: "subscribe"}, symbol="BTCUSDT", interval="m5", subscription_id="s")
    assert isinstance(parsed, Subscribe)
    assert parsed.target.interval is Interval.M5
    assert (parsed.target.notation, parsed.subscription_id) == ("m5", "s")
    assert parsed.since is None


@pytest.mark.parametrize("interval", list(Interval))
def test_every_interval_in_both_notations(interval: Interval) -> None:
    for notation in (interval.value, interval.alias):
        parsed = request(type="history", symbol="BTCUSDT", interval=notation)
        assert parsed.target.interval is interval


def test_history_takes_seconds() -> None:
    parsed = request(type="history", symbol="X", interval="1m", limit=7, **{"from": 10, "to": 20})
    assert parsed == History(parsed.target, 7, 10_000, 20_000)


def test_ping_and_list() -> None:
    assert request(type="ping") == Ping(None)
    assert request(type="ping", id=5) == Ping(5)
    assert request(type="ping", id="a") == Ping("a")
    assert request(type="ping", timestamp=1_760_000_000_000, pad="x") == Ping(None)
    assert request(type="list") == ListSubscriptions()


SUB = {"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m"}


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ("", "JSON"),
        ("nonsense", "JSON"),
        ("[1]", "object"),
        ("[" * 10_000, "more than 256 brackets"),
        ("[" * 200, "nested deeper than 16"),
        ('["]]]]]]]]]]]]",' * 17, "nested deeper than 16"),
        ('{"a":' * 17 + "1" + "}" * 17, "nested deeper than 16"),
        ("[]" * 200, "JSON"),
        ('"]]' + "[" * 17, "JSON"),  # inside a string that has no end
        (json.dumps({str(n): n for n in range(65)}), "more than 64 fields"),
        (json.dumps({"type": "x" * 1000}), "'" + "x" * 59 + "... is not one of"),
        (json.dumps({**SUB, "channel": [["x"] * 1000]}), "channel: list is not one of"),
        (b"\xff\xfe", "JSON"),
        (json.dumps({**SUB, "subscription_id": "\ud800"}), "JSON"),
        (json.dumps({**SUB, "id": "\udc00", "symbol": "\ud800"}), "JSON"),
        (json.dumps({"type": "\ud800"}), "JSON"),
        ("{}", "type"),
        ('{"type":5}', "type"),
        ('{"type":"dance"}', "'dance' is not one of subscribe unsubscribe history auth ping list"),
        ('{"type":"ping","msg_type":"list"}', "do not agree"),
        (json.dumps({**SUB, "symbol": None}), "symbol: missing"),
        (json.dumps({**SUB, "symbol": 5}), "symbol"),
        (json.dumps({**SUB, "symbol": "x" * 500}), "symbol"),
        (json.dumps({**SUB, "interval": "7m"}), "interval: '7m' is not one of 1s 30s 1m"),
        (json.dumps({**SUB, "limit": 0}), "limit"),
        (json.dumps({**SUB, "since": 5}), "since: not an object"),
        (json.dumps({**SUB, "since": {}}), "since.epoch: not a whole number"),
        (json.dumps({**SUB, "since": {"epoch": 1, "offset": -1}}), "since.offset"),
        (json.dumps({**SUB, "since": {"epoch": True, "offset": 1}}), "since.epoch"),
        (json.dumps({**SUB, "since": {"epoch": 1, "offset": 1, "time": 1.5}}), "since.time"),
        (json.dumps({**SUB, "limit": True}), "limit"),
        (json.dumps({**SUB, "limit": 1e3}), "limit"),
        (json.dumps({**SUB, "subscription_id": ["a"]}), "subscription_id"),
        (json.dumps({**SUB, "channel": "gossip"}), "channel: 'gossip'"),
        (json.dumps({**SUB, "type": "history", "from": -5}), "from"),
        (json.dumps({**SUB, "type": "history", "from": 9, "to": 9}), "to: not after from"),
        (json.dumps({**SUB, "provisional": 1}), "provisional: not true or false"),
        (
            json.dumps(
                {"type": "subscribe", "symbol": "X", "channel": "trade", "provisional": True}
            ),
            "provisional: trade has no such updates",
        ),
        (json.dumps({"type": "ping", "id": {}}), "id"),
        (json.dumps({**SUB, "limt": 5}), "'limt': no field of subscribe; one of type, msg_type,"),
        (json.dumps({**SUB, "limt": 5}), "; did you mean limit?"),
        (json.dumps({**SUB, "SYMBOL": "x"}), "'SYMBOL': no field of subscribe"),
        (json.dumps({**SUB, "SYMBOL": "x"}), "; did you mean symbol?"),
        (json.dumps({**SUB, "from": 5}), "'from': no field of subscribe"),
        (json.dumps({**SUB, "type": "history", "since": {}}), "'since': no field of history"),
        (json.dumps({"type": "list", "x" * 1000: 1}), "'" + "x" * 59 + "...: no field of list"),
        (json.dumps({"type": "list", "exchnge": "okx"}), "'exchnge': no field of list; one of"),
        (json.dumps({"type": "auth", "tokn": "hunter2"}), "did you mean token?"),
        (
            json.dumps({**SUB, "since": {"epoch": 1, "offset": 1, "tim": 5}}),
            "'tim': no field of since; one of epoch, offset, time; did you mean time?",
        ),
        (json.dumps({"type": "auth"}), "token: missing"),
        (json.dumps({"type": "auth", "token": {"hunter2": 1}}), "token: missing, or not a string"),
        (json.dumps({"type": "auth", "token": "x", "since": 5}), "since: not an object"),
        (json.dumps({"type": "auth", "token": "x", "since": {"epoch": 1}}), "since.offset"),
    ],
)
def test_an_error_names_the_field(raw: str | bytes, names: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsing.parse_request(raw)
    assert caught.value.code == 1001
    assert names in str(caught.value)


def test_what_was_subscribed_to_and_a_resume_point_may_be_sent_back() -> None:
    asked = {**SUB, "limit": 5, "provisional": True, "since": {"epoch": 1, "offset": 2}}
    assert request(**{**asked, "type": "unsubscribe"}).target == request(**asked).target
    point = {"symbol": "BTCUSDT", "interval": "1m", "exchange": "okx", "epoch": 1, "offset": 2}
    assert request(**{**SUB, "since": point}).since == Since(1, 2)


def test_query_strings_are_the_same_question() -> None:
    parsed = parsing.parse_query({"symbol": "X", "interval": "1h", "limit": "3", "from": "60"})
    assert (parsed.limit, parsed.start_ms) == (3, 60_000)
    with pytest.raises(RequestError, match="limit"):
        parsing.parse_query({"symbol": "X", "interval": "1h", "limit": "three"})


def test_numbers_keep_the_exchanges_decimals() -> None:
    text = messages.candle(kline(close="85000.10", volume="0.00000001"), 41)
    assert '"close":85000.10,' in text
    assert '"volume":0.00000001,' in text
    assert json.loads(text)["time"] == T0 // 1000


def test_a_candle_says_all_that_its_source_says() -> None:
    row = evolve(
        kline(),
        first_trade_id=2**60,
        last_trade_id=2**60 + 6,
        taker_buy_volume=Decimal("0.70"),
        taker_buy_quote_volume=Decimal("70.3500000000000000001"),
    )
    text = messages.candle(row, 1)
    assert '"quote_volume":150.75,"trades":7,"taker_buy_volume":0.70,' in text
    assert '"taker_buy_quote_volume":70.3500000000000000001,' in text
    assert f'"first_trade_id":{2**60},"last_trade_id":{2**60 + 6},' in text


def test_what_a_source_does_not_say_is_null() -> None:
    row = json.loads(messages.candle(evolve(kline(), trades=0), 1))
    for name in ("trades", "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id",
                 "last_trade_id"):  # fmt: skip
        assert row[name] is None
    assert json.loads(messages.candle(evolve(kline(volume="0.000"), trades=0), 1))["trades"] == 0
    assert "provisional" not in row


def test_kline_message_has_the_fixed_nesting() -> None:
    own = TARGET.splice("sub_1")
    row = message(kline(closed=False), epoch=9, offset=3, count=42)
    text = json.loads(messages.data_head(Channel.KLINE) + own + messages.data_tail(row, T0 + 0.5))
    assert text["type"] == "kline_data"
    data = text["data"]
    assert (data["symbol"], data["interval"], data["subscription_id"]) == ("BTCUSDT", "m1", "sub_1")
    assert (data["exchange"], data["epoch"], data["offset"]) == ("binance_usdm", 9, 3)
    assert data["data"]["is_final"] is False
    assert data["data"]["update_type"] == "realtime"
    assert data["data"]["update_count"] == 42
    assert text["timestamp"] == data["timestamp"] == T0
    for field in ("source", "event_time", "received_at", "sent_at"):
        assert field in data


def test_what_a_client_chose_cannot_break_out_of_its_string() -> None:
    own = TARGET.splice('","evil":"')
    text = json.loads(
        messages.data_head(Channel.KLINE) + own + messages.data_tail(message(kline()), 0)
    )
    assert text["data"]["subscription_id"] == '","evil":"'
    assert "evil" not in text["data"]


def test_history_body_and_messages() -> None:
    own = TARGET.splice()
    rows = [(kline(T0), 3), (kline(T0 + 60_000), 1)]
    texts = [messages.candle(*row) for row in rows]
    body = messages.history_body(own, "binance_usdm", texts, has_more=True, epoch=1, offset=2)
    text = json.loads(messages.history_data(body, 5.0))
    assert [row["time"] for row in text["data"]["data"]] == [T0 // 1000, T0 // 1000 + 60]
    assert (text["data"]["has_more"], text["data"]["total_count"]) == (True, 2)
    welcome = json.loads(messages.connection_success("id", ["BTCUSDT"], [Interval.S1], 1500.0))
    assert welcome["server_time"] == 1
    assert welcome["supported_intervals"] == ["s1", "1s"]
    resuming = request(**SUB, since={"epoch": 1, "offset": 2, "time": 60})
    assert resuming.since == Since(1, 2, 60_000)
    confirmed = json.loads(messages.subscription_confirmed(resuming, 3, 4, Upstream("live"), 1.0))
    assert confirmed["data"]["success"] is True
    assert confirmed["data"]["recovered"] is False
    assert (confirmed["data"]["epoch"], confirmed["data"]["offset"]) == (3, 4)
    assert json.loads(messages.error(1002, "no", 1.0))["code"] == 1002
    assert json.loads(messages.pong(Ping(7))) == {"type": "pong", "id": 7}
    assert json.loads(messages.pong(Ping(None))) == {"type": "pong"}


def test_brackets_in_strings_are_no_nesting() -> None:
    request = parsing.parse_request(json.dumps({"type": "ping", "id": '[[{"\\' * 12}))
    assert request == Ping('[[{"\\' * 12)
    deep: object = 1
    for _ in range(15):
        deep = [deep]
    with pytest.raises(RequestError, match="'x': no field of list"):  # which is looked at behind it
        parsing.parse_request(json.dumps({"type": "list", "x": deep, "y": "]["}))


BASE = {"symbol": "BTCUSDT", "interval": "1m"}
ANY_REQUEST: list[dict[str, Any]] = [
    {"type": "subscribe", **BASE},
    {"type": "unsubscribe", **BASE},
    {"type": "history", **BASE},
    {"type": "auth", "token": "tfk_x"},
    {"type": "ping"},
    {"type": "list"},
]


@pytest.mark.parametrize("fields", ANY_REQUEST)
@pytest.mark.parametrize("number", ["a", "x" * 64, 0, -5, 1.5, 2**70])
def test_any_request_may_carry_an_id(fields: dict[str, Any], number: Any) -> None:
    made = request(**fields, id=number)
    assert (made.id, protocol.echo_of(made).id) == (number, number)
    assert parsing.peek_echo(json.dumps({**fields, "id": number})).id == number


@pytest.mark.parametrize("fields", ANY_REQUEST)
@pytest.mark.parametrize("number", ["", "x" * 65, True, [1], {}, 10**64, -(10**63)])
def test_an_id_that_is_none_is_refused(fields: dict[str, Any], number: Any) -> None:
    with pytest.raises(RequestError, match=r"^id: not a string or number of 1 to 64") as caught:
        request(**fields, id=number)
    assert (caught.value.code, caught.value.echo) == (1001, protocol.Echo())


def test_what_cannot_be_parsed_still_says_whose_answer_it_is() -> None:
    for wrong in ({"type": "nonsense"}, {"type": "subscribe"}, {"no": "type"}):
        with pytest.raises(RequestError) as caught:
            request(**wrong, id=7, subscription_id="s")
        assert caught.value.echo == protocol.Echo(7, "s")
    with pytest.raises(RequestError) as caught:
        request(type="subscribe", id=7, subscription_id=[])
    assert caught.value.echo == protocol.Echo(7)
    assert parsing.peek_echo("no JSON") == parsing.peek_echo("[1]") == protocol.Echo()
