"""What all clients of a node share, whatever they speak."""

from collections.abc import Callable

from attrs import field, frozen

from ..metrics import Metrics
from ..store import CandleReader
from .demand import Desk
from .edge.spending import Spending
from .edge.work import WorkGate
from .fanout.hub import Hub
from .fanout.send_queue import SendQueue
from .fanout.sender import ClientSender
from .fanout.transport import Transport
from .fanout.voice import Voice
from .fanout.waiting import Account
from .private.session import PrivateAccess


@frozen
class SessionLimits:
    """``max_queued`` messages and ``max_queued_bytes`` may wait for one client, and for
    ``behind_ms`` ``burst`` times as much: see :class:`.fanout.send_queue.SendQueue`."""

    max_subscriptions: int
    history_rows: int
    max_queued: int
    max_queued_bytes: int
    burst: int = 1
    behind_ms: float = 0.0


@frozen
class SessionContext:
    """Where the messages and the candles are, and who may see what.

    ``why_not``: why a venue's data is not fresh now, empty when it is.  ``desk``: where symbols on
    demand are asked for.  ``spending``: what clients may have of something per second.
    """

    hub: Hub
    store: CandleReader
    limits: SessionLimits
    now_ms: Callable[[], float]
    metrics: Metrics
    access: PrivateAccess
    work: WorkGate
    why_not: Callable[[str], str]
    desk: Desk = field(factory=Desk)
    spending: Spending = field(factory=Spending)

    def sender(
        self, transport: Transport, account: Account | None, voice: Voice, *, deflated: bool
    ) -> ClientSender:
        """What writes to one client, within these limits.  ``account``: where the bytes are
        counted that wait for it; None: nowhere."""
        limits = self.limits
        queue = SendQueue(
            limits.max_queued, limits.max_queued_bytes, limits.burst, limits.behind_ms, account
        )
        return ClientSender(
            self.hub, queue, self.now_ms, self.metrics, transport, voice, deflated=deflated
        )
