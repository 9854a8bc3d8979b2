"""REST calls to one host, over the same tunnels as the WebSockets.

Every exit has connections (:mod:`.http`) and a weight budget of its own; which exit is next is the
route's decision.  What an answer says about limits and refusals is read by the venue's dialect
(:mod:`trio_feed.rest_dialects`).  A host that wants no calls is left alone until the end that it
named has come, by every exit.

What a remote says is bounded and never ends the process: whatever its parsers raise is caught in
:meth:`RestClient._read`, the request goes on without it, and the log says so now and then.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TypeVar

import structlog
import trio
from attrs import evolve, field, frozen

from ..environment import mono
from ..errors import NetworkError, RateLimited, RestError, RestRefused, TunnelTimeout
from ..instants import Exchange, Mono
from ..model.escapes import with_whole_characters
from ..rest_dialects import MALFORMED, MOST_WEIGHT, HttpDialect, Limited, Refusal, RestDialect
from ..telemetry import Spans
from .budgets import Weights
from .http import HttpPool, Passed, Request, Response, unpack
from .limits import LONGEST_BAN_S, LONGEST_PAUSE_S, status_hint
from .route import Exit, Route
from .urls import RestUrl

_SAME_BAN_S = 1.0  # an end that is later by less is no other ban
_ODD_AGAIN_S = 60.0
"""An odd answer of the same kind is logged once in so long."""
_EARLIEST_MS, _LATEST_MS = 946_684_800_000, 4_102_444_800_000
"""2000 and 2100: a ``Date`` outside is nobody's time."""
_MS = 1_000

ExchangeAt = Callable[[Mono], Exchange | None]
"""``ExchangeClock.evidence``: the exchange's time, None while only our calendar is known."""

_T = TypeVar("_T")
_log = structlog.get_logger()


@frozen
class Answer:
    """A 200.

    ``date_ms`` is its ``Date`` header, the exchange's unix ms in whole seconds, None where there is
    none that can be used.  The exchange said it between ``sent`` (the request began, a new
    connection's opening included) and ``received`` (the answer's headers were there).
    """

    body: bytes = field(repr=False)
    date_ms: float | None
    sent: Mono
    received: Mono


@frozen
class RestSettings:
    """How one host is asked.

    ``timeout_s`` is for a whole call without its wait for the budget ``weights``, which other
    clients of the same exchange may share.  ``exchange_at`` helps where a ban names its end and the
    answer has no ``Date``.  ``headers`` go with every call (a provider's key; never logged).
    ``spans``: each call is one, its wait for the budget included.
    """

    timeout_s: float
    weights: Weights
    dialect: RestDialect = field(factory=HttpDialect)
    exchange_at: ExchangeAt = lambda _mono: None
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    spans: Spans = field(factory=Spans)


@asynccontextmanager
async def open_rest(
    base_url: str,
    *,
    route: Route,
    timeout_s: float,
    weights: Weights,
    dialect: RestDialect | None = None,
    exchange_at: ExchangeAt = lambda _mono: None,
    headers: Mapping[str, str] = {},
    spans: Spans | None = None,
) -> AsyncIterator["RestClient"]:
    """A client for ``base_url`` (http or https); its connections close when the block ends.

    The other arguments are those of :class:`RestSettings`.  Raises SettingsError for a URL that is
    none.
    """
    url = RestUrl.parse(base_url)
    if url.tls:
        route.tls_context()  # raises what is wrong with it now and not at the first call
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)  # below, they log full URLs
    settings = RestSettings(
        timeout_s, weights, dialect or HttpDialect(), exchange_at, headers, spans or Spans()
    )
    async with AsyncExitStack() as stack:
        yield RestClient(url, route, settings, stack)


