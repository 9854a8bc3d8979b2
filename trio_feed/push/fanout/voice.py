"""What a client's sender says by itself: of a stream that changed its state, and as a farewell.

Each kind of client has its own words for that, or none; how messages are queued and written is the
same for all of them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from ...model import StatusMessage
from .. import messages
from ..protocol import SLOW_CLIENT

if TYPE_CHECKING:
    from .topics import Subscription


@frozen
class Farewell:
    """The close code and reason of a connection, and the last message before; None: none."""

    code: int
    reason: str
    text: str | None = None


class Voice(Protocol):
    """Pure: texts of messages, which the sender frames."""

    def status(self, subscription: "Subscription", status: StatusMessage) -> str | None:
        """The upstream of a subscription changed its state; None: such clients get no message."""

    def slow(self, since: Sequence[dict[str, Any]]) -> Farewell:
        """The client is too slow; ``since``: where each of its subscriptions may resume."""

    def back(self, since: Sequence[dict[str, Any]]) -> Farewell:
        """Streams that were closed are open again, for a client that has to resume them."""


@frozen
class NativeVoice:
    """Our own push protocol."""

    now_ms: Callable[[], float]

    def status(self, subscription: "Subscription", status: StatusMessage) -> str | None:
        request = subscription.request
        own = request.target.splice(request.subscription_id)
        return messages.stream_status(own, status, self.now_ms())

    def slow(self, since: Sequence[dict[str, Any]]) -> Farewell:
        return Farewell(SLOW_CLIENT, "too slow", messages.reconnect(0, list(since)))

    def back(self, since: Sequence[dict[str, Any]]) -> Farewell:
        return Farewell(SLOW_CLIENT, "resume", messages.reconnect(0, list(since)))
