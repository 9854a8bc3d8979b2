"""Tables about exchanges: ``[exchanges.<venue>]`` with what belongs to it, and ``[simulator]``."""

from typing import Literal

from attrs import field, frozen

from ..model import Channel, Interval
from .fields import FieldError, Secret
from .fields import between as _between
from .proxies import EgressSettings, ProxySettings

ON_DEMAND = "on_demand"
"""In ``symbols``: whatever clients ask for."""
_MOST_ON_DEMAND, _MOST_OF_EVERY = 50, 1000
FROM_TRADES = frozenset({Interval.S1, Interval.S30, Interval.M1, Interval.M5})
"""Candles that can be built from trades."""


@frozen
class ConnectionSettings:
    """``[exchanges.<venue>.connection]``: one venue's sockets."""

    websocket_url: str = field(default="", repr=False)
    """Base URL of the venue's WebSocket, e.g. wss://fstream.binance.com; empty: the venue's own."""
    rest_url: str = field(default="", repr=False)
    """Base URL of the venue's REST, e.g. https://fapi.binance.com; empty: the venue's own."""
    ca_file: str = ""
    """PEM file that the exchange is verified with; empty: the system's authorities."""
    tls_strict: bool = True
    """False: takes certificates of a company's CA that break RFC 5280 in form (no key identifier,
    say), which Python 3.13 refuses.  Who signed them is verified all the same."""
    transport: Literal["auto", "fast", "trio-websocket"] = "auto"
    """What speaks WebSocket: "fast" is made for thousands of messages a second, "trio-websocket" is
    the library of that name; "auto": fast for exchanges, the library for the rest."""
    streams_per_connection: int = field(default=50, validator=_between(1, 1024))
    """Streams on one WebSocket; 1 = one connection per stream (`/ws/<stream>`)."""
    read_batch_us: int = field(default=0, validator=_between(0, 100_000))
    """Busy connections are read together, once in so many microseconds: less CPU for each message,
    which comes so much later at most.  0: each message is read at once."""
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
    proxy: ProxySettings = field(factory=ProxySettings)
    """A table, a URL, or a list of these: a chain."""
    proxies: tuple[ProxySettings, ...] = ()
    """``[[exchanges.<venue>.connection.proxies]]``: several of them, instead of `proxy`.  Those not
    enabled are left out, but one must be."""
    egress: EgressSettings = field(factory=EgressSettings)
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
        known = [_name(proxy) for proxy in self.proxies]
        if len(set(known)) != len(known):
            raise FieldError("proxies", "one is listed twice")


def _name(proxy: ProxySettings) -> tuple[object, ...]:
    """What makes two tables the same way out."""
    return proxy.proxy_type, proxy.address, proxy.username, *map(_name, proxy.via)


@frozen
class ChainEndpointSettings:
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
class ChainSettings:
    """``[exchanges.spinpet.solana]``: where the price events come from."""

    program_id: str = ""
    """The program whose logs are followed, base58."""
    commitment: Literal["processed", "confirmed", "finalized"] = "confirmed"
    """How sure the chain has to be of a transaction before its price counts."""
    process_failed_transactions: bool = False
    """Also believe events of transactions that failed."""
    endpoints: tuple[ChainEndpointSettings, ...] = ()
    """Where missed transactions are asked for; empty: `connection.rest_url` alone.  Several are
    compared: what only one of them knows counts."""
    check_s: float = field(default=10.0, validator=_between(1, 3600))
    """The list of the program's transactions is read this often, though nothing seems lost."""
    times_s: float = field(default=2.0, validator=_between(0.1, 3600))
    """So soon after a live price the list is read for the time of its block, without which no
    candle closes."""
    hold_s: float = field(default=20.0, validator=_between(0.1, 3600))
    """So long candles wait for missed prices and for times of blocks; then they close marked as not
    complete, and what comes late is a revision."""
    give_up_s: float = field(default=600.0, validator=_between(1, 86400))
    """A transaction that no endpoint gives for so long is said to be missing."""


