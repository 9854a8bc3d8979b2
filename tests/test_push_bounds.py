"""Bounds of what clients and publishers may say: the last that is taken, the first that is not."""

import json
from typing import Any

import pytest
from support.private import T_MS, balance, event, order, trade

from trio_feed.model import Channel
from trio_feed.push import messages, parsing, protocol
from trio_feed.push.edge.throttle import TokenBucket, Verdict
from trio_feed.push.fanout.send_queue import QueuedFrame, SendQueue
from trio_feed.push.fanout.sender import ClientTimeouts
from trio_feed.push.private.settlement import BadBody, BadEvent, expand, parse_body
from trio_feed.push.protocol import History, Ping, RequestError, Since, Target
from trio_feed.push.sampling import Sampler

SUB = {"type": "subscribe", "symbol": "X", "interval": "1m"}


def parse(text: str) -> Any:
    return parsing.parse_request(text)


def refused(text: str) -> str:
    with pytest.raises(RequestError) as caught:
        parse(text)
    assert caught.value.code == 1001
    return str(caught.value)


def test_codes_are_the_pages() -> None:
    """``push-protocol.md`` names these; clients compare them."""
    assert (protocol.MALFORMED, protocol.REFUSED, protocol.HISTORY_FAILED) == (1001, 1002, 1003)
    assert (protocol.AUTH_FAILED, protocol.TOO_MANY) == (1004, 1005)
    assert (protocol.POLICY, protocol.RESTARTING) == (1008, 1012)
    assert (protocol.AUTH_FAILURES, protocol.SLOW_CLIENT) == (4401, 4408)


# ---------------------------------------------------------------- requests

FIELDS = {"type": "ping", **{f"x{n}": n for n in range(63)}}


@pytest.mark.parametrize(
    ("fits", "too_much", "problem"),
    [
        (json.dumps(FIELDS), json.dumps({**FIELDS, "y": 1}), "more than 64 fields"),
        (
            '{"type":"ping","x":' + "[" * 15 + "]" * 15 + ',"y":[]}',
            '{"type":"ping","x":' + "[" * 16 + "]" * 16 + ',"y":[]}',
            "nested deeper than 16",
        ),
        (
            '{"type":"ping","x":[' + ",".join(["[]"] * 254) + "]}",
            '{"type":"ping","x":[' + ",".join(["[]"] * 255) + "]}",
            "more than 256 brackets",
        ),
        (
            '{"type":"ping","x":[' + ",".join(["{}"] * 254) + "]}",
            '{"type":"ping","x":[' + ",".join(["{}"] * 255) + "]}",
            "more than 256 brackets",
        ),
        *(
            (json.dumps({**SUB, name: "x" * 128}), json.dumps({**SUB, name: "x" * 129}), name)
            for name in ("symbol", "exchange", "subscription_id")
        ),
        (
            json.dumps({"type": "ping", "id": "x" * 64}),
            json.dumps({"type": "ping", "id": "x" * 65}),
            "id: not a string or number of 1 to 64 characters",
        ),
        (json.dumps({**SUB, "symbol": "x"}), json.dumps({**SUB, "symbol": ""}), "symbol"),
        (json.dumps({**SUB, "limit": 1}), json.dumps({**SUB, "limit": 0}), "limit"),
        (json.dumps({**SUB, "limit": 5000}), json.dumps({**SUB, "limit": 5001}), "from 1 to 5000"),
        *(
            (
                json.dumps({**SUB, "since": {"epoch": 0, "offset": 0, name: 2**53 - 1}}),
                json.dumps({**SUB, "since": {"epoch": 0, "offset": 0, name: 2**53}}),
                f"since.{name}: not a whole number from 0 to 2^53",
            )
            for name in ("epoch", "offset")
        ),
        *(
            (
                json.dumps({**SUB, "since": {"epoch": 0, "offset": 0, name: 0}}),
                json.dumps({**SUB, "since": {"epoch": 0, "offset": 0, name: -1}}),
                f"since.{name}",
            )
            for name in ("epoch", "offset", "time")
        ),
        (
            json.dumps({**SUB, "since": {"epoch": 0, "offset": 0, "time": 4 * 10**9}}),
            json.dumps({**SUB, "since": {"epoch": 0, "offset": 0, "time": 4 * 10**9 + 1}}),
            "since.time: not a time in unix seconds",
        ),
        (
            json.dumps({**SUB, "type": "history", "from": 0, "to": 1}),
            json.dumps({**SUB, "type": "history", "from": 0, "to": 0}),
            "to: not after from",
        ),
        (
            json.dumps({**SUB, "type": "history", "to": 4 * 10**9}),
            json.dumps({**SUB, "type": "history", "to": 4 * 10**9 + 1}),
            "to: not a time",
        ),
        (
            json.dumps({"type": "auth", "token": "x"}),
            json.dumps({"type": "auth", "token": ""}),
            "token: missing, or not a string",
        ),
    ],
)
def test_the_last_that_fits_and_the_first_that_does_not(
    fits: str, too_much: str, problem: str
) -> None:
    parse(fits)
    assert problem in refused(too_much)


