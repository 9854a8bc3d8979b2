"""Symbols on demand where workers serve: asked for at one, fed for all, kept for their clients."""

import json
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.stack import PushClient, Stack
from test_workers import ask, client_of, open_workers

from trio_feed.core.on_demand import RETURN_S, WINDOW_S
from trio_feed.model.demand import Granted, Refused, Wish
from trio_feed.workers import questions
from trio_feed.workers.pipe import NoAnswer
from trio_feed.workers.remote_feeds import RemoteDemand

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
USDM = "binance_usdm"
ON_DEMAND = (".symbols='on_demand'", ".audit_after_s=0", ".channels=['kline']", ".intervals=['1m']")
KLINES = "/binance_usdm/fapi/v1/klines?interval=1m&limit=20&symbol="


async def subscribe(client: PushClient, symbol: str, **more: Any) -> dict[str, Any]:
    """The confirmation, or the error."""
    number = len(client.messages)
    await client.ask(type="subscribe", symbol=symbol, interval="1m", id=number, **more)
    kinds = ("subscription_confirmed", "error")
    return await client.wait_for(lambda m: m.get("id") == number and m["type"] in kinds)


def minutes(client: PushClient, symbol: str) -> list[int]:
    found = [m["data"] for m in client.messages if m["type"] == "kline_data"]
    return [m["data"]["time"] for m in found if m["symbol"] == symbol and m["data"]["is_final"]]


def fed(stack: Stack) -> set[str]:
    (feed,) = stack.ready.feeds
    return set(feed.settings.symbols)


def check_whole(times: list[int], least: int) -> None:
    assert len(times) >= least
    assert times == list(range(times[0], times[0] + 60 * len(times), 60))


async def test_a_symbol_that_is_asked_for_at_one_worker_is_fed_for_all(
    autojump_clock: trio.abc.Clock,
) -> None:
    with capture_logs() as logs:
        async with open_workers(*ON_DEMAND, symbols=SYMBOLS) as (stack, _):
            async with client_of(stack, 1) as one, client_of(stack, 2) as two:
                for client, name in ((one, "ethusdt"), (two, "ETHUSDT")):
                    told = await subscribe(client, name)
                    assert told["type"] == "subscription_confirmed", told
                await trio.sleep(200)
                for client, name in ((one, "ethusdt"), (two, "ETHUSDT")):
                    check_whole(minutes(client, name), 3)
                _, text = await ask(stack, 2, "/api/v1/status")
                told = json.loads(text)["venues"][USDM]["on_demand"]["symbols"]
                assert {name: each["subscriptions"] for name, each in told.items()} == {
                    "ETHUSDT": 2
                }
    started = [line["symbol"] for line in logs if line["event"] == "symbol.demanded"]
    assert started == ["ETHUSDT"]


