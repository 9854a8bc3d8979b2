"""Times of blocks by several nodes: what they contradict each other in is not known."""

import pytest

from trio_feed.core.chain_compared import ComparedTimes

T = 1_790_000_000_000


def times_of(*said: tuple[int, int, int]) -> ComparedTimes:
    """(endpoint, slot, seconds) of each answer, of two endpoints."""
    found = ComparedTimes(2)
    for endpoint, slot, seconds in said:
        found.note(slot, T + seconds * 1000, endpoint)
    return found


def test_what_one_node_says_and_none_contradicts_is_known() -> None:
    times = times_of((0, 100, 50), (1, 110, 54))
    assert (times.of(100), times.of(110), times.of(105)) == (T + 50_000, T + 54_000, 0)
    assert (times.disputed, len(times)) == (0, 1)
    assert times.newest_slot(200) == 110


@pytest.mark.parametrize("seconds", [10, 49, 51])
def test_two_times_of_one_block_are_none(seconds: int) -> None:
    times = times_of((0, 100, 50), (1, 100, seconds))
    assert (times.of(100), times.disputed) == (0, 100)


def test_a_node_that_lags_in_time_contradicts_its_neighbours() -> None:
    """One that is 40 s early for all blocks, and never names the same slots."""
    times = times_of((0, 100, 50), (1, 101, 10), (0, 102, 51))
    assert [times.of(slot) for slot in (100, 101, 102)] == [0, 0, 51_000 + T]
    assert times.disputed == 101
    assert not times.allows(101, T + 10_000)
    assert times.allows(103, T + 51_000)
    assert (times.at_least(102), times.at_most(100)) == (T + 10_000, T + 50_000)
    assert times.spread_ms(103) == pytest.approx(41_000, abs=1_000)


def test_a_single_node_is_believed_as_before() -> None:
    times = ComparedTimes()
    times.note(100, T + 1_000)
    assert (times.of(100), times.spread_ms(100), times.estimate(100)) == (T + 1_000, 0, T + 1_000)
    assert (ComparedTimes().of(5), ComparedTimes().spread_ms(5), len(ComparedTimes())) == (0, 0, 0)
