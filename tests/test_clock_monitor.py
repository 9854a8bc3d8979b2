"""What is said of this machine's clocks, and when."""

from hypothesis import given
from hypothesis import strategies as st

from trio_feed.core.clock_monitor import ClockJudged, ClockMonitor, ClockStepped
from trio_feed.instants import Mono, Wall

T = 1_700_000_000_000.0
LOOK_S = 5.0


def looks(*readings: tuple[float, float]) -> list[ClockStepped]:
    """(seconds of the calendar, seconds of the monotonic clock), look by look."""
    monitor = ClockMonitor(LOOK_S)
    return [
        s for wall, mono in readings for s in monitor.stepped(Wall(T + wall * 1000), Mono(mono))
    ]


def test_clocks_that_go_on_together_are_no_news() -> None:
    assert looks(*((5.0 * n + 0.0025 * n, 5.001 * n) for n in range(1000))) == []


def test_a_calendar_that_is_set_is_a_step_in_its_direction() -> None:
    assert looks((0, 0), (3605, 5), (3610, 10)) == [ClockStepped(3600, "forward")]
    assert looks((0, 0), (-55, 5), (-50, 10)) == [ClockStepped(60, "back")]


def test_a_machine_that_slept_while_its_monotonic_clock_stood_still() -> None:
    assert looks((0, 0), (1805, 5)) == [ClockStepped(1800, "forward")]


def test_a_process_that_stood_still_while_both_clocks_went_on() -> None:
    assert looks((0, 0), (1805, 1805)) == [ClockStepped(1800, "pause")]
    assert looks((0, 0), (9, 9)) == []  # a busy event loop


def test_a_pause_and_a_step_at_once() -> None:
    assert looks((0, 0), (40, 65)) == [ClockStepped(60, "pause"), ClockStepped(25, "back")]


def judgements(*errors_s: float | None) -> list[tuple[str, float]]:
    """The errors of one venue, look by look."""
    monitor, found = ClockMonitor(LOOK_S), list[ClockJudged]()
    for n, error in enumerate(errors_s):
        ms = None if error is None else error * 1000
        found += monitor.judge({"okx": ms}, Mono(n * LOOK_S))
    return [(each.event, each.ahead_s) for each in found]


def test_a_wrong_calendar_is_said_once_and_when_it_is_right_again() -> None:
    assert judgements(*[5.0] * 20, *[0.02] * 20) == [("clock.wrong", 5), ("clock.right", 0.02)]
    assert judgements(*[-5.0] * 20) == [("clock.wrong", -5)]


def test_what_does_not_last_is_not_said() -> None:
    assert judgements(*[9.0, 9.0, 0.0] * 20) == []
    assert judgements(*[1.9] * 20) == []
    assert judgements(*[None] * 20) == []


def test_an_error_round_the_bound_is_one_line() -> None:
    assert judgements(*[2.5] * 3, *[1.9, 2.1] * 30) == [("clock.wrong", 2.5)]


def test_another_size_is_another_line() -> None:
    assert judgements(*[5.0] * 9, *[60.0] * 9, *[63.0] * 9) == [
        ("clock.wrong", 5),
        ("clock.wrong", 60),
    ]


def test_it_explains_what_was_said_and_forgets_a_venue_that_went() -> None:
    monitor = ClockMonitor(LOOK_S)
    for n in range(4):
        monitor.judge({"okx": 5_000.0, "spinpet": -3_250.0}, Mono(n * LOOK_S))
    assert monitor.explain() == "our clock is 5.0 s ahead of okx; our clock is 3.2 s behind spinpet"
    assert monitor.worst_s == 5
    monitor.judge({"spinpet": -3_250.0}, Mono(20))
    assert (monitor.worst_s, "okx" in monitor.explain()) == (3.25, False)


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=50), st.floats(-1.5, 1.5))
def test_whatever_came_before_a_right_calendar_ends_in_silence(
    errors_s: list[float | None], right_s: float
) -> None:
    monitor = ClockMonitor(LOOK_S)
    said = list[bool]()
    for n, error in enumerate([*errors_s, *[right_s] * 4]):
        ms = None if error is None else error * 1000
        said += [each.wrong for each in monitor.judge({"okx": ms}, Mono(n * LOOK_S))]
    assert monitor.explain() == ""
    assert not said or not said[-1]
    assert len(said) <= len(errors_s) / 2 + 1
