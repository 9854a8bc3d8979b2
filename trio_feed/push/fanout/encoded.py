"""One numbered message for many clients: encoded once, framed once per distinct form."""

from functools import lru_cache
from typing import Protocol

from attrs import define, frozen

from ...bus.base import Numbered, Published
from ...core.channels import CHANNELS
from ...model import KlineMessage
from .. import messages
from ..protocol import Target
from .frames import deflate, text_frame


class StreamForm(Protocol):
    """How a subscription's messages are written: one object, compared by identity, for all that
    want the same; ``head`` is how they begin.

    ``conflates``: a newer message may go in place of one that waits.
    """

    @property
    def head(self) -> bytes: ...

    @property
    def conflates(self) -> bool: ...

    def frame(
        self, message: "EncodedMessage", left_out: int = 0, *, snapshot: bool = False
    ) -> bytes | None:
        """A whole frame; None: clients of this form do not get this message.  ``left_out``: so
        many messages before this one are not sent.  ``snapshot``: it is the present state, not
        news."""


@frozen(eq=False)
class Prefix:
    """Our own form: the type and the stream in the client's notation, then what all share."""

    head: bytes
    deflated: bool
    conflates: bool = True

    def frame(
        self, message: "EncodedMessage", left_out: int = 0, *, snapshot: bool = False
    ) -> bytes:
        """See :meth:`StreamForm.frame`."""
        extra = f'"conflated":{left_out},' if left_out else ""
        if snapshot:
            extra += '"snapshot":true,'
        tail = message.tail(deflated=self.deflated)
        if not extra:
            return text_frame(self.head, tail, deflated=self.deflated)
        middle = extra.encode()
        piece = deflate(middle) if self.deflated else middle
        return text_frame(self.head, piece, tail, deflated=self.deflated)


def prefix_of(target: Target, subscription_id: str | None, *, deflated: bool) -> Prefix:
    """The prefix of a subscription's messages; one object for all clients that ask in the same
    words, unless they have an id of their own."""
    if subscription_id is None:
        return _shared_prefix(target, deflated)
    return _make_prefix(target, subscription_id, deflated)


@lru_cache(maxsize=8192)
def _shared_prefix(target: Target, deflated: bool) -> Prefix:
    return _make_prefix(target, None, deflated)


def _make_prefix(target: Target, subscription_id: str | None, deflated: bool) -> Prefix:
    head = messages.data_head(target.channel) + target.splice(subscription_id)
    return Prefix(deflate(head.encode()) if deflated else head.encode(), deflated)


@define(eq=False)
class EncodedMessage:
    """A message of a topic.  ``sent_ms`` is when it was published, which is what it says itself.

    ``whole``: complete in itself, so that a later one of its stream makes it superfluous.
    ``final``: it closes the candle of ``open_ms``.  ``ephemeral``: it has no number of its own.
    """

    epoch: int
    offset: int
    received_ms: float
    sent_ms: float
    whole: bool
    open_ms: int | None
    final: bool
    message: Numbered
    ephemeral: bool = False
    provisional: bool = False
    _tail: bytes = b""
    _deflated: bytes = b""

    def replaces(self, queued: "EncodedMessage") -> bool:
        """Whether a client that has not got ``queued`` yet no longer needs it."""
        if not queued.whole or queued.epoch != self.epoch or queued.ephemeral != self.ephemeral:
            return False
        return self.whole or (self.final and self.open_ms == queued.open_ms)

    def tail(self, *, deflated: bool) -> bytes:
        """What follows the subscriber's prefix."""
        if not self._tail:
            self._tail = messages.data_tail(self.message, self.sent_ms).encode()
        if not deflated:
            return self._tail
        if not self._deflated:
            self._deflated = deflate(self._tail)
        return self._deflated


def encoded_once(published: Published) -> EncodedMessage:
    """The encoded form of a message of the bus: the same object for every subscriber."""
    if published.encoded is None:
        published.encoded = encoded(
            published.message,
            published.sent_ms,
            ephemeral=published.ephemeral,
            provisional=published.provisional,
        )
    message: EncodedMessage = published.encoded
    return message


def encoded(
    message: Numbered, sent_ms: float, *, ephemeral: bool = False, provisional: bool = False
) -> EncodedMessage:
    """An encoded message; its text is made when it is first framed."""
    if isinstance(message, KlineMessage):
        whole, final = not message.kline.closed, message.kline.closed and not message.revision
        open_ms = message.kline.open_ms
    else:
        whole, final, open_ms = CHANNELS[message.key.channel].conflated, False, None
    return EncodedMessage(
        message.epoch,
        message.offset,
        message.received_ms,
        sent_ms,
        whole,
        open_ms,
        final,
        message,
        ephemeral,
        provisional,
    )
