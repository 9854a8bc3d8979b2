"""Where a session's frames go: the client's byte stream."""

from collections.abc import Sequence
from typing import Protocol


class Transport(Protocol):
    """See :class:`trio_feed.push.edge.stream.ClientStream`, which is one."""

    bytes_out: int
    last_received: float
    peer: str
    ready_fd: int
    """Of a socket to which one frame may be written at this moment; -1: ask ``write_now``."""

    @property
    def behind(self) -> bool:
        """A frame was begun; ``send_frames``, even of none, sends its rest."""

    @property
    def unsent(self) -> int:
        """Bytes of that frame that are not sent yet."""

    def write_now(self, frames: Sequence[bytes]) -> int:
        """Write as many frames as can be without waiting, at most 1024; says how many."""

    def begun(self, frame: bytes, taken: int) -> None:
        """Of what was written to ``ready_fd`` so many bytes were taken, not all."""

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Write all of them.  Raises what ends the session."""

    def abort(self) -> None:
        """Drop the connection."""
