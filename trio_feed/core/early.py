"""Early close: a 1m candle closes as soon as the trade ids prove it over.  Pure.

The exchange's own final comes about 2 s after the minute (USD-M); the trades prove it earlier.
With ``close = "proven"`` such a candle closes at once, with source ``trades``, and the exchange's
row confirms it silently or revises it.  Trades that are in no stream exist (insurance fund, ADL),
so a symbol whose early closes are revised goes back to waiting by itself.
"""

from collections import deque

from attrs import define, field

from ..instants import Mono, Now
from ..model import Kline
from .effects import Effect, Report

_WINDOW = 60
_MOST_REVISED = 2
"""More revised among the last ``_WINDOW`` early closes: it waits for the exchange again."""
_WAIT_S = 3600.0
_REMEMBERED = 60


@define(eq=False)
class EarlyClose:
    """Of one symbol.  ``on`` False: it never closes early."""

    on: bool
    _open: deque[tuple[Kline, Mono]] = field(factory=lambda: deque(maxlen=_REMEMBERED))
    _revised: deque[bool] = field(factory=lambda: deque(maxlen=_WINDOW))
    _waits_until: Mono = Mono(0.0)

    def trusted(self, now: Now) -> bool:
        """Whether a proven candle closes without the exchange's word."""
        return self.on and now.mono >= self._waits_until

    def closed(self, kline: Kline, now: Now) -> None:
        """This candle closed early."""
        self._open.append((kline, now.mono))

    def official(self, kline: Kline, now: Now) -> list[Effect]:
        """The exchange closed its own."""
        found = next((each for each in self._open if each[0].open_ms == kline.open_ms), None)
        if found is None:
            return []
        self._open.remove(found)
        early, at = found
        out: list[Effect] = [
            Report("", "", {}, "early_close_lead_ms", (), (now.mono - at) * 1000),
            Report("", "", {}, "early_closes"),
        ]
        revised = not early.same_values(kline)
        self._revised.append(revised)
        if revised:
            out.append(Report("", "", {}, "early_closes_revised"))
        if sum(self._revised) > _MOST_REVISED:
            self._revised.clear()
            self._waits_until = now.mono + _WAIT_S
            fields = {"time": kline.open_ms, "wait_s": _WAIT_S}
            out.append(Report("close.waits", "warning", fields))
        return out
