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
