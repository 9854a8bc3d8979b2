"""Between the readers of a venue and its processor: a queue with a short cut."""

from collections.abc import Callable
from typing import Protocol

import trio
from attrs import define

from ..store import KlineStore
from .connection import BATCH, Incoming


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
    is queued and the processor waits for it, so that none overtakes another, and while ``store``
    has room: else the processor is what waits.
    """

    channel: trio.MemorySendChannel[Incoming]
    store: KlineStore
    take: Callable[[Incoming], None]

    def send_nowait(self, value: Incoming, /) -> None:
        if (
            len(value.messages) < BATCH  # of many messages others have a turn in between
            and self.channel.statistics().tasks_waiting_receive
            and not self.store.is_full
        ):
            self.take(value)
        else:
            self.channel.send_nowait(value)

    async def send(self, value: Incoming, /) -> None:
        await self.channel.send(value)
