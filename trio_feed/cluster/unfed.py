"""Symbols that only the settings of a node that serves have: nobody feeds them, and its clients are
refused.

Told apart from what is on its way: who feeds says a digest of its settings at once, but its list of
instruments when the exchange has answered, and a SIGHUP goes round the nodes one by one.  So what
is missing is said after it was missing for a while.
"""

from collections.abc import Collection, Mapping

import structlog
from attrs import define, field

from ..ingest.driver import EVERY
from ..settings import ExchangeSettings
from ..venues import Instruments
from .agreement import GRACE_S
from .registry import Said

log = structlog.get_logger()

_MOST_SHOWN = 20
"""Names in a line of the log."""
Names = dict[str, list[str]]
"""Symbols by venue."""


def missing(
    exchanges: Mapping[str, ExchangeSettings],
    nodes: Collection[Said],
    tables: Mapping[str, Instruments],
) -> Names | None:
    """What ``exchanges`` name and no node feeds; None: nobody is there who feeds and says what.
    ``tables``: what those who feed listed, of a venue of which they did."""
    feeders = [each.fed for each in nodes if each.feeds and each.fed is not None]
    if not feeders:
        return None
    found: Names = {}
    for venue, exchange in exchanges.items():
        if not exchange.enabled:
            continue
        named = [symbol for symbol in exchange.named if symbol != EVERY]
        if not any(venue in fed for fed in feeders):
            lacking = named or [EVERY]
        elif venue in tables:
            lacking = [symbol for symbol in named if tables[venue].of_symbol(symbol) is None]
        else:
            lacking = []
        if lacking:
            found[venue] = lacking
    return found


@define
class Unfed:
    """Of a node that serves and does not feed.  ``now``: monotonic seconds."""

    exchanges: Mapping[str, ExchangeSettings] = field(factory=dict)
    """Of its settings, which a SIGHUP changes."""
    symbols: Names = field(factory=dict)
    """Those that have been missing for ``GRACE_S``."""
    _since: dict[tuple[str, str], float] = field(factory=dict)

    def note(self, nodes: Collection[Said], tables: Mapping[str, Instruments], now: float) -> None:
        """``nodes`` and ``tables``: see :func:`missing`."""
        found = missing(self.exchanges, nodes, tables)
        if found is None:
            return
        since = {(venue, symbol): now for venue, names in found.items() for symbol in names}
        self._since = {key: self._since.get(key, at) for key, at in since.items()}
        before, self.symbols = self.symbols, {}
        for (venue, symbol), at in self._since.items():
            if now - at >= GRACE_S:
                self.symbols.setdefault(venue, []).append(symbol)
        for venue, names in self.symbols.items():
            if names != before.get(venue):
                shown = names[:_MOST_SHOWN]
                log.warning("node.unfed", venue=venue, symbols=shown, count=len(names))
        for venue in before.keys() - self.symbols.keys():
            log.info("node.fed_again", venue=venue)

    @property
    def count(self) -> int:
        return sum(map(len, self.symbols.values()))
