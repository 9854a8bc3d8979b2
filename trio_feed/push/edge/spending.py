"""Budgets that hold for several processes together, such as workers.  Pure.

Each process spends of a budget of its own at once, so that nobody waits for another process.  What
was spent is said to the others a moment later, and they take it off theirs.  In the long run all of
them together spend what one would; within that moment each may spend as if it were alone, which
leaves a debt that has to be paid back before anything more is spent.
"""

from collections.abc import Iterable, Sequence

from attrs import define, field

from .throttle import RowBudgets

Spent = tuple[str, str, float]
"""Name of the budgets, address, how much."""


@define(eq=False)
class Spending:
    """The budgets of a process.  ``shared``: other processes spend of the same, and somebody says
    to them what :meth:`collect` returns, and takes what they say."""

    shared: bool = False
    _budgets: "dict[str, _SharedBudgets]" = field(factory=dict)
    _unsaid: dict[tuple[str, str], float] = field(factory=dict)

    def budgets(self, name: str, per_s: float, burst: float, most: int = 10_000) -> RowBudgets:
        """See :class:`.throttle.RowBudgets`.  They have the same name in every process."""
        if not self.shared:
            return RowBudgets(per_s, burst, most)
        made = self._budgets[name] = _SharedBudgets(self._unsaid, name, per_s, burst, most)
        return made

    def collect(self) -> Sequence[Spent]:
        """What was spent here since the last time."""
        found = [(name, address, amount) for (name, address), amount in self._unsaid.items()]
        self._unsaid.clear()
        return found

    def take(self, spent: Iterable[Spent], now: float) -> None:
        """What was spent elsewhere."""
        for name, address, amount in spent:
            if (budgets := self._budgets.get(name)) is not None:
                budgets.spend_elsewhere(address, amount, now)


class _SharedBudgets(RowBudgets):
    def __init__(
        self,
        unsaid: dict[tuple[str, str], float],
        name: str,
        per_s: float,
        burst: float,
        most: int,
    ) -> None:
        super().__init__(per_s, burst, most)
        self._unsaid, self._name = unsaid, name

    def spend(self, address: str, rows: float, now: float) -> None:
        super().spend(address, rows, now)
        key = self._name, address
        self._unsaid[key] = self._unsaid.get(key, 0.0) + rows

    def spend_elsewhere(self, address: str, rows: float, now: float) -> None:
        super().spend(address, rows, now)