@pytest.mark.parametrize("opened", ["[", "{"])
def test_brackets_that_close_make_room_again(opened: str) -> None:
    """Sixteen levels at a time, not sixteen brackets: each closing one counts back."""
    inner = "[[[[]]]]" if opened == "[" else '{"a":{"a":{"a":{}}}}'
    parse('{"type":"ping","x":[' + ",".join([inner] * 40) + "]}")


def test_a_word_is_shown_up_to_sixty_characters() -> None:
    assert "type: " + repr("x" * 58) + " is not" in refused(json.dumps({"type": "x" * 58}))
    assert "'" + "x" * 59 + "... is not" in refused(json.dumps({"type": "x" * 59}))


def test_a_ping_has_any_number_and_no_truth() -> None:
    assert parse('{"type":"ping","id":-5}') == Ping(-5)
    assert "id" in refused('{"type":"ping","id":true}')
    assert parse('{"type":"ping","id":1.5}') == Ping(1.5)
    assert "id" in refused('{"type":"ping","id":""}')


def test_times_become_milliseconds() -> None:
    since = {"epoch": 3, "offset": 4, "time": 5}
    assert parse(json.dumps({**SUB, "since": since})).since == Since(3, 4, 5000)
    assert parse(json.dumps({**SUB, "since": {"epoch": 3, "offset": 4}})).since == Since(3, 4)


@pytest.mark.parametrize(
    "channel", [channel for channel in Channel if channel is not Channel.KLINE]
)
def test_lines_have_no_interval_and_no_history(channel: Channel) -> None:
    parsed = parse(json.dumps({"type": "subscribe", "symbol": "X", "channel": channel}))
    assert parsed.target == Target("X", channel, None, "", None)
    assert parsed.target.about == {"symbol": "X", "channel": channel.value}
    asked = json.dumps({"type": "history", "symbol": "X", "channel": channel})
    assert "has no history" in refused(asked)
    # False is what everybody has; true would be refused.
    assert not parse(json.dumps({**SUB, "channel": channel, "provisional": False})).provisional


def test_a_candle_without_interval_is_refused() -> None:
    assert "interval: missing" in refused('{"type":"subscribe","symbol":"X"}')


@pytest.mark.parametrize(
    ("value", "ok"),
    [("1", True), ("5000", True), ("-1", False), ("1.0", False), ("\u0661", False), ("", False)],
)
def test_numbers_of_a_query_string(value: str, ok: bool) -> None:
    query = {"symbol": "X", "interval": "1m", "limit": value}
    if ok:
        assert parsing.parse_query(query).limit == int(value)
    else:
        with pytest.raises(RequestError, match="limit"):
            parsing.parse_query(query)


def test_names_of_a_query_string() -> None:
    query = {"symbol": "7", "interval": "1m", "exchange": "9", "from": "60", "to": "0120"}
    parsed = parsing.parse_query(query)
    target = Target("7", Channel.KLINE, parsed.target.interval, "1m", "9")
    assert parsed == History(target, None, 60_000, 120_000)
    for digits, ok in (("0" * 14 + "9", True), ("0" * 15 + "9", False)):
        query = {"symbol": "X", "interval": "1m", "from": digits}
        if ok:
            assert parsing.parse_query(query).start_ms == 9_000
        else:
            with pytest.raises(RequestError, match="from"):
                parsing.parse_query(query)


# ---------------------------------------------------------------- settlement


def taken(entry: Any) -> bool:
    try:
        expand(entry, 1.0, "engine")
    except BadEvent:
        return False
    return True


def of_order(**more: Any) -> dict[str, Any]:
    return event("e", "order.update", order(**more), 1)


def of_balance(**more: Any) -> dict[str, Any]:
    return event("e", "balance.update", balance(**more), 1)


