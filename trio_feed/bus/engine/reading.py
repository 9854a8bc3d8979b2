"""The reading side of one shard: its entries in order, into the bus of this node.  Pure.

An entry of an epoch before the newest is ignored: its owner did not know yet that it was none.  The
sequence grows by one; where it jumps, something was trimmed that this node has not read, and it
begins again with the last checkpoint, which says where the streams stand.
"""

from collections.abc import Iterable
from enum import Enum

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
    _last: EntryId = EMPTY
    """The newest of the newest epoch."""

    def take(self, entries: Iterable[Entry], now: float) -> Read:
        """Raises OtherVersion, BadItem: this node cannot read the shard."""
        for entry in entries:
            if not self._follows(entry):
                return Read.JUMPED
            self._take(entry, now)
        return Read.ON

    def resync(self, entries: Iterable[Entry], now: float) -> None:
        """Begin with the last checkpoint; what was read already is passed over."""
        for entry in entries:
            if not self.is_begun or entry.checkpoint or entry.entry_id > self._last:
                self._take(entry, now)

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

    def _take(self, entry: Entry, now: float) -> None:
        self.position = max(self.position, entry.entry_id)
        if entry.entry_id[0] < self._last[0]:
            return
        items = wire.read_entry(entry.body)
        self._last, self.is_begun, self.heard_at = entry.entry_id, True, now
        self.bus.take(items)
        self.bus.is_heard()
