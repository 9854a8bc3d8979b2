"""Request heads at the server's access, over memory streams on virtual time."""

import json
from typing import Any

import pytest
import structlog
import trio
from attrs import evolve
from test_server import KEY, LIMITS, UPGRADE, App, get, head, served, until_closed
from trio.testing import MockClock

from trio_feed.push.edge.admission import admission
from trio_feed.push.edge.admission_check import AdmissionRules

LOCAL = AdmissionRules(admission("127.0.0.1", (), ("https://app.example.com",), tls=False))
DEFLATING = AdmissionRules(deflate=True)
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def from_page(host: bytes, origin: bytes = b"") -> bytes:
    fields = b"Host: " + host + b"\r\n" + (b"Origin: " + origin + b"\r\n" if origin else b"")
    return b"GET / HTTP/1.1\r\n" + fields


@pytest.mark.parametrize("kind", [b"", UPGRADE + KEY])
async def test_only_known_hosts_and_origins_come_in(kind: bytes, autojump_clock: MockClock) -> None:
    welcome = b"101" if kind else b"200"
    asked = {
        from_page(b"localhost:8080"): welcome,
        from_page(b"localhost:8080", b"http://localhost:8080"): welcome,
        from_page(b"localhost:8080", b"https://app.example.com"): welcome,
        from_page(b"localhost:8080", b"http://evil.example"): b"403",
        from_page(b"localhost:8080", b"null"): b"403",
        from_page(b"evil.example:8080", b"http://evil.example:8080"): b"421",
        from_page(b"evil.example"): b"421",
    }
    app = App()
    async with served(app, evolve(LIMITS, max_connections=99), rules=LOCAL) as running:
        for request, status in asked.items():
            assert (request, await running.ask(request + kind + b"\r\n")) == (request, status)
        assert running.refused() == {"origin": 2, "host": 2}
        embedded = b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"
        request = from_page(b"localhost:8080") + embedded + kind + b"\r\n"
        assert await running.ask(request) == b"403"
        assert running.refused()["cross_site"] == 1
    assert len(app.seen) == 3  # the app never saw the others


async def test_every_request_of_a_connection_is_checked(autojump_clock: MockClock) -> None:
    async with served(App(), rules=LOCAL) as running:
        stream = await running.dial()
        await stream.send_all(from_page(b"localhost") + b"\r\n")
        answer = await head(stream)
        while not answer.endswith(b"fine"):
            answer += await stream.receive_some()
        await stream.send_all(from_page(b"evil.example") + b"\r\n")
        assert b" 421 " in await head(stream)


async def test_refusals_are_sampled_in_the_log_and_say_what_to_do(
    autojump_clock: MockClock,
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with served(App(), rules=LOCAL) as running:
            for _ in range(20):
                await running.ask(from_page(b"evil.example") + b"\r\n")
            assert running.refused() == {"host": 20}
    lines = [entry for entry in logs if entry["event"] == "client.refused"]
    assert len(lines) == 3
    assert lines[0]["what"] == "evil.example"
    assert lines[0]["hint"] == "name it in server.allowed_hosts"


@pytest.mark.parametrize(
    "twice", [b"Origin: http://x\r\n", KEY, b"Upgrade: websocket\r\n", b"Host: x\r\n"]
)
async def test_fields_that_may_be_there_once(twice: bytes, autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        assert await running.ask(get(UPGRADE, KEY, twice, twice)) == b"400"


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"1.1"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"1.1"),
        (b"Transfer-Encoding: chunked\r\n", b"1.0"),
    ],
)
async def test_a_body_whose_end_is_a_matter_of_opinion(
    fields: bytes, version: bytes, autojump_clock: MockClock
) -> None:
    """A proxy before us that counts otherwise would take the second request for a body."""
    app = App()
    async with served(app) as running:
        stream = await running.dial()
        smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        head_of_it = b"POST / HTTP/" + version + b"\r\nHost: x\r\n" + fields + b"\r\n"
        await stream.send_all(head_of_it + smuggled)
        answer = await until_closed(stream)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert running.refused() == {"malformed": 1}
    assert app.seen == []


