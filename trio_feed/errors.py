"""Every error this package raises on purpose, and what becomes of it.

::

    TrioFeedError
    ├─ SettingsError            a user's setting is wrong          -> one line, exit code 2
    ├─ StartError               port in use, store unwritable ...  -> one line, exit code 2
    │  └─ ServerAway            a server that the start needs does not answer, or takes nothing for
    │                           now: waited for (``service.start_wait_s``), then exit code 3
    ├─ StoreError               the store cannot be used now       -> told to who asked; exit code 2
    │                                                                 where it is the start
    ├─ JournalError             events cannot be kept or read now  -> 503, nothing is acknowledged
    ├─ BadMessage               one message from outside           -> counted, sampled, dropped
    └─ NetworkError             network-shaped: the branch restarts with backoff
       ├─ TunnelError           between us and the exchange's TCP or TLS endpoint
       │  ├─ HostUnreachable    no proxy configured, and the host cannot be dialled
       │  ├─ ProxyUnreachable   the proxy itself cannot be dialled
       │  ├─ ProxyAuthRequired  the proxy wants other credentials (407, RFC 1929 failure)
       │  ├─ ProxyRefused       the proxy said no; ``code`` is its HTTP status or SOCKS reply
       │  ├─ ProxyProtocolError the proxy does not speak the configured protocol
       │  ├─ NoProxyAvailable   every proxy of the pool cools down, none is free before ``until``
       │  ├─ TunnelTimeout      some step took too long; ``step`` names it
       │  ├─ TlsNameMismatch    the certificate is for another name
       │  ├─ TlsUntrusted       the certificate does not verify for another reason
       │  └─ TlsReset           the TLS handshake was cut off
       ├─ UpgradeRefused        the WebSocket upgrade got an HTTP ``status`` instead of 101
       ├─ ConnectionLost        an open WebSocket ended; ``code`` and ``reason`` of the close
       ├─ SubscriptionRefused   the exchange refused the streams of a connection
       └─ RestError             a REST call failed
          ├─ RestRefused        ``status``, and the exchange's own ``code`` where it gave one
          └─ RateLimited        429 or 418; nothing goes to that host before ``until``

Foreign exceptions are translated where they enter (``net/*``, ``store/*``), so nothing above
those rooms names another library's exception.  Messages are for an operator: what, where,
what to do.  They never carry a secret.
"""

from .instants import Mono


class TrioFeedError(Exception):
    """Root of everything below."""


class SettingsError(TrioFeedError):
    """A setting is wrong.  ``path`` is the dotted key, e.g. ``server.port``."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class StartError(TrioFeedError):
    """The service cannot start for a reason its user can mend."""


class ServerAway(StartError):
    """A server that the start needs is away, or takes nothing for now.  It may come back without
    anybody mending a setting."""


class StoreError(TrioFeedError):
    """Stored candles cannot be read now."""


class JournalError(TrioFeedError):
    """Private events cannot be kept, or read, now.  ``advice``: what to do about it."""

    def __init__(
        self, problem: str, advice: str = "check disk space and the file's permissions"
    ) -> None:
        super().__init__(problem)
        self.advice = advice


class BadMessage(TrioFeedError):
    """A message from outside that does not fit its protocol.  ``sample`` is its beginning."""

    def __init__(self, problem: str, sample: str = "") -> None:
        super().__init__(problem)
        self.sample = sample[:200]


class NetworkError(TrioFeedError):
    """Network-shaped: trying again later is the right answer."""


class TunnelError(NetworkError):
    """The way to the exchange's endpoint could not be opened."""


class HostUnreachable(TunnelError):
    """The exchange's host cannot be dialled directly."""


class ProxyUnreachable(TunnelError):
    """The proxy itself cannot be dialled."""


class ProxyAuthRequired(TunnelError):
    """The proxy did not accept the configured credentials."""


class ProxyRefused(TunnelError):
    """The proxy refused the target; ``code`` is its HTTP status or SOCKS5 reply code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ProxyProtocolError(TunnelError):
    """The proxy's answer is not of the configured protocol."""


class NoProxyAvailable(TunnelError):
    """All proxies cool down; the first is free again at ``until``, of trio's clock."""

    def __init__(self, message: str, until: Mono) -> None:
        super().__init__(message)
        self.until = until


class TunnelTimeout(TunnelError):
    """A step took longer than its deadline; ``step`` is what was waited for."""

    def __init__(self, message: str, step: str) -> None:
        super().__init__(message)
        self.step = step


class TlsNameMismatch(TunnelError):
    """The certificate that came back belongs to another name."""


class TlsUntrusted(TunnelError):
    """The certificate that came back does not verify."""


class TlsReset(TunnelError):
    """The TLS handshake was cut off by something in between; ``plain``: what answered speaks no TLS
    at all, as a captive portal."""

    def __init__(self, message: str, *, plain: bool = False) -> None:
        super().__init__(message)
        self.plain = plain


class ProxyTlsFailed(TlsReset):
    """The TLS handshake with the proxy itself failed: most plain proxies do not speak it."""


class ProxyTlsUntrusted(TlsUntrusted):
    """The certificate of the proxy itself does not verify."""


class UpgradeRefused(NetworkError):
    """The exchange answered the WebSocket upgrade with an HTTP error.  ``blocked``: it shuts out
    the address that we come from (a region, a firewall); another one may be let in."""

    def __init__(self, message: str, status: int, *, blocked: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.blocked = blocked


class ConnectionLost(NetworkError):
    """An open WebSocket ended.  ``code`` is the close code (1006: none was received)."""

    def __init__(self, message: str, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class SubscriptionRefused(NetworkError):
    """The exchange refused the streams of a connection."""


class RestError(NetworkError):
    """A REST call failed before or after an answer came."""


class RestRefused(RestError):
    """The exchange answered with an error ``status``; ``code`` is its own code, if any;
    ``blocked`` as of :class:`UpgradeRefused`."""

    def __init__(
        self, message: str, status: int, code: int | None = None, *, blocked: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.blocked = blocked


class RateLimited(RestError):
    """429 or 418: nothing may be sent to that host before ``until``, of trio's clock."""

    def __init__(self, message: str, until: Mono) -> None:
        super().__init__(message)
        self.until = until
