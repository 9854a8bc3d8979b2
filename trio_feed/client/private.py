"""The private events of the authenticated user.  Pure."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..settings import Secret
from . import wire
from .messages import (
    Authenticated,
    ClientMessage,
    ConnectionChange,
    ConnectionState,
    PrivateEvent,
)
from .numbers import Numbers

_MONEY = frozenset(
    {"price", "qty", "fee", "filled_qty", "avg_price", "avail", "frozen", "change"}
)  # fmt: skip
_DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


class Private:
    """``token`` is revealed only into the request."""

    def __init__(self, token: Secret) -> None:
        self.token = token
        self._numbers = Numbers("private events")
        self._resuming = False

    def opening(self) -> dict[str, Any]:
        """The fields of the ``auth`` request."""
        since = self._numbers.since()
        fields: dict[str, Any] = {"token": self.token.reveal()}
        return fields if since is None else {**fields, "since": since}

    def lost(self) -> None:
        """The connection has ended."""
        self._resuming = self._numbers.known

    def accepted(self, answer: wire.AuthSuccess) -> list[ClientMessage]:
        recovered = answer.recovered is True
        if not recovered:
            self._numbers.begin(answer.epoch, answer.offset)
        events: list[ClientMessage] = [Authenticated(answer.user_id)]
        if self._resuming:
            events.append(ConnectionChange(ConnectionState.RESUMED, recovered=recovered))
        self._resuming = False
        return events

    def event(self, message: wire.Private) -> list[ClientMessage]:
        """Raises OutOfStep where one is missing before this one."""
        if message.epoch and not self._numbers.take(message.epoch, message.offset):
            return []
        kind = wire.PRIVATE_KINDS[type(message)]
        data = message.data if isinstance(message, wire.Broadcast) else _exact(message.data)
        return [PrivateEvent(kind, data, message.epoch, message.offset)]


def _exact(data: Mapping[str, Any]) -> dict[str, Any]:
    """Money as Decimal, digit by digit."""
    return {
        name: Decimal(value) if name in _MONEY and _is_decimal(value) else value
        for name, value in data.items()
    }


def _is_decimal(value: object) -> bool:
    return isinstance(value, str) and _DECIMAL.fullmatch(value) is not None
