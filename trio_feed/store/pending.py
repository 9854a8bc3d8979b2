"""What is not written yet, and what is said about faults.  Pure."""

from collections.abc import Callable, Collection, Sequence

from attrs import define, field

from ..model import Kline, KlineMessage, Series
from .base import CursorEntry, End, Entry, HoleEntry

_SAY_AGAIN_S = 60.0


@define
class Batch:
    """Entries in the order in which they came, and those of each series."""

    entries: list[Entry] = field(factory=list)
    _by_series: dict[Series, list[Entry]] = field(factory=dict)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if isinstance(entry, CursorEntry):
            return
        self._by_series.setdefault(entry.series, []).append(entry)

    def extend(self, later: "Batch") -> None:
        for entry in later.entries:
            self.add(entry)

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        before = self.entries
        self.entries, self._by_series = [], {}
        for entry in before:
            if not unwanted(entry):
                self.add(entry)

    def oldest(self) -> dict[Series, int]:
        """Open time of the oldest candle of each series."""
        found: dict[Series, int] = {}
        for series, entries in self._by_series.items():
            opens = [e.kline.open_ms for e in entries if isinstance(e, KlineMessage)]
            if opens:
                found[series] = min(opens)
        return found

    def of(self, series: Series | None) -> Sequence[Entry]:
        return self.entries if series is None else self._by_series.get(series, ())


@define(eq=False)
class Watcher:
    """What a question about ``series`` (None: all) has to lay over its answer, in order."""

    series: Series | None
    entries: list[Entry]

    def messages(self) -> list[KlineMessage]:
        return [entry for entry in self.entries if isinstance(entry, KlineMessage)]

    def over_history(
        self, rows: list[Kline], limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        """See :meth:`.base.KlineStore.history`; ``rows`` is what the database answered."""
        if not self.entries:
            return rows
        merged = {kline.open_ms: kline for kline in rows}
        for message in self.messages():
            if _inside(message.kline.open_ms, start_ms, end_ms):
                merged[message.kline.open_ms] = message.kline
        ordered = [merged[at] for at in sorted(merged)]
        if start_ms is not None and end_ms is None:
            return ordered[:limit]
        return ordered[max(0, len(ordered) - limit) :]

    def over_ends(
        self, ends: dict[Series, End], venue: str | None, symbols: Collection[str] | None
    ) -> None:
        """Bring those of a venue and of some symbols up to date."""
        for entry in self.entries:
            if isinstance(entry, CursorEntry):
                continue
            series = entry.series
            if venue not in (None, series.venue):
                continue
            if symbols is not None and series.symbol not in symbols:
                continue
            if isinstance(entry, KlineMessage):
                ends.setdefault(series, End()).add(entry.kline)
            elif isinstance(entry, HoleEntry):
                ends.setdefault(series, End()).add_hole(entry.hole)


def _inside(open_ms: int, start_ms: int | None, end_ms: int | None) -> bool:
    return (start_ms is None or open_ms >= start_ms) and (end_ms is None or open_ms < end_ms)


@define
class Complaint:
    """A problem is said when it comes and when it changes, and again each minute.  Pure.
    ``advice``: what to do about it, for who knows."""

    problem: str = ""
    advice: str = ""
    _said: float = 0.0

    def is_news(self, problem: str, now: float) -> bool:
        """``now`` in seconds."""
        if problem == self.problem and now < self._said + _SAY_AGAIN_S:
            return False
        self.problem, self._said = problem, now
        return True

    def over(self) -> None:
        self.problem = self.advice = ""
