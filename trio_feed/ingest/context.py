"""What the feed of a venue needs of the process that it runs in."""

from collections.abc import Mapping

from attrs import field, frozen

from ..bus.base import Publisher
from ..environment import Environment
from ..metrics import Metrics
from ..model import Interval
from ..net.budgets import Budgets
from ..store import KlineStore


@frozen
class FeedContext:
    """``environ`` is where proxy variables are read; None: nowhere.  ``budgets``: what may be asked
    of the exchanges, outlives any feed.  ``keep``: seconds after which the store deletes a candle,
    by interval.  ``simulated``: what comes is not from an exchange, and is marked so.  The maker
    closes what has to be closed."""

    environment: Environment
    environ: Mapping[str, str] | None
    store: KlineStore
    bus: Publisher
    metrics: Metrics
    budgets: Budgets = field(factory=Budgets)
    keep: Mapping[Interval, float] = field(factory=dict)
    simulated: bool = False
