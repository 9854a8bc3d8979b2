"""REST calls to one host, over the same tunnels as the WebSockets.

httpx speaks HTTP and httpcore pools the connections; this file is their only importer.  httpcore is
given a network of ours: it dials :class:`~trio_feed.net.tunnel.Route`, so a proxy is never passed
by, errors are the tunnel's own, and memory streams and virtual time work.  httpcore's timeouts do
not cover every step, so one deadline stands round each call.

Every exit has connections and a weight budget of its own; which exit is next is the route's
decision.  A host that answers 429 or 418 is left alone until the ban it named has ended, by every
exit.
"""

import logging
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx
import msgspec
import structlog
import trio
from attrs import field, frozen

from ..environment import mono
from ..errors import RateLimited, RestError, RestRefused, SettingsError, TunnelError
from ..instants import Exchange, Mono
from .budgets import Weights
from .limits import LONGEST_BAN_S, LONGEST_PAUSE_S, refusal_hint
from .route import Exit, Route
from .tls import start_tls, tls_context

_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_ANSWER_BYTES = _MAX_BODY_BYTES + 128 * 1024  # headers and chunk framing included
_MAX_CONNECTIONS = 8
_KEEPALIVE_S = 30.0
_USED_WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"

_BANNED_UNTIL = re.compile(rb"banned until (\d{13})\b")
_SAME_BAN_S = 1.0  # an end that is later by less is no other ban

ExchangeAt = Callable[[Mono], Exchange | None]
"""``ExchangeClock.evidence``: the exchange's time, None while only our calendar is known."""

_log = structlog.get_logger()

_FOREIGN = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


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


@asynccontextmanager
async def open_rest(
    base_url: str,
    *,
    route: Route,
    timeout_s: float,
    weights: Weights,
    exchange_at: ExchangeAt = lambda _mono: None,
    headers: Mapping[str, str] = {},
) -> AsyncIterator["RestClient"]:
    """A client for ``base_url`` (http or https); its connections close when the block ends.

    ``timeout_s`` is for a whole call without its wait for the budget, which other clients of the
    same exchange may share.  ``exchange_at`` helps where a ban names its end and the answer has no
    ``Date``.  ``headers`` go with every call (a provider's key; never logged).  Raises
    SettingsError for a URL that is none.
    """
    _check_url(base_url)
    if base_url.startswith("https"):
        tls_context(route.ca_file)  # raises what is wrong with it now and not at the first call
    for library in ("httpx", "httpcore"):  # they log full URLs at INFO
        logging.getLogger(library).setLevel(logging.WARNING)
    async with AsyncExitStack() as stack:
        yield RestClient(base_url, route, timeout_s, weights, exchange_at, stack, headers)


