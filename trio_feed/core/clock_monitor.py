"""Is this machine's calendar right, and does it jump?  Pure: the clocks' readings are arguments.

Candles do not depend on it: what is decided is decided by the exchanges' time and the monotonic
clock.  But ``received_at``, the expiry of tokens and the log are stamped by this calendar, and an
operator wants to know.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import define, field, frozen

from ..instants import Mono, Wall

STEP_S = 0.5
"""The calendar and the monotonic clock part by more between two looks: one of them was moved.
NTP's own slewing is 0.5 ms a second."""
PAUSE_S = 5.0
"""A look that comes so much too late: the process stood still."""
WRONG_S = 2.0
RIGHT_S = 1.5
LONG_S = 10.0
"""A difference of the calendars is said when it has lasted for so long."""


@frozen
class ClockStepped:
    """``size_s`` is positive.  "forward" and "back": so far the calendar moved against the
    monotonic clock (a machine that slept while its monotonic clock stood still: forward).
    "pause": both went on together while this process stood still."""

    size_s: float
    direction: Literal["forward", "back", "pause"]

    @property
    def event(self) -> str:
        return "clock.stepped"

    @property
    def fields(self) -> Mapping[str, object]:
        return {"size_s": round(self.size_s, 3), "direction": self.direction}


@frozen
class ClockJudged:
    """Our calendar is ``ahead_s`` ahead of a venue's, or it agrees again (``wrong`` False)."""

    venue: str
    ahead_s: float
    wrong: bool

    @property
    def event(self) -> str:
        return "clock.wrong" if self.wrong else "clock.right"

    @property
    def fields(self) -> Mapping[str, object]:
        return {"venue": self.venue, "ahead_s": round(self.ahead_s, 3)}


@define
class _Judgement:
    told_s: float | None = None
    since: Mono | None = None  # what would be said next has been so since then


@define
class ClockMonitor:
    """``look_s``: how often the caller looks."""

    look_s: float
    _last: tuple[Wall, Mono] | None = field(init=False, default=None)
    _venues: dict[str, _Judgement] = field(init=False, factory=dict)

    def stepped(self, wall: Wall, mono: Mono) -> list[ClockStepped]:
        """What has happened to the clocks since the last look."""
        last, self._last = self._last, (wall, mono)
        if last is None:
            return []
        passed_s = mono - last[1]
        parted_s = (wall - last[0]) / 1000 - passed_s
        found = []
        if passed_s - self.look_s > PAUSE_S:
            found.append(ClockStepped(passed_s - self.look_s, "pause"))
        if abs(parted_s) > STEP_S:
            found.append(ClockStepped(abs(parted_s), "forward" if parted_s > 0 else "back"))
        return found

    def judge(self, errors_ms: Mapping[str, float | None], mono: Mono) -> list[ClockJudged]:
        """By how many ms the calendar is ahead of each venue's (None: not known) -> what has
        changed, once per change.  A venue that is not named is forgotten."""
        for gone in [venue for venue in self._venues if venue not in errors_ms]:
            del self._venues[gone]
        known = ((venue, ms / 1000) for venue, ms in errors_ms.items() if ms is not None)
        return [news for venue, ahead_s in known for news in self._judge(venue, ahead_s, mono)]

    def _judge(self, venue: str, ahead_s: float, mono: Mono) -> Iterable[ClockJudged]:
        state = self._venues.setdefault(venue, _Judgement())
        if not _is_news(state.told_s, ahead_s):
            state.since = None
            return
        if state.since is None:
            state.since = mono
        if mono - state.since < LONG_S:
            return
        wrong = abs(ahead_s) > WRONG_S
        state.told_s, state.since = ahead_s if wrong else None, None
        yield ClockJudged(venue, ahead_s, wrong)

    @property
    def worst_s(self) -> float:
        """The largest difference that was said and holds."""
        told = (abs(state.told_s) for state in self._venues.values() if state.told_s is not None)
        return max(told, default=0.0)

    def explain(self) -> str:
        """For an operator, one line; empty: nothing is wrong."""
        return "; ".join(
            f"our clock is {abs(s.told_s):.1f} s {'ahead of' if s.told_s > 0 else 'behind'} {venue}"
            for venue, s in self._venues.items()
            if s.told_s is not None
        )


def _is_news(told_s: float | None, ahead_s: float) -> bool:
    """Between right and wrong nothing changes, and a larger error has to change by more."""
    if told_s is None:
        return abs(ahead_s) > WRONG_S
    if abs(ahead_s) <= RIGHT_S:
        return True
    return abs(ahead_s) > WRONG_S and abs(ahead_s - told_s) > max(WRONG_S, abs(told_s) / 4)
