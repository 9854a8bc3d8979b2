"""What one client of the cluster received, judged as it comes.  Pure: ``now`` is monotonic.

A closed candle is the one after the last, or a promise is broken.  Trades may be missing where
that was said: by ``stream_status``, or by a resumed subscription that was not ``recovered``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from scripts.soak_record import VALUES, Values

TOLD_WITHIN_S = 2.0
"""A client hears of a gap before it sees it, or at once after it."""
BROKEN = (
    "closed_lost", "closed_duplicated", "closed_out_of_order", "closed_contradicted",
    "trades_lost_silently", "trades_duplicated",
    "private_lost", "private_duplicated", "private_out_of_order",
)  # fmt: skip
"""None of these may ever be counted."""


@define
class Numbered:
    """Where a stream is resumed."""

    epoch: int | None = None
    offset: int = 0

    def note(self, message: Mapping[str, Any]) -> None:
        if message.get("epoch") is not None:
            self.epoch, self.offset = message["epoch"], message["offset"]

    def since(self) -> dict[str, int] | None:
        return None if self.epoch is None else {"epoch": self.epoch, "offset": self.offset}


@define
class CandleWatch:
    """Of one series with candles of ``step_s``."""

    step_s: int
    counts: Counter[str]
    last_s: int | None = None
    told: dict[int, Values | None] = field(factory=dict)
    """By open time (unix seconds); None: told to be incomplete."""
    number: Numbered = field(factory=Numbered)

    def opening(self) -> dict[str, Any]:
        since = self.number.since()
        if since is None or self.last_s is None:
            return {"limit": 1}
        return {"limit": 1000, "since": {**since, "time": self.last_s}}

    def history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The beginning, or all anew: what was closed before may come again."""
        for row in rows:
            if self.last_s is None or row["time"] > self.last_s:
                self._closed(row)
            else:
                self._tell(row)

    def update(self, data: Mapping[str, Any]) -> None:
        self.number.note(data)
        row = data["data"]
        kind, at = row["update_type"], row["time"]
        if kind == "revision":
            self.counts["revisions"] += 1
            self.told[at] = None  # it may be either
        elif kind == "final":
            if self.last_s is not None and at <= self.last_s:
                known = at in self.told
                self.counts["closed_duplicated" if known else "closed_out_of_order"] += 1
            else:
                self._closed(row)
        elif self.last_s is not None and at <= self.last_s:
            self.counts["closed_out_of_order"] += 1

    def _closed(self, row: Mapping[str, Any]) -> None:
        at: int = row["time"]
        if self.last_s is not None:
            self.counts["closed_lost"] += (at - self.last_s) // self.step_s - 1
        self.last_s = at
        self.counts["closed"] += 1
        self._tell(row)

    def _tell(self, row: Mapping[str, Any]) -> None:
        at = row["time"]
        if not row["complete"]:
            self.counts["incomplete"] += 1
            self.told.setdefault(at, None)
            return
        values = tuple(float(row[name]) for name in VALUES)
        known = self.told.get(at)
        self.counts["closed_contradicted"] += known is not None and known != values
        self.told[at] = values


@define
class TradeWatch:
    counts: Counter[str]
    last_id: int | None = None
    number: Numbered = field(factory=Numbered)
    _told: bool = False
    _pending: list[tuple[float, int]] = field(factory=list)
    """Gaps that were not told yet: when they were seen, and how many are missing."""

    def opening(self) -> dict[str, Any]:
        since = self.number.since()
        return {} if since is None else {"since": since}

    def tell(self) -> None:
        """It was said that some are missing."""
        self._told = True
        for _, missing in self._pending:
            self.counts["trades_told_missing"] += missing
        self._pending.clear()

    def update(self, data: Mapping[str, Any], now: float) -> None:
        self.number.note(data)
        row = data["data"]
        first, last = row["first_id"], row["last_id"]
        if data.get("snapshot"):  # how it stands; it may have been there before
            self.last_id = max(last, self.last_id or last)
            return
        if self.last_id is not None and first <= self.last_id:
            self.counts["trades_duplicated"] += 1
            return
        if self.last_id is not None and (missing := first - self.last_id - 1):
            if self._told:
                self.counts["trades_told_missing"] += missing
            else:
                self._pending.append((now, missing))
        self._told = False
        self.last_id = last
        self.counts["trades"] += 1

    def settle(self, now: float) -> None:
        while self._pending and now - self._pending[0][0] > TOLD_WITHIN_S:
            self.counts["trades_lost_silently"] += self._pending.pop(0)[1]


@define
class PrivateWatch:
    """Of one user; events are numbered in their ids, ``<user>-<n>``, by who publishes them."""

    counts: Counter[str]
    got: dict[str, None] = field(factory=dict)
    number: Numbered = field(factory=Numbered)
    _newest: int = -1

    def update(self, message: Mapping[str, Any]) -> None:
        event: str = message["event_id"]
        number = int(event.rpartition("-")[2])
        if event in self.got:
            self.counts["private_duplicated"] += 1
            return
        self.counts["private_out_of_order"] += number < self._newest
        self._newest = max(self._newest, number)
        self.number.note(message)
        self.got[event] = None
        self.counts["private"] += 1


@define
class Silence:
    """How long nothing came: the longest since it was last asked."""

    heard_at: float
    worst_s: float = 0.0

    def note(self, now: float) -> None:
        self.worst_s = max(self.worst_s, now - self.heard_at)
        self.heard_at = now

    def take(self, now: float) -> float:
        worst_s = max(self.worst_s, now - self.heard_at)
        self.worst_s = 0.0
        return worst_s
