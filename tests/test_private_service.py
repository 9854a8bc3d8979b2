"""Auth, settlement and private events through the whole service: sockets' bytes in memory, HTTP
and WebSocket as they are, virtual time."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
import trio
import trio_websocket
from attrs import evolve
from support.private import balance, event, keys_for, order, trade
from support.stack import (
    START_MS,
    PushClient,
    Stack,
    open_stack,
    push_client,
    settings_for_tests,
    virtual_now_ms,
)

from trio_feed.errors import SettingsError
from trio_feed.push.private.auth import PUBLISHER_KEY, Authenticator, AuthError, new_key
from trio_feed.settings import JwtSettings, PublisherSettings, Secret

SECRET = "a secret of sixty-four bytes or more, so that every HMAC takes it as it is"
PUBLISHER, PUBLISHER_SHA = new_key(PUBLISHER_KEY)
OPS, OPS_SHA = new_key(PUBLISHER_KEY)
KEYS, AUTH = keys_for(1001, 1002)
KEY_ROWS = [
    f"{{name='{row.name}', user_id={row.user_id}, sha256='{row.sha256}'}}" for row in AUTH.api_keys
]


@asynccontextmanager
async def stack() -> AsyncIterator[Stack]:
    settings = settings_for_tests(
        f"auth.api_keys=[{', '.join(KEY_ROWS)}]",
        "auth.jwt.algorithm=HS256",
        f"auth.jwt.secret={SECRET}",
        "auth.jwt.leeway_s=0",
        f"settlement.publishers=[{{name='engine', sha256='{PUBLISHER_SHA}'}},"
        f" {{name='ops', sha256='{OPS_SHA}', broadcast=true}}]",
        "settlement.max_body_bytes=5000",
    )
    async with open_stack(settings) as running:
        yield running


async def http(stack: Stack, method: str, path: str, body: bytes = b"", *heads: str) -> Any:
    """(status, body as JSON) of one request on a connection of its own."""
    host, _, port = stack.ready.address.rpartition(":")
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {len(body)}"]
    async with await stack.network.dial(host, int(port)) as stream:
        await stream.send_all("\r\n".join([*head, *heads, "", ""]).encode() + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += await stream.receive_some()
        start, _, rest = got.partition(b"\r\n\r\n")
        sizes = [
            line[16:]
            for line in start.split(b"\r\n")
            if line.lower().startswith(b"content-length: ")
        ]
        while sizes and len(rest) < int(sizes[0]):
            rest += await stream.receive_some()
    return int(start.split()[1]), rest.decode()


async def post(stack: Stack, *events: Any, key: str = PUBLISHER) -> Any:
    status, text = await http(
        stack, "POST", "/api/v1/settlement/events", json.dumps(events).encode(),
        f"Authorization: Bearer {key}",
    )  # fmt: skip
    return status, json.loads(text)


async def let_in(client: PushClient, token: str, **more: Any) -> Any:
    await client.ask(type="auth", token=token, **more)
    return await client.of_type("auth.success")


async def test_the_users_document_as_it_stands(autojump_clock: trio.abc.Clock) -> None:
    """auth, then order.update, trade and balance.update, on every connection of the user."""
    async with stack() as running, push_client(running) as one, push_client(running) as two:
        assert (await let_in(one, KEYS[1001]))["user_id"] == 1001
        await let_in(two, KEYS[1001])
        status, reply = await post(
            running,
            event("t", "trade", trade(1001, 1002)),
            event("o", "order.update", order(1001)),
            event("b", "balance.update", balance(), 1001),
            event("m", "order.update", order(1002)),
            event("b", "balance.update", balance(), 1001),
        )
        assert (status, reply) == (200, {"accepted": 4, "duplicates": 1, "rejected": []})
        for client in (one, two):
            await client.of_type("balance.update")
            told = [m for m in client.messages if "event_id" in m]
            assert [(m["type"], m["offset"]) for m in told] == [
                ("trade", 1), ("order.update", 2), ("balance.update", 3),
            ]  # fmt: skip
            assert told[0]["data"]["role"] == "TAKER"
            assert told[1]["data"] == order(1001)


async def test_back_again_with_since(autojump_clock: trio.abc.Clock) -> None:
    async with stack() as running:
        async with push_client(running) as client:
            epoch = (await let_in(client, KEYS[1001]))["epoch"]
        rows = [event(f"e{n}", "balance.update", balance(), 1001) for n in range(10)]
        assert (await post(running, *rows))[0] == 200
        async with push_client(running) as client:
            answer = await let_in(client, KEYS[1001], since={"epoch": epoch, "offset": 4})
            assert (answer["recovered"], answer["offset"]) == (True, 10)
            await client.wait_for(lambda m: m.get("event_id") == "e9")
            told = [m["event_id"] for m in client.messages if "event_id" in m]
            assert told == [f"e{n}" for n in range(4, 10)]
        async with push_client(running) as client:
            answer = await let_in(client, KEYS[1001], since={"epoch": epoch - 1, "offset": 4})
            assert answer["recovered"] is False


async def test_who_has_gone_holds_no_subscription(autojump_clock: trio.abc.Clock) -> None:
    async with stack() as running:
        streams = running.ready.app.context.access.feed._streams
        async with push_client(running) as client:
            await let_in(client, KEYS[1001])
            assert streams.keys() == {1001}
        with trio.fail_after(300):  # the sweep finds it
            await running.ready.app.wait_empty()
        assert streams == {}


async def test_keys_come_and_go_while_it_runs(autojump_clock: trio.abc.Clock) -> None:
    """A connection that was opened with a revoked key ends at once, its public part too, and nobody
    else's; what is new comes in."""
    new_keys, new_auth = keys_for(1003)
    publisher, publisher_sha = new_key(PUBLISHER_KEY)
    async with stack() as running, push_client(running) as two, push_client(running) as three:
        await let_in(two, KEYS[1002])
        app = running.ready.app
        kept = [row for row in AUTH.api_keys if row.user_id != 1001]
        async with trio.open_nursery() as nursery:
            host, _, port = running.ready.address.rpartition(":")
            stream = await running.network.dial(host, int(port))
            one = await trio_websocket.wrap_client_stream(nursery, stream, host, "/ws")
            for ask in (
                {"type": "auth", "token": KEYS[1001]},
                {"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m"},
            ):
                await one.send_message(json.dumps(ask))
            said = [json.loads(await one.get_message())]
            while said[-1]["type"] != "subscription_confirmed":
                said.append(json.loads(await one.get_message()))
            assert said[1]["user_id"] == 1001
            app.replace_keys(
                evolve(AUTH, api_keys=(*kept, *new_auth.api_keys)),
                (PublisherSettings(name="new", sha256=publisher_sha),),
            )
            code = None
            try:
                while True:
                    said.append(json.loads(await one.get_message()))
            except trio_websocket.ConnectionClosed as closed:
                code = closed.reason.code
            assert (code, said[-1]["code"]) == (4401, 1004)
            assert "revoked" in said[-1]["message"]
            nursery.cancel_scope.cancel()
        await three.ask(type="auth", token=KEYS[1001])
        await three.wait_for(lambda m: "not known" in m.get("message", ""))
        await let_in(three, new_keys[1003])
        assert (await post(running, event("a", "balance.update", balance(), 1002)))[0] == 401
        rows = [event(f"{user}", "balance.update", balance(), user) for user in (1001, 1002, 1003)]
        assert (await post(running, *rows, key=publisher))[0] == 200
        await three.wait_for(lambda m: m.get("event_id") == "1003")
        await two.wait_for(lambda m: m.get("event_id") == "1002")
        assert [m["event_id"] for m in three.messages if "event_id" in m] == ["1003"]


