"""Readers of ``scripts/bench inbound``, each as it is used best; the job is JSON (see ``inbound``).

Each counts for ``seconds`` from the first message on, and prints
``{"messages": .., "seconds": .., "cpu_s": ..}``.
"""

import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .exchange import MEAN_FRAME

_HELLO = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
Job = Mapping[str, Any]


class Count:
    """Messages since the first one; ends the process when the time is over.

    ``every``: a reader that gets them one by one looks at the clock once in so many.
    """

    def __init__(self, seconds: float, every: int = 64) -> None:
        self.messages, self._seconds, self._every, self._seen = 0, seconds, every, 0
        self._began = self._cpu = 0.0

    def one(self) -> None:
        self._seen += 1
        if self._seen == self._every:
            self.add(self._seen)
            self._seen = 0

    def add(self, number: int) -> None:
        now = time.perf_counter()
        if not self._began:
            self._began, self._cpu = now, time.process_time()
            return
        self.messages += number
        if now - self._began >= self._seconds:
            cpu_s = time.process_time() - self._cpu
            print(json.dumps(
                {"messages": self.messages, "seconds": now - self._began, "cpu_s": cpu_s}
            ))  # fmt: skip
            sys.stdout.flush()
            os._exit(0)


def _url(job: Job) -> str:
    return f"wss://localhost:{job['port']}/" if job["ca_file"] else f"ws://127.0.0.1:{job['port']}/"


def _trusting(job: Job) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=job["ca_file"]) if job["ca_file"] else None


def recv(job: Job, count: Count) -> None:
    import socket

    stream = socket.create_connection(("127.0.0.1", job["port"]))
    stream.sendall(_HELLO)
    stream.recv(65536)
    size = 0.0
    while data := stream.recv(65536):
        size += len(data) / MEAN_FRAME
        count.add(int(size))
        size -= int(size)


def bare(job: Job, count: Count) -> None:
    """A trio task per connection that receives and looks at nothing."""
    import trio

    async def read() -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", job["port"])
        await stream.send_all(_HELLO)
        await stream.receive_some(65536)
        while data := await stream.receive_some(65536):
            count.add(round(len(data) / MEAN_FRAME))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(job["connections"]):
                nursery.start_soon(read)

    trio.run(main)


def bare_uvloop(job: Job, count: Count) -> None:
    """The same as callbacks of uvloop."""
    import asyncio

    import uvloop

    class Protocol(asyncio.Protocol):
        opened = False

        def connection_made(self, transport: Any) -> None:
            transport.write(_HELLO)

        def data_received(self, data: bytes) -> None:
            if self.opened:
                count.add(round(len(data) / MEAN_FRAME))
            self.opened = True

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(job["connections"]):
            await loop.create_connection(Protocol, "127.0.0.1", job["port"])
        await asyncio.sleep(3600)

    uvloop.run(main())


def _parser(symbols: list[str]) -> Callable[[str | bytes], Any]:
    from trio_feed.model import Instrument
    from trio_feed.venues.binance import usdm
    from trio_feed.venues.instruments import Instruments

    table = Instruments([Instrument("binance_usdm", s, s, "perpetual") for s in symbols])
    return lambda raw: usdm.parse(raw, table)


def picows(job: Job, count: Count) -> None:
    import picows as library
    import uvloop

    parse = _parser(job["symbols"])

    class Listener(library.WSListener):  # type: ignore[misc]
        def on_ws_frame(self, _transport: Any, frame: Any) -> None:
            parse(frame.get_payload_as_bytes())
            count.one()

    async def main() -> None:
        context = _trusting(job)
        more = {} if context is None else {"ssl_context": context}
        transport, _ = await library.ws_connect(Listener, _url(job), **more)
        await transport.wait_disconnected()

    uvloop.run(main())


def websockets(job: Job, count: Count) -> None:
    import asyncio

    from websockets.asyncio.client import connect

    async def main() -> None:
        async with connect(_url(job), compression=None) as socket:
            async for raw in socket:
                data = json.loads(raw)["data"]
                (data["s"], data["p"], data["q"], data["T"], data["m"])
                count.one()

    asyncio.run(main())


