"""When the readers of one venue read again, where a read is to bring more than one message.

A wake-up of the event loop costs as much as a message does.  Readers that wait for the same moment
share one, and what has come in since the last read is one read: what network cards call interrupt
coalescing.  Figures: docs/performance.md, ``scripts/bench inbound``.
"""

from collections.abc import Sequence

import trio
from attrs import define, field

from ..net.socket_reader import RECEIVE_BYTES

FULL = RECEIVE_BYTES // 2
"""Characters: a read that brought so many has left more behind."""


@define(eq=False)
class ReadPace:
    """Reads begin at multiples of ``interval_s`` on trio's clock; 0: at any moment."""

    interval_s: float
    _followers: trio.lowlevel.ParkingLot = field(init=False, factory=trio.lowlevel.ParkingLot)
    _is_led: bool = field(init=False, default=False)

    async def after(self, messages: Sequence[str | bytes]) -> None:
        """Return when the reader that has read these may read again."""
        if not self.interval_s or sum(map(len, messages)) >= FULL:
            return
        if self._is_led:
            # A deadline for each reader would make a message a fifth dearer.
            await self._followers.park()
            return
        self._is_led = True
        try:
            now = trio.current_time()
            await trio.sleep_until((now // self.interval_s + 1) * self.interval_s)
        finally:  # a leader that is cancelled lets the others read early, which harms nobody
            self._is_led = False
            self._followers.unpark_all()
