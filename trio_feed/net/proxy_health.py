"""What is known of one proxy: its failures, whether it is left alone, how fast it is.  Times are of
the clock that nobody sets."""

from typing import Literal

import trio
from attrs import define, field, frozen

from ..instants import Mono

MEASURED_FOR_S = 600.0
"""A latency older than this is measured anew, by the next connection."""


@frozen
class ProxyStatistics:
    """A snapshot of one proxy, without its credentials."""

    address: str
    kind: str
    state: Literal["healthy", "cooling"]
    failures: int
    """All there were, those of the exchange behind it included."""
    successes: int
    cool_s: float
    """How much longer it cools down; 0: it does not."""
    problem: str
    """The last failure in one line; stays after a success."""
    latency_ms: float | None = None
    """How long its tunnels take to open, smoothed; None: none did of late."""


@define
class ProxyHealth:
    """What is known of one proxy."""

    order: int
    failures: int = 0
    successes: int = 0
    in_a_row: int = 0  # cool-downs for errors of its own since the last success
    cool_until: Mono | None = None
    blocked: int = 0  # refusals of the address in a row
    target_errors: int = field(init=False)  # up to target_error
    target_error: Mono | None = None
    problem: str = ""
    reason: str = ""
    """The kind of the last failure."""
    failed_last: bool = False
    """Whatever was tried last failed, also where that was not the proxy's fault."""
    down: bool = False
    reported_down: bool = False
    let_in: bool = False  # by our credentials, since they were refused last
    turn: trio.Lock = field(factory=trio.Lock)
    latency_s: float | None = None  # smoothed
    measured: Mono | None = None

    def latency_s_at(self, now: Mono) -> float | None:
        """None: not measured of late."""
        if self.measured is None or now - self.measured >= MEASURED_FOR_S:
            return None
        return self.latency_s

    def cool_s(self, now: Mono) -> float:
        """How much longer it is left alone; 0: it does not cool down."""
        return 0.0 if self.cool_until is None else max(0.0, self.cool_until - now)

    def cools(self, now: Mono) -> bool:
        return self.cool_s(now) > 0

    def cool(self, now: Mono, length_s: float) -> None:
        """Leave it alone for at least ``length_s`` from ``now``."""
        self.down = True
        end = now + length_s
        self.cool_until = end if self.cool_until is None else max(self.cool_until, end)

    def statistics(self, address: str, kind: str, now: Mono) -> ProxyStatistics:
        latency_s = self.latency_s_at(now)
        return ProxyStatistics(
            address=address,
            kind=kind,
            state="cooling" if self.failed_last or self.cools(now) else "healthy",
            failures=self.failures,
            successes=self.successes,
            cool_s=self.cool_s(now),
            problem=self.problem,
            latency_ms=None if latency_s is None else round(latency_s * 1000, 1),
        )
