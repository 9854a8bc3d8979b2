"""One open WebSocket of Binance: reads control messages, keeps alive."""

from collections import deque

import trio
from attrs import define, field

from ..machinery.connection import Connection
from ..machinery.publisher import Publisher
from ..machinery.wire import ping_frame, text_frame
from .control import Subscriptions
from .dialect import MarketData, parse_stream


@define(eq=False)
class BinanceConnection(Connection):
    """``path`` says which streams it gets.  Those of another path are acked and nothing comes, as
    on the real USD-M exchange since 2026-04-23."""

    publisher: Publisher[str]
    data: MarketData
    path: str
    subscriptions: Subscriptions
    _last_pong: float = field(factory=trio.current_time)

    @property
    def combined(self) -> bool:
        return self.subscriptions.combined

    def mute_stream(self, name: str) -> None:
        """From now on nothing of this stream is pushed; the others go on."""
        self.publisher.unsubscribe(name, self)

    async def run(self) -> None:
        self._subscribe(set())
        try:
            await self.queue.run(self._keep_alive, self._read)
        finally:
            for name in self.subscriptions.names:
                self.publisher.unsubscribe(name, self)

    async def _read(self) -> None:
        most = self.data.dialect.messages_per_s
        recent: deque[float] = deque(maxlen=most + 1)
        while True:
            incoming = await self.peer.receive()
            if self.queue.closing:
                continue
            recent.append(trio.current_time())
            if len(recent) > most and recent[-1] - recent[0] < 1.0:
                self.close(1008, "Too many requests")
            elif incoming.kind == "pong":
                self._note_pong()
            elif incoming.kind == "text":
                before = set(self.subscriptions.names)
                self.queue.put(text_frame(self.subscriptions.handle(incoming.data).encode()))
                self._subscribe(before)

    def _note_pong(self) -> None:
        self._last_pong = trio.current_time()

    def _subscribe(self, before: set[str]) -> None:
        """Pass on to the publisher what changed since ``before``."""
        names = self.subscriptions.names
        for name in before - names.keys():
            self.publisher.unsubscribe(name, self)
        for name in names:
            if name not in before:
                stream = parse_stream(name, self.data.market, self.data.dialect)
                if stream is not None and stream.path == self.path:
                    self.publisher.subscribe(name, self)

    async def _keep_alive(self) -> None:
        dialect, end = self.data.dialect, trio.current_time() + self.data.dialect.lifetime_s
        while (left := end - trio.current_time()) > 0:
            await trio.sleep(min(dialect.ping_every_s, left))
            if trio.current_time() - self._last_pong > dialect.pong_within_s:
                self.close(1008, "Pong timeout")
                await trio.sleep_forever()
            self.queue.put(ping_frame())
        self.close(1001, "going away")
        await trio.sleep_forever()
