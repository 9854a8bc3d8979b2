"""What a network error means to the person at the keyboard: which step failed, what to try.  Pure.

The errors' own messages say what happened and where; the step and the advice follow from their
type alone, so that they never depend on wording.
"""

from collections.abc import Mapping

from attrs import frozen

from ..errors import (
    NetworkError,
    ProxyRefused,
    ProxyTlsFailed,
    RestRefused,
    TlsReset,
    TunnelTimeout,
    UpgradeRefused,
)
from ..settings import Settings


@frozen
class Advice:
    """``step``: a few words; ``do``: one sentence."""

    step: str
    do: str


_PROXY_TABLE = "exchanges.<venue>.connection.proxy"
IDLE_PROXY = f"the proxy of the settings is not in force: set {_PROXY_TABLE}.enabled = true"
_HTTP_INSTEAD = f"this proxy speaks no TLS itself: write http:// in {_PROXY_TABLE}"
_BY_TYPE: Mapping[str, Advice] = {
    "HostUnreachable": Advice(
        "dial the exchange",
        f"no proxy is set and the host does not answer: set {_PROXY_TABLE}"
        ' (proxy = "http://127.0.0.1:7890" or "socks5://..."), or proxy.from_env = true where'
        " HTTPS_PROXY says it, or check the network and DNS",
    ),
    "ProxyUnreachable": Advice(
        "reach the proxy",
        f"start the proxy program, or correct host and port in {_PROXY_TABLE} (Clash listens on"
        " 7890, sing-box on 2080, v2ray on 10808 by default)",
    ),
    "ProxyAuthRequired": Advice(
        "log in at the proxy",
        f"correct username and password in {_PROXY_TABLE}, or in the variable"
        " TRIO_FEED__EXCHANGES__<VENUE>__CONNECTION__PROXY__PASSWORD; until then it is left alone,"
        " as accounts get locked",
    ),
    "ProxyRefused": Advice(
        "open the tunnel",
        "the proxy answers but does not lead there: do its rules allow this host, and does the"
        " node behind it work?",
    ),
    "ProxyProtocolError": Advice(
        "speak with the proxy",
        f"that port speaks another protocol: write http:// or socks5:// in {_PROXY_TABLE} (in a"
        " table: proxy_type)",
    ),
    "ProxyTlsFailed": Advice("TLS with the proxy", f"{_HTTP_INSTEAD} (in a table: proxy_type)"),
    "ProxyTlsUntrusted": Advice(
        "TLS with the proxy",
        f"name the proxy's CA in {_PROXY_TABLE}.ca_file, or write http:// if it speaks no TLS",
    ),
    "TunnelTimeout": Advice(
        "open the way",
        "something drops the packets without a word: a firewall, a dead node behind the proxy; try"
        " another proxy or port",
    ),
    "TlsNameMismatch": Advice(
        "TLS with the exchange",
        "something in between answers in the exchange's name. In a hotel or office network: open a"
        " browser and log in; else take another way out",
    ),
    "TlsUntrusted": Advice(
        "TLS with the exchange",
        "something in between opens TLS, as company proxies do: take another way out, or name its"
        " CA in exchanges.<venue>.connection.ca_file if you trust it",
    ),
    "TlsReset": Advice(
        "TLS with the exchange",
        "a firewall cuts the connection when it reads the name, or the port speaks no TLS: use a"
        f" proxy ({_PROXY_TABLE}), or another one",
    ),
    "UpgradeRefused": Advice(
        "WebSocket upgrade",
        "the exchange does not serve this address (451 and 403 mean its region): take an exit in"
        " another country",
    ),
    "RestRefused": Advice(
        "REST answer",
        "the exchange does not serve this address (451 and 403 mean its region): take an exit in"
        " another country",
    ),
    "RateLimited": Advice(
        "REST answer", "this exit asked too often; wait as long as it says, and do not restart"
    ),
    "RestError": Advice("REST answer", "try again; if it stays, take another way out"),
    "ConnectionLost": Advice("WebSocket", "try again; if it stays, take another way out"),
    "SubscriptionRefused": Advice("subscribe", "check the symbols and intervals of the settings"),
    "NoProxyAvailable": Advice("choose a proxy", "see what each proxy says"),
    "BadMessage": Advice(
        "read the answer",
        "this is not the exchange: a captive portal (open a browser and log in) or a filter"
        " answers, or rest_url is wrong",
    ),
}
_LOG_IN = "a captive portal (hotel, office) may answer instead: open a browser and log in"
_PORTAL_CODES = (302, 303, 307, 511)
_UNKNOWN = Advice("connect", "trio-feed check --connect shows each step")


def idle_proxies(settings: Settings) -> frozenset[str]:
    """The venues that are dialled directly although a proxy's address is in their settings."""
    return frozenset(
        name
        for name, exchange in settings.exchanges.items()
        if exchange.connection.proxy.address
        and not exchange.connection.proxy.enabled
        and not exchange.connection.proxies
    )


def advise(reason: str, *, idle: bool = False) -> Advice:
    """By the name of an error's type.  ``idle``: the settings have a proxy that is not in force."""
    found = _BY_TYPE.get(reason, _UNKNOWN)
    return Advice(found.step, IDLE_PROXY) if idle and reason == "HostUnreachable" else found


def advise_error(error: Exception, *, idle: bool = False) -> Advice:
    """The same; of a deadline also what was waited for, of a captive portal that it is one."""
    found = advise(type(error).__name__, idle=idle)
    if isinstance(error, TunnelTimeout):
        if error.step == "proxy TLS handshake":
            return advise("ProxyTlsFailed")
        return Advice(error.step, IDLE_PROXY if idle else found.do)
    if isinstance(error, ProxyRefused) and error.code in _PORTAL_CODES:
        return Advice(found.step, _LOG_IN)
    if isinstance(error, UpgradeRefused | RestRefused) and error.status in _PORTAL_CODES:
        return Advice(found.step, _LOG_IN)
    if isinstance(error, TlsReset) and error.plain and not isinstance(error, ProxyTlsFailed):
        return Advice(found.step, f"{_LOG_IN}; or the port is wrong")
    if isinstance(error, NetworkError) and type(error).__name__ not in _BY_TYPE:
        return _UNKNOWN
    return found
