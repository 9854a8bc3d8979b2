"""A hub with its store and publisher, and clients on a transport that can be made to stall."""

import json
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews, ChannelNews
from trio_feed.metrics import Metrics
from trio_feed.model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    KlineMessage,
    Series,
    Source,
    Ticker,
)
from trio_feed.push.context import SessionContext, SessionLimits
from trio_feed.push.edge.websocket import NOTHING_AHEAD, Inbox
from trio_feed.push.edge.work import WorkGate, WorkLimits
from trio_feed.push.fanout.frames import PING
from trio_feed.push.fanout.hub import Hub
from trio_feed.push.session import Session
from trio_feed.store import MemoryStore

from .make import MINUTE, SERIES, T0, kline, message, trade
from .private import no_access
from .wire import payload_of

LIMITS = SessionLimits(
    max_subscriptions=2, history_rows=5, max_queued=10, max_queued_bytes=1_000_000
)
TRADES = ChannelKey("binance_usdm", "BTCUSDT", Channel.TRADE)
TICKERS = ChannelKey("binance_usdm", "BTCUSDT", Channel.TICKER)


def now_ms() -> float:
    return T0 + trio.current_time() * 1000


class Node:
    """A hub with one known series (and more on request), its store, and a publisher.

    ``recent`` closed candles are kept, and the last ``ring`` messages.
    """

    def __init__(
        self,
        *,
        recent: int = 5,
        ring: int = 8,
        stored: int = 0,
        epoch: int = 1,
        sparse: bool = False,
    ) -> None:
        self.metrics = Metrics()
        self.store = MemoryStore(epoch)
        self.bus = LocalBus(epoch=epoch, history_rows=recent, resume_messages=ring, now_ms=now_ms)
        self.hub = Hub(
            self.bus,
            default_venue="binance_usdm",
            now_ms=now_ms,
            metrics=self.metrics,
        )
        rows = [kline(T0 - (stored - n) * MINUTE) for n in range(stored)]
        for row in rows:
            self.store.put(message(row, epoch=epoch, offset=0))
        self.bus.open(SERIES, rows, rows[0].open_ms if rows else None, sparse=sparse)
        self.work = WorkGate(WorkLimits(), self.metrics)
        self.flushing = False
        self.problems: dict[str, str] = {}
        """Why a venue's data is not fresh."""

    def why_not(self, venue: str) -> str:
        return self.problems.get(venue, "")

    def publish(
        self, n: int, *, closed: bool = True, series: Series = SERIES, close: str = "100.50"
    ) -> KlineMessage:
        """The ``n``-th candle after T0."""
        row = kline(T0 + n * MINUTE, close, closed=closed)
        return self.send(CandleNews(series, row, 1, float(row.event_ms)))

    def revise(self, n: int, close: str, series: Series = SERIES) -> KlineMessage:
        row = kline(T0 + n * MINUTE, close)
        return self.send(CandleNews(series, row, 1, float(row.event_ms), revision=True))

    def provisional(self, n: int, *, series: Series = SERIES, close: str = "100.50") -> None:
        """The ``n``-th candle, open, while something before it is missing."""
        row = kline(T0 + n * MINUTE, close, closed=False)
        news = CandleNews(series, row, 1, float(row.event_ms), provisional=True)
        assert self.bus.publish(news) is None

    def send(self, news: CandleNews) -> KlineMessage:
        """As the driver does: out, and into the store what is closed."""
        row = self.bus.publish(news)
        assert isinstance(row, KlineMessage)
        if row.kline.closed:
            self.store.put(row)
        return row

    def trade(self, line: ChannelKey = TRADES) -> ChannelMessage:
        return self._line(line, trade(1, T0))

    def ticker(self, line: ChannelKey = TICKERS) -> ChannelMessage:
        price = trade(1, T0).price
        return self._line(line, Ticker("BTCUSDT", price, None, None, None, None, None))

    def _line(self, line: ChannelKey, data: Any) -> ChannelMessage:
        out = self.bus.publish(ChannelNews(line, data, Source.EXCHANGE, now_ms()))
        assert isinstance(out, ChannelMessage)
        return out


