"""One frozen class per TOML table, the unit in the name, one line under each field.

Names that the user's documents fixed are kept, with their units: ``[websocket] ping_interval``
and ``ping_timeout`` are milliseconds, ``[kline] connection_timeout`` is seconds.
"""

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from ..model import Interval
from .databases import DatabaseUrl
from .dialects import DialectsSettings
from .engine import EngineSettings, NodeSettings
from .exchanges import ExchangeSettings, SimulatorSettings
from .fields import RELOADED, Duration, FieldError
from .fields import between as _between
from .private import AuthSettings, SettlementSettings


@frozen
class KlineSettings:
    """``[kline]``: the push service, in the words of the user's document."""

    enable_kline_service: bool = True
    """False: no candle can be subscribed to or asked for; private events go on."""
    connection_timeout: float = field(default=60.0, validator=_between(1, 86400))
    """Seconds without any client activity (a pong counts) before a client is dropped."""
    max_subscriptions_per_client: int = field(default=100, validator=_between(1, 100_000))
    """One more is refused (1002)."""
    broadcast_buffer_size: int = field(default=10_000, validator=_between(10, 1_000_000))
    """Messages one client may have waiting before it is disconnected."""
    history_data_limit: int = field(default=100, validator=_between(1, 5000))
    """Rows of history where the client names no limit."""
    resume_messages: int = field(default=256, validator=_between(1, 100_000))
    """Last messages kept per subscribed stream, about 1 KB each, for clients that come back."""


@frozen
class WebSocketSettings:
    """``[websocket]``: the push endpoint's sockets.  Times in milliseconds, as in the document."""

    ping_interval: int = field(default=25_000, validator=_between(100, 3_600_000))
    """Milliseconds of silence after which a client is pinged."""
    ping_timeout: int = field(default=60_000, validator=_between(100, 3_600_000))
    """Milliseconds after that ping within which something must come, a pong or anything else."""
    max_connections: int = field(default=10_000, validator=_between(1, 1_000_000))
    """Clients at once; one more gets 503 before the upgrade."""
    compression: bool = False
    """True: clients may agree on permessage-deflate, without context takeover."""
    max_message_bytes: int = field(default=64 * 1024, validator=_between(128, 2**24))
    """Largest message a client may send."""
    send_timeout_s: float = field(default=10.0, validator=_between(0.1, 600))
    """A client that takes no byte for this long is dropped.  One that reads slowly seems to take
    none until a good part of the system's own buffers is free again."""
    max_connections_per_ip: int = field(default=-1, validator=_between(-1, 1_000_000))
    """Of one IPv4 address or IPv6 /64; more get 503.  0 = no bound of its own.  -1: none on a
    loopback address, else a tenth of max_connections (behind a proxy all come from one: set 0)."""
    requests_per_second: float = field(default=50.0, validator=_between(0.1, 1_000_000))
    """Requests that one client may go on sending; beyond: error 1005."""
    request_burst: int = field(default=500, validator=_between(1, 1_000_000))
    """Requests that it may send at once after a pause."""
    flood_requests: int = field(default=500, validator=_between(1, 1_000_000))
    """A client with so many refused requests (less what it waited) is closed with 1008."""
    unused_timeout_s: float = field(default=60.0, validator=_between(0.1, 86400))
    """Neither subscribed nor authenticated for this long: close 1008."""
    handshake_timeout_s: float = field(default=10.0, validator=_between(0.1, 600))
    """From the accept to the end of a request's head, TLS included; and for a request's body."""
    queue_bytes: int = field(default=256 * 1024, validator=_between(1024, 2**30))
    """Pushes that may wait for one client for longer than `behind_s`; beyond, it gets the place to
    resume from and is dropped."""
    behind_s: float = field(default=10.0, validator=_between(0.1, 600))
    """So long a client may be behind with up to 32 times as much waiting: who keeps up on average
    is not dropped for a burst or a busy moment."""


