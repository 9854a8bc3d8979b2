"""One frozen class per TOML table, the unit in the name, one line under each field.

Names that the user's documents fixed are kept, with their units: ``[websocket] ping_interval``
and ``ping_timeout`` are milliseconds, ``[kline] connection_timeout`` is seconds.
"""

from collections.abc import Mapping
from typing import Literal

import attrs
from attrs import field, frozen

from ..model import Channel, Interval
from .fields import Duration, FieldError, Secret
from .fields import between as _between
from .private import AuthSettings, SettlementSettings


def _host_port(_instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    try:
        if value:
            split_address(value)
    except ValueError as error:
        raise FieldError(attribute.name, str(error)) from None


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` -> (host, port).  Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    if not 0 < int(port) < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


@frozen
class ProxySettings:
    """``[exchanges.<venue>.connection.proxy]``: the way out.  Never bypassed when enabled."""

    enabled: bool = False
    """True: every byte to this venue goes through the proxy, or nowhere."""
    proxy_type: Literal["http", "https", "socks5"] = "http"
    """http = CONNECT, https = CONNECT inside TLS to the proxy itself, socks5 = RFC 1928."""
    address: str = field(default="", validator=_host_port)
    """host:port of the proxy."""
    username: str = ""
    """Empty: no authentication is offered."""
    password: Secret = field(factory=Secret)
    """Sent to the proxy only; masked everywhere else."""
    ca_file: str = ""
    """PEM file that proxy_type "https" is verified with; empty: the system's authorities."""

    def __attrs_post_init__(self) -> None:
        if self.enabled and not self.address:
            raise FieldError("address", "missing although the proxy is enabled")
        if self.password and not self.username:
            raise FieldError("password", "given without a username")


@frozen
class EgressSettings:
    """``[exchanges.<venue>.connection.egress]``: how a pool of `proxies` is used."""

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


@frozen
class ConnectionSettings:
    """``[exchanges.<venue>.connection]``: one venue's sockets."""

    websocket_url: str = field(default="", repr=False)
    """Base URL of the venue's WebSocket, e.g. wss://fstream.binance.com; empty: the venue's own."""
    rest_url: str = field(default="", repr=False)
    """Base URL of the venue's REST, e.g. https://fapi.binance.com; empty: the venue's own."""
    ca_file: str = ""
    """PEM file that the exchange is verified with; empty: the system's authorities."""
    streams_per_connection: int = field(default=50, validator=_between(1, 1024))
    """Streams on one WebSocket; 1 = one connection per stream (`/ws/<stream>`)."""
    tunnel_timeout_s: float = field(default=10.0, validator=_between(0.1, 120))
    """Each step of dial, proxy handshake and TLS handshake."""
    open_timeout_s: float = field(default=15.0, validator=_between(0.1, 120))
    """WebSocket upgrade, tunnel included in its own steps."""
    close_timeout_s: float = field(default=2.0, validator=_between(0.1, 60))
    """Close handshake; then the socket is dropped."""
    ping_after_s: float = field(default=30.0, validator=_between(1, 3600))
    """Nothing received for this long: a WebSocket ping asks whether the peer is there."""
    pong_timeout_s: float = field(default=10.0, validator=_between(0.5, 600))
    """No pong for this long: the connection is lost."""
    silence_timeout_s: float = field(default=60.0, validator=_between(1, 86400))
    """No data for this long, pongs or not: the connection is lost."""
    stall_factor: float = field(default=3.0, validator=_between(1.5, 100))
    """A stream that is silent for this many times its usual gap is asked about by REST before."""
    stall_min_s: float = field(default=5.0, validator=_between(0.5, 3600))
    """A shorter silence of a stream is never suspicious."""
    max_age_s: float = field(default=23 * 3600.0, validator=_between(10, 7 * 86400))
    """A connection is replaced at about this age, before the exchange cuts it at 24 hours."""
    backoff_min_s: float = field(default=0.5, validator=_between(0.01, 60))
    """First wait after a lost connection; doubles each time, with jitter."""
    backoff_max_s: float = field(default=30.0, validator=_between(0.1, 3600))
    """Longest wait between two tries."""
    max_message_bytes: int = field(default=4 * 1024 * 1024, validator=_between(1024, 2**28))
    """A larger WebSocket message ends the connection."""
    rest_timeout_s: float = field(default=10.0, validator=_between(0.1, 120))
    """One REST call, from dialling to the last byte."""
    rest_weight_per_minute: int = field(default=1200, validator=_between(1, 1_000_000))
    """Own ceiling of request weight (Binance USD-M allows 2400 per IP, shared with others)."""
    proxy: ProxySettings = ProxySettings()
    proxies: tuple[ProxySettings, ...] = ()
    """``[[exchanges.<venue>.connection.proxies]]``: several of them, instead of `proxy`.  Those not
    enabled are left out, but one must be."""
    egress: EgressSettings = EgressSettings()
    """For a pool only."""
    redundancy: int = field(default=1, validator=_between(1, 2))
    """2: every stream comes over two connections at once, by two proxies where `proxies` has them;
    the first copy of each message counts."""

    def __attrs_post_init__(self) -> None:
        if not self.proxies:
            return
        if self.proxy.enabled:
            raise FieldError(
                "proxies", "given although a single proxy is enabled: keep one of both"
            )
        if not any(proxy.enabled for proxy in self.proxies):
            raise FieldError("proxies", "none is enabled: enable one, or remove them to go direct")
        known = [(proxy.proxy_type, proxy.address, proxy.username) for proxy in self.proxies]
        if len(set(known)) != len(known):
            raise FieldError("proxies", "one is listed twice")


@frozen
class SolanaEndpointSettings:
    """One of ``[[exchanges.spinpet.solana.endpoints]]``: a node that is asked for what was missed.

    Keys may stand in the URLs or in ``token``; they are shown nowhere.
    """

    rest_url: str = field(default="", repr=False)
    """RPC over HTTP, e.g. https://mainnet.helius-rpc.com/?api-key=..."""
    token: Secret = field(factory=Secret)
    """Sent as the header `x-token`; empty: none."""

    def __attrs_post_init__(self) -> None:
        if not self.rest_url.startswith(("http://", "https://")):
            raise FieldError("rest_url", "is not an http:// or https:// URL")


@frozen
class SolanaSettings:
    """``[exchanges.spinpet.solana]``: where the price events come from."""

    program_id: str = ""
    """The program whose logs are followed, base58."""
    commitment: Literal["processed", "confirmed", "finalized"] = "confirmed"
    process_failed_transactions: bool = False
    """Also believe events of transactions that failed."""
    endpoints: tuple[SolanaEndpointSettings, ...] = ()
    """Where missed transactions are asked for; empty: `connection.rest_url` alone.  Several are
    compared: what only one of them knows counts."""
    check_s: float = field(default=10.0, validator=_between(1, 3600))
    """The list of the program's transactions is read this often, though nothing seems lost."""
    hold_s: float = field(default=20.0, validator=_between(0.1, 3600))
    """So long live prices wait for missed ones before them; then these come late, as revisions."""
    give_up_s: float = field(default=600.0, validator=_between(1, 86400))
    """A transaction that no endpoint gives for so long is said to be missing."""


@frozen
class ExchangeSettings:
    """``[exchanges.<venue>]``: what is taken from one venue."""

    enabled: bool = True
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    """Unified symbols, e.g. BTCUSDT."""
    intervals: tuple[Interval, ...] = (
        Interval.M1,
        Interval.M5,
        Interval.M30,
        Interval.H1,
        Interval.H4,
        Interval.D1,
        Interval.W1,
    )
    """Candles taken from the exchange's own candle streams."""
    trade_intervals: tuple[Interval, ...] = (Interval.S1, Interval.S30)
    """Candles built here from aggregated trades; 1s 30s 1m 5m."""
    rollup_intervals: tuple[Interval, ...] = ()
    """Candles rolled up from the 1m candles, 3m to 1M; for what a venue does not offer."""
    channels: tuple[Channel, ...] = (Channel.KLINE, Channel.TRADE)
    """What clients can subscribe to: kline, trade, ticker, book."""
    book_levels: int = field(default=20, validator=_between(1, 1000))
    """Levels a side that a book message shows."""
    close: Literal["exchange", "proven"] = "exchange"
    """proven: a 1m candle closes as soon as the trade ids prove it over, about 2 s before the
    exchange says so; its word confirms or revises it.  Needs 1m in `intervals` and trades."""
    audit_after_s: float = field(default=600.0, validator=_between(0, 86400))
    """At least so long after its end (at most half as long again, so that one question serves
    several) every closed candle is compared once more with the exchange's own; a difference is a
    revision.  0 = never."""
    reconcile: bool = True
    """Compare the 1m candles with those built from the trades, where both are taken."""
    max_symbols: int = field(default=1000, validator=_between(1, 100_000))
    """With symbols = ["*"]: how many are made known as they come."""
    history_bars: int = field(default=1000, validator=_between(0, 100_000))
    """Closed candles fetched for a series that the store knows nothing of."""
    close_grace_s: float = field(default=3.0, validator=_between(0.1, 600))
    """A candle whose close has not come this long after its end is fetched by REST."""
    backfill_workers: int = field(default=4, validator=_between(1, 32))
    """REST calls of one venue under way at once."""
    instruments_refresh_s: float = field(default=3600.0, validator=_between(1, 7 * 86400))
    """The venue's list of instruments is asked for again this often."""
    buffer_messages: int = field(default=1000, validator=_between(1, 1_000_000))
    """Parsed messages between the readers and the processor before readers wait."""
    fallback: Literal["none", "simulated"] = "none"
    """simulated: made-up data, labelled as such and never stored, while the venue is out of
    reach."""
    fallback_after_s: float = field(default=60.0, validator=_between(1, 86400))
    """So long must no connection of the venue deliver before `fallback` takes over."""
    connection: ConnectionSettings = ConnectionSettings()
    idle_s: float = field(default=86400.0, validator=_between(60, 365 * 86400))
    """spinpet with symbols = ["*"]: a token without a price for so long is let go; it comes back
    with its next price."""
    solana: SolanaSettings = SolanaSettings()
    """For venue spinpet only."""

    def __attrs_post_init__(self) -> None:
        origins = [*self.intervals, *self.trade_intervals, *self.rollup_intervals]
        if both := {interval for interval in origins if origins.count(interval) > 1}:
            names = ", ".join(sorted(both))
            key = "trade_intervals" if both & set(self.trade_intervals) else "rollup_intervals"
            raise FieldError(key, f"{names} listed twice; a series has one origin")
        if self.rollup_intervals and Interval.M1 not in origins:
            raise FieldError("rollup_intervals", "needs 1m in intervals or trade_intervals")
        if wrong := set(self.rollup_intervals) & {Interval.S1, Interval.S30, Interval.M1}:
            names = ", ".join(sorted(wrong))
            raise FieldError("rollup_intervals", f"{names} cannot be made of minutes")
        allowed = {Interval.S1, Interval.S30, Interval.M1, Interval.M5}
        if wrong := set(self.trade_intervals) - allowed:
            names = ", ".join(sorted(wrong))
            raise FieldError("trade_intervals", f"{names} not one of 1s, 30s, 1m, 5m")
        for symbol in self.symbols:
            if not 0 < len(symbol) <= 64 or not symbol.isprintable() or " " in symbol:
                raise FieldError("symbols", f"{symbol!r} is not a symbol such as BTCUSDT")
        if len(set(self.symbols)) != len(self.symbols):
            raise FieldError("symbols", "one is listed twice")


@frozen
class SimulatorSettings:
    """``[simulator]``: an exchange in a box, reached over its real wire dialect."""

    enabled: bool = False
    """True: it is started beside the service and takes the place of `venue`; data is labelled."""
    venue: str = "binance_usdm"
    host: str = "127.0.0.1"
    port: int = field(default=0, validator=_between(0, 65535))
    """0 = any free port."""
    seed: int = 1
    """Same seed, same prices."""
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    trades_per_minute: int = field(default=240, validator=_between(1, 60_000))
    """Per symbol."""
    kline_push_ms: int = field(default=250, validator=_between(10, 60_000))
    """The exchange pushes an open candle at most this often (250 ms on USD-M)."""
    book_push_ms: int = field(default=100, validator=_between(10, 60_000))
    """The exchange pushes a book's changes at most this often."""
    book_levels: int = field(default=1_100, validator=_between(50, 10_000))
    """A side of each book.  The work of a push grows with them."""


@frozen
class KlineSettings:
    """``[kline]``: the push service, in the words of the user's document."""

    enable_kline_service: bool = True
    connection_timeout: float = field(default=60.0, validator=_between(1, 86400))
    """Seconds without any client activity (a pong counts) before a client is dropped."""
    max_subscriptions_per_client: int = field(default=100, validator=_between(1, 100_000))
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
    ping_timeout: int = field(default=60_000, validator=_between(100, 3_600_000))
    max_connections: int = field(default=10_000, validator=_between(1, 1_000_000))
    compression: bool = False
    max_message_bytes: int = field(default=64 * 1024, validator=_between(128, 2**24))
    """Largest message a client may send."""
    send_timeout_s: float = field(default=10.0, validator=_between(0.1, 600))
    """A client that takes no byte for this long is dropped."""
    max_connections_per_ip: int = field(default=0, validator=_between(0, 1_000_000))
    """Of one IPv4 address or IPv6 /64; more get 503.  0 = no bound of its own."""
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
    """Pushes that may wait for one client; beyond, it is told where to resume and dropped."""


@frozen
class ServerSettings:
    """``[server]``: where the push endpoint listens, and whom it lets in."""

    host: str = "127.0.0.1"
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
    tls_cert_file: str = ""
    """PEM file of the certificate and its chain; empty: no TLS."""
    tls_key_file: str = ""
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
class StoreSettings:
    """``[store]``: the candle history."""

    path: str = "data/trio_feed.db"
    """SQLite file; ":memory:" keeps it in memory only."""
    flush_interval_s: float = field(default=0.2, validator=_between(0.001, 60))
    """Closed candles are written in batches this often."""
    max_pending_rows: int = field(default=100_000, validator=_between(100, 10_000_000))
    """Rows kept in memory while the disk does not take them; then readers wait."""
    keep: Mapping[Interval, Duration] = field(factory=dict, converter=_with_defaults)
    """How long candles stay, by interval, e.g. {"1s" = "7d", "1m" = "forever"}.  Not named: "1s"
    30d, "30s" 365d, all others forever.  The last candle of a series always stays."""


@frozen
class LoggingSettings:
    """``[logging]``: JSON lines on stdout."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON otherwise."""


@frozen
class ProxyEnvSettings:
    """``[proxy]``: whether HTTPS_PROXY, ALL_PROXY and NO_PROXY are looked at."""

    from_env: bool = False


@frozen
class ServiceSettings:
    """``[service]``: the process itself."""

    shutdown_timeout_s: float = field(default=5.0, validator=_between(0.1, 300))
    """SIGTERM to exit, at most."""
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


@frozen
class Settings:
    """Everything.  Made by :func:`trio_feed.settings.load`; immutable while the service runs."""

    exchanges: Mapping[str, ExchangeSettings] = field(factory=dict)
    simulator: SimulatorSettings = SimulatorSettings()
    kline: KlineSettings = KlineSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    auth: AuthSettings = field(factory=AuthSettings)
    settlement: SettlementSettings = field(factory=SettlementSettings)
    logging: LoggingSettings = LoggingSettings()
    proxy: ProxyEnvSettings = ProxyEnvSettings()
    service: ServiceSettings = ServiceSettings()
