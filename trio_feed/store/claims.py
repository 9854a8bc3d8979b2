"""Which shards a process writes the candles of, each under the epoch of its claim.  Pure.

A shard has one writer at a time.  Who claims it gets an epoch larger than all before; from then on
what an earlier claimant still wants to write is dropped, and it is told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field, frozen

from ..model import Series
from .base import CursorEntry, Entry


@frozen
class Sharing:
    """What a process says that writes beside others.  ``shard_of``: the shard of a venue and a
    symbol; a source's cursor is in that of its name and an empty symbol.  ``fenced``: called with
    shards that somebody else has claimed; nothing of them is written any more."""

    shard_of: Callable[[str, str], str]
    fenced: Callable[[Sequence[str]], None]


@define(eq=False)
class Claims:
    """Changed in turn with the writes, so a batch is written under one state of it."""

    _shard_of: Callable[[str, str], str]
    _epochs: dict[str, int] = field(factory=dict)
    _lost: list[str] = field(factory=list)

    def shard(self, entry: Entry) -> str:
        if isinstance(entry, CursorEntry):
            return self._shard_of(entry.name, "")
        return self._shard_of(entry.series.venue, entry.series.symbol)

    def epoch(self, shard: str) -> int | None:
        return self._epochs.get(shard)

    def epoch_of(self, series: Series) -> int | None:
        """None: its shard is not ours."""
        return self._epochs.get(self._shard_of(series.venue, series.symbol))

    def has(self, entry: Entry) -> bool:
        return self.shard(entry) in self._epochs

    def writes(self, venue: str, symbol: str, stored: Mapping[str, int]) -> bool:
        """Whether a symbol's shard is ours, where the database has these epochs."""
        shard = self._shard_of(venue, symbol)
        return shard in self._epochs and self._epochs[shard] == stored.get(shard)

    def take(self, shard: str, epoch: int) -> None:
        self._epochs[shard] = epoch

    def give_up(self, shard: str) -> None:
        self._epochs.pop(shard, None)

    def all(self) -> list[str]:
        return sorted(self._epochs)

    def shards(self, batch: Iterable[Entry]) -> list[str]:
        return sorted({self.shard(entry) for entry in batch})

    def still_ours(self, batch: Sequence[Entry], stored: Mapping[str, int]) -> Sequence[Entry]:
        """What of a batch may be written, where the database has these epochs of its shards; the
        others are lost."""
        lost = [s for s in self.shards(batch) if self._epochs.get(s, -1) != stored.get(s)]
        if not lost:
            return batch
        self._lost += [shard for shard in lost if self._epochs.pop(shard, None) is not None]
        return [entry for entry in batch if self.shard(entry) not in lost]

    def take_lost(self) -> list[str]:
        """The shards that were lost since the last call."""
        lost, self._lost = self._lost, []
        return lost
