"""Whatever a remote says (REST answers, proxies' replies, answers to an upgrade): only our own
errors come out, and what it names of time and weight is bounded."""

import gzip
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.memory import MemoryNetwork
from test_rest import Exchange, answer, client_of
from test_websocket import Peer, frame

from trio_feed import errors
from trio_feed.instants import Mono
from trio_feed.net.budgets import Weights
from trio_feed.net.limits import LONGEST_BAN_S, FrameBudget
from trio_feed.net.proxy import Proxy
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Route
from trio_feed.net.tunnel import open_tunnel
from trio_feed.net.websocket import Deadlines, open_websocket
from trio_feed.rest_dialects import MOST_WEIGHT, HttpDialect, RestDialect, whole_number
from trio_feed.settings import ProxySettings, Secret
from trio_feed.venues.binance.spot import DIALECT as BINANCE
from trio_feed.venues.okx.venue import DIALECT as OKX

FUZZ = settings(deadline=None, max_examples=150)
PER_MINUTE = 60

NUMBERS = st.sampled_from(
    ["0", "-1", "7", "1e9", "9" * 18, "9" * 21, "9" * 5_000, "\u00b2", "0x10", "+5", "1_000", ""]
)
DATES = st.sampled_from(
    [
        "Fri, 15 Jan 2027 08:00:00 GMT", "Fri, 15 Jan 9999 23:59:60 -9999", "0", ",", "\xa0",
        "Fri, 99 Jan 2027 08:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Mon, 1 Jan 1 1:1 X",
        "Fri, 15 Jan 2027 " + "9" * 5_000 + ":00:00 GMT", "Sun, 06 Nov 1994 08:49:37 " + "(" * 500,
        "Fri, 15 Jan " + "9" * 5_000 + " 08:00:00 GMT",
    ]
)  # fmt: skip
LATIN = st.text(st.characters(codec="latin-1"), max_size=40)
PLACES_AND_COOKIES = st.sampled_from(
    [
        "http://[::1", "//:99999/", "http://x:" + "9" * 5_000, "http://\xff/", "http://\xad",
        "a=b; expires=" + "9" * 5_000, "a=b; Max-Age=" + "9" * 5_000, 'a=b; port="9,x"',
        "a=b; version=" + "9" * 5_000, "x" * 70_000,
    ]
)  # fmt: skip
VALUES = NUMBERS | DATES | LATIN | PLACES_AND_COOKIES
NAMES = st.sampled_from(
    [
        "X-MBX-USED-WEIGHT-1M", "Retry-After", "Date", "Age", "Content-Encoding", "Location",
        "Set-Cookie", "Content-Length", "Transfer-Encoding", "Connection", "Server",
    ]
)  # fmt: skip
BODIES = (
    st.sampled_from(
        [
            b'{"x":' + b"[" * 100_000, b"[" * 100_000, b'{"code":' + b"9" * 5_000 + b"}",
            b'{"code":-1003,"msg":"IP banned until 9999999999999."}', b'{"code":"50011","msg":""}',
            b"banned until " + b"9" * 5_000, b'{"msg":"\\ud800"}', b'{"code":1e999999}', b"null",
            gzip.compress(b"x" * 1_000), b"\xff\xfe", b"",
        ]
    )
    | st.binary(max_size=60)
)  # fmt: skip
STATUSES = st.sampled_from([200, 204, 302, 304, 400, 403, 418, 429, 451, 500, 503]) | st.integers(
    0, 1200
)


@st.composite
def http(draw: Any, first: st.SearchStrategy[int] = STATUSES) -> bytes:
    """An answer that is nearly HTTP."""
    lines = [f"HTTP/1.1 {draw(first)} {draw(LATIN)}"]
    for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=5)):
        lines.append(f"{name}: {value}")
    body = draw(BODIES)
    if draw(st.booleans()):
        lines.append(f"Content-Length: {len(body)}")
    raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.integers(0, 9)) == 0 else raw


def on_virtual_time(work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    with structlog.testing.capture_logs():
        trio.run(work, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))


async def serve(network: MemoryNetwork, host: str, port: int, reply: bytes, **started: Any) -> None:
    """Every connection is sent ``reply``, and then the peer hangs up."""
    (listener,) = await network.listen(host, port)
    started["task_status"].started()
    while True:
        stream = await listener.accept()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.receive_some()
            await stream.send_all(reply)
        await stream.aclose()


# ---------------------------------------------------------------- REST


