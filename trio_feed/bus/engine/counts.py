"""What a node counts of its engine: plain numbers, read when somebody asks for them.  Pure."""

from bisect import bisect_left
from collections import Counter

from attrs import define, field

from ...metrics import Durations

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@define
class Timings:
    """How long something took, each time."""

    _counts: list[int] = field(factory=lambda: [0] * (len(_BOUNDS_S) + 1))
    _sum_s: float = 0.0

    def note(self, took_s: float) -> None:
        self._counts[bisect_left(_BOUNDS_S, took_s)] += 1
        self._sum_s += took_s

    def durations(self) -> Durations:
        """Since the start."""
        return Durations(_BOUNDS_S, tuple(self._counts), self._sum_s)


@define
class FeedingCounts:
    """``append``: round trips with entries; ``changes``: by the event's name of what became of a
    shard; ``forgot``: how often the engine lacked entries that it had confirmed."""

    appends: int = 0
    append_bytes: int = 0
    append: Timings = field(factory=Timings)
    changes: Counter[str] = field(factory=Counter)
    forgot: int = 0


@define
class FollowingCounts:
    """``lag``: from a message published to read here, by two machines' calendars; the oldest of
    what came for a shard at once.  ``repaired``: candles that came from the store."""

    entries: int = 0
    read_bytes: int = 0
    lag: Timings = field(factory=Timings)
    resyncs: int = 0
    repaired: int = 0
    gave_up: int = 0
