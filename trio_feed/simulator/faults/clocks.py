"""The clocks of a simulated run: trio's, the exchange's, and the wall clock of the service.

Trio's is what waits are measured on.  The exchange's runs with it but for the time that the
service's machine was suspended; the service's wall clock is wrong by what fault scripts set.
"""

import trio
from attrs import define


@define
class Clocks:
    """``start_ms`` is the exchange's unix time in ms at second 0 of trio's clock."""

    start_ms: float
    suspended_ms: float = 0.0
    """So long trio's clock stood still while time went on."""
    skew_ms: float = 0.0
    """What the service's wall clock is ahead of the exchange."""
    _drift: tuple[float, float] = (0.0, 0.0)

    def exchange_ms(self) -> float:
        """The exchange's unix time in ms, and the truth."""
        return self.start_ms + self.suspended_ms + trio.current_time() * 1000

    def wall_ms(self) -> float:
        """The service's."""
        since, per_s = self._drift
        return self.exchange_ms() + self.skew_ms + (trio.current_time() - since) * per_s

    def drift(self, ms_per_s: float) -> None:
        """From now on the service's clock goes wrong by so much more each second; what it is wrong
        by already stays."""
        now = trio.current_time()
        since, per_s = self._drift
        self.skew_ms += (now - since) * per_s
        self._drift = (now, ms_per_s)

    def put_right(self) -> None:
        """As NTP does, in one step."""
        self.skew_ms, self._drift = 0.0, (0.0, 0.0)
