"""Candles of one series that are later than the one that is expected.  Pure.

They wait while something before them is missing: closed ones to close in their turn, the running
one to be told as provisional meanwhile.
"""

from attrs import define, field

from ..model import Kline


@define
class Later:
    """``most`` closed candles wait."""

    most: int
    updates: int = 0
    """States of the running candle that were told."""
    _closed: dict[int, Kline] = field(factory=dict)
    _running: Kline | None = None

    @property
    def any(self) -> bool:
        return self._running is not None or bool(self._closed)

    @property
    def first_ms(self) -> int:
        """Open time of the earliest; only while there is any."""
        running = [] if self._running is None else [self._running.open_ms]
        return min([*self._closed, *running])

    @property
    def newest_ms(self) -> int:
        """Open time of the latest, 0 where there is none."""
        running = 0 if self._running is None else self._running.open_ms
        return max(running, max(self._closed, default=0))

    def add(self, kline: Kline) -> bool:
        """True: a state of the running candle that is to be told, False: one that waits, or that
        is outdated."""
        if kline.closed:
            if len(self._closed) < self.most:
                self._closed[kline.open_ms] = kline
            return False
        running = self._running
        if running is not None and running.open_ms == kline.open_ms:
            if kline.event_ms < running.event_ms:
                return False
            self.updates += 1
        else:
            # The newest word counts, not the latest open: an absurd one passes that way.
            self.updates = 1
        self._running = kline
        return True

    def confirm(self, kline: Kline) -> None:
        """The exchange's own row shows that this is the running candle."""
        self._running = kline

    def drop(self) -> None:
        """The stream goes on with the expected candle, so what seemed later was a slip (or comes
        from a faster connection and comes again)."""
        self._running = None
        self._closed.clear()

    def take_closed(self, open_ms: int) -> Kline | None:
        """The closed candle that opens there, once."""
        return self._closed.pop(open_ms, None)

    def reach(self, closed_ms: int, expected: int) -> Kline | None:
        """Everything up to ``closed_ms`` is closed: forget it.  The running candle, once it is the
        expected one."""
        for open_ms in [at for at in self._closed if at <= closed_ms]:
            del self._closed[open_ms]
        running = self._running
        if running is None or running.open_ms > expected:
            return None
        self._running = None
        return running if running.open_ms == expected else None
