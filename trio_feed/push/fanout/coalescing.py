"""Adaptive write coalescing: direct writes under little load, one write per client under more.

One ``write`` per message and client costs a system call each, and a burst of them holds up the
whole loop.  So the first ``AT_ONCE`` messages are written directly; the rest waits in the clients'
send queues until the coalescer's turn in the scheduler, which writes all that waits for a client
with one call, some clients at a time.  When it has caught up, messages are written directly again.

Thirty frames in one call cost little more than one.  So a pass over those who wait that would begin
soon after the one before is put off while more comes in each turn of the loop, until they lie
``COLLECT_S`` apart.  Turns without a message, which come soon where the loop has time to spare,
begin the pass at once; no timer is needed.

A message for more clients than ``AT_ONCE`` is a task of the coalescer, which gives it to some
clients at a time, so that other tasks run before ten thousand clients are served.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from sys import maxsize
from typing import Never, Protocol

import trio

AT_ONCE = 256
CHUNK = 128
"""Clients written to before others have their turn."""
COLLECT_S = 0.03
MOST_GATHERED = 16 * 2**20
"""Bytes, of all clients together, that may gather: far below what may wait (``waiting``)."""
_MOST_PORTIONS = 4
_QUEUED = 8
"""So many frames are queued in the time that one takes to write, at least."""
_QUIET = 2
"""Turns without a message that end the collecting.  One is not enough: trio shuffles the tasks of a
turn, so that one that publishes in each may run twice between two turns of the coalescer's."""
MOST_TASKS = 256
"""More than one read brings as a rule.  Of a message for ten thousand clients that is a second's
work, which others share; who goes on publishing then does the work of one message for each."""


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
    writes per turn; ``chunk`` clients are written to before others have theirs.

    ``spare``: direct writes that are left, of which a caller takes one for each.  ``gathered``:
    bytes that were queued since the last pass began, counted by who queues many.  ``clock``: in
    seconds, trio's.
    """

    def __init__(
        self,
        at_once: int = AT_ONCE,
        chunk: int = CHUNK,
        *,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.at_once = at_once
        self.spare = self.gathered = 0
        self._chunk, self._clock = chunk, clock
        self._scheduled: deque[Flushable] = deque()
        self._passing = 0  # of these are left in this pass
        self._tasks: deque[tuple[Task, bool]] = deque()  # True: there was no other
        self._awake = self._more_came = False
        self._quiet = _QUIET  # turns without a message
        self._left_at = self._woken_at = 0.0
        self._pass_began = -inf
        self._work = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """There are frames or tasks left."""
        return bool(self._scheduled or self._tasks)

    def may_write(self) -> bool:
        """Whether there is a direct write to be taken from ``spare``.  False: ``schedule``."""
        if not self._awake:
            self._wake()
            self.spare = self.at_once
        return self.spare > 0

    def take(self, number: int) -> int:
        """Take up to ``number`` direct writes at once; returns how many there were."""
        taken = min(number, self.spare) if self.may_write() else 0
        self.spare -= taken
        return taken

    def more(self) -> None:
        """A message came."""
        self._more_came = True

    def schedule(self, client: Flushable) -> None:
        """``client`` has frames waiting: flush it soon.  Once per flush is enough."""
        self._wake()
        self._scheduled.append(client)

    def begin(self, task: Task) -> None:
        """Do it soon, behind those that were begun before.  Where they are too many, the oldest
        is done now."""
        self._wake()
        if len(self._tasks) >= MOST_TASKS:
            self.spare = 0
            self._tasks[0][0].step(maxsize)
            self._tasks.popleft()
        self._tasks.append((task, not self._tasks))

    async def run(self) -> Never:
        """Flush the scheduled clients and step the tasks, until cancelled."""
        while True:
            if not self._awake:
                await self._work.park()
            self.turn()
            if self.busy:
                await trio.lowlevel.checkpoint()
            else:  # at once: what comes in the rest of this turn of the loop finds writes to spare
                self.spare, self._awake = 0, False

    def turn(self) -> None:
        """What is done before others have their turn."""
        if self._tasks:
            self._step()
        self._quiet = 0 if self._more_came else self._quiet + 1
        self._more_came = False
        if not self._passing and self._scheduled:
            now = self._clock()
            if self._collecting(now):
                self._left_at = now
                return
            self._passing, self._pass_began = len(self._scheduled), now
            self.gathered = 0
        self._flush()

    def _collecting(self, now: float) -> bool:
        """More comes, and may be written together with what waits."""
        if self.gathered >= MOST_GATHERED:
            return False
        if self._together:
            return now < max(self._woken_at, self._pass_began) + COLLECT_S
        return self._quiet < _QUIET and now < self._pass_began + COLLECT_S

    def _flush(self) -> None:
        """A portion; and more of them for as long as the others' part of this turn was, for else
        who publishes much in each turn keeps those waiting who come last."""
        began = self._clock()
        until = began + (began - self._left_at)
        for _ in range(_MOST_PORTIONS):
            number = min(self._chunk, self._passing)
            self._passing -= number
            for _ in range(number):
                self._scheduled.popleft().flush()
            self._left_at = self._clock()
            if not self._passing or self._left_at >= until:
                return

    @property
    def _together(self) -> bool:
        """Several tasks came at once: what a client gets of them is written together."""
        return len(self._tasks) > 1 or (bool(self._tasks) and not self._tasks[0][1])

    def _step(self) -> None:
        most = self._chunk * _QUEUED if self._together else max(self._chunk, self.at_once)
        self.spare = 0 if self._together else self.at_once
        if self._tasks[0][0].step(most):
            self._tasks.popleft()
        self.spare = 0

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._left_at = self._woken_at = self._clock()
            self._work.unpark_all()