@pytest.mark.parametrize("wait_s", [0, 5])
async def test_the_first_question_of_a_dialect_at_a_worker_is_answered(
    wait_s: int, autojump_clock: trio.abc.Clock
) -> None:
    """By names that the worker has only heard of for the answer."""
    more = ("dialects.binance_usdm.enabled=true", "dialects.udf.enabled=true")
    async with open_workers(*ON_DEMAND, *more, symbols=SYMBOLS) as (stack, _):
        await trio.sleep(wait_s)
        code, text = await ask(stack, 2, f"{KLINES}SOLUSDT")
        rows = json.loads(text)
        assert (code, len(rows)) == (200, 20)
        check_whole([row[0] // 1000 for row in rows], 20)
        for worker in (1, 2):
            code, text = await ask(stack, worker, "/binance_usdm/fapi/v1/exchangeInfo")
            assert {each["symbol"] for each in json.loads(text)["symbols"]} == set(SYMBOLS)
            code, text = await ask(stack, worker, "/udf/search?query=XRP&type=&exchange=&limit=30")
            assert [each["symbol"] for each in json.loads(text)] == ["XRPUSDT"]
        assert fed(stack) == {"SOLUSDT"}  # to look is not to want
        code, text = await ask(stack, 1, "/api/v1/klines?symbol=NOPE&interval=1m")
        assert (code, json.loads(text)["code"]) == (400, 1003)


async def test_what_clients_of_a_worker_have_stays_and_goes_with_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_workers(*ON_DEMAND, ".linger_s=60", symbols=SYMBOLS) as (stack, fleet):
        async with client_of(stack, 1) as one:
            async with client_of(stack, 2) as two:
                await subscribe(one, "ETHUSDT")
                await subscribe(two, "SOLUSDT")
                await trio.sleep(600)
                assert fed(stack) == {"ETHUSDT", "SOLUSDT"}
                check_whole(minutes(two, "SOLUSDT"), 9)
                fleet.kill(2)
                await trio.sleep(50)
                assert fed(stack) == {"ETHUSDT", "SOLUSDT"}  # its clients may come back
            await trio.sleep(40)
            assert fed(stack) == {"ETHUSDT"}
            await trio.sleep(60)
            check_whole(minutes(one, "ETHUSDT"), 11)
        await trio.sleep(90)
        assert fed(stack) == set()


async def test_questions_at_a_worker_keep_a_symbol(autojump_clock: trio.abc.Clock) -> None:
    """Also those that it answers without asking the parent again."""
    target = "/api/v1/klines?symbol=ETHUSDT&interval=1m&limit=5"
    async with open_workers(*ON_DEMAND, ".linger_s=60", symbols=SYMBOLS) as (stack, _):
        with capture_logs() as logs:
            for _ in range(10):
                assert (await ask(stack, 1, target))[0] == 200
                await trio.sleep(18)
                assert (await ask(stack, 1, target))[0] == 200
                await trio.sleep(50)
        assert not [line for line in logs if line["event"] == "symbol.dropped"]


async def test_no_room_is_said_at_every_worker(autojump_clock: trio.abc.Clock) -> None:
    room = (".max_symbols=2", ".max_symbols_per_client=2")
    async with open_workers(*ON_DEMAND, *room, symbols=SYMBOLS) as (stack, _):
        async with client_of(stack, 1) as one, client_of(stack, 2) as two:
            await subscribe(one, "BTCUSDT")
            await subscribe(two, "ETHUSDT")
            await trio.sleep(2 * WINDOW_S)
            for client, worker in ((one, 1), (two, 2)):
                told = await subscribe(client, "SOLUSDT")
                assert (told["type"], told["code"]) == ("error", 1002)
                assert "demand is 2" in told["message"]
                code, _ = await ask(stack, worker, "/api/v1/klines?symbol=SOLUSDT&interval=1m")
                assert code == 429
            assert fed(stack) == {"BTCUSDT", "ETHUSDT"}


async def test_a_symbol_that_comes_back_after_it_went_is_whole(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_workers(*ON_DEMAND, ".linger_s=60", symbols=SYMBOLS) as (stack, _):
        async with client_of(stack, 1) as client:
            await subscribe(client, "ETHUSDT")
            await trio.sleep(100)
        await trio.sleep(300)
        assert fed(stack) == set()
        for worker in (2, 1):
            target = "/api/v1/klines?symbol=ETHUSDT&interval=1m&limit=25"
            code, text = await ask(stack, worker, target)
            assert code == 200
            check_whole([row["time"] for row in json.loads(text)["data"]], 25)


class Silent:
    """A pipe without anybody at its end."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, _what: str, _body: bytes, within_s: float) -> bytes:
        self.asked += 1
        await trio.sleep(within_s)
        raise NoAnswer("no answer")


async def test_a_parent_that_does_not_answer_is_a_refusal_in_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    pipe: Any = Silent()
    demand, answers = RemoteDemand(pipe, None, None), list[Granted | Refused]()  # type: ignore[arg-type]

    async def one(number: int) -> None:
        answers.append(await demand.ask(Wish(USDM, f"S{number}")))

    with trio.fail_after(13):
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(one, number)
    assert {type(answer) for answer in answers} == {Refused}
    assert {(a.reason, a.retry_after_s) for a in answers if isinstance(a, Refused)} == {
        ("starting", 5.0)
    }
    assert pipe.asked < 200  # history and the journal have turns left


class Granting:
    """The parent, which needs a second for its answer; and a worker that has all streams."""

    async def ask(self, _what: str, body: bytes, _within_s: float) -> bytes:
        await trio.sleep(1)
        return questions.write_granted(Granted(USDM, questions.wish_of(body).symbol))

    def has(self, _venue: str, symbol: str) -> bool:
        return symbol != "GONE"


async def test_the_parents_word_counts_for_less_than_it_keeps_a_symbol(
    autojump_clock: trio.abc.Clock,
) -> None:
    """From when it was asked for: later a subscription could come too late."""
    parent: Any = Granting()
    demand = RemoteDemand(parent, None, parent)  # type: ignore[arg-type]
    wish = Wish(None, "A", asker="one")
    for symbol in ("A", "GONE"):
        assert demand.fed(Wish(None, symbol)) is None
        assert await demand.ask(Wish(None, symbol, asker="one")) == Granted(USDM, symbol)
    assert demand.fed(Wish(None, "A", asker="other")) == Granted(USDM, "A")
    assert demand.fed(Wish(None, "A", "1m")) is None  # that may not be there yet
    assert demand.fed(Wish(None, "GONE")) is None
    granted_s = 0.0
    while demand.fed(wish):
        await trio.sleep(0.5)
        granted_s += 0.5
    assert 10 < granted_s < RETURN_S / 2


async def test_a_name_that_is_no_text_is_listed_nowhere(autojump_clock: trio.abc.Clock) -> None:
    with trio.fail_after(100):
        async with open_workers(*ON_DEMAND, symbols=SYMBOLS) as (stack, _):
            async with client_of(stack, 1) as one:
                await one.ask(type="subscribe", symbol="\ud800", interval="1m")
                await one.of_type("error")
                assert (await subscribe(one, "ETHUSDT"))["type"] == "subscription_confirmed"
