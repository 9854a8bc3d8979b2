"""What a network error means to the person at the keyboard: which step failed, what to try.  Pure.

The errors' own messages say what happened and where; the step and the advice follow from their
type alone, so that they never depend on wording.
"""

from collections.abc import Mapping

from attrs import frozen

from ..errors import NetworkError, TunnelTimeout


@frozen
class Advice:
    """``step``: a few words; ``do``: one sentence."""

    step: str
    do: str


_PROXY_TABLE = "exchanges.<venue>.connection.proxy"
_BY_TYPE: Mapping[str, Advice] = {
    "HostUnreachable": Advice(
        "dial the exchange",
        f"no proxy is set and the host does not answer: set {_PROXY_TABLE}"
        ' (proxy = "http://127.0.0.1:7890" or "socks5://..."), or proxy.from_env = true where'
        " HTTPS_PROXY says it, or check the network and DNS",
    ),
    "ProxyUnreachable": Advice(
        "reach the proxy",
        f"start the proxy program, or correct {_PROXY_TABLE}.address (Clash listens on 7890,"
        " sing-box on 2080, v2ray on 10808 by default)",
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
        f"{_PROXY_TABLE}.proxy_type does not fit that port: try http, https or socks5",
    ),
    "TunnelTimeout": Advice(
        "open the way",
        "something drops the packets without a word: a firewall, a dead node behind the proxy; try"
        " another proxy or port",
    ),
    "TlsNameMismatch": Advice(
        "TLS with the exchange",
        "something in between answers in the exchange's name: take another way out",
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
        "this is not the exchange: a captive portal or a filter answers, or rest_url is wrong",
    ),
}
_UNKNOWN = Advice("connect", "trio-feed check --connect shows each step")


def advise(reason: str) -> Advice:
    """By the name of an error's type."""
    return _BY_TYPE.get(reason, _UNKNOWN)


def advise_error(error: Exception) -> Advice:
    """The same; of a deadline also what was waited for."""
    found = advise(type(error).__name__)
    if isinstance(error, TunnelTimeout):
        return Advice(error.step, found.do)
    if isinstance(error, NetworkError) and type(error).__name__ not in _BY_TYPE:
        return _UNKNOWN
    return found
