"""When a ledger asks the exchange again, and when it believes a hole in an answer.  Pure."""

from attrs import define, frozen

from ..instants import Mono, Now


@frozen
class Policy:
    """Waiting times in seconds; how often a hole must be confirmed; how many candles may wait."""

    close_grace_s: float = 3.0
    quiet_s: float = 0.0
    """So much longer it is waited for a candle that has ended and does not close, before the
    exchange is asked: what closes it in a quiet market comes late."""
    retry_s: float = 2.0
    retry_max_s: float = 60.0
    hole_confirmations: int = 3
    hole_wait_s: float = 30.0
    fresh_hold_s: float = 10.0
    """A series without any history begins with the running candle if none comes by then."""
    max_waiting: int = 1_000


@define
class Asking:
    """Of one series.  ``asked``: questions in a row that brought nothing.  ``sightings``: answers
    that showed a hole where a candle is expected."""

    policy: Policy
    asked: int = 0
    sightings: int = 0
    _sighted_at: Mono = Mono(0.0)
    retry_at: Mono | None = None
    hurry_at: Mono | None = None

    def due(self) -> Mono | None:
        """When to ask whatever the clock of the candles says; None: nothing presses."""
        return self.hurry_at if self.retry_at is None else self.retry_at

    def hurry(self, now: Now, seconds: float) -> None:
        """There is a reason to ask so soon."""
        at = now.mono + seconds
        if self.retry_at is None and (self.hurry_at is None or at < self.hurry_at):
            self.hurry_at = at

    def progressed(self, now: Now, *, more: bool) -> None:
        """An answer brought something.  ``more``: there is more to ask for at once."""
        self.hurry_at = None
        self.asked = self.sightings = 0  # answers that follow at once may be of one page
        self.retry_at = now.mono if more else None

    def in_vain(self, now: Now) -> None:
        """A question brought nothing: the next one is later."""
        self.hurry_at = None
        self.asked += 1
        wait_s = self.policy.retry_s * 2 ** min(self.asked - 1, 10)
        self.retry_at = now.mono + min(wait_s, self.policy.retry_max_s)

    def closed(self) -> None:
        """What was asked for is here."""
        self.asked = self.sightings = 0
        self.retry_at = None

    def sighted(self, now: Now) -> bool:
        """An answer shows a hole.  True: often and long enough to be believed; only answers count,
        not questions that failed."""
        if not self.sightings:
            self._sighted_at = now.mono
        self.sightings += 1
        enough = self.sightings >= self.policy.hole_confirmations
        return enough and now.mono - self._sighted_at >= self.policy.hole_wait_s
