"""What is not written yet, and what is said about faults.  Pure."""

from collections.abc import Sequence

from attrs import define, field

from ..model import KlineMessage, Series
from .base import CursorEntry, Entry

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

    def of(self, series: Series | None) -> Sequence[Entry]:
        return self.entries if series is None else self._by_series.get(series, ())


@define(eq=False)
class Watcher:
    """What a question about ``series`` (None: all) has to lay over its answer, in order."""

    series: Series | None
    entries: list[Entry]

    def messages(self) -> list[KlineMessage]:
        return [entry for entry in self.entries if isinstance(entry, KlineMessage)]


@define
class Complaint:
    """A problem is said when it comes and when it changes, and again each minute.  Pure."""

    problem: str = ""
    _said: float = 0.0

    def is_news(self, problem: str, now: float) -> bool:
        """``now`` in seconds."""
        if problem == self.problem and now < self._said + _SAY_AGAIN_S:
            return False
        self.problem, self._said = problem, now
        return True

    def over(self) -> None:
        self.problem = ""
