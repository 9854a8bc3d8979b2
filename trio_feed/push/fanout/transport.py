"""Where a session's frames go: the client's byte stream, or a server that has none to offer."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from .frames import payload_of


class Transport(Protocol):
    """See :class:`trio_feed.push.edge.stream.ClientStream`, which is one."""

    bytes_out: int
    last_received: float
    peer: str

    @property
    def behind(self) -> bool:
        """A frame was begun by ``write_now``; ``send_frames``, even of none, sends its rest."""

    @property
    def unsent(self) -> int:
        """Bytes of that frame that are not sent yet."""

    def write_now(self, frames: Sequence[bytes]) -> int:
        """Write as many frames as can be without waiting, at most 1024; says how many."""

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Write all of them.  Raises what ends the session."""

    def abort(self) -> None:
        """Drop the connection."""


class TextTransport:
    """Sends the frames' text through a server that frames and pings by itself."""

    behind = False
    unsent = 0
    peer = "asgi"

    def __init__(self, send_text: Callable[[str], Awaitable[None]]) -> None:
        self._send_text = send_text
        self.bytes_out = 0
        self.last_received = float("inf")

    def write_now(self, frames: Sequence[bytes]) -> int:
        return 0

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            await self._send_text(payload_of(frame).decode())
            self.bytes_out += len(frame)

    def abort(self) -> None:
        """The server watches over its connections by itself."""
