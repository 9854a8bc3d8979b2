"""A client's WebSocket to the exchange, through us: messages pass both ways as they are.

Buffers are bounded on both sides: a side that does not read makes the other one wait, and it is
closed with either of them.  What passes is not logged, and read only for what a request weighs at
the exchange (``weigh``).  The exchange's binary messages stay binary; one of a client closes its
tunnel (1003), as no exchange of ours takes such.
"""

from collections.abc import Callable
from typing import Any

import structlog
import trio

from ..errors import ConnectionLost, NetworkError
from ..push.fanout.sender import ClientTimeouts, Close
from ..push.mounts import Opening
from ..push.private.auth import Identity
from ..push.protocol import AUTH_FAILURES, RESTARTING
from ..push.session import Receive
from .outside import Line
from .passing import Passing
from .session import POLICY, QuietVoice

log = structlog.get_logger()

_TRY_LATER = 1013
_NOT_TEXT = 1003
_SENDABLE = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013}
_LONGEST_SLEEP_S = 60.0


class Tunnel:
    """See :class:`trio_feed.push.mounts.Conversation`.  ``identity``: who showed a token."""

    def __init__(
        self,
        passing: Passing,
        opening: Opening,
        identity: Identity | None,
        where: tuple[str, str],
        shown: str,
        weigh: Callable[[str], int] = lambda _request: 0,
    ) -> None:
        context = passing.context
        self._weigh = weigh
        self._passing, self._identity, self._where, self._shown = passing, identity, where, shown
        voice = QuietVoice(POLICY, "slow consumer")
        self._sender = context.sender(
            opening.transport, opening.account, voice, deflated=opening.deflated
        )

    def __repr__(self) -> str:
        return f"<Tunnel {self.client_id} {self._shown}>"

    @property
    def client_id(self) -> str:
        return self._sender.client_id

    @property
    def engaged(self) -> bool:
        return True

    async def run(self, receive: Receive, close: Close) -> None:
        """See :meth:`trio_feed.push.mounts.Conversation.run`."""
        passing = self._passing
        async with self._sender.serving(close):
            if passing.full:
                self._sender.leave(_TRY_LATER, "too many WebSockets are passed on", None)
                return
            passing.tunnels += 1
            try:
                await self._pass(receive)
            except ConnectionLost as lost:
                passing.say("WS", self._shown, lost.code)
                code = lost.code if lost.code in _SENDABLE or 3000 <= lost.code < 5000 else 1011
                self._sender.leave(code, lost.reason.encode()[:120].decode(errors="ignore"), None)
            except NetworkError:
                passing.say("WS", self._shown, "not reached")
                self._sender.leave(_TRY_LATER, "the exchange is not reached", None)
            finally:
                passing.tunnels -= 1

    async def _pass(self, receive: Receive) -> None:
        """Returns when the client has gone; raises NetworkError when the exchange has."""
        lost: NetworkError | None = None
        async with self._passing.outside.dial(*self._where) as line:
            self._passing.say("WS", self._shown, 101)
            async with trio.open_nursery() as nursery:

                async def downwards() -> None:
                    nonlocal lost
                    try:
                        await self._downwards(line)
                    except NetworkError as error:
                        lost = error
                        nursery.cancel_scope.cancel()

                nursery.start_soon(downwards, name="tunnel downwards")
                nursery.start_soon(self._expire, name="tunnel token")
                try:
                    await self._upwards(line, receive)
                except NetworkError as error:
                    lost = error
                nursery.cancel_scope.cancel()
        if lost is not None:
            raise lost

    async def _upwards(self, line: Line, receive: Receive) -> None:
        while (message := await receive()) is not None and not self._sender.leaving:
            if not isinstance(message, str):
                self._sender.leave(_NOT_TEXT, "text only", None)
                return
            await line.send(message, self._weigh(message))

    async def _downwards(self, line: Line) -> None:
        while True:
            for message in await line.receive_many():
                if isinstance(message, str):
                    self._sender.reply(message)
                else:
                    self._sender.reply_bytes(message)
                await self._sender.wait_capacity()

    async def _expire(self) -> None:
        """A JWT ends what it opened."""
        ends_ms = None if self._identity is None else self._identity.ends_ms
        if ends_ms is None:
            return
        now_ms: Callable[[], float] = self._passing.context.now_ms
        while True:
            rest_s = (ends_ms - now_ms()) / 1000
            if rest_s <= 0:
                break
            await trio.sleep(min(rest_s, _LONGEST_SLEEP_S))
        self._sender.leave(AUTH_FAILURES, "the token has expired", None)

    def statistics(self) -> dict[str, Any]:
        authenticated = self._identity is not None
        return {**self._sender.statistics(), "authenticated": authenticated}

    def sweep(self, now: float, timeouts: ClientTimeouts) -> int:
        return self._sender.sweep(now, timeouts)

    def end_if_revoked(self) -> None:
        key = None if self._identity is None else self._identity.key
        if key is not None and self._passing.context.access.authenticator.is_revoked(key):
            self._sender.leave(AUTH_FAILURES, "the API key was revoked", None)

    def too_many(self, problem: str, text: str | bytes) -> None:
        """Nothing may be left out of what passes."""
        self._sender.leave(POLICY, problem, None)

    def flooded(self, problem: str, text: str | bytes) -> None:
        self._sender.leave(POLICY, problem, None)

    def unused(self, problem: str) -> None:
        """Never: it is engaged."""

    def restarting(self, after_ms: int) -> None:
        self._sender.leave(RESTARTING, "service restart", None)
