"""Looks at the clocks from time to time and says what is wrong with them."""

from collections.abc import Callable, Mapping
from typing import Never

import structlog
import trio

from .core.clock_monitor import ClockMonitor
from .environment import Environment, mono
from .metrics import Metrics

LOOK_S = 5.0

_log = structlog.get_logger()


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
