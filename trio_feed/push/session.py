"""One client: its requests in, its messages out.  Knows nothing of HTTP or of any server.

Two tasks: the reader answers requests one after the other, the writer empties the outbox; the
first to end takes the other with it.  Pushes never wait: a client whose outbox is full is dropped.
Replies do wait for room, which slows down nobody but a client that asks faster than it reads.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import structlog
import trio
from attrs import frozen

from ..errors import StoreError
from ..metrics import Metrics
from ..store import KlineStore
from . import history, messages, protocol
from .hub import Hub, Topic
from .outbox import Outbox
from .private import PrivateDoor, PrivateSession
from .protocol import (
    HISTORY_FAILED,
    REFUSED,
    SLOW_CLIENT,
    Authenticate,
    History,
    ListSubscriptions,
    Ping,
    Request,
    RequestError,
    Subscribe,
    Unsubscribe,
)

log = structlog.get_logger()

Receive = Callable[[], Awaitable[str | bytes | None]]
"""The client's next message; None: it has gone."""
Send = Callable[[str], Awaitable[None]]
Close = Callable[[int, str], Awaitable[None]]


@frozen
class SessionLimits:
    """``max_queued`` messages and ``max_queued_bytes`` may wait for one client."""

    max_subscriptions: int
    history_rows: int
    max_queued: int
    max_queued_bytes: int = 1024 * 1024


