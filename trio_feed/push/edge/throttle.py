"""How much one client may ask.  Pure: time is an argument.

``net.limits`` counts what an exchange allows us, in weights per minute and with bans; here a
connection has a bucket of tokens that may go into debt, which is what makes a flood visible.
"""

from collections import OrderedDict
from enum import Enum

from attrs import frozen


class Verdict(Enum):
    """What becomes of one more request."""

    SERVE = "serve"
    REFUSE = "refuse"
    FLOOD = "flood"


class TokenBucket:
    """``per_s`` tokens are added evenly, at most ``burst`` are kept; ``now`` is in seconds.

    A request without a token is refused and puts the client a token into debt, so one that does not
    pause stays refused; a debt of ``debt`` is flooding.
    """

    __slots__ = ("_burst", "_debt", "_left", "_per_s", "_updated")

    def __init__(self, per_s: float, burst: float, debt: float = 1) -> None:
        self._per_s, self._burst, self._debt = per_s, float(burst), debt
        self._left = self._burst
        self._updated: float | None = None

    def __repr__(self) -> str:
        return f"<TokenBucket {self._left:.0f} of {self._burst:.0f} left>"

    def take(self, now: float) -> Verdict:
        if self._updated is not None:
            gain = max(0.0, now - self._updated) * self._per_s
            self._left = min(self._burst, self._left + gain)
        self._updated = now
        served = self._left >= 1
        self._left -= 1
        if served:
            return Verdict.SERVE
        return Verdict.FLOOD if self._left <= -self._debt else Verdict.REFUSE


@frozen
class RequestLimits:
    """``per_s`` requests of one client go on, ``burst`` at once; ``flood`` refused ones in debt
    end the connection."""

    per_s: float
    burst: int
    flood: int

    def bucket(self) -> TokenBucket:
        return TokenBucket(self.per_s, self.burst, self.flood)


class RowBudgets:
    """What each address may order: ``per_s`` rows are added to its budget evenly, at most
    ``burst`` are kept, and an address that has any left may order; one large order leaves a debt.

    Only the ``most`` addresses that ordered last are remembered, so strangers with many of them
    take no memory.
    """

    def __init__(self, per_s: float, burst: float, most: int = 10_000) -> None:
        self._per_s, self._burst, self._most = per_s, float(burst), most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until it may order again; 0: now."""
        left = self._left_at(address, now)
        return 0.0 if left > 0 else (1 - left) / self._per_s

    def spend(self, address: str, rows: float, now: float) -> None:
        self._left[address] = self._left_at(address, now) - rows, now
        self._left.move_to_end(address)
        if len(self._left) > self._most:
            self._left.popitem(last=False)

    def _left_at(self, address: str, now: float) -> float:
        left, at = self._left.get(address, (self._burst, now))
        return min(self._burst, left + max(0.0, now - at) * self._per_s)
