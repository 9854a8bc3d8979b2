"""One open WebSocket of a simulated exchange: what every dialect's connection has."""

from abc import ABC, abstractmethod

from attrs import define, field

from .send_queue import SendQueue
from .wire import WebSocketPeer


@define(eq=False)
class Connection(ABC):
    """``offer``, ``abort``, ``close`` and ``mute`` never wait."""

    peer: WebSocketPeer
    queue: SendQueue = field(init=False)
    muted: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.queue = SendQueue(self.peer)

    @property
    def combined(self) -> bool:
        """Whether its messages name their stream."""
        return False

    def offer(self, frame: bytes) -> None:
        """A market frame; dropped while muted or closing."""
        if not self.muted:
            self.queue.put(frame)

    def abort(self) -> None:
        """Cut the TCP connection: no close frame, and a reset where there is TCP."""
        self.queue.abort()

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Start the close handshake, behind what is queued."""
        self.queue.close(code, reason)

    def mute(self) -> None:
        """From now on pings and requests are answered, and nothing is pushed."""
        self.muted = True

    @abstractmethod
    async def run(self) -> None:
        """Serve it to its end, whichever side ends it.  The stream is the caller's to close."""
