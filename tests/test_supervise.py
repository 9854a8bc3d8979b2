import random
from itertools import pairwise

import pytest
import trio

from trio_feed.errors import ConnectionLost, NetworkError
from trio_feed.instants import Mono
from trio_feed.supervise import Backoff, BugCount, place_of, root_cause, supervise


def test_backoff_grows_to_its_cap_with_jitter_and_starts_again() -> None:
    backoff, chance = Backoff(0.5, 30.0), random.Random(1)
    delays = [backoff.next_delay_s(chance) for _ in range(12)]
    for number, delay in enumerate(delays):
        ceiling = min(30.0, 0.5 * 2**number)
        assert ceiling / 2 <= delay <= ceiling
    backoff.succeeded()
    assert backoff.next_delay_s(chance) <= 0.5


def test_data_soon_after_the_start_does_not_make_waits_short() -> None:
    """A remote that hangs up right after its first message is dialled less and less often."""
    backoff, chance = Backoff(0.5, 30.0), random.Random(1)
    for _ in range(10):
        backoff.succeeded(9.9)
        backoff.next_delay_s(chance)
    assert backoff.next_delay_s(chance) >= 15
    backoff.succeeded(10.0)
    assert backoff.next_delay_s(chance) <= 0.5
    quick = Backoff(0.1, 1.0, failures=3)
    quick.succeeded(1.0)
    assert quick.failures == 0


async def test_a_network_error_is_tried_again_after_its_delay(
    autojump_clock: trio.abc.Clock,
) -> None:
    attempts: list[float] = []
    lost: list[tuple[NetworkError, float]] = []

    async def attempt() -> None:
        attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if len(attempts) == 4:
            raise ValueError("a bug")
        raise ConnectionLost("gone")

    with pytest.raises(ValueError, match="a bug"):
        await supervise(
            attempt,
            backoff=Backoff(1.0, 8.0),
            chance=random.Random(2),
            on_lost=lambda error, delay: lost.append((error, delay)),
        )
    gaps = [b - a for a, b in pairwise(attempts)]
    assert gaps == pytest.approx([delay for _, delay in lost])
    assert len(lost) == 3


async def test_an_attempt_that_returns_starts_again_at_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    count = 0

    async def attempt() -> None:
        nonlocal count
        count += 1
        if count > 5:
            await trio.sleep_forever()

    with trio.move_on_after(1):
        await supervise(
            attempt, backoff=Backoff(1, 1), chance=random.Random(), on_lost=lambda e, d: None
        )
    assert count == 6


def test_root_cause_finds_the_leaf() -> None:
    leaf = ValueError("x")
    assert root_cause(ExceptionGroup("a", [ExceptionGroup("b", [leaf])])) is leaf
    assert root_cause(leaf) is leaf


def raised(error: Exception) -> Exception:
    """An error that comes from here."""
    try:
        raise error
    except Exception as caught:  # noqa: BLE001
        return caught


def test_the_same_bug_counts_within_its_window_and_another_by_itself() -> None:
    bugs = BugCount(2, 600.0)
    bug, other = raised(ValueError("x")), raised(KeyError("x"))
    assert [bugs.too_often(bug, Mono(at)) for at in (0, 100)] == [False, False]
    assert not bugs.too_often(other, Mono(150))
    assert bugs.too_often(bug, Mono(599.9))
    assert not bugs.too_often(bug, Mono(1_200))
    assert BugCount(0, 600.0).too_often(bug, Mono(0))
    assert place_of(bug).startswith("ValueError at test_supervise.py:")
    assert place_of(ValueError()) == "ValueError"
