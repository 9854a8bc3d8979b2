"""Which second each block of a chain has: what nodes said, and nothing else.  Pure.

A notification says its slot and no time.  The block's time, in whole seconds, comes with the rows
of the program's list, with fetched transactions and with getBlockTime.  Times do not fall from slot
to slot (the runtime takes care of that: agave, ``Bank::update_clock``), so a slot between two of
the same second has that second as well.

One answer is not believed alone: a time that contradicts its neighbours, or runs far ahead of them,
counts only with two others that agree with it.
"""

from bisect import bisect_left, bisect_right
from itertools import pairwise

from attrs import define, field

_KEPT = 4_000
_AGREEING = 3
_USUAL_MS = 400
"""Of a slot, until it can be measured."""
_MEASURED_SLOTS = 100
_FAST_MS, _SLOW_MS = 50, 1_500
"""A slot takes no less and, over many of them, no more."""
_SLACK_MS = 60_000
_RECENT = 20


@define(eq=False)
class ChainTimes:
    """Slots and their times (unix ms), as far as they are known."""

    _slots: list[int] = field(factory=list)
    _times: list[int] = field(factory=list)
    _against: dict[int, int] = field(factory=dict)
    """What contradicts the rest: slot -> time, the latest few."""

    def __len__(self) -> int:
        return len(self._slots)

    def note(self, slot: int, time_ms: int) -> None:
        """A node says so.  0: it does not know."""
        at = bisect_left(self._slots, slot)
        if time_ms <= 0 or (at < len(self) and self._slots[at] == slot == self._same(at, time_ms)):
            return
        if self._fits(at, slot, time_ms):
            self._slots.insert(at, slot)
            self._times.insert(at, time_ms)
            self._forget()
            return
        self._against.pop(slot, None)
        self._against[slot] = time_ms
        while len(self._against) > _AGREEING:
            del self._against[next(iter(self._against))]
        found = sorted(self._against.items())
        agree = all(
            0 <= later[1] - earlier[1] <= _most_ms(later[0] - earlier[0])
            for earlier, later in pairwise(found)
        )
        if len(found) == _AGREEING and agree:
            self._slots, self._times = [slot for slot, _ in found], [ms for _, ms in found]
            self._against.clear()

    def of(self, slot: int) -> int:
        """Its time; 0: not known."""
        after = bisect_left(self._slots, slot)
        if after == len(self):
            return 0
        if self._slots[after] == slot:
            return self._times[after]
        same = after > 0 and self._times[after - 1] == self._times[after]
        return self._times[after] if same else 0

    def at_least(self, slot: int) -> int:
        """Nothing in a later slot is older than this; 0: not known."""
        at = bisect_right(self._slots, slot)
        return self._times[at - 1] if at else 0

    def at_most(self, slot: int) -> int:
        """Nothing in an earlier slot is younger than this; 0: not known."""
        at = bisect_left(self._slots, slot)
        return self._times[at] if at < len(self) else 0

    def newest_slot(self, before: int) -> int:
        """The last one up to ``before`` whose time is known; 0: none."""
        at = bisect_right(self._slots, before)
        return self._slots[at - 1] if at else 0

    def estimate(self, slot: int) -> int:
        """About when it was, out of the slots around it; 0: nothing is known."""
        if not self._slots:
            return 0
        at = bisect_right(self._slots, slot)
        if not at:
            return self._times[0]
        rate = self._slot_ms()
        recent = range(max(0, at - _RECENT), at)
        # Whole seconds: each block was at its time or up to a second later.
        start = max(self._times[n] - rate * self._slots[n] for n in recent)
        found = max(self._times[at - 1], int(start + rate * slot) // 1000 * 1000)
        return min(found, self._times[at]) if at < len(self) else found

    def _slot_ms(self) -> float:
        slots = self._slots[-1] - self._slots[0]
        if slots < _MEASURED_SLOTS:
            return _USUAL_MS
        return min(max((self._times[-1] - self._times[0]) / slots, _FAST_MS), _SLOW_MS)

    def _same(self, at: int, time_ms: int) -> int:
        """The slot, where its time is known to be this one."""
        return self._slots[at] if self._times[at] == time_ms else -1

    def _fits(self, at: int, slot: int, time_ms: int) -> bool:
        if at < len(self) and (self._slots[at] == slot or time_ms > self._times[at]):
            return False
        if not at:
            return True
        ahead_ms = time_ms - self._times[at - 1]
        return 0 <= ahead_ms <= _most_ms(slot - self._slots[at - 1])

    def _forget(self) -> None:
        if len(self) > 2 * _KEPT:
            del self._slots[:_KEPT], self._times[:_KEPT]


def _most_ms(slots: int) -> int:
    return slots * _SLOW_MS + _SLACK_MS
