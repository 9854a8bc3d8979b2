"""Between the readers of a venue and its processor: a bounded queue with a short cut.

To wake the processor takes a turn of the event loop, which costs more than all that is done with a
message.  So where messages come one by one each of them is taken in its reader's own turn; but only
while nothing else waits, so that none overtakes another, and while the store has room: then it is
the processor that waits.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from attrs import define, field, frozen

from ..core.streams import Data
from ..instants import Mono, Wall
from ..store import KlineStore
from ..transactions import Transaction

FEW = 8
"""So many events are taken at once by the reader; for more, others have a turn in between."""


@frozen
class Incoming:
    """What the messages of one read said, in order, and when their bytes came in.  None: the
    streams are confirmed from here on; only of venues whose messages are transactions."""

    events: Sequence[Data | Transaction | None]
    mono: Mono
    wall: Wall


class Outlet(Protocol):
    """Where a reader hands on what one read said; a channel's sending end is one."""

    def send_nowait(self, value: Incoming, /) -> None:
        """Raises trio.WouldBlock where there is no room."""

    async def send(self, value: Incoming, /) -> None:
        """Wait for room."""


@define(eq=False)
class Intake:
    """The queue of a venue, ``most`` long.  ``take``: does at once what one read said, and says
    False where that may have to wait."""

    most: int
    store: KlineStore
    take: Callable[[Incoming], bool]
    waiting: int = 0
    """Handed on, and not done yet."""
    _send: trio.MemorySendChannel[Incoming] = field(init=False)
    _receive: trio.MemoryReceiveChannel[Incoming] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Incoming](self.most)

    def send_nowait(self, value: Incoming, /) -> None:
        """See :class:`Outlet`."""
        alone = not self.waiting and len(value.events) <= FEW and not self.store.is_full
        if alone and self.take(value):
            return
        self._send.send_nowait(value)
        self.waiting += 1

    async def send(self, value: Incoming, /) -> None:
        """See :class:`Outlet`."""
        self.waiting += 1
        try:
            await self._send.send(value)
        except BaseException:  # it was not handed on
            self.waiting -= 1
            raise

    async def receive(self) -> Incoming:
        """The next one, for the processor; :meth:`done` follows it."""
        return await self._receive.receive()

    def done(self) -> None:
        """What was received last is dealt with."""
        self.waiting -= 1
