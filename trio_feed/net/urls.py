"""Configured URLs, taken apart once, and what is made of them with an exchange's names.

Raised for a setting only: names out of an exchange's lists, of any alphabet, are percent-encoded
(RFC 3986, as UTF-8), so nothing that an exchange says makes a URL unusable.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from attrs import field, frozen

from ..errors import SettingsError
from .proxy import join_address

_URL_SAFE = "/%:@!$&'()*+,;=~"
"""Characters of a path or query that stay as they are; a ``%`` is taken as encoded already."""


@frozen
class _Url:
    """``path`` and ``query`` may hold keys: they are never logged."""

    tls: bool
    host: str
    port: int
    path: str = field(repr=False)
    query: str = field(repr=False)

    @property
    def host_header(self) -> str:
        """RFC 9110 section 7.2: the port only where it is not the scheme's own."""
        address = join_address(self.host, self.port)
        return address.removesuffix(":443" if self.tls else ":80")

    @property
    def _whole(self) -> str:
        """Path and query."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path


@frozen
class RestUrl(_Url):
    """The base of REST calls."""

    @classmethod
    def parse(cls, url: str) -> "RestUrl":
        """Raises SettingsError."""
        parts = _split(url, "http", "https")
        if parts is None:
            raise SettingsError("rest_url", "is not an http:// or https:// URL")
        return cls(*_fields(parts))

    def with_path(self, path: str, params: Mapping[str, str | int]) -> bytes:
        """The target of a GET below this URL."""
        query = urlencode(params, quote_via=quote)
        target = f"{self.path.rstrip('/')}/{quote(path.lstrip('/'), safe=_URL_SAFE)}"
        return (f"{target}?{query}" if query else target).encode("ascii")

    @property
    def itself(self) -> bytes:
        """The target of a POST to the URL as it stands."""
        return self._whole.encode("ascii")


@frozen
class WebSocketUrl(_Url):
    """One connection's URL."""

    @classmethod
    def parse(cls, url: str) -> "WebSocketUrl":
        """Raises SettingsError."""
        parts = _split(url, "ws", "wss")
        if parts is None:
            raise SettingsError("websocket_url", "is not a ws:// or wss:// URL")
        return cls(*_fields(parts))

    @property
    def name(self) -> str:
        """For messages: without the path, which may hold a listen key."""
        return f"{'wss' if self.tls else 'ws'}://{join_address(self.host, self.port)}"

    @property
    def resource(self) -> str:
        """What the upgrade asks for."""
        return self._whole


def _split(url: str, *schemes: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable and _ascii_host(parts) else None


def _ascii_host(parts: SplitResult) -> str:
    """Empty for a name that DNS cannot have."""
    host = parts.hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def _fields(parts: SplitResult) -> tuple[bool, str, int, str, str]:
    tls = parts.scheme in ("https", "wss")
    path, query = quote(parts.path, safe=_URL_SAFE), quote(parts.query, safe=_URL_SAFE + "?")
    return tls, _ascii_host(parts), parts.port or (443 if tls else 80), path, query
