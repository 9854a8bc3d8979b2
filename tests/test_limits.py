"""Budgets and bans, with time as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.instants import Mono
from trio_feed.net.limits import Bans, FrameBudget, WeightBudget, Window, status_hint


def test_full_bucket_then_refill():
    budget = WeightBudget(60)
    assert budget.delay_s(60, now=0) == 0
    assert budget.delay_s(5, now=0) == pytest.approx(5.0)
    assert budget.delay_s(5, now=4.999) > 0
    assert budget.delay_s(5, now=5) == 0
    assert budget.delay_s(1, now=5) == pytest.approx(1.0)


def test_asking_takes_nothing_when_refused():
    budget = WeightBudget(60)
    assert budget.delay_s(60, now=0) == 0
    delays = [budget.delay_s(10, now=0) for _ in range(5)]
    assert delays == [pytest.approx(10.0)] * 5


def test_bucket_never_holds_more_than_a_minute():
    budget = WeightBudget(60)
    assert budget.delay_s(1, now=0) == 0
    assert budget.delay_s(60, now=3_600) == 0
    assert budget.delay_s(1, now=3_600) > 0


def test_heavier_than_a_minute_goes_alone_and_is_paid_for():
    budget = WeightBudget(60)
    assert budget.delay_s(120, now=0) == 0
    assert budget.delay_s(1, now=0) == pytest.approx(61.0)


def test_exchange_count_is_adopted_only_when_larger():
    budget = WeightBudget(60)
    assert budget.delay_s(20, now=0) == 0
    budget.observed(10, now=0)
    assert budget.delay_s(40, now=0) == 0
    budget.observed(90, now=0)  # others behind this IP
    assert budget.delay_s(1, now=0) == pytest.approx(31.0)


@given(
    st.lists(st.tuples(st.sampled_from([30, 60, 600]), st.floats(0, 60)), max_size=20),
    st.sampled_from([2.0, 60.0]),
)
def test_a_change_of_the_size_spends_nothing_twice(changes, burst_s):
    """Whatever is set in between: no minute holds more than the largest would allow."""
    budget, now, gone = WeightBudget(60, burst_s), 0.0, []
    for per_minute, pause in changes:
        now += pause
        budget.resize(per_minute, now)
        while budget.delay_s(1, now) == 0:
            gone.append(now)
        assert sum(when > now - 60 for when in gone) <= 2 * 600
        assert budget.delay_s(1, now) <= 61 + 600 / 30 * 60


def test_a_budget_that_grows_serves_at_once_and_one_that_shrinks_owes():
    budget = WeightBudget(60)
    assert budget.delay_s(60, now=0) == 0
    budget.resize(600, now=0)
    assert budget.delay_s(540, now=0) == 0  # the 60 are spent
    assert budget.delay_s(1, now=0) == pytest.approx(0.1)
    budget.resize(60, now=0)
    assert budget.delay_s(1, now=0) == pytest.approx(541)


def test_a_short_window_is_not_forgotten_when_the_size_changes():
    budget = WeightBudget(600, burst_s=2)
    assert budget.delay_s(20, now=0) == 0
    budget.resize(1200, now=0)
    assert budget.delay_s(20, now=0) == 0
    assert budget.delay_s(1, now=0) > 0
    budget = WeightBudget(600, burst_s=2)
    assert budget.delay_s(20, now=0) == 0
    budget.resize(601, now=1)
    assert budget.delay_s(10, now=1) == pytest.approx(1.4)  # though 10 are there again


def test_bans_only_grow():
    bans = Bans()
    assert bans.left_s(-1e9) == 0
    assert bans.ban(0, 5) == 5
    assert bans.ban(0, 3) == 5
    assert (bans.until, bans.left_s(4), bans.left_s(6)) == (5, 1, 0)


@pytest.mark.parametrize(
    ("named_s", "kept_s"),
    [(260 * 365.25 * 86400, 3 * 86400), (0, 1), (-7, 1), (float("inf"), 259200)],
)
def test_a_ban_has_a_floor_and_a_ceiling(named_s, kept_s):
    assert Bans().ban(100, named_s) == 100 + kept_s


def test_answers_that_were_on_the_way_tell_of_the_same_ban():
    bans = Bans()
    assert [bans.ban_by_default(now) for now in (0, 1, 2)] == [60, 61, 62]
    assert bans.ban_by_default(62) == 62 + 120


def test_default_bans_double_until_something_is_accepted():
    bans = Bans()
    now, lengths = 0.0, []
    for _ in range(8):
        end = bans.ban_by_default(now)
        lengths.append(end - now)
        now = end
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    bans.accepted()
    assert bans.ban_by_default(now) == now + 60


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 30)), max_size=60))
def test_never_more_than_bucket_plus_refill(asks):
    budget, now, taken = WeightBudget(100), 0.0, 0
    for weight, pause in asks:
        now += pause
        if budget.delay_s(weight, now) == 0:
            taken += weight
        assert taken <= 100 + now * 100 / 60 + 1e-3


@given(st.integers(1, 100), st.integers(1, 100))
def test_the_delay_named_is_enough(first, second):
    budget = WeightBudget(100)
    assert budget.delay_s(first, 0) == 0
    delay = budget.delay_s(second, 0)
    assert budget.delay_s(second, delay) == 0 if delay else True


@pytest.mark.parametrize("status", [302, 400, 403, 418, 429, 451, 503])
def test_every_refusal_has_a_hint(status):
    assert status_hint(status)


def test_too_many_requests_alone_never_wait_longer_than_their_window():
    bans, now = Bans(), 1_000.0
    for _ in range(7):
        end = bans.ban_by_default(now, escalate=False)
        assert end == now + 60
        now = end
    assert bans.ban_by_default(now) == now + 60


# ---------------------------------------------------------------- windows


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 6)), max_size=80))
def test_no_window_ever_holds_more_than_it_may(asks):
    window, now, gone = Window(5, 1.0), 0.0, []
    for pause, count in asks:
        now += pause
        delay_s = window.delay_s(now, count)
        assert 0 <= delay_s <= 1 + 1e-9
        if not delay_s:
            window.take(now, count)
            gone += [now] * min(count, 5)
            assert sum(when > now - 1 + 1e-9 for when in gone) <= 5


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 5)), max_size=30))
def test_the_wait_that_a_window_names_is_enough(asks):
    window, now = Window(5, 1.0), 0.0
    for pause, count in asks:
        now += pause
        now += window.delay_s(now, count)
        assert window.delay_s(now, count) <= 0.001  # the last digits of a sum
        window.take(now, count)


def test_a_frame_is_kept_for_the_pong():
    budget = FrameBudget((5, 1.0))
    for _ in range(4):
        assert budget.delay_s(0) == 0
        budget.sent(0)
    assert budget.delay_s(0) == 1.0
    budget.sent(0.2)  # the pong, which nobody asks for
    assert budget.delay_s(1) == 0
    for _ in range(3):
        budget.sent(1)
    assert budget.delay_s(1) == pytest.approx(0.2)  # that long the pong counts


def test_subscriptions_are_counted_by_the_hour():
    budget = FrameBudget((100, 1.0), (480, 3600.0))
    assert budget.delay_s(0, 400) == 0
    budget.operated(0, 400)
    assert budget.delay_s(1, 80) == 0
    budget.operated(1, 80)
    assert budget.delay_s(2, 1) == pytest.approx(3598)
    assert budget.delay_s(2) == 0  # a ping is no subscription
    assert budget.delay_s(3_600, 400) == 0
    assert budget.delay_s(3_600, 401) == pytest.approx(1)


def test_what_does_not_wait_is_taken_all_the_same() -> None:
    """A debt is never more than a minute's refill."""
    budget = WeightBudget(60)
    budget.spent(50, Mono(0.0))
    assert budget.delay_s(20, Mono(0.0)) == pytest.approx(10)
    budget.spent(1000, Mono(0.0))
    assert budget.delay_s(1, Mono(0.0)) == pytest.approx(61)
    short = WeightBudget(60, burst_s=10)
    short.spent(10, Mono(0.0))
    assert short.delay_s(1, Mono(5.0)) > 0
