"""Faults of time: what comes late, who was not running, and clocks that are wrong."""

from collections.abc import Callable, Mapping

import trio
import trio.testing

from .context import FaultContext
from .schedule import Fault


def _stall(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.stall(fault.value)


def _late_feed(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.lag(fault.value, fault.lasts_s)


_UNHEARD_S = 0.1


def _process_pause(context: FaultContext, fault: Fault) -> None:
    """SIGSTOP: time went on, frames were sent, and now everything happens at once.

    Raises TypeError where the clock is not trio's MockClock.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        raise TypeError("a pause of the process needs a MockClock")
    context.exchange.run_ahead(context.exchange.now_ms() + fault.value * 1000)
    clock.jump(fault.value)

    async def forget() -> None:
        """Calls that were under way have timed out: what they were answered was never read."""
        await trio.sleep(_UNHEARD_S)
        context.fault_proxy.banned_ms = (0.0, 0.0)

    context.nursery.start_soon(forget)


def _suspend(context: FaultContext, fault: Fault) -> None:
    """A laptop asleep: its monotonic clock stood still, time went on, connections are dead.
    ``times`` 1: and silent."""
    connections = [*context.exchange.connections]
    for connection in connections:
        connection.mute()  # nothing of the time between comes out of them
        if fault.times and connection.peer.stream.silent_since is None:
            connection.peer.stream.silent_since = trio.current_time()
    context.clocks.suspended_ms += fault.value * 1000
    context.exchange.clock_changed()
    if not fault.times:
        context.cut_everything()


def _clock_step(context: FaultContext, fault: Fault) -> None:
    """One step, and back later, unless there was another meanwhile."""
    skew_ms = context.clocks.skew_ms = fault.value * 1000

    async def put_right() -> None:
        await trio.sleep(fault.lasts_s)
        if context.clocks.skew_ms == skew_ms:
            context.clocks.put_right()

    context.nursery.start_soon(put_right)


def _clock_drift(context: FaultContext, fault: Fault) -> None:
    """``value`` ms a second; then it is put right."""
    context.clocks.drift(fault.value)

    async def put_right() -> None:
        await trio.sleep(fault.lasts_s)
        context.clocks.put_right()

    context.nursery.start_soon(put_right)


def _rest_behind(context: FaultContext, fault: Fault) -> None:
    """REST answers as it was ``value`` seconds ago."""
    faults, behind_ms = context.exchange.faults, int(fault.value * 1000)
    faults.behind_ms = behind_ms

    async def catch_up() -> None:
        await trio.sleep(fault.lasts_s)
        if faults.behind_ms == behind_ms:
            faults.behind_ms = 0

    context.nursery.start_soon(catch_up)


TIMING_FAULTS: Mapping[str, Callable[[FaultContext, Fault], None]] = {
    "stall": _stall,
    "late_feed": _late_feed,
    "process_pause": _process_pause,
    "suspend": _suspend,
    "clock_skew": _clock_step,
    "clock_step": _clock_step,
    "clock_drift": _clock_drift,
    "wrong_clock_at_start": _clock_step,
    "rest_behind": _rest_behind,
}
