"""Work that clients order: who may have how much of it, and when.

An answer of many rows is read from the store by a thread and written as text on the loop, and
everybody else feels both.  So orders of all clients, over HTTP and WebSocket, pass one gate: each
address has a budget of rows (:mod:`.spending`), few orders are worked on at once, and
the next is chosen by round robin (:class:`.turns.Turns`).  Short ones have places of their own,
because a chart's first page should not wait for other people's five thousand rows.
Of this machine's own clients they cost nothing: behind a proxy here, all users have one address.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import frozen

from ...metrics import Metrics
from .spending import Spending
from .turns import Asker, Turn, Turns

SHORT_ROWS = 200
LEAST_ROWS = 20
"""What an order costs however few rows it has."""
_SHORT_AT_ONCE, _LONG_AT_ONCE, _LONG_PER_ADDRESS = 2, 2, 1
_ALL = ""


@frozen
class WorkLimits:
    """In rows and seconds.  ``debt_wait_s``: an address that would wait longer for its budget is
    refused at once; ``wait_s``: any order that has waited for so long is."""

    rows_per_s: float = 10_000
    row_burst: int = 200_000
    total_rows_per_s: float = 20_000
    total_row_burst: int = 400_000
    waiting_per_address: int = 256
    debt_wait_s: float = 5.0
    wait_s: float = 30.0


class Busy(Exception):
    """The order is not worked on; it may be repeated after ``retry_after_s``."""

    def __init__(self, problem: str, retry_after_s: float) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class WorkGate:
    """One per process.  ``spending`` has its budgets; None: nobody else spends of them."""

    def __init__(
        self, limits: WorkLimits, metrics: Metrics, spending: Spending | None = None
    ) -> None:
        self._limits, self._metrics = limits, metrics
        spending = spending or Spending()
        self._budgets = spending.budgets("rows", limits.rows_per_s, limits.row_burst)
        total = limits.total_rows_per_s, limits.total_row_burst
        self._total = spending.budgets("total_rows", *total, most=1)
        waiting = limits.waiting_per_address
        self._short = Turns(_SHORT_AT_ONCE, _SHORT_AT_ONCE, waiting)
        self._long = Turns(_LONG_AT_ONCE, _LONG_PER_ADDRESS, waiting)
        self._granted: dict[Turn, trio.Event] = {}

    @asynccontextmanager
    async def turn(self, asker: Asker, rows: int) -> AsyncIterator[None]:
        """Wait for one's turn, and have it until the end of the block, whose end waits for
        nothing.  Raises Busy."""
        turns = self._short if rows <= SHORT_ROWS else self._long
        deadline = trio.current_time() + self._limits.wait_s
        free = asker.local and turns is self._short
        cost = 0 if free else max(rows, LEAST_ROWS)
        turn = await self._enter(turns, asker, cost, deadline)
        try:
            if turns is self._long:
                # Its place is kept meanwhile: this is what makes all of them slower together.
                await trio.sleep(self._total.wait_s(_ALL, trio.current_time()))
                self._total.spend(_ALL, rows, trio.current_time())
            yield
        finally:
            self._leave(turns, turn)

    def spend(self, asker: Asker, rows: int) -> None:
        """It had so many rows more than it had to say before."""
        self._budgets.spend(asker.address, rows, trio.current_time())

    async def _enter(self, turns: Turns, asker: Asker, cost: int, deadline: float) -> Turn:
        while True:
            if cost:
                await self._afford(asker.address)
            turn = turns.join(asker)
            if turn is None:
                raise self._busy("queue", "too many requests of this address are waiting", 1.0)
            await self._granting(turns, turn, deadline)
            now = trio.current_time()
            if not cost:
                return turn
            if not self._budgets.wait_s(asker.address, now):
                self._budgets.spend(asker.address, cost, now)
                return turn
            self._leave(turns, turn)  # others of the address came first

    async def _afford(self, address: str) -> None:
        """Wait until the address may order."""
        wait_s = self._budgets.wait_s(address, trio.current_time())
        if wait_s > self._limits.debt_wait_s:
            problem = f"more than {self._limits.rows_per_s:g} rows a second"
            raise self._busy("budget", problem, wait_s)
        await trio.sleep(wait_s)

    async def _granting(self, turns: Turns, turn: Turn, deadline: float) -> None:
        if turn.granted:
            return
        event = self._granted[turn] = trio.Event()
        try:
            with trio.move_on_at(deadline):
                await event.wait()
        except BaseException:
            self._leave(turns, turn)
            raise
        finally:
            del self._granted[turn]
        if not turn.granted:
            self._leave(turns, turn)
            raise self._busy("queue", "too much is being asked for at the moment", 5.0)

    def _leave(self, turns: Turns, turn: Turn) -> None:
        for granted in turns.leave(turn):
            if granted in self._granted:
                self._granted[granted].set()

    def _busy(self, reason: str, problem: str, retry_after_s: float) -> Busy:
        self._metrics.orders_refused.labels(reason).inc()
        return Busy(f"{problem}; try again in {retry_after_s:.0f} s", retry_after_s)
