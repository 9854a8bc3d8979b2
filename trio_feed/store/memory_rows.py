"""The candles of one series in memory: the same answers as the tables of a database give."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from attrs import define, evolve, field

from ..model import Kline, KlineMessage
from .base import End, Revision, merge_messages
from .resumed import Number, Walk, walk_back


@define
class Rows:
    """``opens`` ascend; ``forgotten`` is the largest number of what was deleted or refused."""

    opens: list[int] = field(factory=list)
    messages: dict[int, KlineMessage] = field(factory=dict)
    revisions: list[tuple[KlineMessage, Revision]] = field(factory=list)
    end: End = field(factory=End)
    forgotten: Number = (-1, -1)

    def put(self, message: KlineMessage) -> None:
        """The same message a second time changes nothing."""
        open_ms, number = message.kline.open_ms, (message.epoch, message.offset)
        before = self.messages.get(open_ms)
        if message.revision:
            self._add_revision(message, before)
        elif message.offset and self.opens and open_ms <= self.opens[-1] and not (
            before is not None and (before.epoch, before.offset) == number
        ):  # fmt: skip
            # It came late or again: a walk back by open time does not find this number.
            self.forget(number)
        if before is None:
            insort(self.opens, open_ms)
            self.messages[open_ms] = message
        elif before.offset:  # the row keeps its number
            self.messages[open_ms] = evolve(before, kline=message.kline)
        else:
            self.messages[open_ms] = message
        self.end.add(message.kline)

    def _add_revision(self, message: KlineMessage, before: KlineMessage | None) -> None:
        number = message.epoch, message.offset
        if any((sent.epoch, sent.offset) == number for sent, _ in self.revisions):
            return
        values = before.kline if before else None
        at_ms = int(message.received_ms)
        self.revisions.append((message, Revision(message.kline.open_ms, *number, at_ms, values)))

    def forget(self, number: Number) -> None:
        self.forgotten = max(self.forgotten, number)

    def history(self, limit: int, start_ms: int | None, end_ms: int | None) -> list[Kline]:
        low = 0 if start_ms is None else bisect_left(self.opens, start_ms)
        high = len(self.opens) if end_ms is None else bisect_left(self.opens, end_ms)
        if start_ms is not None and end_ms is None:
            high = min(high, low + limit)
        low = max(low, high - limit)
        return [self.messages[at].kline for at in self.opens[low:high]]

    def after(
        self,
        number: Number,
        limit: int,
        *,
        exact: bool = True,
        ended: bool = False,
        closed_ms: int | None = None,
    ) -> list[KlineMessage] | None:
        """See :meth:`trio_feed.store.backend.Backend.after`.  ``ended``: whether the number's epoch
        was written to its end."""
        if number < self.forgotten:
            return None
        walk = walk_back(self._backwards(), number, limit)
        first = walk.first
        if exact or self._is_known(number, walk, ended):
            if walk.count > limit:
                return None
        elif closed_ms is None or not self._is_anchor(closed_ms):
            return None
        else:
            first = closed_ms + 1
        low = len(self.opens) if first is None else bisect_left(self.opens, first)
        candles = [self.messages[at] for at in self.opens[low:] if self.messages[at].offset]
        again = [
            evolve(message, kline=self.messages[revision.open_ms].kline)
            for message, revision in self.revisions
            if (message.epoch, message.offset) > number
        ]
        return merge_messages(candles, again, limit)

    def _backwards(self) -> Iterator[tuple[int, int, int]]:
        for at in reversed(self.opens):
            yield at, self.messages[at].epoch, self.messages[at].offset

    def _is_anchor(self, open_ms: int) -> bool:
        until = bisect_right(self.opens, open_ms)
        published = any(self.messages[at].offset for at in self.opens[:until])
        return open_ms in self.messages and published

    def _is_known(self, number: Number, walk: Walk, ended: bool) -> bool:
        epoch, offset = number
        if ended:
            return True
        revised = [sent.offset for sent, _ in self.revisions if sent.epoch == epoch]
        return walk.is_known(offset, max(revised, default=None))

    def revised(self, start_ms: int, end_ms: int | None, limit: int) -> list[Revision]:
        found = [
            revision
            for _, revision in self.revisions
            if start_ms <= revision.open_ms and (end_ms is None or revision.open_ms < end_ms)
        ]
        return sorted(found, key=lambda r: (r.open_ms, r.epoch, r.offset))[:limit]

    def prune(self, before_ms: int) -> int:
        """Delete what is older; how many candles.  The last one stays."""
        count = bisect_left(self.opens, min(before_ms, self.opens[-1]))
        if not count:
            return 0
        gone = [self.messages.pop(open_ms) for open_ms in self.opens[:count]]
        del self.opens[:count]
        first = self.end.first_open_ms = self.opens[0]
        gone += [message for message, revision in self.revisions if revision.open_ms < first]
        self.forget(max((m.epoch, m.offset) for m in gone))
        self.revisions = [pair for pair in self.revisions if pair[1].open_ms >= first]
        return count
