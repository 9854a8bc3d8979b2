"""Direct writes on real sockets, and clients that stall beside clients that do not."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.lowlevel
import websockets.exceptions
import websockets.sync.client
from support.make import T0, trade
from support.node import TRADES, Node

from trio_feed import service
from trio_feed.core.effects import ChannelNews
from trio_feed.environment import real_environment
from trio_feed.model import Channel, Source
from trio_feed.push.edge.stream import ClientStream
from trio_feed.push.fanout.encoded import prefix_of
from trio_feed.push.fanout.fan_out import deliver
from trio_feed.push.fanout.frames import text_frame
from trio_feed.push.fanout.send_queue import QueuedFrame, SendQueue
from trio_feed.push.fanout.sender import ClientSender
from trio_feed.push.fanout.topics import Subscription
from trio_feed.push.fanout.voice import NativeVoice
from trio_feed.push.protocol import Subscribe, Target
from trio_feed.settings import load


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[ClientStream, trio.SocketStream]]:
    """Ours, with little room in the kernel, and the peer's end."""
    left, right = trio.socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    ours = ClientStream(trio.SocketStream(left), send_timeout_s=5)
    async with ours, trio.SocketStream(right) as peer:
        with trio.fail_after(20):
            yield ours, peer


async def read(peer: trio.SocketStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await peer.receive_some(65536)
    return received


async def test_frames_are_written_in_the_callers_turn() -> None:
    async with pair() as (ours, peer):
        frames = [text_frame(b"one"), text_frame(b""), text_frame(b"three")]
        assert ours.write_now(frames) == 3
        assert (ours.behind, ours.bytes_out) == (False, sum(map(len, frames)))
        assert await read(peer, ours.bytes_out) == b"".join(frames)


async def test_what_the_kernel_does_not_take_goes_before_anything_else() -> None:
    """Pongs and the like queue behind the rest of a frame, never into it."""
    async with pair() as (ours, peer):
        sent: list[bytes] = []
        while not ours.behind:
            frame = text_frame(b"%05d" % len(sent) * 300)
            if not ours.write_now([frame]):
                break
            sent.append(frame)
        assert ours.write_now([text_frame(b"not now")]) == 0
        pong, last = b"\x8a\x00", text_frame(b"last")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, pong)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ours.send_frames, [last])
            await trio.testing.wait_all_tasks_blocked()
            assert ours.write_now([text_frame(b"not now")]) == 0
            expected = b"".join([*sent, pong, last])
            assert await read(peer, len(expected)) == expected
        assert not ours.behind
        assert ours.write_now([last]) == 1


async def test_several_frames_of_which_some_go() -> None:
    async with pair() as (ours, peer):
        frames = [text_frame(b"%04d" % n * 250) for n in range(1000)]
        taken = ours.write_now(frames)
        assert 0 < taken < 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_frames, frames[taken:])
            assert await read(peer, 1004 * 1000) == b"".join(frames)


@pytest.mark.parametrize("end", ["finish", "send_last"])
async def test_nothing_after_the_last_word(end: str) -> None:
    async with pair() as (ours, _peer):
        if end == "finish":
            ours.finish(1)
        else:
            await ours.send_last(b"\x88\x00")
        assert ours.write_now([text_frame(b"too late")]) == 0
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_frames([text_frame(b"too late")])
        await ours.send_all(b"\x88\x00")


async def test_a_broken_connection_is_found_by_the_write() -> None:
    async with pair() as (ours, peer):
        await peer.aclose()
        assert ours.write_now([text_frame(b"x")]) == 0
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()


async def test_a_frame_that_a_fan_out_began_is_finished_before_the_next() -> None:
    async with pair() as (ours, peer), trio.open_nursery() as nursery:
        node = Node()
        node.bus.open(TRADES)
        queue, voice = SendQueue(100, 1 << 20), NativeVoice(lambda: 0.0)
        sender = ClientSender(
            node.hub, queue, lambda: 0.0, node.metrics, ours, voice, deflated=False
        )
        sender.start(nursery)
        target = Target(TRADES.symbol, Channel.TRADE, None, "", None)
        topic, form = node.hub.find(target), prefix_of(target, None, deflated=False)
        sender.subscribe(Subscription(sender, topic, Subscribe(target, None, None, None), form))
        frames = [text_frame(b"%d" % n * size) for n, size in ((1, 9), (2, 10**6), (3, 9))]
        for frame in frames:
            entry = QueuedFrame(frame, 0.0, True, form)
            deliver(entry, topic.audiences[0], 0, 1, node.hub.coalescer)
        assert (ours.behind, ours.ready_fd, sender.stuck, len(queue.entries)) == (True, -1, True, 1)
        assert len(frames[0]) < ours.bytes_out < len(frames[0]) + len(frames[1])
        assert queue.size == sum(map(len, frames)) - ours.bytes_out
        assert await read(peer, sum(map(len, frames))) == b"".join(frames)
        await trio.testing.wait_all_tasks_blocked()
        assert (queue.size, ours.behind, ours.ready_fd >= 0) == (0, False, True)
        nursery.cancel_scope.cancel()


