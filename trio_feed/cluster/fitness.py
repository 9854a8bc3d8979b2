"""Whether the engine still is as it has to be: what a start looks at may be changed later."""

from collections.abc import Callable
from typing import Never

import structlog
import trio
from attrs import define, field

from ..bus.engine.base import Engine, EngineFault
from ..bus.engine.opening import why_unfit

log = structlog.get_logger()

LOOK_S = 15.0
_AGAIN_S = 2.0


@define(eq=False)
class EngineWatch:
    """``is_used()``: it answers those who feed and read; where it does not, they say so.

    ``lacks``: what its configuration, or our user, lacks, and what to do; empty: nothing, as far as
    was seen."""

    _engine: Engine
    is_used: Callable[[], bool] = lambda: True
    lacks: str = ""
    _refused: bool = field(default=False, init=False)
    """No new connection was let in."""

    async def run(self) -> Never:
        """Until cancelled."""
        while True:
            # The start has looked just now.
            await trio.sleep(_AGAIN_S if self._refused else LOOK_S)
            if (found := await self._look()) is not None:
                self._note(found)

    async def _look(self) -> str | None:
        """None: it is away, or about to be."""
        before, self._refused = self._refused, False
        try:
            await self._engine.try_anew()
            return await why_unfit(self._engine)
        except EngineFault as fault:
            if not self.is_used():
                return None
            self._refused = True  # those who use it may notice it a moment later
            return f"it lets no new connection in: {fault}" if before else None

    def _note(self, found: str) -> None:
        if found and found != self.lacks:
            log.error("engine.unfit", problem=found)
        elif self.lacks and not found:
            log.info("engine.fit")
        self.lacks = found
