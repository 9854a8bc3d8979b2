"""What a venue is to the core, and what can be taken of it."""

from collections.abc import Mapping

from ..core.questions import Rules
from ..model import Instrument, Interval
from ..venues import Venue
from ..venues.base import ChainVenue


def rules_of(venue: Venue, keep: Mapping[Interval, float]) -> Rules:
    """What the core has to know of a venue.  ``keep``: see :class:`.Rules`."""
    anything = Instrument(venue.NAME, "", "", "")
    return Rules(
        venue=venue.NAME,
        intervals=venue.INTERVALS,
        trade_kind=venue.TRADE_KIND,
        trade_ids=venue.TRADE_IDS,
        refill=venue.trades_question(anything, 0) is not None,
        book_rule=venue.BOOK_RULE,
        book_snapshot_levels=venue.BOOK_SNAPSHOT_LEVELS,
        page=venue.PAGE,
        began_ms=venue.BEGAN_MS,
        keep=keep,
        chain=isinstance(venue, ChainVenue) and venue.chain,
    )


def problem_of(instrument: Instrument | None) -> str:
    """Why a symbol cannot be taken; empty: it can."""
    if instrument is None:
        return "not in the venue's list"
    return instrument.unavailable or ("" if instrument.trading else "not trading")
