"""ChainTimes: which second a block has, and which it cannot have."""

import pytest

from trio_feed.core.chain_times import ChainTimes

T = 1_790_000_000_000
SLOT = 400_000_000


def times(*known: tuple[int, int]) -> ChainTimes:
    """Slots and seconds, both from the beginning."""
    found = ChainTimes()
    for slot, seconds in known:
        found.note(SLOT + slot, T + seconds * 1000)
    return found


def seconds(time_ms: int) -> int | None:
    return (time_ms - T) // 1000 if time_ms else None


def test_a_slot_has_the_time_that_was_named_and_one_between_two_of_a_second_has_that() -> None:
    found = times((0, 10), (4, 12), (2, 10))
    assert [seconds(found.of(SLOT + n)) for n in (-1, 0, 1, 2, 3, 4, 5)] == [
        None, 10, 10, 10, None, 12, None
    ]  # fmt: skip


def test_bounds_of_what_is_not_known() -> None:
    found = times((0, 10), (4, 12))
    assert [seconds(found.at_least(SLOT + n)) for n in (-1, 0, 3, 4, 9)] == [None, 10, 10, 12, 12]
    assert [seconds(found.at_most(SLOT + n)) for n in (-1, 0, 3, 4, 9)] == [10, 10, 12, 12, None]
    assert found.newest_slot(SLOT + 3) == SLOT
    assert found.newest_slot(SLOT - 1) == 0


@pytest.mark.parametrize("slot_ms", [200, 400, 600])
def test_an_estimate_goes_on_at_the_speed_of_the_chain(slot_ms: int) -> None:
    found = ChainTimes()
    for slot in range(0, 400, 7):
        found.note(SLOT + slot, (T + slot * slot_ms) // 1000 * 1000)
    for slot in (250, 403, 450):
        about = found.estimate(SLOT + slot)
        assert about % 1000 == 0
        assert abs(about - (T + slot * slot_ms)) <= 1000
    assert ChainTimes().estimate(SLOT) == 0
    assert seconds(times((0, 10)).estimate(SLOT - 5)) == 10
    assert seconds(times((0, 10), (2, 10)).estimate(SLOT + 1)) == 10


@pytest.mark.parametrize("odd", [(6, 3), (6, 900_000), (2, 15), (0, 11)])
def test_one_answer_that_contradicts_the_others_is_not_believed(odd: tuple[int, int]) -> None:
    found = times((0, 10), (4, 12), odd, (5, 12))
    assert [seconds(found.of(SLOT + n)) for n in (0, 4, 5, 6)] == [10, 12, 12, None]
    assert seconds(found.estimate(SLOT + 5)) == 12


def test_three_that_agree_are_believed_against_all_others() -> None:
    """The first answer was wrong, or the chain stood still for a day."""
    found = times((0, 90_000), (4, 12), (5, 12))
    assert found.of(SLOT + 4) == 0
    found.note(SLOT + 5, T + 12_000)  # the same once more is no third
    assert found.of(SLOT + 4) == 0
    found.note(SLOT + 9, T + 14_000)
    assert [seconds(found.of(SLOT + n)) for n in (0, 4, 5, 9)] == [None, 12, 12, 14]


def test_three_that_contradict_each_other_are_not() -> None:
    found = times((0, 10), (4, 90_000), (5, 3), (6, 500_000))
    assert seconds(found.of(SLOT)) == 10
    assert len(found) == 1


def test_what_is_said_twice_and_what_is_not_said_are_nothing() -> None:
    found = times((0, 10), (0, 10), (0, 10))
    found.note(SLOT + 1, 0)
    assert len(found) == 1


def test_it_forgets_the_oldest() -> None:
    found = ChainTimes()
    for slot in range(9_000):
        found.note(SLOT + slot, T + slot * 400 // 1000 * 1000)
    assert len(found) <= 8_000
    assert found.of(SLOT) == 0
    assert found.of(SLOT + 8_999)
