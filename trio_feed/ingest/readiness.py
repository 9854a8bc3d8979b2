"""Why a venue's data is not fresh, in one line, with the cause as far as it is known."""

from collections.abc import Mapping

from .driver import Driver
from .pool import Pool


def why_not_ready(
    pool: Pool,
    driver: Driver,
    unavailable: Mapping[str, str],
    asked: str,
    oldest_ms: float,
    *,
    idle: bool = False,
) -> str:
    """Empty when it is.  ``unavailable``: symbols that are not taken, with the reason; ``asked``:
    what became of the last REST call, empty where it succeeded; who has said nothing since
    ``oldest_ms`` (unix) is silent.  ``idle``: nothing need be fed.

    Symbols on demand do not count, or clients could make the service unready by what they ask for;
    only that none of them is fed at all does, where there are no others."""
    if not pool.slots and idle:
        return ""
    if not pool.slots:
        said = (f"{symbol}: {problem}" for symbol, problem in unavailable.items())
        return next(said, "no instruments yet" + f" ({asked})" * bool(asked))
    kept = [slot for slot in pool.slots if not slot.demanded]
    if not kept and not any(slot.live for slot in pool.slots):
        kept = [slot for slot in pool.slots if slot.since_ms < oldest_ms]
    for slot in kept:
        if not slot.live:
            problem = next((state.problem for state in slot.states if state.problem), "")
            return f"{slot.name} does not deliver" + f" ({problem})" * bool(problem)
        silent = (slot.last_message_ms or 0) < oldest_ms
        if silent and not driver.is_quiet(slot.plan.streams):
            return f"{slot.name} is silent"
    if behind := driver.behind(beside=driver.demanded):
        return f"{behind} series lack closed candles"
    return ""
