"""One open WebSocket of the Binance box: reads control messages, writes its queue, keeps alive."""

from collections import deque

import trio
from attrs import define, field

from ..machinery.send_queue import Outbox
from ..machinery.wire import WebSocketPeer, ping_frame, text_frame
from .control import Subscriptions
from .dialect import Dialect, parse_stream
from .publisher import Ticker


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
    _last_pong: float = field(factory=trio.current_time)
    _outbox: Outbox = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(self.peer)

    @property
    def too_slow(self) -> bool:
        """It was dropped because its queue was full."""
        return self._outbox.too_slow

    @property
    def dialect(self) -> Dialect:
        return self.ticker.box.dialect

    @property
    def combined(self) -> bool:
        return self.subscriptions.combined

    def offer(self, frame: bytes) -> None:
        """A market frame; dropped while muted or closing."""
        if not self.muted:
            self._outbox.put(frame)

    def abort(self) -> None:
        """Cut the TCP connection: no close frame, and a reset where there is TCP."""
        self._outbox.abort()

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Start the close handshake; the rest of the queue goes out first."""
        self._outbox.close(code, reason)

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
            await self._outbox.run(self._keep_alive, self._read)
        finally:
            for name in self.subscriptions.names:
                self.ticker.leave(name, self)

    async def _read(self) -> None:
        most = self.dialect.messages_per_s
        recent: deque[float] = deque(maxlen=most + 1)
        while True:
            incoming = await self.peer.receive()
            if self._outbox.closing:
                continue
            recent.append(trio.current_time())
            if len(recent) > most and recent[-1] - recent[0] < 1.0:
                self.close(1008, "Too many requests")
            elif incoming.kind == "pong":
                self._last_pong = trio.current_time()
            elif incoming.kind == "text":
                before = set(self.subscriptions.names)
                self._outbox.put(text_frame(self.subscriptions.handle(incoming.data).encode()))
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

    async def _keep_alive(self) -> None:
        end = trio.current_time() + self.dialect.lifetime_s
        while (left := end - trio.current_time()) > 0:
            await trio.sleep(min(self.dialect.ping_every_s, left))
            if trio.current_time() - self._last_pong > self.dialect.pong_within_s:
                self.close(1008, "Pong timeout")
                await trio.sleep_forever()
            self._outbox.put(ping_frame())
        self.close(1001, "going away")
        await trio.sleep_forever()
