"""Times of blocks as several nodes say them; what they disagree about is not known.  Pure.

The second of a block is the same at every honest node, so that two values mean that one of the
nodes is wrong, and nobody can say which.
"""

from collections.abc import Callable

from attrs import define, field

from .chain_times import ChainTimes


@define(eq=False)
class ComparedTimes:
    """Each node's own :class:`.ChainTimes`; methods as there.  ``disputed``: a slot whose time the
    nodes contradict each other in, until somebody has said so; 0: there is none."""

    endpoints: int = 1
    disputed: int = 0
    _nodes: tuple[ChainTimes, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._nodes = tuple(ChainTimes() for _ in range(max(1, self.endpoints)))

    def __len__(self) -> int:
        return max(map(len, self._nodes))

    def note(self, slot: int, time_ms: int, endpoint: int = 0) -> None:
        """A node says so.  0: it does not know."""
        if time_ms > 0 and not self.allows(slot, time_ms):
            self.disputed = self.disputed or slot
        self._nodes[endpoint].note(slot, time_ms)

    def of(self, slot: int) -> int:
        """Its time; 0: not known, or disputed."""
        found = {time_ms for node in self._nodes if (time_ms := node.of(slot))}
        return found.pop() if len(found) == 1 and self.allows(slot, *found) else 0

    def allows(self, slot: int, time_ms: int) -> bool:
        """No node knows of a later time before the slot, or of an earlier one behind it.  A single
        one is compared with nobody."""
        for node in self._nodes if len(self._nodes) > 1 else ():
            first, last = node.at_least(slot), node.at_most(slot)
            if (first and time_ms < first) or (last and time_ms > last):
                return False
        return True

    def at_least(self, slot: int) -> int:
        return self._of_all(min, lambda node: node.at_least(slot))

    def at_most(self, slot: int) -> int:
        return self._of_all(max, lambda node: node.at_most(slot))

    def newest_slot(self, before: int) -> int:
        return max(node.newest_slot(before) for node in self._nodes)

    def estimate(self, slot: int) -> int:
        return self._of_all(min, lambda node: node.estimate(slot))

    def spread_ms(self, slot: int) -> int:
        """By how much the nodes' estimates differ."""
        found = sorted(time_ms for node in self._nodes if (time_ms := node.estimate(slot)))
        return found[-1] - found[0] if found else 0

    def _of_all(self, pick: Callable[..., int], ask: Callable[[ChainTimes], int]) -> int:
        """Of the nodes that know."""
        return pick((value for node in self._nodes if (value := ask(node))), default=0)
