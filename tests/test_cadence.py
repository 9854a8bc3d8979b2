"""What a stream's arrivals teach, and when its silence or its trickling is suspicious."""

import random
from collections.abc import Iterable

import pytest

from trio_feed.core.cadence import Cadence


def learned(gaps: Iterable[float], *, floor_s: float = 0.5) -> tuple[Cadence, float]:
    """A cadence that heard these gaps, and the time of the last arrival."""
    cadence = Cadence(3.0, floor_s, unknown_s=60.0)
    now = 1_000.0
    cadence.begin(now)
    for gap in gaps:
        now += gap
        cadence.arrived(now)
    return cadence, now


def doubts(cadence: Cadence, now: float, gaps: Iterable[float]) -> int:
    """How often it doubted while these gaps went on (each doubt settled: quiet)."""
    found = 0
    for gap in gaps:
        end = now + gap
        while cadence.suspect_at < end:
            found += 1
            cadence.confirm_quiet(cadence.suspect_at)
        now = end
        found += bool(cadence.arrived(now))
    return found


@pytest.mark.parametrize("period", [0.25, 1.0, 2.0, 30.0, 300.0])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_a_regular_stream_is_never_doubted(period: float, jitter: float) -> None:
    chance = random.Random(f"{period} {jitter}")
    gaps = [period * (1 + jitter * chance.uniform(-1, 1)) for _ in range(5_000)]
    cadence, now = learned(gaps[:10])
    assert doubts(cadence, now, gaps[10:]) == 0
    assert cadence.gap_s == pytest.approx(period, rel=0.15)


@pytest.mark.parametrize("mean", [0.2, 1.0, 12.0, 60.0])
def test_a_stream_without_memory_is_doubted_rarely(mean: float) -> None:
    """A silence of three mean gaps has a chance of 5 %; the estimate varies."""
    chance = random.Random(f"{mean}")
    gaps = [chance.expovariate(1 / mean) for _ in range(20_000)]
    cadence, now = learned(gaps[:500])
    assert doubts(cadence, now, gaps[500:]) / len(gaps) < 0.07


def test_the_floor_keeps_a_fast_stream_from_being_asked_about_at_all() -> None:
    chance = random.Random(1)
    gaps = [chance.expovariate(2.0) for _ in range(20_000)]
    cadence, now = learned(gaps[:500], floor_s=5.0)
    assert doubts(cadence, now, gaps[500:]) <= 5


def test_bursts_are_not_the_cadence() -> None:
    """Twenty trades within 100 ms, then four seconds nothing."""
    gaps = ([0.005] * 20 + [4.0]) * 200
    cadence, now = learned(gaps)
    assert cadence.gap_s == pytest.approx(4.1, abs=0.2)
    assert doubts(cadence, now, gaps) == 0


@pytest.mark.parametrize("period", [0.25, 1.0, 30.0])
def test_silence_is_noticed_within_three_times_the_cadence(period: float) -> None:
    cadence, now = learned([period] * 100)
    noticed = cadence.suspect_at - now
    assert period < noticed
    assert noticed + cadence.grace_s <= max(3 * period, 0.5 + cadence.grace_s)


def test_nothing_is_expected_of_a_stream_that_is_not_known() -> None:
    cadence, _ = learned([1.0] * 3)
    assert cadence.allowed_s == 60.0
    assert Cadence(3.0, 5.0, 60.0).suspect_at == float("inf")


def test_a_pause_that_was_proven_quiet_is_no_reason_to_be_deaf_afterwards() -> None:
    """Two minutes nothing on a stream that ticks each second."""
    cadence, now = learned([1.0] * 600, floor_s=5.0)
    assert doubts(cadence, now, [120.0]) in range(3, 7)  # 5, 10, 20, 40 and 80 s after
    assert cadence.allowed_s == 5.0


def test_a_market_that_slows_down_is_believed_after_some_gaps() -> None:
    cadence, now = learned([1.0] * 600, floor_s=5.0)
    doubts(cadence, now, [60.0] * 30)
    assert cadence.allowed_s > 60.0


def test_what_nobody_confirmed_does_not_become_normal() -> None:
    cadence, now = learned([1.0] * 600, floor_s=1.0)
    for _ in range(20):
        now += 20.0
        cadence.arrived(now)
    assert cadence.allowed_s < 4.0


@pytest.mark.parametrize("period", [0.15, 0.2, 0.4])
def test_a_trickle_that_is_never_silent_for_long_is_noticed(period: float) -> None:
    """Ten times slower, and still faster than the floor: within three windows."""
    cadence, now = learned([period] * 2_000, floor_s=5.0)
    started = now
    while not cadence.arrived(now := now + 10 * period):
        assert now < cadence.suspect_at
        assert now - started < 3 * max(10 * period, 5.0)


def test_one_that_keeps_half_of_its_rate_is_no_trickle() -> None:
    cadence, now = learned([0.2] * 2_000, floor_s=5.0)
    for _ in range(100):
        now += 0.4
        assert not cadence.arrived(now)


def test_when_it_cannot_be_asked_it_is_doubted_again_later_and_nothing_is_learned() -> None:
    cadence, now = learned([1.0] * 100, floor_s=1.0)
    cadence.unproven(now + 2)
    assert cadence.suspect_at == now + 4
    cadence.arrived(now + 3)
    assert cadence.gap_s < 1.1


def test_what_a_stream_owes_is_on_its_way_for_as_long_as_it_pushes_apart() -> None:
    assert learned([30.0] * 20)[0].grace_s == 30.0
    assert learned([0.5] * 200)[0].grace_s == 1.0
    chance = random.Random(2)
    gaps = [2.0 * chance.randint(1, 10) for _ in range(200)]
    assert learned(gaps)[0].grace_s < 5.0
