"""The Solana box over memory streams and virtual time, driven by a client that we did not write."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from support.memory import MemoryNetwork
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)

from trio_feed.model import Price, plain
from trio_feed.simulator.machinery.response_faults import ResponseFaults
from trio_feed.simulator.machinery.server import serve
from trio_feed.simulator.machinery.wire import Request
from trio_feed.simulator.solana.chain import SLOT_MS, slot_at
from trio_feed.simulator.solana.control import LogSubscriptions
from trio_feed.simulator.solana.node import SolanaNode, solana_node
from trio_feed.simulator.solana.spinpet import SpinPetMarket, Transaction, encode_event
from trio_feed.venues import AnyInstrument, Kind
from trio_feed.venues.spinpet.venue import SpinPet

START = int(datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp() * 1000)
EVERYTHING = AnyInstrument("spinpet", "token")


@frozen
class Box:
    network: MemoryNetwork
    exchange: SolanaNode
    market: SpinPetMarket

    @property
    def venue(self) -> SpinPet:
        return SpinPet(self.market.program_id)

    @asynccontextmanager
    async def websocket(self) -> AsyncIterator[WebSocketConnection]:
        stream = await self.network.dial("box", 443)
        async with trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "box", "/", message_queue_size=10_000
            )
            yield websocket
            await websocket.aclose()

    async def subscribe(self, websocket: WebSocketConnection) -> int:
        """As the service does it: with the frames of the venue's plan."""
        stream = self.venue.stream(Kind.PRICE, EVERYTHING.of_symbol(self.market.mints[0]))
        (plan,) = self.venue.plan("", [stream], 1)
        for frame in plan.subscribe:
            await websocket.send_message(frame.text)
        while "result" not in (reply := json.loads(await websocket.get_message())):
            continue
        return int(reply["result"])


@asynccontextmanager
async def open_box(
    per_minute: float = 60.0, faults: ResponseFaults | None = None
) -> AsyncIterator[Box]:
    network = MemoryNetwork()
    market = SpinPetMarket(7, per_minute=per_minute)
    listeners = await network.listen("box", 443)
    async with trio.open_nursery() as nursery:
        exchange = await nursery.start(
            partial(
                serve,
                solana_node(market, lambda: START + trio.current_time() * 1000, faults),
                listeners=listeners,
            )
        )
        yield Box(network, exchange, market)
        nursery.cancel_scope.cancel()


async def collect(websocket: WebSocketConnection, seconds: float) -> list[str]:
    messages = []
    with trio.move_on_after(seconds):
        while True:
            messages.append(await websocket.get_message())
    return messages


async def say(websocket: WebSocketConnection, method: str, *params: Any, id: Any = 1) -> Any:
    request = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    await websocket.send_message(json.dumps(request))
    return json.loads(await websocket.get_message())


async def closed_with(websocket: WebSocketConnection) -> int:
    """Read until the other side closes -> the code."""

    async def read() -> None:
        while True:
            await websocket.get_message()

    with pytest.raises(ConnectionClosed) as caught:
        await read()
    assert caught.value.reason is not None
    return caught.value.reason.code


async def settled(check: Callable[[], bool], within_s: float = 5) -> None:
    with trio.fail_after(within_s):
        while not check():
            await wait_all_tasks_blocked()
            await trio.sleep(0.01)


def signature(message: str) -> str:
    return str(json.loads(message)["params"]["result"]["value"]["signature"])


async def test_ten_minutes_of_prices(autojump_clock: MockClock) -> None:
    """Everything that mentions the program comes, once and in order, and every price is found."""
    async with open_box() as box, box.websocket() as websocket:
        number = await box.subscribe(websocket)
        messages = await collect(websocket, 600)
        happened = [t for t in box.market.recent if box.market.program_id in t.mentions]
        assert len(messages) > 400
        assert [signature(m) for m in messages] == [t.signature for t in happened]
        assert len(happened) < len(box.market.recent)
        assert {json.loads(m)["params"]["subscription"] for m in messages} == {number}
        found = [
            e for m in messages for e in box.venue.parse(m, EVERYTHING) if isinstance(e, Price)
        ]
        assert [(p.symbol, p.key) for p in found] == [
            (q.mint, f"{t.signature}:{q.index}") for t in happened for q in t.quotes
        ]
        assert {p.symbol for p in found} == {*box.market.mints}
        assert all(plain(p.price).startswith("0.000000") for p in found)


