"""How a stream key's upstream stands, as clients see it: a state machine, pure.

Its events are facts: the stream was lost (or proven dead), it flows again, what was missed is
published up to some time, a hole was found that nobody can fill.  Its answers are the changes to
tell, each once and in order:

    (start) ── flows ──▶ live ── lost ──▶ stale ── flows ──▶ live            nothing was missed
                          ▲                 ▲  └── flows ──▶ repairing       something was
                          │                 └──── lost ─────────┤
                          └── repaired, unrepairable ◀── done ──┘

What is lost before the first flow is not told, and what was missed before it is no repair: it is
history, fetched at a start.  A hole that is found while it is repairing is published at the end, as
the result, also where that is another loss; any other at once, for what is behind it is published
now: who feeds it may be gone before it flows again, and then nobody would say so.
"""

from attrs import define, frozen

from ..model import StreamState

Span = tuple[int, int]
"""First and last open time of candles; of a line, unix ms."""
_NOBODY_HAS_IT = "the exchange does not have it"


@frozen
class Change:
    """Something to tell."""

    state: StreamState
    reason: str = ""
    span: Span | None = None


@define
class Health:
    """Of one stream key.  ``state`` is None until something came for the first time.  ``goes_on``:
    there may be subscribers of before, from another run or another node."""

    state: StreamState | None = None
    goes_on: bool = False
    missing: Span | None = None
    """What is being repaired."""
    _hole: Span | None = None
    _reason: str = ""
    """Why it is stale."""

    def lost(self, reason: str) -> list[Change]:
        """Its stream does not deliver any more."""
        if self.state is None or self.state is StreamState.STALE:
            return []
        self.missing, self._reason = None, reason
        told = [] if self._hole is None else self._finish(Change(StreamState.STALE, reason))
        return [*told, *self._turn(Change(StreamState.STALE, reason))]

    def flows(self, missing: Span | None) -> list[Change]:
        """Its stream delivers (again), or is about to and something is ``missing``, which has to be
        fetched first."""
        if self.state is None:  # who subscribed before it waits for the word
            return self._turn(Change(StreamState.LIVE))
        if self.state is not StreamState.STALE:
            return []
        if missing is not None:
            self.missing = missing
            return self._turn(Change(StreamState.REPAIRING, "", missing))
        return self._finish(Change(StreamState.LIVE))

    def reached(self, time_ms: int) -> list[Change]:
        """Everything up to and including ``time_ms`` is published, or never will be."""
        if self.state is not StreamState.REPAIRING or self.missing is None:
            return []
        if time_ms < self.missing[1]:
            return []
        missing, self.missing = self.missing, None
        return self._finish(Change(StreamState.REPAIRED, "", missing))

    def hole(self, span: Span) -> list[Change]:
        """This is missing and nobody has it."""
        told = Change(StreamState.UNREPAIRABLE, _NOBODY_HAS_IT, span)
        match self.state:
            case None:
                return [told] if self.goes_on else []
            case StreamState.STALE:
                return [told, Change(StreamState.STALE, self._reason)]
            case StreamState.REPAIRING:
                known = self._hole or span
                self._hole = min(known[0], span[0]), max(known[1], span[1])
                return []
            case _:
                return self._turn(told)

    def _finish(self, change: Change) -> list[Change]:
        """The end of a repair, or what it left missing."""
        if self._hole is None:
            return self._turn(change)
        hole, self._hole = self._hole, None
        return self._turn(Change(StreamState.UNREPAIRABLE, _NOBODY_HAS_IT, hole))

    def _turn(self, change: Change) -> list[Change]:
        self.state = change.state
        return [change]
