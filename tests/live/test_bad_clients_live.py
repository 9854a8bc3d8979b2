"""Clients that misbehave against the running service: each is answered or closed, and a client
beside them notices nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import websockets.exceptions
import websockets.sync.client
from test_service_live import running, wait_ready

TALK = [
    ("nonsense", 1001),
    ("[1, 2]", 1001),
    ("[" * 10_000, 1001),
    ('{"type": 5}', 1001),
    ('{"type": "subscribe", "symbol": ["BTCUSDT"], "interval": "1m"}', 1001),
    ('{"type": "subscribe", "symbol": "BTCUSDT", "interval": "7m"}', 1001),
    ('{"type": "subscribe", "symbol": "NOSUCH", "interval": "1m"}', 1002),
    ('{"type": "subscribe", "symbol": "BTCUSDT", "channel": "book"}', 1002),
    ('{"type": "unsubscribe", "symbol": "BTCUSDT", "interval": "1m"}', 1002),
    ('{"type": "history", "symbol": "NOSUCH", "interval": "1m"}', 1003),
    (b"\x00\x01 not text", 1001),
]


def answers(url: str) -> list[Any]:
    with websockets.sync.client.connect(url, open_timeout=10) as client:
        client.recv(timeout=10)
        found = []
        for said, _ in TALK:
            client.send(said)
            found.append(json.loads(client.recv(timeout=10))["code"])
        return found


def close_code(url: str, *, text: bytes) -> int | None:
    """What a client is closed with that sends these bytes as one text frame."""

    def provoke() -> None:
        client.send(text, text=True)
        while True:
            client.recv(timeout=10)

    with websockets.sync.client.connect(url, open_timeout=10, max_size=None) as client:
        client.recv(timeout=10)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            provoke()
    received = caught.value.rcvd
    return None if received is None else received.code


def updates(url: str, count: int) -> list[int]:
    """Offsets of the updates that a well-behaved client gets."""
    with websockets.sync.client.connect(url, open_timeout=10) as client:
        ask = {"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m"}
        client.send(json.dumps(ask))
        found: list[int] = []
        while len(found) < count:
            message = json.loads(client.recv(timeout=10))
            if message["type"] == "kline_data":
                found.append(message["data"]["offset"])
        return found


async def test_each_is_answered_or_closed_and_the_others_go_on(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        await wait_ready(service)
        url = (await service.event("service.ready"))["urls"]["websocket"]
        good: list[int] = []

        async def stay() -> None:
            good.extend(await trio.to_thread.run_sync(updates, url, 30))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stay)
                codes = await trio.to_thread.run_sync(answers, url)
                assert codes == [code for _, code in TALK]
                bad = {"huge": b"x" * 5_000_000, "not UTF-8": b'{"type": "\xff\xfe"}'}
                for name, text in bad.items():
                    code = await trio.to_thread.run_sync(lambda t=text: close_code(url, text=t))
                    assert code in (1009, 1007, None), name
        assert good == sorted(set(good))
        assert service.process.returncode is None
        service.process.terminate()
        assert await service.process.wait() == 0
