"""Why a venue's data is not fresh, in one line, with the cause as far as it is known."""

from collections.abc import Mapping

from .driver import Driver
from .pool import Pool


def why_not_ready(
    pool: Pool, driver: Driver, unavailable: Mapping[str, str], asked: str, oldest_ms: float
) -> str:
    """Empty when it is.  ``unavailable``: symbols that are not taken, with the reason; ``asked``:
    what became of the last REST call, empty where it succeeded; who has said nothing since
    ``oldest_ms`` (unix) is silent."""
    if not pool.slots:
        said = (f"{symbol}: {problem}" for symbol, problem in unavailable.items())
        return next(said, "no instruments yet" + f" ({asked})" * bool(asked))
    for slot in pool.slots:
        if not slot.live:
            problem = next((state.problem for state in slot.states if state.problem), "")
            return f"{slot.name} does not deliver" + f" ({problem})" * bool(problem)
        silent = (slot.last_message_ms or 0) < oldest_ms
        if silent and not driver.is_quiet(slot.plan.streams):
            return f"{slot.name} is silent"
    if behind := driver.behind():
        return f"{behind} series lack closed candles"
    return ""
