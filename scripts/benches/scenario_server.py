"""The two servers of :mod:`.scenario`: trio_feed, and a loop that only reads and writes.

Prints ``{"port": ..}`` and answers ``stall`` on standard input.
"""

import asyncio
import base64
import json
import os
import sys
from typing import Any

from .processes import open_files
from .servers import RawServer, Server, answer_on_trio, reply


def trio_feed(job: dict[str, Any]) -> None:
    import structlog
    import trio

    from trio_feed import service
    from trio_feed.collector import spare_collector
    from trio_feed.environment import real_environment
    from trio_feed.settings import load

    class Watched(Server):
        async def publish(self, symbol: str) -> int:
            raise NotImplementedError

    name = "exchanges.binance_usdm"
    quoted = ", ".join(f'"{symbol}"' for symbol in job["symbols"])
    settings = load(assignments=[
        f"{name}.enabled=true", f"{name}.symbols=[{quoted}]", f'{name}.intervals=["1m"]',
        f"{name}.trade_intervals=[]", f'{name}.channels=["kline"]', f"{name}.history_bars=1",
        f"{name}.publish_interval_ms=0", f"{name}.connection.streams_per_connection=200",
        f"{name}.connection.websocket_url=ws://127.0.0.1:{job['port']}",
        f"{name}.connection.rest_url=http://127.0.0.1:{job['port']}",
        "server.port=0", "store.path=:memory:", "logging.level=error",
        "websocket.max_connections=20000", "websocket.max_connections_per_ip=0",
        "kline.connection_timeout=3600", "websocket.ping_interval=3600000",
    ])  # fmt: skip
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(service.run, settings, real_environment())
            spare_collector()
            await trio.sleep(3)  # what is missing is asked for, and does not exist
            reply({"port": int(ready.address.rpartition(":")[2])})
            await answer_on_trio(Watched())
            nursery.cancel_scope.cancel()

    trio.run(main)


class _Loop(RawServer):
    """Its clients subscribe as ours do; an update's symbol is searched for, and it is written to
    each of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(lambda _table, _data: 0, list)
        self.job = job
        self.transport: asyncio.Transport | None = None
        self.rest = b""

    async def start(self) -> int:
        port = await super().start()
        streams = "/".join(
            f"{symbol.lower()}_perpetual@continuousKline_1m" for symbol in self.job["symbols"]
        )
        reader, self.writer = await asyncio.open_connection("127.0.0.1", self.job["port"])
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET /market/stream?streams={streams} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13"
            "\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        self.task = asyncio.create_task(self._read(reader))
        return port

    async def _read(self, reader: asyncio.StreamReader) -> None:
        put = os.write
        while True:
            head = await reader.readexactly(4)  # every update has 126 to 65535 bytes
            body = await reader.readexactly(int.from_bytes(head[2:], "big"))
            at = body.index(b'"ps":"') + 6
            symbol = body[at : body.index(b'"', at)].decode()
            at = body.index(b'"v":"') + 5
            text = b'"volume":%b,' % body[at : body.index(b'"', at)]
            data = text.ljust(_SIZE)
            message = b"\x81\x7e" + len(data).to_bytes(2, "big") + data
            for client in self.subscribers.get(symbol, ()):
                try:
                    put(client, message)
                except BlockingIOError:
                    continue


_SIZE = 640
"""Bytes of one of our candle messages."""


def os_write(job: dict[str, Any]) -> None:
    server = _Loop(job)
    asyncio.run(server.run(server.start))


if __name__ == "__main__":
    open_files()
    given = json.loads(sys.argv[1])
    {"trio_feed": trio_feed, "os.write loop": os_write}[given["impl"]](given)
