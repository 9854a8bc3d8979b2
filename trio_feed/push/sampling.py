"""How often a line may be logged that strangers can provoke.  Pure: time is an argument."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

_LINES, _WINDOW_S = 3, 60.0


class Sampler:
    """At most ``most`` lines in a window of ``window_s``; those left out are counted."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most, self._window_s = most, window_s
        self._began = 0.0
        self._said = 0
        self._left_out = 0

    def admit(self, now: float) -> int | None:
        """How many were left out since the last line that was logged; None: leave this one out."""
        if now - self._began >= self._window_s or not self._said:
            self._began, self._said = now, 0
        if self._said >= self._most:
            self._left_out += 1
            return None
        self._said += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class SampledLines:
    """Lines of a few kinds that clients can provoke: of each at most ``most`` in ``window_s``."""

    def __init__(self, most: int = _LINES, window_s: float = _WINDOW_S) -> None:
        self._samplers: defaultdict[str, Sampler] = defaultdict(lambda: Sampler(most, window_s))

    def admit(self, kind: str, now: float) -> int | None:
        """See :meth:`Sampler.admit`.  Kinds are names of ours, never words of a client."""
        return self._samplers[kind].admit(now)

    def say(self, write: Callable[..., Any], event: str, now: float, **fields: Any) -> None:
        """``write`` the line, with how many were left out before it, unless there were enough."""
        left_out = self.admit(event, now)
        if left_out is not None:
            write(event, **fields, left_out=left_out)
