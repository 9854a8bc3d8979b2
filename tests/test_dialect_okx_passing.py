"""OKX: what clients sign themselves goes to the exchange as it is."""

import hmac
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
import trio
from support.stack import Stack, open_stack, settings_for_tests
from test_dialect_passing import BEARER, DIGEST, UPGRADE, ask, of, tunnel, until
from trio.testing import MockClock

from trio_feed.simulator.machinery.wire import Request, Response
from trio_feed.simulator.okx.accounts import API_KEY, PASSPHRASE, SECRET, Accounts

ENTRIES = ["GET /api/v5/account/balance", "POST /api/v5/trade/order", "WS /ws/v5/private"]
BALANCE, ORDER = "/api/v5/account/balance", "/api/v5/trade/order"


def sign(payload: str) -> str:
    return b64encode(hmac.new(SECRET.encode(), payload.encode(), sha256).digest()).decode()


def signed(method: str, target: str, body: str = "") -> list[str]:
    """The header fields, as every SDK makes them."""
    return [
        f"OK-ACCESS-KEY: {API_KEY}",
        f"OK-ACCESS-SIGN: {sign('2025-10-09T08:53:20.000Z' + method + target + body)}",
        "OK-ACCESS-TIMESTAMP: 2025-10-09T08:53:20.000Z",
        f"OK-ACCESS-PASSPHRASE: {PASSPHRASE}",
        "Content-Type: application/json",
    ]


