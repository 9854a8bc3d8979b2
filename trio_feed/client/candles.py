"""One subscription to candles: every closed candle exactly once and in order.  Pure.

What arrives is held in one queue and given out from its head.  A closed candle that is not the
next one by the calendar stays there, and with it all that is behind it, until the history has been
asked what lies before: that is the same whether the server could not replay, was wrong, or the
exchange itself has a hole, which then shows by the history having nothing either.
"""

from collections import deque
from enum import Enum
from typing import Any

from attrs import field, frozen

from ..core.calendar import next_open
from . import wire
from .messages import (
    CandleUpdate,
    ClientMessage,
    ConnectionChange,
    ConnectionState,
    History,
    Stream,
    UpdateKind,
)
from .numbers import Numbers, OutOfStep

PAGE_ROWS = 1000
_RESUME_ROWS = 100
_MAX_HELD = 10_000


@frozen
class Outcome:
    """What the consumer is to be told, and what the server is to be asked: closed candles that
    open then (unix seconds) or later, at most PAGE_ROWS."""

    events: list[ClientMessage] = field(factory=list)
    fetches: list[int] = field(factory=list)


class _Mark(Enum):
    """In the queue: here ends what a resumed stream had missed."""

    RESUMED = "resumed"


_RESUMED = _Mark.RESUMED


