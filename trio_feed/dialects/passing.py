"""Pass-through: what a dialect does not serve goes to the exchange as the client signed it.

Off unless the settings name it, method and path.  Nothing of a request is logged but these and the
status: query, header fields and body hold keys and signatures.  Who may use it: clients of this
machine, and those who show a token of ours (``Authorization: Bearer``, which stays here).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import ceil
from typing import Protocol

import structlog
import trio
from attrs import define, field, frozen

from ..environment import mono
from ..errors import NetworkError, RateLimited, TunnelError
from ..push.context import SessionContext
from ..push.edge.admission import is_loopback
from ..push.mounts import Errand, Question, Reply
from ..push.private.auth import AuthError, Identity
from ..settings import Secret
from .outside import Answered, Outside, Signed

log = structlog.get_logger()

_AT_ONCE, _MOST_WAITING, _WAIT_S = 8, 64, 5.0
_LOOK_S = 0.01
_PATIENCE_S = 3.0
"""So long room in the budget is waited for: where an exchange counts by the second there is some
soon, and a bot would only ask again."""
_MOST_TUNNELS = 64
_BODY_BYTES = 256 * 1024
_OF_THE_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
"""RFC 9110, 7.6.1; and what ``Connection`` names."""
_OURS = {b"host", b"content-length", b"authorization", b"cookie", b"expect"}
"""Of a request: about us or for us."""
_BROUGHT = (b"forwarded", b"via", b"x-forwarded-", b"x-real-ip")
"""What a proxy in front of us adds: who comes by one is not this machine's client."""
_SERVERS = {b"content-length", b"date"}
"""Of an answer: written by our server again."""


class Words(Protocol):
    """A dialect's errors."""

    def no_room(self, after_s: int) -> Reply:
        """The budget of request weight is used up, or the exchange wants no calls now."""

    def not_sent(self, problem: str) -> Reply:
        """The exchange is not in reach."""

    def unknown(self) -> Reply:
        """No answer came: nobody knows whether the request was carried out."""

    def not_let_in(self, problem: str) -> Reply:
        """The client is neither of this machine nor shows a token."""

    def too_large(self) -> Reply:
        """Its body."""


@define(eq=False)
class Passing:
    """Of one dialect.  ``entries`` are (method, path) of the settings; WS for a WebSocket."""

    venue: str
    entries: frozenset[tuple[str, str]]
    outside: Outside
    context: SessionContext
    api_url: str = ""
    """Of the WebSocket that takes signed requests; empty: the exchange's own."""
    _places: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(_AT_ONCE))
    tunnels: int = 0
    """How many WebSockets are passed on now."""

    def errands(
        self, words: Words, weigh: Callable[[str, str], int] = lambda _method, _path: 1
    ) -> dict[tuple[str, str], Errand]:
        """Of the entries that are no WebSockets.  ``weigh``: an entry's request weight."""
        return {
            (method, path): _Passed(self, method, path, words, weigh(method, path)).errand
            for method, path in self.entries
            if method != "WS"
        }

    def has(self, method: str, path: str) -> bool:
        return (method, path) in self.entries

    @property
    def full(self) -> bool:
        """No further WebSocket."""
        return self.tunnels >= _MOST_TUNNELS

    def let_in(self, question: Question) -> Identity | None:
        """Who it is; None: a client of this machine.  Raises AuthError for a stranger."""
        brought = any(name.startswith(_BROUGHT) for name, _ in question.fields)
        scheme, _, token = question.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            access = self.context.access
            try:
                found = access.authenticator.authenticate(Secret(token.strip()), access.now_ms())
            except AuthError:
                access.metrics.auths.labels("refused").inc()
                raise
            access.metrics.auths.labels("accepted").inc()
            return found
        if is_loopback(question.host) and not brought:
            return None
        raise AuthError("Authorization: Bearer <key of trio_feed> is missing")

    def say(self, method: str, path: str, status: int | str) -> None:
        """One line of the log."""
        lines, now = self.context.hub.lines, trio.current_time()
        facts = {"venue": self.venue, "method": method, "path": path, "status": status}
        lines.say(log.info, "dialect.passed_on", now, **facts)

    async def ask(self, signed: Signed, weight: int, words: Words) -> Reply:
        """The exchange's answer, or the dialect's word for what kept it away."""
        if self._places.statistics().tasks_waiting >= _MOST_WAITING:
            return words.no_room(1)
        with trio.move_on_after(_WAIT_S) as waiting:
            async with self._places:
                waiting.deadline = float("inf")
                try:
                    answer = await self._ask(signed, weight)
                except RateLimited as limited:
                    return words.no_room(max(1, ceil(limited.until - mono())))
                except TunnelError as error:
                    return words.not_sent(str(error))
                except NetworkError:
                    return words.unknown()
                return Reply(answer.body, answer.status, fields=_returned(answer))
        return words.no_room(1)

    async def _ask(self, signed: Signed, weight: int) -> Answered:
        """Raises as :meth:`.Outside.ask`; that says what was not sent at all."""
        latest = mono() + _PATIENCE_S
        while True:
            try:
                return await self.outside.ask(signed, weight)
            except RateLimited as limited:
                if limited.until > latest:
                    raise
                await trio.sleep(max(_LOOK_S, limited.until - mono()))


@frozen
class _Passed:
    """One method and path."""

    passing: Passing
    method: str
    path: str
    words: Words
    weight: int

    def errand(self, question: Question) -> Reply | Callable[[bytes], Awaitable[Reply]]:
        raw, _, _ = question.target.partition(b"?")
        if raw != self.path.encode():  # written in another way: the exchange may read it otherwise
            return self.words.not_let_in("its path has to be written without escapes")
        try:
            self.passing.let_in(question)
        except AuthError as problem:
            return self.words.not_let_in(str(problem))
        length = question.headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 9 or int(length) > _BODY_BYTES:
            return self.words.too_large()

        async def passed_on(body: bytes) -> Reply:
            if len(body) > _BODY_BYTES:
                return self.words.too_large()
            fields = sent_fields(question.fields)
            if body or self.method not in ("GET", "DELETE"):
                fields.append((b"content-length", b"%d" % len(body)))
            signed = Signed(self.method, question.target, fields, body)
            reply = await self.passing.ask(signed, self.weight, self.words)
            self.passing.say(self.method, self.path, reply.status)
            return reply

        return passed_on


def sent_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What of a client's header fields goes to the exchange."""
    listed = [*fields]
    left_out = _OF_THE_HOP | _OURS | _named(listed)
    return [(n, v) for n, v in listed if n not in left_out and not n.startswith(_BROUGHT)]


def _returned(answer: Answered) -> Sequence[tuple[bytes, bytes]]:
    listed = [(name.lower(), value) for name, value in answer.fields]
    left_out = _OF_THE_HOP | _SERVERS | _named(listed)
    return [(name, value) for name, value in listed if name not in left_out]


def _named(fields: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """By ``Connection``."""
    values = [value for name, value in fields if name == b"connection"]
    return {word.strip().lower() for value in values for word in value.split(b",")}
