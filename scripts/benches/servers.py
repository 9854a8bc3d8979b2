"""The servers of ``fanout``, ``memory`` and ``connect``, each as it is used best, and alone.

A process prints ``{"port": ..}`` and then answers lines of standard input with a line of JSON each:

``publish SYMBOL TIMES``  so many messages, one after the other, each written before the next;
``streams ROUNDS``        a message on each of the 500 streams, as fast as it goes; others have a
                          turn after each 64, as in our ingest, and all is written at the end;
``paced RATE SECONDS``    messages on the 500 streams in turn, RATE a second;
``rss``                   KB in memory;
``stall``                 the longest time the event loop stood still since the last question (ms),
                          by wall clock and in CPU time of its own.

``publish``, ``streams`` and ``paced`` answer with ``deliveries`` (frames that went to a client),
``cpu_s`` and ``wall_s``.  A client subscribes with our own requests; the peers understand those.
"""

import asyncio
import gc
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .processes import open_files, rss_kb

STREAMS = 500
RING = 16
"""Messages that ours keeps of each stream for those who resume: so few are there soon, and what
grows then is a leak."""
CONFIRMED = '{"type":"subscription_confirmed","data":{"symbol":"%s","success":true}}'
_BATCH = 64
_WELCOME = '{"type":"connection_success"}'


def stream_name(number: int) -> str:
    return f"S{number}USDT"


def text_of(symbol: str, offset: int) -> str:
    """A message as ours, of the same length, made as cheaply as Python can."""
    now = time.time() * 1000
    stamp, micros = int(now), time.monotonic_ns() // 1000
    return (
        f'{{"type":"trade_data","data":{{"symbol":"{symbol}","channel":"trade","exchange":"bench",'
        f'"epoch":1795955000000,"offset":{offset},"source":"simulated","event_time":{stamp},'
        f'"received_at":{now:.3f},"sent_at":{now:.3f},"data":{{"trade_id":{micros},'
        f'"first_id":{micros},"last_id":{micros},"price":85000.10,"quantity":0.125,'
        f'"time":{stamp},"buyer_is_maker":true}},"timestamp":{stamp}}},"timestamp":{stamp}}}'
    )


class Stalls:
    """How late a task is that wants to run each millisecond, and how much of that the loop was at
    work; it does so from the first question on, for it costs a few per cent of a core."""

    def __init__(self) -> None:
        self.asked, self.longest_s, self.longest_cpu_s = False, 0.0, 0.0
        self._due = self._due_cpu_s = 0.0

    def pause_s(self) -> float:
        """Until the task should run again."""
        every_s = 0.001 if self.asked else 0.1
        self._due, self._due_cpu_s = time.perf_counter() + every_s, time.thread_time() + every_s
        return every_s

    def note(self) -> None:
        """It runs."""
        self.longest_s = max(self.longest_s, time.perf_counter() - self._due)
        self.longest_cpu_s = max(self.longest_cpu_s, time.thread_time() - self._due_cpu_s)

    def take(self) -> dict[str, float]:
        found = {"stall_ms": self.longest_s * 1000, "stall_cpu_ms": self.longest_cpu_s * 1000}
        self.asked, self.longest_s, self.longest_cpu_s = True, 0.0, 0.0
        return found


class Server(ABC):
    """What answers the questions; ``publish`` gives a message to a stream's subscribers and says
    to how many."""

    def __init__(self) -> None:
        self.stalls = Stalls()
        self.offset = 0

    @abstractmethod
    async def publish(self, symbol: str) -> int: ...

    async def settle(self) -> None:
        """Until the kernel has everything."""
        return

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def answer(self, line: str) -> dict[str, Any]:
        word, *rest = line.split()
        if word == "rss":
            gc.collect()
            return {"kb": rss_kb()}
        if word == "stall":
            return self.stalls.take()
        began, cpu = time.perf_counter(), time.process_time()
        deliveries = 0
        if word == "publish":
            for _ in range(int(rest[1])):
                deliveries += await self.publish(rest[0])
                await self.settle()
        elif word == "streams":
            for _ in range(int(rest[0])):
                for number in range(STREAMS):
                    deliveries += await self.publish(stream_name(number))
                    if not number % _BATCH:
                        await self.pause(0)
            await self.settle()
        elif word == "paced":
            deliveries = await self._paced(float(rest[0]), float(rest[1]))
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
        return {"deliveries": deliveries, "cpu_s": cpu_s, "wall_s": wall_s}

    async def _paced(self, per_s: float, seconds: float) -> int:
        began, number, deliveries = time.perf_counter(), 0, 0
        while (passed := time.perf_counter() - began) < seconds:
            while number < int(passed * per_s):
                deliveries += await self.publish(stream_name(number % STREAMS))
                number += 1
            await self.pause(0.0005)
        await self.settle()
        return deliveries


