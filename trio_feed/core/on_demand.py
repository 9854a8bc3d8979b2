"""Symbols that are fed because somebody asked for them: who is let in, and who goes.  Pure.

A symbol that is *wanted* (subscribed to) never goes for another one.  One that is not wanted stays
for ``linger_s`` after the last word of it, and goes earlier, when its place is needed, but not
within ``RETURN_S``: a client that reconnects finds it again.  Each asker may have a share of the
places, and starts that many symbols at once and again in ``WINDOW_S``, so that one client can
neither push out those of the others nor spend the budget of the exchange on coming and going.
"""

from collections.abc import Collection

from attrs import define, field, frozen

from ..model.demand import Refused

RETURN_S = 60.0
WINDOW_S = 300.0
_ROUNDING_S = 1e-6
_FULL_S = 30.0
"""When to ask again where every place is in use."""


@frozen
class Limits:
    """``most`` symbols at once, ``per_asker`` of them of one asker; ``linger_s`` is at least
    ``RETURN_S``."""

    most: int
    per_asker: int
    linger_s: float


@define
class Held:
    """A symbol that is fed on demand.  ``asker`` started it; ``last_s``: when it was last asked for
    or seen wanted; ``since_s``: when it was started."""

    asker: str
    since_s: float
    last_s: float


@frozen
class Let:
    """The symbol is held.  ``new``: from now on; ``gone`` had to make place for it."""

    new: bool = False
    gone: str = ""


@define
class OnDemand:
    """Of one venue.  Times are seconds of any clock that does not step; ``wanted`` are the symbols
    that somebody is subscribed to at this moment."""

    limits: Limits
    held: dict[str, Held] = field(factory=dict)
    _starts: dict[str | None, float] = field(factory=dict)
    """By asker, None for all together, when its starts are forgotten (GCRA)."""

    def ask(self, symbol: str, asker: str, wanted: Collection[str], now_s: float) -> Let | Refused:
        """Somebody wants the symbol."""
        if self.touch(symbol, now_s):
            return Let()
        limits = self.limits
        gone = ""
        own = [each for each, held in self.held.items() if held.asker == asker]
        if len(own) >= limits.per_asker:
            gone = self._idlest(own, wanted, now_s)
            if not gone:
                problem = f"the limit of symbols fed on demand is {limits.per_asker} for a client"
                return Refused("no_room", problem, _FULL_S)
        elif len(self.held) >= limits.most:
            gone = self._idlest(self.held, wanted, now_s)
            if not gone:
                problem = f"the limit of symbols fed on demand is {limits.most}, and all are in use"
                return Refused("no_room", problem, _FULL_S)
        rates = ((asker, limits.per_asker), (None, limits.most))
        for who, most in rates:
            wait_s = self._wait_s(who, most, now_s)
            if wait_s > 0:
                problem = f"too many new symbols are being asked for; try again in {wait_s:.0f} s"
                return Refused("too_many", problem, wait_s)
        if gone:
            del self.held[gone]
        for who, most in rates:
            self._starts[who] = max(self._starts.get(who, now_s), now_s) + WINDOW_S / most
        self.held[symbol] = Held(asker, now_s, now_s)
        return Let(True, gone)

    def touch(self, symbol: str, now_s: float) -> bool:
        """It is asked for again.  False: it is not held."""
        held = self.held.get(symbol)
        if held is None:
            return False
        held.last_s = now_s
        return True

    def adopt(self, symbol: str, now_s: float) -> None:
        """It was fed for another reason, and is wanted still."""
        self.held.setdefault(symbol, Held("", now_s, now_s))

    def sweep(self, wanted: Collection[str], now_s: float) -> list[str]:
        """Let go of what nobody wanted for ``linger_s``.  Returns it."""
        for symbol in wanted:
            self.touch(symbol, now_s)
        limit = self.limits.linger_s
        gone = [symbol for symbol, held in self.held.items() if now_s - held.last_s >= limit]
        for symbol in gone:
            del self.held[symbol]
        self._starts = {who: at for who, at in self._starts.items() if at > now_s}
        return gone

    def _wait_s(self, who: str | None, most: int, now_s: float) -> float:
        """Until one more start of ``who`` is within its rate."""
        ahead_s = self._starts.get(who, now_s) - now_s
        wait_s = ahead_s + WINDOW_S / most - WINDOW_S
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def _idlest(self, symbols: Collection[str], wanted: Collection[str], now_s: float) -> str:
        """Of these the one that nobody has wanted for longest; empty: all are in use."""
        idle = [
            (self.held[symbol].last_s, symbol)
            for symbol in symbols
            if symbol not in wanted and now_s - self.held[symbol].last_s >= RETURN_S
        ]
        return min(idle, default=(0.0, ""))[1]
