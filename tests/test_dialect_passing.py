"""Pass-through: what clients sign themselves goes to the exchange as it is, and nobody else's."""

import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import jwt
import pytest
import structlog
import trio
import trio_websocket
from support.stack import Stack, open_stack, settings_for_tests, virtual_now_ms
from test_server import until_closed
from trio.testing import MockClock

from trio_feed.dialects.binance.signed import weight_of_request
from trio_feed.dialects.passing import Passing
from trio_feed.errors import SettingsError
from trio_feed.net.http import HttpPool
from trio_feed.push.fanout.frames import binary_frame
from trio_feed.push.mounts import Question
from trio_feed.push.private.auth import AuthError, new_key
from trio_feed.settings import load
from trio_feed.simulator.binance.accounts import API_KEY, SECRET, Accounts
from trio_feed.simulator.machinery.wire import Request, Response

TOKEN, DIGEST = new_key("tfk_")
ENTRIES = [
    "GET /api/v3/account", "POST /api/v3/order", "POST /api/v3/userDataStream",
    "WS /ws-api/v3", "WS /ws/<listenKey>",
]  # fmt: skip
LISTEN_KEY = "box0" * 16
BEARER = f"Authorization: Bearer {TOKEN}"


def sign(payload: str) -> str:
    return hmac.new(SECRET.encode(), payload.encode(), sha256).hexdigest()


@asynccontextmanager
async def spot(*more: str, entries: list[str] = ENTRIES) -> AsyncIterator[Stack]:
    settings = settings_for_tests(
        f"dialects.binance.passthrough={json.dumps(entries)}",
        "dialects.binance.websocket_api_url=ws://exchange:80",
        f"auth.api_keys=[{{name='bot', user_id=1, sha256='{DIGEST}'}}]",
        *more,
        venue="binance",
    )
    async with open_stack(settings) as stack:
        await trio.sleep(30)
        yield stack


async def ask(stack: Stack, first_line: str, *head: str, body: bytes = b"") -> tuple[bytes, bytes]:
    """The head and the body of the answer, as they came."""
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    lines = [f"{first_line} HTTP/1.1", "Host: push", *head]
    if UPGRADE[0] not in head:
        lines.append("Connection: close")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    received = await until_closed(stream)
    before, _, after = received.partition(b"\r\n\r\n")
    return before, after