def cryptofeed(job: Job, count: Count) -> None:
    """Its Binance feed and trade handler with a callback that does nothing, on uvloop, compression
    not offered.  It refuses ws:// addresses; that check is stepped around."""
    import asyncio

    import uvloop
    from cryptofeed import FeedHandler, feed
    from cryptofeed.connection import WebsocketEndpoint, WSAsyncConn
    from cryptofeed.defines import TRADES
    from cryptofeed.exchanges import BinanceFutures
    from cryptofeed.symbols import Symbol, Symbols

    class Connection(WSAsyncConn):  # type: ignore[misc]
        def __init__(self, address: str, *rest: Any, **more: Any) -> None:
            super().__init__("wss://" + address.partition("://")[2], *rest, **more)
            self.address = address

    feed.WSAsyncConn = Connection
    names = {Symbol(s[:-4], "USDT", type="perpetual").normalized: s for s in job["symbols"]}
    Symbols.set(BinanceFutures.id, names, {"instrument_type": dict.fromkeys(names, "perpetual")})
    BinanceFutures.websocket_endpoints = [
        WebsocketEndpoint(_url(job).rstrip("/"), options={"compression": None})
    ]

    async def trade(_trade: Any, _at: float) -> None:
        count.one()

    uvloop.install()
    asyncio.set_event_loop(uvloop.new_event_loop())  # it looks for one, and makes none
    handler = FeedHandler(config={"uvloop": True, "log": {"disabled": True}})
    asyncio.set_event_loop(uvloop.new_event_loop())
    handler.add_feed(
        BinanceFutures(symbols=list(names), channels=[TRADES], callbacks={TRADES: trade})
    )
    handler.run(install_signal_handlers=False)


def _ours(transport: str) -> Callable[[Job, Count], None]:
    def read(job: Job, count: Count) -> None:
        import trio

        from trio_feed.environment import real_environment
        from trio_feed.net.limits import FrameBudget
        from trio_feed.net.route import Route
        from trio_feed.net.websocket import Deadlines, open_websocket
        from trio_feed.settings import ProxySettings

        parse = _parser(job["symbols"])
        proxy = ProxySettings()
        if job["ca_file"]:
            proxy = ProxySettings.from_url(f"http://127.0.0.1:{job['port']}")

        async def one() -> None:
            route = Route(real_environment().dial, proxy, None, job["ca_file"], 5)
            async with open_websocket(
                _url(job),
                route=route,
                deadlines=Deadlines(15, 2, 30, 10, 60),
                max_message_bytes=1 << 20,
                frames=FrameBudget((100, 1.0)),
                transport=transport,  # type: ignore[arg-type]
            ) as stream:
                while True:
                    messages = await stream.receive_many()
                    for raw in messages:
                        parse(raw)
                    count.add(len(messages))

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(job["connections"]):
                    nursery.start_soon(one)

        trio.run(main)

    return read


def _whole(interval_ms: int, read_batch_us: int = 0) -> Callable[[Job, Count], None]:
    """The service: socket, parser, core, memory store, bus, hub without subscribers."""

    def read(job: Job, count: Count) -> None:
        import trio

        from trio_feed import logs, service
        from trio_feed.environment import real_environment
        from trio_feed.ingest.driver import Driver
        from trio_feed.settings import load

        take = Driver.take

        def counted(self: Driver, events: Sequence[Any], *given: Any) -> None:
            take(self, events, *given)
            count.add(len(events))

        Driver.take = counted  # type: ignore[method-assign, assignment]
        settings = load(assignments=_settings(job, interval_ms, read_batch_us))
        with logs.writing(settings.logging):
            trio.run(service.run, settings, real_environment())

    return read


def _settings(job: Job, interval_ms: int, read_batch_us: int) -> list[str]:
    quoted = ", ".join(f'"{symbol}"' for symbol in job["symbols"])
    name, secure = "exchanges.binance_usdm", bool(job["ca_file"])
    address = f"localhost:{job['port']}" if secure else f"127.0.0.1:{job['port']}"
    found = [
        f"{name}.enabled=true",
        f"{name}.symbols=[{quoted}]",
        f"{name}.intervals=[]",
        f'{name}.trade_intervals=["1s", "30s", "1m"]',
        f'{name}.channels=["kline", "trade"]',
        f"{name}.publish_interval_ms={interval_ms}",
        f"{name}.connection.read_batch_us={read_batch_us}",
        f"{name}.connection.websocket_url={'wss' if secure else 'ws'}://{address}",
        f"{name}.connection.rest_url={'https' if secure else 'http'}://{address}",
        "server.port=0",
        "store.path=:memory:",
        "logging.level=error",
        "logging.format=json",
    ]
    if secure:
        found += [
            f"{name}.connection.ca_file={job['ca_file']}",
            f"{name}.connection.proxy=http://127.0.0.1:{job['port']}",
        ]
    if job["connections"] > 1:
        found.append(f"{name}.connection.streams_per_connection=1")
    return found


READERS: dict[str, Callable[[Job, Count], None]] = {
    "recv": recv,
    "bare": bare,
    "bare_uvloop": bare_uvloop,
    "picows": picows,
    "websockets": websockets,
    "cryptofeed": cryptofeed,
    "library": _ours("trio-websocket"),
    "fast": _ours("fast"),
    "whole": _whole(100),
    "whole0": _whole(0),
    "whole_each_10_ms": _whole(100, 10_000),
}


def main() -> None:
    job = json.loads(sys.argv[1])
    every = 64 if job["connections"] == 1 else 1
    READERS[job["reader"]](job, Count(float(job["seconds"]), every))


if __name__ == "__main__":
    main()
