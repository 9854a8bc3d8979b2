"""HTTP requests by one exit, over our own tunnels.

httpx speaks HTTP and httpcore pools the connections; this file is their only importer. httpcore is
given a network of ours: it dials :class:`~trio_feed.net.tunnel.Route`, so a proxy is never passed
by, errors are the tunnel's own, and memory streams and virtual time work. httpcore's timeouts do
not cover every step, so the caller sets one deadline around each request.

Nothing of an answer is acted on here: no cookies, no redirects, and its body stays packed until
:func:`unpack` opens it within a bound.
"""

import ssl
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import httpcore
import trio
from attrs import field, frozen

from ..environment import mono
from ..errors import RestError, TunnelError
from ..imports import without_rich
from ..instants import Mono
from ..rest_dialects import MALFORMED
from .route import Exit, Route
from .tls import start_tls
from .urls import RestUrl

with without_rich():
    import httpx

_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_ANSWER_BYTES = _MAX_BODY_BYTES + 128 * 1024  # headers and chunk framing included
_MAX_CONNECTIONS = 8
_KEEPALIVE_S = 30.0
_FOREIGN = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    *MALFORMED,  # h11 and httpcore parse the head of an answer
)
"""The one table of what comes out of the libraries."""


@frozen
class Request:
    """``where`` names it in errors, without what may be secret."""

    where: str
    method: str
    target: bytes
    body: bytes | None = None


@frozen
class Response:
    """An answer of any status, packed as it came.  ``headers`` have lower-case names; of one that
    came several times the last.  ``sent``: when the request began, a new connection's opening
    included; ``received``: when the headers of the answer were there."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: Mono
    received: Mono


@frozen
class Passed:
    """A client's request and then its answer, as they are: ``fields`` are the header fields in
    order, with those of the hop left out.  ``status`` is the answer's."""

    fields: Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(repr=False)
    status: int = 0
    received: Mono = Mono(0.0)


class HttpPool:
    """The connections to one host that leave by one exit.  The caller closes it."""

    def __init__(self, url: RestUrl, route: Route, exit_: Exit, headers: Mapping[str, str]) -> None:
        self._url = url
        pool = httpcore.AsyncConnectionPool(
            ssl_context=route.tls_context() if url.tls else None,
            max_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_S,
            network_backend=_Network(route, exit_),
        )
        self._pool = pool
        self._client = httpx.AsyncClient(
            transport=_Transport(pool),
            headers={"User-Agent": "trio_feed", "Accept-Encoding": "gzip", **headers},
            trust_env=False,
            follow_redirects=False,
            timeout=None,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, request: Request) -> Response:
        """One request and its whole answer.  It may be sent twice, where a kept connection has
        ended.  Raises RestError, TunnelError."""
        try:
            try:
                return await self._send(request)
            except httpcore.RemoteProtocolError:
                # Most often a kept connection that the peer closed while we began to send.
                return await self._send(request)
        except _FOREIGN as error:
            problem = " ".join(str(error).split())[:200] or type(error).__name__
            raise RestError(f"{request.where}: {problem}") from None

    async def pass_on(self, method: str, target: bytes, asked: Passed) -> Passed:
        """One request as it is, with nothing of ours but ``Host``, and its whole answer, packed as
        it came.  Only a GET may be sent twice.  Raises TunnelError where nothing was sent,
        RestError (without a word of the request) where that is not known."""
        try:
            try:
                return await self._pass_on(method, target, asked)
            except httpcore.RemoteProtocolError:
                if method != "GET":
                    raise
                return await self._pass_on(method, target, asked)
        except _FOREIGN as error:
            raise RestError(f"no whole answer came ({type(error).__name__})") from None

    async def _pass_on(self, method: str, target: bytes, asked: Passed) -> Passed:
        url = self._url
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=method,
                url=httpcore.URL(
                    scheme=b"https" if url.tls else b"http",
                    host=url.host.encode("ascii"),
                    port=url.port,
                    target=target,
                ),
                headers=[(b"Host", url.host_header.encode("ascii")), *asked.fields],
                content=_Sent(asked.body),
            )
        )
        received = mono()
        try:
            body = b"".join([part async for part in answer.aiter_stream()])
        finally:
            await answer.aclose()
        return Passed(answer.headers, body, answer.status, received)

    async def _send(self, request: Request) -> Response:
        url, sent = self._url, mono()
        target = httpx.URL(
            scheme="https" if url.tls else "http",
            host=url.host,
            port=url.port,
            raw_path=request.target,
        )
        headers = {"Host": url.host_header}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        self._client.cookies.clear()
        async with self._client.stream(
            request.method, target, headers=headers, content=request.body
        ) as answer:
            received = mono()
            body = b"".join([part async for part in answer.aiter_raw()])
        found = {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in answer.headers.raw}
        return Response(answer.status_code, found, body, sent, received)


def unpack(response: Response, where: str) -> bytes:
    """The body, of 16 MiB at most: a few KiB of gzip can hold gigabytes.  Raises RestError."""
    encoding, body = response.headers.get("content-encoding", "identity").lower(), response.body
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
                content=_Sent(request.content),
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Sent:
    """The body of a request.  No generator, as httpx has it: one that is left in the middle, where
    the peer hangs up, is complained about by trio when it is collected."""

    def __init__(self, body: bytes) -> None:
        self._parts = [body] if body else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Sent(b"".join(self._parts))

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._answer.aiter_stream()
        async for part in stream:
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
        return _NetworkStream(stream, self._route, self._exit)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _NetworkStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream, route: Route, exit_: Exit) -> None:
        self._stream = stream
        self._route, self._exit = route, exit_
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
        host, timeout_s = server_hostname or "", self._route.timeout_s
        where = f"{host}{self._exit.through}"
        # Not the pool's context: the authorities may have been read anew since it was made.
        context = self._route.tls_context()
        try:
            stream = await start_tls(self._stream, host, context, timeout_s, where=where)
        except TunnelError as error:
            self._route.blame(self._stream, error)
            raise
        return _NetworkStream(stream, self._route, self._exit)

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
