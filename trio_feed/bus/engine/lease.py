"""Who feeds which shard: leases by our own monotonic clock, and a fair share per node.  Pure."""

from collections.abc import Collection, Mapping, Sequence
from math import inf

from attrs import define, field, frozen

_ATTENTIVE_S = 0.5
"""Who looked more rarely does not know why a lease is free."""
_SURE = 0.8
"""Of its time a lease counts without a renewal: the engine's clock and ours differ a little."""


@define
class Lease:
    """Of one shard, for ``ttl_s`` from each confirmation on.  A confirmation counts from the moment
    at which it was asked for."""

    ttl_s: float
    confirmed_at: float

    def confirm(self, asked_at: float) -> None:
        self.confirmed_at = max(self.confirmed_at, asked_at)

    def is_sure(self, now: float) -> bool:
        """Whether nobody else can have it."""
        return now - self.confirmed_at < _SURE * self.ttl_s


@frozen
class Plan:
    """``take``: free ones, ``give``: one of ours, for a node that has fewer than its share."""

    take: Sequence[str] = ()
    give: str = ""


@define
class Shares:
    """How the shards are divided between the nodes that feed.

    A free shard is taken at once by a node below its share, and after ``grace_s`` by any: nobody
    waits long for a node that says it is there and takes nothing.  Who was seen to have a free one
    and holds nothing now has died or is leaving, and has no share; unless the engine was away, or
    forgot leases of ours too.  A shard is given away when a node has had too few for ``settle_s``:
    one that has died is forgotten by then.
    """

    grace_s: float
    settle_s: float = 12.0
    _poor_since: float | None = None
    _free_since: dict[str, float] = field(factory=dict)
    _had: dict[str, str] = field(factory=dict)
    """By shard the last node that was seen to have it."""
    _looked_at: float = -inf

    def is_free_for(self, shard: str, for_s: float, now: float) -> bool:
        """Whether nobody has had a shard for so long."""
        return now - self._free_since.get(shard, now) >= for_s

    def plan(
        self, own: Collection[str], holders: Mapping[str, str], nodes: Collection[str], now: float
    ) -> Plan:
        """``holders``: by shard the node that has it, empty: none has; ``nodes``: those that feed,
        this one among them."""
        free = [shard for shard, holder in holders.items() if not holder and shard not in own]
        self._free_since = {shard: self._free_since.get(shard, now) for shard in free}
        there = set(nodes).difference(self._gone(own, holders, free, now))
        share = -(-len(holders) // max(1, len(there)))
        room = max(0, share - len(own))
        late = [shard for shard in free if now - self._free_since[shard] >= self.grace_s]
        take = (*free[:room], *(shard for shard in late if shard not in free[:room]))
        if free or len(own) <= share:
            self._poor_since = None
            return Plan(take)
        counts = dict.fromkeys(nodes, 0)
        for holder in holders.values():
            if holder in counts:
                counts[holder] += 1
        poor = any(count < len(holders) // len(counts) for count in counts.values())
        if not poor:
            self._poor_since = None
            return Plan(take)
        if self._poor_since is None:
            self._poor_since = now
        if now - self._poor_since < self.settle_s:
            return Plan(take)
        self._poor_since = now
        return Plan(take, max(own))

    def _gone(
        self, own: Collection[str], holders: Mapping[str, str], free: Sequence[str], now: float
    ) -> set[str]:
        if now - self._looked_at > _ATTENTIVE_S or any(not holders.get(shard) for shard in own):
            self._had = {}
        self._looked_at = now
        self._had.update({shard: holder for shard, holder in holders.items() if holder})
        return {self._had[s] for s in free if s in self._had}.difference(holders.values())
