"""The estimate of an exchange's clock: what moves it, and what may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.core.clock import AGREEING, FALL_AFTER_S, TOLERANCE_MS, ExchangeClock
from trio_feed.instants import Mono, Wall

T = 1_700_000_000_000
HOUR_MS = 3_600_000
START = Mono(1000.0)


def clock_with(error_ms: float = 0.0) -> ExchangeClock:
    """Our calendar is ``error_ms`` ahead; the exchange's is at T when mono is at START."""
    return ExchangeClock(START, Wall(T + error_ms))


def frame(clock: ExchangeClock, second: float, *, delay_ms: float = 0, lie_ms: float = 0) -> bool:
    """A message that arrives at ``second``, ``delay_ms`` after the exchange made it."""
    return clock.note(int(T + second * 1000 - delay_ms + lie_ms), START + second)


def off(clock: ExchangeClock, second: float) -> float:
    """By how much the estimate is ahead of the truth, ms."""
    return float(clock.at(START + second)) - (T + second * 1000)


def settled(delay_ms: float = 0) -> ExchangeClock:
    clock = clock_with()
    for second in range(5):
        frame(clock, second, delay_ms=delay_ms)
    return clock


def test_before_any_evidence_it_is_our_calendar() -> None:
    clock = clock_with(error_ms=5 * HOUR_MS)
    assert (off(clock, 7), clock.known) == (5 * HOUR_MS, False)
    assert clock.error_of(Wall(T + 1.0), START) is None


def test_the_fastest_message_decides() -> None:
    clock = clock_with(error_ms=1500)
    for second, delay_ms in enumerate((80, 30, 500, 31)):
        frame(clock, second, delay_ms=delay_ms)
    assert (off(clock, 10), clock.known) == (-30, True)
    assert clock.error_of(Wall(T + 5_000.0), START) == 5_030


@pytest.mark.parametrize("error_ms", [-9 * HOUR_MS, -10_000, 10_000, 9 * HOUR_MS])
def test_a_calendar_that_is_wrong_at_the_start_is_replaced_by_three_messages(
    error_ms: int,
) -> None:
    clock = clock_with(error_ms=error_ms)
    assert [frame(clock, n, delay_ms=20) for n in range(4)] == [False, False, True, False]
    assert off(clock, 9) == -20


def test_a_fast_message_is_outlived_by_a_minute_or_two() -> None:
    """The two clocks drift apart: the estimate follows in both directions."""
    clock = settled(delay_ms=10)
    for second in range(5, 200):
        frame(clock, second, delay_ms=300)
    assert off(clock, 200) == -300


@pytest.mark.parametrize("lie_ms", [-T, -5 * HOUR_MS, -3000, 3000, 5 * HOUR_MS, 10**15])
def test_one_absurd_frame_changes_nothing(lie_ms: int) -> None:
    clock = settled()
    for second in range(5, 400, 2):  # one after each true one, and never two in a row
        assert not frame(clock, second, lie_ms=lie_ms)
        assert not frame(clock, second + 1)
        assert off(clock, second) == 0


@given(lie_ms=st.integers(-(2**70), 2**70), silence_s=st.floats(0, 1e6), known=st.booleans())
def test_one_frame_moves_the_estimate_by_the_tolerance_at_most(
    lie_ms: int, silence_s: float, known: bool
) -> None:
    clock = settled() if known else clock_with()
    clock.note(T + lie_ms, START + 5 + silence_s)
    assert abs(off(clock, 5 + silence_s)) <= TOLERANCE_MS + 1


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 3_600_000)), max_size=200))
def test_delays_of_any_kind_never_put_it_ahead(way: list[tuple[float, float]]) -> None:
    clock, second = settled(), 5.0
    for pause_s, delay_ms in way:
        second += pause_s
        frame(clock, second, delay_ms=delay_ms)
        assert off(clock, second) <= 0.001


@given(
    error_ms=st.floats(-1e12, 1e12),
    delays=st.lists(st.floats(0, 1900), min_size=AGREEING, max_size=50),
)
def test_after_three_messages_it_is_late_by_the_smallest_delay(
    error_ms: float, delays: list[float]
) -> None:
    clock = clock_with(error_ms)
    for number, delay_ms in enumerate([0.0, *delays] if abs(error_ms) <= 2000 else delays):
        frame(clock, number, delay_ms=delay_ms)
    assert clock.known
    assert off(clock, 60) <= 1
    assert off(clock, 60) >= -1900 - 1


@given(
    st.lists(
        st.tuples(st.integers(-(2**64), 2**64), st.floats(0, 1000), st.booleans()), max_size=60
    )
)
def test_any_liar_is_forgotten(lies: list[tuple[int, float, bool]]) -> None:
    """Whatever was said: after the window and some true messages the estimate is right."""
    clock, second = settled(), 5.0
    for lie_ms, pause_s, is_date in lies:
        second += pause_s
        if is_date:
            clock.note_date(float(T + lie_ms), START + second, START + second + 0.1)
        else:
            clock.note(T + lie_ms, START + second)
    for _ in range(int(FALL_AFTER_S) + 130):
        second += 1.0
        frame(clock, second)
    assert abs(off(clock, second)) <= 1