class RestClient:
    """Made by :func:`open_rest`; any number of tasks may call it at once."""

    def __init__(
        self,
        base_url: str,
        route: Route,
        timeout_s: float,
        weights: Weights,
        exchange_at: ExchangeAt,
        stack: AsyncExitStack,
        headers: Mapping[str, str],
    ) -> None:
        parts = urlsplit(base_url)
        self._base_url, self._route, self._timeout_s = base_url, route, timeout_s
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._weights, self._exchange_at = weights, exchange_at
        self._stack, self._headers = stack, headers
        self._clients: dict[Exit, httpx.AsyncClient] = {}

    def __repr__(self) -> str:
        return f"<RestClient {self._host} {self._weights!r}>"

    async def get(self, path: str, params: Mapping[str, str | int], *, weight: int = 1) -> Answer:
        """A 200 with a body of at most 16 MiB, once the budget allows ``weight``.

        Raises RateLimited (without sending anything while a ban is in force), RestRefused,
        RestError, TunnelError.
        """
        call = _Call(f"{self._host}{path}", "GET", path, params)
        return await self._answer(call, weight)

    async def post(self, body: bytes, *, name: str, weight: int = 1) -> Answer:
        """A 200 to a POST of the JSON ``body`` to the base URL; as :meth:`get`.

        Like a GET it may be sent twice, where a kept connection has ended: for reads only.
        ``name`` stands in errors in place of the path, which may hold a key.
        """
        call = _Call(f"{self._host} {name}", "POST", self._base_url, {}, body)
        return await self._answer(call, weight)

    async def _answer(self, call: "_Call", weight: int) -> Answer:
        where = call.where

        async def admit(exit_: Exit, still: Callable[[], bool]) -> bool:
            def ask() -> float | None:
                self._refuse_while_banned()
                if not still():
                    return None
                return self._weights.at(exit_.name).delay_s(weight, mono())

            return await self._weights.line(exit_.name).take(ask)

        async def use(exit_: Exit) -> tuple[Exit, _Heard]:
            return exit_, await self._ask(exit_, call)

        exit_, heard = await self._route.by_exits(
            self._host, self._port, tls=self._tls, use=use, admit=admit
        )
        response, body = heard.response, heard.body
        used = response.headers.get(_USED_WEIGHT_HEADER, "")
        if used.isascii() and used.isdigit():
            self._weights.at(exit_.name).observed(int(used), mono())
        if response.status_code in (418, 429):
            raise self._banned(heard, where)
        if response.status_code != 200:
            raise _refusal(response.status_code, body, where)
        self._weights.bans.accepted()
        plain = _unpacked(response, body, where)
        return Answer(plain, _date_ms(response), heard.sent, heard.received)

    async def _ask(self, exit_: Exit, call: "_Call") -> "_Heard":
        """One request by one exit, and its whole answer."""
        client, where = self._client(exit_), call.where
        try:
            with trio.fail_after(self._timeout_s):
                try:
                    return await call.send(client)
                except httpcore.RemoteProtocolError:
                    # Most often a kept connection that the peer closed while we began to send.
                    return await call.send(client)
        except trio.TooSlowError:
            raise RestError(f"{where}: no answer within {self._timeout_s:g} s") from None
        except _FOREIGN as exc:
            problem = " ".join(str(exc).split())[:200] or type(exc).__name__
            raise RestError(f"{where}: {problem}") from None

    def _client(self, exit_: Exit) -> httpx.AsyncClient:
        """The connections that leave by this exit."""
        if exit_ not in self._clients:
            pool = httpcore.AsyncConnectionPool(
                ssl_context=tls_context(self._route.ca_file) if self._tls else None,
                max_connections=_MAX_CONNECTIONS,
                keepalive_expiry=_KEEPALIVE_S,
                network_backend=_Network(self._route, exit_),
            )
            client = self._clients[exit_] = httpx.AsyncClient(
                base_url=self._base_url,
                transport=_Transport(pool),
                headers={
                    "User-Agent": "trio_feed",
                    "Accept-Encoding": "gzip",
                    **self._headers,
                },
                trust_env=False,
                follow_redirects=False,
                timeout=None,
            )
            self._stack.push_async_callback(client.aclose)
        return self._clients[exit_]

    def _refuse_while_banned(self) -> None:
        bans = self._weights.bans
        if left_s := bans.left_s(mono()):
            problem = f"not asked, it wants no calls for {left_s:.0f} s"
            raise RateLimited(f"{self._host}: {problem}", bans.until)

    def _banned(self, heard: "_Heard", where: str) -> RateLimited:
        """What the answer says about the ban counts from now on; the log has one line per ban,
        and not one for each call that was on the way when it began."""
        status, now, bans = heard.response.status_code, mono(), self._weights.bans
        before_s = bans.left_s(now)
        named_s = _named_s(heard, self._exchange_at)
        if named_s is None:
            bans.ban_by_default(now, escalate=status == 418)
        else:
            is_ban = status == 418 or _BANNED_UNTIL.search(heard.body)
            bans.ban(now, named_s, longest_s=LONGEST_BAN_S if is_ban else LONGEST_PAUSE_S)
        left_s = bans.left_s(now)
        said = f"; it named {named_s:g} s" if named_s is not None and named_s > left_s else ""
        hint = refusal_hint(status)
        if left_s > before_s + _SAME_BAN_S:
            _log.warning(
                "rest.banned",
                host=self._host,
                status=status,
                wait_s=round(left_s, 1),
                named_s=None if named_s is None else round(named_s, 1),
                problem=hint,
            )
        problem = f"{where}: {status} ({hint}); no calls for {left_s:.0f} s{said}"
        return RateLimited(problem, bans.until)


@frozen
class _Heard:
    """An answer of any status, packed as it came.  ``received``: when its headers were there."""

    response: httpx.Response
    body: bytes
    sent: Mono
    received: Mono


@frozen
class _Call:
    """``where`` names it in errors, without what may be secret."""

    where: str
    method: str
    url: str
    params: Mapping[str, str | int]
    body: bytes | None = None

    async def send(self, client: httpx.AsyncClient) -> _Heard:
        sent = mono()
        async with client.stream(
            self.method,
            self.url,
            params=dict(self.params) or None,
            content=self.body,
            headers={} if self.body is None else {"Content-Type": "application/json"},
        ) as response:
            received = mono()
            body = b"".join([part async for part in response.aiter_raw()])
            return _Heard(response, body, sent, received)


