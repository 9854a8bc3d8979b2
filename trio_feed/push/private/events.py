"""Private events: per user one stream, numbered by the journal, to every session of that user.

A session joins in the same synchronous moment in which its number is taken (a fresh one) or in
which its replay has caught up (a resumed one), so it sees neither gap nor overlap.  Events are in
the journal before :meth:`PrivateFeed.publish` is called, so whoever was cut off reads the rest
there, also after a crash.  They are never dropped: a client that cannot take one is disconnected.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
import trio
from attrs import define, field, frozen

from ...errors import JournalError
from ...metrics import Metrics
from ...model import PrivateMessage
from ...settings import AuthSettings
from ...store import Journal
from .. import messages
from ..protocol import (
    AUTH_FAILED,
    AUTH_FAILURES,
    HISTORY_FAILED,
    SLOW_CLIENT,
    Authenticate,
    Echo,
    Since,
    echo_of,
)
from .auth import Authenticator, AuthError, Identity

log = structlog.get_logger()

_PAGE = 100
"""Events read from the journal at a time while a client catches up."""
_LONGEST_SLEEP_S = 60.0
"""The wall clock may be set while one waits for a token's end."""


class Client(Protocol):
    """What a session offers.  ``deliver`` never waits: the client takes the message or is dropped;
    ``reply`` takes an answer in any case, and ``room`` waits until there is room for more."""

    client_id: str

    def deliver(self, text: str) -> None: ...
    def reply(self, text: str) -> None: ...
    async def room(self) -> None: ...
    def leave(self, code: int, reason: str, last_message: str) -> None: ...


@define(eq=False)
class _Stream:
    """One user's events as far as they have been published."""

    user_id: int
    offset: int | None = None
    """Of the last event; None until it has been looked up."""
    subscriptions: set["UserSubscription"] = field(factory=set)


@define(eq=False)
class UserSubscription:
    """A session's place at a user's stream; ``live`` once it has caught up."""

    client: Client
    stream: _Stream
    live: bool = False
    active: bool = True

    @property
    def offset(self) -> int:
        assert self.stream.offset is not None, "PrivateFeed.subscribe looked it up"
        return self.stream.offset


class PrivateFeed:
    """All users with a session.  Synchronous but for looking things up in the journal."""

    def __init__(self, journal: Journal, now_ms: Callable[[], float], metrics: Metrics) -> None:
        self.epoch = journal.epoch
        self._journal, self._now_ms, self._metrics = journal, now_ms, metrics
        self._streams: dict[int, _Stream] = {}

    def publish(self, fresh: Sequence[PrivateMessage]) -> None:
        """Hand out what has just become durable; per user in the order of the offsets."""
        now = self._now_ms()
        for message in fresh:
            stream = self._streams.get(message.user_id)
            if stream is not None:
                self._hand_out(stream, message, now)

    def _hand_out(self, stream: _Stream, message: PrivateMessage, now: float) -> None:
        last = stream.offset
        if last is not None and message.offset <= last:
            return  # it was there when the stream's end was looked up
        stream.offset = message.offset
        live = [subscription for subscription in stream.subscriptions if subscription.live]
        if not live:
            return
        text = messages.private_event(message, self.epoch, now)
        for subscription in live:
            if message.offset == (last or 0) + 1:
                subscription.client.deliver(text)
            else:  # a batch whose writing failed was on the disk all the same
                self._cut_off(subscription, "private events were missed; resume with since", now)
        self._metrics.private_messages.inc(len(live))
        self._metrics.private_latency.observe(max(0.0, now - message.received_ms) / 1000)

    async def subscribe(self, client: Client, user_id: int) -> UserSubscription:
        """A place at the user's stream, not live yet; ``unsubscribe`` gives it up.  Raises
        JournalError."""
        stream = self._streams.setdefault(user_id, _Stream(user_id))
        subscription = UserSubscription(client, stream)
        stream.subscriptions.add(subscription)
        try:
            if stream.offset is None:
                head = await self._journal.head(user_id)
                if stream.offset is None:
                    stream.offset = head
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    def unsubscribe(self, subscription: UserSubscription) -> None:
        """Give the place up; nothing more comes."""
        subscription.active = subscription.live = False
        subscription.stream.subscriptions.discard(subscription)
        if (
            not subscription.stream.subscriptions
            and self._streams.get(subscription.stream.user_id) is subscription.stream
        ):
            del self._streams[subscription.stream.user_id]

    async def first_page(
        self, subscription: UserSubscription, since: Since
    ) -> list[PrivateMessage] | None:
        """The beginning of what came after ``since``; None: not all of it is there any more.
        Raises JournalError."""
        if since.epoch != self.epoch or since.offset > subscription.offset:
            return None
        if since.offset == subscription.offset:
            return []
        return await self._page(subscription, since.offset) or None

    async def catch_up(
        self, subscription: UserSubscription, page: list[PrivateMessage], offset: int
    ) -> None:
        """Replay ``page``, then everything after it, then go live.  ``offset``: the client has
        all up to it.  Raises JournalError."""
        while subscription.active:
            now = self._now_ms()
            for message in page:
                subscription.client.reply(messages.private_event(message, self.epoch, now))
                offset = message.offset
            self._metrics.private_messages.inc(len(page))
            if offset == subscription.offset:
                subscription.live = True  # and nothing has waited since the comparison
                return
            await subscription.client.room()
            page = await self._page(subscription, offset)
            if not page:
                self._cut_off(
                    subscription, "private events are not kept for so long", self._now_ms()
                )
                return

    def _cut_off(self, subscription: UserSubscription, problem: str, now: float) -> None:
        subscription.live = False
        subscription.client.leave(
            SLOW_CLIENT, problem, messages.error(HISTORY_FAILED, problem, now)
        )

    async def _page(self, subscription: UserSubscription, after: int) -> list[PrivateMessage]:
        return await self._journal.read(
            subscription.stream.user_id, after, subscription.offset, _PAGE
        )