def of(head: bytes, name: bytes) -> list[bytes]:
    rows = (row.partition(b": ") for row in head.split(b"\r\n")[1:])
    return [value for found, _, value in rows if found.lower() == name]


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What reaches the exchange of accounts."""
    found: list[Request] = []
    answer = Accounts.answer

    def noted(self: Accounts, request: Request, now_ms: int) -> Response | None:
        if "x-mbx-apikey" in request.headers:
            found.append(request)
        return answer(self, request, now_ms)

    monkeypatch.setattr(Accounts, "answer", noted)
    return found


def account_target(extra: str = "") -> str:
    """A query in an odd order and with odd escapes, which a rewriting would spoil."""
    query = f"timestamp=1&z=%7E~%2f&a=b+c&recvWindow=60000{extra}"
    return f"/binance/api/v3/account?{query}&signature={sign(query)}"


async def test_a_signed_question_and_its_answer_are_passed_as_they_are(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with spot() as stack:
        target = account_target()
        head, body = await ask(
            stack,
            f"GET {target}",
            f"X-MBX-APIKEY: {API_KEY}",
            "User-Agent: a bot",
            "Accept-Encoding: deflate",
            "X-Forwarded-For: 192.0.2.1",
            "Cookie: a=b",
            "Keep-Alive: 5",
            BEARER,
        )
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body)["balances"][0]["asset"] == "USDT"
        (request,) = arrived
        assert request.target == target.removeprefix("/binance").encode()
        assert request.headers == {
            "host": "exchange",
            "x-mbx-apikey": API_KEY,
            "user-agent": "a bot",
            "accept-encoding": "deflate",
        }
        assert of(head, b"x-mbx-used-weight-1m") != []  # the exchange's count, and once
        assert len(of(head, b"x-mbx-used-weight-1m")) == len(of(head, b"date")) == 1
        assert of(head, b"x-mbx-order-count-1m") == [b"0"]
        assert of(head, b"content-type") == [b"application/json;charset=UTF-8"]


async def test_an_order_in_a_body(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with spot() as stack:
        query, rest = "symbol=BTCUSDT&side=BUY", "type=MARKET&quantity=1&timestamp=5"
        body = f"{rest}&signature={sign(query + rest)}".encode()
        head, answer = await ask(
            stack,
            f"POST /binance/api/v3/order?{query}",
            f"X-MBX-APIKEY: {API_KEY}",
            "Content-Type: application/x-www-form-urlencoded",
            BEARER,
            body=body,
        )
        assert head.startswith(b"HTTP/1.1 200"), answer
        assert json.loads(answer)["status"] == "FILLED"
        assert arrived[0].body == body
        assert len(stack.exchange.accounts.orders) == 1
        head, answer = await ask(
            stack, "POST /binance/api/v3/order?a=1&signature=no", f"X-MBX-APIKEY: {API_KEY}", BEARER
        )
        assert (head[:12], json.loads(answer)["code"]) == (b"HTTP/1.1 400", -1022)  # its own error


async def test_strangers_are_not_let_in(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with spot() as stack:
        for door in ("X: y", "Authorization: Bearer tfk_no", "Authorization: Basic abc"):
            head, body = await ask(
                stack, f"GET {account_target()}", f"X-MBX-APIKEY: {API_KEY}", door
            )
            assert head.startswith(b"HTTP/1.1 401")
            assert json.loads(body)["code"] == -2015
            assert b"tfk_" not in body
        assert arrived == []


async def test_who_is_of_this_machine(autojump_clock: MockClock) -> None:
    async with spot() as stack:
        mount = stack.ready.app.mounts["binance"]
        errand = mount.errands["GET", "/api/v3/account"]
        passing: Passing = errand.__self__.passing  # type: ignore[attr-defined]
        assert passing.let_in(Question("", host="127.0.0.1")) is None
        assert passing.let_in(Question("", host="::1")) is None
        for brought in (b"x-forwarded-for", b"forwarded", b"via"):  # a proxy before us
            with pytest.raises(AuthError):
                passing.let_in(Question("", host="127.0.0.1", fields=[(brought, b"1")]))
        with pytest.raises(AuthError):
            passing.let_in(Question("", host="192.0.2.1"))


async def test_without_the_setting_the_error_names_it(autojump_clock: MockClock) -> None:
    async with spot(entries=[]) as stack:
        for first, named, upgrade in (
            ("GET /binance/api/v3/account?signature=x", "GET /api/v3/account", ()),
            ("POST /binance/api/v3/order", "POST /api/v3/order", ()),
            ("DELETE /binance/api/v3/order", "DELETE /api/v3/order", ()),
            ("GET /binance/ws-api/v3", "WS /ws-api/v3", UPGRADE),
            (f"GET /binance/ws/{LISTEN_KEY}", "WS /ws/<listenKey>", UPGRADE),
            (f"GET /binance/stream?streams={LISTEN_KEY}", "WS /stream", UPGRADE),
        ):
            head, body = await ask(stack, first, BEARER, *upgrade)
            assert head.startswith(b"HTTP/1.1 404"), first
            error = json.loads(body)
            assert error["code"] == -1020
            assert f"dialects.binance.passthrough = ['{named}']" in error["msg"]
            assert LISTEN_KEY not in error["msg"]


UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip


async def test_a_path_written_otherwise_is_not_passed_on(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with spot() as stack:
        head, _ = await ask(
            stack, "GET /binance/api/v3/%61ccount", f"X-MBX-APIKEY: {API_KEY}", BEARER
        )
        assert head.startswith(b"HTTP/1.1 401")
        assert arrived == []


async def test_only_the_method_that_is_listed(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with spot() as stack:
        for method in ("HEAD", "DELETE", "PUT"):
            words = f"{method} {account_target()}", f"X-MBX-APIKEY: {API_KEY}", BEARER
            head, _ = await ask(stack, *words)
            assert head.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405")), head
        assert arrived == []


async def test_no_room_in_the_budget(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with spot(".connection.rest_weight_per_minute=60") as stack:
        words = f"GET {account_target()}", f"X-MBX-APIKEY: {API_KEY}", BEARER
        heads = [await ask(stack, *words) for _ in range(5)]
        refused = [(head, body) for head, body in heads if head.startswith(b"HTTP/1.1 429")]
        assert refused != []
        assert len(arrived) + len(refused) == 5
        head, body = refused[-1]
        (after,) = of(head, b"retry-after")
        assert json.loads(body)["code"] == -1003
        await trio.sleep(int(after))
        assert (await ask(stack, *words))[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("status", [429, 418])
async def test_the_exchanges_limit_counts_for_everybody(
    status: int, arrived: list[Request], autojump_clock: MockClock
) -> None:
    async with spot() as stack:
        words = f"GET {account_target()}", f"X-MBX-APIKEY: {API_KEY}", BEARER
        stack.exchange.rest_status(status)
        head, body = await ask(stack, *words)
        assert head.startswith(f"HTTP/1.1 {status}".encode())  # its own, unchanged
        assert of(head, b"retry-after") != []
        rest = stack.ready.venues.running[0].rest
        assert rest is not None
        with pytest.raises(Exception, match="wants no calls"):
            await rest.get("/api/v3/time", {})
        head, body = await ask(stack, *words)
        assert (head[:12], json.loads(body)["code"]) == (b"HTTP/1.1 429", -1003)
        assert arrived == []


async def test_only_what_may_be_repeated_is_repeated(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A connection that ends before an answer: a GET is asked again, an order never."""
    import httpcore

    tried: list[str] = []

    async def ended(self: HttpPool, method: str, target: bytes, asked: Any) -> Any:
        tried.append(method)
        raise httpcore.RemoteProtocolError("Server disconnected")

    monkeypatch.setattr(HttpPool, "_pass_on", ended)
    async with spot() as stack:
        for first in (f"GET {account_target()}", "POST /binance/api/v3/order?secret=1"):
            head, body = await ask(stack, first, f"X-MBX-APIKEY: {API_KEY}", BEARER)
            assert (head[:12], json.loads(body)["code"]) == (b"HTTP/1.1 504", -1007)
            assert b"secret" not in body
    assert tried == ["GET", "GET", "POST"]