def reply(found: object) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


# trio_feed


def trio_feed() -> None:
    from .servers_ours import run

    run()


# Servers of asyncio


class AsyncioServer(Server):
    def __init__(self) -> None:
        super().__init__()
        self.subscribers: dict[str, list[Any]] = {}

    def subscribe(self, client: Any, text: str | bytes) -> str:
        """A request of ``client``; returns the answer."""
        symbol = json.loads(text)["symbol"]
        self.subscribers.setdefault(symbol, []).append(client)
        return CONFIRMED % symbol

    def next_text(self, symbol: str) -> str:
        self.offset += 1
        return text_of(symbol, self.offset)

    async def run(self, start: Callable[[], Awaitable[int]]) -> None:
        """``start`` returns the port."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        port = await start()
        watching = asyncio.create_task(self._watch())
        reply({"port": port})
        while line := await reader.readline():
            reply(await self.answer(line.decode()))
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.stalls.pause_s())
            self.stalls.note()

    async def settle(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def websockets(*, uvloop: bool = False) -> None:
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    class Broadcasting(AsyncioServer):
        async def handle(self, connection: ServerConnection) -> None:
            await connection.send(_WELCOME)
            async for text in connection:
                await connection.send(self.subscribe(connection, text))

        async def start(self) -> int:
            server = await serve(
                self.handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096
            )
            port: int = next(iter(server.sockets)).getsockname()[1]
            return port

        async def publish(self, symbol: str) -> int:
            clients = self.subscribers.get(symbol, ())
            broadcast(clients, self.next_text(symbol))
            return len(clients)

    server = Broadcasting()
    _run(server.run(server.start), uvloop=uvloop)


def picows() -> None:
    import picows as library

    class Writing(AsyncioServer):
        async def start(self) -> int:
            server = await library.ws_create_server(
                lambda _request: Listener(), "127.0.0.1", 0, backlog=4096
            )
            port: int = server.sockets[0].getsockname()[1]
            return port

        async def publish(self, symbol: str) -> int:
            text, clients = self.next_text(symbol).encode(), self.subscribers.get(symbol, ())
            kind = library.WSMsgType.TEXT
            for client in clients:
                client.send(kind, text)
            return len(clients)

    server = Writing()

    class Listener(library.WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: Any) -> None:
            transport.send(library.WSMsgType.TEXT, _WELCOME.encode())

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == library.WSMsgType.TEXT:
                text = server.subscribe(transport, frame.get_payload_as_bytes())
                transport.send(library.WSMsgType.TEXT, text.encode())

    _run(server.run(server.start), uvloop=True)


def _run(main: Any, *, uvloop: bool) -> None:
    if uvloop:
        import uvloop as library

        library.run(main)
    else:
        asyncio.run(main)


# ASGI


class AsgiServer(AsyncioServer):
    """An application that sends to one after the other, under any ASGI server."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": _WELCOME})
        while (message := await receive())["type"] == "websocket.receive":
            text = self.subscribe(send, message["text"])
            await send({"type": "websocket.send", "text": text})

    async def publish(self, symbol: str) -> int:
        message = {"type": "websocket.send", "text": self.next_text(symbol)}
        clients = self.subscribers.get(symbol, ())
        for send in clients:
            await send(message)
        return len(clients)