@FUZZ
@given(http(), st.sampled_from([BINANCE, OKX, HttpDialect()]))
@example(b"HTTP/1.1 200 OK\r\nX-MBX-USED-WEIGHT-1M: " + b"9" * 5_000 + b"\r\n\r\n[]", BINANCE)
@example(b"HTTP/1.1 400 Bad\r\n\r\n" + b'{"x":' + b"[" * 100_000, BINANCE)
@example(b"HTTP/1.1 400 Bad\r\n\r\n" + b'{"x":' + b"[" * 100_000, OKX)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n[]", BINANCE)
@example(b"HTTP/1.1 418 X\r\nRetry-After: " + b"9" * 5_000 + b"\r\n\r\n", BINANCE)
def test_rest_answers(reply: bytes, dialect: RestDialect) -> None:
    async def ask() -> None:
        network, weights = MemoryNetwork(), Weights(PER_MINUTE)
        way = Route(network.dial, ProxySettings(), None, "", 5)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, network, "x", 80, reply)
            async with open_rest(
                "http://x", route=way, timeout_s=10, weights=weights, dialect=dialect
            ) as client:
                with suppress(errors.RestError):
                    await client.get("/x", {"symbol": "币安人生USDT"})
            nursery.cancel_scope.cancel()
        now = Mono(trio.current_time())
        assert weights.bans.left_s(now) <= LONGEST_BAN_S
        assert weights.at("direct").delay_s(1, now) <= 61 + 1  # a minute's refill, and one more

    on_virtual_time(ask)


async def test_half_a_character_in_an_answer_costs_that_character(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It can be written neither to the store nor to a client, and JSON parsers refuse it."""
    exchange = Exchange(
        answer(body=rb'["\ud83d\ude00", "\\ud800", "x\ud800", "\uDC00\ud83d\ude00"]')
    )
    async with client_of(exchange) as client:
        body = (await client.get("/x", {})).body
    assert json.loads(body) == ["\U0001f600", r"\ud800", "x\ufffd", "\ufffd\U0001f600"]


@pytest.mark.parametrize("used", ["9" * 5_000, "9" * 18, str(MOST_WEIGHT)])
async def test_an_absurd_weight_is_bounded_and_said_and_asked_again(
    used: str, autojump_clock: trio.abc.Clock
) -> None:
    weights, exchange = Weights(PER_MINUTE), Exchange(answer(X_MBX_USED_WEIGHT_1M=used))
    with structlog.testing.capture_logs() as logs, trio.fail_after(600):
        async with client_of(exchange, weights=weights) as client:
            for _ in range(3):
                assert (await client.get("/x", {})).body == b"[]"
    assert trio.current_time() == pytest.approx(2 * 61)
    said = [line for line in logs if line["event"] == "rest.odd_answer"]
    assert [line["part"] for line in said] == ["weight"] * 3  # a minute apart
    assert str(MOST_WEIGHT) in said[0]["problem"]


async def test_an_odd_part_does_not_spoil_the_answer_and_is_said_once_a_minute(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Odd(HttpDialect):
        def used_weight(self, headers: Any) -> int | None:
            return int(headers["x-weight"])

    exchange = Exchange(answer(X_Weight="9" * 5_000))
    with structlog.testing.capture_logs() as logs:
        async with client_of(exchange, dialect=Odd()) as client:
            for _ in range(5):
                assert (await client.get("/x", {})).body == b"[]"
    (line,) = [line for line in logs if line["event"] == "rest.odd_answer"]
    assert (line["host"], line["part"]) == ("api.exchange", "weight")


@pytest.mark.parametrize("body", [b'{"x":' + b"[" * 100_000, b"[" * 100_000])
async def test_a_deeply_nested_refusal_is_a_refusal(
    body: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with client_of(Exchange(answer(400, body))) as client:
        with pytest.raises(errors.RestRefused) as caught:
            await client.get("/x", {})
    assert (caught.value.status, caught.value.code) == (400, None)


@pytest.mark.parametrize("status", [200, 429])
async def test_okx_says_too_many_in_its_own_code(
    status: int, autojump_clock: trio.abc.Clock
) -> None:
    busy = answer(status, b'{"code":"50011","msg":"Rate limit reached","data":[]}')
    exchange = Exchange(busy, answer())
    async with client_of(exchange, dialect=OKX) as client:
        with pytest.raises(errors.RateLimited, match="no calls for 60 s"):
            await client.get("/x", {})
        await trio.sleep(61)
        assert (await client.get("/x", {})).body == b"[]"


async def test_net_knows_no_venues_words(autojump_clock: trio.abc.Clock) -> None:
    """Without Binance's dialect its 418 is a refusal as any other, and its header says nothing."""
    weights = Weights(PER_MINUTE)
    exchange = Exchange(answer(418, b"banned until 1800000099000", X_MBX_USED_WEIGHT_1M="60"))
    async with client_of(exchange, weights=weights, dialect=HttpDialect()) as client:
        for _ in range(2):
            with pytest.raises(errors.RestRefused):
                await client.get("/x", {})
    assert trio.current_time() == 0


@given(st.text(max_size=40) | NUMBERS, st.integers(0, 10**9))
def test_whole_numbers(text: str, most: int) -> None:
    number = whole_number(text, most=most)
    if text.isascii() and text.isdigit():
        expected = most if len(text.lstrip("0")) > 20 else min(int(text.lstrip("0") or "0"), most)
        assert number == expected
    else:
        assert number is None


# ---------------------------------------------------------------- proxies

CONNECT = Proxy("http", "p", 1, "user", Secret("secret"))
SOCKS = Proxy("socks5", "p", 1)
LOGIN = Proxy("socks5", "p", 1, "user", Secret("secret"))
SOCKS_REPLIES = (
    st.binary(max_size=40)
    | st.binary(max_size=30).map(lambda rest: b"\x05\x00" + rest)
    | st.binary(max_size=30).map(lambda rest: b"\x05\x00\x05\x00\x00" + rest)
    | st.binary(max_size=30).map(lambda rest: b"\x05\x02\x01\x00\x05" + rest)
)


@FUZZ
@given(
    st.tuples(st.just(CONNECT), http(st.integers(100, 599)) | st.binary(max_size=60))
    | st.tuples(st.sampled_from([SOCKS, LOGIN]), SOCKS_REPLIES)
)
@example((CONNECT, b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n"))
@example((CONNECT, b"HTTP/1.1 407 dXNlcjpzZWNyZXQ=\r\nProxy-Authenticate: \xff\r\n\r\n"))
@example((CONNECT, b"HTTP/1.1 4x3 dXNlcjpzZWNyZXQ=\r\n\r\n"))
@example((CONNECT, b"HTTP/1.1 4x3 " + b"x" * 145 + b"dXNlcjpzZWNyZXQ=\r\n\r\n"))
@example((CONNECT, b"HTTP/1.1 403 X\r\nbad " + b"x" * 154 + b"dXNlcjpzZWNyZXQ=\r\n\r\n"))
@example((CONNECT, b"HTTP/1.1 407 X\r\nProxy-Authenticate: dXNlcjpzZWNyZXQ=\r\n\r\n"))
@example((CONNECT, b"HTTP/1.1 403 dXNlcjpzZWNyZXQ=\x1b[2J\r\n\r\n"))
def test_replies_of_proxies(case: tuple[Proxy, bytes]) -> None:
    proxy, reply = case

    async def dial() -> None:
        network = MemoryNetwork()
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, network, proxy.host, proxy.port, reply)
            try:
                stream = await open_tunnel("x", 443, proxy=proxy, dial=network.dial, timeout_s=5)
            except errors.TunnelError as error:
                said = str(error)
                assert "dXNlcjpz" not in said
                assert said.isprintable()
            else:
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()

    on_virtual_time(dial)


# ---------------------------------------------------------------- the upgrade

DEADLINES = Deadlines(open_s=15, close_s=2, ping_after_s=30, pong_s=10, silence_s=60)
FRAMES = st.builds(
    frame, st.integers(0, 15), st.binary(max_size=200), final=st.booleans()
) | st.binary(max_size=40)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Upgrade", "Content-Length",
             "Sec-WebSocket-Accept", "Transfer-Encoding", "Set-Cookie", "Sec-WebSocket-Version"]
        ),
        VALUES,
    ),
    max_size=4,
)  # fmt: skip


