"""Whether the past of a symbol is here: for those who ask for it right after its start.  Pure."""

from ..instants import Now
from ..model import Interval
from .symbol import SymbolEngine


def has_candles(engine: SymbolEngine, interval: Interval, now: Now) -> bool:
    """All closed candles that there are to be, or nobody can be asked for them."""
    candles = engine.candles
    ledger = candles.ledgers.get(interval)
    if ledger is None or interval not in candles.rules.intervals:
        return True
    return not (ledger.fresh or ledger.behind(now) or candles.history.wants(interval))
