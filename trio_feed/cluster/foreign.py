"""Leases that keep a shard from all nodes: who holds them is none of them.  Pure.

The lease of a node that died ends by itself.  One that was set by hand, or by another program, may
never end (a key without a time to live); it is nobody's to delete but his who knows what it is.
"""

from collections.abc import Collection, Mapping

import structlog
from attrs import define, field

from ..settings import EngineSettings

log = structlog.get_logger()

_PATIENCE = 4
"""Lease times: a node that has just come may hold one before it says that it is there."""
_ADVICE = "if it does not end by itself (PTTL says -1), delete that key"


@define(eq=False)
class ForeignLeases:
    """``held``: by shard who has it, and is no node."""

    _engine: EngineSettings
    held: dict[str, str] = field(factory=dict)
    _since: dict[tuple[str, str], float] = field(factory=dict)

    def note(self, holders: Mapping[str, str], known: Collection[str], now: float) -> None:
        """``holders``: by shard what its lease says, empty: it is free; ``known``: what leases of
        the nodes that are there say; ``now``: monotonic seconds."""
        strange = [pair for pair in holders.items() if pair[1] and pair[1] not in known]
        self._since = {pair: self._since.get(pair, now) for pair in strange}
        before, patience_s = self.held, _PATIENCE * self._engine.lease_s
        self.held = {
            shard: holder
            for (shard, holder), since in self._since.items()
            if now - since >= patience_s
        }
        for shard, holder in self.held.items():
            if before.get(shard) != holder:
                key = self._key(shard)
                log.error("lease.foreign", shard=shard, holder=holder, key=key, advice=_ADVICE)

    def why_not(self) -> str:
        """Why a part of the symbols is fed by nobody; empty: there is no such lease."""
        if not self.held:
            return ""
        shard, holder = min(self.held.items())
        return (
            f"shard {shard}: its lease (the engine's key {self._key(shard)}) is held by"
            f' "{holder}", which is no node of this cluster; {_ADVICE}'
        )

    def _key(self, shard: str) -> str:
        return f"{self._engine.prefix}:{{{shard}}}:lease"
