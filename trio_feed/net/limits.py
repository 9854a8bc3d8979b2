"""How much may be asked of an exchange, and what its refusals mean.  Pure: time is an argument,
of the clock that nobody sets (:class:`~trio_feed.instants.Mono`).

All of it is counted per exit, which is what the exchange sees us behind: a proxy's address, or
"direct".

- Request weight: who goes over it is refused, who goes on is banned for minutes to days.
  :class:`WeightBudget` is a token bucket that holds ``per_minute`` and refills evenly.  A
  full bucket plus its refill can spend twice ``per_minute`` within one minute, so give it half of
  what the exchange allows; the exchange's own count, where it sends one, corrects it downwards and
  so covers other programs behind the same IP.  :class:`Bans` are of the host and not of an exit:
  a ban that one exit met holds behind every other.
- New connections (:class:`DialBudget`) and what one connection sends (:class:`FrameBudget`): both
  are sliding windows and not buckets, so that there are never more in any window, wherever it
  begins.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping

from ..instants import Mono

SHORTEST_BAN_S = 1.0
LONGEST_BAN_S = 3 * 86_400.0
"""The longest that any of the venues announces; a ban of centuries is somebody's mistake, and asked
again after this."""
LONGEST_PAUSE_S = 3600.0
"""For a 429: the exchanges' windows are a minute or less."""

_FIRST_BAN_S = 60.0
_LONGEST_DEFAULT_S = 3600.0
_PONGS = 1
_LONGER = 1.2  # some requests are longer on the way than the next ones
_SHORTEST_WAIT_S = 0.001  # sums of floats may miss the end of a wait by a little

_HINTS: Mapping[int, str] = {
    401: "credentials are missing or wrong",
    403: "it does not let us in: check the URL and the credentials",
    404: "no such path: check the configured URL",
    429: "too many requests from this IP: slow down",
    451: "not available here for legal reasons",
}


def status_hint(status: int, hints: Mapping[int, str] = {}) -> str:
    """What an HTTP ``status`` tells an operator to do; ``hints`` are those of the exchange that
    answered and come first."""
    if status in hints:
        return hints[status]
    if status in _HINTS:
        return _HINTS[status]
    if 300 <= status < 400:
        return "it redirects, which is not followed: check the configured URL"
    if status >= 500:
        return "it has trouble of its own: try again later"
    return "it does not accept the request"


class WeightBudget:
    """One exit IP's request weight at one host.

    ``burst_s`` seconds' worth of it may be spent at once, where a venue counts in short windows:
    then never more than that in any window of this length, the refill included.
    """

    def __init__(self, per_minute: int, burst_s: float = 60.0) -> None:
        self._burst_s = burst_s
        self._burst: Window | None = None
        self._updated: Mono | None = None
        self._set(per_minute)
        self._left = self._most

    def resize(self, per_minute: int, now: Mono) -> None:
        """From now on so much a minute.  What was spent stays spent: an emptied bucket is as empty
        as before, and a debt remains."""
        self._refill(now)
        spent = self._most - self._left
        self._set(per_minute)
        self._left = self._most - spent

    def _set(self, per_minute: int) -> None:
        self._per_minute = float(per_minute)
        self._most = max(1.0, per_minute * min(self._burst_s, 60.0) / 60)
        if self._burst_s < 60:
            taken = () if self._burst is None else self._burst.taken
            self._burst = Window(int(self._most), self._burst_s * _LONGER, taken)

    def __repr__(self) -> str:
        return f"<WeightBudget {self.text}>"

    @property
    def text(self) -> str:
        return f"{self._left:.0f} of {self._per_minute:.0f} left"

    def delay_s(self, weight: int, now: Mono) -> float:
        """0: go, ``weight`` is taken.  Else: seconds to wait before asking again, nothing taken."""
        self._refill(now)
        wanted = min(float(weight), self._most)  # heavier than a burst: a full bucket will do
        if self._burst is not None and (delay_s := self._burst.delay_s(now, weight)):
            return delay_s
        if wanted <= self._left + 1e-9:
            self._left -= weight
            if self._burst is not None:
                self._burst.take(now, weight)
            return 0.0
        return (wanted - self._left) * 60 / self._per_minute

    def spent(self, weight: int, now: Mono) -> None:
        """Taken by what does not wait for room; a debt is never more than a minute's refill."""
        self._refill(now)
        self._left = max(self._left - weight, -self._per_minute)
        if self._burst is not None:
            self._burst.take(now, weight)

    def observed(self, used_weight: int, now: Mono) -> None:
        """The exchange counts ``used_weight`` this minute; adopted where above our own count.

        However much it is, a minute later it counts anew: a debt is never more than a minute's
        refill.
        """
        self._refill(now)
        left = max(self._per_minute - used_weight, -self._per_minute)
        self._left = min(self._left, left)

    def _refill(self, now: Mono) -> None:
        if self._updated is not None:
            gain = (now - self._updated) * self._per_minute / 60
            self._left = min(self._most, self._left + gain)
        self._updated = now