class _Refused(msgspec.Struct):
    code: int | str | None = None
    msg: str = ""


def _refusal(status: int, body: bytes, where: str) -> RestRefused:
    try:
        answer = msgspec.json.decode(body, type=_Refused)
    except msgspec.MsgspecError:
        answer = _Refused()
    digits = re.fullmatch(r"-?\d{1,9}", str(answer.code))
    code = int(digits[0]) if digits else None
    said = f" {code}" if code is not None else ""
    said += f" {' '.join(answer.msg.split())[:200]!r}" if answer.msg else ""
    return RestRefused(f"{where}: {status}{said} ({refusal_hint(status)})", status, code)


def _named_s(heard: _Heard, exchange_at: ExchangeAt) -> float | None:
    """How long the exchange wants no calls, or None where it names no end in the future.

    An end on its clock is measured by its clock only: by the answer's ``Date``, which is in whole
    seconds and so at most a second behind it, or by ``exchange_at``; our calendar may be hours off,
    and who asks early is banned for longer.
    """
    if match := _BANNED_UNTIL.search(heard.body):
        date_ms, at = _date_ms(heard.response), exchange_at(heard.received)
        began_ms = date_ms if date_ms is not None or at is None else float(at)
        if began_ms is not None and (left_ms := float(match[1]) - began_ms) > 0:
            return left_ms / 1000
    retry_after = heard.response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,20}", retry_after) and int(retry_after) > 0:
        return float(retry_after)
    return None


def _date_ms(response: httpx.Response) -> float | None:
    """RFC 9110, 6.6.1; None where there is none, none that makes sense, or where a cache answered
    (``Age``, RFC 9111, 5.1): then it is of another moment."""
    if response.headers.get("Age", "0").strip() != "0":
        return None
    try:
        moment = parsedate_to_datetime(response.headers.get("Date", ""))
        return moment.timestamp() * 1000 if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _unpacked(response: httpx.Response, body: bytes, where: str) -> bytes:
    """httpx would unpack without a bound: a few KiB can hold gigabytes."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise RestError(f"{where}: its encoding {encoding[:20]!r} was not asked for")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, _MAX_BODY_BYTES)
    except zlib.error:
        raise RestError(f"{where}: its gzip does not unpack") from None
    if unpacker.unconsumed_tail:
        raise RestError(f"{where}: more than {_MAX_BODY_BYTES} bytes")
    if not unpacker.eof:
        raise RestError(f"{where}: its gzip is cut short")
    return plain


def _check_url(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError("rest_url", "is not an http:// or https:// URL")


class _Transport(httpx.AsyncBaseTransport):
    """httpx's requests in, the pool's responses out.  Owns the pool."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Network(httpcore.AsyncNetworkBackend):
    """Where httpcore dials: one exit of our route.  Its own timeouts are not used."""

    def __init__(self, route: Route, exit_: Exit) -> None:
        self._route, self._exit = route, exit_

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._route.through(self._exit, host, port, None)
        return _NetworkStream(stream, self._route)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _NetworkStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream, route: Route) -> None:
        self._stream = stream
        self._route = route
        self._answer_bytes = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise httpcore.ReadError("the connection was reset in mid-answer") from None
        self._answer_bytes += len(data)
        if self._answer_bytes > _MAX_ANSWER_BYTES:  # raised here, every generator above unwinds
            raise httpcore.ReadError(f"its answer is larger than {_MAX_BODY_BYTES} bytes")
        return bytes(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._answer_bytes = 0
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise httpcore.WriteError("the connection was reset") from None

    async def aclose(self) -> None:
        """Forceful: httpcore closes under a shield, so nothing may wait here."""
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        timeout_s = self._route.timeout_s
        try:
            stream = await start_tls(self._stream, server_hostname or "", ssl_context, timeout_s)
        except TunnelError as error:
            self._route.blame(self._stream, error)
            raise
        return _NetworkStream(stream, self._route)

    def get_extra_info(self, info: str) -> Any:
        """Only ``is_readable``: an idle connection with something to read is at its end."""
        if info != "is_readable":
            return None
        stream: object = self._stream
        while not isinstance(stream, trio.SocketStream):
            stream = getattr(stream, "transport_stream", None)
            if stream is None:
                return False
        return stream.socket.is_readable()