@frozen
class ServerSettings:
    """``[server]``: where the push endpoint listens, and whom it lets in."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: every one of this machine, then name `allowed_hosts`."""
    port: int = field(default=8080, validator=_between(0, 65535))
    """0 = any free port; `service.ready` logs which."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may use it, e.g. https://example.com; our own always may.  "*" =
    all.  Programs send none and are not asked."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that clients may know it by (Host header, without port); "*" = any.  Empty: on a
    loopback address only localhost and the address, else any."""
    admin_host: str = ""
    """Where /metrics and /api/v1/status are; empty: on the port of the clients."""
    admin_port: int = field(default=0, validator=_between(0, 65535))
    """With admin_host.  0 = any free port; plain HTTP."""
    workers: int = field(default=1, validator=_between(1, 256))
    """Processes that serve clients behind one port, about one per core; 1: the service itself
    does.  Not on Windows."""
    tls_cert_file: str = field(default="", metadata=RELOADED)
    """PEM file of the certificate and its chain; empty: no TLS."""
    tls_key_file: str = field(default="", metadata=RELOADED)
    """PEM file of its key, without passphrase."""

    def __attrs_post_init__(self) -> None:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            missing = "tls_key_file" if self.tls_cert_file else "tls_cert_file"
            raise FieldError(missing, "missing: TLS needs a certificate and its key")
        if self.admin_port and not self.admin_host:
            raise FieldError("admin_port", "needs admin_host, e.g. 127.0.0.1")


_KEPT = {Interval.S1: Duration("30d"), Interval.S30: Duration("365d")}


def _with_defaults(keep: Mapping[Interval, Duration]) -> Mapping[Interval, Duration]:
    return {**_KEPT, **keep}


@frozen
class LimitSettings:
    """``[limits]``: what clients may order, over HTTP and WebSocket together.  An address is an
    IPv4 address or an IPv6 /64; a request costs the rows that it asks for."""

    rows_per_second: float = field(default=10_000.0, validator=_between(1, 1e9))
    """Rows that one address may go on ordering; beyond it waits, then 429 or error 1005."""
    row_burst: int = field(default=200_000, validator=_between(1, 1_000_000_000))
    """Rows that it may order at once after a pause."""
    total_rows_per_second: float = field(default=20_000.0, validator=_between(1, 1e9))
    """Rows of all addresses, in answers of more than 200; beyond, these wait in turn.  A core
    writes about 70,000 a second."""
    total_row_burst: int = field(default=400_000, validator=_between(1, 1_000_000_000))
    """Rows of all addresses at once after a pause."""
    waiting_per_address: int = field(default=256, validator=_between(1, 1_000_000))
    """Requests of one address that may wait for their turn."""
    wait_s: float = field(default=30.0, validator=_between(0.1, 600))
    """A request that has not had its turn after so long is refused."""
    http_requests_per_second: float = field(default=200.0, validator=_between(1, 1e6))
    """HTTP requests of one address, probes too; five times as many at once, and beyond each waits
    up to a second."""
    waiting_bytes: int = field(default=64 * 2**20, validator=_between(2**22, 2**40))
    """Bytes that may wait for all clients together; beyond, who has most waiting is dropped."""


@frozen
class StoreSettings:
    """``[store]``: the candle history."""

    path: str = "data/trio_feed.db"
    """SQLite file; ":memory:" keeps it in memory only."""
    url: DatabaseUrl = field(factory=DatabaseUrl)
    """PostgreSQL in the place of the file, e.g. postgresql://feed@127.0.0.1:5432/candles, with the
    extra `trio_feed[cluster]`; the password better in PGPASSWORD or ~/.pgpass.  Copies of lists of
    instruments stay beside `path`."""
    flush_interval_s: float = field(default=0.2, validator=_between(0.001, 60))
    """Closed candles are written at once, and then in batches this often."""
    max_pending_rows: int = field(default=100_000, validator=_between(100, 10_000_000))
    """Rows kept in memory while the disk does not take them; then readers wait."""
    keep: Mapping[Interval, Duration] = field(factory=dict, converter=_with_defaults)
    """How long candles stay, by interval, e.g. {"1s" = "7d", "1m" = "forever"}.  Not named: "1s"
    30d, "30s" 365d, all others forever.  The last candle of a series always stays."""


