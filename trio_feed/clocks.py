"""Looks at the clocks from time to time and says what is wrong with them."""

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Never

import structlog
import trio

from .core.clock_monitor import ClockMonitor
from .environment import Environment, mono
from .metrics import Durations, Metrics

LOOK_S = 5.0
_TURN_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_log = structlog.get_logger()


class LoopLag(trio.abc.Instrument):
    """How long each turn of the event loop takes: all that is ready waits for its end.  ``now``
    is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._counts = [0] * (len(_TURN_BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._began = 0.0

    def after_io_wait(self, timeout: float) -> None:
        self._began = self._now()

    def before_io_wait(self, timeout: float) -> None:
        if not self._began:
            return  # it was made in the middle of a turn
        took_s = self._now() - self._began
        self._counts[bisect_left(_TURN_BOUNDS_S, took_s)] += 1
        self._sum_s += took_s

    def turns(self) -> Durations:
        """Since it was made."""
        return Durations(_TURN_BOUNDS_S, tuple(self._counts), self._sum_s)


@asynccontextmanager
async def measured_loop(metrics: Metrics) -> AsyncIterator[None]:
    """Measure the turns of the event loop that runs, in the block."""
    lag = LoopLag()
    metrics.follow_loop(lag.turns)
    trio.lowlevel.add_instrument(lag)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(lag)


def make_clock_monitor() -> ClockMonitor:
    """For :func:`run_clock_monitor`."""
    return ClockMonitor(LOOK_S)


async def run_clock_monitor(
    monitor: ClockMonitor,
    environment: Environment,
    errors_ms: Callable[[], Mapping[str, float | None]],
    moved: Callable[[], None],
    metrics: Metrics,
) -> Never:
    """Until cancelled.  ``errors_ms``: of each venue, by how much our calendar is ahead of its;
    ``moved`` is called where one of our clocks was moved, and then asked for what is known yet."""
    shown: set[str] = set()
    while True:
        now = mono()
        for step in monitor.stepped(environment.wall(), now):
            if step.direction != "pause":
                moved()
            metrics.clock_steps.labels(step.direction).inc()
            _log.warning(step.event, **step.fields)
        errors = errors_ms()
        for judged in monitor.judge(errors, now):
            say = _log.warning if judged.wrong else _log.info
            say(judged.event, **judged.fields)
        known = {venue: ms for venue, ms in errors.items() if ms is not None}
        for venue, ahead_ms in known.items():
            metrics.clock_offset.labels(venue).set(ahead_ms / 1000)
        for gone in shown - known.keys():
            metrics.clock_offset.remove(gone)
        shown = set(known)
        await trio.sleep(LOOK_S)
