"""What nodes say of themselves, so that each can show all.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field, frozen

from .. import __version__

SAY_S = 1.0
"""A node says something this often."""
TTL_S = 10.0
"""A node that said nothing for so long is forgotten."""


@frozen
class Said:
    """A node's own words, the ``beat``-th since it started (``started_ms``, unix ms).  ``why_not``:
    by venue that it feeds why its data is not fresh; ``not_ready``: why the node itself is not
    ready; empty: it is."""

    name: str
    holder: str
    version: str
    roles: Sequence[str]
    shards: Sequence[str]
    venues: Sequence[str]
    why_not: Mapping[str, str]
    not_ready: str
    clients: int
    started_ms: float
    urls: Mapping[str, str]
    beat: int = 0
    stale: Sequence[str] = ()
    """Venues that it feeds, in hot standby also for others, whose data is not fresh there."""
    fed: Mapping[str, str] | None = None
    """By venue a digest of what it feeds as far as it owns it; None: it does not say."""
    waits: bool = False
    """It takes no shards for now: see :class:`.agreement.Agreement`."""

    @property
    def feeds(self) -> bool:
        return "ingest" in self.roles

    def shown(self, age_s: float) -> dict[str, Any]:
        """Its part of the status page; ``age_s``: since it said so."""
        return {
            "age_s": round(age_s, 1),
            "version": self.version,
            "roles": list(self.roles),
            "shards": list(self.shards),
            "ready": not self.not_ready,
            "not_ready": self.not_ready,
            "venues": {venue: self.why_not.get(venue, "") for venue in self.venues},
            "clients": self.clients,
            "started_ms": round(self.started_ms),
            "urls": dict(self.urls),
        }


@define
class Known:
    """What all nodes said last, by name, and when this one heard it.  ``now``: monotonic seconds.

    ``twin``: another process that says things under our ``name``; None: there is none."""

    name: str
    holder: str
    said: dict[str, Said] = field(factory=dict)
    twin: Said | None = None
    _heard_at: dict[str, float] = field(factory=dict)
    _before: Said | None = None
    """What was there under our name when we came: it may be of a process that has died."""

    def begin(self, bodies: Mapping[str, bytes], now: float) -> None:
        """At the start, before anything is said."""
        self._take(read_all(bodies), now)
        self._before = self.said.get(self.name)

    def is_taken(self, bodies: Mapping[str, bytes]) -> bool:
        """A moment after :meth:`begin`: whether another process of our name goes on saying
        things."""
        there = read_all(bodies).get(self.name)
        return there is not None and there != self._before

    def take(self, bodies: Mapping[str, bytes], own: Said, now: float) -> None:
        """What was there before this node said ``own``."""
        found = read_all(bodies)
        there = found.get(self.name)
        is_other = there is not None and there.holder != self.holder and there != self._before
        self.twin = there if is_other else None
        self._take(found | {self.name: own}, now)

    def _take(self, found: Mapping[str, Said], now: float) -> None:
        news = {name for name, said in found.items() if said != self.said.get(name)}
        self._heard_at = {n: now if n in news else self._heard_at[n] for n in found}
        self.said = dict(found)

    def shown(self, now: float) -> dict[str, Any]:
        """For the status page."""
        return {
            name: said.shown(now - self._heard_at[name]) for name, said in sorted(self.said.items())
        }


def first_words(
    name: str, holder: str, roles: Sequence[str], started_ms: float, fed: Mapping[str, str]
) -> Said:
    """Of a node that has only just begun."""
    return Said(name, holder, __version__, roles, [], [], {}, "", 0, started_ms, {}, fed=fed)


_said = msgspec.json.Decoder(Said)


def written(said: Said) -> bytes:
    return msgspec.json.encode(said)


def read_all(bodies: Mapping[str, bytes]) -> dict[str, Said]:
    """What can be read of it: a node of another version may say something else."""
    found = {}
    for name, body in bodies.items():
        try:
            found[name] = _said.decode(body)
        except msgspec.MsgspecError:
            continue
    return found
