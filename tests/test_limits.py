"""The weight budget, with time as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.net.limits import Bans, WeightBudget, refusal_hint


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
