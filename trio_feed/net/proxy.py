"""Which proxy leads to a host: the settings', the environment's, or none.  Pure.

Settings that are enabled always win.  The environment counts only where the caller hands it in
(``[proxy] from_env``), and is read the way curl reads it:
https://curl.se/docs/manpage.html#ENVIRONMENT and https://curl.se/libcurl/c/CURLOPT_NOPROXY.html,
plus ``host:port`` entries in NO_PROXY, and HTTP_PROXY for TLS as well where it is the only one, as
many people set it.  A variable that makes no sense is an error and not
"no proxy": what was meant to be tunnelled never goes direct because of a typing mistake.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from attrs import field, frozen

from ..errors import SettingsError
from ..settings import ProxySettings, Secret
from ..settings.proxies import NOT_A_PROXY_URL, ProxyType


@frozen
class Proxy:
    """One proxy.  Its credentials never show in ``repr`` or ``str``."""

    kind: ProxyType
    host: str
    port: int
    username: str = field(default="", repr=False)
    """Empty: no authentication is offered."""
    password: Secret = field(default=Secret(), repr=False)
    ca_file: str = ""
    """PEM file that kind "https" is verified with; empty: the system's authorities."""
    tls_strict: bool = True
    via: "tuple[Proxy, ...]" = ()
    """Those that lead to it; the first is dialled."""

    @property
    def address(self) -> str:
        """``host:port`` for messages and headers."""
        return join_address(self.host, self.port)

    @property
    def name(self) -> str:
        """For people: the addresses of the whole chain."""
        return " > ".join(hop.address for hop in (*self.via, self))


def join_address(host: str, port: int) -> str:
    """(host, port) -> ``host:port``, an IPv6 literal in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def choose_proxy(
    settings: ProxySettings, *, host: str, port: int, tls: bool, environ: Mapping[str, str] | None
) -> Proxy | None:
    """The proxy for ``host:port``; None = dial it directly.

    ``environ`` is None unless the environment shall count.  Raises SettingsError, which names the
    variable and never shows its value.
    """
    if settings.enabled:
        return proxy_of(settings)
    if environ is None:
        return None
    for name in ("https_proxy", "all_proxy", "http_proxy") if tls else ("http_proxy", "all_proxy"):
        variable, value = _lookup(environ, name)
        if value:
            if _excluded(_lookup(environ, "no_proxy")[1], host, port):
                return None
            return _parse(variable, value)
    return None


def proxy_of(settings: ProxySettings) -> Proxy:
    """What a table with an address says."""
    host, _, port = settings.address.rpartition(":")
    return Proxy(
        kind=settings.proxy_type,
        host=host.removeprefix("[").removesuffix("]"),
        port=int(port),
        username=settings.username,
        password=settings.password,
        ca_file=settings.ca_file,
        tls_strict=settings.tls_strict,
        via=tuple(proxy_of(hop) for hop in settings.via),
    )


def _lookup(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """curl's order: lower case first; a variable that is set but empty does not count.  ``set
    HTTP_PROXY="..."`` of cmd.exe makes the quotes a part of the value."""
    for variable in (name, name.upper()):
        if value := environ.get(variable, "").strip().strip("\"'"):
            return variable, value
    return name, ""


def _parse(variable: str, value: str) -> Proxy:
    try:
        url = value if "://" in value else f"http://{value}"
        settings = ProxySettings.from_url(url, usual_ports=True)
    except ValueError:  # its text may quote the password, and so may its traceback
        settings = None
    if settings is None:
        raise SettingsError(variable, NOT_A_PROXY_URL)
    return proxy_of(settings)


def _excluded(no_proxy: str, host: str, port: int) -> bool:
    host = host.lower().rstrip(".")
    entries = no_proxy.lower().replace(",", " ").split()
    return any(_entry_matches(entry, host, port) for entry in entries)


def _entry_matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        name, colon, entry_port = entry.rpartition(":")
        if colon and entry_port.isdigit():
            return int(entry_port) == port and _name_matches(name, host)
        return _name_matches(entry, host)
    return _address_matches(entry, address.compressed, port)


def _name_matches(entry: str, host: str) -> bool:
    entry = entry.strip(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _address_matches(entry: str, address: str, port: int) -> bool:
    """``entry`` is an IP literal, with or without brackets, port or prefix length."""
    candidates = [entry.strip("[]")]
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port == str(port) and (name.startswith("[") or ":" not in name):
        candidates.append(name.strip("[]"))
    for candidate in candidates:
        try:
            if ip_address(address) in ip_network(candidate, strict=False):
                return True
        except ValueError:
            continue  # a host name: does not match an address
    return False
