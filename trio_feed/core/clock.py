"""The exchange's clock, as far as it can be known from here.

A machine's clock may be seconds wrong, and then every decision that compares it with a candle's
end is wrong too.  But each message carries the exchange's time, and comes in a little later: the
smallest difference between our clock at the receipt and that time is the error of our clock, plus
the fastest way that a message has taken.
"""

from attrs import define

_WINDOW_MS = 60_000.0
_LARGEST_MS = 3_600_000.0
"""A difference beyond this is not a clock's error but a message that is not of now."""


@define
class ExchangeClock:
    """``ahead_ms``: how far our clock is ahead of the exchange's (negative: behind); 0 until
    something is known.

    It is the smallest difference of the last one to two windows of a minute, so that a clock which
    is set is followed: at once where it is set back, after the windows where it is set forward.
    """

    ahead_ms: float = 0.0
    _smallest: float | None = None
    _before: float | None = None
    _window_ends: float = 0.0

    def note(self, event_ms: float, received_ms: float) -> None:
        """A live message: the exchange's time of it, and our clock when it came in (unix ms)."""
        difference = received_ms - event_ms
        if abs(difference) > _LARGEST_MS:
            return
        if not received_ms < self._window_ends <= received_ms + _WINDOW_MS:
            self._before = self._smallest
            self._smallest = None
            self._window_ends = received_ms + _WINDOW_MS
        if self._smallest is None or difference < self._smallest:
            self._smallest = difference
        known = self._smallest
        self.ahead_ms = known if self._before is None else min(known, self._before)

    def now(self, local_ms: float) -> float:
        """The exchange's time (unix ms) when our clock says ``local_ms``."""
        return local_ms - self.ahead_ms