def test_a_suspended_machine_is_followed_after_three_messages() -> None:
    clock = settled()
    slept_ms = 1_800_000  # and the monotonic clock stood still
    steps = [frame(clock, 5 + n, lie_ms=slept_ms) for n in range(4)]
    assert (steps, off(clock, 9)) == ([False, False, True, False], slept_ms)


def test_odd_messages_of_one_moment_are_not_followed() -> None:
    """Three connections can bring them together: a row of messages has to last."""
    clock = settled()
    for n in range(100):
        assert not frame(clock, 5 + n / 60, lie_ms=2 * HOUR_MS)
    assert off(clock, 7) == 0
    frame(clock, 6.9)
    assert not frame(clock, 7.1, lie_ms=2 * HOUR_MS)  # the row was broken
    assert not frame(clock, 8.1, lie_ms=5 * HOUR_MS)
    assert not any(frame(clock, 8.2 + n, lie_ms=2 * HOUR_MS) for n in range(2))  # and again
    assert frame(clock, 10.3, lie_ms=2 * HOUR_MS)


def test_of_the_three_the_fastest_counts() -> None:
    clock = settled()
    for n, delay_ms in enumerate((300, 10, 500)):
        frame(clock, 5 + n, delay_ms=delay_ms, lie_ms=HOUR_MS)
    assert off(clock, 9) == HOUR_MS - 10


def test_after_a_doubt_it_is_a_guess_until_the_next_message() -> None:
    clock = settled()
    clock.invalidate()
    assert (clock.known, clock.evidence(START + 5), off(clock, 5)) == (False, None, 0)
    frame(clock, 6, delay_ms=20)
    assert (clock.known, off(clock, 6)) == (True, -20)
    clock.invalidate()
    for n in range(3):  # and late ones are believed at once, as at the start
        frame(clock, 7 + n, delay_ms=9000)
    assert off(clock, 10) == -9000


def test_a_stall_of_the_way_does_not_set_the_estimate_back() -> None:
    clock = clock_with()
    for second in range(300):
        frame(clock, second)
    for tenth in range(3000, 4000):
        assert not frame(clock, tenth / 10, delay_ms=4000)
    assert off(clock, 400) == 0


def test_an_exchange_that_set_its_clock_back_is_followed_in_the_end() -> None:
    clock = clock_with()
    for second in range(200):
        frame(clock, second)
    steps = [frame(clock, second, lie_ms=-60_000) for second in range(200, 400)]
    assert (steps.count(True), off(clock, 400)) == (1, -60_000)


def date(clock: ExchangeClock, second: float, *, way_s: float = 0.2, lie_ms: float = 0) -> bool:
    """The exchange answers at ``second``, a request takes ``way_s`` there and as long back."""
    whole = (T + int(second * 1000 + lie_ms)) // 1000 * 1000
    return clock.note_date(float(whole), START + second - way_s, START + second + way_s)


@pytest.mark.parametrize("error_ms", [-9 * HOUR_MS, -10_000, 10_000, 9 * HOUR_MS])
def test_dates_alone_do_as_well(error_ms: int) -> None:
    clock = clock_with(error_ms=error_ms)
    assert [date(clock, 5.3 * n) for n in range(1, 5)] == [False, False, True, False]
    assert abs(off(clock, 30)) <= 1200


def test_one_date_alone_moves_nothing_far() -> None:
    clock = settled()
    for second in range(5, 60, 2):
        assert not date(clock, second, lie_ms=-HOUR_MS)
        assert not date(clock, second + 1)
    assert off(clock, 60) == 0


def test_a_date_is_up_to_a_second_behind() -> None:
    clock = clock_with(error_ms=2050)
    date(clock, 5.9, way_s=0)  # it says 5, and the estimate 7.95
    assert clock.known
    assert off(clock, 6) == pytest.approx(100)


def test_dates_that_disagree_move_nothing() -> None:
    clock = settled()
    for n in range(30):
        assert not date(clock, 5 + n, lie_ms=(n % 3 - 4) * HOUR_MS)
    assert off(clock, 40) == 0


def test_a_slow_answer_bounds_but_does_not_contradict() -> None:
    clock = settled()
    for n in range(1, 10):
        assert not date(clock, 30.0 * n, way_s=20)
    assert off(clock, 300) == 0


def test_dates_end_what_three_lying_frames_began() -> None:
    clock = settled()
    for n in range(3):
        frame(clock, 5 + n, lie_ms=HOUR_MS)
    assert off(clock, 9) == HOUR_MS
    assert [date(clock, 10 + n) for n in range(3)] == [False, False, True]
    assert abs(off(clock, 13)) <= 1200


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0, 0.0])
def test_a_date_that_is_none_is_not_noted(value: float) -> None:
    clock = clock_with()
    for _ in range(9):
        assert not clock.note_date(value, START, START + 1)
    assert not clock.note_date(float(T), START + 1, START)
    assert not clock.known
