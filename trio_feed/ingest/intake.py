"""Between the readers of a venue and its processor: a queue with a short cut."""

from collections.abc import Callable
from typing import Protocol

import trio
from attrs import define

from .connection import BATCH, Incoming

_STRAIGHT = 64
"""After so many that went past the queue one goes through it: the processor then looks whether the
store has room."""


class Outlet(Protocol):
    """Where a reader hands on what one read said; a channel's sending end is one."""

    def send_nowait(self, value: Incoming, /) -> None:
        """Raises trio.WouldBlock where there is no room."""

    async def send(self, value: Incoming, /) -> None:
        """Wait for room."""


@define(eq=False)
class Intake:
    """The sending end of a venue's queue.

    A task switch takes longer than everything that is done with a message.  So where messages come
    one by one, each of them is taken in its reader's own turn, by ``take``; but only while nothing
    is queued and the processor waits for it, so that none overtakes another.
    """

    channel: trio.MemorySendChannel[Incoming]
    take: Callable[[Incoming], None]
    _straight: int = 0

    def send_nowait(self, value: Incoming, /) -> None:
        if (
            self._straight < _STRAIGHT
            and len(value.messages) < BATCH  # of many messages others have a turn in between
            and self.channel.statistics().tasks_waiting_receive
        ):
            self._straight += 1
            self.take(value)
        else:
            self._straight = 0
            self.channel.send_nowait(value)

    async def send(self, value: Incoming, /) -> None:
        await self.channel.send(value)
