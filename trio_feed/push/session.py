"""One client: its requests in, its answers out.  Knows nothing of HTTP or of any server.

Requests are answered one after the other.  What is sent goes through :mod:`.fanout.sender`.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from attrs import evolve

from ..bus.base import Stream, Upstream
from ..errors import StoreError
from ..model import StatusMessage
from . import messages, parsing
from .context import SessionContext
from .demand import NoRoom, find_topic
from .edge.turns import asker_at
from .edge.websocket import NOTHING_AHEAD, Inbox
from .edge.work import Busy
from .fanout import history
from .fanout.encoded import EncodedMessage, encoded_once, prefix_of
from .fanout.holes import unheard
from .fanout.resume import Missed, caught_up, missed
from .fanout.send_queue import QueuedFrame
from .fanout.sender import ClientTimeouts, Close
from .fanout.topics import Subscription, Topic
from .fanout.transport import Transport
from .fanout.voice import NativeVoice
from .fanout.waiting import Account
from .private.session import PrivateSession
from .protocol import (
    HISTORY_FAILED,
    POLICY,
    REFUSED,
    RESTARTING,
    TOO_MANY,
    Authenticate,
    Echo,
    History,
    ListSubscriptions,
    Ping,
    Request,
    RequestError,
    Since,
    Subscribe,
    Target,
    Unsubscribe,
    echo_of,
)

Receive = Callable[[], Awaitable[str | bytes | None]]
"""The client's next message; None: it has gone."""