@frozen
class PrivateAccess:
    """What a session needs to let its client in."""

    authenticator: Authenticator
    feed: PrivateFeed
    settings: AuthSettings
    now_ms: Callable[[], float]
    metrics: Metrics


class PrivateSession:
    """One client's private part: who it is, and its place at that user's stream.

    ``close`` when the client has gone.  ``nursery`` runs the wait for a token's end and is the
    session's own.
    """

    def __init__(self, access: PrivateAccess, client: Client, nursery: trio.Nursery) -> None:
        self._access, self._client, self._nursery = access, client, nursery
        self._feed = access.feed
        self._identity: Identity | None = None
        self._subscription: UserSubscription | None = None
        self._failures = 0
        self._watch = trio.CancelScope()

    @property
    def authenticated(self) -> bool:
        return self._identity is not None

    async def authenticate(self, request: Authenticate) -> None:
        """Answer an ``auth`` request, and replay what it asks for."""
        try:
            identity = self._access.authenticator.authenticate(request.token, self._access.now_ms())
        except AuthError as error:
            self._refuse(str(error), echo_of(request))
            return
        self._failures = 0
        self._access.metrics.auths.labels("accepted").inc()
        known = self._identity
        same_user = known is not None and known.user_id == identity.user_id
        if not same_user or request.since is not None:
            self._end()
        try:
            await self._enter(identity, request)
        except JournalError:
            self._end()
            problem = "private events cannot be read now; try again"
            self._error(HISTORY_FAILED, problem, echo_of(request))

    def close(self) -> None:
        """Leave nothing behind."""
        self._end()

    async def _enter(self, identity: Identity, request: Authenticate) -> None:
        since = request.since
        subscription = self._subscription
        if subscription is None:
            subscription = await self._feed.subscribe(self._client, identity.user_id)
            self._subscription = subscription
        self._identity = identity
        page: list[PrivateMessage] | None = []
        if since is not None:
            page = await self._feed.first_page(subscription, since)
            result = "failed" if page is None else "recovered"
            self._access.metrics.private_resumes.labels(result).inc()
        # From here to the end nothing waits, unless there is something to replay.
        recovered = None if since is None else page is not None
        self._client.reply(
            messages.auth_success(identity.user_id, self._feed.epoch, subscription.offset,
                                  identity.expires_ms, recovered, request.id)
        )  # fmt: skip
        log.info(
            "client.authenticated",
            client_id=self._client.client_id,
            user_id=identity.user_id,
            name=identity.name,
            recovered=recovered,
        )
        self._watch_expiry(identity)
        if since is None or page is None:
            subscription.live = True
        else:
            await self._feed.catch_up(subscription, page, since.offset)

    def _end(self) -> None:
        """The private part is over; public subscriptions are none of its business."""
        self._watch.cancel()
        self._identity = None
        if self._subscription is not None:
            self._feed.unsubscribe(self._subscription)
            self._subscription = None

    def _refuse(self, reason: str, echo: Echo) -> None:
        self._failures += 1
        self._access.metrics.auths.labels("refused").inc()
        log.warning("client.auth_failed", client_id=self._client.client_id, reason=reason)
        text = f"token: {reason}"
        if self._failures < self._access.settings.max_failures:
            self._error(AUTH_FAILED, text, echo)
        else:
            last = messages.error(AUTH_FAILED, text, self._access.now_ms(), echo)
            self._client.leave(AUTH_FAILURES, "authentication failed", last)

    def _error(self, code: int, text: str, echo: Echo | None = None) -> None:
        self._access.metrics.request_errors.labels(str(code)).inc()
        self._client.reply(messages.error(code, text, self._access.now_ms(), echo))

    def _watch_expiry(self, identity: Identity) -> None:
        self._watch.cancel()
        if identity.ends_ms is not None:
            self._watch = trio.CancelScope()
            self._nursery.start_soon(
                self._expire, identity, identity.ends_ms, self._watch, name="token expiry"
            )

    async def _expire(self, identity: Identity, ends_ms: float, watch: trio.CancelScope) -> None:
        with watch:
            await self._until(ends_ms - self._access.settings.expiry_warning_s * 1000)
            self._client.reply(messages.auth_expiring(identity.user_id, identity.expires_ms))
            await self._until(ends_ms)
            log.info("client.token_expired", client_id=self._client.client_id)
            self._error(AUTH_FAILED, "token: it has expired; private events end here")
            self._end()

    async def _until(self, at_ms: float) -> None:
        while True:
            rest_s = (at_ms - self._access.now_ms()) / 1000
            if rest_s <= 0:
                return
            await trio.sleep(min(rest_s, _LONGEST_SLEEP_S))
