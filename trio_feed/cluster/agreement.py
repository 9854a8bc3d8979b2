"""Whether the nodes that feed would feed the same, for any of them may own any shard."""

import hashlib
from collections.abc import Mapping
from math import inf
from operator import attrgetter

import structlog
from attrs import define, field

from ..settings import ExchangeSettings
from .registry import Said

log = structlog.get_logger()

GRACE_S = 60.0
"""A change of the settings may take so long to reach all nodes."""


def digest_of(exchange: ExchangeSettings) -> str:
    """Of what is fed of a venue, in whichever order the settings name it."""
    value = attrgetter("value")
    parts = (
        exchange.symbols,
        map(value, exchange.intervals),
        map(value, exchange.trade_intervals),
        map(value, exchange.rollup_intervals),
        map(value, exchange.channels),
    )
    text = repr([sorted(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def digests_of(exchanges: Mapping[str, ExchangeSettings]) -> dict[str, str]:
    """By venue."""
    return {venue: digest_of(exchange) for venue, exchange in exchanges.items()}


def differing(own: Said, said: Mapping[str, Said]) -> dict[str, list[str]]:
    """By node the venues of which it would feed something else than ``own``.  Who does not say
    what it would feed (an older version) is not compared."""
    ours, found = own.fed, {}
    if not own.feeds or ours is None:
        return {}
    for name, other in sorted(said.items()):
        if name == own.name or not other.feeds or other.fed is None:
            continue
        theirs = other.fed
        venues = [v for v in sorted({*ours, *theirs}) if ours.get(v) != theirs.get(v)]
        if venues:
            found[name] = venues
    return found


def _age(said: Said) -> tuple[float, str]:
    return said.started_ms, said.name


@define
class Agreement:
    """Of this node with the others that feed.  ``differs``: see :func:`differing`.  ``now``:
    monotonic seconds.

    Nodes that agreed may differ for ``GRACE_S``: a SIGHUP goes round them one by one.  One that
    starts and never agreed is not ready at once, so that no roll-out goes on over it; and it
    ``waits``: it takes no shard as long as one that was there before and differs is there, for what
    it lacks itself would be fed by nobody."""

    differs: dict[str, list[str]] = field(factory=dict)
    waits: bool = False
    _agreed_at: float = -inf

    def may_take(self) -> bool:
        """Whether this node takes shards."""
        return not self.waits

    def note(self, own: Said, said: Mapping[str, Said], now: float) -> None:
        before, self.differs = self.differs, differing(own, said)
        if not self.differs:
            self._agreed_at = now
        earlier = (_age(said[name]) < _age(own) for name in self.differs)
        self.waits = self._agreed_at == -inf and any(earlier)
        for name, venues in self.differs.items():
            if venues != before.get(name):
                log.warning("node.differs", node=name, venues=venues)

    def why_not(self, now: float) -> str:
        """Why this node is not ready; empty: all agree, or not for long."""
        if not self.differs or now - self._agreed_at < GRACE_S:
            return ""
        venues = sorted({venue for each in self.differs.values() for venue in each})
        return (
            f"node {', '.join(self.differs)} has other symbols, intervals or channels of"
            f" {', '.join(venues)} than this one, and what the owner of a shard lacks is fed by"
            " nobody; give all nodes that feed the same [exchanges]"
        )
