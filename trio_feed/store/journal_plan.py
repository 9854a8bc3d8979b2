"""What becomes of a batch of settlement events, decided without any I/O."""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from enum import StrEnum

import msgspec
from attrs import frozen

from ..model import PrivateMessage, Settlement

EventKey = tuple[str, str]
"""Publisher and event id."""
Stored = Sequence[tuple[int, str]]
"""What became of an event: (user, body) of its deliveries."""
ANY_PUBLISHER = ""
"""Of events from before publishers had ids of their own; no publisher has this name."""


class AppendStatus(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@frozen
class AppendResult:
    """``reason`` says why an event was rejected."""

    status: AppendStatus
    reason: str = ""


@frozen
class Settled:
    """What a batch came to: an outcome per event, and the messages in order."""

    outcomes: list[AppendResult]
    messages: list[PrivateMessage]


class BatchPlan:
    """The decisions about one batch, given what the backend knows already.

    ``known`` tells what became of an event, None where it is not there; ``owner`` whose an order
    is, ``head`` a user's last offset, ``users`` all users that there are, each with that.  What is
    to be written is collected in the public fields.
    """

    def __init__(
        self,
        known: Callable[[EventKey], Stored | None],
        owner: Callable[[int], int | None],
        head: Callable[[int], int],
        users: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:
        self._known, self._owner, self._head, self._users = known, owner, head, users
        self.outcomes: list[AppendResult] = []
        self.events: dict[EventKey, tuple[float, list[PrivateMessage]]] = {}
        self.owners: dict[int, tuple[int, float]] = {}
        self.heads: dict[int, int] = {}

    def add(self, event: Settlement) -> None:
        self.outcomes.append(self._decide(event))

    def settled(self) -> Settled:
        messages = [message for _, rows in self.events.values() for message in rows]
        return Settled(self.outcomes, messages)

    def _decide(self, event: Settlement) -> AppendResult:
        stored = self._stored(event)
        if stored is not None:
            if _is_same(event, stored):
                return AppendResult(AppendStatus.DUPLICATE)
            reason = "event_id: used before with other content; a new event needs a new id"
            return AppendResult(AppendStatus.REJECTED, reason)
        if event.everybody:
            rows = self._to_everybody(event)
            self.events[event.publisher, event.event_id] = event.received_ms, rows
            return AppendResult(AppendStatus.ACCEPTED)
        users: list[int] = []
        owners: dict[int, int] = {}
        for delivery in event.deliveries:
            user, order = delivery.user_id, delivery.order_id
            if order is not None:
                owner = owners.get(order) or self._owner_of(order)
                user = owner if user is None else user
                if user is None:
                    reason = f"user_id: missing, and nothing is known of order {order}"
                    return AppendResult(AppendStatus.REJECTED, reason)
                if owner not in (None, user):
                    reason = f"user_id: order {order} belongs to another user"
                    return AppendResult(AppendStatus.REJECTED, reason)
                owners[order] = user
            if user is None:
                return AppendResult(AppendStatus.REJECTED, "user_id: missing")
            users.append(user)
        for order, owner in owners.items():
            self.owners[order] = (owner, event.received_ms)
        self.events[event.publisher, event.event_id] = (
            event.received_ms,
            self._number(event, users),
        )
        return AppendResult(AppendStatus.ACCEPTED)

    def _stored(self, event: Settlement) -> Stored | None:
        key = event.publisher, event.event_id
        if key in self.events:
            return [(message.user_id, message.body) for message in self.events[key][1]]
        return self._known(key)

    def _number(self, event: Settlement, users: list[int]) -> list[PrivateMessage]:
        rows = []
        for user, delivery in zip(users, event.deliveries, strict=True):
            last = self.heads.get(user)
            offset = (self._head(user) if last is None else last) + 1
            self.heads[user] = offset
            rows.append(PrivateMessage(user, offset, delivery.body, event.received_ms))
        return rows

    def _to_everybody(self, event: Settlement) -> list[PrivateMessage]:
        """Also to users whose first event comes in this batch, before this one."""
        rows = []
        for user, last in sorted({**dict(self._users()), **self.heads}.items()):
            self.heads[user] = last + 1
            rows.append(PrivateMessage(user, last + 1, event.everybody, event.received_ms))
        return rows

    def _owner_of(self, order: int) -> int | None:
        found = self.owners.get(order)
        return self._owner(order) if found is None else found[0]


_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


def _is_same(event: Settlement, stored: Stored) -> bool:
    """Whether the event says what is kept under its id.  An order's owner need not be named each
    time, and the order of JSON fields means nothing.  Of a broadcast every row says the same; one
    that met no user has none, and is taken for the same."""
    if event.everybody:
        return {_canonical(body) for body in {body for _, body in stored}} <= {
            _canonical(event.everybody)
        }
    own = sorted((_canonical(row.body), row.user_id) for row in event.deliveries)
    kept = sorted((_canonical(body), user) for user, body in stored)
    return [body for body, _ in own] == [body for body, _ in kept] and all(
        user in (None, before) for (_, user), (_, before) in zip(own, kept, strict=True)
    )


def _canonical(body: str) -> bytes:
    return _encode(_decode(f"{{{body}}}"))