def uvicorn() -> None:
    import uvicorn as library

    server = AsgiServer()

    async def start() -> int:
        config = library.Config(
            server, port=0, log_level="critical", ws_ping_interval=None, ws="websockets-sansio",
            ws_per_message_deflate=False, backlog=4096,
        )  # fmt: skip
        running = library.Server(config)
        server.task = asyncio.create_task(running.serve())  # type: ignore[attr-defined]
        while not running.started:
            await asyncio.sleep(0.01)
        port: int = running.servers[0].sockets[0].getsockname()[1]
        return port

    _run(server.run(start), uvloop=True)


def hypercorn() -> None:
    """As it ships, on trio, with the same application."""
    import trio
    from hypercorn.config import Config
    from hypercorn.trio import serve

    class OnTrio(AsgiServer):
        async def settle(self) -> None:
            await trio.lowlevel.checkpoint()

        async def pause(self, seconds: float) -> None:
            await trio.sleep(seconds)

    server = OnTrio()

    async def main() -> None:
        config = Config()
        config.bind, config.loglevel, config.backlog = ["127.0.0.1:0"], "CRITICAL", 4096
        config.errorlog = config.accesslog = None
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(serve, server, config)
            reply({"port": int(addresses[0].rpartition(":")[2])})
            await answer_on_trio(server)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def answer_on_trio(server: Server) -> None:
    """Answer the lines of standard input, and watch the loop meanwhile."""
    import trio

    async def watch() -> None:
        while True:
            await trio.sleep(server.stalls.pause_s())
            server.stalls.note()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(0)) as stream:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    reply(await server.answer(line.decode()))
        nursery.cancel_scope.cancel()


# The system calls alone


class RawServer(AsyncioServer):
    """A handshake and a table of descriptors, and a loop over them."""

    def __init__(
        self, write: Callable[[Any, bytes], int], make: Callable[[list[int]], Any]
    ) -> None:
        super().__init__()
        self._write, self._make = write, make
        self._tables: dict[str, Any] = {}

    async def start(self) -> int:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0, backlog=4096)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from .exchange import frame, switch

        writer.write(switch(await reader.readuntil(b"\r\n\r\n")))
        descriptor = writer.get_extra_info("socket").fileno()
        try:
            while True:
                head = await reader.readexactly(6)  # of a masked frame below 126 bytes, mask zero
                body = await reader.readexactly(head[1] & 0x7F)
                writer.write(frame(self.subscribe(descriptor, body).encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def publish(self, symbol: str) -> int:
        from .exchange import frame

        clients = self.subscribers.get(symbol, [])
        table = self._tables.get(symbol)
        if table is None:
            table = self._tables[symbol] = self._make(clients)
        taken = self._write(table, frame(self.next_text(symbol).encode()))
        return taken

    async def settle(self) -> None:
        """Nothing waits."""


def os_write() -> None:
    def write(clients: Iterable[int], data: bytes) -> int:
        put, taken = os.write, 0
        for client in clients:
            try:
                taken += put(client, data) == len(data)
            except BlockingIOError:
                continue
        return taken

    server = RawServer(write, list)
    asyncio.run(server.run(server.start))


def c_loop() -> None:
    """``send_loop.c``, compiled with what the machine has."""
    import ctypes
    import shutil
    import subprocess
    import tempfile
    from pathlib import Path

    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler (cc) is here")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "send_loop.so")
        source = Path(__file__).with_name("send_loop.c")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", made, source], check=True)
        library = ctypes.CDLL(str(made))

    def make(clients: list[int]) -> Any:
        return (ctypes.c_int * len(clients))(*clients), len(clients)

    def write(table: Any, data: bytes) -> int:
        sent: int = library.send_loop(*table, data, len(data))
        return sent

    server = RawServer(write, make)
    asyncio.run(server.run(server.start))


SERVERS: dict[str, Callable[[], None]] = {
    "trio_feed": trio_feed,
    "C send loop": c_loop,
    "os.write loop": os_write,
    "websockets": websockets,
    "websockets, uvloop": lambda: websockets(uvloop=True),
    "uvicorn, uvloop": uvicorn,
    "picows, uvloop": picows,
    "hypercorn, trio": hypercorn,
}


if __name__ == "__main__":
    open_files()
    SERVERS[json.loads(sys.argv[1])]()
