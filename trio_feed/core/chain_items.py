"""What :class:`trio_feed.core.chain.ChainRepair` gives back, and its limits.

``Out`` is a tuple of these, in the order in which they are to be applied.
"""

from attrs import frozen

from ..model import Price
from ..transactions import SignatureRow
from .effects import Report

SECOND_MS = 1_000
"""A block's time is in whole seconds."""


@frozen
class Take:
    """A price of the chain.  ``price.position`` orders it among all others: it is larger than that
    of every price taken before, unless ``late``: then it belongs between prices that were taken
    already, and what was built from those is to be revised.  ``price.time_ms`` is the block's time
    where the node said it, else 0 until :mod:`.chain_placing` knows it.  ``signature``: of its
    transaction."""

    price: Price
    late: bool = False
    signature: str = ""


@frozen
class Heard:
    """A price that is to be taken once the time of its block is known; ``price.time_ms`` is an
    estimate."""

    price: Price
    signature: str = ""


@frozen
class Dated:
    """Rows of the program's list at one node; those of slots whose time the node knows say it."""

    rows: tuple[SignatureRow, ...]
    endpoint: int = 0


@frozen
class Unsure:
    """A price was taken at an estimated time, so candles between may hold it or not; a later
    :class:`Proven` ends it."""

    first_ms: int
    until_ms: int


@frozen
class Retract:
    """Prices that were taken and are not in the chain: their slot was skipped.  What was built from
    them is to be revised, and their keys may come again."""

    keys: tuple[str, ...]


@frozen
class Gap:
    """Slots ``first_slot``..``last_slot`` (0: up to now) may lack prices.

    ``final`` False: it is still being asked for, yet nothing waits for it any longer; a later
    :class:`Proven` ends it.  ``final`` True: it cannot be had.

    ``accounts``: only mints among these can lack one; None: any.  ``time_ms``: when the block was,
    0: not known.
    """

    first_slot: int
    last_slot: int
    reason: str
    final: bool
    accounts: frozenset[str] | None = None
    time_ms: int = 0


@frozen
class Proven:
    """Every price up to ``slot`` was taken, but for gaps that are final.

    ``until_ms`` is the chain's time up to which that holds (0 until :mod:`.chain_placing` knows
    it).  A quiet program is proven quiet by it.  ``reached``: the newest slot that the node had.
    ``settled``: signature and slot of the last transaction before which nothing is missing.
    """

    slot: int
    until_ms: int = 0
    reached: int = 0
    settled: tuple[str, int] | None = None


Item = Take | Heard | Retract | Dated | Unsure | Gap | Proven | Report
Out = tuple[Item, ...]


@frozen
class ChainLimits:
    """Bounds.  ``_s`` are seconds of the monotonic clock.

    ``check_s``: the list is read this often though nothing seems to be lost.  ``hold_s``,
    ``held``: live transactions wait this long, and so many of them, for those before them.
    ``give_up_s``: a transaction that the list names and no endpoint has is given up.
    ``in_flight``: getTransaction under way at once.  ``page`` rows, at most ``pages`` of them, are
    read back after a gap.  ``settle_slots``: so far behind the newest slot a list is believed to
    be whole, because nodes write it a little later than the slot is confirmed.  ``remembered``
    signatures tell duplicates.  ``times_s``: so soon after a price came the list is read for the
    time of its block.
    """

    check_s: float = 10.0
    hold_s: float = 20.0
    held: int = 10_000
    give_up_s: float = 600.0
    in_flight: int = 8
    page: int = 1000
    pages: int = 100
    settle_slots: int = 16
    remembered: int = 20_000
    times_s: float = 2.0