async def test_an_exchange_that_is_not_in_reach(autojump_clock: MockClock) -> None:
    async with spot() as stack:
        stack.network.down.add(("exchange", 80))
        head, body = await ask(
            stack, "POST /binance/api/v3/order", f"X-MBX-APIKEY: {API_KEY}", BEARER
        )
        assert (head[:12], json.loads(body)["code"]) == (b"HTTP/1.1 503", -1001)
        assert b"Not sent" in body


async def test_a_large_body_is_refused(arrived: list[Request], autojump_clock: MockClock) -> None:
    async with spot() as stack:
        head, _ = await ask(
            stack,
            "POST /binance/api/v3/order",
            f"X-MBX-APIKEY: {API_KEY}",
            BEARER,
            body=bytes(300_000),
        )
        assert head.startswith(b"HTTP/1.1 413")
        assert arrived == []


async def test_a_body_without_an_end_is_refused_once(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with spot() as stack:
            host, _, port = stack.ready.address.rpartition(":")
            stream = await stack.network.dial(host, int(port))
            head = f"POST /binance/api/v3/order HTTP/1.1\r\nHost: {host}:{port}\r\n{BEARER}\r\n"
            chunk = b"80000\r\n" + bytes(0x80000) + b"\r\n"
            await stream.send_all(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk)
            answer = await until_closed(stream)
            assert answer.startswith(b"HTTP/1.1 413")
            assert answer.count(b"HTTP/1.1") == 1
    assert arrived == []
    assert [line for line in logs if line["event"] == "client.crashed"] == []


async def until(there: Callable[[], bool]) -> None:
    with trio.fail_after(300):
        while True:
            if there():
                return
            await trio.sleep(1)


@asynccontextmanager
async def tunnel(stack: Stack, path: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    async with trio.open_nursery() as nursery:
        name, _, value = BEARER.partition(": ")
        yield await trio_websocket.wrap_client_stream(
            nursery, stream, f"{host}:{port}", path, extra_headers=[(name.encode(), value.encode())]
        )
        nursery.cancel_scope.cancel()


def api_request(method: str, number: int, **params: str) -> str:
    params = {"apiKey": API_KEY, "timestamp": "1", **params}
    payload = "&".join(f"{name}={params[name]}" for name in sorted(params))
    return json.dumps(
        {"id": number, "method": method, "params": {**params, "signature": sign(payload)}}
    )


async def test_requests_and_an_accounts_events_over_tunnels(autojump_clock: MockClock) -> None:
    async with spot() as stack:
        async with (
            tunnel(stack, "/binance/ws-api/v3") as api,
            tunnel(stack, f"/binance/ws/{LISTEN_KEY}") as events,
        ):
            await api.send_message("{")
            assert json.loads(await api.get_message())["error"]["code"] == -1135
            await api.send_message(api_request("account.status", 1))
            assert json.loads(await api.get_message())["result"]["accountType"] == "SPOT"
            order = api_request("order.place", 2, symbol="BTCUSDT", side="BUY", quantity="1")
            await api.send_message(order)
            # The box tells all sockets of an account, those of requests too.
            kinds = [json.loads(await api.get_message()) for _ in range(2)]
            assert {2, None} == {each.get("id") for each in kinds}
            event = json.loads(await events.get_message())
            assert (event["e"], event["X"]) == ("executionReport", "FILLED")
            assert len(stack.exchange.accounts.sockets) == 2
        await until(lambda: not stack.exchange.accounts.sockets)


async def test_requests_in_a_tunnel_use_the_budget(
    arrived: list[Request], autojump_clock: MockClock
) -> None:
    """They pass, whatever is left; what is asked by REST has to wait then."""
    async with spot(".connection.rest_weight_per_minute=60") as stack:
        await trio.sleep(60)
        words = f"GET {account_target()}", f"X-MBX-APIKEY: {API_KEY}", BEARER
        assert (await ask(stack, *words))[0].startswith(b"HTTP/1.1 200")
        async with tunnel(stack, "/binance/ws-api/v3") as api:
            for number in range(5):
                await api.send_message(api_request("account.status", number))
                assert json.loads(await api.get_message())["id"] == number
        refused, body = await ask(stack, *words)
        assert refused.startswith(b"HTTP/1.1 429")
        assert json.loads(body)["code"] == -1003
        await trio.sleep(121)  # no more than a minute of debt
        assert (await ask(stack, *words))[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("text", "spot", "usdm"),
    [
        ('{"method":"account.status","params":{"apiKey":"k"}}', 20, 5),
        ('{"method":"order.place"}', 1, 1),
        ('{"method":"no.such"}', 1, 1),
        ("{", 1, 1),
        ("[" * 5000, 1, 1),
        ('{"method":5}', 1, 1),
        ("\ud800", 1, 1),
    ],
)
def test_what_a_request_weighs(text: str, spot: int, usdm: int) -> None:
    assert weight_of_request(text, spot=True) == spot
    assert weight_of_request(text, spot=False) == usdm


async def test_a_tunnel_ends_with_the_exchanges_side(autojump_clock: MockClock) -> None:
    async with spot() as stack, tunnel(stack, f"/binance/ws/{LISTEN_KEY}") as events:
        await until(lambda: bool(stack.exchange.accounts.sockets))
        stack.exchange.accounts.sockets[0].close(1001, "going away")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await events.get_message()
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (1001, "going away")


async def test_binary_messages_stay_as_they_are(autojump_clock: MockClock) -> None:
    async with spot() as stack, tunnel(stack, f"/binance/ws/{LISTEN_KEY}") as events:
        await until(lambda: bool(stack.exchange.accounts.sockets))
        for size in (0, 3, 200, 70_000):
            data = (b"\xff\x00\x80" * (size // 3 + 1))[:size]
            stack.exchange.accounts.sockets[0].offer(binary_frame(data))
            assert await events.get_message() == data
        await events.send_message(b"\xff")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await events.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1003


async def test_a_tunnel_to_nowhere_is_closed(autojump_clock: MockClock) -> None:
    async with spot() as stack:
        stack.network.down.add(("exchange", 80))
        async with tunnel(stack, "/binance/ws-api/v3") as api:
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await api.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1013


async def test_a_revoked_key_ends_its_tunnel(autojump_clock: MockClock) -> None:
    from attrs import evolve

    async with spot() as stack, tunnel(stack, "/binance/ws-api/v3") as api:
        await api.send_message(api_request("ping", 1))
        await api.get_message()
        auth = stack.ready.app.context.access.settings
        stack.ready.app.replace_keys(evolve(auth, api_keys=()), ())
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await api.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 4401


async def test_a_token_that_expires_ends_its_tunnel(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    secret = "0123456789abcdef" * 2
    more = ("auth.jwt.algorithm=HS256", f"auth.jwt.secret={secret}")
    async with spot(*more) as stack:
        claims = {"sub": "1", "exp": int(virtual_now_ms() / 1000) + 100}
        bearer = f"Authorization: Bearer {jwt.encode(claims, secret, algorithm='HS256')}"
        monkeypatch.setattr("test_dialect_passing.BEARER", bearer)
        async with tunnel(stack, "/binance/ws-api/v3") as api:
            await api.send_message(api_request("ping", 1))
            await api.get_message()
            with pytest.raises(trio_websocket.ConnectionClosed) as closed, trio.fail_after(200):
                await api.get_message()
            reason = closed.value.reason
            assert reason is not None
            assert (reason.code, reason.reason) == (4401, "the token has expired")


async def test_nothing_but_method_path_and_status_is_logged(
    capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    async with spot() as stack:
        capsys.readouterr()
        await ask(stack, f"GET {account_target('&x=SECRET')}", f"X-MBX-APIKEY: {API_KEY}", BEARER)
        async with tunnel(stack, f"/binance/ws/{LISTEN_KEY}"):
            await trio.sleep(1)
    said = capsys.readouterr().out
    assert "dialect.passed_on" in said
    for secret in ("SECRET", "signature", LISTEN_KEY, API_KEY, TOKEN):
        assert secret not in said


def test_charts_sign_nothing() -> None:
    with pytest.raises(SettingsError, match=r"dialects.udf.passthrough: charts"):
        load(assignments=["dialects.udf.passthrough=['GET /x']"])


@pytest.mark.parametrize(
    "entry", ["/api/v3/order", "PATCH /x", "GET /a?b", "GET /a/../b%2f", "get /a", "GET "]
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"dialects.binance.passthrough.0"):
        load(assignments=[f"dialects.binance.passthrough={json.dumps([entry])}"])


async def test_a_listen_key_is_kept_alive(autojump_clock: MockClock) -> None:
    """The documented entries: a key that nobody keeps alive ends after an hour."""
    keep = "PUT /api/v3/userDataStream"
    async with spot(entries=[*ENTRIES, keep]) as stack:
        target = f"PUT /binance/api/v3/userDataStream?listenKey={LISTEN_KEY}"
        head, body = await ask(stack, target, BEARER, f"X-MBX-APIKEY: {API_KEY}")
        assert (head.split(b" ")[1], body) == (b"200", b"{}")
