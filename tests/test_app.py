"""The routes and their guards, in the whole service under virtual time."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio_websocket
from attrs import define
from support.stack import Stack, open_stack, settings_for_tests
from test_server import get, until_closed
from trio.testing import MockClock

from trio_feed.metrics import Metrics
from trio_feed.push.session import Session

SUBSCRIBE = {"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "limit": 1}


@define
class Client:
    """Reads only when it is asked to."""

    connection: trio_websocket.WebSocketConnection

    async def ask(self, **fields: Any) -> None:
        await self.connection.send_message(json.dumps(fields))

    async def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.connection.get_message())
        return message

    async def until_closed(self) -> tuple[list[dict[str, Any]], int, str]:
        """(what came, the code and the reason of the close)."""
        messages: list[dict[str, Any]] = []

        async def collect() -> None:
            while True:
                messages.append(await self.next())

        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await collect()
        reason = caught.value.reason
        assert reason is not None
        return messages, reason.code, reason.reason or ""


@asynccontextmanager
async def a_client(stack: Stack) -> AsyncIterator[Client]:
    host, _, port = stack.ready.address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, f"{host}:{port}", "/ws", message_queue_size=1000
        )
        client = Client(connection)
        assert (await client.next())["type"] == "connection_success"
        yield client
        nursery.cancel_scope.cancel()


async def test_too_many_requests_are_refused_then_served_again(autojump_clock: MockClock) -> None:
    limits = ("websocket.requests_per_second=2", "websocket.request_burst=3")
    async with open_stack(settings_for_tests(*limits)) as stack, a_client(stack) as client:
        for number in range(5):
            await client.ask(type="ping", id=number)
        answers = [await client.next() for _ in range(5)]
        assert [answer.get("id") for answer in answers] == [0, 1, 2, 3, 4]
        assert [answer["code"] for answer in answers[3:]] == [1005, 1005]
        assert answers[4]["message"] == "more than 2 requests a second"
        await trio.sleep(2)
        await client.ask(type="ping", id="patient")
        assert (await client.next())["id"] == "patient"
        assert (
            "trio_feed_request_errors_total"
            in stack.ready.app.context.metrics.exposition().decode()
        )


async def test_flooding_ends_the_connection_and_only_that(autojump_clock: MockClock) -> None:
    limits = ("websocket.request_burst=3", "websocket.flood_requests=20")
    async with open_stack(settings_for_tests(*limits)) as stack:
        async with a_client(stack) as other, a_client(stack) as client:
            with suppress(trio_websocket.ConnectionClosed):
                for _ in range(40):
                    await client.ask(type="ping")
            answers, code, reason = await client.until_closed()
            assert (code, reason) == (1008, "too many requests")
            assert [answer["type"] for answer in answers[:3]] == ["pong"] * 3
            assert {answer["code"] for answer in answers[3:]} == {1005}
            assert len(answers) <= 3 + 20
            await other.ask(type="ping")
            assert (await other.next())["type"] == "pong"


async def test_of_no_use_for_a_minute_is_closed(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests("websocket.unused_timeout_s=60")) as stack:
        async with a_client(stack) as client, a_client(stack) as subscribed:
            began = trio.current_time()
            await subscribed.ask(**SUBSCRIBE)
            await client.ask(type="ping")
            answers, code, reason = await client.until_closed()
            assert 60 <= trio.current_time() - began <= 66
            assert (code, reason) == (1008, "neither subscribed nor authenticated for 60 s")
            assert [answer["type"] for answer in answers] == ["pong", "error"]
            await trio.sleep(120)
            await subscribed.ask(**{**SUBSCRIBE, "type": "unsubscribe", "limit": None})
            unsubscribed_at = trio.current_time()
            _, code, _ = await subscribed.until_closed()
            assert code == 1008
            assert 55 <= trio.current_time() - unsubscribed_at <= 66


async def answer_to(stack: Stack, address: str, path: str) -> bytes:
    """To a GET, all of it."""
    host, _, port = address.rpartition(":")
    stream = await stack.network.dial(host, int(port))
    await stream.send_all(get(b"Connection: close\r\n", path=path.encode()))
    return await until_closed(stream)


async def page(stack: Stack, address: str, path: str) -> bytes:
    """The status of a GET."""
    return (await answer_to(stack, address, path))[9:12]


async def test_the_status_shows_each_client(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        async with a_client(stack) as client:
            await client.ask(**SUBSCRIBE)
            await client.next()
            answer = await answer_to(stack, stack.ready.address, "/api/v1/status")
            (shown,) = json.loads(answer.partition(b"\r\n\r\n")[2])["clients"]
            assert shown["subscriptions"] == 1


@pytest.mark.parametrize("separate", [False, True])
async def test_metrics_and_status_on_a_bind_of_their_own(
    separate: bool, autojump_clock: MockClock
) -> None:
    chosen = ("server.admin_host=admin", "server.admin_port=81") if separate else ()
    async with open_stack(settings_for_tests(*chosen)) as stack:
        ready = stack.ready
        assert ready.admin_address == ("admin:81" if separate else ready.address)
        for path in ("/metrics", "/api/v1/status"):
            assert await page(stack, ready.admin_address, path) == b"200"
            assert await page(stack, ready.address, path) == (b"404" if separate else b"200")
        for path in ("/health", "/ready"):
            assert await page(stack, ready.address, path) in (b"200", b"503")
            assert await page(stack, ready.admin_address, path) in (b"200", b"503")
        here, there = (b"200", b"404") if separate else (b"200", b"200")
        assert await page(stack, ready.address, "/api/v1/symbols") == here
        assert await page(stack, ready.admin_address, "/api/v1/symbols") == there


@define
class Http:
    stream: Any

    async def ask(self, target: str, method: str = "GET") -> tuple[int, bytes, bytes]:
        """(status, head, body)."""
        await self.stream.send_all(f"{method} {target} HTTP/1.1\r\nHost: push\r\n\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += await self.stream.receive_some()
        head, _, body = got.partition(b"\r\n\r\n")
        size = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        while method != "HEAD" and len(body) < int(size):
            body += await self.stream.receive_some()
        return int(head[9:12]), head, body


@asynccontextmanager
async def http(stack: Stack) -> AsyncIterator[Http]:
    host, _, port = stack.ready.address.rpartition(":")
    yield Http(await stack.network.dial(host, int(port)))


KLINES = "/api/v1/klines?symbol=BTCUSDT&interval=1m&limit="


def questions(stack: Stack, monkeypatch: pytest.MonkeyPatch, slow_s: float = 0) -> list[int]:
    """The limits of the questions that reach the store, which answers after ``slow_s``."""
    asked: list[int] = []
    answers = stack.ready.store.history

    async def history(series: Any, *, limit: int, **range_: Any) -> Any:
        asked.append(limit)
        await trio.sleep(slow_s)
        return await answers(series, limit=limit, **range_)

    monkeypatch.setattr(stack.ready.store, "history", history)
    return asked


async def test_a_head_does_no_work(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_stack(settings_for_tests("kline.history_data_limit=5")) as stack:
        asked = questions(stack, monkeypatch)
        monkeypatch.setattr(Metrics, "exposition", None)  # would raise
        monkeypatch.setattr(Session, "statistics", None)
        async with http(stack) as client, a_client(stack):
            for target in (KLINES + "5000", "/metrics", "/api/v1/status", "/api/v1/symbols"):
                status, head, body = await client.ask(target, "HEAD")
                assert (status, body) == (200, b"")
                assert b"content-length" not in head.lower()
            assert (await client.ask(KLINES + "0", "HEAD"))[0] == 400
            assert asked == []
            assert (await client.ask(KLINES + "5000"))[0] == 200
            assert asked == [5000]


@pytest.mark.parametrize("pipelined", [1, 3])
async def test_a_request_ends_with_its_client(
    pipelined: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Also where the client had sent more requests before it went."""
    async with open_stack(settings_for_tests("kline.history_data_limit=5")) as stack:
        asked = questions(stack, monkeypatch, slow_s=20)
        for _ in range(50):
            async with http(stack) as client:
                request = f"GET {KLINES}5000 HTTP/1.1\r\nHost: push\r\n\r\n".encode()
                await client.stream.send_all(request * pipelined)
                await trio.sleep(0.01)
                await client.stream.aclose()
        began = trio.current_time()
        async with a_client(stack) as client:
            await client.ask(**SUBSCRIBE)
            assert (await client.next())["type"] == "history_data"
        async with http(stack) as other:
            assert (await other.ask(KLINES + "5000"))[0] == 200
        assert trio.current_time() - began < 21
        assert len(asked) <= 51
        assert stack.ready.app.context.metrics.crashes._value.get() == 0


