"""What waits to be written to one client: a bounded queue with two kinds of entries.

Pushes are refused when the queue is full (the client is too slow); replies are always taken, and
the one who produces them waits for ``room`` before it looks at the next request.
"""

from collections import deque

import trio
from attrs import frozen


@frozen
class OutboxStatistics:
    messages: int
    bytes: int


class Outbox:
    """One writer takes, anybody puts; only ``take`` and ``room`` wait."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._queue: deque[str] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = trio.lowlevel.ParkingLot()

    def statistics(self) -> OutboxStatistics:
        return OutboxStatistics(len(self._queue), self._bytes)

    def push(self, text: str) -> bool:
        """Queue a push.  False: there is no room for it.  After ``close`` it goes nowhere."""
        if not self._fits(len(text)):
            return False
        self.reply(text)
        return True

    def reply(self, text: str) -> None:
        """Queue an answer, whatever is queued already.  After ``close`` it goes nowhere."""
        if not self._closed:
            self._queue.append(text)
            self._bytes += len(text)
            self._changed.unpark_all()

    async def room(self) -> None:
        """Wait until a push would fit."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._fits(1) and not self._closed:
            await self._changed.park()

    async def take(self) -> str | None:
        """The next entry; None when closed and empty."""
        while not self._queue:
            if self._closed:
                return None
            await self._changed.park()
        text = self._queue.popleft()
        self._bytes -= len(text)
        self._changed.unpark_all()
        return text

    def close(self, *, drop: bool = False) -> None:
        """Take nothing more in; ``drop`` also forgets what is queued."""
        self._closed = True
        if drop:
            self._queue.clear()
            self._bytes = 0
        self._changed.unpark_all()

    def _fits(self, size: int) -> bool:
        if not self._queue:
            return True
        return len(self._queue) < self._max_messages and self._bytes + size <= self._max_bytes