@frozen
class LoggingSettings:
    """``[logging]``: JSON lines on stdout."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is less than this is not logged; debug leaves nothing out."""
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON otherwise."""


@frozen
class OtelSettings:
    """``[otel]``: OpenTelemetry, with the extra ``trio_feed[otel]``.  OTEL_EXPORTER_OTLP_ENDPOINT
    in the environment turns it on as well."""

    enabled: bool = False
    """Traces and metrics are sent."""
    endpoint: str = field(default="", repr=False)
    """OTLP over HTTP, e.g. http://127.0.0.1:4318; empty: as the OTEL_ variables say."""
    service_name: str = ""
    """Empty: OTEL_SERVICE_NAME, else trio_feed."""
    traces: bool = True
    """A span per repair, rotation, reconnect, REST call, settlement batch, metrics export."""
    metrics: bool = True
    """What /metrics says."""
    metrics_interval_s: float = field(default=60.0, validator=_between(1, 3600))
    """How often metrics are sent."""

    def __attrs_post_init__(self) -> None:
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise FieldError("endpoint", "is not an http:// or https:// URL")


@frozen
class ProxyEnvSettings:
    """``[proxy]``: whether HTTPS_PROXY, ALL_PROXY, HTTP_PROXY and NO_PROXY are looked at."""

    from_env: bool = False
    """True: a venue without a proxy of its own uses those of the environment."""


@frozen
class ServiceSettings:
    """``[service]``: the process itself."""

    shutdown_timeout_s: float = field(default=5.0, validator=_between(0.1, 300))
    """SIGTERM to exit, at most."""
    start_wait_s: float = field(default=60.0, validator=_between(0, 86400))
    """A start waits so long for a database or an engine that is away, then ends with code 3; 0: it
    ends at once."""
    default_venue: str = ""
    """Venue of a symbol that exists on several; empty: the first enabled one."""
    ready_after_s: float = field(default=30.0, validator=_between(1, 86400))
    """/ready says no when an exchange has delivered nothing for this long."""
    clock_error_max_s: float = field(default=0.0, validator=_between(0, 1e9))
    """/ready says no when our clock differs by more from an exchange's; 0: it only says so."""
    same_bug_max: int = field(default=5, validator=_between(0, 1000))
    """A bug in a venue restarts that venue alone; the same one more often than this within
    `same_bug_window_s` ends the process."""
    same_bug_window_s: float = field(default=600.0, validator=_between(1, 86400))
    """See `same_bug_max`."""


@frozen
class Settings:
    """Everything.  Made by :func:`trio_feed.settings.load`; immutable while the service runs."""

    exchanges: Mapping[str, ExchangeSettings] = field(factory=dict, metadata=RELOADED)
    simulator: SimulatorSettings = field(factory=SimulatorSettings)
    kline: KlineSettings = KlineSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    store: StoreSettings = StoreSettings()
    auth: AuthSettings = field(factory=AuthSettings)
    settlement: SettlementSettings = field(factory=SettlementSettings)
    logging: LoggingSettings = LoggingSettings()
    otel: OtelSettings = OtelSettings()
    proxy: ProxyEnvSettings = ProxyEnvSettings()
    dialects: DialectsSettings = field(factory=DialectsSettings)
    service: ServiceSettings = ServiceSettings()
    engine: EngineSettings = field(factory=EngineSettings)
    node: NodeSettings = field(factory=NodeSettings)

    @property
    def journal_url(self) -> DatabaseUrl:
        """Private events are in the database of the candles, where nothing else is said; empty: in
        no database, as where nobody may report or have any."""
        own = self.settlement
        if not self.auth.enabled and not own.publishers:
            return DatabaseUrl()
        return own.url or (DatabaseUrl() if own.path else self.store.url)