class Session:
    """A connected client.  Made by the app, and at once run with :meth:`run`.

    ``deflated``: the client has agreed to permessage-deflate without context takeover.
    ``host``: the IP address that its budget belongs to;
    ``account``: where the bytes are counted that wait for it; ``inbox``: its messages.
    """

    __slots__ = ("__weakref__", "_asker", "_context", "_inbox", "_private", "sender")

    def __init__(
        self,
        context: SessionContext,
        transport: Transport,
        *,
        deflated: bool = False,
        host: str = "",
        account: Account | None = None,
        inbox: Inbox = NOTHING_AHEAD,
    ) -> None:
        self._context, self._inbox = context, inbox
        voice = NativeVoice(context.now_ms)
        self.sender = context.sender(transport, account, voice, deflated=deflated)
        self._asker = asker_at(host, self.sender.client_id)
        self._private: PrivateSession | None = None

    def __repr__(self) -> str:
        sender = self.sender
        number, queued = len(sender.subscriptions), sender.statistics()["queued_messages"]
        return f"<client {self.client_id} {number} subscriptions, {queued} queued>"

    @property
    def client_id(self) -> str:
        return self.sender.client_id

    def statistics(self) -> dict[str, Any]:
        """One line of the status page."""
        return {**self.sender.statistics(), "authenticated": self._authenticated}

    @property
    def engaged(self) -> bool:
        """Subscribed or authenticated, so it has a reason to be here."""
        return bool(self.sender.subscriptions) or self._authenticated

    @property
    def _authenticated(self) -> bool:
        return self._private is not None and self._private.authenticated

    async def run(self, receive: Receive, close: Close) -> None:
        """Serve the client until it goes or is disconnected.  Leaves no subscription behind.

        ``close`` closes the connection with a code and a reason.  Raises what ``receive``,
        ``close`` and the transport raise.
        """
        async with self.sender.serving(close) as nursery:
            self._private = PrivateSession(self._context.access, self.sender, nursery)
            self.sender.reply(self._welcome())
            try:
                await self._read(receive)
            finally:
                self._private.close()

    # From the app: see mounts.Conversation

    def too_many(self, problem: str, text: str | bytes) -> None:
        """The request ``text`` is beyond the client's rate."""
        self.refuse(TOO_MANY, problem, parsing.peek_echo(text))

    def flooded(self, problem: str, text: str | bytes) -> None:
        """It does not pause."""
        now, echo = self._context.now_ms(), parsing.peek_echo(text)
        last = messages.error(TOO_MANY, problem, now, echo)
        self.sender.leave(POLICY, "too many requests", last)

    def unused(self, problem: str) -> None:
        """The connection is of no use to the client."""
        text = messages.error(REFUSED, problem, self._context.now_ms())
        self.sender.leave(POLICY, problem, text)

    def restarting(self, after_ms: int) -> None:
        """The service ends; the client should come back after so long."""
        self.sender.leave(RESTARTING, "service restart", messages.reconnect(after_ms))

    def end_if_revoked(self) -> None:
        """See :meth:`.PrivateSession.end_if_revoked`."""
        if self._private is not None:
            self._private.end_if_revoked()

    def sweep(self, now: float, timeouts: ClientTimeouts) -> int:
        """See :meth:`.ClientSender.sweep`."""
        return self.sender.sweep(now, timeouts)

    async def _read(self, receive: Receive) -> None:
        while (text := await receive()) is not None and not self.sender.leaving:
            try:
                request = parsing.parse_request(text)
            except RequestError as error:
                self.refuse(error.code, str(error), error.echo)
            else:
                await self._serve(request)
            # What came together is answered together: a client asks for all its streams at once.
            if not self._inbox.more or self.sender.full:
                self.sender.flush()
                await self.sender.wait_capacity()

    async def _serve(self, request: Request) -> None:
        if not _waits(request):
            await self._try(request)
            return
        self.sender.flush()
        async with self._inbox.reading_ahead():
            await self._try(request)

    async def _try(self, request: Request) -> None:
        try:
            await self._answer(request)
        except RequestError as error:
            self.refuse(error.code, str(error), echo_of(request))
        except NoRoom as error:
            self.refuse(REFUSED, str(error), echo_of(request))
        except Busy as error:
            self.refuse(TOO_MANY, str(error), echo_of(request))
        except StoreError as error:
            self.refuse(HISTORY_FAILED, str(error), echo_of(request))

    def refuse(self, code: int, problem: str, echo: Echo) -> None:
        """An error reply to the request with this ``echo``."""
        self._context.metrics.request_errors.labels(str(code)).inc()
        self.sender.reply(messages.error(code, problem, self._context.now_ms(), echo))

    async def _answer(self, request: Request) -> None:
        self._context.metrics.requests.labels(_KINDS[type(request)]).inc()
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
                self.sender.reply(messages.pong(request))
            case ListSubscriptions():
                entries = [_entry(s) for s in self.sender.subscriptions.values()]
                self.sender.reply(
                    messages.subscriptions(entries, self._context.now_ms(), request.id)
                )

    async def _subscribe(self, request: Subscribe) -> None:
        target = request.target
        topic = await self._find(target, REFUSED)
        allowed = self._context.limits.max_subscriptions
        subscribed = self.sender.subscriptions
        if topic not in subscribed and len(subscribed) >= allowed:
            raise RequestError(REFUSED, f"the limit of subscriptions is {allowed} for a client")
        topic.stream.keep()
        back, body = None, None
        if request.since is not None:
            back = await self._missed(topic, request.since)
            self._context.metrics.resumes.labels(back.source if back else "fresh").inc()
        if back is None and target.interval is not None:
            limit = request.limit or self._context.limits.history_rows
            own = target.splice(request.subscription_id)
            async with self._context.work.turn(self._asker, limit):
                body = await history.latest(self._context.store, topic.stream, own, limit)
        # Nothing below waits, so no candle can fall between the history and the subscription.
        self._begin(request, topic, body, back)

    async def _find(self, target: Target, code: int, *, patient: bool = False) -> Topic:
        """The topic, fed from now on where that is on demand.  Raises RequestError with ``code``
        and Busy."""
        hub, desk = self._context.hub, self._context.desk
        return await find_topic(hub, desk, target, self._asker, code, patient=patient)

    def _upstream_of(self, stream: Stream) -> Upstream:
        """How its source stands; where nothing comes, with the cause that is known by now."""
        upstream = stream.upstream
        if upstream.state == "live":
            return upstream
        own, why = upstream.problem, self._context.why_not(stream.stream_key.venue)
        if not why or own in why:
            return upstream
        return evolve(upstream, problem=f"{own} ({why})")

    async def _missed(self, topic: Topic, since: Since) -> Missed | None:
        await caught_up(topic.stream, since)
        async with self._context.work.turn(self._asker, 0):  # most have missed little
            back = await missed(self._context.store, topic, since, self._context.now_ms())
            self._context.work.spend(self._asker, len(back.messages) if back else 0)
            return back

    def _begin(
        self, request: Subscribe, topic: Topic, body: str | None, back: Missed | None
    ) -> None:
        """Queue the history, the confirmation, then what was missed or the present state; ``_read``
        writes them.  Raises RequestError where the topic was closed while it was read."""
        if self.sender.leaving:
            return
        if self._context.hub.topic(topic.stream_key) is not topic:
            raise RequestError(REFUSED, f"symbol: {topic.stream_key} was removed meanwhile")
        sender = self.sender
        form = prefix_of(request.target, request.subscription_id, deflated=sender.deflated)
        subscription = Subscription(sender, topic, _kept(request), form)
        stream, now = topic.stream, self._context.now_ms()
        if body is not None:
            sender.queue(messages.history_data(body, now, request.id), subscription)
        last = stream if back is None or request.since is None else request.since
        recovered = back is not None
        confirmed = messages.subscription_confirmed(
            request, last.epoch, last.offset, self._upstream_of(stream), now, recovered=recovered
        )
        sender.queue(confirmed, subscription)
        subscription.number = last.epoch, last.offset
        missing = self._holes(topic, request.since, back)
        for message, left_out in back.messages if back is not None else ():
            if message in missing:
                own = request.target.splice(request.subscription_id)
                sender.queue(messages.stream_status(own, missing[message], now), subscription)
            frame = form.frame(message, left_out)
            sender.queue_frame(QueuedFrame(frame, now, False, form, message, left_out))
            subscription.number = message.epoch, message.offset
        if back is None and stream.latest is not None:
            frame = form.frame(encoded_once(stream.latest), snapshot=True)
            sender.queue_frame(QueuedFrame(frame, now, key=subscription))
        if request.provisional and stream.provisional is not None:
            ahead = encoded_once(stream.provisional)
            frame = form.frame(ahead, snapshot=True)
            sender.queue_frame(QueuedFrame(frame, now, False, form, ahead))
        sender.subscribe(subscription)
        if stream.status is not None:
            sender.send_status(subscription, stream.status)

    def _holes(
        self, topic: Topic, since: Since | None, back: Missed | None
    ) -> dict[EncodedMessage, StatusMessage]:
        """Candles that nobody has, by the message behind them."""
        if back is None or since is None or topic.handed_out is None:
            return {}
        recent = [kline.open_ms for kline, _ in topic.stream.recent]
        missed = [message for message, _ in back.messages]
        return unheard(topic.handed_out.series, since.closed_ms, recent, missed)

    def _unsubscribe(self, request: Unsubscribe) -> None:
        orphans = self.sender.orphans
        if (orphan := orphans.of(request.target)) is not None:
            orphans.forget(orphan)
        else:
            topic = self._context.hub.find(request.target)
            if not self.sender.unsubscribe(topic):
                raise RequestError(REFUSED, f"symbol: not subscribed to {topic.stream_key}")
        self.sender.reply(messages.unsubscribe_confirmed(request, self._context.now_ms()))

    async def _history(self, request: History) -> None:
        target = request.target
        topic = await self._find(target, HISTORY_FAILED, patient=True)
        own = target.splice(request.subscription_id)
        limit = request.limit or self._context.limits.history_rows
        async with self._context.work.turn(self._asker, limit):
            body = await history.answer(self._context.store, topic.stream, own, request, limit)
        self.sender.reply(messages.history_data(body, self._context.now_ms(), request.id))

    def _welcome(self) -> str:
        hub = self._context.hub
        return messages.connection_success(
            self.client_id, hub.symbols, hub.intervals, self._context.now_ms()
        )


_KINDS = {
    Subscribe: "subscribe",
    Unsubscribe: "unsubscribe",
    History: "history",
    Authenticate: "auth",
    Ping: "ping",
    ListSubscriptions: "list",
}


def _waits(request: Request) -> bool:
    """Whether its answer may have to wait for the store or for others' work."""
    if isinstance(request, Subscribe):
        return request.target.interval is not None or request.since is not None
    return isinstance(request, History | Authenticate)


def _kept(request: Subscribe) -> Subscribe:
    """What stays of a request as long as its subscription; one object for all clients that ask in
    the same words, unless they have an id of their own."""
    if request.subscription_id is not None:
        return request
    return _shared_request(request.target, request.provisional)


@lru_cache(maxsize=8192)
def _shared_request(target: Target, provisional: bool) -> Subscribe:
    return Subscribe(target, None, None, None, provisional)


def _entry(subscription: Subscription) -> dict[str, Any]:
    target = subscription.request.target
    return {
        **target.about,
        "subscription_id": subscription.request.subscription_id,
        "exchange": subscription.topic.stream_key.venue,
        "channel": target.channel.value,
        "provisional": subscription.request.provisional,
    }
