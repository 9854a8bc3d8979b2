"""The process's budgets and the queues of those who wait for them.

What may be asked of an exchange is counted per exit IP, so everything that leaves by one exit for
one exchange shares one budget: connections, backfill workers, and venues that say that they
share (``SHARES`` of :class:`trio_feed.venues.Venue`).  The budgets themselves are pure
(:mod:`.limits`); here is who waits, in the order in which they came.
"""

from collections.abc import Callable

import trio

from ..environment import mono
from .limits import Bans, DialBudget, WeightBudget

_LOOK_AGAIN_S = 1.0
"""Whether what is waited for is still wanted is asked again after so long at most."""


class WaitQueue:
    """Waiters for one budget, served in the order in which they came."""

    def __init__(self) -> None:
        self._turn = trio.StrictFIFOLock()

    @property
    def waiting(self) -> int:
        """How many wait behind the first."""
        return self._turn.statistics().tasks_waiting

    async def take(self, ask: Callable[[], float | None]) -> bool:
        """Wait for one's turn and then for ``ask``: seconds to wait; 0: it is taken (True); None:
        it is not wanted any more (False).  What ``ask`` raises comes out."""
        async with self._turn:
            while True:
                delay_s = ask()
                if not delay_s:
                    return delay_s is not None
                await trio.sleep(min(delay_s, _LOOK_AGAIN_S))


class _PerExit:
    def __init__(self) -> None:
        self._queues: dict[str, WaitQueue] = {}

    def queue(self, exit_: str) -> WaitQueue:
        """Of those who want to leave by this exit."""
        return self._queues.setdefault(exit_, WaitQueue())

    @property
    def waiting(self) -> int:
        return sum(queue.waiting for queue in self._queues.values())


class Dials(_PerExit):
    """New connections to one exchange, at most so many per window and exit."""

    def __init__(self, per_window: int, window_s: float) -> None:
        super().__init__()
        self._budget = DialBudget(per_window, window_s)

    def __repr__(self) -> str:
        return f"{self._budget!r}"

    async def take(self, exit_: str, wanted: Callable[[], bool]) -> bool:
        """True: dial now, it is counted.  False: ``wanted`` says that another exit is better."""

        def ask() -> float | None:
            return self._budget.delay_s(mono(), exit_) if wanted() else None

        return await self.queue(exit_).take(ask)


class Weights(_PerExit):
    """Request weight at one exchange, per exit, and its bans, for all exits."""

    def __init__(self, per_minute: int, burst_s: float = 60.0) -> None:
        super().__init__()
        self.bans = Bans()
        self._per_minute, self._burst_s = per_minute, burst_s
        self._budgets: dict[str, WeightBudget] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{exit_}: {budget!r}" for exit_, budget in self._budgets.items())
        return f"<Weights {shown}>"

    def resize(self, per_minute: int) -> None:
        """From now on so much per minute, for all exits."""
        if per_minute != self._per_minute:
            self._per_minute = per_minute
            for budget in self._budgets.values():
                budget.resize(per_minute, mono())

    def at(self, exit_: str) -> WeightBudget:
        """The budget of one exit."""
        if exit_ not in self._budgets:
            self._budgets[exit_] = WeightBudget(self._per_minute, self._burst_s)
        return self._budgets[exit_]


class Budgets:
    """One per process.  Who names the same exchange gets the same budget; the first one to ask
    says how large it is, until :meth:`resize`."""

    def __init__(self) -> None:
        self._dials: dict[str, Dials] = {}
        self._weights: dict[str, Weights] = {}

    def dials(self, exchange: str, per_window: int, window_s: float) -> Dials:
        if exchange not in self._dials:
            self._dials[exchange] = Dials(per_window, window_s)
        return self._dials[exchange]

    def weights(self, exchange: str, per_minute: int, burst_s: float) -> Weights:
        if exchange not in self._weights:
            self._weights[exchange] = Weights(per_minute, burst_s)
        return self._weights[exchange]

    def resize(self, exchange: str, per_minute: int) -> None:
        """The request weight of an exchange is another one from now on; who waits for it is served
        accordingly within a second."""
        if exchange in self._weights:
            self._weights[exchange].resize(per_minute)
