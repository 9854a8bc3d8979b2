"""Who is fed on demand, who goes and who is refused: pure."""

from trio_feed.core.on_demand import RETURN_S, WINDOW_S, Let, Limits, OnDemand
from trio_feed.model.demand import Refused

NEW = Let(True)


def book(most: int = 4, share: int = 2, linger_s: float = 300.0) -> OnDemand:
    return OnDemand(Limits(most, share, linger_s))


def reason(answer: Let | Refused) -> str:
    return answer.reason if isinstance(answer, Refused) else "let"


def test_it_is_started_once_and_stays_while_it_is_wanted() -> None:
    own = book()
    assert own.ask("A", "x", (), 0) == NEW
    assert own.ask("A", "y", (), 1) == Let()
    assert own.sweep({"A"}, 1_000) == []
    assert own.sweep((), 1_299) == []
    assert own.sweep((), 1_300) == ["A"]
    assert own.ask("A", "y", (), 1_300) == NEW


def test_a_question_keeps_it_like_a_subscription() -> None:
    own = book()
    own.ask("A", "x", (), 0)
    for at in range(200, 2_000, 200):
        own.ask("A", "x", (), at)
        assert own.sweep((), at) == []


def test_what_is_wanted_never_makes_place() -> None:
    own = book(most=2, share=2)
    own.ask("A", "x", (), 0)
    own.ask("B", "y", (), 0)
    late = 10 * WINDOW_S
    own.sweep({"A", "B"}, late)
    refused = own.ask("C", "z", {"A", "B"}, late)
    assert reason(refused) == "no_room"
    assert isinstance(refused, Refused)
    assert refused.retry_after_s > 0
    assert "fed on demand is 2, and all are in use" in refused.problem
    assert set(own.held) == {"A", "B"}


def test_what_nobody_wants_makes_place_the_idlest_first_but_not_at_once() -> None:
    own = book(most=2, share=2, linger_s=10_000)
    own.ask("A", "x", (), 0)
    own.ask("B", "y", (), 10)
    assert reason(own.ask("C", "z", (), RETURN_S - 1)) == "no_room"
    late = 10 + WINDOW_S
    assert reason(own.ask("C", "z", (), 10 + RETURN_S)) == "too_many"  # of all
    assert own.ask("C", "z", (), late) == Let(True, "A")
    assert set(own.held) == {"B", "C"}


def test_one_client_has_a_share_and_pushes_out_its_own_first() -> None:
    own = book(most=4, share=2, linger_s=10_000)
    own.ask("A", "good", (), 0)
    own.ask("B", "bad", (), 0)
    own.ask("C", "bad", (), 0)
    late = 2 * WINDOW_S
    assert reason(own.ask("D", "bad", {"B", "C"}, late)) == "no_room"  # though there is room
    assert own.ask("E", "other", {"B", "C"}, late) == NEW
    assert own.ask("D", "bad", {"B"}, late) == Let(True, "C")
    assert "A" in own.held


def test_coming_and_going_is_bounded_for_one_and_for_all() -> None:
    own = book(most=4, share=2, linger_s=RETURN_S)
    started = dict.fromkeys("xyz", 0)
    for at in range(0, int(10 * WINDOW_S), 10):
        own.sweep((), at)
        for asker in started:
            answer = own.ask(f"{asker}{at}", asker, (), at)
            started[asker] += answer == NEW or isinstance(answer, Let)
    assert all(count <= 2 + 2 * 10 for count in started.values())
    assert sum(started.values()) <= 4 + 4 * 10
    assert min(started.values()) > 0


def test_a_burst_is_let_in_up_to_the_share_and_then_said_when_to_come_again() -> None:
    own = book(most=40, share=10, linger_s=60)
    assert [own.ask(f"S{n}", "x", (), 0) for n in range(10)] == [NEW] * 10
    assert len(own.sweep((), 61)) == 10
    assert [own.ask(f"T{n}", "x", (), 61) for n in range(2)] == [NEW] * 2
    refused = own.ask("T2", "x", (), 61)
    assert isinstance(refused, Refused)
    assert (refused.reason, round(refused.retry_after_s)) == ("too_many", 29)
    assert own.ask("T2", "y", (), 61) == NEW
    assert own.ask("T3", "x", (), 61 + refused.retry_after_s) == NEW


def test_who_starts_nothing_is_forgotten() -> None:
    own = book()
    own.ask("A", "x", (), 0)
    assert own._starts
    own.sweep({"A"}, WINDOW_S + 1)
    assert not own._starts