async def test_the_form_of_a_notification(autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket() as websocket:
        await box.subscribe(websocket)
        message = json.loads(await websocket.get_message())
        slots = [json.loads(m)["params"]["result"]["context"]["slot"]
                 for m in await collect(websocket, 40)]  # fmt: skip
    assert list(message) == ["jsonrpc", "method", "params"]
    assert list(message["params"]) == ["result", "subscription"]
    assert list(message["params"]["result"]) == ["context", "value"]
    assert list(message["params"]["result"]["value"]) == ["signature", "err", "logs"]
    assert slots == sorted(slots)
    assert slots[-1] - slots[0] <= 40_000 / SLOT_MS


async def test_only_what_is_mentioned(autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket() as websocket:
        mint = box.market.mints[1]
        reply = await say(websocket, "logsSubscribe", {"mentions": [mint]})
        messages = await collect(websocket, 120)
        assert messages
        assert [signature(m) for m in messages] == [
            t.signature for t in box.market.recent if mint in t.mentions
        ]
        assert (await say(websocket, "logsUnsubscribe", reply["result"]))["result"] is True
        assert await collect(websocket, 120) == []


async def test_two_subscriptions_are_two_notifications(autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket() as one, box.websocket() as two:
        first, second = await box.subscribe(one), await box.subscribe(two)
        third = (await say(two, "logsSubscribe", "all", {"commitment": "processed"}, id="x"))[
            "result"
        ]
        assert len({first, second, third}) == 3
        messages = await collect(two, 600)
        counts = [
            sum(json.loads(m)["params"]["subscription"] == n for m in messages)
            for n in (second, third)
        ]
        assert 0 < counts[0] < counts[1]


ERRORS = [
    ("nonsense", -32700, "Parse error"),
    ("[]", -32600, "Invalid request"),
    ('{"id":1,"method":"logsSubscribe"}', -32600, "Invalid request"),
    ('{"jsonrpc":"2.0","id":1,"method":"slotSubscribe"}', -32601, "Method not found"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe"}', -32602, "at least 1"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":[]}', -32602, "at least 1"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":[{"mentions":["x"]}]}',
     -32602, "Invalid mentions provided"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":[{"mentions":["x","y"]}]}',
     -32602, "Only 1 address supported"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":["some"]}', -32602, "filter"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":["all",{"commitment":"max"}]}',
     -32602, "commitment"),
    ('{"jsonrpc":"2.0","id":1,"method":"logsUnsubscribe","params":[5]}',
     -32602, "Invalid subscription id."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "words"), ERRORS)
async def test_errors(text: str, code: int, words: str, autojump_clock: MockClock) -> None:
    async with open_box() as box, box.websocket() as websocket:
        await websocket.send_message(text)
        reply = json.loads(await websocket.get_message())
        assert list(reply) == ["jsonrpc", "error", "id"]
        assert reply["error"]["code"] == code
        assert words in reply["error"]["message"]
        (ack,) = box.venue.parse(json.dumps(reply), EVERYTHING)
        assert str(code) in repr(ack)


@given(st.one_of(st.text(), st.sampled_from([text for text, _, _ in ERRORS])), st.text(max_size=3))
def test_any_request_gets_a_reply(text: str, more: str) -> None:
    subscriptions = LogSubscriptions(iter(range(10)))
    for request in (text, text[: len(text) // 2] + more + text[len(text) // 2 :]):
        assert json.loads(subscriptions.handle(request))["jsonrpc"] == "2.0"


async def test_levers_on_a_connection(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        for pull, code in ((lambda c: c.abort(), 1006), (lambda c: c.close(1012, "x"), 1012)):
            async with box.websocket() as websocket:
                await box.subscribe(websocket)
                pull(box.exchange.connections[0])
                assert await closed_with(websocket) == code
        async with box.websocket() as websocket:
            number = await box.subscribe(websocket)
            assert len(await collect(websocket, 30)) > 10
            box.exchange.connections[0].mute()
            await wait_all_tasks_blocked()
            assert await collect(websocket, 60) == []
            assert (await say(websocket, "logsUnsubscribe", number))["result"] is True
        await settled(lambda: not box.exchange.connections)
        assert (box.exchange.dials, box.exchange.upgrades) == (3, 3)


async def test_what_happens_meanwhile_is_lost(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        async with box.websocket() as websocket:
            await box.subscribe(websocket)
            await trio.sleep(30)
        before = len(box.market.recent)
        await trio.sleep(60)
        missed = {t.signature for t in [*box.market.recent][before:]}
        assert missed
        async with box.websocket() as websocket:
            await box.subscribe(websocket)
            assert missed.isdisjoint(map(signature, await collect(websocket, 60)))


async def test_what_happens_while_nobody_runs_happens_at_its_time(
    autojump_clock: MockClock,
) -> None:
    async with open_box() as box, box.websocket() as websocket:
        await box.subscribe(websocket)
        await trio.sleep(30)
        known = len(box.exchange.chain.landed)
        box.exchange.run_ahead(START + 90_000)
        autojump_clock.jump(60)
        new = box.exchange.chain.landed[known:]
        assert len(new) > 30
        assert min(each.slot for each in new) >= slot_at(START + 30_000)
        assert slot_at(START + 80_000) < max(each.slot for each in new) <= slot_at(START + 90_000)
        assert [each.slot for each in new] == sorted(each.slot for each in new)
        told = {signature(m) for m in await collect(websocket, 1) if "logsNotification" in m}
        named = {
            each.transaction.signature
            for each in new
            if box.market.program_id in each.transaction.mentions
        }
        assert named <= told


async def test_every_answer_says_when_it_was_given(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        for method, body in (("POST", b"{}"), ("GET", b"")):
            response = box.exchange.answer(Request(method, "/", {}, body=body), START)
            assert response.headers["Date"] == "Fri, 20 Nov 2026 12:00:00 GMT"
        box.exchange.rest_status(429)
        response = box.exchange.answer(Request("POST", "/", {}, body=b"{}"), START)
        assert {*response.headers} == {"Date", "Retry-After"}


async def test_a_node_that_is_behind(autojump_clock: MockClock) -> None:
    async with open_box() as box:
        box.exchange.faults.behind_ms = 8_000
        body = b'{"jsonrpc":"2.0","id":1,"method":"getSlot"}'
        answered = json.loads(box.exchange.answer(Request("POST", "/", {}, body=body), START).body)
        assert answered["result"] == slot_at(START) - 20


async def test_refused_upgrades(autojump_clock: MockClock) -> None:
    faults = ResponseFaults()
    faults.refuse_upgrades(429)
    async with open_box(faults=faults) as box:
        box.exchange.refuse_upgrades(503)
        for status in (429, 503):
            with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected), flatten_subgroups=True,
                                    allow_unwrapped=True) as caught:  # fmt: skip
                async with box.websocket():
                    pass
            assert str(status) in repr(caught.value.exceptions)
        async with box.websocket():
            pass


async def test_a_client_that_does_not_read_is_dropped(autojump_clock: MockClock) -> None:
    async with open_box(per_minute=60_000) as box, trio.open_nursery() as nursery:
        theirs, ours = trio.testing.lockstep_stream_pair()
        nursery.start_soon(box.exchange.serve_stream, theirs)
        async with trio.open_nursery() as client:
            websocket = await wrap_client_stream(client, ours, "box", "/", message_queue_size=1)
            await websocket.send_message(
                '{"jsonrpc":"2.0","id":1,"method":"logsSubscribe","params":["all"]}'
            )
            await settled(lambda: len(box.exchange.connections) == 1)
            await settled(lambda: not box.exchange.connections, within_s=30)
            client.cancel_scope.cancel()


def test_the_same_seed_gives_the_same_transactions() -> None:
    def some(seed: int) -> list[Transaction]:
        market = SpinPetMarket(seed)
        return [market.next_transaction() for _ in range(50)]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_the_encoder_refuses_what_does_not_fit() -> None:
    for values in ({"token_amount": 2**64}, {"payer": b"short"}, {"latest_price": -1}):
        with pytest.raises(OverflowError):
            encode_event("BuySellEvent", values)
