"""What HTTP answers: JSON with the protocol's codes where it refuses, and pages of others that may
read it (CORS).  In the whole service under virtual time."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve, frozen
from support.stack import Stack, open_stack, settings_for_tests
from test_app import a_client
from test_server import KEY, UPGRADE, until_closed
from trio.testing import MockClock

from trio_feed.push.fanout.hub import Hub

PAGE = "http://localhost:3000"
"""Of somebody who tries the README's JavaScript."""
OPEN_TO_PAGE = f'server.allowed_origins=["{PAGE}"]'


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


async def ask(
    stack: Stack, path: str, *fields: str, method: str = "GET", host: str = "push", raw: bytes = b""
) -> Answer:
    """One request on a connection of its own, which ends with the answer."""
    name, _, port = stack.ready.address.rpartition(":")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
    stream = await stack.network.dial(name, int(port))
    await stream.send_all(raw or ("\r\n".join(lines) + "\r\n\r\n").encode())
    start, _, body = (await until_closed(stream)).partition(b"\r\n\r\n")
    first, *rest = start.decode().split("\r\n")
    headers = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in rest}
    assert int(headers.get("content-length", len(body))) == len(body) or method == "HEAD"
    return Answer(int(first.split()[1]), headers, body)


@asynccontextmanager
async def running(*assignments: str) -> AsyncIterator[Stack]:
    """The service, ready."""
    async with open_stack(settings_for_tests(*assignments)) as stack:
        await trio.sleep(90)
        yield stack


UPGRADING = (UPGRADE + KEY).decode().split("\r\n")[:-1]
REFUSED: dict[str, tuple[tuple[str, ...], dict[str, Any], int, int]] = {
    "another origin": (("/health", "Origin: http://evil.example"), {}, 403, 1002),
    "another host": (("/health",), {"host": "evil.example"}, 421, 1002),
    "twice": (("/health", "Upgrade: websocket", "Upgrade: websocket"), {}, 400, 1001),
    "no http": (("/",), {"raw": b"\x16\x03\x01\r\n\r\n"}, 400, 1001),
    "endless": (("/", "A: " + "a" * 20_000), {}, 431, 1001),
    "a large body": (("/", "Content-Length: 99999999"), {"method": "POST"}, 413, 1001),
    "no such page": (("/nothing",), {}, 404, 1001),
    "no such method": (("/health",), {"method": "DELETE"}, 405, 1001),
    "not a publisher": (("/api/v1/settlement/events",), {"method": "POST"}, 401, 1004),
    "a socket nowhere": (("/nothing", *UPGRADING), {}, 404, 1001),
    "a socket at a page": (("/api/v1/symbols", *UPGRADING), {}, 404, 1001),
    "a parameter": (("/ws?exchange=foo", *UPGRADING), {}, 400, 1001),
    "no upgrade": (("/ws",), {}, 426, 1001),
    "no key": (("/ws", *UPGRADING[:2]), {}, 426, 1001),
    "no version": (("/ws", *UPGRADING[:2], UPGRADING[3]), {}, 426, 1001),
    "no key but a version": (("/ws", *UPGRADING[:3]), {}, 400, 1001),
    "half an upgrade": (("/ws", UPGRADING[0]), {}, 426, 1001),
    "an old upgrade": (
        ("",),
        {"raw": b"GET /ws HTTP/1.0\r\nHost: push\r\n" + UPGRADE + KEY + b"\r\n"},
        400,
        1001,
    ),
    "a token": (("/ws?token=x", *(UPGRADE + KEY).decode().split("\r\n")[:-1]), {}, 400, 1004),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_refusal_is_json_with_a_code(what: str, autojump_clock: MockClock) -> None:
    fields, more, status, code = REFUSED[what]
    hosts = 'server.allowed_hosts=["push"]'
    async with running(hosts) as stack:
        answer = await ask(stack, *fields, **more)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.json["message"]
        if status != 401:
            head = await ask(stack, *fields, **{**more, "method": "HEAD"})
            assert head.body == b"" or "raw" in more or what == "endless"


async def test_an_answer_that_is_no_upgrade_says_how_to_upgrade(autojump_clock: MockClock) -> None:
    async with running() as stack:
        answer = await ask(stack, "/ws")
        assert answer.headers["upgrade"] == "websocket"
        assert "WebSocket endpoint" in answer.json["message"]
        named = await ask(stack, "/ws?exchange=foo", *UPGRADING)
        assert named.json["message"] == "'exchange': no parameter; there are none"
        nowhere = await ask(stack, "/stream", *UPGRADING)
        assert nowhere.json["message"].startswith("/stream: no WebSocket endpoint; it is /ws")


async def test_the_operators_port_has_no_socket(autojump_clock: MockClock) -> None:
    async with running('server.admin_host="admin"', "server.admin_port=81") as stack:
        stack = evolve(stack, ready=evolve(stack.ready, address=stack.ready.admin_address))
        answer = await ask(stack, "/ws", *UPGRADING)
        assert (answer.status, answer.json["code"]) == (404, 1001)


async def test_a_bug_in_a_route_is_answered_in_json(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as stack:
        async with a_client(stack) as client:  # it is up
            await client.ask(type="ping")
        monkeypatch.setattr(Hub, "find", None)
        answer = await ask(stack, "/api/v1/klines?symbol=BTCUSDT&interval=1m")
        assert (answer.status, answer.json["code"]) == (500, 1001)


async def test_one_client_too_many_is_answered_in_json(autojump_clock: MockClock) -> None:
    async with running("websocket.max_connections=1") as stack:
        async with a_client(stack):
            answer = await ask(stack, "/api/v1/symbols")
            ready = await ask(stack, "/ready?nocache=1")
            alive = await ask(stack, "/health")
        assert (answer.status, answer.json["code"]) == (503, 1005)
        assert answer.headers["retry-after"] == "5"
        assert (ready.status, ready.json) == (200, {"ready": True})
        assert (alive.status, alive.json) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/v1/klines?symbol=BTCUSDT&interval=1m&limits=5", "'limits': no parameter; one of "),
        ("/api/v1/klines?symbol=BTCUSDT&interval=1m&Limit=5", "'Limit': no parameter"),
        ("/api/v1/klines?symbol=BTCUSDT&symbol=ETHUSDT&interval=1m", "symbol: given twice"),
        ("/api/v1/symbols?exchange=okx", "'exchange': no parameter; there are none"),
        ("/api/v1/status?x", "'x': no parameter"),
        ("/api/v1/status?x=1", "'x': no parameter"),
        ("/metrics?name=up", "'name': no parameter"),
        ("/health?nocache=1", ""),
        ("/ready?nocache=1", ""),
    ],
)  # fmt: skip
async def test_parameters_that_mean_nothing(
    path: str, named: str, autojump_clock: MockClock
) -> None:
    async with running() as stack:
        answer = await ask(stack, path)
        if named:
            assert (answer.status, answer.json["code"]) == (400, 1001)
            assert answer.json["message"].startswith(named)
        else:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"symbol": "BTCUSD", "interval": "1m"}, 1003),
        ({"symbol": "BTCUSDT", "interval": "3m"}, 1003),
        ({"symbol": "BTCUSDT", "interval": "1m", "exchange": "okx"}, 1003),
        ({"symbol": "BTCUSDT", "interval": "7m"}, 1001),
        ({"symbol": "BTCUSDT"}, 1001),
        ({"interval": "1m"}, 1001),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 0}, 1001),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 5001}, 1001),
        ({"symbol": "BTCUSDT", "interval": "1m", "from": 9, "to": 8}, 1001),
        ({"symbol": "BTCUSDT", "interval": "1m", "channel": "trade"}, 1001),
    ],
)
async def test_the_same_fault_has_the_same_code_and_words(
    question: dict[str, Any], code: int, autojump_clock: MockClock
) -> None:
    async with running() as stack, a_client(stack) as client:
        await client.ask(type="history", **question)
        said = await client.next()
        query = "&".join(f"{name}={value}" for name, value in question.items())
        answer = await ask(stack, f"/api/v1/klines?{query}")
        assert answer.status == 400
        assert answer.json == {"code": said["code"], "message": said["message"]}
        assert said["code"] == code