async def test_who_sends_nothing_more_is_answered_where_it_costs_nothing(
    autojump_clock: MockClock,
) -> None:
    """A probe by ``nc -N`` closes its side at once."""
    async with open_stack(settings_for_tests()) as stack, http(stack) as client:
        await client.stream.send_all(b"GET /health HTTP/1.1\r\nHost: push\r\n\r\n")
        await client.stream.send_eof()
        assert b"alive" in await until_closed(client.stream)


async def test_http_and_websocket_have_one_budget_of_rows(autojump_clock: MockClock) -> None:
    limits = ("limits.row_burst=6000", "limits.rows_per_second=100")
    async with open_stack(settings_for_tests(*limits)) as stack:
        async with a_client(stack) as client, http(stack) as page:
            assert (await page.ask(KLINES + "5000"))[0] == 200
            await client.ask(type="history", symbol="BTCUSDT", interval="1m", limit=5000, id="a")
            assert (await client.next())["type"] == "history_data"
            status, head, body = await page.ask(KLINES + "5")
            assert (status, json.loads(body)["code"]) == (429, 1005)
            assert b"\r\nretry-after: 4" in head.lower()
            await client.ask(**SUBSCRIBE, id="b")
            refused = await client.next()
            assert (refused["type"], refused["code"], refused["id"]) == ("error", 1005, "b")
            assert refused["message"].startswith("more than 100 rows a second; try again in ")
            for target in ("/health", "/ready"):  # operators' probes are always answered
                assert (await page.ask(target))[0] in (200, 503)  # it has just begun
            await trio.sleep(45)
            await client.ask(**SUBSCRIBE, id="c")
            assert (await client.next())["type"] == "history_data"


async def test_operators_pages_on_the_clients_port_have_their_price(
    autojump_clock: MockClock,
) -> None:
    limits = ("limits.row_burst=1000", "limits.rows_per_second=10")
    async with open_stack(settings_for_tests(*limits)) as stack, http(stack) as page:
        for target in ("/metrics", "/api/v1/status"):
            assert (await page.ask(target))[0] == 200
        assert (await page.ask("/metrics"))[0] == 200  # which leaves a debt
        assert (await page.ask("/api/v1/status"))[0] == 429
        assert (await page.ask("/health"))[0] == 200


async def test_status_and_symbols_are_pages_of_json(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        async with a_client(stack), a_client(stack), http(stack) as page:
            _, _, body = await page.ask("/api/v1/status")
            status = json.loads(body)
            assert len(status["clients"]) == 2
            assert status["venues"]
            _, _, body = await page.ask("/api/v1/symbols")
            found = json.loads(body)
            assert found["symbols"] == ["BTCUSDT"]
            assert found["series"][0]["exchange"] == "binance_usdm"
