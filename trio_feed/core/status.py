"""How the upstream of one symbol's stream keys stands, as clients see it.  Pure.

A stream key follows its streams: a candle series one, what is rolled up from it the same, a ticker
two.  It is stale while one of them is.  What the states mean is in :mod:`.health`.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, field

from ..model import StatusMessage, StreamKey, StreamState
from .health import Change, Health, Span
from .streams import Stream


@define(eq=False)
class _Status:
    health: Health = field(factory=Health)
    lost: set[Stream] = field(factory=set)
    """Its streams that do not deliver."""


@define(eq=False)
class StreamStatus:
    """``stream_keys``: which stream keys depend on which stream."""

    stream_keys: Mapping[Stream, Sequence[StreamKey]] = field(factory=dict)
    _statuses: dict[StreamKey, _Status] = field(factory=dict)

    def lost(self, stream: Stream, reason: str) -> list[StatusMessage]:
        """It does not deliver any more."""
        out: list[StatusMessage] = []
        for stream_key in self.stream_keys.get(stream, ()):
            status = self._status_of(stream_key)
            status.lost.add(stream)
            out += _messages(stream_key, status.health.lost(reason))
        return out

    def flows(
        self, stream: Stream, missing: Mapping[StreamKey, Span | None]
    ) -> list[StatusMessage]:
        """It delivered for the first time (again); ``missing``: what is fetched now."""
        out: list[StatusMessage] = []
        for stream_key in self.stream_keys.get(stream, ()):
            status = self._status_of(stream_key)
            status.lost.discard(stream)
            if not status.lost:
                out += _messages(stream_key, status.health.flows(missing.get(stream_key)))
        return out

    def up(self, stream: Stream, missing: Mapping[StreamKey, Span | None]) -> list[StatusMessage]:
        """Its connection is there again: what is missing is being fetched."""
        out: list[StatusMessage] = []
        for stream_key in self.stream_keys.get(stream, ()):
            health = self._status_of(stream_key).health
            span = missing.get(stream_key)
            if span is not None and health.state is not None:
                out += _messages(stream_key, health.flows(span))
        return out

    def complete(self, stream: Stream) -> list[StatusMessage]:
        """Nothing that it said is missing; a stream key of which nothing came yet still waits."""
        out: list[StatusMessage] = []
        for stream_key in self.stream_keys.get(stream, ()):
            status = self._status_of(stream_key)
            status.lost.discard(stream)
            if not status.lost and status.health.state is not None:
                out += _messages(stream_key, status.health.flows(None))
        return out

    def broke_off(self, stream_keys: Iterable[StreamKey], reason: str) -> list[StatusMessage]:
        """Nothing delivers them any more, whatever their streams do."""
        out: list[StatusMessage] = []
        for stream_key in stream_keys:
            out += _messages(stream_key, self._status_of(stream_key).health.lost(reason))
        return out

    def interrupted(self, stream_keys: Iterable[StreamKey]) -> None:
        """Their subscribers know them to be stale already."""
        for stream_key in stream_keys:
            self._status_of(stream_key).health.state = StreamState.STALE

    def go_on(self, stream_keys: Iterable[StreamKey]) -> None:
        """There may be subscribers of before."""
        for stream_key in stream_keys:
            self._status_of(stream_key).health.goes_on = True

    def missing(self, stream_key: StreamKey) -> Span | None:
        """What of the stream key is being repaired."""
        status = self._statuses.get(stream_key)
        return None if status is None else status.health.missing

    def reached(self, stream_key: StreamKey, time_ms: int) -> list[StatusMessage]:
        """Everything up to ``time_ms`` came, or is given up."""
        status = self._statuses.get(stream_key)
        return [] if status is None else _messages(stream_key, status.health.reached(time_ms))

    def repaired(self, stream_key: StreamKey) -> list[StatusMessage]:
        """Nothing is missing any more: it came, or is given up."""
        missing = self.missing(stream_key)
        return [] if missing is None else self.reached(stream_key, missing[1])

    def hole(self, stream_key: StreamKey, span: Span) -> list[StatusMessage]:
        """This is missing and nobody has it."""
        status = self._statuses.get(stream_key)
        return [] if status is None else _messages(stream_key, status.health.hole(span))

    def _status_of(self, stream_key: StreamKey) -> _Status:
        status = self._statuses.get(stream_key)
        if status is None:
            status = self._statuses[stream_key] = _Status()
        return status


def _messages(stream_key: StreamKey, changes: Iterable[Change]) -> list[StatusMessage]:
    out = []
    for change in changes:
        first, last = change.span or (None, None)
        out.append(StatusMessage(stream_key, change.state, change.reason, first, last))
    return out