async def test_pages_that_are_named_may_read_over_http(autojump_clock: MockClock) -> None:
    """The README's JavaScript, and a ``fetch``, in a page served from localhost."""
    async with running(OPEN_TO_PAGE) as stack:
        for path in ("/api/v1/symbols", "/ready", "/api/v1/klines?symbol=x", "/nothing"):
            answer = await ask(stack, path, f"Origin: {PAGE}")
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "origin" in answer.headers["vary"].lower()
        plain = await ask(stack, "/api/v1/symbols")
        assert "access-control-allow-origin" not in plain.headers
        upgrade = (UPGRADE + KEY).decode().split("\r\n")[:-1]
        name, _, port = stack.ready.address.rpartition(":")
        stream = await stack.network.dial(name, int(port))
        lines = ["GET /ws HTTP/1.1", "Host: push", f"Origin: {PAGE}", *upgrade]
        await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        await stream.aclose()


async def test_a_page_asks_before(autojump_clock: MockClock) -> None:
    """The preflight of a ``fetch`` with a header of its own."""
    async with running(OPEN_TO_PAGE) as stack:
        fields = (
            f"Origin: {PAGE}",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: content-type",
        )
        answer = await ask(stack, "/api/v1/klines", *fields, method="OPTIONS")
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "GET" in answer.headers["access-control-allow-methods"]
        assert "POST" not in answer.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in answer.headers


async def test_a_refused_preflight_is_json(autojump_clock: MockClock) -> None:
    async with running(OPEN_TO_PAGE) as stack:
        fields = (f"Origin: {PAGE}", "Access-Control-Request-Method: DELETE")
        answer = await ask(stack, "/api/v1/klines", *fields, method="OPTIONS")
        assert (answer.status, answer.json["code"]) == (400, 1001)
        assert answer.json["message"] == "Disallowed CORS method"
        assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
        assert answer.headers["access-control-allow-origin"] == PAGE


async def test_pages_that_are_not_named_may_not(autojump_clock: MockClock) -> None:
    async with running(OPEN_TO_PAGE) as stack:
        for origin in ("http://localhost:3001", "https://localhost:3000", "null"):
            for method in ("GET", "OPTIONS"):
                asked = (f"Origin: {origin}", "Access-Control-Request-Method: GET")
                answer = await ask(stack, "/api/v1/symbols", *asked, method=method)
                assert answer.status == 403
                assert "access-control-allow-origin" not in answer.headers


async def test_all_pages_may_where_all_are_named(autojump_clock: MockClock) -> None:
    async with running('server.allowed_origins=["*"]') as stack:
        answer = await ask(stack, "/api/v1/symbols", "Origin: http://anywhere.example")
        assert answer.headers["access-control-allow-origin"] == "*"
