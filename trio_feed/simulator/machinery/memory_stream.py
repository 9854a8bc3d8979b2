"""A pair of byte streams in memory that costs little.

trio.testing has one that yields to the scheduler four times per message, so that careless callers
are found out; a simulated day is mostly that.  This one yields only where it has to wait.
"""

import trio
from attrs import define, field


@define(eq=False)
class _Direction:
    """Bytes on their way in one direction."""

    data: bytearray = field(factory=bytearray)
    ended: bool = False
    """The sender has hung up."""
    deaf: bool = False
    """The receiver has."""
    readers: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)


@define(eq=False)
class Pipe(trio.abc.Stream):
    """One end.  Any number of tasks may send, one receives; the buffer has no bound."""

    _incoming: _Direction
    _outgoing: _Direction
    _closed: bool = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        if data:  # nothing would be the end of the stream to a reader that woke
            self._outgoing.data += data
            self._outgoing.readers.unpark_all()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        direction = self._incoming
        if self._closed:
            raise trio.ClosedResourceError
        if direction.data:
            await trio.lowlevel.checkpoint_if_cancelled()
        elif direction.ended:
            await trio.lowlevel.checkpoint()
        else:
            await direction.readers.park()
            if self._closed:
                raise trio.ClosedResourceError
        data = bytes(direction.data[:max_bytes])
        del direction.data[:max_bytes]
        return data

    async def aclose(self) -> None:
        self._closed = True
        self._incoming.deaf = self._outgoing.ended = True
        self._incoming.data.clear()
        self._incoming.readers.unpark_all()
        self._outgoing.readers.unpark_all()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._outgoing.deaf:
            raise trio.BrokenResourceError("the other end is closed")


def pipe_pair() -> tuple[Pipe, Pipe]:
    """Both ends."""
    one, other = _Direction(), _Direction()
    return Pipe(one, other), Pipe(other, one)
