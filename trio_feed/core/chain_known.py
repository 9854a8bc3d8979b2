"""What is known of a program's chain: what is not settled yet, what is, and where the list may end.

A *checkpoint* is one of the last settled transactions.  A reading of the list that meets one has
left nothing out (:mod:`.chain_round`).
"""

from collections.abc import Collection

from ..instants import Mono
from .chain_items import ChainLimits, Gap
from .chain_order import ChainOrder
from .chain_round import Known, Round

_CHECKPOINTS = 8
_AHEAD_SLOTS = 1000
_SLOTS_PER_S = 20
"""A notification that is further ahead of what the lists said is not believed: they will name it,
where it is true."""


class ChainKnown:
    """``last``: signature and slot of the last transaction that an earlier run had settled."""

    def __init__(self, limits: ChainLimits, last: tuple[str, int] | None) -> None:
        self._limits = limits
        self.order = ChainOrder()
        self.settled: dict[str, int] = dict([last]) if last else {}
        """Signature -> slot of what left the line: duplicates."""
        self.checkpoints: list[tuple[str, int]] = [last] if last else []
        """Newest last."""
        self.floor = last[1] - 1 if last else -1
        """Nothing at or below it is wanted that was not told."""
        self.begun = last is not None
        """A first round has shown where the chain stands."""
        self.reached: tuple[int, Mono] | None = None
        """The slot of the last round, and when it began."""

    def is_absurd(self, slot: int, now: Mono) -> bool:
        """No chain can have got there by now."""
        if self.reached is None:
            return False
        reached, at = self.reached
        return slot > reached + _AHEAD_SLOTS + _SLOTS_PER_S * (now - at)

    def for_round(self) -> Known:
        """What the next reading may end at."""
        oldest = self.checkpoints[0][1] - 1 if self.checkpoints else -1
        return Known(dict(reversed(self.checkpoints)), max(self.floor, oldest))

    def begin(self, ended: Round) -> None:
        """What is in the list by now, older than what the subscription said, happened before we
        began."""
        self.begun, self.floor = True, ended.slot
        if self.order.records:
            told = self.order.records[0].slot - 1
            self.floor = min(ended.slot, max(told, ended.slot - _AHEAD_SLOTS))
        rows = [row for rows in ended.united().values() for row in rows if row.slot <= self.floor]
        for row in rows:
            self.settle(row.signature, row.slot)
        self.checkpoints = [(row.signature, row.slot) for row in rows][-_CHECKPOINTS:]

    def begin_anew(self, slot: int) -> None:
        """The endpoints know nothing of what is known here."""
        self.checkpoints.clear()
        self.floor = max(self.floor, slot)

    def older_checkpoints(self, ended: Round) -> None:
        """One checkpoint alone makes every list long (:attr:`.chain_round.Known.until`)."""
        older = next((walk.older for walk in ended.walks if walk.done and walk.older), [])
        if len(self.checkpoints) == 1 and older:
            for row in reversed(older):
                self.settle(row.signature, row.slot)
            found = [(row.signature, row.slot) for row in reversed(older)]
            self.checkpoints = [*found, *self.checkpoints][-_CHECKPOINTS:]

    def settle_line(self, whole: int, busy: Collection[str]) -> None:
        """What is in slots up to ``whole`` and complete leaves the line; ``busy`` is not."""
        ready, at = 0, -1
        for number, record in enumerate(self.order.records):
            if record.slot != at:  # slots leave whole: their records share one order
                ready, at = number, record.slot
            looked_up = record.signature not in busy
            certain = record.listed or record.absences >= 2 or record.slot <= self.floor
            if record.slot > whole or not (record.done and certain and looked_up):
                break
        else:
            ready = len(self.order) if at <= whole else ready
        for record in self.order.drop_first(ready):
            self.settle(record.signature, record.slot)
            if record.listed:
                self.checkpoints.append((record.signature, record.slot))
        del self.checkpoints[:-_CHECKPOINTS]

    def settle(self, signature: str, slot: int) -> None:
        """It is a duplicate from now on."""
        self.settled[signature] = slot
        if len(self.settled) > self._limits.remembered:
            del self.settled[next(iter(self.settled))]

    def forget(self) -> tuple[list[str], Gap] | None:
        """The list could not be read for so long that the line is full: signatures that leave it
        unchecked, a tenth of it at a time; mostly None."""
        excess = len(self.order) - self._limits.remembered
        if excess <= self._limits.remembered // 10:
            return None
        ready = 0
        while ready < excess and self.order.records[ready].done:
            ready += 1
        if not ready:
            return None
        dropped = self.order.drop_first(ready)
        for record in dropped:
            self.settle(record.signature, record.slot)
        first, self.floor = max(self.floor, 0), max(self.floor, dropped[-1].slot)
        self.checkpoints.clear()
        gap = Gap(first, self.floor, "nothing could be checked for too long", final=True)
        return [record.signature for record in dropped], gap
