"""The reading side of one shard: its entries in order, into the bus of this node.  Pure.

An entry of an epoch before the newest is ignored: its owner did not know yet that it was none.  The
sequence grows by one; where it jumps, something was trimmed that this node has not read, and it
begins again with the last checkpoint, which says where the streams stand.
"""

from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec
from attrs import define, field

from .. import wire
from ..remote import RemoteBus
from .base import EMPTY, Entry, EntryId

SILENT_S = 3.0
"""An owner says something once a second at least."""


class Read(Enum):
    ON = "on"
    JUMPED = "jumped"
    """Something is missing: :meth:`Reading.resync` with the entries from the last checkpoint on."""


@define(eq=False)
class Reading:
    """Of ``shard``; ``bus`` has its streams and nothing else.  ``heard_at``: monotonic seconds."""

    shard: str
    bus: RemoteBus = field(repr=False)
    heard_at: float
    position: EntryId = EMPTY
    """The last entry that was read."""
    is_begun: bool = False
    sent_ms: float = 0.0
    """When the first message since this was set to 0 was published; 0: there was none."""
    _last: EntryId = EMPTY
    """The newest of the newest epoch."""

    def take(self, entries: Iterable[Entry], now: float) -> Read:
        """Raises OtherVersion, BadItem: this node cannot read the shard."""
        for entry in entries:
            if not self._follows(entry):
                return Read.JUMPED
            self._take(entry, now)
        return Read.ON

    def resync(self, entries: Sequence[Entry], now: float) -> None:
        """Begin, or go on after a jump: with the last checkpoint and all after it."""
        for entry in entries:
            if entry.entry_id > self._last:
                self._take(entry, now, again=entry is entries[0])

    def begin_anew(self, after: EntryId) -> None:
        """What is up to there cannot be read: go on with the next checkpoint."""
        self.position, self.is_begun = max(self.position, after), False

    def is_silent(self, now: float) -> bool:
        return now - self.heard_at >= SILENT_S

    def _follows(self, entry: Entry) -> bool:
        if not self.is_begun:
            return entry.checkpoint
        epoch, sequence = entry.entry_id
        if epoch < self._last[0]:
            return True  # it is ignored
        return entry.entry_id == (self._last[0], self._last[1] + 1) or (
            epoch > self._last[0] and sequence == 1
        )

    def _take(self, entry: Entry, now: float, *, again: bool = False) -> None:
        self.position = max(self.position, entry.entry_id)
        if entry.entry_id[0] < self._last[0]:
            return
        items = wire.read_entry(entry.body)
        if not self.sent_ms:
            sent = (i.sent_ms for i in items if isinstance(i, wire.Candle | wire.Line))
            self.sent_ms = next(sent, 0.0)
        if again:
            items = _from_checkpoint(items)
        self._last, self.is_begun, self.heard_at = entry.entry_id, True, now
        self.bus.take(items)
        self.bus.is_heard()


def _from_checkpoint(items: list[wire.Item]) -> list[wire.Item]:
    """For a reader that missed what was before: it follows from what the checkpoint says, as from
    one that opens an epoch.  Streams of which it missed nothing are told by their numbers."""
    at = next(n for n, item in enumerate(items) if isinstance(item, wire.Checkpoint))
    found = items[at]
    assert isinstance(found, wire.Checkpoint), "it was looked for"
    if not found.opening:
        before = {each.stream: (each.epoch, each.offset) for each in found.streams}
        found = msgspec.structs.replace(found, opening=True, before=before)
    return [found, *items[at + 1 :]]
