"""Readers of ``scripts/bench inbound``, each as it is used best: NAME PORT SECONDS SYMBOL...

Counts for SECONDS from the first message on, and prints ``{"messages": .., "seconds": ..}``.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class Count:
    """Messages since the first one; ends the process when the time is over."""

    def __init__(self, seconds: float) -> None:
        self.messages, self._seconds, self._began = 0, seconds, 0.0

    def add(self, number: int) -> None:
        now = time.perf_counter()
        if not self._began:
            self._began = now
            return
        self.messages += number
        if now - self._began >= self._seconds:
            print(json.dumps({"messages": self.messages, "seconds": now - self._began}))
            sys.stdout.flush()
            os._exit(0)


def recv(port: int, count: Count, symbols: list[str]) -> None:
    stream = socket.create_connection(("127.0.0.1", port))
    del symbols
    stream.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    stream.recv(65536)
    size = 0.0
    while data := stream.recv(65536):
        size += len(data) / _MEAN_FRAME
        count.add(int(size))
        size -= int(size)


_MEAN_FRAME = 303.0
"""Bytes of a frame of the sender's, within one per cent."""


def _parser(symbols: list[str]) -> Callable[[str | bytes], Any]:
    from trio_feed.model import Instrument
    from trio_feed.venues.binance import usdm
    from trio_feed.venues.instruments import Instruments

    table = Instruments([Instrument("binance_usdm", s, s, "perpetual") for s in symbols])
    return lambda raw: usdm.parse(raw, table)


def picows(port: int, count: Count, symbols: list[str]) -> None:
    import picows as library
    import uvloop

    parse = _parser(symbols)

    class Listener(library.WSListener):  # type: ignore[misc]
        def on_ws_frame(self, _transport: Any, frame: Any) -> None:
            parse(frame.get_payload_as_bytes())
            seen.append(1)
            if len(seen) == 64:
                count.add(64)
                seen.clear()

    seen: list[int] = []

    async def main() -> None:
        url = f"ws://127.0.0.1:{port}/"
        transport, _ = await library.ws_connect(Listener, url)
        await transport.wait_disconnected()

    uvloop.run(main())


def websockets(port: int, count: Count, symbols: list[str]) -> None:
    import asyncio

    from websockets.asyncio.client import connect

    async def main() -> None:
        async with connect(f"ws://127.0.0.1:{port}/", compression=None) as socket_:
            seen = 0
            async for raw in socket_:
                data = json.loads(raw)["data"]
                (data["s"], data["p"], data["q"], data["T"], data["m"])
                seen += 1
                if seen == 64:
                    count.add(64)
                    seen = 0

    asyncio.run(main())


def cryptofeed(port: int, count: Count, symbols: list[str]) -> None:
    import asyncio

    import uvloop
    from cryptofeed import FeedHandler
    from cryptofeed.connection import WebsocketEndpoint
    from cryptofeed.defines import TRADES
    from cryptofeed.exchanges import BinanceFutures
    from cryptofeed.symbols import Symbol, Symbols

    names = {Symbol(s[:-4], "USDT", type="perpetual").normalized: s for s in symbols}
    Symbols.set(BinanceFutures.id, names, {"instrument_type": dict.fromkeys(names, "perpetual")})
    BinanceFutures.websocket_endpoints = [
        WebsocketEndpoint(f"ws://127.0.0.1:{port}", options={"compression": None})
    ]
    seen = 0

    async def trade(_trade: Any, _at: float) -> None:
        nonlocal seen
        seen += 1
        if seen == 64:
            count.add(64)
            seen = 0

    handler = FeedHandler(config={"uvloop": True, "log": {"disabled": True}})
    feed = BinanceFutures(symbols=list(names), channels=[TRADES], callbacks={TRADES: trade})
    handler.add_feed(feed)
    uvloop.install()
    asyncio.set_event_loop(uvloop.new_event_loop())  # it looks for one, and makes none
    handler.run(install_signal_handlers=False)


def _ours(transport: str) -> Callable[[int, Count, list[str]], None]:
    def read(port: int, count: Count, symbols: list[str]) -> None:
        import trio

        from trio_feed.environment import real_environment
        from trio_feed.net.limits import FrameBudget
        from trio_feed.net.route import Route
        from trio_feed.net.websocket import Deadlines, open_websocket
        from trio_feed.settings import ProxySettings

        parse = _parser(symbols)

        async def main() -> None:
            route = Route(real_environment().dial, ProxySettings(), None, "", 5)
            async with open_websocket(
                f"ws://127.0.0.1:{port}/",
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

        trio.run(main)

    return read


def _whole(interval_ms: int) -> Callable[[int, Count, list[str]], None]:
    """The service: socket, parser, core, memory store, bus, hub without subscribers."""

    def read(port: int, count: Count, symbols: list[str]) -> None:
        import trio

        from trio_feed import logs, service
        from trio_feed.environment import real_environment
        from trio_feed.ingest.driver import Driver
        from trio_feed.settings import load

        url = f"127.0.0.1:{port}"
        quoted = ", ".join(f'"{symbol}"' for symbol in symbols)
        name = "exchanges.binance_usdm"
        settings = load(
            assignments=(
                f"{name}.enabled=true",
                f"{name}.symbols=[{quoted}]",
                f"{name}.intervals=[]",
                f'{name}.trade_intervals=["1s", "30s", "1m"]',
                f'{name}.channels=["kline", "trade"]',
                f"{name}.publish_interval_ms={interval_ms}",
                f"{name}.connection.websocket_url=ws://{url}",
                f"{name}.connection.rest_url=http://{url}",
                "server.port=0",
                "store.path=:memory:",
            ),
        )
        take = Driver.take

        def counted(self: Driver, *given: Any) -> None:
            take(self, *given)
            count.seen += 1  # type: ignore[attr-defined]
            if count.seen == 64:  # type: ignore[attr-defined]
                count.add(64)
                count.seen = 0  # type: ignore[attr-defined]

        count.seen = 0  # type: ignore[attr-defined]
        Driver.take = counted  # type: ignore[method-assign, assignment]
        with logs.writing(settings.logging):
            trio.run(service.run, settings, real_environment())

    return read


READERS: dict[str, Callable[[int, Count, list[str]], None]] = {
    "recv": recv,
    "picows": picows,
    "websockets": websockets,
    "cryptofeed": cryptofeed,
    "library": _ours("trio-websocket"),
    "fast": _ours("fast"),
    "whole": _whole(100),
    "whole0": _whole(0),
}


def main() -> None:
    name, port, seconds, *symbols = sys.argv[1:]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    READERS[name](int(port), Count(float(seconds)), symbols)


if __name__ == "__main__":
    main()
