"""The exchange's clock, as far as its own messages show it.  Pure: time is an argument.

The machine's calendar may be hours wrong and may be set at any moment, so it counts only as the
first guess.  The estimate is a distance between two clocks that nobody sets here: the exchange's
calendar and the monotonic clock.  Each message carries the exchange's time and arrives a little
later, so at its receipt the exchange is at least there, and the smallest delay wins.
"""

import math
from collections import deque
from collections.abc import Sequence

from attrs import define, field

from ..instants import Exchange, Mono, Wall

TOLERANCE_MS = 2_000.0
"""One note alone moves the estimate by this at most."""
AGREEING = 3
"""Notes in a row that agree with each other, before the estimate moves farther."""
AGREEING_S = 2.0
"""And messages, for so long: several connections can bring odd ones in the same moment."""
WINDOW_S = 60.0
"""The smallest delay is that of the last one to two windows."""
FALL_AFTER_S = 120.0
"""Without a note near the estimate for so long, late messages are not late: the estimate falls."""

_STEP_MS = 1_000.0  # a move beyond this is worth a new plan
_DATE_MS = 1_000.0  # an HTTP Date is in whole seconds
_LAST_MS = 2**53  # beyond every calendar, and beyond exact floats


@define(init=False, repr=False)
class ExchangeClock:
    """An estimate of an exchange's time; one per venue.

    Rules:

    - Within 2 s of the estimate the largest (exchange's time - ours) of the last one to two
      minutes counts, that is the message with the smallest delay.
    - Farther off, a note counts only in a row of notes that agree within 2 s: three at least, and
      over two seconds at least.  Ahead of the estimate they are followed then (the machine was
      suspended and the monotonic clock stood still).  Behind it they are late messages, a stall of
      the way or a slow proxy; they are followed only after two minutes without any note near the
      estimate.
    - A ``Date`` of an HTTP answer bounds the exchange's time on both sides.  Three answers in a row
      that exclude the estimate move it at once in either direction.
    - Before any evidence the estimate is the calendar's guess.  A first note within 2 s of the
      guess, or such a row, replaces the guess.

    What a liar can do.  One frame of any time moves nothing by more than 2 s.  Who controls all
    frames of two seconds moves the estimate anywhere, and keeps it there while he goes on; frames
    2 s apart walk it away as well.  It comes back with two seconds of true frames where he moved it
    back, with three true ``Date`` or two minutes after his last frame where he moved it ahead.  So
    the estimate may decide when to ASK the exchange, never what is true, and a wait for a time of
    the exchange needs a bound on the monotonic clock.
    """

    _offset_ms: float = field(init=False)  # the exchange's unix ms, where Mono is 0
    _known: bool = field(init=False)
    _best: float = field(init=False)
    _before: float = field(init=False)
    _window_ends: Mono = field(init=False)
    _supported: Mono = field(init=False)
    _frames: deque[float] = field(init=False)
    _frames_since: Mono = field(init=False)
    _dates: deque[tuple[float, float]] = field(init=False)

    def __init__(self, now_mono: Mono, guess: Wall) -> None:
        self._offset_ms = float(guess) - float(now_mono) * 1000
        self._known = False
        self._best = self._before = -math.inf
        self._window_ends = now_mono + WINDOW_S
        self._supported = now_mono
        self._frames = deque(maxlen=AGREEING)  # those in a row that do not fit
        self._frames_since = now_mono
        self._dates = deque(maxlen=AGREEING)

    def __repr__(self) -> str:
        return f"<ExchangeClock {'known' if self._known else 'guessed'}>"

    @property
    def known(self) -> bool:
        """False while the estimate is only what this machine's calendar said at the start."""
        return self._known

    def at(self, mono: Mono) -> Exchange:
        """The exchange's time at ``mono``.  It never falls except by a step."""
        return Exchange(self._offset_ms + float(mono) * 1000)

    def evidence(self, mono: Mono) -> Exchange | None:
        """As :meth:`at`; None while it would be only this machine's calendar."""
        return self.at(mono) if self._known else None

    def error_of(self, wall: Wall, mono: Mono) -> float | None:
        """By how many ms our calendar ``wall``, read at ``mono``, is ahead of the exchange's; None
        while unknown.  It is too large by the fastest message's delay."""
        return float(wall) - float(self.at(mono)) if self._known else None

    def invalidate(self) -> None:
        """The calendar and the monotonic clock have parted, so the monotonic one may have stood
        still: until the next evidence the estimate is a guess again, and it may be too early."""
        self._known = False
        self._best = self._before = -math.inf

    def note(self, event_ms: int, mono: Mono) -> bool:
        """A message of now carried ``event_ms`` and was received at ``mono``: the exchange is at
        least there.  -> the estimate moved by more than a second, plan anew."""
        if not 0 < event_ms < _LAST_MS:
            return False
        offset = event_ms - float(mono) * 1000
        if abs(offset - self._offset_ms) <= TOLERANCE_MS:
            self._frames.clear()
            return self._support(offset, mono)
        if not self._frames or abs(offset - self._frames[-1]) > TOLERANCE_MS:
            self._frames.clear()
            self._frames_since = mono
        self._frames.append(offset)
        if len(self._frames) < AGREEING or max(self._frames) - min(self._frames) > TOLERANCE_MS:
            return False
        if mono - self._frames_since < AGREEING_S:
            return False
        is_late = self._known and offset < self._offset_ms
        if is_late and mono - self._supported < FALL_AFTER_S:
            return False
        return self._step_to(max(self._frames), mono)

    def note_all(self, events_ms: Sequence[int], mono: Mono) -> bool:
        """As :meth:`note`, of messages that were received together."""
        if len(events_ms) == 1:
            return self.note(events_ms[0], mono)
        if events_ms:
            latest, middle = max(events_ms), self._offset_ms + float(mono) * 1000
            if middle - TOLERANCE_MS <= min(events_ms) and latest <= middle + TOLERANCE_MS:
                return self.note(latest, mono)  # it was the fastest, and nothing is odd
        moved = [self.note(each, mono) for each in events_ms]
        return any(moved)

    def note_date(self, date_ms: float, sent: Mono, received: Mono) -> bool:
        """The ``Date`` of an HTTP answer, in whole seconds, to a request that was sent at ``sent``
        and answered by ``received``.  -> as :meth:`note`."""
        if not (0 < date_ms < _LAST_MS and sent <= received):
            return False
        low = date_ms - float(received) * 1000
        high = date_ms + _DATE_MS - float(sent) * 1000
        nearest = min(max(self._offset_ms, low), high)
        if abs(nearest - self._offset_ms) <= TOLERANCE_MS:
            self._dates.clear()
            return self._support(nearest, received)
        self._dates.append((low, high))
        lowest, highest = max(low for low, _ in self._dates), min(high for _, high in self._dates)
        if len(self._dates) < AGREEING or lowest - highest > TOLERANCE_MS:
            return False
        # Whole seconds: the exchange is at least at the earlier bound, as with a message.
        return self._step_to(lowest, received)

    def _support(self, offset: float, mono: Mono) -> bool:
        """A note near the estimate."""
        self._supported = mono
        if mono >= self._window_ends:
            self._before, self._best = self._best, -math.inf
            self._window_ends = mono + WINDOW_S
        self._best = max(self._best, offset)
        return self._set(max(self._best, self._before))

    def _step_to(self, offset: float, mono: Mono) -> bool:
        """Begin anew there."""
        self._frames.clear()
        self._dates.clear()
        self._best, self._before = offset, -math.inf
        self._window_ends = mono + WINDOW_S
        self._supported = mono
        return self._set(offset)

    def _set(self, offset: float) -> bool:
        moved_ms = abs(offset - self._offset_ms)
        self._offset_ms, self._known = offset, True
        return moved_ms > _STEP_MS
