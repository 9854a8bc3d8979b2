"""The private part of one client: it authenticates, resumes, and its token expires."""

from collections.abc import Callable
from typing import Any

import structlog
import trio
from attrs import field, frozen

from ...errors import JournalError
from ...metrics import Metrics
from ...model import PrivateMessage
from ...settings import AuthSettings
from .. import messages
from ..protocol import AUTH_FAILED, AUTH_FAILURES, HISTORY_FAILED, Authenticate, Echo, echo_of
from ..sampling import SampledLines
from .auth import Authenticator, AuthError, Identity
from .events import Client, PrivateFeed, UserSubscription

log = structlog.get_logger()

_LONGEST_SLEEP_S = 60.0
"""The wall clock may be set while one waits for a token's end."""


@frozen
class PrivateAccess:
    """What a session needs to let its client in."""

    authenticator: Authenticator
    feed: PrivateFeed
    settings: AuthSettings
    now_ms: Callable[[], float]
    metrics: Metrics
    lines: SampledLines = field(factory=SampledLines)


class PrivateSession:
    """One client's private part: who it is, and its subscription to that user's events.

    Call ``close`` when the client has gone.  ``nursery`` runs the wait for a token's end and is the
    session's own.
    """

    __slots__ = (
        "_access", "_client", "_entered", "_failures", "_feed", "_identity", "_nursery",
        "_subscription", "_watch",
    )  # fmt: skip

    def __init__(self, access: PrivateAccess, client: Client, nursery: trio.Nursery) -> None:
        self._access, self._client, self._nursery = access, client, nursery
        self._feed = access.feed
        self._identity: Identity | None = None
        self._subscription: UserSubscription | None = None
        self._failures = 0
        self._entered = False
        self._watch: trio.CancelScope | None = None

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
        again, self._entered = self._entered, True
        if not same_user or request.since is not None:
            self._end()
        try:
            await self._enter(identity, request, again=again)
        except JournalError:
            self._end()
            problem = "private events cannot be read now; try again"
            self._error(HISTORY_FAILED, problem, echo_of(request))

    def end_if_revoked(self) -> None:
        """The connection ends here and now if the client's key is not one of the settings any
        more."""
        identity = self._identity
        if identity is not None and self._is_revoked(identity):
            self._revoke(identity)

    def _is_revoked(self, identity: Identity) -> bool:
        key = identity.key
        return key is not None and self._access.authenticator.is_revoked(key)

    def _revoke(self, identity: Identity) -> None:
        log.info("client.key_revoked", client_id=self._client.client_id, name=identity.name)
        text = "token: the API key was revoked"
        self._end()
        self._access.metrics.request_errors.labels(str(AUTH_FAILED)).inc()
        last = messages.error(AUTH_FAILED, text, self._access.now_ms())
        self._client.leave(AUTH_FAILURES, "the API key was revoked", last)

    def close(self) -> None:
        """Leave nothing behind."""
        self._end()

    async def _enter(self, identity: Identity, request: Authenticate, *, again: bool) -> None:
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
        if self._is_revoked(identity):  # while the journal was asked
            self._revoke(identity)
            return
        # From here to the end nothing waits, unless there is something to replay.
        recovered = None if since is None else page is not None
        self._client.reply(
            messages.auth_success(
                identity.user_id,
                self._feed.epoch_of(identity.user_id),
                subscription.offset,
                identity.expires_ms,
                recovered,
                request.id,
            )
        )
        facts = {"user_id": identity.user_id, "name": identity.name, "recovered": recovered}
        if again:
            self._say(log.info, "client.authenticated_again", **facts)
        else:
            log.info("client.authenticated", client_id=self._client.client_id, **facts)
        self._watch_expiry(identity)
        if since is None or page is None:
            subscription.live = True
        else:
            await self._feed.catch_up(subscription, page, since.offset)

    def _end(self) -> None:
        """The private part is over; public subscriptions stay."""
        self._stop_watching()
        self._identity = None
        if self._subscription is not None:
            self._feed.unsubscribe(self._subscription)
            self._subscription = None

    def _refuse(self, reason: str, echo: Echo) -> None:
        self._failures += 1
        self._access.metrics.auths.labels("refused").inc()
        self._say(log.warning, "client.auth_failed", reason=reason)
        text = f"token: {reason}"
        if self._failures < self._access.settings.max_failures:
            self._error(AUTH_FAILED, text, echo)
        else:
            last = messages.error(AUTH_FAILED, text, self._access.now_ms(), echo)
            self._client.leave(AUTH_FAILURES, "authentication failed", last)

    def _say(self, write: Callable[..., Any], event: str, **fields: Any) -> None:
        """A line that a client can repeat at will."""
        client_id = self._client.client_id
        self._access.lines.say(write, event, trio.current_time(), client_id=client_id, **fields)

    def _error(self, code: int, text: str, echo: Echo | None = None) -> None:
        self._access.metrics.request_errors.labels(str(code)).inc()
        self._client.reply(messages.error(code, text, self._access.now_ms(), echo))

    def _watch_expiry(self, identity: Identity) -> None:
        self._stop_watching()
        if identity.ends_ms is not None:
            self._watch = trio.CancelScope()
            self._nursery.start_soon(
                self._expire, identity, identity.ends_ms, self._watch, name="token expiry"
            )

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _expire(self, identity: Identity, ends_ms: float, watch: trio.CancelScope) -> None:
        with watch:
            await self._until(ends_ms - self._access.settings.expiry_warning_s * 1000)
            self._client.reply(messages.auth_expiring(identity.user_id, identity.expires_ms))
            await self._until(ends_ms)
            self._say(log.info, "client.token_expired")
            self._error(AUTH_FAILED, "token: it has expired; private events end here")
            self._end()

    async def _until(self, at_ms: float) -> None:
        while True:
            rest_s = (at_ms - self._access.now_ms()) / 1000
            if rest_s <= 0:
                return
            await trio.sleep(min(rest_s, _LONGEST_SLEEP_S))
