"""How often one stream speaks, learned from its arrivals; when its silence is suspicious.  Pure.

The expected gap is the mean of the gaps weighted by their own lengths, ``sum(g * g) / sum(g)``:
the length of the gap that a moment picked at random lies in.  A regular stream has its period
there, one without memory twice its mean gap, and a stream of bursts what lies between the bursts,
where a plain mean would know only the bursts.  It needs one number, and forgets in ten minutes or
so.

A **silence** is in doubt after ``factor / 2`` expected gaps; as much again is for asking the
exchange and for what is on its way (``grace_s``).  A **trickle**, a stream that speaks
often enough never to be silent for long but far below its rate, is seen by counting arrivals over
windows of some ten gaps.

What was in doubt teaches little: a gap counts at most as long as was allowed, so that a trickle
does not become the new normal. Only where the exchange was asked and had nothing
(``confirm_quiet``) the market has slowed down, and longer gaps are believed.

Times are seconds of any clock that only goes forward.
"""

from attrs import define

_BATCH_S = 0.1
"""What comes within this time came at once: exchanges send in batches."""
_ENOUGH = 8
"""Gaps that must be known before there is anything to expect."""
_MEMORY_S, _MEMORY = 600.0, 30.0
"""It forgets in this time, a slow stream in so many expected gaps."""
_BELIEVED = 10.0
"""A silence that the exchange confirmed counts as at most so many expected gaps."""
_WINDOW = 10.0
"""Length of a window, in expected gaps."""
_TRICKLE = 5.0
"""So many times fewer arrivals than expected in a window are a trickle."""
_MEAN_OVER = 128
_IN_FLIGHT_S = 1.0
_LONGEST_QUIET_S = 300.0
_NEVER = float("inf")


@define(slots=True)
class Cadence:
    """Of one stream.  ``suspect_at`` is when its silence will be suspicious, inf: never.

    ``factor`` and ``floor_s``: no silence is suspicious before ``factor / 2`` expected gaps, nor
    before ``floor_s``.  ``unknown_s`` is allowed while too little is known.
    """

    factor: float
    floor_s: float
    unknown_s: float
    most_s: float = _NEVER
    """A longer silence is always in doubt."""
    gap_s: float = 0.0
    """Expected, see above; 0 while nothing is known."""
    suspect_at: float = _NEVER
    last: float = 0.0
    """When it spoke last, or began."""
    _known: int = 0
    _seen_s: float = 0.0
    _mean_s: float = 0.0
    _least_s: float = _NEVER
    _confirmed: bool = False
    _window_end: float = _NEVER
    _window_expects: float = 0.0
    _window_count: int = 0

    @property
    def learned(self) -> bool:
        return self._known >= _ENOUGH

    @property
    def allowed_s(self) -> float:
        """A silence this long is no reason to doubt."""
        if not self.learned:
            return self.unknown_s
        return min(max(self.factor / 2 * self.gap_s, self.floor_s), self.most_s)

    @property
    def grace_s(self) -> float:
        """How long news may be on its way: exchanges push at most once per some period, which is
        about the shortest gap that was seen."""
        return max(_IN_FLIGHT_S, min(1.5 * self._least_s, self.gap_s))

    def begin(self, now: float) -> None:
        """It is expected to speak from now on (again): what was before is no gap."""
        self.last = now
        self.suspect_at = now + self.allowed_s
        self._confirmed = False
        self._open_window(now)

    def arrived(self, now: float) -> bool | None:
        """It spoke.  True: but far too rarely lately, which is suspicious now.  None: together with
        what came last, so that nothing has changed."""
        gap = now - self.last
        if gap < _BATCH_S:
            return None
        doubted = now > self.suspect_at or self._confirmed
        self._learn(gap)
        self.last = now
        self._confirmed = False
        allowed = self.allowed_s
        self.suspect_at = now + allowed
        self._window_count += 1
        if now < self._window_end:
            return False
        few = self._window_count * _TRICKLE < self._window_expects
        self._open_window(now)
        return few and not doubted and self.learned

    def confirm_quiet(self, now: float) -> None:
        """The exchange has nothing newer either: doubt again after as long a silence again."""
        self._confirmed = True
        self._put_off(now)

    def is_confirmed(self, now: float) -> bool:
        """Its silence was confirmed, and is not in doubt again."""
        return self._confirmed and now < self.suspect_at

    def unproven(self, now: float) -> None:
        """The exchange could not be asked: doubt again later, believe nothing."""
        self._put_off(now)

    def _put_off(self, now: float) -> None:
        wait_s = max(now - self.last, self.allowed_s)
        longest_s = min(max(_LONGEST_QUIET_S, self.allowed_s), 2 * self.most_s)
        self.suspect_at = now + min(wait_s, longest_s)
        self._open_window(now)

    def _learn(self, gap: float) -> None:
        known = self._known = self._known + 1
        self._least_s = min(gap, self._least_s * 1.01)
        if known > _ENOUGH:
            most = _BELIEVED * self.gap_s if self._confirmed else self.allowed_s
            gap = min(gap, max(most, self.floor_s))
        self.gap_s += (gap - self.gap_s) * gap / (self._seen_s + gap)
        self._seen_s = min(self._seen_s + gap, max(_MEMORY_S, _MEMORY * self.gap_s))
        self._mean_s += (gap - self._mean_s) / min(known, _MEAN_OVER)

    def _open_window(self, now: float) -> None:
        if not self.learned:
            self._window_end = now
            return
        length = max(_WINDOW * self.gap_s, self.floor_s)
        self._window_end = now + length
        self._window_expects = length / self._mean_s
        self._window_count = 0