class Candles:
    """Give it, for each connection, :meth:`opening`, then what the server sends; :meth:`lost` when
    the connection has ended.  ``history_rows`` come at the beginning, 0: none.
    ``provisional``: with open candles before which something is missing."""

    def __init__(self, stream: Stream, history_rows: int, *, provisional: bool = False) -> None:
        assert stream.interval is not None
        self.stream = stream
        self._interval = stream.interval
        self._history_rows, self._provisional = history_rows, provisional
        self._numbers = Numbers(str(stream))
        self._last_ms: int | None = None
        """Open time of the last closed candle that went out."""
        self._served = False
        """The subscription has been confirmed before, on this or another connection."""
        self._resuming = False
        self._base: wire.Page | None = None
        self._confirmed: wire.Answer | None = None
        self._settled = False
        self._held: deque[CandleUpdate | _Mark] = deque()
        self._fetching = False
        self._asked_up_to_ms = 0
        """The history has been asked for everything before this candle."""
        self._hole = False

    def __repr__(self) -> str:
        state = "settled" if self._settled else "waiting"
        return f"<Candles {self.stream} {state}, {len(self._held)} held>"

    @property
    def served(self) -> bool:
        return self._served

    @property
    def answered(self) -> bool:
        """The server's answer to the subscription is complete."""
        return self._settled

    def opening(self) -> dict[str, Any]:
        """The fields of the request that begins it on a new connection."""
        self._resuming, self._base, self._confirmed = self._served, None, None
        fields: dict[str, Any] = {"limit": _RESUME_ROWS if self._served else self._first_rows}
        if self._provisional:
            fields["provisional"] = True
        since = self._numbers.since()
        if since is not None:
            if self._last_ms is not None:
                since["time"] = self._last_ms // 1000
            fields["since"] = since
        return fields

    @property
    def _first_rows(self) -> int:
        return max(1, self._history_rows)

    def lost(self) -> None:
        """The connection has ended.  What was taken and not given out is fetched again."""
        if self._held or (self._base is not None and not self._settled):
            self._numbers.forget()
        self._held.clear()
        self._settled = self._fetching = self._hole = False
        self._asked_up_to_ms = 0

    def history(self, page: wire.Page) -> Outcome:
        """The history that comes with the subscription."""
        self._base = page
        self._numbers.begin(page.epoch, page.offset)
        return self._settle()

    def confirmed(self, answer: wire.Answer) -> Outcome:
        self._confirmed = answer
        return self._settle()

    def update(self, message: wire.Numbered[wire.Row]) -> Outcome:
        """Raises OutOfStep where a message is missing before this one."""
        row = message.data
        kind = row.update_type
        # Not new is also a provisional candle: it has the number of the message before it.
        new = self._numbers.take(message.epoch, message.offset, message.conflated)
        if not new and kind is not UpdateKind.REALTIME:
            return Outcome()
        update = CandleUpdate(
            self.stream,
            row.kline(message.event_time),
            kind,
            row.update_count,
            message.origin,
            row.provisional,
        )
        self._hold(update)
        return self._advance() if self._settled else Outcome()

    def page(self, start_s: int, page: wire.Page) -> Outcome:
        """The answer to a fetch."""
        self._fetching = False
        out = Outcome()
        waiting = self._held[0]
        assert isinstance(waiting, CandleUpdate), "a fetch is for the candle at the head"
        barrier_ms = waiting.kline.open_ms
        rows = [row for row in page.data if row.time >= start_s]
        before = [row for row in rows if row.time * 1000 < barrier_ms]
        for row in before:
            self._give(self._fetched(row), out)
        if len(before) < PAGE_ROWS:
            self._asked_up_to_ms = barrier_ms
        return self._advance(out)

    def _settle(self) -> Outcome:
        """Begin once the server's answer is complete, in whatever order it came."""
        if self._confirmed is None:
            return Outcome()
        recovered = self._confirmed.recovered is True
        if not recovered and self._base is None:
            return Outcome()
        out, queued = Outcome(), 0
        if not recovered and self._base is not None:
            queued = self._start(self._base, out)
        if self._resuming:
            self._held.insert(queued, _RESUMED)
        self._settled = self._served = True
        return self._advance(out)

    def _start(self, page: wire.Page, out: Outcome) -> int:
        """Begin with a history; returns how many candles of it are put before what is held."""
        if self._last_ms is not None:
            self._held.extendleft(self._fetched(row) for row in reversed(page.data))
            return len(page.data)
        self._last_ms = page.data[-1].time * 1000 if page.data else None
        if self._history_rows:
            candles = tuple(row.kline() for row in page.data)
            out.events.append(History(self.stream, page.exchange, candles, page.has_more))
        return 0

    def _hold(self, update: CandleUpdate) -> None:
        """Into the queue; the next update of an open candle, or its end, replaces one there."""
        last = self._held[-1] if self._held else None
        if (
            isinstance(last, CandleUpdate)
            and last.kind is UpdateKind.REALTIME
            and update.kind is not UpdateKind.REVISION
        ):
            self._held.pop()
        self._held.append(update)
        if len(self._held) > _MAX_HELD:
            raise OutOfStep(f"{self.stream}: too much to hold back")

    def _advance(self, out: Outcome | None = None) -> Outcome:
        """Give out what may go."""
        out = out or Outcome()
        while self._held and not self._fetching:
            head = self._held[0]
            if isinstance(head, _Mark):
                change = ConnectionChange(
                    ConnectionState.RESUMED, stream=self.stream, recovered=not self._hole
                )
                out.events.append(change)
            elif self._must_ask(head):
                assert self._last_ms is not None
                self._fetching = True
                out.fetches.append(self._last_ms // 1000 + 1)
                break
            else:
                self._give(head, out)
            self._held.popleft()
        return out

    def _must_ask(self, update: CandleUpdate) -> bool:
        if update.kind is not UpdateKind.FINAL:
            return False
        open_ms = update.kline.open_ms
        return open_ms > self._asked_up_to_ms and self._jumps(open_ms)

    def _jumps(self, open_ms: int) -> bool:
        return self._last_ms is not None and open_ms > next_open(self._interval, self._last_ms)

    def _give(self, update: CandleUpdate, out: Outcome) -> None:
        open_ms = update.kline.open_ms
        if update.kind is not UpdateKind.REVISION:
            if self._last_ms is not None and open_ms <= self._last_ms:
                return
            if update.kind is UpdateKind.FINAL:
                self._hole = self._hole or self._jumps(open_ms)
                self._last_ms = open_ms
        out.events.append(update)

    def _fetched(self, row: wire.Row) -> CandleUpdate:
        return CandleUpdate(self.stream, row.kline(), UpdateKind.FINAL, row.update_count, None)
