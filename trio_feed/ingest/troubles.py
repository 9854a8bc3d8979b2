"""What a poller that fails again and again says in the log."""

from typing import Any

from ..environment import mono
from ..instants import Mono

_AGAIN_S = 600.0


class Troubles:
    """Failures of one poller: each kind is a warning when it is new, and every ten minutes while it
    lasts; those between are for the debug log.  What is in the way (a proxy, a ban) has lines of
    its own.  ``log`` is a structlog logger, ``event`` the name of the lines."""

    def __init__(self, log: Any, event: str) -> None:
        self._log, self._event = log, event
        self._said: dict[str, Mono] = {}

    def say(self, error: Exception, **fields: Any) -> None:
        now, reason = mono(), type(error).__name__
        said = self._said.get(reason)
        is_news = said is None or now - said >= _AGAIN_S
        if is_news:
            self._said[reason] = now
        write = self._log.warning if is_news else self._log.debug
        write(self._event, reason=reason, problem=str(error), **fields)

    def over(self) -> None:
        """It succeeded: the next failure is news."""
        self._said.clear()
