"""The way to an exchange for what its clients sign themselves, as dialects see it: a port.

What fills it (:mod:`trio_feed.outside`) uses the venue's proxies and its budget of request weight.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import field, frozen


@frozen
class Signed:
    """A client's request as it is.  ``target``: path and query; ``fields``: its header fields."""

    method: str
    target: bytes = field(repr=False)
    fields: Sequence[tuple[bytes, bytes]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@frozen
class Answered:
    """The exchange's answer as it is."""

    status: int
    fields: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)


class Line(Protocol):
    """An open WebSocket to the exchange.  Both raise ConnectionLost."""

    async def receive_many(self) -> Sequence[str | bytes]:
        """The next messages, at least one."""

    async def send(self, text: str, weight: int = 0) -> None:
        """A message; it waits while the exchange takes no more.  ``weight``: what the exchange
        counts for it, which is taken from the budget without a wait."""


class Outside(Protocol):
    """Of one venue, while it is fed."""

    async def ask(self, signed: Signed, weight: int) -> Answered:
        """Raises RateLimited (no room: nothing was sent), TunnelError (nothing was sent), and
        RestError where nobody knows whether it arrived."""

    def dial(self, url: str, target: str) -> AbstractAsyncContextManager[Line]:
        """A WebSocket at ``target`` below the base ``url``; empty: where the venue's streams are.
        Raises NetworkError."""
