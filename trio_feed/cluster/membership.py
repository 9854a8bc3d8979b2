"""Whose cluster it is that the engine has under our prefix."""

import structlog
from attrs import define, field

from ..bus import wire
from ..bus.engine.base import Engine, EngineFault
from ..bus.engine.opening import DATABASE, patiently, why_of_another
from ..errors import StartError
from ..settings import Settings
from ..store import ShardStore

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
    other: str = field(default="", init=False)
    """Why this node does not belong there; empty: it does, as far as is known."""
    _database: str = field(default="", init=False)
    _store: ShardStore | None = field(default=None, init=False)

    async def begin(self, store: ShardStore) -> None:
        """Join, once the database is open.  Raises StartError."""
        self._store, self._database = store, store.identity
        try:
            other = await patiently(self._join)
        except EngineFault as fault:
            raise StartError(f"engine.urls: {fault}") from None
        if other:
            raise StartError(f"engine.prefix: {other}")

    async def learn(self) -> None:
        """Who opened the database before it had an identity asks for it again.  Raises
        StoreError."""
        if self._store is not None and not self._database:
            self._database = await self._store.read_identity()

    async def renew(self) -> None:
        """An engine that was emptied forgot whose it is: else a node that does not fit could begin
        another cluster in the middle of this one.  Raises EngineFault."""
        other = await self._join()
        if other and other != self.other:
            log.error("node.foreign", problem=other)
        self.other = other

    async def _join(self) -> str:
        """Why we do not belong there; empty: we do."""
        ours = cluster_of(self._settings, self._database)
        # Who cannot name the database is never the first: then nobody's would be compared.
        first = await (self._engine.join(ours) if self._database else self._engine.cluster())
        return "" if first is None else why_of_another(self._settings.engine.prefix, ours, first)
