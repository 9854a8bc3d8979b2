"""Whose cluster it is that the engine has under our prefix."""

import structlog
from attrs import define, field

from ..bus import wire
from ..bus.engine.base import Engine, EngineFault
from ..bus.engine.opening import DATABASE, why_of_another
from ..errors import StartError
from ..settings import Settings

log = structlog.get_logger()


def cluster_of(settings: Settings, database: str = "") -> bytes:
    """What all nodes have to agree on.  ``database``: its identity; empty: not known."""
    form = f"wire {wire.VERSION}, {settings.engine.shards} shards of each venue".encode()
    return form + DATABASE + database.encode() if database else form


@define
class Membership:
    """Of a node in the cluster of its settings."""

    _engine: Engine
    _settings: Settings
    _database: str = field(default="", init=False)
    _other: str = field(default="", init=False)

    async def begin(self, database: str) -> None:
        """Join, once the database is open.  Raises StartError."""
        self._database = database
        try:
            other = await self._join()
        except EngineFault as fault:
            raise StartError(f"engine.urls: {fault}") from None
        if other:
            raise StartError(f"engine.prefix: {other}")

    async def renew(self) -> None:
        """An engine that was emptied forgot whose it is: else a node that does not fit could begin
        another cluster in the middle of this one.  Raises EngineFault."""
        other = await self._join()
        if other and other != self._other:
            log.error("node.foreign", problem=other)
        self._other = other

    async def _join(self) -> str:
        """Why we do not belong there; empty: we do."""
        ours = cluster_of(self._settings, self._database)
        # Who cannot name the database is never the first: then nobody's would be compared.
        first = await (self._engine.join(ours) if self._database else self._engine.cluster())
        return "" if first is None else why_of_another(self._settings.engine.prefix, ours, first)
