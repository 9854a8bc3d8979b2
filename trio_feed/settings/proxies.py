"""Tables about the way out: a proxy, proxy URLs that stand for one, and how several are used.

Wherever a proxy table is wanted, a URL may stand (``"socks5://user:pass@host:1080"``: enabled), or
a list of both: a chain, the first of which is dialled and the last of which the exchange sees.
"""

import re
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import attrs
from attrs import field, frozen

from .fields import FieldError, Secret
from .fields import between as _between

ProxyType = Literal["http", "https", "socks5"]

_SCHEMES: dict[str, tuple[ProxyType, int]] = {  # URL scheme -> what we speak, usual port
    "http": ("http", 80),
    "https": ("https", 443),
    "socks5": ("socks5", 1080),
    "socks5h": ("socks5", 1080),  # both: the proxy resolves names
    "socks": ("socks5", 1080),  # as desktops write it
}
NO_PORT = "is a proxy URL without a port; write it, such as http://host:3128"
NOT_A_PROXY_URL = (
    "is not a proxy URL such as http://user:password@host:3128 or socks5h://host:1080 "
    "(percent-encode special characters in user and password)"
)


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` -> (host, port).  Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        shown = "an address with '@'" if "@" in address else repr(address)  # a password, maybe
        raise ValueError(f"{shown} is not host:port")
    if not 0 < int(port) < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _host_port(_instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    try:
        if value:
            split_address(value)
    except ValueError as error:
        raise FieldError(attribute.name, str(error)) from None


@frozen
class ProxySettings:
    """``[exchanges.<venue>.connection.proxy]``: the way out.  Never bypassed when enabled."""

    enabled: bool = False
    """True: every byte to this venue goes through the proxy, or nowhere."""
    proxy_type: ProxyType = "http"
    """http = CONNECT, https = CONNECT inside TLS to the proxy itself, socks5 = RFC 1928."""
    address: str = field(default="", validator=_host_port)
    """host:port of the proxy; in a file also a URL, which then says the type."""
    username: str = ""
    """Empty: no authentication is offered."""
    password: Secret = field(factory=Secret)
    """Sent to the proxy only; masked everywhere else."""
    ca_file: str = ""
    """PEM file that proxy_type "https" is verified with; empty: the system's authorities."""
    tls_strict: bool = True
    """False: takes certificates of a company's CA that break RFC 5280 in form (no key identifier,
    say), which Python 3.13 refuses.  Who signed them is verified all the same."""
    via: "tuple[ProxySettings, ...]" = ()
    """Proxies that lead to this one, the first of them is dialled."""

    def __attrs_post_init__(self) -> None:
        if self.enabled and not self.address:
            raise FieldError("address", "missing although the proxy is enabled")
        if self.password and not self.username:
            raise FieldError("password", "given without a username")
        for number, proxy in enumerate(self.via):
            if proxy.via:
                raise FieldError("via", "is a flat list: none of them has a `via` of its own")
            if self.enabled and not proxy.enabled:
                raise FieldError("via", f"number {number} of the chain is not enabled")

    @classmethod
    def from_url(cls, url: str, *, usual_ports: bool = False) -> "ProxySettings":
        """An enabled proxy.  Raises ValueError, whose text does not quote the URL."""
        table = table_of_url(url, usual_ports=usual_ports)
        return cls(**{**table, "password": Secret(table["password"])})


attrs.resolve_types(ProxySettings)


@frozen
class EgressSettings:
    """``[exchanges.<venue>.connection.egress]``: how `proxies` are used.  With one proxy no
    cool-down but that for credentials is longer than `backoff_max_s`, as nothing else leads out."""

    pick: Literal["sticky", "fastest"] = "sticky"
    """sticky: a healthy proxy is stayed with.  fastest: new connections prefer the one whose
    tunnels opened fastest of late, where it is clearly faster."""
    cool_down_min_s: float = field(default=2.0, validator=_between(0.1, 3600))
    """A proxy that failed is left alone for this long; doubles each time in a row."""
    cool_down_max_s: float = field(default=60.0, validator=_between(0.1, 86400))
    """Longest cool-down; errors of the exchange behind a proxy are forgotten after it."""
    credentials_cool_down_s: float = field(default=600.0, validator=_between(0.1, 86400))
    """A proxy that refuses its credentials is left alone for this long."""
    target_errors: int = field(default=3, validator=_between(1, 1000))
    """So many errors of the exchange behind a proxy count as one of the proxy itself."""

    def __attrs_post_init__(self) -> None:
        if self.cool_down_max_s < self.cool_down_min_s:
            raise FieldError("cool_down_max_s", "is below cool_down_min_s")


def table_of_url(url: str, *, usual_ports: bool = False) -> dict[str, Any]:
    """``scheme://[user[:password]@]host:port`` -> the table that it stands for.  The port may be
    left out of a SOCKS URL, with ``usual_ports`` of any.  Raises ValueError, whose text does not
    quote the URL."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, unquote(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError(_no_scheme(url) or NOT_A_PROXY_URL) from None
    tail = parts.path not in ("", "/") or parts.query or parts.fragment
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme not in _SCHEMES or not host or tail or port == 0 or (password and not user):
        raise ValueError(_no_scheme(url) or NOT_A_PROXY_URL)
    kind, usual = _SCHEMES[scheme]
    if port is None and kind != "socks5" and not usual_ports:
        raise ValueError(NO_PORT)  # 80 to some programs, 1080 to curl, and hardly ever right
    host = f"[{host}]" if ":" in host else host
    return {
        "enabled": True,
        "proxy_type": kind,
        "address": f"{host}:{usual if port is None else port}",
        "username": user,
        "password": password,
    }


def _no_scheme(text: str) -> str:
    """What to write for a bare ``host:port``; empty: it is none."""
    with suppress(ValueError):
        if "//" not in text and "@" not in text:
            split_address(text)
            return f"has no type in front of it: write http://{text} or socks5://{text}"
    return ""


def is_url(text: object) -> bool:
    """Whether a value is meant as a URL."""
    return isinstance(text, str) and re.match(r"\w+://", text) is not None


def proxy_table(value: Any) -> Any:
    """What stands where a proxy table is wanted, as that table: a URL, a chain, or the table
    itself, whose `address` may be a URL.  What is none of these comes back as it is.  Raises
    FieldError, ValueError."""
    if value == "":
        return {}
    if isinstance(value, str):
        return table_of_url(value)
    if isinstance(value, list) and value:
        *before, last = (proxy_table(item) for item in value)
        if not before or not isinstance(last, dict):
            return last
        if "via" in last:
            raise FieldError("via", "stands in a list, which is a chain itself")
        return {**last, "via": before}
    if isinstance(value, dict) and is_url(value.get("address")):
        return _with_url(value)
    return value


def _with_url(table: dict[str, Any]) -> dict[str, Any]:
    """A table whose `address` is a URL: it says the type, and perhaps who we are."""
    try:
        said = table_of_url(table["address"])
    except ValueError as error:
        raise FieldError("address", str(error)) from None
    del said["enabled"]
    for key in ("proxy_type", "username", "password"):
        if not said[key]:
            del said[key]
        elif key in table and table[key] != said[key]:
            what = f"says {said[key]}" if key == "proxy_type" else "says another one"
            raise FieldError("address", f"is a URL that {what}, and `{key}` stands beside it")
    return {**table, **said}