class Session:
    """A connected client.  Made by the app, run once with :meth:`run`."""

    def __init__(
        self,
        hub: Hub,
        store: KlineStore,
        limits: SessionLimits,
        now_ms: Callable[[], float],
        metrics: Metrics,
        door: PrivateDoor,
    ) -> None:
        self.client_id = str(uuid4())
        self._hub, self._store, self._limits = hub, store, limits
        self._now_ms, self._metrics = now_ms, metrics
        self._outbox = Outbox(limits.max_queued, limits.max_queued_bytes)
        self._topics: dict[Topic, Subscribe] = {}
        self._goodbye: tuple[int, str] | None = None
        self._door = door
        self._private: PrivateSession | None = None

    def __repr__(self) -> str:
        queued = self._outbox.statistics().messages
        return f"<client {self.client_id} {len(self._topics)} subscriptions, {queued} queued>"

    def statistics(self) -> dict[str, Any]:
        """A snapshot for the status page."""
        queued = self._outbox.statistics()
        return {
            "client_id": self.client_id,
            "subscriptions": len(self._topics),
            "authenticated": self._authenticated,
            "queued_messages": queued.messages,
            "queued_bytes": queued.bytes,
        }

    @property
    def engaged(self) -> bool:
        """Subscribed or authenticated, so it has a reason to be here."""
        return bool(self._topics) or self._authenticated

    @property
    def _authenticated(self) -> bool:
        return self._private is not None and self._private.authenticated

    def refuse(self, code: int, problem: str) -> None:
        """Queue an error reply."""
        self._metrics.request_errors.labels(str(code)).inc()
        self._outbox.reply(messages.error(code, problem, self._now_ms()))

    def deliver(self, text: str) -> None:
        """A push from the hub.  Never waits; a client that does not read is dropped (4408)."""
        if not self._outbox.push(text):
            self._metrics.slow_clients.inc()
            log.warning("client.slow", **self.statistics())
            self._goodbye = (SLOW_CLIENT, "too slow")
            self._outbox.close(drop=True)

    def reply(self, text: str) -> None:
        """An answer, taken in any case; who answers much waits for :meth:`room`."""
        self._outbox.reply(text)

    async def room(self) -> None:
        await self._outbox.room()

    def leave(self, code: int, reason: str, last_words: str) -> None:
        """Write what is queued, say ``last_words``, then close with ``code``."""
        if self._goodbye is None:
            self._goodbye = (code, reason)
            self._outbox.reply(last_words)
            self._outbox.close()

    async def run(self, receive: Receive, send: Send, close: Close) -> None:
        """Serve the client until it goes or is dropped.  Leaves no subscription behind."""
        self._metrics.clients.inc()
        log.debug("client.connected", client_id=self.client_id)
        try:
            async with trio.open_nursery() as nursery:
                self._private = PrivateSession(self._door, self, nursery)
                nursery.start_soon(self._read, receive, nursery.cancel_scope, name="client reader")
                await self._write(send, close)
                nursery.cancel_scope.cancel()
        finally:
            if self._private is not None:
                self._private.close()
            for topic in list(self._topics):
                self._hub.unsubscribe(self, topic)
            self._topics.clear()
            self._metrics.clients.dec()
            log.debug("client.gone", client_id=self.client_id)

    async def _write(self, send: Send, close: Close) -> None:
        welcome = messages.connection_success(
            self.client_id, self._hub.symbols, self._hub.intervals, self._now_ms()
        )
        await send(welcome)
        while (text := await self._outbox.take()) is not None:
            await send(text)
        if self._goodbye is not None:
            await close(*self._goodbye)

    async def _read(self, receive: Receive, session: trio.CancelScope) -> None:
        while (text := await receive()) is not None:
            try:
                await self._answer(protocol.parse_request(text))
            except RequestError as error:
                self.refuse(error.code, str(error))
            except StoreError as error:
                self.refuse(HISTORY_FAILED, str(error))
            await self._outbox.room()
        session.cancel()

    async def _answer(self, request: Request) -> None:
        self._metrics.requests.labels(_KINDS[type(request)]).inc()
        match request:
            case Subscribe():
                await self._subscribe(request)
            case Unsubscribe():
                self._unsubscribe(request)
            case History():
                await self._history(request)
            case Authenticate():
                assert self._private is not None, "run made it"
                await self._private.authenticate(request)
            case Ping():
                self._outbox.reply(messages.pong(request))
            case ListSubscriptions():
                entries = [_entry(r, topic) for topic, r in self._topics.items()]
                self._outbox.reply(messages.subscriptions(entries, self._now_ms()))

    async def _subscribe(self, request: Subscribe) -> None:
        target = request.target
        topic = self._hub.find(target)
        allowed = self._limits.max_subscriptions
        if topic not in self._topics and len(self._topics) >= allowed:
            raise RequestError(REFUSED, f"a client may have {allowed} subscriptions")
        body = None
        if target.interval is not None:
            limit = request.limit or self._limits.history_rows
            body = await history.latest(self._store, topic, target.splice(), limit)
        # Nothing below waits, so no candle can fall between the history and the subscription.
        own = target.splice(request.subscription_id)
        now = self._now_ms()
        if body is not None:
            self._outbox.reply(messages.history_data(body, now))
        self._outbox.reply(messages.subscription_confirmed(request, now))
        latest = self._hub.latest(topic, own)
        if latest is not None:
            self._outbox.reply(latest)
        self._hub.subscribe(self, topic, own)
        self._topics[topic] = request

    def _unsubscribe(self, request: Unsubscribe) -> None:
        topic = self._hub.find(request.target)
        self._topics.pop(topic, None)
        if not self._hub.unsubscribe(self, topic):
            raise RequestError(REFUSED, f"symbol: not subscribed to {topic.subject}")
        self._outbox.reply(messages.unsubscribe_confirmed(request, self._now_ms()))

    async def _history(self, request: History) -> None:
        target = request.target
        topic = self._hub.find(target, code=HISTORY_FAILED)
        own = target.splice()
        limit = request.limit or self._limits.history_rows
        body = await history.answer(self._store, topic, own, request, limit)
        self._outbox.reply(messages.history_data(body, self._now_ms()))


_KINDS = {
    Subscribe: "subscribe",
    Unsubscribe: "unsubscribe",
    History: "history",
    Authenticate: "auth",
    Ping: "ping",
    ListSubscriptions: "list",
}


def _entry(request: Subscribe, topic: Topic) -> dict[str, Any]:
    return {
        **request.target.about,
        "subscription_id": request.subscription_id,
        "exchange": topic.subject.venue,
        "channel": request.target.channel.value,
    }
