"""What else the push server serves under a path: a table of HTTP endpoints and WebSocket paths.

A room above this one makes the tables; what is shared (admission, work gate, rate limits, sweeping,
farewells) is done by :mod:`.app` and :mod:`.mounted` for all of them.  Pure values, no starlette.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen

from .edge.question import Question, Reply
from .edge.websocket import NOTHING_AHEAD, Inbox
from .edge.work import Busy
from .fanout.sender import ClientTimeouts, Close
from .fanout.transport import Transport
from .fanout.waiting import Account
from .session import Receive

__all__ = [
    "Answerer", "Conversation", "Errand", "Mount", "Opening", "Question", "Reply", "SocketPath",
    "Work",
]  # fmt: skip


class Conversation(Protocol):
    """A connected client, as the app sees it; the app runs it and may end it."""

    @property
    def client_id(self) -> str: ...

    @property
    def engaged(self) -> bool:
        """It has a reason to be here, so that it is not :meth:`unused`."""

    async def run(self, receive: Receive, close: Close) -> None:
        """Serve the client until it goes or is disconnected.  Leaves no subscription behind.

        ``close`` closes the connection with a code and a reason.  Raises what ``receive``,
        ``close`` and the transport raise."""

    def statistics(self) -> dict[str, Any]:
        """One line of the status page."""

    def sweep(self, now: float, timeouts: ClientTimeouts) -> int:
        """See :meth:`.ClientSender.sweep`."""

    def end_if_revoked(self) -> None:
        """What it may see depends on a key that is gone: end that."""

    def too_many(self, problem: str, text: str | bytes) -> None:
        """The request ``text`` is beyond the client's rate and is not served."""

    def flooded(self, problem: str, text: str | bytes) -> None:
        """The same of a client that does not pause: disconnect it."""

    def unused(self, problem: str) -> None:
        """The connection is of no use to the client: disconnect it."""

    def restarting(self, after_ms: int) -> None:
        """The service ends: disconnect it; it should come back after so long."""


@frozen
class Opening:
    """The client's end of a WebSocket that is let in: see :class:`.session.Session`."""

    transport: Transport
    deflated: bool = False
    host: str = ""
    account: Account | None = None
    inbox: Inbox = NOTHING_AHEAD


@frozen
class Work:
    """What a question costs, and the task that answers it when its turn has come."""

    rows: int
    answer: Callable[[], Awaitable[Reply]]


Answerer = Callable[[Question], Work | Reply]
"""Checks a question at once: a Reply needs no turn at the work gate."""


Errand = Callable[[Question], "Reply | Callable[[bytes], Awaitable[Reply]]"]
"""Checks a question at once; what it returns is given the body and asks somebody else, so that no
turn at the work gate is held meanwhile: it bounds itself."""


@frozen
class SocketPath:
    """``path`` ends in ``/*`` where anything may follow.  ``refusal``: why a client that opens it
    so is not let in; None: it is."""

    path: str
    open: Callable[[Opening, Question], Conversation]
    refusal: Callable[[Question], Reply | None] = lambda _: None


@frozen
class Mount:
    """``prefix`` such as ``/binance``, under which ``answers`` (by path) and ``sockets`` are.

    ``busy`` and ``no_route`` are the dialect's own words for a turn that does not come and for a
    path or a method that is none of its, ``refuse`` those for a request that does not come so far
    (:data:`.edge.shared.Refuse`); ``headers`` are on every response."""

    prefix: str
    answers: Mapping[str, Answerer]
    sockets: Sequence[SocketPath]
    busy: Callable[[Busy], Reply]
    no_route: Callable[[Question, int], Reply]
    refuse: Callable[[int, str], Reply]
    headers: Callable[[str], Mapping[str, str]] = lambda _host: {}
    errands: Mapping[tuple[str, str], Errand] = field(factory=dict)
    """By method and path; before ``answers``."""
