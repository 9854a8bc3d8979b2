"""The Host and Origin allow-lists.  Pure.

``Host`` guards against DNS rebinding: a page of evil.example whose name was made to point at
127.0.0.1 is of the same origin as we are, but its requests still say ``Host: evil.example``.
``Origin`` guards against pages of others that open a WebSocket to us (the same-origin policy does
not cover those).  Programs send no Origin, and nobody can forge it from inside a browser; a program
can, so neither list replaces authentication.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from attrs import frozen

ANY = "*"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._~%-]+)(?::(?P<port>[0-9]{1,5}))?")
_FETCH = (b"sec-fetch-site", b"sec-fetch-mode")
"""What a browser says of a request by itself (W3C, Fetch Metadata Request Headers)."""
_DEFAULT_PORTS = {"http": "80", "https": "443"}

Headers = Iterable[tuple[bytes, bytes]]


@frozen
class Refusal:
    """``reason`` is a metric's label; ``value`` is what the client sent, for the log."""

    status: int
    reason: str
    value: str


@frozen
class Admission:
    """The allow-lists.  ``hosts`` are lower-case names without a port, None: any.

    ``origins`` are exact (``https://example.com``), in addition to our own; ``*`` is everybody.
    """

    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    scheme: str = "http"
    """What a page of our own origin is loaded with: ``https`` under TLS."""

    def refusal(self, headers: Headers) -> Refusal | None:
        """Why a request with these headers (lower-case names) is refused, None: it is not."""
        hosts = [_text(value) for name, value in headers if name == b"host"]
        if self.hosts is not None:
            for host in hosts:
                if host_name(host) not in self.hosts:
                    return Refusal(421, "host", host)
        origins = [_text(value) for name, value in headers if name == b"origin"]
        for origin in origins:
            if not self._knows(origin, hosts):
                return Refusal(403, "origin", origin)
        fetch = {name: value for name, value in headers if name in _FETCH}
        site, mode = (_text(fetch.get(name, b"")).strip() for name in _FETCH)
        # An image or a script of somebody else's page: it cannot read the answer, but would have
        # it made.  A link that is followed is no such thing.
        unknown = site == "cross-site" and not origins and ANY not in self.origins
        if unknown and mode != "navigate":
            return Refusal(403, "cross_site", f"cross-site ({mode or 'no mode'})")
        return None

    def _knows(self, origin: str, hosts: Iterable[str]) -> bool:
        if ANY in self.origins or origin in self.origins:
            return True
        own = (normal_origin(f"{self.scheme}://{host}") for host in hosts)
        return normal_origin(origin) in set(own) - {None}


def admission(
    bound_host: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str], *, tls: bool
) -> Admission:
    """The rules for a server bound to ``bound_host``.

    Without ``allowed_hosts``: on the loopback only its names, because nobody
    else reaches it; elsewhere any, because we cannot know under which names others reach us.
    """
    hosts: frozenset[str] | None = frozenset(host.lower() for host in allowed_hosts)
    if not hosts:
        hosts = frozenset([*_LOOPBACK, _bracketed(bound_host)]) if is_loopback(bound_host) else None
    elif ANY in hosts:
        hosts = None
    return Admission(hosts, frozenset(allowed_origins), "https" if tls else "http")


@lru_cache(maxsize=4096)  # asked with each connection, and many come from the same address
def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str | None:
    """The name in a Host header, lower-case and without port and final dot; None: malformed."""
    match = _HOST.fullmatch(host.strip().lower())
    return match["name"].rstrip(".") if match else None


def normal_origin(origin: str) -> str | None:
    """``scheme://name:port``, None for what is no such origin (``null``, a path, a name twice)."""
    scheme, separator, rest = origin.strip().lower().partition("://")
    match = _HOST.fullmatch(rest)
    if not separator or match is None or scheme not in _DEFAULT_PORTS:
        return None
    return f"{scheme}://{match['name'].rstrip('.')}:{match['port'] or _DEFAULT_PORTS[scheme]}"


def origin_problem(origin: str) -> str:
    """What is wrong with an entry of the allow-list, empty: nothing."""
    if origin in (ANY, "null"):
        return ""
    parts = urlsplit(origin)
    if origin != f"{parts.scheme}://{parts.netloc}" or normal_origin(origin) is None:
        return f"{origin!r} is not an origin such as https://example.com"
    return ""


@lru_cache(maxsize=4096)
def ip_group(ip: str) -> str:
    """What the cap per IP counts: an IPv4 address, or an IPv6 /64 (one customer has that many)."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _text(value: bytes) -> str:
    return value.decode("latin-1")