@frozen
class ExchangeSettings:
    """``[exchanges.<venue>]``: what is taken from one venue."""

    enabled: bool = True
    """False: the table is there, and nothing is taken from the venue."""
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    """Unified symbols, e.g. BTCUSDT.  "on_demand", alone or among them: also what clients ask for,
    as long as somebody wants it; not for spinpet, which has "*": whatever comes."""
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
    """What clients can subscribe to, as far as the venue has it."""
    open_interest_s: float = field(default=30.0, validator=_between(1, 86400))
    """Channel open_interest: each symbol is asked for it this often, as the budget allows."""
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
    max_symbols: int = field(default=0, validator=_between(0, 100_000))
    """On demand: so many are fed at once beside those that are named; with "*": so many are made
    known as they come.  0: 50 on demand, 1000 with "*"."""
    max_symbols_per_client: int = field(default=0, validator=_between(0, 100_000))
    """Of these one client (an address; on this machine a connection) may have so many started, and
    starts no more within five minutes.  0: half of them."""
    linger_s: float = field(default=300.0, validator=_between(60, 30 * 86400))
    """On demand: a symbol that nobody wants is fed for so long; sooner, but not within a minute,
    another takes its place where there is none left."""
    history_bars: int = field(default=1000, validator=_between(0, 100_000))
    """Closed candles fetched for a series that the store knows nothing of."""
    publish_interval_ms: int = field(default=100, validator=_between(0, 60_000))
    """An open candle that is made of trades is published at most this often, the latest state of
    it; 0: with each trade.  Closed ones are published at once."""
    close_grace_s: float = field(default=3.0, validator=_between(0.1, 600))
    """A candle whose close has not come this long after its end is fetched by REST."""
    backfill_workers: int = field(default=4, validator=_between(1, 32))
    """REST calls of one venue under way at once."""
    instruments_refresh_s: float = field(default=3600.0, validator=_between(1, 7 * 86400))
    """The venue's list of instruments is asked for again this often."""
    buffer_messages: int = field(default=1000, validator=_between(1, 1_000_000))
    """Parsed messages between the readers and the processor before readers wait, at the least 64:
    what one read brought is handed on at once."""
    fallback: Literal["none", "simulated"] = "none"
    """simulated: made-up data, labelled as such and never stored, while the venue is out of
    reach."""
    fallback_after_s: float = field(default=60.0, validator=_between(1, 86400))
    """So long must no connection of the venue deliver before `fallback` takes over."""
    connection: ConnectionSettings = ConnectionSettings()
    idle_s: float = field(default=86400.0, validator=_between(60, 365 * 86400))
    """spinpet with symbols = ["*"]: a token without a price for so long is let go; it comes back
    with its next price."""
    solana: ChainSettings = ChainSettings()
    """For venue spinpet only."""

    @property
    def on_demand(self) -> bool:
        """Clients may ask for more symbols than are named."""
        return ON_DEMAND in self.symbols

    @property
    def named(self) -> tuple[str, ...]:
        """The symbols that are fed without being asked for."""
        return tuple(symbol for symbol in self.symbols if symbol != ON_DEMAND)

    @property
    def most_symbols(self) -> int:
        """``max_symbols`` with its default."""
        return self.max_symbols or (_MOST_ON_DEMAND if self.on_demand else _MOST_OF_EVERY)

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
        if wrong := set(self.trade_intervals) - FROM_TRADES:
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
    """Whose wire dialect it speaks and whose place it takes."""
    host: str = "127.0.0.1"
    """Address that it listens on."""
    port: int = field(default=0, validator=_between(0, 65535))
    """0 = any free port."""
    seed: int = 1
    """Same seed, same prices."""
    turning: bool = False
    """True: a price that reaches the bound of its hour turns back; False: it may stand there for
    minutes, as in recorded runs."""
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    """What it lists."""
    trades_per_minute: int = field(default=240, validator=_between(1, 60_000))
    """Per symbol."""
    kline_push_ms: int = field(default=250, validator=_between(10, 60_000))
    """The exchange pushes an open candle at most this often (250 ms on USD-M)."""
    book_push_ms: int = field(default=100, validator=_between(10, 60_000))
    """The exchange pushes a book's changes at most this often."""
    book_levels: int = field(default=1_100, validator=_between(50, 10_000))
    """A side of each book.  The work of a push grows with them."""
