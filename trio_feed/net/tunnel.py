"""The way to an exchange's endpoint: direct, HTTP CONNECT or SOCKS5, and TLS on top.

Fail closed: where there is a proxy, ``dial`` is given the proxy's address and nothing else, and
the target's name goes to the proxy as it is; it is never resolved here.

Why not a library: python-socks takes one ``read()`` for the whole CONNECT reply and hands the rest
of a split reply to TLS; httpcore's SOCKS handshake knows no deadline.  So:

- CONNECT (RFC 9110 section 9.3.6; credentials: Basic, RFC 7617, and Digest where that is asked for,
  :mod:`.digest`): h11 parses the reply however it is cut, and what came behind its header is given
  back as the tunnel's first bytes.
- SOCKS5: :mod:`.socks`.

A :class:`Route` with a pool tries each of its healthy proxies at most once per call, the next at
once when one fails: the caller is through after one dead proxy's deadline and not after a backoff
on top of it, and a dead proxy cools down at its first failure, so hardly anybody dials it twice.

Every step has ``timeout_s`` of its own and a name (:data:`trio_feed.net.tls.Step`).  Whatever goes
wrong, the half-open stream is closed before the exception leaves.  Messages are one line and
carry no secret.
"""

import base64
import re
import secrets
import ssl
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import h11
import trio

from ..environment import Dial
from ..errors import (
    HostUnreachable,
    ProxyAuthRequired,
    ProxyProtocolError,
    ProxyRefused,
    ProxyUnreachable,
)
from . import negotiate
from .digest import Challenge, authorization, read_challenges
from .proxy import Proxy, join_address
from .socks import receive, socks5
from .tls import Step, one_line, start_tls, step_deadline, tls_context

_MAX_HEADER_BYTES = 16 * 1024
_MAX_BODY_BYTES = 64 * 1024

_CONNECT_HINTS: Mapping[int, str] = {
    403: "its rules forbid this target",
    404: "it does not seem to be a CONNECT proxy",
    405: "it does not allow CONNECT",
    302: "it redirects: a captive portal that wants a log-in?",
    307: "it redirects: a captive portal that wants a log-in?",
    502: "it could not reach the target",
    503: "it could not reach the target",
    504: "it could not reach the target in time",
    511: "a captive portal wants a log-in",
}


async def open_tunnel(
    host: str, port: int, *, proxy: Proxy | None, dial: Dial, timeout_s: float
) -> trio.abc.Stream:
    """A TCP-level stream to ``host:port``, through ``proxy`` where there is one.

    ``timeout_s`` is for each step.  The caller closes the stream.  Raises TunnelError, and
    SettingsError for the proxy's CA file before anything is dialled.
    """
    host = _ascii_host(host)
    target = join_address(host, port)
    if proxy is None:
        return await _dial(dial, host, port, "dial", target, timeout_s)
    hops = (*proxy.via, proxy)
    contexts = [
        tls_context(hop.ca_file, strict=hop.tls_strict) if hop.kind == "https" else None
        for hop in hops
    ]
    for _ in hops:
        try:
            return await _by_hops(dial, hops, contexts, (host, port), timeout_s)
        except _AskAgain:  # each of them once
            continue
    return await _by_hops(dial, hops, contexts, (host, port), timeout_s, last_try=True)


async def _by_hops(
    dial: Dial,
    hops: Sequence[Proxy],
    contexts: Sequence[ssl.SSLContext | None],
    target: tuple[str, int],
    timeout_s: float,
    *,
    last_try: bool = False,
) -> trio.abc.Stream:
    """Through one proxy after the other.  Raises _AskAgain unless it is the ``last_try``."""
    first, ends = hops[0], [(_ascii_host(hop.host), hop.port) for hop in hops[1:]]
    where = f"proxy {first.address} for {join_address(*target)}"
    stream = await _dial(dial, first.host, first.port, "dial proxy", where, timeout_s)
    for hop, context, end in zip(hops, contexts, [*ends, target], strict=True):
        try:
            stream = await _extend(stream, hop, context, end, timeout_s)
        except ProxyRefused as error:
            if hop is hops[-1]:
                raise
            whole = hops[-1].name
            raise ProxyUnreachable(f"proxy {whole} is cut in between: {error}") from None
        except _AskAgain as error:
            if last_try:
                raise ProxyAuthRequired(str(error)) from None
            raise
    return stream