class RestClient:
    """Made by :func:`open_rest`; any number of tasks may call it at once.

    ``problem``: why the last call failed, in one line; empty: it did not.
    """

    def __init__(
        self, url: RestUrl, route: Route, settings: RestSettings, stack: AsyncExitStack
    ) -> None:
        self._url, self._route, self._settings, self._stack = url, route, settings, stack
        self._weights, self._dialect = settings.weights, settings.dialect
        self._pools: dict[Exit, HttpPool] = {}
        self._passing: dict[Exit, HttpPool] = {}  # apart, so that clients keep nobody from asking
        self._odd_again: dict[str, Mono] = {}
        self.problem = ""

    def __repr__(self) -> str:
        return f"<RestClient {self._url.host} {self._weights!r}>"

    async def get(self, path: str, params: Mapping[str, str | int], *, weight: int = 1) -> Answer:
        """A 200 with a body of at most 16 MiB, once the budget allows ``weight``.

        Raises RateLimited (without sending anything while a ban is in force), RestRefused,
        RestError, TunnelError.
        """
        where, target = f"{self._url.host}{path}", self._url.with_path(path, params)
        return await self._answer(Request(where, "GET", target), weight)

    async def post(self, body: bytes, *, name: str, weight: int = 1) -> Answer:
        """A 200 to a POST of the JSON ``body`` to the base URL; as :meth:`get`.

        Like a GET it may be sent twice, where a kept connection has ended: for reads only.
        ``name`` stands in errors in place of the path, which may hold a key.
        """
        request = Request(f"{self._url.host} {name}", "POST", self._url.itself, body)
        return await self._answer(request, weight)

    def spent(self, exit_name: str, weight: int) -> None:
        """So much of the budget of an exit was used by something else, which has been sent."""
        self._weights.at(exit_name).spent(weight, mono())

    async def pass_on(self, method: str, target: bytes, asked: Passed, *, weight: int) -> Passed:
        """A client's own request (``target``: below the base URL, as the client wrote it) and the
        answer, of any status; its 429 and 418 count for everybody who asks this exchange.

        It waits for no budget.  Raises RateLimited (nothing was sent; ``until``: when there is
        room), TunnelError (nothing was sent), RestError: nobody knows whether it arrived.
        """
        target = self._url.path.rstrip("/").encode("ascii") + target

        async def admit(exit_: Exit, _still: Callable[[], bool]) -> bool:
            self._refuse_while_banned()
            now = mono()
            if delay_s := self._weights.at(exit_.name).delay_s(weight, now):
                problem = f"{self._url.host}: the budget has no room for {delay_s:.0f} s"
                raise RateLimited(problem, now + delay_s)
            return True

        async def use(exit_: Exit) -> tuple[Exit, Passed]:
            pool = self._pool(self._passing, exit_, {})
            try:
                with trio.fail_after(self._settings.timeout_s):
                    return exit_, await pool.pass_on(method, target, asked)
            except trio.TooSlowError:
                problem = f"no answer within {self._settings.timeout_s:g} s"
                raise RestError(problem) from None

        exit_, answer = await self._route.by_exits(
            self._url.host, self._url.port, tls=self._url.tls, use=use, admit=admit
        )
        headers = {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in answer.fields}
        dialect, status, body = self._dialect, answer.status, answer.body
        self._count(exit_, self._read("weight", lambda: dialect.used_weight(headers), None))
        limited = self._read("limit", lambda: dialect.limited(status, headers, body), None)
        if limited is not None:
            date_ms = self._read("date", lambda: _date_ms(headers), None)
            response = Response(status, headers, body, answer.received, answer.received)
            self._banned(limited, response, date_ms, f"{self._url.host} (passed on)")
        # Its other refusals are the client's: a 403 may be about what it sent, not about our exit.
        return answer

    async def _answer(self, request: Request, weight: int) -> Answer:
        began, result = mono(), "cancelled"
        try:
            answer = await self._try(request, weight)
            result = ""
        except NetworkError as error:
            self.problem, result = str(error), type(error).__name__
            raise
        finally:
            add = self._settings.spans.add
            add("rest.call", mono() - began, error=result, what=request.where, weight=weight)
        self.problem = ""
        return answer

    async def _try(self, request: Request, weight: int) -> Answer:
        async def admit(exit_: Exit, still: Callable[[], bool]) -> bool:
            def ask() -> float | None:
                self._refuse_while_banned()
                if not still():
                    return None
                return self._weights.at(exit_.name).delay_s(weight, mono())

            return await self._weights.queue(exit_.name).take(ask)

        async def use(exit_: Exit) -> tuple[Exit, Request, Response]:
            named = evolve(request, where=f"{request.where}{exit_.through}")
            return exit_, named, await self._ask(exit_, named)

        exit_, request, response = await self._route.by_exits(
            self._url.host, self._url.port, tls=self._url.tls, use=use, admit=admit
        )
        dialect, status, headers = self._dialect, response.status, response.headers
        self._count(exit_, self._read("weight", lambda: dialect.used_weight(headers), None))
        limited = self._read("limit", lambda: dialect.limited(status, headers, response.body), None)
        date_ms = self._read("date", lambda: _date_ms(headers), None)
        if limited is not None:
            raise self._banned(limited, response, date_ms, request.where)
        if status != 200:
            refused = self._refused(response, request.where)
            if refused.blocked:  # a region, say: another exit may be let in
                self._route.blame_exit(exit_, refused)
            raise refused
        self._route.accepted_by(exit_)
        body = unpack(response, request.where)
        self._weights.bans.accepted()
        return Answer(with_whole_characters(body), date_ms, response.sent, response.received)

    async def _ask(self, exit_: Exit, request: Request) -> Response:
        """One request by one exit, and its whole answer."""
        pool = self._pool(self._pools, exit_, self._settings.headers)
        try:
            with trio.fail_after(self._settings.timeout_s):
                return await pool.send(request)
        except trio.TooSlowError:
            problem = f"{request.where}: no answer within {self._settings.timeout_s:g} s"
            self._route.blame_exit(exit_, TunnelTimeout(problem, "TLS handshake"))  # or behind it
            raise RestError(problem) from None

    def _pool(
        self, pools: dict[Exit, HttpPool], exit_: Exit, headers: Mapping[str, str]
    ) -> HttpPool:
        if exit_ not in pools:
            pools[exit_] = HttpPool(self._url, self._route, exit_, headers)
            self._stack.push_async_callback(pools[exit_].aclose)
        return pools[exit_]

    def _read(self, part: str, read: Callable[[], _T], otherwise: _T) -> _T:
        """The edge where text of the remote is parsed: what cannot be read is ``otherwise``."""
        try:
            return read()
        except MALFORMED as error:
            self._odd(part, " ".join(str(error).split())[:200] or type(error).__name__)
            return otherwise

    def _odd(self, part: str, problem: str) -> None:
        now = mono()
        if now >= self._odd_again.get(part, now):
            self._odd_again[part] = now + _ODD_AGAIN_S
            _log.warning("rest.odd_answer", host=self._url.host, part=part, problem=problem)

    def _count(self, exit_: Exit, used_weight: int | None) -> None:
        if used_weight is None:
            return
        if used_weight >= MOST_WEIGHT:
            self._odd("weight", f"a used weight of {MOST_WEIGHT} or more")
        self._weights.at(exit_.name).observed(used_weight, mono())

    def _refuse_while_banned(self) -> None:
        bans = self._weights.bans
        if left_s := bans.left_s(mono()):
            problem = f"not asked, it wants no calls for {left_s:.0f} s"
            raise RateLimited(f"{self._url.host}: {problem}", bans.until)

    def _banned(
        self, limited: Limited, response: Response, date_ms: float | None, where: str
    ) -> RateLimited:
        """What the answer says about the ban counts from now on; the log has one line per ban,
        and not one for each call that was on the way when it began."""
        now, bans = mono(), self._weights.bans
        before_s = bans.left_s(now)
        named_s = self._named_s(limited, date_ms, response.received)
        if named_s is None:
            bans.ban_by_default(now, escalate=limited.ban)
        else:
            longest_s = LONGEST_BAN_S if limited.ban else LONGEST_PAUSE_S
            bans.ban(now, named_s, longest_s=longest_s)
        left_s = bans.left_s(now)
        said = f"; it named {named_s:g} s" if named_s is not None and named_s > left_s else ""
        hint = status_hint(response.status, self._dialect.hints)
        if left_s > before_s + _SAME_BAN_S:
            _log.warning(
                "rest.banned",
                host=self._url.host,
                status=response.status,
                wait_s=round(left_s, 1),
                named_s=None if named_s is None else round(named_s, 1),
                problem=hint,
            )
        problem = f"{where}: {response.status} ({hint}); no calls for {left_s:.0f} s{said}"
        return RateLimited(problem, bans.until)

    def _named_s(self, limited: Limited, date_ms: float | None, received: Mono) -> float | None:
        """How long the exchange wants no calls, or None where it names no end in the future.

        An end on its clock is measured by its clock only: by the answer's ``Date``, which is in
        whole seconds and so at most a second behind it, or by ``exchange_at``; our calendar may be
        hours off, and who asks early is banned for longer.
        """
        if limited.until_ms is not None:
            at = self._settings.exchange_at(received)
            began_ms = date_ms if date_ms is not None or at is None else float(at)
            if began_ms is not None and (left_ms := limited.until_ms - began_ms) > 0:
                return left_ms / _MS
        return limited.after_s

    def _refused(self, response: Response, where: str) -> RestRefused:
        refusal = self._read("refusal", lambda: self._dialect.refusal(response.body), Refusal())
        said = f" {refusal.code}" if refusal.code is not None else ""
        said += f" {refusal.text!r}" if refusal.text else ""
        hint = status_hint(response.status, self._dialect.hints)
        blocked = refusal.blocked or response.status in self._dialect.blocking
        problem = f"{where}: {response.status}{said} ({hint})"
        return RestRefused(problem, response.status, refusal.code, blocked=blocked)


def _date_ms(headers: Mapping[str, str]) -> float | None:
    """RFC 9110, 6.6.1; None where there is none, none that makes sense, or where a cache answered
    (``Age``, RFC 9111, 5.1): then it is of another moment.  Raises MALFORMED."""
    text = headers.get("date", "")
    if not text or headers.get("age", "0").strip() != "0":
        return None
    moment = parsedate_to_datetime(text[:100])
    date_ms = moment.timestamp() * _MS
    return date_ms if moment.tzinfo and _EARLIEST_MS < date_ms < _LATEST_MS else None
