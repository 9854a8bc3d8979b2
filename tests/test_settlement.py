"""Settlement events: what is taken, what becomes of it, and what a request is answered."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.private import T_MS, balance, event, order, trade

from trio_feed.errors import JournalError
from trio_feed.metrics import Metrics
from trio_feed.model import PrivateMessage, Settlement
from trio_feed.push.portions import PORTION
from trio_feed.push.private import settlement_endpoint
from trio_feed.push.private.auth import PUBLISHER_KEY, new_key
from trio_feed.push.private.settlement import BadBody, BadEvent, expand, parse_body
from trio_feed.push.private.settlement_endpoint import Reply, SettlementEndpoint
from trio_feed.settings import PublisherSettings, SettlementSettings
from trio_feed.store import Journal
from trio_feed.store.journal_memory import MemoryJournalBackend

KEY, DIGEST = new_key(PUBLISHER_KEY)
KINDS = "order.update, trade, balance.update, broadcast"


def told(settlement: Settlement) -> list[tuple[int | None, int | None, dict[str, Any]]]:
    return [(d.user_id, d.order_id, json.loads(f"{{{d.body}}}")) for d in settlement.deliveries]


def refused(entry: Any) -> str:
    with pytest.raises(BadEvent) as caught:
        expand(entry, 1.0, "engine")
    return str(caught.value)


def test_an_order_update() -> None:
    settlement = expand(event("e1", "order.update", order(1001), 7), 5.0, "engine")
    assert (settlement.event_id, settlement.received_ms) == ("e1", 5.0)
    assert told(settlement) == [
        (7, 1001, {"type": "order.update", "data": order(1001), "event_id": "e1"})
    ]
    assert (
        told(expand(event("e1", "order.update", order(avg_price=None)), 1.0, "engine"))[0][0]
        is None
    )


def test_a_balance_update() -> None:
    ((user, order_id, message),) = told(
        expand(event("e", "balance.update", balance(), 7), 1.0, "engine")
    )
    assert (user, order_id, message["data"]) == (7, None, balance())


def test_a_trade_reaches_both_sides_with_their_own_words() -> None:
    taker, maker = told(expand(event("t", "trade", trade(7, 8)), 1.0, "engine"))
    assert (taker[0], taker[1], maker[0], maker[1]) == (7, 1001, 8, 1002)
    assert taker[2]["data"] == {
        "trade_id": 5001, "order_id": 1001, "symbol": "BTC_USDT", "side": "BUY",
        "price": "85000.00", "qty": "0.001", "fee": "0.00001", "role": "TAKER", "traded_at": T_MS,
    }  # fmt: skip
    assert maker[2]["data"]["role"] == "MAKER"
    assert maker[2]["data"]["side"] == "SELL"
    assert all("user_id" not in side[2]["data"] for side in (taker, maker))


def test_with_oneself_a_trade_is_two_events() -> None:
    assert [row[0] for row in told(expand(event("t", "trade", trade(7, 7)), 1.0, "engine"))] == [
        7,
        7,
    ]


def test_every_digit_passes() -> None:
    raw = json.dumps([event("e", "balance.update", balance(avail="000.10", frozen="1" * 30), 1)])
    raw = raw.replace('"reason"', '"rate": 1.10, "huge": 123456789012345678901234567890, "reason"')
    (entry,) = list(parse_body(raw.encode(), 9))
    (delivery,) = expand(entry, 1.0, "engine").deliveries
    for text in ('"000.10"', "1" * 30, '"rate":1.10,', ":123456789012345678901234567890"):
        assert text in delivery.body


def test_what_only_one_side_says_stays_there() -> None:
    data = trade()
    data["taker"]["client_order_id"] = "mine"
    data["venue"] = "x"
    taker, maker = told(expand(event("t", "trade", data), 1.0, "engine"))
    assert taker[2]["data"]["client_order_id"] == "mine"
    assert "client_order_id" not in maker[2]["data"]
    assert (taker[2]["data"]["venue"], maker[2]["data"]["venue"]) == ("x", "x")


SIDE = trade()["taker"]


NO_DECIMAL = "not a decimal number in a string"
NO_ID = "not a whole number from 1 to 2^63-1"


def of_order(**more: Any) -> dict[str, Any]:
    return event("e", "order.update", order(**more), 1)


def of_balance(**more: Any) -> dict[str, Any]:
    return event("e", "balance.update", balance(**more), 1)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (5, "the event is not a JSON object"),
        ({}, "event_id: missing"),
        (event("", "trade", trade()), "event_id: not a string of 1 to 128 characters"),
        (
            event("e", "gossip", {}),
            f"type: not one of {KINDS}",
        ),
        (
            {"event_id": "e", "type": ["trade"]},
            f"type: not one of {KINDS}",
        ),
        (event("e", "trade", []), "data: not a JSON object"),
        (event("e", "balance.update", balance()), "user_id: missing"),
        (event("e", "order.update", order(), True), "user_id: " + NO_ID),
        (of_order(order_id=2**63), "data.order_id: " + NO_ID),
        (
            of_order(status="DONE"),
            "data.status: not one of NEW, PARTIALLY_FILLED, FILLED, CANCELED",
        ),
        (of_order(filled_qty=0.1), "data.filled_qty: " + NO_DECIMAL),
        (of_order(filled_qty="1e5"), "data.filled_qty: " + NO_DECIMAL),
        (of_order(filled_qty="\u0661"), "data.filled_qty: " + NO_DECIMAL),
        (of_order(filled_qty="1\n"), "data.filled_qty: " + NO_DECIMAL),
        (of_order(updated_at=5), "data.updated_at: not a time in unix milliseconds"),
        (of_balance(change="++1"), "data.change: " + NO_DECIMAL),
        (of_balance(extra={"a": 1}), "data.'extra': unknown, and not a plain value"),
        (of_balance(extra="x" * 5000), "data: longer than 4096 characters"),
        (
            event("e", "trade", trade(), 1),
            "user_id: a trade names its users in data.taker and data.maker",
        ),
        (event("e", "trade", trade(fee="1")), "data.fee: belongs into data.taker and data.maker"),
        (
            event("e", "trade", trade(user_id=1)),
            "data.user_id: belongs into data.taker and data.maker",
        ),
        (event("e", "trade", trade(maker=None)), "data.maker.user_id: " + NO_ID),
        (event("e", "trade", {**trade(), "maker": None}), "data.maker: not a JSON object"),
        (
            event("e", "trade", {**trade(), "maker": SIDE}),
            "data.maker.side: both sides have the same",
        ),
        (
            event("e", "trade", {**trade(), "taker": {**SIDE, "price": "1"}}),
            "data.taker.price: belongs into data",
        ),
        ({**of_balance(), "x": 1}, "'x': unknown; what is beside data must be known"),
    ],
)
def test_a_reason_names_the_field(entry: Any, reason: str) -> None:
    assert refused(entry) == reason


def test_bodies() -> None:
    assert list(parse_body(b' [{"a":1}, 5]\n', 9)) == [{"a": 1}, 5]
    assert list(parse_body(b'{"a":1}\r\n\n  {"a":2}\n', 9)) == [{"a": 1}, {"a": 2}]
    assert list(parse_body(b"[]", 9)) == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty"),
        (b" \n ", 400, "empty"),
        (b"nonsense", 400, "line 1"),
        (b'{"a":1}\n{"a":', 400, "line 2"),
        (b"[1,", 400, "not JSON"),
        (b'["\xff"]', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"a":' * 100_000, 400, "line 1"),
        (b"[1,2,3,4]", 413, "more than 3 events"),
        (b"1\n2\n3\n4\n", 413, "more than 3 events"),
    ],
)
def test_bodies_that_are_not_taken(body: bytes, status: int, words: str) -> None:
    with pytest.raises(BadBody, match=words) as caught:
        list(parse_body(body, 3))
    assert caught.value.status == status


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
mutated = st.builds(
    lambda base, name, value: {**base, name: value},
    st.sampled_from([order(), balance(), trade(), SIDE]),
    st.sampled_from([*order(), *balance(), *trade(), *SIDE, "role", "x"]),
    anything,
)


@given(
    st.sampled_from(["order.update", "balance.update", "trade"]),
    mutated | anything,
    anything,
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_whatever_comes_is_an_event_or_a_bad_event(
    kind: str, data: Any, user: Any, nested: bool
) -> None:
    entry = {"event_id": "e", "type": kind, "user_id": user, "data": data}
    if nested and kind == "trade":
        entry = {"event_id": "e", "type": kind, "data": {**trade(), "taker": data}}
    (parsed,) = list(parse_body(json.dumps([entry]).encode(), 9))
    try:
        settlement = expand(parsed, 1.0, "engine")
    except BadEvent as bad:
        assert "\n" not in str(bad)  # noqa: PT017
        assert len(str(bad)) < 200  # noqa: PT017
        return
    for delivery in settlement.deliveries:
        assert json.loads(f"{{{delivery.body}}}")["type"] == kind


def test_a_broadcast_is_the_publishers_own_words_digit_by_digit() -> None:
    data = {"text": "halt at 12:00", "fee": 0, "rate": "0.10", "note": None}
    made = expand(event("n", "broadcast", data), 1.0, "engine", may_broadcast=True)
    assert made.deliveries == ()
    assert json.loads(f"{{{made.everybody}}}") == {
        "type": "broadcast", "data": data, "event_id": "n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "may", "reason"),
    [
        (event("n", "broadcast", {"text": "x"}), False, "type: this publisher may not broadcast"),
        (event("n", "broadcast", {"text": "x"}, 7), True, "user_id: a broadcast is for every user"),
        (event("n", "broadcast", {}), True, "data: empty"),
        (event("n", "broadcast", {"text": ["x"]}), True, "data.'text': unknown, and not a plain"),
        (event("n", "broadcast", {"text": "x" * 5000}), True, "data: longer than 4096"),
    ],
)
def test_a_broadcast_that_is_refused(entry: Any, may: bool, reason: str) -> None:
    with pytest.raises(BadEvent, match=reason.replace("'", ".").replace("[", ".")):
        expand(entry, 1.0, "engine", may_broadcast=may)


class Harness:
    """An endpoint over a journal in memory."""

    def __init__(self, backend: Any, **more: Any) -> None:
        self.told: list[PrivateMessage] = []
        self.metrics = Metrics()
        chosen = SettlementSettings(publishers=(PublisherSettings("engine", DIGEST),), **more)
        self.journal = Journal(
            backend, chosen, in_threads=False, now_ms=lambda: 1e12, metrics=self.metrics
        )
        self.endpoint = SettlementEndpoint(chosen, self.journal, lambda: 1e12, self.metrics)

    async def post(
        self, body: Any, *, authorization: str = f"Bearer {KEY}", length: str | None = None
    ) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(raw), 100):
                await trio.lowlevel.checkpoint()
                yield raw[at : at + 100]

        return await self.endpoint.answer(authorization, length, chunks())


@asynccontextmanager
async def running_endpoint(backend: Any = None, **more: Any) -> AsyncIterator[Harness]:
    harness = Harness(backend or MemoryJournalBackend(1), **more)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(harness.journal.run, harness.told.extend)
        yield harness
        nursery.cancel_scope.cancel()


async def test_a_reply_counts_and_names_what_was_rejected(autojump_clock: trio.abc.Clock) -> None:
    async with running_endpoint() as harness:
        reply = await harness.post(
            [
                event("a", "balance.update", balance(), 7),
                event("a", "balance.update", balance(), 7),
                event("b", "order.update", order(55)),
                event("c", "trade", trade(7, 8)),
                {"event_id": "d"},
                event("e", "order.update", order(1002)),
            ]
        )
        assert reply.status == 200
        assert json.loads(reply.text) == {
            "accepted": 3,
            "duplicates": 1,
            "rejected": [
                {"index": 2, "reason": "user_id: missing, and nothing is known of order 55"},
                {
                    "index": 4,
                    "reason": f"type: not one of {KINDS}",
                },
            ],
        }
        assert [(m.user_id, m.offset) for m in harness.told] == [(7, 1), (7, 2), (8, 1), (8, 2)]


@pytest.mark.parametrize(
    "odd",
    [
        "1e99999999999999999999", "-1e-99999999999999999999", "9" * 5_000, r'"\ud800"',
        r'"\uD83D\uDE00\ud800"', r'"\\\udc00\ud800\ud800"',
    ],
    ids=["large", "small", "long", "half a character", "one and a half", "many halves"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["data", "user_id", "the event", "order_id"])
@pytest.mark.parametrize("lines", [True, False])
async def test_a_number_beyond_all_bounds_costs_its_own_event_only(
    odd: str, place: str, lines: bool, autojump_clock: trio.abc.Clock
) -> None:
    rows = [event(name, "balance.update", balance(), 7) for name in "ab\N{GRINNING FACE}"]
    written = [json.dumps(row) for row in rows]
    written[1] = {
        "data": written[1].replace('"asset"', f'"x": {odd}, "asset"'),
        "user_id": written[1].replace('"user_id": 7', f'"user_id": {odd}'),
        "the event": odd,
        "order_id": json.dumps(event("b", "order.update", order(1001), 7)).replace("1001", odd),
    }[place]
    assert odd in written[1]
    body = "\n".join(written) if lines else f"[{','.join(written)}]"
    async with running_endpoint() as harness:
        reply = await harness.post(body.encode())
    assert reply.status == 200
    answer = json.loads(reply.text)
    assert (answer["accepted"], [bad["index"] for bad in answer["rejected"]]) == (2, [1])


async def test_two_concurrent_requests_are_one_event(autojump_clock: trio.abc.Clock) -> None:
    replies: list[Any] = []
    async with running_endpoint() as harness:

        async def post() -> None:
            rows = [event(f"e{n}", "balance.update", balance(), 7) for n in range(20)]
            replies.append(json.loads((await harness.post(rows)).text))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            nursery.start_soon(post)
        assert sorted(r["accepted"] for r in replies) == [0, 20]
        assert [m.offset for m in harness.told] == list(range(1, 21))


async def test_batches_leave_everybody_their_turn(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """16 batches of 1,000 events at once: between two turns of a bystander few are checked, and
    few are handed out."""
    checked: list[float] = []

    def counted(entry: Any, received_ms: float, publisher: str, **more: Any) -> Settlement:
        checked.append(received_ms)
        return expand(entry, received_ms, publisher, **more)

    monkeypatch.setattr(settlement_endpoint, "expand", counted)
    steps: set[tuple[int, int]] = set()
    async with running_endpoint() as harness, trio.open_nursery() as bystanders:

        async def watch() -> None:
            seen = (0, 0)
            while True:
                await trio.lowlevel.checkpoint()
                now = (len(checked), len(harness.told))
                steps.add((now[0] - seen[0], now[1] - seen[1]))
                seen = now

        async def post(publisher: int) -> None:
            rows = [event(f"{publisher}.{n}", "balance.update", balance(), 7) for n in range(1000)]
            assert json.loads((await harness.post(rows)).text)["accepted"] == 1000

        bystanders.start_soon(watch)
        async with trio.open_nursery() as publishers:
            for publisher in range(16):
                publishers.start_soon(post, publisher)
        bystanders.cancel_scope.cancel()
    assert (len(checked), len(harness.told)) == (16_000, 16_000)
    assert max(a for a, _ in steps) <= 2 * PORTION
    assert max(b for _, b in steps) <= 2 * PORTION


async def test_strangers_are_told_nothing_and_not_listened_to(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body of a stranger was read")
        yield b""

    async with running_endpoint() as harness:
        for wrong in ("", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x"):
            reply = await harness.endpoint.answer(wrong, None, never())
            assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert KEY not in reply.text
        assert harness.told == []


async def test_a_large_body_is_not_collected(autojump_clock: trio.abc.Clock) -> None:
    async with running_endpoint(max_body_bytes=2000) as harness:
        assert (await harness.post(b"[]", length="2001")).status == 413
        assert (await harness.post(b" " * 2001)).status == 413
        assert (await harness.post(b"[" + b" " * 1998 + b"]")).status == 200


async def test_a_body_that_trickles_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(3)
            yield b" "

    async with running_endpoint() as harness:
        reply = await harness.endpoint.answer(f"Bearer {KEY}", None, trickle())
        assert (reply.status, trio.current_time() <= 10.001) == (408, True)


async def test_not_json_is_400_with_one_line(autojump_clock: trio.abc.Clock) -> None:
    async with running_endpoint() as harness:
        reply = await harness.post(b'{"event_id":')
        assert reply.status == 400
        assert json.loads(reply.text) == {
            "code": 1001,
            "message": "line 1 of the body is not JSON",
        }


async def test_a_full_disk_is_503_and_life_goes_on(autojump_clock: trio.abc.Clock) -> None:
    class Full(MemoryJournalBackend):
        full = True

        def settle(self, events: Any) -> Any:
            if self.full:
                raise JournalError("database or disk is full")
            return super().settle(events)

    backend = Full(1)
    async with running_endpoint(backend) as harness:
        row = event("a", "balance.update", balance(), 7)
        reply = await harness.post([row])
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert "nothing of this request was accepted" in reply.text
        assert harness.told == []
        backend.full = False
        assert json.loads((await harness.post([row])).text)["accepted"] == 1


async def test_requests_under_way_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    statuses: list[int] = []
    async with running_endpoint(max_requests=2) as harness:

        async def post(n: int) -> None:
            row = event(f"e{n}", "balance.update", balance(), 7)
            statuses.append((await harness.post([row])).status)

        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(post, n)
        assert sorted(statuses) == [200, 200, 503, 503, 503]
        await post(9)
        assert statuses[-1] == 200


async def test_no_key_in_a_log(autojump_clock: trio.abc.Clock) -> None:
    with structlog.testing.capture_logs() as lines:
        async with running_endpoint() as harness:
            await harness.post([], authorization=f"Bearer {KEY}wrong")
            await harness.post(b"nonsense")
            await harness.post([5])
    assert len(lines) == 3
    assert KEY not in repr(lines)


def counted(harness: Harness) -> dict[str, float]:
    samples = next(iter(harness.metrics.settlement_events.collect())).samples
    return {s.labels["result"]: s.value for s in samples if s.name.endswith("_total")}


async def test_what_became_of_events_is_counted_and_the_first_problem_said(
    autojump_clock: trio.abc.Clock,
) -> None:
    good = event("a", "balance.update", balance(), 7)
    with structlog.testing.capture_logs() as lines:
        async with running_endpoint() as harness:
            await harness.post([good])
            assert lines == []
            await harness.post([good, {"event_id": "x"}, 5, event("b", "order.update", order(9))])
    assert counted(harness) == {"accepted": 1, "duplicate": 1, "rejected": 3}
    (line,) = lines
    assert (line["event"], line["publisher"]) == ("settlement.rejected", "engine")
    assert (line["count"], line["index"]) == (3, 1)
    assert line["reason"].startswith("type: not one of")


async def test_a_stranger_is_counted(autojump_clock: trio.abc.Clock) -> None:
    async with running_endpoint() as harness:
        await harness.post([], authorization="")
        await harness.post([], authorization="Bearer x")
    assert harness.metrics.auths.labels("publisher_refused")._value.get() == 2


@pytest.mark.parametrize(
    ("length", "status"),
    [("2000", 200), ("2001", 413), (None, 200), ("x", 200), ("-5", 200), ("\u0663" * 9, 200)],
)
async def test_a_length_that_is_said(
    length: str | None, status: int, autojump_clock: trio.abc.Clock
) -> None:
    async with running_endpoint(max_body_bytes=2000) as harness:
        reply = await harness.post(b"[]", length=length)
        assert reply.status == status
        if status == 413:
            assert json.loads(reply.text) == {
                "code": 1001,
                "message": "the body is larger than 2000 bytes",
            }


@pytest.mark.parametrize(("size", "status"), [(2000, 200), (2001, 413)])
async def test_a_length_that_is_not_said(
    size: int, status: int, autojump_clock: trio.abc.Clock
) -> None:
    async with running_endpoint(max_body_bytes=2000) as harness:
        assert (await harness.post(b"[" + b" " * (size - 2) + b"]")).status == status


@pytest.mark.parametrize(("pause_s", "status"), [(0.9, 200), (1.1, 408)])
async def test_the_time_of_a_body(
    pause_s: float, status: int, autojump_clock: trio.abc.Clock
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"["
        await trio.sleep(pause_s)
        yield b"]"

    async with running_endpoint(request_timeout_s=1.0) as harness:
        assert (await harness.endpoint.answer(f"Bearer {KEY}", None, slow())).status == status
        # A request that ended badly leaves its place to others.
        assert (await harness.post([])).status == 200


async def test_as_many_events_as_allowed(autojump_clock: trio.abc.Clock) -> None:
    async with running_endpoint(max_events=2) as harness:
        assert (await harness.post([1, 2])).status == 200
        reply = await harness.post([1, 2, 3])
        assert (reply.status, "more than 2 events" in reply.text) == (413, True)
