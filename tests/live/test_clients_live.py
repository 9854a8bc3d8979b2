"""WebSocket clients that we did not write, against the running service: each gets history and
updates, pings and is pinged, sends fragments and large messages, and hears why it was closed."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import websockets.asyncio.client
import websockets.exceptions
from attrs import frozen
from test_service_live import NODE, WS, running, wait_ready

ASK = {
    "type": "subscribe", "symbol": "BTCUSDT", "interval": "1s", "subscription_id": "mine",
    "limit": 5,
}  # fmt: skip
LARGE = 60_000
"""Under the limit of a client's message; the pad is a field that nobody knows."""
TOO_LARGE = 200_000


@frozen
class Peer:
    """One connection, in whatever words its library has for that."""

    send: Callable[[str], Awaitable[None]]
    send_pieces: Callable[[list[str]], Awaitable[None]] | None
    """One message in so many frames; None: the library cannot."""
    receive: Callable[[], Awaitable[str]]
    """Raises Closed."""
    ping: Callable[[], Awaitable[None]]
    """Returns when the pong has come."""
    close: Callable[[int], Awaitable[int | None]]
    """Say goodbye with this code; returns the code of the answer."""


class Closed(Exception):
    """The server has closed; the argument is its code."""


@asynccontextmanager
async def with_websockets(url: str) -> AsyncIterator[Peer]:
    async with websockets.asyncio.client.connect(url, max_size=None, proxy=None) as socket:

        async def receive() -> str:
            try:
                return str(await socket.recv())
            except websockets.exceptions.ConnectionClosed as error:
                raise Closed(error.rcvd.code if error.rcvd else None) from None

        async def ping() -> None:
            await (await socket.ping())

        async def close(code: int) -> int | None:
            await socket.close(code)
            return socket.close_code

        yield Peer(socket.send, socket.send, receive, ping, close)


@asynccontextmanager
async def with_aiohttp(url: str) -> AsyncIterator[Peer]:
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed (dev group)")
    pongs: asyncio.Queue[None] = asyncio.Queue()
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, max_msg_size=0, autoping=False) as socket:
            waiting: asyncio.Queue[Any] = asyncio.Queue()

            async def read() -> None:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.PONG:
                        pongs.put_nowait(None)
                    elif message.type is aiohttp.WSMsgType.PING:
                        await socket.pong(message.data)
                    else:
                        waiting.put_nowait(message.data)
                waiting.put_nowait(None)

            reader = asyncio.create_task(read())

            async def receive() -> str:
                message = await waiting.get()
                if message is None:
                    raise Closed(socket.close_code)
                return str(message)

            async def ping() -> None:
                await socket.ping(b"marco")
                await pongs.get()

            async def close(code: int) -> int | None:
                await socket.close(code=code)
                return int(socket.close_code or 0)

            try:
                yield Peer(socket.send_str, None, receive, ping, close)
            finally:
                reader.cancel()


@asynccontextmanager
async def with_picows(url: str) -> AsyncIterator[Peer]:
    picows = pytest.importorskip("picows", reason="picows is not installed (dev group)")
    waiting: asyncio.Queue[Any] = asyncio.Queue()
    pongs: asyncio.Queue[None] = asyncio.Queue()
    closes: asyncio.Queue[int | None] = asyncio.Queue()

    class Listener(picows.WSListener):  # type: ignore[misc, name-defined]
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == picows.WSMsgType.TEXT:
                waiting.put_nowait(frame.get_payload_as_utf8_text())
            elif frame.msg_type == picows.WSMsgType.PONG:
                pongs.put_nowait(None)
            elif frame.msg_type == picows.WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            elif frame.msg_type == picows.WSMsgType.CLOSE:
                closes.put_nowait(int(frame.get_close_code()))
                waiting.put_nowait(None)
                transport.disconnect()

    transport, _ = await picows.ws_connect(Listener, url)

    async def send(text: str) -> None:
        transport.send(picows.WSMsgType.TEXT, text.encode())

    async def send_pieces(pieces: list[str]) -> None:
        for number, piece in enumerate(pieces):
            kind = picows.WSMsgType.CONTINUATION if number else picows.WSMsgType.TEXT
            transport.send(kind, piece.encode(), fin=number == len(pieces) - 1)

    async def receive() -> str:
        message = await waiting.get()
        if message is None:
            raise Closed(await closes.get())
        return str(message)

    async def ping() -> None:
        transport.send_ping(b"marco")
        await pongs.get()

    async def close(code: int) -> int | None:
        transport.send_close(picows.WSCloseCode(code))
        return await closes.get()

    try:
        yield Peer(send, send_pieces, receive, ping, close)
    finally:
        transport.disconnect()
        await transport.wait_disconnected()


