"""Public history that is not kept here: the exchange's own answer, asked once for all clients."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dialect import Desk
from support.stack import START_MS, Stack, open_stack, settings_for_tests
from test_dialect_passing import ask, of
from trio.testing import MockClock

from trio_feed.dialects.binance import errors
from trio_feed.dialects.binance.history import errands
from trio_feed.dialects.binance.profile import USDM
from trio_feed.dialects.binance.weight import UsedWeight
from trio_feed.dialects.borrowed import Borrowed
from trio_feed.dialects.outside import Signed
from trio_feed.dialects.passing import Passing, Words
from trio_feed.model import Instrument
from trio_feed.push.mounts import Question, Reply
from trio_feed.simulator.binance import history
from trio_feed.simulator.binance.rest import BinanceRest
from trio_feed.simulator.machinery.wire import Request, Response

BASE = "/binance_usdm/fapi/v1"
EIGHT_HOURS = 8 * 3_600_000


@asynccontextmanager
async def usdm(*more: str) -> AsyncIterator[Stack]:
    async with open_stack(settings_for_tests(*more)) as stack:
        await trio.sleep(30)
        yield stack


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What of it reaches the exchange."""
    found: list[Request] = []
    respond = BinanceRest.respond

    def noted(self: BinanceRest, request: Request, now_ms: int) -> Response:
        if request.path.endswith(("/fundingRate", "/markPriceKlines")):
            found.append(request)
        return respond(self, request, now_ms)

    monkeypatch.setattr(BinanceRest, "respond", noted)
    return found


async def get(stack: Stack, target: str, *head: str) -> tuple[int, Any]:
    first, body = await ask(stack, f"GET {BASE}/{target}", *head)
    return int(first.split()[1]), json.loads(body)


def own(stack: Stack, of_path: Any, **query: object) -> Any:
    """What the exchange says itself."""
    words = {name: str(value) for name, value in query.items()}
    return json.loads(json.dumps(of_path(stack.exchange.data, words, int(stack.exchange.now_ms()))))


