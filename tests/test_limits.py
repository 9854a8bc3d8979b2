"""Budgets and bans, with time as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.net.limits import Bans, FrameBudget, WeightBudget, Window, refusal_hint


def test_full_bucket_then_refill():
    budget = WeightBudget(60)
    assert budget.delay_s(60, now=0) == 0
    assert budget.delay_s(5, now=0) == pytest.approx(5.0)
    assert budget.delay_s(5, now=4_999) > 0
    assert budget.delay_s(5, now=5_000) == 0
    assert budget.delay_s(1, now=5_000) == pytest.approx(1.0)


def test_asking_takes_nothing_when_refused():
    budget = WeightBudget(60)
    assert budget.delay_s(60, now=0) == 0
    delays = [budget.delay_s(10, now=0) for _ in range(5)]
    assert delays == [pytest.approx(10.0)] * 5


def test_bucket_never_holds_more_than_a_minute():
    budget = WeightBudget(60)
    assert budget.delay_s(1, now=0) == 0
    assert budget.delay_s(60, now=3_600_000) == 0
    assert budget.delay_s(1, now=3_600_000) > 0


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


def test_clock_that_is_set_back_neither_refills_nor_blocks():
    budget = WeightBudget(60)
    assert budget.delay_s(60, now=1_000_000) == 0
    assert budget.delay_s(1, now=0) == pytest.approx(1.0)
    assert budget.delay_s(1, now=1_000) == 0


def test_bans_only_grow():
    bans = Bans()
    assert bans.banned_until_ms == 0
    bans.ban(5_000)
    bans.ban(3_000)
    assert bans.banned_until_ms == 5_000


def test_default_bans_double_until_something_is_accepted():
    bans = Bans()
    now, lengths = 0.0, []
    for _ in range(8):
        end = bans.ban_by_default(now)
        lengths.append((end - now) / 1000)
        now = end
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    bans.accepted()
    assert bans.ban_by_default(now) == now + 60_000


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 30_000)), max_size=60))
def test_never_more_than_bucket_plus_refill(asks):
    budget, now, taken = WeightBudget(100), 0.0, 0
    for weight, pause in asks:
        now += pause
        if budget.delay_s(weight, now) == 0:
            taken += weight
        assert taken <= 100 + now * 100 / 60_000 + 1e-3


@given(st.integers(1, 100), st.integers(1, 100))
def test_the_delay_named_is_enough(first, second):
    budget = WeightBudget(100)
    assert budget.delay_s(first, 0) == 0
    delay = budget.delay_s(second, 0)
    assert budget.delay_s(second, delay * 1000) == 0 if delay else True


@pytest.mark.parametrize("status", [302, 400, 403, 418, 429, 451, 503])
def test_every_refusal_has_a_hint(status):
    assert refusal_hint(status)


def test_too_many_requests_alone_never_wait_longer_than_their_window():
    bans, now = Bans(), 1_000_000.0
    for _ in range(7):
        end = bans.ban_by_default(now, escalate=False)
        assert end == now + 60_000
        now = end
    assert bans.ban_by_default(now) == now + 60_000


# ---------------------------------------------------------------- windows


@given(st.lists(st.tuples(st.floats(-2_000, 2_000), st.integers(1, 6)), max_size=80))
def test_no_window_ever_holds_more_than_it_may(asks):
    window, now, gone = Window(5, 1.0), 0.0, []
    for pause, count in asks:
        now += pause
        gone = [min(when, now) for when in gone]  # a clock that was set back
        delay_s = window.delay_s(now, count)
        assert 0 <= delay_s <= 1 + 1e-9
        if not delay_s:
            window.take(now, count)
            gone += [now] * min(count, 5)
            assert sum(when > now - 1000 for when in gone) <= 5


@given(st.lists(st.tuples(st.floats(0, 500), st.integers(1, 5)), max_size=30))
def test_the_wait_that_a_window_names_is_enough(asks):
    window, now = Window(5, 1.0), 0.0
    for pause, count in asks:
        now += pause
        now += window.delay_s(now, count) * 1000
        assert window.delay_s(now, count) <= 0.001  # the milliseconds' last digits
        window.take(now, count)


def test_a_frame_is_kept_for_the_pong():
    budget = FrameBudget((5, 1.0))
    for _ in range(4):
        assert budget.delay_s(0) == 0
        budget.sent(0)
    assert budget.delay_s(0) == 1.0
    budget.sent(200)  # the pong, which nobody asks for
    assert budget.delay_s(1000) == 0
    for _ in range(3):
        budget.sent(1000)
    assert budget.delay_s(1000) == pytest.approx(0.2)  # that long the pong counts


def test_subscriptions_are_counted_by_the_hour():
    budget = FrameBudget((100, 1.0), (480, 3600.0))
    assert budget.delay_s(0, 400) == 0
    budget.operated(0, 400)
    assert budget.delay_s(1000, 80) == 0
    budget.operated(1000, 80)
    assert budget.delay_s(2000, 1) == pytest.approx(3598)
    assert budget.delay_s(2000) == 0  # a ping is no subscription
    assert budget.delay_s(3_600_000, 400) == 0
    assert budget.delay_s(3_600_000, 401) == pytest.approx(1)