@asynccontextmanager
async def okx(*more: str, entries: list[str] = ENTRIES) -> AsyncIterator[Stack]:
    settings = settings_for_tests(
        f"dialects.okx.passthrough={json.dumps(entries)}",
        f"auth.api_keys=[{{name='bot', user_id=1, sha256='{DIGEST}'}}]",
        *more,
        venue="okx",
    )
    async with open_stack(settings) as stack:
        await trio.sleep(30)
        yield stack


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What reaches the exchange of accounts."""
    found: list[Request] = []
    answer = Accounts.answer

    def noted(self: Accounts, request: Request) -> Response | None:
        if "ok-access-key" in request.headers:
            found.append(request)
        return answer(self, request)

    monkeypatch.setattr(Accounts, "answer", noted)
    return found


async def test_a_signed_question_and_its_answer_are_passed_as_they_are(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with okx() as stack:
        target = f"{BALANCE}?ccy=BTC%2CUSDT&z=%7e~"
        head, body = await ask(
            stack, f"GET /okx{target}", *signed("GET", target), "Cookie: a=b", BEARER
        )
        assert head.startswith(b"HTTP/1.1 200"), body
        assert json.loads(body)["data"][0]["details"][0]["ccy"] == "USDT"
        (request,) = arrived
        assert request.target == target.encode()
        assert "cookie" not in request.headers
        assert "authorization" not in request.headers
        assert len(of(head, b"date")) == 1


async def test_an_order_in_a_body(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with okx() as stack:
        body = '{"instId":"BTC-USDT", "side":"buy","ordType":"market","sz":"1"}'
        first = f"POST /okx{ORDER}"
        head, answer = await ask(
            stack, first, *signed("POST", ORDER, body), BEARER, body=body.encode()
        )
        assert head.startswith(b"HTTP/1.1 200"), answer
        assert json.loads(answer)["data"][0]["sCode"] == "0"
        assert arrived[0].body == body.encode()
        assert len(stack.exchange.accounts.orders) == 1
        head, answer = await ask(stack, first, *signed("POST", ORDER, "x"), BEARER, body=b"{}")
        assert (head[:12], json.loads(answer)["code"]) == (b"HTTP/1.1 401", "50113")  # its own


async def test_strangers_are_not_let_in(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with okx() as stack:
        for first, upgrade in ((f"GET /okx{BALANCE}", ()), ("GET /okx/ws/v5/private", UPGRADE)):
            for door in ("X: y", "Authorization: Bearer tfk_no"):
                head, body = await ask(stack, first, *signed("GET", BALANCE), door, *upgrade)
                assert head.startswith(b"HTTP/1.1 401")
                assert json.loads(body)["code"] == "50111"
                assert b"tfk_" not in body
        assert arrived == []


async def test_without_the_setting_the_error_names_it(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with okx(entries=[]) as stack:
        for method, path in (("GET", BALANCE), ("POST", ORDER)):
            for words, code in ((signed(method, path), "50111"), (["X: y"], "50103")):
                head, body = await ask(stack, f"{method} /okx{path}?ccy=secret", *words, BEARER)
                assert (head[:12], json.loads(body)["code"]) == (b"HTTP/1.1 401", code)
                setting = f"dialects.okx.passthrough = ['{method} {path}']"
                assert setting in json.loads(body)["msg"]
        async with tunnel(stack, "/okx/ws/v5/private") as bot:
            await bot.send_message(login())
            error = json.loads(await bot.get_message())
            assert error["code"] == "60032"
            assert "dialects.okx.passthrough = ['WS /ws/v5/private']" in error["msg"]
            await bot.send_message('{"op":"subscribe","args":[{"channel":"orders"}]}')
            error = json.loads(await bot.get_message())
            assert error["code"] == "60011"
            assert "dialects.okx.passthrough = ['WS /ws/v5/private']" in error["msg"]
        assert arrived == []


async def test_no_room_and_an_exchange_out_of_reach(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with okx() as stack:
        words = f"GET /okx{BALANCE}", *signed("GET", BALANCE), BEARER
        stack.exchange.rest_status(429)
        assert (await ask(stack, *words))[0].startswith(b"HTTP/1.1 429")  # its own
        head, body = await ask(stack, *words)  # which pauses us
        assert (head[:12], json.loads(body)["code"]) == (b"HTTP/1.1 429", "50011")
        assert int(of(head, b"retry-after")[0]) > 0
        await trio.sleep(600)
        stack.network.down.add(("exchange", 80))
        head, body = await ask(stack, *words)
        assert json.loads(body)["code"] in ("50001", "50004")
        assert arrived == []


async def test_room_that_comes_soon_is_waited_for(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    """OKX counts by two seconds: one request in each, here."""
    async with okx(".connection.rest_weight_per_minute=30") as stack:
        words = f"GET /okx{BALANCE}", *signed("GET", BALANCE), BEARER
        for _ in range(3):
            began = trio.current_time()
            assert (await ask(stack, *words))[0].startswith(b"HTTP/1.1 200")
            assert trio.current_time() - began < 3
        async with trio.open_nursery() as nursery:  # not for ever
            heads: list[bytes] = []

            async def one() -> None:
                heads.append((await ask(stack, *words))[0][:12])

            for _ in range(8):
                nursery.start_soon(one)
        assert {*heads} == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert len(arrived) == 3 + heads.count(b"HTTP/1.1 200")


async def test_a_large_body_is_refused(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with okx() as stack:
        head, body = await ask(stack, f"POST /okx{ORDER}", BEARER, body=bytes(300_000))
        assert (head[:12], json.loads(body)["code"]) == (b"HTTP/1.1 413", "50002")
        assert arrived == []


async def test_only_a_get_is_repeated(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    import httpcore

    from trio_feed.net.http import HttpPool

    tried: list[str] = []

    async def ended(self: HttpPool, method: str, target: bytes, asked: Any) -> Any:
        tried.append(method)
        raise httpcore.RemoteProtocolError("Server disconnected")

    monkeypatch.setattr(HttpPool, "_pass_on", ended)
    async with okx() as stack:
        for first in (f"GET /okx{BALANCE}", f"POST /okx{ORDER}"):
            _, body = await ask(stack, first, BEARER)
            assert json.loads(body)["code"] == "50004"  # it may have been carried out
    assert tried == ["GET", "GET", "POST"]


def login(passphrase: str = PASSPHRASE) -> str:
    arg = {"apiKey": API_KEY, "passphrase": passphrase, "timestamp": "1760000000"}
    arg["sign"] = sign("1760000000GET/users/self/verify")
    return json.dumps({"op": "login", "args": [arg]})


async def test_an_account_over_a_tunnel(autojump_clock: MockClock) -> None:
    async with okx() as stack:
        async with tunnel(stack, "/okx/ws/v5/private") as bot:

            async def answered(text: str) -> Any:
                await bot.send_message(text)
                return json.loads(await bot.get_message())

            await bot.send_message("ping")
            assert await bot.get_message() == "pong"
            assert (await answered(login("no")))["code"] == "60024"  # the exchange's own
            found = await answered(login())
            assert (found["event"], found["code"]) == ("login", "0")
            orders = '{"op":"subscribe","args":[{"channel":"orders","instType":"ANY"}]}'
            assert (await answered(orders))["event"] == "subscribe"
            order = {"instId": "BTC-USDT", "side": "buy", "ordType": "market", "sz": "1"}
            await bot.send_message(json.dumps({"id": "1", "op": "order", "args": [order]}))
            found = [json.loads(await bot.get_message()) for _ in range(2)]
            assert {each.get("op") for each in found} == {"order", None}
            assert {each["data"][0]["ordId"] for each in found} == {"1"}
            assert len(stack.exchange.connections) >= 2
            own = len(stack.exchange.accounts.sockets)
        await until(lambda: len(stack.exchange.accounts.sockets) == own - 1)


async def test_market_data_beside_a_tunnel_is_ours(autojump_clock: MockClock) -> None:
    """``/public`` stays a dialect's session, which costs the exchange nothing."""
    async with okx() as stack, tunnel(stack, "/okx/ws/v5/public") as bot:
        upgrades = stack.exchange.upgrades
        await bot.send_message(
            '{"op":"subscribe","args":[{"channel":"candle1m","instId":"BTC-USDT"}]}'
        )
        assert json.loads(await bot.get_message())["event"] == "subscribe"
        assert stack.exchange.upgrades == upgrades