@pytest.mark.parametrize(
    ("fits", "does_not"),
    [
        (event("x" * 128, "trade", trade()), event("x" * 129, "trade", trade())),
        (of_order(order_id=1), of_order(order_id=0)),
        (of_order(order_id=2**63 - 1), of_order(order_id=2**63)),
        (of_order(updated_at=10**12), of_order(updated_at=10**12 - 1)),
        (of_order(updated_at=4 * 10**12), of_order(updated_at=4 * 10**12 + 1)),
        (of_order(updated_at=T_MS), of_order(updated_at=float(T_MS))),
        (of_order(symbol="x" * 128), of_order(symbol="x" * 129)),
        (of_order(symbol="x"), of_order(symbol="")),
        (of_order(filled_qty="1" * 30), of_order(filled_qty="1" * 31)),
        (of_order(filled_qty="1." + "1" * 30), of_order(filled_qty="1." + "1" * 31)),
        (of_order(filled_qty="-1.5"), of_order(filled_qty="+1.5")),
        (of_order(filled_qty="0.5"), of_order(filled_qty=".5")),
        (of_order(avg_price=None), of_order(avg_price="")),
        (of_balance(change="+1.5"), of_balance(change="+-1.5")),
        (of_balance(change="-1.5"), of_balance(change=None)),
        (of_balance(extra=None), of_balance(extra=[])),
        (of_balance(extra=True), of_balance(extra={})),
        (of_balance(**{"x" * 128: 1}), of_balance(**{"x" * 129: 1})),
        (of_balance(extra=1), of_balance(**{"": 1})),
        (event("e", "balance.update", balance(), 1), event("e", "balance.update", balance(), 0)),
    ],
)
def test_the_edges_of_an_event(fits: Any, does_not: Any) -> None:
    assert (taken(fits), taken(does_not)) == (True, False)


@pytest.mark.parametrize("status", ["NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED"])
def test_every_status_of_an_order(status: str) -> None:
    assert taken(of_order(status=status))


def test_the_length_of_what_is_told() -> None:
    (delivery,) = expand(of_balance(extra=""), 1.0, "engine").deliveries
    (_, _, rest) = delivery.body.partition('"data":')
    used = len(rest.removesuffix(',"event_id":"e"'))
    assert taken(of_balance(extra="x" * (4096 - used)))
    assert not taken(of_balance(extra="x" * (4097 - used)))


@pytest.mark.parametrize(("role", "other"), [("taker", "maker"), ("maker", "taker")])
def test_of_each_side_every_field_is_checked(role: str, other: str) -> None:
    base = trade()
    for name in ("user_id", "order_id", "side", "fee"):
        less = {key: value for key, value in base[role].items() if key != name}
        with pytest.raises(BadEvent, match=f"data.{role}.{name}: missing"):
            expand(event("e", "trade", {**base, role: less}), 1.0, "engine")
    with pytest.raises(BadEvent, match=f"data.{role}.role: belongs into data"):
        expand(event("e", "trade", {**base, role: {**base[role], "role": "TAKER"}}), 1.0, "engine")
    with pytest.raises(BadEvent, match=r"data\.role: belongs into"):
        expand(event("e", "trade", {**base, "role": "x"}), 1.0, "engine")
    with pytest.raises(BadEvent, match=f"data.{other}: not a JSON object"):
        expand(event("e", "trade", {**base, other: "x"}), 1.0, "engine")


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        (of_order, ("order_id", "symbol", "status", "filled_qty", "avg_price", "updated_at")),
        (of_balance, ("asset", "avail", "frozen", "change", "reason")),
    ],
)
def test_every_field_is_needed_and_told_in_order(entry: Any, names: tuple[str, ...]) -> None:
    whole = entry()
    (delivery,) = expand(whole, 1.0, "engine").deliveries
    assert list(json.loads("{" + delivery.body + "}")["data"])[: len(names)] == list(names)
    for name in names:
        less = {key: value for key, value in whole["data"].items() if key != name}
        with pytest.raises(BadEvent, match=f"data.{name}: missing"):
            expand({**whole, "data": less}, 1.0, "engine")


def test_the_edges_of_a_body() -> None:
    assert list(parse_body(b"[1,2,3]", 3)) == [1, 2, 3]
    assert list(parse_body(b"1\n2\n3", 3)) == [1, 2, 3]
    for body in (b"[1,2,3,4]", b"1\n2\n3\n4", b"1\n2\n3\n4\nnot json"):
        with pytest.raises(BadBody) as caught:
            list(parse_body(body, 3))
        assert caught.value.status == 413
    with pytest.raises(BadBody, match="line 4 of the body"):
        list(parse_body(b"1\n\n3\nnot json", 9))


def test_a_long_unknown_name_is_cut() -> None:
    with pytest.raises(BadEvent) as caught:
        expand({**of_balance(), "x" * 41: 1}, 1.0, "engine")
    assert str(caught.value).startswith(repr("x" * 40) + ":")


# ---------------------------------------------------------------- queues, buckets, lines


