"""One task pushes for a whole exchange: it sleeps until the next event, whatever it is.

So a quiet market costs nothing, however fine the grid of push times.
"""

from collections.abc import Callable
from typing import Never

import trio
from attrs import define, field


@define(eq=False)
class Scheduler:
    """Times are unix ms.  ``due_ms()`` is the time of the next event (infinite: never), ``push``
    publishes what is due at the time that it gets."""

    now_ms: Callable[[], float]
    due_ms: Callable[[], float]
    push: Callable[[float], None]
    _changed: trio.Event = field(factory=trio.Event)

    def changed(self) -> None:
        """An event may be due earlier, or ``now_ms`` made a leap."""
        self._changed.set()

    def run_ahead(self, until_ms: float) -> None:
        """Push at once, each at its time, what is due up to ``until_ms``: the clock is about to
        jump there."""
        while (due := self.due_ms()) <= until_ms:
            self.push(due)

    async def run(self) -> Never:
        """Push every event at its time, for ever."""
        now = 0.0
        while True:
            now = max(now, self.now_ms())
            wake_ms = self.due_ms()
            if now < wake_ms:
                if not await self._sleep((wake_ms - now) / 1000):
                    continue
                now = max(self.now_ms(), wake_ms)  # a timer may end a hair before its time
            self.push(now)
            await trio.lowlevel.checkpoint()

    async def _sleep(self, seconds: float) -> bool:
        """False: woken early."""
        self._changed = trio.Event()
        with trio.move_on_after(seconds):
            await self._changed.wait()
            return False
        return True
