"""Whose turn it is, and what each address may order."""

from collections import Counter

import pytest

from trio_feed.push.edge.throttle import RowBudgets
from trio_feed.push.edge.turns import Asker, Turn, Turns


def joined(turns: Turns, address: str, client: str = "c") -> Turn:
    turn = turns.join(Asker(address, client))
    assert turn is not None
    return turn


def in_order(turns: Turns, running: list[Turn]) -> list[Turn]:
    """Those that are granted, one after the other, as the ones before them are done."""
    order, rest = [], list(running)
    while rest:
        done = rest.pop(0)
        order.append(done)
        rest += turns.leave(done)
    return order


def test_as_many_at_once_as_there_are_places() -> None:
    turns = Turns(at_once=2, per_address=2, most_waiting=9)
    first, second, third = (joined(turns, name) for name in "abc")
    assert (first.granted, second.granted, third.granted) == (True, True, False)
    assert turns.leave(second) == [third]
    assert third.granted
    assert turns.leave(first) == turns.leave(third) == []
    assert joined(turns, "d").granted


def test_an_address_has_no_more_than_its_places() -> None:
    turns = Turns(at_once=3, per_address=1, most_waiting=9)
    first, second = joined(turns, "a"), joined(turns, "a", "other")
    assert (first.granted, second.granted) == (True, False)
    assert joined(turns, "b").granted
    assert turns.leave(first) == [second]


def test_round_robin_over_addresses_then_over_their_clients() -> None:
    turns = Turns(at_once=1, per_address=1, most_waiting=99)
    blocking = joined(turns, "z")
    for n in range(3):
        for client in ("greedy", "other"):
            joined(turns, "a", client)
        joined(turns, "a", "greedy")
        if n == 2:
            joined(turns, "b")
    order = [turn.asker for turn in in_order(turns, [blocking])[1:]]
    assert [asker.address for asker in order] == ["a", "b"] + ["a"] * 8
    assert [asker.client for asker in order if asker.address == "a"] == [
        *["greedy", "other"] * 3,
        *["greedy"] * 3,
    ]


def test_a_newcomer_waits_for_one_turn_of_an_address_that_asks_for_much() -> None:
    turns = Turns(at_once=2, per_address=1, most_waiting=1000)
    flood = [joined(turns, "flood", str(n)) for n in range(500)]
    assert joined(turns, "good").granted
    assert Counter(turn.granted for turn in flood) == {True: 1, False: 499}


def test_too_many_of_one_address_are_sent_away_and_others_are_not() -> None:
    turns = Turns(at_once=1, per_address=1, most_waiting=2)
    running = joined(turns, "a")
    waiting = [joined(turns, "a") for _ in range(2)]
    assert turns.join(Asker("a", "other")) is None
    assert joined(turns, "b").granted is False
    turns.leave(waiting[1])  # it gave up
    assert turns.join(Asker("a", "other")) is not None
    in_order(turns, [running])


def test_who_gives_up_is_not_granted_and_leaves_nothing() -> None:
    turns = Turns(at_once=1, per_address=1, most_waiting=9)
    running, gone, last = (joined(turns, "a", name) for name in "xyz")
    assert turns.leave(gone) == []
    assert turns.leave(running) == [last]
    assert turns.leave(last) == []
    assert not gone.granted
    assert turns == Turns(at_once=1, per_address=1, most_waiting=9)


def test_a_budget_is_used_up_and_comes_back() -> None:
    budgets = RowBudgets(per_s=100, burst=1000)
    for _ in range(2):
        assert budgets.wait_s("a", 0) == 0
        budgets.spend("a", 600, 0)
    assert budgets.wait_s("a", 0) == 2.01
    assert budgets.wait_s("b", 0) == 0
    assert budgets.wait_s("a", 1) == 1.01
    assert budgets.wait_s("a", 2.01) == 0
    budgets.spend("a", 5001, 12)  # one large order, from what ten seconds brought
    assert budgets.wait_s("a", 12) == pytest.approx(40.02)
    budgets.spend("a", 0, 1000)
    assert budgets.wait_s("a", 1000) == 0
    budgets.spend("a", 1000, 1000)
    assert budgets.wait_s("a", 1000) > 0  # no more than the burst was kept


def test_a_clock_set_back_brings_no_rows() -> None:
    budgets = RowBudgets(per_s=100, burst=100)
    budgets.spend("a", 200, 100)
    assert budgets.wait_s("a", 50) == 1.01


def test_strangers_with_many_addresses_take_no_memory() -> None:
    budgets = RowBudgets(per_s=1, burst=1, most=10)
    for n in range(1000):
        budgets.spend(str(n), 5, 0)
    assert budgets.wait_s("999", 0) == 5
    assert budgets.wait_s("0", 0) == 0
