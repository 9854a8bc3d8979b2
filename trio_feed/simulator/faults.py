"""Levers that make an exchange in a box misbehave at its door.  Pure; scripts and tests pull them.

What happens to connections that are already open (cut, close, mute) is pulled on the connection.
"""

from collections import deque
from itertools import repeat

from attrs import define, field

_MOST = 100_000


@define
class Faults:
    """Answers that are owed instead of the right ones: each is given once, in order."""

    _upgrades: deque[int] = field(factory=deque)
    _rest: deque[int] = field(factory=deque)

    def refuse_upgrades(self, status: int, count: int = 1) -> None:
        """The next ``count`` WebSocket upgrades get this HTTP status (e.g. 403, 429, 503)."""
        self._upgrades.extend(repeat(_checked(status), min(count, _MOST)))

    def rest_status(self, status: int, count: int = 1) -> None:
        """The next ``count`` REST requests get this status (e.g. 418, 429, 451, 503)."""
        self._rest.extend(repeat(_checked(status), min(count, _MOST)))

    def clear(self) -> None:
        """Nothing is owed any more."""
        self._upgrades.clear()
        self._rest.clear()

    def next_upgrade(self) -> int | None:
        """The status that this upgrade gets, None: let it in."""
        return self._upgrades.popleft() if self._upgrades else None

    def next_rest(self) -> int | None:
        """The status that this request gets, None: answer it."""
        return self._rest.popleft() if self._rest else None


def _checked(status: int) -> int:
    if not 300 <= status <= 599:
        raise ValueError(f"{status} is not an HTTP error status")
    return status
