"""What nodes say of themselves, so that each can show all, and the lists of instruments.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import frozen

from ..model import Instrument

TTL_S = 10.0
"""A node that said nothing for so long is forgotten."""


@frozen
class Said:
    """A node's own words.  ``why_not``: by venue that it feeds why its data is not fresh;
    ``not_ready``: why the node itself is not ready; empty: it is.  ``started_ms``: unix ms."""

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
    stale: Sequence[str] = ()
    """Venues that it feeds, in hot standby also for others, whose data is not fresh there."""

    @property
    def feeds(self) -> bool:
        return "ingest" in self.roles

    def shown(self) -> dict[str, Any]:
        """Its part of the status page."""
        return {
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


_said = msgspec.json.Decoder(Said)
_instruments = msgspec.msgpack.Decoder(list[Instrument])


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


def listing_key(venue: str) -> str:
    return f"listing.{venue}"


def write_listing(instruments: Sequence[Instrument]) -> bytes:
    return msgspec.msgpack.encode(instruments)


def read_listing(body: bytes) -> list[Instrument]:
    """Empty where a node of another version wrote it."""
    try:
        return _instruments.decode(body)
    except msgspec.MsgspecError:
        return []
