"""How many clients are answered in one turn of the event loop: a few.

Trio runs each task that can run before it looks whether anything else has come.  To subscribe to
eleven streams takes 0.35 ms, so four thousand clients that did it at once were one turn of 1.4 s,
in which no message of the market was passed on.  Accepting slows itself down (``clients``); this is
for those who are here.  To read and to check 2 KiB takes 0.02 ms and is done before, so that a
WebSocket's ping waits behind nobody's request.
"""

from math import inf
from typing import Never

import trio

AT_ONCE = 8
"""Reads of at most 2 KiB: three milliseconds of subscriptions."""


class LoopLimiter:
    """One per server; ``run`` is a task.  Up to twice ``at_once`` may enter in a turn, for trio
    shuffles its tasks."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once: float = at_once
        self._spare: float = at_once
        self._waiting = trio.lowlevel.ParkingLot()
        self._spent = trio.lowlevel.ParkingLot()

    async def run(self) -> Never:
        """Let more enter with each turn, until cancelled; from then on nobody waits."""
        try:
            while True:
                # Few come as a rule: those cost no turn of ours.
                if self._spare:
                    await self._spent.park()
                else:
                    await trio.lowlevel.checkpoint()
                self._spare = self._at_once - len(self._waiting.unpark(count=self._at_once))
        finally:
            self._spare = inf
            self._waiting.unpark_all()

    async def enter(self) -> None:
        """Before a client's request is answered; first come first served.  Is no checkpoint where
        nobody has to wait."""
        if not self._spare:
            await self._waiting.park()
            return
        self._spare -= 1
        if not self._spare:
            self._spent.unpark()
