"""What waits for a venue's tasks: questions, loads, rotations, and engines to be woken.  No I/O."""

import heapq
from collections import deque
from itertools import count

import trio
from attrs import define, field

from ..core.effects import Fetch, Load, Resubscribe
from ..core.questions import Need
from ..core.symbol import SymbolEngine
from ..instants import NEVER, Mono


@define(eq=False)
class Queues:
    """Bounded by the number of series: each has at most one question and one load of a kind under
    way."""

    fetches: list[tuple[bool, Need, int, Fetch, SymbolEngine]] = field(factory=list)
    loads: deque[tuple[Load, SymbolEngine]] = field(factory=deque)
    rotations: deque[Resubscribe] = field(factory=deque)
    more_fetches: trio.Event = field(factory=trio.Event)
    more_loads: trio.Event = field(factory=trio.Event)
    more_rotations: trio.Event = field(factory=trio.Event)
    earlier: trio.Event = field(factory=trio.Event)
    """Set when an engine wants to be woken before the time that is slept for."""
    _numbers: "count[int]" = field(factory=count)

    def put_fetch(self, fetch: Fetch, engine: SymbolEngine, *, later: bool = False) -> None:
        """``later``: behind every question that is not."""
        heapq.heappush(self.fetches, (later, fetch.need, next(self._numbers), fetch, engine))
        self.more_fetches.set()

    def next_fetch(self) -> tuple[Fetch, SymbolEngine] | None:
        """The most urgent question; None: there is none, ``more_fetches`` is set when one comes."""
        if not self.fetches:
            self.more_fetches = trio.Event()
            return None
        _, _, _, fetch, engine = heapq.heappop(self.fetches)
        return fetch, engine


@define(eq=False)
class Wakes:
    """When each engine wants to be woken, the earliest first.  Its alarm says for when it is
    planned; what else the heap has of it is passed over."""

    _heap: list[tuple[Mono, int, SymbolEngine]] = field(factory=list)
    _numbers: "count[int]" = field(factory=count)

    @property
    def earliest(self) -> Mono:
        return self._heap[0][0] if self._heap else NEVER

    def plan(self, engine: SymbolEngine, at: Mono) -> bool:
        """Wake it at this time, which is earlier than what it is planned for.  True: nothing
        else is woken before it."""
        engine.alarm.planned = at
        heapq.heappush(self._heap, (at, next(self._numbers), engine))
        return self._heap[0][2] is engine

    def next_due(self, now: Mono) -> SymbolEngine | None:
        """An engine whose time has come, once; None: there is none (any more)."""
        while self._heap and self._heap[0][0] <= now:
            at, _, engine = heapq.heappop(self._heap)
            if engine.alarm.planned == at:  # else it is there for another time, or gone
                engine.alarm.planned = NEVER
                return engine
        return None

    def forget(self, engine: SymbolEngine) -> None:
        engine.alarm.planned = NEVER