@pytest.mark.parametrize("size", [1000, 1001])
async def test_the_bound_of_a_head_that_comes_in_one_read(
    size: int, autojump_clock: MockClock
) -> None:
    """And the next one's; what is behind a head, and a body before it, are not of it."""
    small = get()
    padding = b"A: " + b"a" * (size - len(small) - len(b"A: \r\n")) + b"\r\n"
    whole = get(padding)
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + b"x" * 900
    assert len(whole) == size
    async with served(App(), evolve(LIMITS, max_head_bytes=1000)) as running:
        assert await running.ask(whole) == (b"200" if size == 1000 else b"431")
        stream = await running.dial()
        await stream.send_all(post + post + whole)
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 3:
            answers += await stream.receive_some()
        assert answers.count(b"HTTP/1.1 200") == (3 if size == 1000 else 2)
        assert running.refused() == ({} if size == 1000 else {"head": 2})


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (b"AAAAAAAAAAAAAAAAAAAAAA==", b"101"),
        (b"AAAAAAAAAAAAAAAAAAAAAA", b"400"),  # no base64
        (b"AAAAAAAAAAAAAAAAAAAAAAA=", b"400"),  # 17 bytes
        (b"AAAAAAAAAAAAAAAAAAAA", b"400"),  # 15
        (b"AAAAAAAAAAAAAAAAAAAA AA==", b"400"),
        (b"x", b"400"),
        (b"\xff" * 24, b"400"),
    ],
)
async def test_a_websocket_key_is_16_bytes(
    key: bytes, status: bytes, autojump_clock: MockClock
) -> None:
    async with served(App()) as running:
        upgrade = UPGRADE + KEY.replace(b"A" * 22 + b"==", key)
        assert await running.ask(get(upgrade)) == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"Content-Length: 0\r\n", b"101"),
        (b"Content-Length: 7\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n", b"400"),
    ],
)
async def test_an_upgrade_has_no_body(
    body: bytes, status: bytes, autojump_clock: MockClock
) -> None:
    app = App()
    async with served(app) as running:
        assert await running.ask(get(UPGRADE, KEY, body)) == status
    assert len(app.seen) == (status == b"101")


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 101\r\n\r\n",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3c\r\n" + b"x" * 60 + b"\r\n3c\r\n" + b"x" * 60,
    ],
)
async def test_body_beyond_its_bound(body: bytes, autojump_clock: MockClock) -> None:
    async def swallow(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    app = App()
    app.handlers["/"] = swallow
    async with served(app, evolve(LIMITS, max_body_bytes=100)) as running:
        post = b"POST / HTTP/1.1\r\nHost: x\r\n"
        assert await running.ask(post + body) == b"413"
        assert running.refused() == {"body": 1}


async def test_body_within_its_bound_in_time(autojump_clock: MockClock) -> None:
    async def size(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await trio.sleep(60)  # the time of the body is not the time of the answer
        await send({"type": "http.response.start", "status": 200 + len(body), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = App()
    app.handlers["/"] = size
    async with served(app, evolve(LIMITS, max_body_bytes=10, body_timeout_s=5)) as running:
        stream = await running.dial()
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await trio.sleep(0.4)
            await stream.send_all(b"x")
        assert b" 210 " in await head(stream)


async def test_slow_body_is_dropped(autojump_clock: MockClock) -> None:
    async def swallow(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    app = App()
    app.handlers["/"] = swallow
    async with served(app, evolve(LIMITS, body_timeout_s=5)) as running:
        stream = await running.dial()
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, stream)
            assert await until_closed(stream) == b""
            nursery.cancel_scope.cancel()
        assert trio.current_time() <= 6
        assert running.refused() == {"slow_body": 1}


async def drip(stream: Any) -> None:
    while True:
        await trio.sleep(0.5)
        await stream.send_all(b"x")


async def test_slow_head_is_counted(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        await until_closed(await running.dial())
        assert running.refused() == {"slow_head": 1}


async def test_compression_is_agreed_to_where_it_is_on(autojump_clock: MockClock) -> None:
    app = App()
    async with served(app, rules=DEFLATING) as running:
        stream = await running.dial()
        await stream.send_all(get(UPGRADE, KEY, OFFER))
        assert (
            b"\r\nsec-websocket-extensions: permessage-deflate; server_no_context_takeover;"
            b" client_no_context_takeover\r\n"
        ) in (await head(stream)).lower()
        plain = await running.dial()
        await plain.send_all(get(UPGRADE, KEY))
        assert b"extensions" not in (await head(plain)).lower()
        bad = await running.dial()
        await bad.send_all(get(UPGRADE, KEY, OFFER.replace(b"bits", b"bits=abc")))
        assert b"extensions" not in (await head(bad)).lower()
    assert [client.deflated for client in app.clients] == [True, False, False]


async def test_offers_in_several_fields_are_one_list(autojump_clock: MockClock) -> None:
    async with served(App(), rules=DEFLATING) as running:
        stream = await running.dial()
        other = b"Sec-WebSocket-Extensions: x-other\r\n"
        await stream.send_all(get(UPGRADE, KEY, other, OFFER))
        assert b"permessage-deflate" in await head(stream)


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400", b"Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9_000, b"431", b"more than 1000 bytes"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\n\r\n",
            b"403",
            b"server.allowed_origins",
        ),
        (get(UPGRADE, KEY.replace(b"13", b"8")), b"426", b"only 13 is spoken"),
    ],
)
async def test_a_refusal_says_what_is_wrong(
    sent: bytes, status: bytes, said: bytes, autojump_clock: MockClock
) -> None:
    async with served(App(), evolve(LIMITS, max_head_bytes=1000)) as running:
        stream = await running.dial()
        await stream.send_all(sent)
        answer = await until_closed(stream)
    assert answer.startswith(b"HTTP/1.1 " + status)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert said in json.loads(body)["message"].encode()
    assert (b"sec-websocket-version: 13" in head.lower()) is (status == b"426")
