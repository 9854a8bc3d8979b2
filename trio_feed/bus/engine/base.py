"""The engine: a log per shard, leases on them, and what nodes tell each other.

It may forget: the last entries at a failover, everything when it is emptied.  What must last is in
the store.  All of a symbol is in one shard, for its trades, candles and roll-ups feed each other.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from zlib import crc32

from attrs import field, frozen

EntryId = tuple[int, int]
"""(epoch, sequence): epochs grow with each owner of a shard, the sequence by one each entry."""
EMPTY: EntryId = (0, 0)
"""The last id of a log without entries."""


class EngineFault(Exception):
    """The engine cannot be reached, gave no answer in time, or refuses: one line without secrets.
    What was asked may or may not have happened.  ``is_away``: it may come back without anybody
    mending a setting."""

    def __init__(self, problem: str, *, is_away: bool = True) -> None:
        super().__init__(problem)
        self.is_away = is_away


@frozen
class Append:
    """``entry_id`` goes into the log of ``shard`` if ``previous`` is its last.  ``checkpoint``: who
    knows nothing can begin to read with it."""

    shard: str
    previous: EntryId
    entry_id: EntryId
    body: bytes = field(repr=False)
    checkpoint: bool = False


@frozen
class Entry:
    entry_id: EntryId
    body: bytes = field(repr=False)
    checkpoint: bool = False


class LogReader(Protocol):
    """What who only reads needs of an :class:`Engine`."""

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> Mapping[str, Sequence[Entry]]:
        """By shard the entries after an id, ascending, at most ``limit`` for each.  Waits while
        there is nothing; empty then."""

    async def since_checkpoint(self, shard: str) -> Sequence[Entry]:
        """The last entry with a checkpoint and all after it; empty where there is none."""


class Engine(LogReader, Protocol):
    """A node's way to the engine.  Every method raises EngineFault, and waits for no longer than
    the engine's ``timeout_s`` (``read``: beside its own ``wait_s``; ``since_checkpoint``: for each
    part of a long answer)."""

    async def append(self, appends: Sequence[Append]) -> list[EntryId | None]:
        """Append each, in one round trip.  Returns for each the id that is last in its log then:
        the append's own where it is in, now or since an earlier try.  None: it would follow, but
        the log has had its id, or a later one, and does not take it (its end was deleted)."""

    async def tail(self, shard: str) -> EntryId:
        """The last id of a log."""

    async def take_lease(self, shard: str, holder: str, ttl_s: float) -> bool:
        """Whether it was free and is the holder's now."""

    async def renew_leases(self, holders: Mapping[str, str], ttl_s: float) -> dict[str, bool]:
        """By shard whether it still is the holder's, and will be for so long."""

    async def drop_lease(self, shard: str, holder: str) -> None:
        """Give it up, if it is the holder's."""

    async def holders(self, shards: Sequence[str]) -> dict[str, str]:
        """Who has each; empty: it is free."""

    async def trim(self, shard: str, before: EntryId) -> None:
        """Entries before that id may go."""

    async def bytes_of(self, shards: Sequence[str]) -> dict[str, int]:
        """The memory that each log takes."""

    async def put_node(self, name: str, body: bytes, ttl_s: float) -> None:
        """Say how a node stands; it is forgotten after ``ttl_s``."""

    async def nodes(self) -> dict[str, bytes]:
        """What all nodes said last."""

    async def put_value(self, name: str, body: bytes) -> None:
        """Keep something under a name, for all nodes."""

    async def value(self, name: str) -> bytes | None: ...

    async def join(self, cluster: bytes) -> bytes:
        """Say what this cluster is.  Returns what its first node said."""

    async def cluster(self) -> bytes | None:
        """What :meth:`join` would return; None: nobody has joined."""

    async def try_anew(self) -> None:
        """Whether a new connection may come in now, as this one did."""

    async def problems(self) -> list[str]:
        """What the engine's own configuration lacks, a line for each."""


def shard_of(venue: str, symbol: str, shards: int) -> str:
    """Where a symbol's messages go; ``shards`` of its venue."""
    return f"{venue}.{crc32(symbol.encode()) % shards}"


def shards_of(venue: str, shards: int) -> list[str]:
    return [f"{venue}.{number}" for number in range(shards)]