NUMBER = 12_000
"""Times 400 bytes: more than the kernel takes for one that does not read."""


@asynccontextmanager
async def stack(*assignments: str) -> AsyncIterator[service.Ready]:
    settings = load(
        assignments=[
            "server.port=0", "store.path=:memory:", "simulator.enabled=true",
            "exchanges.binance_usdm.symbols=['ETHUSDT']", "exchanges.binance_usdm.history_bars=5",
            *assignments,
        ]
    )  # fmt: skip
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(service.run, settings, real_environment())
            ready.bus.open(TRADES)
            yield ready
            nursery.cancel_scope.cancel()


SUBSCRIBE = json.dumps({"type": "subscribe", "symbol": "BTCUSDT", "channel": "trade"})


def listen(url: str, subscribed: trio.Event, portal: Any) -> list[int]:
    """Offsets of all the trades, as a client that we did not write reads them."""
    with websockets.sync.client.connect(url, open_timeout=10, proxy=None) as client:
        assert [type(e).__name__ for e in client.protocol.extensions] == ["PerMessageDeflate"]
        client.send(SUBSCRIBE)
        offsets: list[int] = []
        while len(offsets) < NUMBER:
            message = json.loads(client.recv(timeout=20))
            if message["type"] == "subscription_confirmed":
                trio.from_thread.run_sync(subscribed.set, trio_token=portal)
            elif message["type"] == "trade_data":
                offsets.append(message["data"]["offset"])
        return offsets


def fall_asleep(url: str, subscribed: trio.Event, portal: Any, wake: Any) -> tuple[Any, Any]:
    """A client that stops reading, and wakes up when all is over: its last message, its code."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = url.removeprefix("ws://").removesuffix("/ws").rpartition(":")
        plain.connect((host, int(port)))
        client = websockets.sync.client.connect(
            url, sock=plain, open_timeout=10, proxy=None, max_queue=1, compression=None
        )
        with client:
            client.send(SUBSCRIBE)
            while json.loads(client.recv(timeout=10))["type"] != "subscription_confirmed":
                pass
            trio.from_thread.run_sync(subscribed.set, trio_token=portal)
            trio.from_thread.run(wake.wait, trio_token=portal)
            last = None
            try:
                while True:
                    last = json.loads(client.recv(timeout=10))
            except websockets.exceptions.ConnectionClosed as closed:
                return last, closed.rcvd.code if closed.rcvd else None


in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)


async def publish_all(ready: service.Ready) -> None:
    """As fast as the client that reads can take it."""
    for offset in range(1, NUMBER + 1):
        ready.bus.publish(ChannelNews(TRADES, trade(offset, T0), Source.SIMULATED, float(T0)))
        while offset % 50 == 0:
            await trio.lowlevel.checkpoint()
            if min(s.statistics()["queued_bytes"] for s in ready.app.sessions) < 20_000:
                break


async def test_a_stalled_client_costs_only_itself() -> None:
    """Two of them: one never wakes up, one does when it is dropped and gets its last words.  The
    one that reads has agreed on compression."""
    settings = ["websocket.queue_bytes=100000", "kline.broadcast_buffer_size=1000000"]
    async with stack(*settings, "websocket.compression=true") as ready:
        url, token = f"ws://{ready.address}/ws", trio.lowlevel.current_trio_token()
        slow = ready.app.context.metrics.slow_clients._value
        good: list[int] = []
        wake, told = trio.Event(), []
        ends = [trio.Event() for _ in range(3)]

        async def be_good() -> None:
            good.extend(await in_thread(listen, url, ends[0], token))

        async def be_asleep() -> None:
            told.append(await in_thread(fall_asleep, url, ends[1], token, wake))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_good)
            nursery.start_soon(be_asleep)
            dead = await frozen(url)
            ends[2].set()
            async with dead:
                for subscribed in ends:
                    await subscribed.wait()
                nursery.start_soon(publish_all, ready)
                while slow.get() < 2:
                    await trio.sleep(0.01)
                wake.set()
        assert good == list(range(1, NUMBER + 1))
        ((last, code),) = told
        assert (last["type"], code) == ("reconnect", 4408)
        assert 0 < last["since"][0]["offset"] < NUMBER


async def frozen(url: str) -> trio.SocketStream:
    """Subscribed, and never reads again."""
    host, _, port = url.removeprefix("ws://").removesuffix("/ws").rpartition(":")
    plain = trio.socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await plain.connect((host, int(port)))
    stream = trio.SocketStream(plain)
    await stream.send_all(
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    await stream.receive_some(65536)
    ask = SUBSCRIBE.encode()
    await stream.send_all(bytes([0x81, 0x80 | len(ask)]) + bytes(4) + ask)
    received = b""
    while b"subscription_confirmed" not in received:
        received += await stream.receive_some(65536)
    return stream
