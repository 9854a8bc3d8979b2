"""Whose cluster it is that the engine has under our prefix."""

import structlog
from attrs import define, field

from ..bus.engine.base import Engine
from ..bus.engine.opening import why_of_another

log = structlog.get_logger()


@define
class Membership:
    """``cluster``: what all nodes have to agree on."""

    _engine: Engine
    _prefix: str
    _cluster: bytes
    _other: str = field(default="", init=False)

    async def renew(self) -> None:
        """An engine that was emptied forgot whose it is: else a node that does not fit could begin
        another cluster in the middle of this one.  Raises EngineFault."""
        first = await self._engine.join(self._cluster)
        other = why_of_another(self._prefix, self._cluster, first)
        if other and other != self._other:
            log.error("node.foreign", problem=other)
        self._other = other
