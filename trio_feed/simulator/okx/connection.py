"""One open WebSocket of OKX: reads control messages, ends the idle."""

import math

import trio
from attrs import define, field

from ..machinery.connection import Connection
from ..machinery.publisher import Publisher
from ..machinery.wire import text_frame
from .control import Control, notice
from .rows import Channel

IDLE_S = 30.0
"""Without a subscription after the connect, or without anything sent later: 4004.  A pong counts
as sent, that is what ``ping`` is for.  exchanges.md 5.2."""
UPGRADE_S = 60.0
"""From notice 64008 to the end (30 s in older documents)."""
_PONG = text_frame(b"pong")


@define(eq=False)
class OkxConnection(Connection):
    publisher: Publisher[Channel]
    control: Control
    _opened: float = field(factory=trio.current_time)
    _upgrade_at: float = math.inf
    _subscribed: bool = False

    @property
    def url(self) -> str:
        """public, business or private."""
        return self.control.url

    def mute_stream(self, name: str) -> None:
        """From now on nothing of it (``channel:instId``) is pushed; other streams go on."""
        channel, _, inst_id = name.partition(":")
        self.publisher.unsubscribe(Channel(channel, inst_id), self)

    def announce_upgrade(self) -> None:
        """Notice 64008 (not promised on /business, so not given), and the end in 60 s."""
        if self.url != "business":
            self.queue.put(text_frame(notice(self.control.conn_id).encode()))
        self._upgrade_at = trio.current_time() + UPGRADE_S

    def tell(self, text: str) -> None:
        """An order of the account."""
        if "orders" in self.control.private:
            self.offer(text_frame(text.encode()))

    async def run(self) -> None:
        sockets = self.control.accounts.sockets
        sockets.append(self.tell)
        try:
            await self.queue.run(self._end_when_idle, self._read)
        finally:
            sockets.remove(self.tell)
            for channel in self.control.subscribed:
                self.publisher.unsubscribe(channel, self)

    async def _read(self) -> None:
        while True:
            incoming = await self.peer.receive()
            if self.queue.closing or incoming.kind != "text":
                continue
            if incoming.data == "ping":
                self.queue.put(_PONG)
            else:
                self._obey(incoming.data)

    def _obey(self, text: str) -> None:
        for step in self.control.handle(text, trio.current_time()):
            self.queue.put(text_frame(step.text.encode()))
            if step.follow is not None or self.control.private:
                self._subscribed = True
            if step.follow is not None:
                self.publisher.subscribe(step.follow, self)
            if step.leave is not None:
                self.publisher.unsubscribe(step.leave, self)

    async def _end_when_idle(self) -> None:
        while True:
            idle_at = (self.queue.last_put if self._subscribed else self._opened) + IDLE_S
            now = trio.current_time()
            if now >= self._upgrade_at:
                self.close(1001, "service upgrade")
                await trio.sleep_forever()
            if now >= idle_at:
                self.close(4004, "No data received in 30s")
                await trio.sleep_forever()
            await trio.sleep_until(min(idle_at, self._upgrade_at))