class Bans:
    """When a host may be asked again.  Every ban has a floor and a ceiling, whatever is named."""

    def __init__(self) -> None:
        self._until = Mono(-math.inf)
        self._bans_in_a_row = 0

    def __repr__(self) -> str:
        return f"<Bans, {self._bans_in_a_row} of unknown length in a row>"

    @property
    def until(self) -> Mono:
        """Nothing may be sent before; in the past where there is no ban."""
        return self._until

    def left_s(self, now: Mono) -> float:
        """How long nothing may be sent; 0: it may be asked."""
        return max(0.0, self._until - now)

    def ban(self, now: Mono, length_s: float, *, longest_s: float = LONGEST_BAN_S) -> Mono:
        """Nothing may be sent for ``length_s``, a second at least and ``longest_s`` at most -> the
        end; an earlier end does not shorten a ban."""
        length_s = min(max(length_s, SHORTEST_BAN_S), longest_s)
        self._until = max(self._until, now + length_s)
        return self._until

    def ban_by_default(self, now: Mono, *, escalate: bool = True) -> Mono:
        """A ban of unknown length: 60 s, doubling with each in a row up to an hour -> its end.

        ``escalate`` False (429, not 418): always 60 s; the windows that exchanges count in are no
        longer than that, and a longer wait only makes candles late.
        """
        # Answers to requests that were on the way when the ban began mean the same ban.
        if not escalate or now < self._until:
            return self.ban(now, _FIRST_BAN_S)
        length_s = min(_FIRST_BAN_S * 2**self._bans_in_a_row, _LONGEST_DEFAULT_S)
        self._bans_in_a_row = min(self._bans_in_a_row + 1, 16)
        return self.ban(now, length_s)

    def accepted(self) -> None:
        """A request went through: the next ban of unknown length starts at 60 s again."""
        self._bans_in_a_row = 0


class Window:
    """At most ``most`` in any ``length_s`` seconds."""

    def __init__(self, most: int, length_s: float, taken: Iterable[Mono] = ()) -> None:
        if most < 1 or length_s <= 0:
            raise ValueError("a budget allows at least one in a window of some length")
        self.most, self.length_s = most, length_s
        self._taken: deque[Mono] = deque(taken, maxlen=most)

    @property
    def taken(self) -> Iterable[Mono]:
        """When, the last ``most`` of them."""
        return self._taken

    def __len__(self) -> int:
        """Of the last ones counted, outdated ones included."""
        return len(self._taken)

    def delay_s(self, now: Mono, count: int = 1) -> float:
        """Seconds until ``count`` more fit; 0: now.  Nothing is taken."""
        taken = self._taken
        in_the_way = len(taken) + min(count, self.most) - self.most
        if in_the_way <= 0:
            return 0.0
        left_s = taken[in_the_way - 1] + self.length_s - now
        return max(left_s, _SHORTEST_WAIT_S) if left_s > 0 else 0.0

    def take(self, now: Mono, count: int = 1) -> None:
        """Count what happens now, whether it fits or not."""
        self._taken.extend([now] * min(count, self.most))


class DialBudget:
    """New connections per exit: at most ``per_window`` in any ``window_s`` seconds."""

    def __init__(self, per_window: int, window_s: float) -> None:
        Window(per_window, window_s)
        self._per_window, self._window_s = per_window, window_s
        self._windows: dict[str, Window] = {}

    def __repr__(self) -> str:
        most = max(map(len, self._windows.values()), default=0)
        return f"<DialBudget {self._per_window} per {self._window_s:g} s, {most} counted>"

    def delay_s(self, now: Mono, exit_: str = "direct") -> float:
        """0: go, the dial is counted.  Else: seconds to wait before asking again, nothing taken."""
        window = self._windows.setdefault(exit_, Window(self._per_window, self._window_s))
        delay_s = window.delay_s(now)
        if not delay_s:
            window.take(now)
        return delay_s


class FrameBudget:
    """What one connection may send: frames of any kind, and among them subscriptions.

    ``frames`` and ``operations`` are (how many, in how many seconds).  One frame of each window is
    kept for the pong that the exchange may ask for at any moment: it has to be sent at once.
    """

    def __init__(
        self, frames: tuple[int, float], operations: tuple[int, float] | None = None
    ) -> None:
        self._frames = Window(*frames)
        self._operations = None if operations is None else Window(*operations)

    def __repr__(self) -> str:
        return f"<FrameBudget {self._frames.most} per {self._frames.length_s:g} s>"

    def delay_s(self, now: Mono, operations: int = 0) -> float:
        """Seconds until a frame with so many ``operations`` may be sent; nothing is taken."""
        delay_s = self._frames.delay_s(now, 1 + _PONGS)
        if self._operations is not None and operations:
            delay_s = max(delay_s, self._operations.delay_s(now, operations))
        return delay_s

    def sent(self, now: Mono) -> None:
        """A frame was sent, ours or the library's."""
        self._frames.take(now)

    def operated(self, now: Mono, operations: int) -> None:
        """So many subscriptions were asked for or given up."""
        if self._operations is not None:
            self._operations.take(now, operations)
