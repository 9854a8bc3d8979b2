"""How the upstream of one symbol's subjects stands, as clients are told.  Pure.

A subject follows its streams: a candle series one, what is rolled up from it the same, a ticker
two.  It is stale while one of them is.  What the states mean is in :mod:`.health`.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from ..model import StatusMessage, StreamState, Subject
from .health import Change, Health, Span
from .streams import Stream


@define(eq=False)
class _Standing:
    health: Health = field(factory=Health)
    lost: set[Stream] = field(factory=set)
    """Its streams that do not deliver."""


@define(eq=False)
class StreamStatus:
    """``subjects``: which subjects depend on which stream."""

    subjects: Mapping[Stream, Sequence[Subject]] = field(factory=dict)
    _standings: dict[Subject, _Standing] = field(factory=dict)

    def lost(self, stream: Stream, reason: str) -> list[StatusMessage]:
        """It does not deliver any more."""
        out: list[StatusMessage] = []
        for subject in self.subjects.get(stream, ()):
            standing = self._standing(subject)
            standing.lost.add(stream)
            out += _messages(subject, standing.health.lost(reason))
        return out

    def flows(self, stream: Stream, missing: Mapping[Subject, Span | None]) -> list[StatusMessage]:
        """It delivered for the first time (again); ``missing``: what is fetched now."""
        out: list[StatusMessage] = []
        for subject in self.subjects.get(stream, ()):
            standing = self._standing(subject)
            standing.lost.discard(stream)
            if not standing.lost:
                out += _messages(subject, standing.health.flows(missing.get(subject)))
        return out

    def up(self, stream: Stream, missing: Mapping[Subject, Span | None]) -> list[StatusMessage]:
        """Its connection is there again: what is missing is being fetched."""
        out: list[StatusMessage] = []
        for subject in self.subjects.get(stream, ()):
            health = self._standing(subject).health
            span = missing.get(subject)
            if span is not None and health.state is not None:
                out += _messages(subject, health.flows(span))
        return out

    def broke_off(self, subjects: Iterable[Subject], reason: str) -> list[StatusMessage]:
        """Nothing delivers them any more, whatever their streams do."""
        out: list[StatusMessage] = []
        for subject in subjects:
            out += _messages(subject, self._standing(subject).health.lost(reason))
        return out

    def interrupted(self, subjects: Iterable[Subject]) -> None:
        """Their subscribers know them to be stale already."""
        for subject in subjects:
            self._standing(subject).health.state = StreamState.STALE

    def begun(self, stream: Stream) -> list[StatusMessage]:
        """It is subscribed, and that is all that can be said of it before something happens."""
        out: list[StatusMessage] = []
        for subject in self.subjects.get(stream, ()):
            new = self._standing(subject).health.state is None
            out += self.flows(stream, {})
            if new:
                out.append(StatusMessage(subject, StreamState.LIVE))
        return out

    def missing(self, subject: Subject) -> Span | None:
        """What of the subject is being repaired."""
        standing = self._standings.get(subject)
        return None if standing is None else standing.health.missing

    def reached(self, subject: Subject, time_ms: int) -> list[StatusMessage]:
        """Everything up to ``time_ms`` came, or is given up."""
        standing = self._standings.get(subject)
        return [] if standing is None else _messages(subject, standing.health.reached(time_ms))

    def repaired(self, subject: Subject) -> list[StatusMessage]:
        """Nothing is missing any more: it came, or is given up."""
        missing = self.missing(subject)
        return [] if missing is None else self.reached(subject, missing[1])

    def hole(self, subject: Subject, span: Span) -> list[StatusMessage]:
        """This is missing and nobody has it."""
        standing = self._standings.get(subject)
        return [] if standing is None else _messages(subject, standing.health.hole(span))

    def _standing(self, subject: Subject) -> _Standing:
        standing = self._standings.get(subject)
        if standing is None:
            standing = self._standings[subject] = _Standing()
        return standing


def _messages(subject: Subject, changes: Iterable[Change]) -> list[StatusMessage]:
    out = []
    for change in changes:
        first, last = change.span or (None, None)
        out.append(StatusMessage(subject, change.state, change.reason, first, last))
    return out
