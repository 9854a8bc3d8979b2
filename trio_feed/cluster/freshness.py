"""Venues whose data is not fresh at this node, and whether another one does better.  Pure."""

from collections.abc import Iterable

from attrs import define, field

from .registry import Known

PATIENCE_S = 10.0
"""A node without a connection keeps its shards so long, where another one has data."""


@define
class Freshness:
    """``known``: what the nodes say.  ``now``: monotonic seconds."""

    known: Known
    _since: dict[str, float] = field(factory=dict)

    def note(self, stale: Iterable[str], now: float) -> None:
        """Those that are not fresh here now."""
        self._since = {venue: self._since.get(venue, now) for venue in stale}

    def is_worse(self, venue: str, now: float) -> bool:
        """Whether a venue has not been fresh here for a while, and is at another node in hot
        standby, or at its owner."""
        since = self._since.get(venue)
        if since is None or now - since < PATIENCE_S:
            return False
        others = (said for name, said in self.known.said.items() if name != self.known.name)
        return any(venue in s.venues and venue not in s.stale and not s.waits for s in others)
