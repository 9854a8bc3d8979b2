"""Who writes when: at once while there is little to do, together as soon as there is more.

One ``write`` per message and client costs a system call each, and a burst of them holds up the
whole loop.  So the first ``AT_ONCE`` messages go out directly; what comes on top of them waits in
the clients' queues until the flusher's turn in the scheduler, which writes all that a client is
owed with one call, some clients at a time.  Nothing is timed: when the flusher has caught up,
messages go out directly again.
"""

from collections import deque
from typing import Never, Protocol

import trio

AT_ONCE = 256
_CHUNK = 128
"""Clients written to before others have their turn."""


class Debtor(Protocol):
    """A client that is owed frames."""

    def flush(self) -> None:
        """Write what waits, as far as it goes without waiting."""


class Flusher:
    """One per hub.  ``run`` is a task; all else is synchronous."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = self._left = at_once
        self._owed: deque[Debtor] = deque()
        self._work = trio.lowlevel.ParkingLot()

    @property
    def busy(self) -> bool:
        """Somebody is owed something."""
        return bool(self._owed)

    def may_write(self) -> bool:
        """Take one of the direct writes.  False: there are no more, ``owe`` instead."""
        if self._left <= 0:
            return False
        self._wake()
        self._left -= 1
        return True

    def owe(self, client: Debtor) -> None:
        """``client`` has frames waiting: flush it soon.  Once per flush is enough."""
        self._wake()
        self._owed.append(client)

    async def run(self) -> Never:
        """Flush whoever is owed, until cancelled."""
        while True:
            if self._idle:
                await self._work.park()
            while self._owed:
                for _ in range(min(_CHUNK, len(self._owed))):
                    self._owed.popleft().flush()
                await trio.lowlevel.checkpoint()
            self._left = self._at_once

    @property
    def _idle(self) -> bool:
        return not self._owed and self._left == self._at_once

    def _wake(self) -> None:
        if self._idle:
            self._work.unpark_all()
