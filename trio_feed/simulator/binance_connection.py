"""One open WebSocket of the Binance box: reads control messages, writes its queue, keeps alive.

Three tasks; the first to end ends the others.  The queue is bounded: the exchange never waits for
a client, it drops the one that is too slow (as OKX documents it and Binance does it).
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from attrs import define, field, frozen

from ..errors import ConnectionLost
from .binance_control import Subscriptions
from .binance_dialect import Dialect, parse_stream
from .binance_ticker import Ticker
from .wire import WebSocketPeer, ping_frame, text_frame

_QUEUE_FRAMES = 4096
_WRITE_BYTES = 64 * 1024


@frozen
class _Close:
    code: int
    reason: str


@define(eq=False)
class Connection:
    """The levers ``abort``, ``close``, ``mute``, ``mute_stream`` and the sink ``offer`` never wait.

    ``path`` says which streams it gets.  Those of another path are acked and nothing comes, as on
    the real USD-M exchange since 2026-04-23.
    """

    peer: WebSocketPeer
    ticker: Ticker
    path: str
    subscriptions: Subscriptions
    muted: bool = False
    too_slow: bool = False
    """It was dropped because its queue was full."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _last_pong: float = field(factory=trio.current_time)
    _closing: bool = False
    _outbox: trio.MemorySendChannel[bytes | _Close] = field(init=False)
    _queued: trio.MemoryReceiveChannel[bytes | _Close] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._outbox, self._queued = trio.open_memory_channel[bytes | _Close](_QUEUE_FRAMES)

    @property
    def dialect(self) -> Dialect:
        return self.ticker.box.dialect

    @property
    def combined(self) -> bool:
        return self.subscriptions.combined

    def offer(self, frame: bytes) -> None:
        """A market frame; dropped while muted or closing."""
        if not self.muted:
            self._put(frame)

    def abort(self) -> None:
        """Cut the TCP connection: no close frame, and a reset where there is TCP."""
        self.peer.abort_on_close()
        self._scope.cancel()

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Start the close handshake; the rest of the queue goes out first."""
        if not self._closing:
            self._put(_Close(code, reason))
            self._closing = True

    def mute(self) -> None:
        """From now on pings are answered, control messages acked, and nothing is pushed."""
        self.muted = True

    def mute_stream(self, name: str) -> None:
        """From now on nothing of this stream is pushed; the others go on."""
        self.ticker.leave(name, self)

    async def run(self) -> None:
        """Serve it to its end, whoever ends it.  The stream is the caller's to close."""
        self._follow(set())
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for job in (self._write, self._keep_alive, self._read):
                        nursery.start_soon(_first_to_end, job, nursery.cancel_scope, name=job)
        finally:
            self._closing = True
            for name in self.subscriptions.names:
                self.ticker.leave(name, self)

    async def _read(self) -> None:
        most = self.dialect.messages_per_s
        recent: deque[float] = deque(maxlen=most + 1)
        while True:
            incoming = await self.peer.receive()
            if self._closing:
                continue
            recent.append(trio.current_time())
            if len(recent) > most and recent[-1] - recent[0] < 1.0:
                self.close(1008, "Too many requests")
            elif incoming.kind == "pong":
                self._last_pong = trio.current_time()
            elif incoming.kind == "text":
                before = set(self.subscriptions.names)
                self._put(text_frame(self.subscriptions.handle(incoming.data).encode()))
                self._follow(before)

    def _follow(self, before: set[str]) -> None:
        """Tell the ticker what changed since ``before``."""
        names = self.subscriptions.names
        for name in before - names.keys():
            self.ticker.leave(name, self)
        for name in names:
            if name not in before:
                stream = parse_stream(name, self.ticker.box.market, self.dialect)
                if stream is not None and stream.path == self.path:
                    self.ticker.follow(stream, self)

    async def _write(self) -> None:
        while True:
            frames = bytearray()
            item: bytes | _Close | None = await self._queued.receive()
            while isinstance(item, bytes):
                frames += item
                item = self._next_queued() if len(frames) < _WRITE_BYTES else None
            if frames:
                await self.peer.send_frames(bytes(frames))
            if isinstance(item, _Close):
                await self.peer.close(item.code, item.reason)
                await trio.sleep(self.peer.limits.close_s)
                return

    def _next_queued(self) -> bytes | _Close | None:
        try:
            return self._queued.receive_nowait()
        except trio.WouldBlock:
            return None

    async def _keep_alive(self) -> None:
        end = trio.current_time() + self.dialect.lifetime_s
        while (left := end - trio.current_time()) > 0:
            await trio.sleep(min(self.dialect.ping_every_s, left))
            if trio.current_time() - self._last_pong > self.dialect.pong_within_s:
                self.close(1008, "Pong timeout")
                await trio.sleep_forever()
            self._put(ping_frame())
        self.close(1001, "going away")
        await trio.sleep_forever()

    def _put(self, item: bytes | _Close) -> None:
        if self._closing:
            return
        try:
            self._outbox.send_nowait(item)
        except trio.WouldBlock:
            self.too_slow = True
            self.abort()


async def _first_to_end(job: Callable[[], Awaitable[None]], others: trio.CancelScope) -> None:
    with suppress(ConnectionLost):  # how most connections end
        await job()
    others.cancel()