@FUZZ
@given(http() | st.binary(max_size=60), HEADERS, st.lists(FRAMES, max_size=4), st.booleans())
def test_answers_to_an_upgrade(
    raw: bytes, headers: list[tuple[str, str]], frames: list[bytes], accepts: bool
) -> None:
    async def peer_of(listener: Any) -> None:
        while True:
            peer = Peer(await listener.accept())
            with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                await peer.read_request()
                reply = raw
                if accepts:  # a right answer but for further headers, and then frames
                    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
                    reply = peer.switching()[:-2] + more.encode("latin-1") + b"\r\n"
                await peer.stream.send_all(reply + b"".join(frames))
            await peer.stream.aclose()

    async def connect() -> None:
        network = MemoryNetwork()
        (listener,) = await network.listen("x", 80)
        way = Route(network.dial, ProxySettings(), None, "", 5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer_of, listener)
            with suppress(errors.NetworkError):
                async with open_websocket(
                    "ws://x/ws/币安人生usdt@kline_1m",
                    route=way,
                    deadlines=DEADLINES,
                    max_message_bytes=100,
                    frames=FrameBudget((10, 1.0)),
                ) as socket:
                    while True:  # until the peer hangs up, at the latest
                        await socket.receive()
            nursery.cancel_scope.cancel()

    on_virtual_time(connect)