async def test_the_key_of_jwts_is_read_again(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    """A file that cannot be used changes nothing."""
    file = tmp_path / "secret"
    auth = evolve(AUTH, jwt=JwtSettings("HS256", key_file=str(file)))
    file.write_text("a" * 64)
    checked = Authenticator(auth)
    end = int(virtual_now_ms() / 1000) + 120
    old, new = (
        Secret(jwt.encode({"sub": "1001", "exp": end}, letter * 64, "HS256")) for letter in "ab"
    )
    assert checked.authenticate(old, virtual_now_ms()).user_id == 1001
    file.write_text("b" * 64)
    checked.replace_keys(auth)
    assert checked.authenticate(new, virtual_now_ms()).user_id == 1001
    with pytest.raises(AuthError):
        checked.authenticate(old, virtual_now_ms())
    file.write_text("short")
    with pytest.raises(SettingsError):
        checked.replace_keys(evolve(auth, api_keys=()))
    assert checked.authenticate(new, virtual_now_ms()).user_id == 1001
    assert checked.authenticate(Secret(KEYS[1001]), virtual_now_ms()).user_id == 1001


async def test_wrong_tokens_end_with_4401(autojump_clock: trio.abc.Clock) -> None:
    async with stack() as running:
        host, _, port = running.ready.address.rpartition(":")
        stream = await running.network.dial(host, int(port))
        async with trio.open_nursery() as nursery:
            socket = await trio_websocket.wrap_client_stream(nursery, stream, host, "/ws")
            await socket.get_message()
            for _ in range(3):
                await socket.send_message(json.dumps({"type": "auth", "token": "tfk_no"}))
                assert json.loads(await socket.get_message())["code"] == 1004
            try:
                await socket.get_message()
            except trio_websocket.ConnectionClosed as closed:
                assert closed.reason.code == 4401  # noqa: PT017
            else:
                raise AssertionError("still open")
            nursery.cancel_scope.cancel()


async def test_a_token_ends_and_public_data_goes_on(autojump_clock: trio.abc.Clock) -> None:
    async with stack() as running, push_client(running) as client:
        await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
        await client.of_type("subscription_confirmed")
        end = int(virtual_now_ms() / 1000) + 120
        token = jwt.encode({"sub": "1001", "exp": end}, SECRET, "HS256")
        assert (await let_in(client, token))["expires_at"] == end * 1000
        warning = await client.of_type("auth.expiring")
        assert 59_000 <= warning["expires_at"] - virtual_now_ms() <= 61_000
        error = await client.of_type("error")
        assert (error["code"], abs(virtual_now_ms() - end * 1000) < 1000) == (1004, True)
        await post(running, event("late", "balance.update", balance(), 1001))
        seen = len(client.messages)
        await client.wait_for(lambda m: m in client.messages[seen:] and m["type"] == "kline_data")
        assert all("event_id" not in m for m in client.messages)


async def test_requests_that_are_refused(autojump_clock: trio.abc.Clock) -> None:
    async with stack() as running:
        assert (await post(running, key="tfp_wrong"))[0] == 401
        assert (await post(running, key=KEYS[1001]))[0] == 401
        status, reply = await post(running, "x" * 6000)
        problem = "the body is larger than 5000 bytes"
        assert (status, reply) == (413, {"code": 1001, "message": problem})
        bearer = f"Authorization: Bearer {PUBLISHER}"
        path = "/api/v1/settlement/events"
        status, text = await http(running, "POST", path, b"{", bearer)
        assert (status, json.loads(text)["message"]) == (400, "line 1 of the body is not JSON")
        assert (await http(running, "GET", path, b"", bearer))[0] == 405


async def test_a_token_in_the_url_is_refused_and_says_why(autojump_clock: trio.abc.Clock) -> None:
    upgrade = (
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    async with stack() as running:
        for query in ("token=abc", f"x={KEYS[1001]}"):
            status, text = await http(running, "GET", f"/ws?{query}", b"", *upgrade)
            assert status == 400
            assert "does not belong into a URL" in text


async def test_no_token_in_a_log_an_error_or_a_page(autojump_clock: trio.abc.Clock) -> None:
    token = jwt.encode({"sub": "1002", "exp": START_MS // 1000 + 9999}, SECRET, "HS256")
    secrets = (KEYS[1001], PUBLISHER, token, SECRET)
    with structlog.testing.capture_logs() as lines:
        async with stack() as running, push_client(running) as client:
            await let_in(client, KEYS[1001])
            await client.ask(type="auth", token=token)
            await client.wait_for(lambda m: m.get("user_id") == 1002)
            await client.ask(type="auth", token=token + "x")
            await client.of_type("error")
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", token=KEYS[1001])
            await client.wait_for(lambda m: m.get("code") == 1001)
            await post(running, 5)
            await http(running, "GET", f"/api/v1/symbols?token={KEYS[1001]}")
            pages = ""
            for path in ("/api/v1/status", "/metrics", "/api/v1/symbols"):
                pages += (await http(running, "GET", path))[1]
    assert '"authenticated": true' in pages
    for secret in secrets:
        assert secret not in repr(lines) + pages + repr(client.messages)


async def test_a_broadcast_reaches_every_user_now_or_when_it_resumes(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Those who are there, on every connection; who was there before gets it with `since`, whether
    anything came for it or not; nobody without a token, and nobody twice."""
    words = event("n", "broadcast", {"text": "maintenance at 12:00 UTC", "minutes": 5})
    async with stack() as running, push_client(running) as stranger:
        async with push_client(running) as gone:
            place = await let_in(gone, KEYS[1002])
        async with push_client(running) as one, push_client(running) as two:
            for client in (one, two):
                await let_in(client, KEYS[1001])
            await post(running, event("b", "balance.update", balance(), 1001))
            refused = await post(running, words)
            assert refused[1]["rejected"][0]["reason"].startswith("type: this publisher may not")
            answers = [await post(running, words, key=OPS) for _ in range(2)]
            assert [a[1]["accepted"] for a in answers] == [1, 0]
            for client in (one, two):
                told = await client.of_type("broadcast")
                assert (told["data"]["text"], told["offset"]) == ("maintenance at 12:00 UTC", 2)
                assert told["event_id"] == "n"
        async with push_client(running) as back:
            since = {"epoch": place["epoch"], "offset": place["offset"]}
            answer = await let_in(back, KEYS[1002], since=since)
            assert answer["recovered"] is True
            assert (await back.of_type("broadcast"))["offset"] == 1
            await trio.sleep(1)
            assert [m["type"] for m in back.messages].count("broadcast") == 1
        async with push_client(running) as fresh:
            await let_in(fresh, KEYS[1001])
            await trio.sleep(1)
            assert "broadcast" not in {m["type"] for m in fresh.messages + stranger.messages}
