"""A start waits for the servers it needs while they are merely away, for all of them together so
long as the settings say.

Why not end at once: a machine that boots, a failover and a cluster whose parts start in any order
all have moments in which the database or the engine does not answer, and a service manager counts
ends (systemd gives up after ``StartLimitBurst`` of them).  Why not for ever: what is wrong with an
address looks the same, and who started the service shall hear of it.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

import structlog
import trio
from attrs import define

from .errors import ServerAway
from .notify import status

log = structlog.get_logger()
T = TypeVar("T")

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0


@define
class StartWait:
    """``limit_s``: from the first time that something is away; 0: nothing is waited for.  ``tell``:
    hears a line for the service manager."""

    limit_s: float
    tell: Callable[[str], None] = lambda _state: None
    _ends_at: float = inf
    """Of trio's clock."""

    async def until_there(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call ``attempt`` until it does not raise ServerAway.  Raises the last one when the time
        is up; whatever else it raises comes out at once."""
        pause_s, said = _FIRST_PAUSE_S, ""
        while True:
            try:
                found = await attempt()
            except ServerAway as away:
                now = trio.current_time()
                self._ends_at = min(self._ends_at, now + self.limit_s)
                left_s = self._ends_at - now
                if left_s <= 0:
                    raise
                if str(away) != said:
                    said = str(away)
                    log.warning("service.waiting", problem=said, left_s=round(left_s))
                    self.tell(status(f"waits for a server: {said}"))
            else:
                if said:
                    log.info("service.waited", problem=said)
                return found
            await trio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def no_wait() -> StartWait:
    """What is away is an error at once."""
    return StartWait(0.0)