def test_a_queue_is_full_at_its_number_and_at_its_bytes() -> None:
    send_queue = SendQueue(2, 10)
    send_queue.put(QueuedFrame(b"x", 0))
    assert not send_queue.full
    send_queue.put(QueuedFrame(b"x", 0))
    assert send_queue.full
    send_queue = SendQueue(9, 10)
    send_queue.put(QueuedFrame(b"x" * 9, 0))
    assert not send_queue.full
    send_queue.put(QueuedFrame(b"x", 0))
    assert send_queue.full


def test_a_pushes_edges_in_bytes() -> None:
    send_queue = SendQueue(9, 10)
    assert send_queue.put(QueuedFrame(b"x" * 4, 0, True))
    assert not send_queue.put(QueuedFrame(b"x" * 7, 0, True))
    assert send_queue.put(QueuedFrame(b"x" * 6, 0, True))
    assert send_queue.statistics().bytes == 10


def test_a_burst_is_fresh_for_as_long_as_a_client_may_be_behind() -> None:
    send_queue = SendQueue(1, 10, burst=3, behind_ms=2_000)
    assert send_queue.put(QueuedFrame(b"x", 100.0, True))
    assert send_queue.put(QueuedFrame(b"x", 2_099.9, True))
    assert not send_queue.put(QueuedFrame(b"x", 2_100.0, True))
    assert send_queue.put(QueuedFrame(b"x", 2_099.9, True))
    assert not send_queue.put(QueuedFrame(b"x", 2_099.9, True))  # three times as many, and no more
    send_queue = SendQueue(9, 10, burst=2, behind_ms=2_000)
    assert send_queue.put(QueuedFrame(b"x" * 10, 0, True))
    assert send_queue.put(QueuedFrame(b"x" * 10, 0, True))
    assert not send_queue.put(QueuedFrame(b"x", 0, True))


def test_bytes_of_a_batch() -> None:
    send_queue = SendQueue(9, 100)
    for frame in (b"aaaa", b"bbb", b"cc"):
        send_queue.put(QueuedFrame(frame, 0))
    assert send_queue.first(9, 7) == [b"aaaa", b"bbb"]
    assert send_queue.first(9, 6) == [b"aaaa"]
    assert send_queue.first(9, 9) == [b"aaaa", b"bbb", b"cc"]


def test_a_bucket_floods_at_its_debt_and_not_before() -> None:
    bucket = TokenBucket(per_s=1, burst=1, debt=2)
    verdicts = [bucket.take(0) for _ in range(4)]
    assert verdicts == [Verdict.SERVE, Verdict.REFUSE, Verdict.FLOOD, Verdict.FLOOD]
    bucket = TokenBucket(per_s=0.5, burst=1)
    assert [bucket.take(at) for at in (0, 2, 4)] == [Verdict.SERVE] * 3
    assert bucket.take(4) is Verdict.FLOOD  # a debt of one is the default
    bucket = TokenBucket(per_s=1, burst=2)
    assert [bucket.take(at) for at in (0, 0, 0.9, 2.1)][:2] == [Verdict.SERVE] * 2


def test_a_window_of_lines_begins_with_its_first_line() -> None:
    sampler = Sampler(most=1, window_s=10)
    assert [sampler.admit(at) for at in (0, 9.9, 10, 19.9, 20)] == [0, None, 1, None, 1]
    later = Sampler(most=2, window_s=10)
    assert [later.admit(at) for at in (5, 14, 14.9, 15)] == [0, 0, None, 1]


@pytest.mark.parametrize(
    ("timeouts", "sweep_s"),
    [
        (ClientTimeouts(8, 80, 80), 2),
        (ClientTimeouts(80, 8, 80), 2),
        (ClientTimeouts(80, 80, 10), 1),
    ],
)
def test_how_often_clients_are_looked_at(timeouts: ClientTimeouts, sweep_s: float) -> None:
    assert timeouts.sweep_s == sweep_s


def test_what_a_private_event_says() -> None:
    assert json.loads(messages.auth_success(7, 1, 2, 3, None)) == {
        "type": "auth.success", "user_id": 7, "epoch": 1, "offset": 2, "expires_at": 3,
    }  # fmt: skip
    assert json.loads(messages.auth_success(7, 1, 2, None, False)) == {
        "type": "auth.success", "user_id": 7, "epoch": 1, "offset": 2, "expires_at": None,
        "recovered": False,
    }  # fmt: skip
    assert json.loads(messages.auth_expiring(7, 3)) == {
        "type": "auth.expiring", "user_id": 7, "expires_at": 3,
    }  # fmt: skip
    assert json.loads(messages.reconnect(5)) == {"type": "reconnect", "after_ms": 5}
    assert json.loads(messages.reconnect(5, [])) == {
        "type": "reconnect",
        "after_ms": 5,
        "since": [],
    }