class _AskAgain(Exception):
    """What a proxy wants is noted: ask again, it will be answered.  The message is that of the
    refusal, should there be no again."""


async def _extend(
    stream: trio.abc.Stream,
    proxy: Proxy,
    context: ssl.SSLContext | None,
    end: tuple[str, int],
    timeout_s: float,
) -> trio.abc.Stream:
    """``stream`` leads to ``proxy``; what comes back leads through it to ``end``."""
    target = join_address(*end)
    where = f"proxy {proxy.address} for {target}"
    if context is not None:
        stream = await start_tls(
            stream, proxy.host, context, timeout_s, "proxy TLS handshake", where
        )
    try:
        if proxy.kind == "socks5":
            await socks5(stream, *end, proxy, where, timeout_s)
            return stream
        with step_deadline("CONNECT", where, timeout_s):
            rest = await _http_connect(stream, target, proxy, where)
        return _Prefixed(rest, stream) if rest else stream
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


class _Prefixed(trio.abc.Stream):
    """``stream``, whose first bytes were already read."""

    def __init__(self, first: bytes, stream: trio.abc.Stream) -> None:
        self._first = first
        self.transport_stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._first:
            return await self.transport_stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        cut = len(self._first) if max_bytes is None else max_bytes
        data, self._first = self._first[:cut], self._first[cut:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._first = b""
        await self.transport_stream.aclose()


async def _dial(
    dial: Dial, host: str, port: int, step: Step, where: str, timeout_s: float
) -> trio.abc.Stream:
    try:
        with step_deadline(step, where, timeout_s):
            return await dial(host, port)
    except (OSError, UnicodeError) as exc:  # UnicodeError: not a name that could be resolved
        if step == "dial proxy":
            problem = f"{where} cannot be reached ({one_line(exc)}): is it running, is it allowed?"
            raise ProxyUnreachable(problem) from None
        hint = "" if _is_loopback(host) else ": is a proxy needed?"
        raise HostUnreachable(
            f"{where} cannot be reached directly ({one_line(exc)}){hint}"
        ) from None


async def _http_connect(stream: trio.abc.Stream, target: str, proxy: Proxy, where: str) -> bytes:
    """Ask for ``target``; return what came behind the header of the reply."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
    scheme, talk = _schemes.get(proxy), None
    credentials = _credentials(proxy, target) if proxy.username else ""
    if scheme is not None:
        talk = negotiate.Conversation(scheme, proxy, where)
        credentials = talk.first()
    for _ in range(negotiate.MOST_ROUNDS):
        headers = [("Host", target)]
        if credentials:
            headers.append(("Proxy-Authorization", credentials))
        request = http.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b""
        await stream.send_all(request + (http.send(h11.EndOfMessage()) or b""))
        reply = await _reply_of(http, stream, proxy, where)
        answer = None
        if talk is not None and reply.status_code == 407:
            answer = talk.next(_offers(reply))
        if answer is None:
            _judge_connect(reply, proxy, where)
            return http.trailing_data[0]
        credentials = answer
        await _next_round(http, stream, proxy, where)
    raise ProxyAuthRequired(f"{where}: {scheme} does not come to an end")


async def _reply_of(
    http: h11.Connection, stream: trio.abc.Stream, proxy: Proxy, where: str
) -> h11.Response:
    begin = b""
    while True:
        event = _next_event(http, proxy, where)
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            data = await receive(stream, 4096, where)
            begin = (begin + data)[:5]
            if not b"HTTP/".startswith(begin):
                raise ProxyProtocolError(f"{where} does not speak HTTP: check proxy_type and port")
            http.receive_data(data)


def _next_event(http: h11.Connection, proxy: Proxy, where: str) -> object:
    try:
        return http.next_event()
    except h11.ProtocolError as exc:
        said = _harmless(str(exc), proxy)[:200]  # cut first, half a secret would not be known
        raise ProxyProtocolError(f"{where} sent a reply that is not HTTP ({said})") from None


async def _next_round(
    http: h11.Connection, stream: trio.abc.Stream, proxy: Proxy, where: str
) -> None:
    """Skip the body of a refusal; the log-in goes on over the same connection."""
    skipped = 0
    while not isinstance(event := _next_event(http, proxy, where), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            data = await receive(stream, 4096, where)
            skipped += len(data)
            http.receive_data(data)
        elif isinstance(event, h11.ConnectionClosed) or skipped > _MAX_BODY_BYTES:
            break
    if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
        raise ProxyAuthRequired(f"{where} ends the connection in the middle of the log-in")
    http.start_next_cycle()


def _offers(reply: h11.Response) -> list[str]:
    found = (value for name, value in reply.headers if name == b"proxy-authenticate")
    return [value.decode("latin-1") for value in found]


def _judge_connect(reply: h11.Response, proxy: Proxy, where: str) -> None:
    status = reply.status_code
    if 200 <= status < 300:
        return
    if status == 407 or (status == 401 and proxy.username):  # so says tinyproxy
        offers = _offers(reply)
        named = (re.sub(r"[^\w-].*", "", offer, flags=re.S | re.A)[:20] for offer in offers)
        schemes = ", ".join(_harmless(name, proxy) for name in named)
        ours = "refused our user name and password" if proxy.username else "wants credentials"
        problem = (
            f"{where} {ours} ({status}; it offers {schemes or 'nothing'}, we Basic and Digest)"
        )
        if proxy.username and (_note_scheme(proxy, offers) or _note_challenge(proxy, offers)):
            raise _AskAgain(problem)
        if negotiate.scheme_of(offers) and not negotiate.is_installed():
            problem += f": {negotiate.INSTALL}"
        raise ProxyAuthRequired(problem)
    hint = _CONNECT_HINTS.get(status, "ask its operator")
    reason = _harmless(reply.reason.decode("latin-1"), proxy)[:80]
    raise ProxyRefused(f"{where} refused: {status} {reason} ({hint})", status)


_challenges: dict[Proxy, tuple[Challenge, int]] = {}
"""What a proxy asks with, and how often its nonce was used: as many as there are proxies."""


_schemes: dict[Proxy, negotiate.Scheme] = {}
"""Proxies that take NTLM or Negotiate only."""


def _note_scheme(proxy: Proxy, offers: Sequence[str]) -> bool:
    """Whether asking again makes sense, as it wants NTLM or Negotiate and has not been asked so."""
    scheme = negotiate.scheme_of(offers)
    others = any(re.match(r"\s*(basic|digest)\b", offer, re.I) for offer in offers)
    if _schemes.pop(proxy, None) or scheme is None or others or not negotiate.is_installed():
        return False
    _schemes[proxy] = scheme
    return True


def _note_challenge(proxy: Proxy, offers: Sequence[str]) -> bool:
    """Whether asking again makes sense: it wants Digest, and has seen Basic or an old nonce.  One
    that takes Basic as well has refused the password, and asking twice locks accounts."""
    known, found = _challenges.pop(proxy, None), read_challenges(offers)
    takes_basic = any(re.match(r"\s*basic\b", offer, re.I) for offer in offers)
    if found is None or (known is None and takes_basic):
        return False
    if known is not None and known[1] <= 1 and not found.stale:
        return False  # the nonce was fresh: it is the password
    _challenges[proxy] = found, 0
    return True


def _credentials(proxy: Proxy, target: str) -> str:
    if proxy not in _challenges:
        return f"Basic {_basic(proxy)}"
    challenge, used = _challenges[proxy]
    _challenges[proxy] = challenge, used + 1
    password, cnonce = proxy.password.reveal(), secrets.token_hex(16)
    return authorization(challenge, proxy.username, password, target, used + 1, cnonce)


def _basic(proxy: Proxy) -> str:
    """RFC 7617."""
    return base64.b64encode(f"{proxy.username}:{proxy.password.reveal()}".encode()).decode()


def _harmless(text: str, proxy: Proxy) -> str:
    """A proxy's words for a message: printable, and empty where they repeat our credentials."""
    ours = (proxy.password.reveal(), _basic(proxy).rstrip("=")) if proxy.username else ()
    if any(secret and secret in text for secret in ours):
        return ""
    return "".join(char if char.isprintable() else " " for char in text)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _ascii_host(host: str) -> str:
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not re.fullmatch(r"[\w.:%-]+", name, re.ASCII):
        raise HostUnreachable(f"{host[:255]!r} is not a host name")
    return name
