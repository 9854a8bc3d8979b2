"""One open WebSocket of OKX's box: reads control messages, writes its queue, ends the idle."""

import math

import trio
from attrs import define, field

from ..machinery.send_queue import Outbox
from ..machinery.wire import WebSocketPeer, text_frame
from .control import Control, notice
from .publisher import Feed
from .rows import Channel

IDLE_S = 30.0
"""Without a subscription after the connect, or without anything sent later: 4004.  A pong counts
as sent, that is what ``ping`` is for.  exchanges.md 5.2."""
UPGRADE_S = 60.0
"""From notice 64008 to the end (30 s in older documents)."""
_PONG = text_frame(b"pong")


@define(eq=False)
class OkxConnection:
    """The levers ``abort``, ``close``, ``mute``, ``mute_stream`` and the sink ``offer`` do not
    wait."""

    peer: WebSocketPeer
    feed: Feed
    control: Control
    muted: bool = False
    _outbox: Outbox = field(init=False)
    _opened: float = field(factory=trio.current_time)
    _upgrade_at: float = math.inf
    _subscribed: bool = False

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(self.peer)

    @property
    def url(self) -> str:
        """public, business or private."""
        return self.control.url

    @property
    def too_slow(self) -> bool:
        """It was dropped because its queue was full."""
        return self._outbox.too_slow

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
        """From now on ``ping`` is answered, control messages acked, and nothing is pushed."""
        self.muted = True

    def mute_stream(self, name: str) -> None:
        """From now on nothing of it (``channel:instId``) is pushed; other streams go on."""
        channel, _, inst_id = name.partition(":")
        self.feed.leave(Channel(channel, inst_id), self)

    def announce_upgrade(self) -> None:
        """Notice 64008 (not promised on /business, so not given), and the end in 60 s."""
        if self.url != "business":
            self._outbox.put(text_frame(notice(self.control.conn_id).encode()))
        self._upgrade_at = trio.current_time() + UPGRADE_S

    async def run(self) -> None:
        """Serve it to its end, whoever ends it.  The stream is the caller's to close."""
        try:
            await self._outbox.run(self._end_when_idle, self._read)
        finally:
            for channel in self.control.subscribed:
                self.feed.leave(channel, self)

    async def _read(self) -> None:
        while True:
            incoming = await self.peer.receive()
            if self._outbox.closing or incoming.kind != "text":
                continue
            if incoming.data == "ping":
                self._outbox.put(_PONG)
            else:
                self._obey(incoming.data)

    def _obey(self, text: str) -> None:
        for step in self.control.handle(text, trio.current_time()):
            self._outbox.put(text_frame(step.text.encode()))
            if step.follow is not None:
                self._subscribed = True
                self.feed.follow(step.follow, self)
            if step.leave is not None:
                self.feed.leave(step.leave, self)

    async def _end_when_idle(self) -> None:
        while True:
            idle_at = (self._outbox.last_put if self._subscribed else self._opened) + IDLE_S
            now = trio.current_time()
            if now >= self._upgrade_at:
                self.close(1001, "service upgrade")
                await trio.sleep_forever()
            if now >= idle_at:
                self.close(4004, "No data received in 30s")
                await trio.sleep_forever()
            await trio.sleep_until(min(idle_at, self._upgrade_at))