async def test_fundings_and_candles_of_the_mark_are_the_exchanges(
    autojump_clock: MockClock,
) -> None:
    async with usdm() as stack:
        status, rows = await get(stack, "fundingRate?symbol=BTCUSDT&limit=3")
        assert (status, len(rows)) == (200, 3)
        assert [row["fundingTime"] % EIGHT_HOURS for row in rows] == [0, 0, 0]
        assert rows == own(stack, history.fundings, symbol="BTCUSDT", limit=3)
        since = START_MS - 10 * EIGHT_HOURS
        status, rows = await get(stack, f"fundingRate?symbol=BTCUSDT&startTime={since}&limit=2")
        assert [row["fundingTime"] // EIGHT_HOURS - since // EIGHT_HOURS for row in rows] == [1, 2]
        assert (await get(stack, "fundingRate"))[1] == own(stack, history.fundings)
        words = {"symbol": "BTCUSDT", "interval": "1h", "startTime": since, "limit": 5}
        query = "&".join(f"{name}={value}" for name, value in words.items())
        status, rows = await get(stack, f"markPriceKlines?{query}")
        assert (status, len(rows), len(rows[0])) == (200, 5, 12)
        assert rows == own(stack, history.mark_price_klines, **words)


async def test_fifty_bots_at_the_full_hour_ask_once(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with usdm() as stack:
        found = []

        async def bot(target: str) -> None:
            found.append(await get(stack, target))

        async def all_of_them() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    order = number % 2
                    words = ("symbol=BTCUSDT", "limit=9")[:: 1 if order else -1]
                    nursery.start_soon(bot, f"fundingRate?{'&'.join(words)}")

        await all_of_them()
        assert [status for status, _ in found] == [200] * 50
        assert all(body == found[0][1] for _, body in found)
        assert len(arrived) == 1
        await all_of_them()
        assert len(arrived) == 1
        await trio.sleep(6)
        await all_of_them()
        assert len(arrived) == 2


async def test_nothing_of_a_client_goes_along(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with usdm() as stack:
        target = "fundingRate?symbol=BTCUSDT&signature=secret&timestamp=1"
        await get(stack, target, "X-MBX-APIKEY: secret", "Cookie: secret", "User-Agent: secret")
        (request,) = arrived
        assert urlsplit(request.target.decode()).query == "symbol=BTCUSDT"
        assert "secret" not in str(request.headers)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("fundingRate?symbol=NOPE", -1121),
        ("fundingRate?symbol=btcusdt", -1100),
        ("fundingRate?symbol=BTCUSDT&limit=1001", -1130),
        ("fundingRate?symbol=BTCUSDT&startTime=x", -1100),
        ("fundingRate?symbol=BTCUSDT&symbol=BTCUSDT", -1101),
        ("markPriceKlines?symbol=BTCUSDT", -1102),
        ("markPriceKlines?interval=1h", -1102),
        ("markPriceKlines?symbol=BTCUSDT&interval=1s", -1120),
        ("markPriceKlines?symbol=BTCUSDT&interval=1h&limit=1501", -1130),
    ],
)
async def test_what_is_wrong_is_not_asked(
    target: str, code: int, arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with usdm() as stack:
        status, error = await get(stack, target)
        assert (status, error["code"]) == (400, code)
        assert arrived == []


@define
class Slow:
    """In the place of the way to the exchange: it answers when it is let."""

    go: trio.Event = field(factory=trio.Event)
    targets: list[bytes] = field(factory=list)

    @property
    def asked(self) -> int:
        return len(self.targets)

    async def ask(self, signed: Signed, weight: int, words: Words) -> Reply:
        self.targets.append(signed.target)
        await self.go.wait()
        return Reply("[]", fields=[(b"server", b"its own")])

    def say(self, method: str, path: str, status: int) -> None: ...


NAMES = st.sampled_from(["symbol", "interval", "startTime", "endTime", "limit", "x"])
VALUES = st.one_of(st.text(max_size=20), st.sampled_from(["BTCUSDT", "1h", "5", "0", "9" * 20]))


@pytest.mark.parametrize("name", ["fundingRate", "markPriceKlines"])
@settings(max_examples=200, deadline=None)
@given(query=st.lists(st.tuples(NAMES, VALUES), max_size=5))
async def test_questions_of_any_kind(name: str, query: list[tuple[str, str]]) -> None:
    """Refused in the exchange's words, or sent with what was checked and nothing else."""
    listed = [Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual")]
    slow = Slow()
    slow.go.set()
    market = evolve(Desk(USDM, listed).market, passing=cast(Passing, slow))
    errand = errands(USDM, market, UsedWeight())["GET", f"/fapi/v1/{name}"]
    found = errand(Question(f"{BASE}/{name}", query=query))
    if isinstance(found, Reply):
        assert found.status == 400
        assert json.loads(found.body)["code"] < 0
        return
    assert (await found(b"")).status == 200
    (target,) = slow.targets
    assert re.fullmatch(r"/fapi/v1/\w+\?[\w=&]*", target.decode(), re.ASCII)
    assert b"x=" not in target


async def test_strangers_spend_a_small_part_of_the_budget(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    """A twentieth of 2400 a minute for one address; one funding counts as 3."""
    async with usdm() as stack:
        found = [await get(stack, f"fundingRate?symbol=BTCUSDT&startTime={n}") for n in range(99)]
        refused = [body["code"] for status, body in found if status == 429]
        assert 20 <= len(arrived) <= 25
        assert refused == [-1003] * (99 - len(arrived))
        head, _ = await ask(stack, f"GET {BASE}/fundingRate?startTime=5555")
        (after,) = of(head, b"retry-after")
        await trio.sleep(int(after))
        assert (await get(stack, "fundingRate?startTime=5555"))[0] == 200


async def test_nobody_takes_all_of_it() -> None:
    slow = Slow()
    slow.go.set()
    borrowed = Borrowed(cast(Passing, slow), errors.Signed(), per_s=4, burst=120)

    async def ask(address: str, number: int) -> int:
        query = f"startTime={number}"
        return (await borrowed.ask("/fapi/v1/fundingRate", query, 3, address)).status

    greedy = [await ask("a", number) for number in range(60)]
    assert 20 <= greedy.count(200) <= 21
    assert [await ask("b", number) for number in range(100, 110)] == [200] * 10


async def test_one_that_leaves_takes_no_answer_along() -> None:
    """The first asks for all; it goes while its question is on its way, and the next asks again."""
    slow, found = Slow(), []
    borrowed = Borrowed(cast(Passing, slow), errors.Signed(), per_s=4, burst=120)

    async def bot(scope: trio.CancelScope) -> None:
        with scope:
            found.append(await borrowed.ask("/fapi/v1/fundingRate", "limit=1", 3, "a"))

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()
        nursery.start_soon(bot, first)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            nursery.start_soon(bot, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        assert slow.asked == 1
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert slow.asked == 2
        slow.go.set()
    assert found == [Reply("[]")] * 2
    assert slow.asked == 2


async def test_questions_wait_for_few_places_only() -> None:
    slow, found = Slow(), []
    borrowed = Borrowed(cast(Passing, slow), errors.Signed(), per_s=4, burst=120)

    async def bot(number: int) -> None:
        found.append(
            (await borrowed.ask("/fapi/v1/fundingRate", f"limit={number}", 1, str(number))).status
        )

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(bot, number)
        await trio.testing.wait_all_tasks_blocked()
        assert slow.asked == 2
        assert found == [429] * 8
        slow.go.set()
    assert sorted(found) == [200] * 32 + [429] * 8


async def test_an_exchange_that_is_not_in_reach_or_wants_no_calls(
    autojump_clock: MockClock,
) -> None:
    async with usdm() as stack:
        stack.exchange.rest_status(418)
        status, error = await get(stack, "fundingRate?symbol=BTCUSDT")
        assert (status, error["code"]) == (429, -1003)
        assert "banned" not in error["msg"]  # nor by which address
    async with usdm() as stack:
        stack.exchange.rest_status(500)
        status, error = await get(stack, "fundingRate?symbol=BTCUSDT")
        assert (status, error["code"]) == (503, -1001)
    async with usdm() as stack:
        stack.network.down.add(("exchange", 80))
        status, error = await get(stack, "fundingRate?symbol=BTCUSDT")
        assert (status, error["code"]) == (503, -1001)


async def test_simulated_data_is_not_served_unasked(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    own_box = ("simulator.enabled=true", "simulator.host=box", "simulator.port=82")
    async with usdm(*own_box) as stack:
        status, error = await get(stack, "fundingRate?symbol=BTCUSDT")
        assert (status, error["code"]) == (403, -1020)
        assert "simulated_ok" in error["msg"]
        assert arrived == []
