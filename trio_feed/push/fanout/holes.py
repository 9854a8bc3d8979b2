"""Closed candles that are missing between two of a series that come one after the other.  Pure.

Who feeds a series says so when it learns that nobody has them.  But it may be killed before it
does, it may have learned it while it was in hot standby, and a client may be away: so what clients
get is looked at once more where it is handed out.  An open time that lies off the grid by less
than a candle is no hole, for exchanges open candles late after a halt.
"""

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field

from ...core.calendar import grid_of
from ...model import Series, StatusMessage, StreamState
from .encoded import EncodedMessage

Span = tuple[int, int]
"""First and last open time, unix ms."""
REASON = "nobody has it"


def hole_between(series: Series, before_ms: int, open_ms: int) -> Span | None:
    """What is missing between the closed candles of these open times."""
    grid = grid_of(series.interval).at(before_ms)
    first = grid.next(before_ms)
    if grid.next(first) > open_ms:
        return None
    return first, grid.previous(grid.open_of(open_ms))


def hole_status(series: Series, hole: Span) -> StatusMessage:
    return StatusMessage(series, StreamState.UNREPAIRABLE, REASON, *hole)


def holes_in(
    series: Series, before_ms: int | None, messages: Iterable[EncodedMessage]
) -> Iterator[tuple[EncodedMessage, Span]]:
    """Those in what a client missed, each with the message behind it.  ``before_ms``: open time of
    the last closed candle that it has, None: not known."""
    for message in messages:
        if message.final and not message.ephemeral and message.open_ms is not None:
            if before_ms is not None:
                hole = hole_between(series, before_ms, message.open_ms)
                if hole is not None:
                    yield message, hole
            before_ms = max(message.open_ms, before_ms or 0)


def unheard(
    series: Series,
    closed_ms: int | None,
    recent: Iterable[int],
    missed: Sequence[EncodedMessage],
) -> dict[EncodedMessage, StatusMessage]:
    """What a client did not hear of holes while it was away, by the message behind each.
    ``closed_ms``: the last closed candle that it says it has; ``recent``: open times of those that
    are known here."""
    first_ms = next((each.open_ms for each in missed if each.final), None) or 0
    # By its number it has these, also where its time is older, or of no candle.
    had = [open_ms for open_ms in recent if open_ms < first_ms]
    if closed_ms is not None:
        had.append(closed_ms)
    found = holes_in(series, max(had, default=None), missed)
    return {message: hole_status(series, hole) for message, hole in found}


@define(eq=False)
class HandedOut:
    """Of one series, since somebody subscribed to it.  ``closed_ms``: open time of the last closed
    candle; None: there was none."""

    series: Series
    closed_ms: int | None = None
    _told: list[Span] = field(factory=list)

    def joined(self) -> None:
        """Somebody subscribes, who did not hear what was said before."""
        self._told = []

    def told(self, status: StatusMessage) -> None:
        """Subscribers hear this."""
        if status.state is StreamState.UNREPAIRABLE and status.first_ms is not None:
            last_ms = status.last_ms
            self._told.append((status.first_ms, status.first_ms if last_ms is None else last_ms))

    def closed(self, open_ms: int) -> StatusMessage | None:
        """This closed candle is next.  Returns what has to be said before it: nothing where it was
        said already."""
        before_ms, self.closed_ms = self.closed_ms, max(open_ms, self.closed_ms or 0)
        told = self._told
        self._told = [span for span in told if span[0] > open_ms]
        if before_ms is None:
            return None
        hole = hole_between(self.series, before_ms, open_ms)
        if hole is None or any(a <= hole[0] and hole[1] <= b for a, b in told):
            return None
        return hole_status(self.series, hole)
