"""TLS over a stream, and the deadline and name that every step towards the exchange has."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import trio

from ..errors import (
    ProxyProtocolError,
    ProxyTlsFailed,
    ProxyTlsUntrusted,
    SettingsError,
    TlsNameMismatch,
    TlsReset,
    TlsUntrusted,
    TunnelError,
    TunnelTimeout,
)
from .tls_stream import TlsStream

Step = Literal[
    "dial", "dial proxy", "proxy TLS handshake", "CONNECT",
    "SOCKS5 greeting", "SOCKS5 authentication", "SOCKS5 request", "TLS handshake",
]  # fmt: skip
"""What a TunnelTimeout waited for."""

_FORM_ONLY = range(80, 95)
"""From X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA to _EC_KEY_EXPLICIT_PARAMS: what only the flag
VERIFY_X509_STRICT looks for, which Python sets since 3.13."""
_PLAIN_TEXT = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""What plain text looks like to OpenSSL 1.1 to 3.2."""
_NAME_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


async def start_tls(
    stream: trio.abc.Stream,
    host: str,
    ssl_context: ssl.SSLContext,
    timeout_s: float,
    step: Step = "TLS handshake",
    where: str = "",
) -> TlsStream:
    """TLS over ``stream``, with ``host`` as SNI and as the name that must be certified.

    ``where`` names the peer in messages, and the proxy in between; empty: ``host``.
    Takes ``stream`` over: closes it on failure.  Raises TlsNameMismatch, TlsUntrusted, TlsReset,
    TunnelTimeout.
    """
    where = where or repr(host)
    try:
        tls = TlsStream(stream, ssl_context, host)
        with step_deadline(step, where, timeout_s):
            await tls.do_handshake()
    except BaseException as exc:
        await trio.aclose_forcefully(stream)
        if isinstance(exc, trio.BrokenResourceError):
            raise _tls_error(exc.__cause__, where, step) from None
        if isinstance(exc, ValueError):  # not a name that TLS could verify
            raise TlsNameMismatch(f"{step} with {where}: not a valid host name") from None
        raise
    return tls


class _Handshake(ssl.SSLObject):
    """Notes who signed a certificate that is refused: a company's inspecting proxy, for one."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            error.add_note(_issuer(self))
            raise


def _issuer(handshake: ssl.SSLObject) -> str:
    """The peer's words, bounded and printable; empty where OpenSSL did not keep the certificate."""
    try:
        chain = handshake._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        rows = chain[0].get_info()["issuer"] if chain else ()
        named = {name: str(value) for row in rows for name, value in row}
    except (AttributeError, KeyError, TypeError, ValueError, ssl.SSLError):
        return ""  # no public interface before 3.13: of another shape, perhaps
    words = [named.get(name, "") for name in ("organizationName", "commonName")]
    text = " / ".join(dict.fromkeys(word for word in words if word))[:100]
    return "".join(char if char.isprintable() else " " for char in text)


_contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
"""By CA file and strictness, as many as the settings name."""


def tls_context(ca_file: str, *, strict: bool = True) -> ssl.SSLContext:
    """The client context that trusts ``ca_file`` (PEM) or, if empty, the system's authorities.

    Cached until :func:`reload_authorities`: reading the authorities takes milliseconds.  TLS 1.2 or
    newer; names are checked; ALPN offers HTTP/1.1 only.  ``strict`` False: the form of certificates
    is not held against RFC 5280, which Python 3.13 does.  Raises SettingsError.
    """
    key = ca_file, strict
    if (known := _contexts.get(key)) is None:
        known = _contexts[key] = _make_context(ca_file, strict)
    return known


def reload_authorities() -> list[SettingsError]:
    """Read the CA files in use anew, for the connections that are opened from now on (blocking).
    Returns what is wrong with those that cannot be used; their old content stays in force."""
    problems = []
    for key in list(_contexts):
        try:
            _contexts[key] = _make_context(*key)
        except SettingsError as error:
            problems.append(error)
    return problems


def _make_context(ca_file: str, strict: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as exc:  # ssl.SSLError is one
        raise SettingsError("ca_file", f"{ca_file}: {one_line(exc)}") from None
    if not strict:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.sslobject_class = _Handshake
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def step_deadline(step: Step, where: str, timeout_s: float) -> Iterator[None]:
    """The deadline of one step; in a step with the proxy also what a reset means."""
    try:
        with trio.fail_after(timeout_s):
            yield
    except trio.TooSlowError:
        hint = ": a proxy without TLS of its own wants http://" if step.startswith("proxy") else ""
        problem = f"{where}: no {step} within {timeout_s:g} s{hint}"
        raise TunnelTimeout(problem, step) from None
    except trio.BrokenResourceError:
        if step.endswith("TLS handshake"):
            raise
        raise ProxyProtocolError(f"{where} reset the connection during {step}") from None


def one_line(exc: BaseException) -> str:
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return " ".join(text.split())[:200] or type(exc).__name__


def _tls_error(cause: BaseException | None, host: str, step: Step) -> TunnelError:
    to_proxy = step == "proxy TLS handshake"
    untrusted: type[TlsUntrusted] = ProxyTlsUntrusted if to_proxy else TlsUntrusted
    reset: type[TlsReset] = ProxyTlsFailed if to_proxy else TlsReset
    if isinstance(cause, ssl.SSLCertVerificationError):
        issuer = "".join(getattr(cause, "__notes__", ()))
        by = f", issued by {issuer!r}" if issuer else ""
        if cause.verify_code in _NAME_MISMATCH:
            problem = f"the certificate is for another name{by}: something in between answers"
            return TlsNameMismatch(f"{step} with {host}: {problem}")
        if cause.verify_code in _FORM_ONLY:
            problem = (
                f"the form of the certificate is refused ({cause.verify_message}{by}), as Python"
                " 3.13 does with those of many company CAs: tls_strict = false takes it"
            )
            return untrusted(f"{step} with {host}: {problem}")
        problem = f"the certificate is not trusted ({cause.verify_message}{by}): check ca_file"
        if issuer:
            problem += ", or something in between inspects TLS"
        return untrusted(f"{step} with {host}: {problem}")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        hint = "is TLS spoken there?"
        plain = cause.reason in _PLAIN_TEXT
        if plain:
            hint = "no TLS is spoken there: " + (
                "is proxy_type right?  http:// is for a proxy without TLS of its own"
                if to_proxy
                else "the port is wrong, or a captive portal or filter answers instead"
            )
        return reset(f"{step} with {host} failed ({cause.reason}): {hint}", plain=plain)
    problem = "cut off in between; a firewall that reads the name does this"
    if to_proxy:
        problem = "cut off; a proxy without TLS of its own does this, and wants http://"
    return reset(f"{step} with {host}: {problem}")
