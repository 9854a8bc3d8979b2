"""Events of one user: orders, trades, balances."""

from attrs import frozen


@frozen
class Delivery:
    """What one user is to be told.  ``body`` is the inside of a JSON object, without braces.

    ``user_id`` None: the owner of the order, who is known from its earlier events.
    """

    user_id: int | None
    order_id: int | None
    body: str


@frozen
class Settlement:
    """A settlement event: ``event_id`` names it once for all among its publisher's.
    ``received_ms``: our clock.  ``everybody``: the body of a broadcast, which has no deliveries of
    its own; each user that there is gets it."""

    publisher: str
    event_id: str
    deliveries: tuple[Delivery, ...]
    received_ms: float
    everybody: str = ""


@frozen
class PrivateMessage:
    """One of a user's events.  ``offset`` is +1 per event of that user."""

    user_id: int
    offset: int
    body: str
    received_ms: float