class Client:
    """The other end of a session, and the transport between: put requests in, take messages out.

    While ``reading`` is not set the transport takes nothing.
    """

    peer = "192.0.2.1:5000"
    behind = False
    unsent = 0
    ready_fd = -1

    def __init__(self) -> None:
        self.ask, self.requests = trio.open_memory_channel[str | bytes | None](100)
        self._in, self._out = trio.open_memory_channel[dict[str, Any]](100_000)
        self.closed: tuple[int, str] | None = None
        self.gone = trio.Event()
        self.reading = trio.Event()
        self.reading.set()
        self.aborted = False
        self.pings = self.writes = 0
        self.bytes_out = 0
        self.last_received = trio.current_time()
        self.frames: list[bytes] = []
        self.session: Session

    # The transport

    def write_now(self, frames: Sequence[bytes]) -> int:
        if not self.reading.is_set():
            return 0
        self.writes += 1
        for frame in frames:
            self._take(frame)
        return len(frames)

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        await self.reading.wait()
        for frame in frames:
            self._take(frame)

    def abort(self) -> None:
        self.aborted = True

    async def close(self, code: int, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = (code, reason)
        self.gone.set()

    def _take(self, frame: bytes) -> None:
        self.bytes_out += len(frame)
        self.frames.append(frame)
        if frame == PING:
            self.pings += 1
            return
        self._in.send_nowait(json.loads(text_of(frame)))

    # The client

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        with trio.fail_after(60):
            found = await self._out.receive()
        assert kind is None or found["type"] == kind, found
        return found

    def take(self) -> list[dict[str, Any]]:
        """All that has come."""
        return [self._out.receive_nowait() for _ in range(self.waiting())]

    async def request(self, **fields: Any) -> None:
        await self.ask.send(json.dumps(fields))

    async def subscribe(self, **more: Any) -> dict[str, Any]:
        await self.request(**{"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m", **more})
        answer = await self.next("history_data")
        await self.next("subscription_confirmed")
        return answer

    async def keep(self) -> None:
        """From here on the topic's messages are kept, as for any topic that was subscribed to."""
        await self.subscribe()
        await self.request(type="unsubscribe", symbol="BTCUSDT", interval="1m")
        await self.next("unsubscribe_confirmed")

    async def resume(
        self, epoch: int, offset: int, *, provisional: bool = False, **more: Any
    ) -> list[dict[str, Any]]:
        """Subscribe with ``since``; all that comes at once."""
        since = {"epoch": epoch, "offset": offset, **more}
        await self.request(
            type="subscribe", symbol="BTCUSDT", interval="1m", since=since, provisional=provisional
        )
        await trio.testing.wait_all_tasks_blocked()
        return self.take()

    def stall(self) -> None:
        if self.reading.is_set():
            self.reading = trio.Event()

    def waiting(self) -> int:
        return self._out.statistics().current_buffer_used


def text_of(frame: bytes) -> bytes:
    payload = payload_of(frame)
    if frame[0] & 0x40:
        return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
    return payload


@asynccontextmanager
async def connected(
    node: Node,
    limits: SessionLimits = LIMITS,
    *,
    deflated: bool = False,
    inbox: Inbox = NOTHING_AHEAD,
) -> AsyncIterator[Client]:
    client = Client()
    context = SessionContext(
        node.hub, node.store, limits, now_ms, node.metrics, no_access(), node.work, node.why_not
    )
    session = Session(context, client, deflated=deflated, inbox=inbox)
    client.session = session
    async with trio.open_nursery() as nursery:
        if not node.flushing:
            node.flushing = True
            nursery.start_soon(node.hub.run)
        nursery.start_soon(session.run, client.requests.receive, client.close)
        await client.next("connection_success")
        yield client
        nursery.cancel_scope.cancel()


def times(rows: list[dict[str, Any]]) -> list[int]:
    return [(row["time"] - T0 // 1000) // 60 for row in rows]


def numbers(told: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(offset, conflated) of the data messages."""
    data = [m["data"] for m in told if m["type"].endswith("_data") and m["type"] != "history_data"]
    return [(row["offset"], row.get("conflated", 0)) for row in data]
