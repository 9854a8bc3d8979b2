"""The push protocol's values: requests, error and close codes.  Pure.

What differs between the subscribers of one message (their notation of symbol and interval, their
``subscription_id``) is a short :meth:`splice <Target.splice>`, put into a message that is otherwise
encoded once for all.
"""

from typing import Any

import msgspec
from attrs import frozen

from ..model import (
    Channel,
    Interval,
)
from ..settings import Secret

MALFORMED = 1001
REFUSED = 1002
HISTORY_FAILED = 1003
AUTH_FAILED = 1004
TOO_MANY = 1005

POLICY = 1008
AUTH_FAILURES = 4401
SLOW_CLIENT = 4408
RESTARTING = 1012

RequestId = str | int | float


@frozen
class Echo:
    """What every reply repeats of its request, where the request has it."""

    id: RequestId | None = None
    subscription_id: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON fields of a reply."""
        found = {"id": self.id, "subscription_id": self.subscription_id}
        return {name: value for name, value in found.items() if value is not None}


class RequestError(Exception):
    """A client's request cannot be served; becomes an ``error`` message with ``code``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.echo = Echo()
        """Of a request that could not be parsed, as far as it can be read."""


@frozen
class Target:
    """What a request is about, in the client's own notation."""

    symbol: str
    channel: Channel
    interval: Interval | None
    notation: str
    exchange: str | None

    @property
    def about(self) -> dict[str, str]:
        """What replies repeat of it: symbol and interval, or symbol and channel."""
        if self.interval is None:
            return {"symbol": self.symbol, "channel": self.channel.value}
        return {"symbol": self.symbol, "interval": self.notation}

    def splice(self, subscription_id: str | None = None) -> str:
        """The subscriber's own part of a message, ready to be put in."""
        fields = self.about
        if subscription_id is not None:
            fields["subscription_id"] = subscription_id
        return "".join(f'"{name}":{quote(value)},' for name, value in fields.items())


@frozen
class Since:
    """The last message that a client has of a stream; ``closed_ms``: the open time of the last
    closed candle that it has, if it says so."""

    epoch: int
    offset: int
    closed_ms: int | None = None


@frozen
class Subscribe:
    """``provisional``: open candles as well before which something is still missing."""

    target: Target
    subscription_id: str | None
    limit: int | None
    since: Since | None
    provisional: bool = False
    id: RequestId | None = None


@frozen
class Unsubscribe:
    target: Target
    subscription_id: str | None
    id: RequestId | None = None


@frozen
class History:
    """``start_ms`` inclusive, ``end_ms`` exclusive, unix milliseconds."""

    target: Target
    limit: int | None
    start_ms: int | None
    end_ms: int | None
    subscription_id: str | None = None
    id: RequestId | None = None


@frozen
class Authenticate:
    """``since``: the last private event that the client has."""

    token: Secret
    since: Since | None
    id: RequestId | None = None


@frozen
class Ping:
    id: RequestId | None = None


@frozen
class ListSubscriptions:
    id: RequestId | None = None


Request = Subscribe | Unsubscribe | History | Authenticate | Ping | ListSubscriptions


def echo_of(request: Request) -> Echo:
    """What replies to ``request`` repeat of it."""
    if isinstance(request, Subscribe | Unsubscribe | History):
        return Echo(request.id, request.subscription_id)
    return Echo(request.id)


def quote(text: str) -> str:
    return msgspec.json.encode(text).decode()
