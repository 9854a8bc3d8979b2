"""Who feeds which shard: leases by our own monotonic clock, and a fair share per node.  Pure."""

from collections.abc import Collection, Mapping, Sequence

from attrs import define, field, frozen

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
    waits long for a node that says it is there and takes nothing.  One is given away when a node
    has had too few for ``settle_s``: one that has died is forgotten by then.
    """

    grace_s: float
    settle_s: float = 12.0
    _poor_since: float | None = None
    _free_since: dict[str, float] = field(factory=dict)

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
        share = -(-len(holders) // max(1, len(nodes)))
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
