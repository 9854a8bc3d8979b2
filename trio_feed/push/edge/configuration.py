"""The server's settings, checked and as limits and admission rules."""

import ssl

from attrs import evolve

from ...errors import SettingsError
from ...settings import Settings
from ...settings.tables import LimitSettings, ServerSettings, WebSocketSettings
from .admission import ANY, admission, host_name, is_loopback, origin_problem
from .admission_check import AdmissionRules
from .clients import REFUSED_FILES
from .limits import ServerLimits
from .throttle import RequestLimits
from .tls import server_context
from .work import WorkLimits

_FRAMES_PER_REQUEST = 2
"""Fragments that a client may make of each of its requests, in the long run."""
_HTTP_BURST_S = 5
_ADMIN_CONNECTIONS = 64
_ADDRESSES_AT_LEAST, _LEAST_PER_IP = 10, 16
RESERVED_FILES = REFUSED_FILES + 64 + 64
"""Descriptors that are not for clients: for those that are being refused, for operators, and for
exchanges and store."""


def check_server(server: ServerSettings) -> None:
    """Raises SettingsError for names, origins or files that are none."""
    for index, origin in enumerate(server.allowed_origins):
        if problem := origin_problem(origin):
            raise SettingsError(f"server.allowed_origins.{index}", problem)
    for index, host in enumerate(server.allowed_hosts):
        if host != ANY and host_name(host) != host.lower():
            problem = f"{host!r} is not a name without port such as feed.example.com"
            raise SettingsError(f"server.allowed_hosts.{index}", problem)
    tls_context(server)


def tls_context(server: ServerSettings) -> ssl.SSLContext | None:
    """None: no TLS.  Raises SettingsError."""
    if not server.tls_cert_file:
        return None
    return server_context(server.tls_cert_file, server.tls_key_file)


def admission_rules(settings: Settings) -> AdmissionRules:
    """What the clients' port admits."""
    server = settings.server
    own = admission(
        server.host, server.allowed_hosts, server.allowed_origins, tls=bool(server.tls_cert_file)
    )
    return AdmissionRules(own, deflate=settings.websocket.compression)


def admin_rules(server: ServerSettings) -> AdmissionRules:
    """What the admin port admits: no page of another origin."""
    return AdmissionRules(admission(server.admin_host, server.allowed_hosts, (), tls=False))


def server_limits(
    websocket: WebSocketSettings, sweep_s: float, close_timeout_s: float
) -> ServerLimits:
    """The sweep finds clients that are silent or take nothing; the server's own limits stand
    ``sweep_s`` and ``close_timeout_s`` behind it.

    So many frames are allowed that a client hears of its refused requests before it is closed.
    """
    at_once = websocket.request_burst + websocket.flood_requests
    return ServerLimits(
        max_connections=websocket.max_connections,
        max_message_bytes=websocket.max_message_bytes,
        frames_per_s=websocket.requests_per_second * _FRAMES_PER_REQUEST,
        frame_burst=at_once * _FRAMES_PER_REQUEST,
        receive_timeout_s=(websocket.ping_interval + websocket.ping_timeout) / 1000 + sweep_s,
        send_timeout_s=websocket.send_timeout_s + close_timeout_s,
        handshake_timeout_s=websocket.handshake_timeout_s,
        body_timeout_s=websocket.handshake_timeout_s,
    )


def with_http_rate(limits: ServerLimits, per_s: float) -> ServerLimits:
    return evolve(limits, http_per_s=per_s, http_burst=int(per_s * _HTTP_BURST_S))


def clients_within(max_connections: int, open_files: float) -> int:
    """How many clients a process with so many descriptors may have, so that the exchanges'
    connections, the store, the operators' port and refused clients have theirs."""
    reserve = min(RESERVED_FILES, open_files / 2)
    return int(min(max_connections, open_files - reserve))


def clients_per_ip(wanted: int, max_connections: int, host: str) -> int:
    """How many of them one address may have, 0: all.  ``wanted`` is the setting; by default no
    address beyond this machine can take all places."""
    if wanted >= 0:
        return wanted
    return 0 if is_loopback(host) else max(_LEAST_PER_IP, max_connections // _ADDRESSES_AT_LEAST)


def admin_limits(websocket: WebSocketSettings) -> ServerLimits:
    return ServerLimits(
        max_connections=_ADMIN_CONNECTIONS,
        send_timeout_s=websocket.send_timeout_s,
        handshake_timeout_s=websocket.handshake_timeout_s,
    )


def request_limits(websocket: WebSocketSettings) -> RequestLimits:
    return RequestLimits(
        per_s=websocket.requests_per_second,
        burst=websocket.request_burst,
        flood=websocket.flood_requests,
    )


def work_limits(limits: LimitSettings) -> WorkLimits:
    return WorkLimits(
        rows_per_s=limits.rows_per_second,
        row_burst=limits.row_burst,
        total_rows_per_s=limits.total_rows_per_second,
        total_row_burst=limits.total_row_burst,
        waiting_per_address=limits.waiting_per_address,
        wait_s=limits.wait_s,
    )
