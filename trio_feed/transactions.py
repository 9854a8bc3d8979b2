"""A program's transactions on a chain as values: what the venue reads and the core puts in order.

Words only, so that :mod:`trio_feed.venues` and :mod:`trio_feed.core` share them.
"""

from attrs import frozen

from .model import Price


@frozen
class Transaction:
    """One transaction's prices, from a notification or an answer.

    ``signature`` names it once for all, ``slot`` is where it stands in the chain, ``time_ms`` the
    block's time (unix ms; 0: not said, as in notifications).  ``failed``: it was rolled back.
    ``truncated``: the node cut its logs or has none, so that ``prices`` may lack some.  ``ignored``
    are reasons why other events of it gave no price (``bad BuySellEvent``).  ``accounts``: all that
    it can have touched, mints among them; None: not said, as in notifications.
    """

    signature: str
    slot: int
    prices: tuple[Price, ...] = ()
    failed: bool = False
    truncated: bool = False
    time_ms: int = 0
    ignored: tuple[str, ...] = ()
    accounts: frozenset[str] | None = None


@frozen
class SignatureRow:
    """One row of a program's list of transactions.  ``time_ms`` 0: the node does not know it."""

    signature: str
    slot: int
    failed: bool = False
    time_ms: int = 0


@frozen
class SignaturePage:
    """Newest first, as the node gives them.  ``count`` rows were in the answer; ``len(rows)`` of
    them could be read."""

    rows: tuple[SignatureRow, ...]
    count: int


@frozen
class AskSlot:
    """Which slot has the endpoint reached?  Answered by an int.

    ``number`` is the question's own; ``endpoint`` counts the configured endpoints from 0.
    """

    number: int
    endpoint: int


@frozen
class AskSignatures:
    """The program's transactions older than ``before`` (None: from the newest on) and newer than
    ``until`` (None: as far as there are any), newest first, at most ``limit``, from a node that
    has reached ``min_slot``.  Answered by a :class:`SignaturePage`."""

    number: int
    endpoint: int
    before: str | None
    until: str | None
    limit: int
    min_slot: int = 0


@frozen
class AskTransaction:
    """Answered by a :class:`Transaction`, or None where the endpoint does not have it (yet)."""

    number: int
    endpoint: int
    signature: str


@frozen
class AskBlockTime:
    """When was the block of ``slot``?  Answered by unix ms, or None where the node cannot say."""

    number: int
    endpoint: int
    slot: int


Question = AskSlot | AskSignatures | AskTransaction | AskBlockTime
Answer = int | SignaturePage | Transaction | None
