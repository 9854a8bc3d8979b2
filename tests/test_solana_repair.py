"""The venue's RPC side, the chain's repair and the box together: whatever the node does, the prices
that were taken are those of the chain."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from attrs import define, field
from base58 import b58encode
from hypothesis import given
from hypothesis import strategies as st
from support.memory import MemoryNetwork
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, wrap_client_stream

from trio_feed.core.chain import ChainRepair
from trio_feed.core.chain_items import ChainLimits, Gap, Out, Proven, Retract, Take
from trio_feed.errors import BadMessage, NetworkError, RateLimited
from trio_feed.instants import Exchange, Mono, Now, Wall
from trio_feed.net.budgets import Weights
from trio_feed.net.rest import RestClient, open_rest
from trio_feed.net.route import Route
from trio_feed.settings import ProxySettings
from trio_feed.simulator.faults.schedule import Fault
from trio_feed.simulator.faults.solana import SOLANA_FAULTS
from trio_feed.simulator.machinery.server import serve
from trio_feed.simulator.solana.chain import slot_at
from trio_feed.simulator.solana.node import SolanaNode, solana_node
from trio_feed.simulator.solana.spinpet import SpinPetMarket
from trio_feed.transactions import (
    AskBlockTime,
    AskSignatures,
    AskSlot,
    AskTransaction,
    SignatureRow,
    Transaction,
)
from trio_feed.venues import Ack, AnyInstrument, Kind
from trio_feed.venues.spinpet.solana_rpc import RpcRefused
from trio_feed.venues.spinpet.venue import SpinPet

START = int(datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp() * 1000)
EVERYTHING = AnyInstrument("spinpet", "token")
SIGNATURE = b58encode(b"\x01" * 64).decode()
PROGRAM = b58encode(bytes(range(32))).decode()


def now() -> Now:
    ms = START + trio.current_time() * 1000
    return Now(Mono(trio.current_time()), Wall(ms), Exchange(ms))


@define
class Driver:
    """The smallest that does what the repair's docstring asks for."""

    box: SolanaNode
    network: MemoryNetwork
    rest: RestClient
    venue: SpinPet
    repair: ChainRepair
    out: list[Any] = field(factory=list)
    called: trio.Event = field(factory=trio.Event)
    connected: bool = True

    def take(self, out: Out) -> None:
        self.out += out
        self.called.set()

    async def listen(self) -> None:
        while True:
            stream = await self.network.dial("box", 443)
            async with trio.open_nursery() as nursery:
                websocket = await wrap_client_stream(nursery, stream, "box", "/")
                (plan,) = self.venue.plan(
                    "", [self.venue.stream(Kind.PRICE, EVERYTHING.of_symbol(PROGRAM))], 1
                )
                await websocket.send_message(plan.subscribe[0].text)
                try:
                    while True:
                        self.heard(await websocket.get_message())
                except ConnectionClosed:
                    pass
            await trio.sleep(7)

    def heard(self, raw: str) -> None:
        read = self.venue.read(raw, EVERYTHING)
        if isinstance(read, Ack):
            self.take(self.repair.reconnected(now()))
        else:
            self.take(self.repair.live(read, now()))

    async def ask(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self.out += self.repair.advance(now())
                for question in self.repair.ask(now()):
                    nursery.start_soon(self.put, question)
                self.called = trio.Event()
                due = float(self.repair.due(now()))
                with trio.move_on_at(max(due, trio.current_time() + 0.001)):
                    await self.called.wait()

    async def put(self, question: Any) -> None:
        asked = self.venue.question(question)
        assert asked.body is not None
        try:
            got = await self.rest.post(asked.body, name=asked.path)
            answer = self.venue.parse_answer(question, got.body, EVERYTHING)
        except RateLimited as error:
            self.take(self.repair.failed(question, now(), error.until - now().mono))
        except (NetworkError, BadMessage):
            self.take(self.repair.failed(question, now()))
        else:
            self.take(self.repair.answer(question, answer, now()))

    def prices(self) -> list[tuple[str, str]]:
        """Symbol and key of what is taken by now, in the chain's order."""
        taken: dict[str, Take] = {}
        for item in self.out:
            if isinstance(item, Take):
                assert item.price.key not in taken
                taken[item.price.key] = item
            elif isinstance(item, Retract):
                for key in item.keys:
                    del taken[key]
        ordered = sorted(taken.values(), key=lambda take: take.price.position)
        return [(take.price.symbol, take.price.key) for take in ordered]

    def truth(self) -> list[tuple[str, str]]:
        return [
            (quote.mint, f"{landed.transaction.signature}:{quote.index}")
            for landed in self.box.chain.landed
            for quote in landed.transaction.quotes
        ]

    def pull(self, kind: str, times: int = 0, lasts_s: float = 0.0) -> None:
        SOLANA_FAULTS[kind](SimpleNamespace(exchange=self.box), Fault(kind, 0.0, times, lasts_s))

    def gaps(self) -> list[Gap]:
        return [item for item in self.out if isinstance(item, Gap) and item.final]


@asynccontextmanager
async def running(
    commitment: str = "confirmed", per_minute: float = 60.0, seed: int = 7
) -> AsyncIterator[Driver]:
    network, market = MemoryNetwork(), SpinPetMarket(seed, per_minute=per_minute, talkative=False)
    listeners = await network.listen("box", 443)
    async with trio.open_nursery() as nursery:
        box = await nursery.start(
            partial(serve, solana_node(market, lambda: float(now().wall)), listeners=listeners)
        )
        route = Route(network.dial, ProxySettings(), None, "", 5)
        async with open_rest(
            "http://box:443/KEY?api-key=SECRET", route=route, timeout_s=10,
            weights=Weights(6000),
        ) as rest:  # fmt: skip
            venue = SpinPet(market.program_id, commitment)
            repair = ChainRepair(limits=ChainLimits(), retracts=commitment == "processed")
            driver = Driver(box, network, rest, venue, repair)
            nursery.start_soon(driver.listen)
            nursery.start_soon(driver.ask)
            yield driver
            nursery.cancel_scope.cancel()


def _reset(d: Driver) -> None:
    d.box.connections[0].abort()


def _reset_and_429(d: Driver) -> None:
    _reset(d)
    d.box.rest_status(429, 2)


def _reset_and_null(d: Driver) -> None:
    _reset(d)
    d.box.chain.nulls += 5


def _reset_and_503(d: Driver) -> None:
    _reset(d)
    d.box.rest_status(503, 3)


FAULTS: dict[str, Callable[[Driver], None]] = {
    "reset": _reset,
    "reset, 429": _reset_and_429,
    "reset, null": _reset_and_null,
    "reset, 503": _reset_and_503,
    "lost": lambda d: d.pull("lost_notifications", times=5),
    "cut": lambda d: d.pull("log_truncated", times=5),
    "quiet": lambda d: d.pull("quiet_program", lasts_s=200),
    "behind": lambda d: setattr(d.box.chain, "behind_slots", 20),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_price_of_the_chain(fault: str, autojump_clock: MockClock) -> None:
    async with running() as driver:
        await trio.sleep(60)
        FAULTS[fault](driver)
        await trio.sleep(200)
        driver.pull("quiet_program", lasts_s=100)
        await trio.sleep(60)
        assert len(driver.truth()) > 30
        assert driver.prices() == driver.truth()
        assert driver.gaps() == []
        if fault.startswith("reset"):
            assert not [i for i in driver.out if isinstance(i, Take) and i.late]


async def test_forks_are_retracted_and_taken_where_they_land(autojump_clock: MockClock) -> None:
    async with running("processed") as driver:
        await trio.sleep(60)
        driver.pull("fork", times=20)
        await trio.sleep(200)
        driver.pull("quiet_program", lasts_s=100)
        await trio.sleep(60)
        assert driver.prices() == driver.truth()
        assert sum(isinstance(item, Retract) for item in driver.out) > 5
        assert driver.gaps() == []


async def test_forks_are_not_seen_by_who_listens_to_confirmed(autojump_clock: MockClock) -> None:
    async with running() as driver:
        await trio.sleep(60)
        driver.pull("fork", times=20)
        await trio.sleep(200)
        driver.pull("quiet_program", lasts_s=60)
        await trio.sleep(60)
        assert driver.prices() == driver.truth()
        assert not [item for item in driver.out if isinstance(item, Retract | Gap)]


async def test_a_quiet_program_is_proven_quiet(autojump_clock: MockClock) -> None:
    async with running() as driver:
        await trio.sleep(30)
        driver.pull("quiet_program", lasts_s=600)
        await trio.sleep(300)
        proven = [item.slot for item in driver.out if isinstance(item, Proven)]
        assert proven[-1] > slot_at(START + 300_000)
        assert driver.box.upgrades == 1


async def test_secrets_stay_out_of_errors(autojump_clock: MockClock) -> None:
    async with running() as driver:
        for status in (403, 503, 429):
            driver.box.faults.clear()
            driver.box.rest_status(status, 10)
            with pytest.raises(NetworkError) as caught:
                await driver.rest.post(b"{}", name="getSlot")
            assert "box getSlot" in str(caught.value)
            assert "KEY" not in str(caught.value)
            assert "SECRET" not in repr(driver.rest) + str(caught.value)


VENUE = SpinPet(PROGRAM, "processed")


def test_questions_on_the_wire() -> None:
    """`processed` is not known to the two, and the version is the integer 1."""

    def params(question: Any) -> Any:
        body = VENUE.question(question).body
        assert body is not None
        request = json.loads(body)
        assert request["jsonrpc"] == "2.0"
        return request["method"], request["params"]

    assert params(AskSlot(1, 0)) == ("getSlot", [{"commitment": "confirmed"}])
    assert params(AskBlockTime(1, 0, 77)) == ("getBlockTime", [77])
    assert params(AskSignatures(1, 0, None, None, 1000)) == (
        "getSignaturesForAddress", [PROGRAM, {"limit": 1000, "commitment": "confirmed"}],
    )  # fmt: skip
    assert params(AskSignatures(1, 0, "b", "u", 5, 77))[1][1] == {
        "limit": 5, "commitment": "confirmed", "before": "b", "until": "u", "minContextSlot": 77,
    }  # fmt: skip
    assert params(AskTransaction(1, 0, SIGNATURE)) == (
        "getTransaction",
        [SIGNATURE, {"encoding": "json", "commitment": "confirmed",
                     "maxSupportedTransactionVersion": 1}],
    )  # fmt: skip
    with pytest.raises(ValueError, match="1001"):
        VENUE.question(AskSignatures(1, 0, None, None, 1001))


def answer(question: Any, result: Any) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    return VENUE.parse_answer(question, body, EVERYTHING)


def test_odd_rows_are_left_out_and_counted() -> None:
    row = {"signature": SIGNATURE, "slot": 5, "err": None, "blockTime": 1_790_000_000, "new": 1}
    rows = [row, {}, 7, None, {**row, "slot": -1}, {**row, "signature": "x"}, {**row, "slot": "5"},
            {**row, "err": {"a": 1}, "blockTime": None}]  # fmt: skip
    page = answer(AskSignatures(1, 0, None, None, 5), rows)
    assert page.count == 8
    assert page.rows == (
        SignatureRow(SIGNATURE, 5, False, 1_790_000_000_000),
        SignatureRow(SIGNATURE, 5, True, 0),
    )


def test_transactions_from_answers() -> None:
    ask = AskTransaction(1, 0, SIGNATURE)
    assert answer(ask, None) is None
    found = {"slot": 9, "blockTime": None, "version": 1, "meta": {"err": None, "logMessages": None},
             "transaction": {"signatures": [SIGNATURE]}}  # fmt: skip
    assert answer(ask, found) == Transaction(SIGNATURE, 9, truncated=True)
    found["meta"] = {"err": None, "logMessages": [f"Program {PROGRAM} invoke [1]", "Log truncated"]}
    assert answer(ask, found).truncated
    found["meta"] = {"err": {"x": 1}, "logMessages": None}
    assert answer(ask, found) == Transaction(SIGNATURE, 9, failed=True)
    found["meta"] = {"logMessages": [f"Program {PROGRAM} success"]}
    assert answer(ask, found).ignored == ("bad transaction",)
    with pytest.raises(BadMessage, match="another transaction"):
        answer(AskTransaction(1, 0, b58encode(b"\x02" * 64).decode()), found)
    with pytest.raises(BadMessage):
        answer(ask, {"slot": 9, "transaction": {"signatures": []}, "meta": None})


def test_the_nodes_refusals() -> None:
    body = b'{"jsonrpc":"2.0","error":{"code":-32015,"message":"not supported"},"id":1}'
    with pytest.raises(RpcRefused, match="-32015 not supported") as caught:
        VENUE.parse_answer(AskSlot(1, 0), body, EVERYTHING)
    assert caught.value.code == -32015


@pytest.mark.parametrize(("said", "found"), [(1_790_000_000, 1_790_000_000_000), (None, None),
                                             (7, None)])  # fmt: skip
def test_the_time_of_a_block(said: int | None, found: int | None) -> None:
    assert answer(AskBlockTime(1, 0, 5), said) == found


@pytest.mark.parametrize(("code", "known"), [(-32009, True), (-32004, True), (-32602, False)])
def test_a_slot_that_was_skipped_has_no_time(code: int, known: bool) -> None:
    body = b'{"jsonrpc":"2.0","error":{"code":%d,"message":"Slot 5 was skipped"},"id":1}' % code
    if known:
        assert VENUE.parse_answer(AskBlockTime(1, 0, 5), body, EVERYTHING) is None
        return
    with pytest.raises(RpcRefused):
        VENUE.parse_answer(AskBlockTime(1, 0, 5), body, EVERYTHING)


ASKED = [
    AskSlot(1, 0),
    AskBlockTime(1, 0, 5),
    AskSignatures(1, 0, None, None, 5),
    AskTransaction(1, 0, SIGNATURE),
]


@given(st.binary(), st.sampled_from(ASKED))
def test_any_answer_is_read_or_a_bad_message(body: bytes, question: Any) -> None:
    for raw in (body, b'{"result":' + body + b"}"):
        with suppress(BadMessage):
            VENUE.parse_answer(question, raw, EVERYTHING)


async def test_the_boxs_refusals(autojump_clock: MockClock) -> None:
    async with running() as driver:
        await trio.sleep(120)
        chain, ms = driver.box.chain, float(now().wall)

        def say(method: str, *params: Any) -> Any:
            request = {"jsonrpc": "2.0", "id": 4, "method": method, "params": params}
            return json.loads(chain.answer(json.dumps(request).encode(), ms))

        versions = {item.version for item in chain.landed}
        assert versions == {0, 1, "legacy"}
        new = next(i for i in chain.landed if i.version == 1).transaction.signature
        for more in ({}, {"maxSupportedTransactionVersion": 0}):
            assert say("getTransaction", new, more)["error"]["code"] == -32015
        assert say("getTransaction", new, {"maxSupportedTransactionVersion": 1})["result"]
        assert say("getTransaction", SIGNATURE)["result"] is None
        for code, method, params in (
            (-32601, "getBlock", []),
            (-32602, "getSignaturesForAddress", [PROGRAM, {"limit": 1001}]),
            (-32602, "getSignaturesForAddress", [PROGRAM, {"commitment": "processed"}]),
            (-32016, "getSignaturesForAddress", [PROGRAM, {"minContextSlot": 10**12}]),
            (-32602, "getTransaction", ["x"]),
            (-32602, "getTransaction", []),
            (-32602, "getBlockTime", ["x"]),
            (-32004, "getBlockTime", [slot_at(ms) + 1]),
        ):
            assert say(method, *params)["error"]["code"] == code
        for item in chain.landed:
            assert say("getBlockTime", item.slot)["result"] == item.time_s
        assert len({(item.slot, item.time_s) for item in chain.landed}) == len(
            {item.slot for item in chain.landed}
        )
        assert b"-32700" in chain.answer(b"nonsense", ms)
        unknown = say("getSignaturesForAddress", driver.box.market.program_id, {"before": "?"})
        assert unknown["result"] == []


def test_which_accounts_a_cut_transaction_names() -> None:
    """Those of lookup tables included; where not all are said, none are."""
    found: dict[str, Any] = {
        "slot": 9,
        "meta": {"logMessages": [f"Program {PROGRAM} invoke [1]", "Log truncated"]},
        "transaction": {"signatures": [SIGNATURE], "message": {"accountKeys": ["a", "b"]}},
    }
    ask, message = AskTransaction(1, 0, SIGNATURE), found["transaction"]["message"]
    assert answer(ask, found).accounts == {"a", "b"}
    message["addressTableLookups"] = [{}]
    assert answer(ask, found).accounts is None
    found["meta"]["loadedAddresses"] = {"writable": ["c"], "readonly": ["d"]}
    assert answer(ask, found).accounts == {"a", "b", "c", "d"}
    for keys in ([], [{"pubkey": "a"}], None):
        message["accountKeys"] = keys
        assert answer(ask, found).accounts is None
