"""Budgets of several processes together, on a time that is an argument."""

from itertools import product

import pytest

from trio_feed.push.edge.spending import Spending
from trio_feed.push.edge.throttle import RowBudgets


class Workers:
    """Two processes, which say to each other what was spent when told to."""

    def __init__(self, count: int = 2) -> None:
        self.spendings = [Spending(shared=True) for _ in range(count)]
        self.budgets = [each.budgets("rows", per_s=10, burst=100) for each in self.spendings]

    def say(self, now: float) -> None:
        for spending in self.spendings:
            spent = spending.collect()
            for other in self.spendings:
                if other is not spending:
                    other.take(spent, now)


def test_what_is_spent_in_one_process_is_missing_in_the_other() -> None:
    workers = Workers()
    one, two = workers.budgets
    one.spend("a", 120, 0)
    workers.say(0)
    assert [each.wait_s("a", 0) for each in (one, two)] == pytest.approx([2.1, 2.1])
    assert [each.wait_s("b", 0) for each in (one, two)] == [0, 0]
    workers.say(0)  # and it is said once
    assert two.wait_s("a", 0) == pytest.approx(2.1)


def test_a_budget_has_as_much_as_one_process_would_give_and_a_moment_more() -> None:
    """Whoever asks at all of them, all the time: an address of four workers."""
    workers, alone = Workers(4), RowBudgets(per_s=10, burst=100)
    had = of_one = 0
    for tick, budgets in product(range(1000), workers.budgets):
        now = tick / 10
        if not budgets.wait_s("a", now):
            budgets.spend("a", 1, now)
            had += 1
        if not alone.wait_s("a", now):
            alone.spend("a", 1, now)
            of_one += 1
        if budgets is workers.budgets[-1]:
            workers.say(now)
    assert of_one == pytest.approx(100 + 1000, abs=2)
    assert of_one <= had <= of_one + 3  # one order of each other worker


def test_who_stays_at_one_process_has_all_of_it() -> None:
    workers, had = Workers(4), 0
    for tick in range(1000):
        if not workers.budgets[0].wait_s("a", tick / 10):
            workers.budgets[0].spend("a", 2, tick / 10)
            had += 2
        workers.say(tick / 10)
    assert had == pytest.approx(100 + 1000, abs=2)


def test_budgets_have_names_of_which_another_process_may_not_know() -> None:
    one, two = Spending(shared=True), Spending(shared=True)
    one.budgets("there only", 1, 10).spend("a", 5, 0)
    kept = two.budgets("here", 1, 10)
    two.take(one.collect(), 0)
    assert kept.wait_s("a", 0) == 0


def test_alone_nothing_is_kept_to_be_said() -> None:
    alone = Spending()
    alone.budgets("rows", 1, 10).spend("a", 5, 0)
    assert alone.collect() == []
