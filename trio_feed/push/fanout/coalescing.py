"""Adaptive write coalescing: direct writes under little load, one write per client under more.

One ``write`` per message and client costs a system call each, and a burst of them holds up the
whole loop.  So the first ``AT_ONCE`` messages are written directly; the rest waits in the clients'
send queues until the coalescer's turn in the scheduler, which writes all that waits for a client
with one call, some clients at a time.  There is no timer: when the coalescer has caught up,
messages are written directly again.

A message for more clients than that is a task of the coalescer, which gives it to some clients at
a time, so that other tasks run before ten thousand clients are served.
"""

from collections import deque
from typing import Never, Protocol

import trio

AT_ONCE = 256
CHUNK = 128
"""Clients written to before others have their turn."""
_MOST_TASKS = 32


class Flushable(Protocol):
    """A client with frames in its send queue."""

    def flush(self) -> None:
        """Write what waits, as far as possible without waiting."""


class Task(Protocol):
    """Something long that can be done in pieces."""

    def step(self, most: int) -> bool:
        """Do ``most`` more of it.  True: that was the last."""


class WriteCoalescer:
    """One per hub.  ``run`` is a task; all else is synchronous.  There are ``at_once`` direct
    writes per turn; ``chunk`` clients are written to before others have theirs."""

    def __init__(self, at_once: int = AT_ONCE, chunk: int = CHUNK) -> None:
        self.at_once = self._left = at_once
        self._chunk = chunk
        self._scheduled: deque[Flushable] = deque()
        self._tasks: deque[Task] = deque()
        self._work = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """There are frames or tasks left."""
        return bool(self._scheduled or self._tasks)

    @property
    def full(self) -> bool:
        """No more tasks are to be begun."""
        return len(self._tasks) >= _MOST_TASKS

    def may_write(self) -> bool:
        """Take one of the direct writes.  False: there are no more, ``schedule`` instead."""
        left = self._left
        if left <= 0:
            return False
        if left == self.at_once:  # else the coalescer has been woken already
            self._wake()
        self._left = left - 1
        return True

    def schedule(self, client: Flushable) -> None:
        """``client`` has frames waiting: flush it soon.  Once per flush is enough."""
        self._wake()
        self._scheduled.append(client)

    def begin(self, task: Task) -> None:
        """Do it soon, behind those that were begun before."""
        self._wake()
        self._tasks.append(task)

    async def run(self) -> Never:
        """Flush the scheduled clients and step the tasks, until cancelled."""
        while True:
            if self._idle:
                await self._work.park()
            while self.busy:
                self.turn()
                await trio.lowlevel.checkpoint()
            self._left = self.at_once

    def turn(self) -> None:
        """What is done before others have their turn."""
        if self._tasks:
            self._step()
        for _ in range(min(self._chunk, len(self._scheduled))):
            self._scheduled.popleft().flush()

    def _step(self) -> None:
        """With more to come, what a client gets of it is written together."""
        self._left = self._chunk if len(self._tasks) == 1 else 0
        if self._tasks[0].step(self._chunk):
            self._tasks.popleft()
        self._left = 0

    @property
    def _idle(self) -> bool:
        return not self.busy and self._left == self.at_once

    def _wake(self) -> None:
        if self._idle:
            self._work.unpark_all()