CLIENTS = {"websockets": with_websockets, "aiohttp": with_aiohttp, "picows": with_picows}


async def message_of(peer: Peer, kind: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(await peer.receive())
        if message["type"] == kind:
            return message


async def subscribe(peer: Peer) -> None:
    await peer.send(json.dumps(ASK))
    history = (await message_of(peer, "history_data"))["data"]["data"]
    assert len(history) <= 5  # candles of seconds begin when the service does
    confirmed = (await message_of(peer, "subscription_confirmed"))["data"]
    assert (confirmed["subscription_id"], confirmed["success"]) == ("mine", True)
    offsets, last = [], history[-1]["time"] if history else 0
    while len(offsets) < 4:
        update = (await message_of(peer, "kline_data"))["data"]
        assert update["subscription_id"] == "mine"
        assert update["data"]["time"] > last
        if update["data"]["is_final"]:
            last = update["data"]["time"]
        offsets.append(update["offset"])
    assert offsets == sorted(offsets)
    await peer.send(json.dumps({**ASK, "type": "unsubscribe"}))
    ended = (await message_of(peer, "unsubscribe_confirmed"))["data"]
    assert ended["subscription_id"] == "mine"


async def small_talk(peer: Peer) -> None:
    """Protocol pings, our own, and messages of every size and cut."""
    await peer.ping()
    large = json.dumps({"type": "ping", "id": 1, "pad": "x" * LARGE})
    await peer.send(large)
    assert (await message_of(peer, "pong"))["id"] == 1
    if peer.send_pieces is not None:
        pieces = ['{"type":"ping",', '"id":', "2", ',"pad":"é', "x" * 20_000, '"}']
        await peer.send_pieces(pieces)
        assert (await message_of(peer, "pong"))["id"] == 2
    await peer.send("nonsense")
    assert (await message_of(peer, "error"))["code"] == 1001
    await peer.ping()


async def talk(name: str, url: str) -> None:
    async with CLIENTS[name](url) as peer:
        greeting = json.loads(await peer.receive())
        assert greeting["type"] == "connection_success"
        await subscribe(peer)
        await small_talk(peer)
        assert await peer.close(1000) == 1000
    async with CLIENTS[name](url) as peer:
        await peer.receive()
        assert await peer.close(3000) == 3000
    async with CLIENTS[name](url) as peer:
        await peer.receive()
        with suppress(OSError, websockets.exceptions.ConnectionClosed):
            await peer.send("x" * TOO_LARGE)  # the answer may come before all is sent
        with pytest.raises(Closed) as caught:
            await peer.receive()
        assert caught.value.args[0] in (1009, 1006, None)


async def stay(name: str, url: str) -> int | None:
    """Stay subscribed until the server closes; returns the code."""
    async with CLIENTS[name](url) as peer:
        await peer.send(json.dumps(ASK))
        try:
            await message_of(peer, "reconnect")
            while True:
                await peer.receive()
        except Closed as error:
            code: int | None = error.args[0]
            return code


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_that_we_did_not_write(name: str, tmp_path: Path) -> None:
    """The server pings every 200 ms, and drops whoever does not answer for 2 s."""
    sets = ("websocket.ping_interval=200", "websocket.ping_timeout=2000")
    if name != "websockets":
        pytest.importorskip(name, reason=f"{name} is not installed (dev group)")
    async with running(tmp_path, *sets) as service:
        url = (await service.event("service.ready"))["urls"]["websocket"]
        await wait_ready(service)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(lambda: asyncio.run(talk(name, url)))
            codes: list[int | None] = []

            async def wait() -> None:
                run = partial(asyncio.run, stay(name, url))
                codes.append(await trio.to_thread.run_sync(run))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(4)  # longer than a dead peer is borne with
                service.process.terminate()
            assert codes == [1012]


@pytest.mark.skipif(NODE is None or not WS.exists(), reason="node or npm's ws is not installed")
async def test_npm_ws_small_talk(tmp_path: Path) -> None:
    sets = ("websocket.ping_interval=200", "websocket.ping_timeout=2000")
    async with running(tmp_path, *sets) as service:
        url = (await service.event("service.ready"))["urls"]["websocket"]
        await wait_ready(service)
        with trio.fail_after(60):
            done = await trio.run_process(
                [str(NODE), "small_talk.js", url],
                cwd=Path(__file__).parent / "js",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
    assert told["pings"] >= 3
    assert told["pongs"] == 1
    assert told["ids"] == [1, 2]
    assert told["codes"] == [1000, 1009]
