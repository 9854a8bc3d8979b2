"""Binance USD-M futures: streams and their paths, REST questions, limits, as of 2026-11.

Sources: "Important WebSocket Change Notice" and "Websocket Market Streams" of the USD-M pages on
developers.binance.com (2026-05-28).  Since 2026-04-23 streams are split over ``/public`` and
``/market``: on the wrong path they are acknowledged and stay silent for ever.

Perpetuals are asked for as continuous contracts (``btcusdt_perpetual@continuousKline_1m``), dated
contracts by their own symbol (``btcusdt_261225@kline_1m``, ``klines``): ``current_quarter`` names
another contract after each delivery, so its candles would change from one to the other.
"""

from collections.abc import Sequence

from ...core.streams import POLLED, BookRule, Kind, Stream, TradeIds
from ...model import Instrument, Interval
from ...rest_dialects import RestDialect
from ..base import Heartbeat, Plan, RestQuestion
from ..names import joined
from ..rows import Rows
from . import connections, messages, rest
from .dialect import BinanceDialect
from .events import CONTRACTS

NAME = "binance_usdm"
WEBSOCKET_URL = "wss://fstream.binance.com"
REST_URL = "https://fapi.binance.com"
INTERVALS = frozenset(Interval) - {Interval.S1, Interval.S30}
BOOK_RULE: BookRule | None = BookRule(first_repeats=True)
"""Source: "How to manage a local order book correctly" of USD-M.  Wider than that page: the first
update may begin after the snapshot's id as long as what was before it is in the snapshot."""
DIALECT: RestDialect = BinanceDialect()
BOOK_SNAPSHOT_LEVELS: int | None = 1000
HIGH_RATES = True
HEARTBEAT: Heartbeat | None = None
LISTED = True
BURST_S = 60.0
DIALS = (300, 305.0)
"""As spot: for futures nothing is documented."""
FRAMES = (10, 1.25)
"""10 in a second; a quarter more for those that are longer on the way than the next."""
OPERATIONS: tuple[int, float] | None = None
SHARES = NAME
TRADE_KIND = Kind.AGG_TRADE
TRADE_IDS: TradeIds = "dense"
PAGE = 1500
BEGAN_MS = 1_567_296_000_000
"""2019-09-01: the month of the first contract (2019-09-08)."""

_PUBLIC, _MARKET = "/public", "/market"
_STREAMS = {
    Kind.KLINE: (_MARKET, "{pair}_{contract}@continuousKline_{interval}"),
    Kind.AGG_TRADE: (_MARKET, "{pair}@aggTrade"),
    Kind.TICKER: (_MARKET, "{pair}@ticker"),
    Kind.MINI_TICKER: (_MARKET, "{pair}@miniTicker"),
    Kind.MARK_PRICE: (_MARKET, "{pair}@markPrice@1s"),
    Kind.LIQUIDATION: (_MARKET, "{pair}@forceOrder"),
    Kind.TOP: (_PUBLIC, "{pair}@bookTicker"),
    Kind.BOOK: (_PUBLIC, "{pair}@depth@100ms"),
    Kind.BOOK_LEVELS: (_PUBLIC, "{pair}@depth20@100ms"),
    Kind.TRADE: (_PUBLIC, "{pair}@trade"),
}
"""Path and name of each kind.  ``@trade`` is undocumented on USD-M, but seen on /public."""
KINDS = frozenset(_STREAMS) | POLLED
_CONTRACTS = {kind: contract for contract, kind in CONTRACTS.items()}
_DATED = "{pair}@kline_{interval}"
_WEIGHTS = ((100, 1), (500, 2), (1001, 5))
"""Below so many candles a question weighs so much; else 10."""
_TRADE_PAGE = 1000

parse_klines = rest.parse_klines
parse_trades = rest.parse_trades
parse_book = rest.parse_book
parse_open_interest = rest.parse_open_interest
parse = messages.parse


own_form = joined


def stream(kind: Kind, instrument: Instrument, interval: Interval | None = None) -> Stream:
    """Raises ValueError for a kind that is not in the table."""
    if kind not in _STREAMS:
        raise ValueError(f"{NAME} has no {kind} streams")
    path, pattern = _STREAMS[kind]
    contract = _continuous(instrument)
    if kind is Kind.KLINE and not contract:
        pattern = _DATED
    name = pattern.format(
        pair=instrument.native.lower(), contract=contract.lower(), interval=interval
    )
    return Stream(path, name, instrument.symbol, kind, interval)


def _continuous(instrument: Instrument) -> str:
    """The contract type that the candles are asked for by; empty: they are asked for by symbol."""
    return _CONTRACTS.get(instrument.kind, "")


def plan(base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
    """Streams -> connections; the two paths never share one."""
    plans: list[Plan] = []
    for path in (_MARKET, _PUBLIC):
        group = [stream for stream in streams if stream.path == path]
        plans += connections.plan(base_url, path, group, limit)
    return plans


def instruments_questions() -> list[RestQuestion]:
    return [RestQuestion("/fapi/v1/exchangeInfo", {}, 1)]


def parse_instruments(body: bytes) -> Rows[Instrument]:
    """Perpetuals; dated contracts have names of their own and are listed as well."""
    return rest.parse_instruments(body, NAME)


def klines_question(
    instrument: Instrument, interval: Interval, start_ms: int, bars: int, now_ms: float
) -> RestQuestion:
    """``bars`` candles from ``start_ms`` on and one more, oldest first."""
    limit = min(PAGE, max(bars, 1) + 1)
    return _klines(instrument, interval, limit, {"startTime": max(start_ms, BEGAN_MS)})


def _klines(
    instrument: Instrument, interval: Interval, limit: int, start: dict[str, str | int]
) -> RestQuestion:
    contract = _continuous(instrument)
    path = "/fapi/v1/continuousKlines" if contract else "/fapi/v1/klines"
    params: dict[str, str | int] = {"symbol": instrument.native}
    if contract:
        params = {"pair": instrument.native, "contractType": contract}
    params |= {"interval": interval.value, **start, "limit": limit}
    weight = next((weight for below, weight in _WEIGHTS if limit < below), 10)
    return RestQuestion(path, params, weight)


def trades_question(instrument: Instrument, from_id: int) -> RestQuestion | None:
    """Aggregated trades from ``from_id`` on, oldest first (the exchange keeps 48 hours)."""
    params: dict[str, str | int] = {
        "symbol": instrument.native,
        "fromId": from_id,
        "limit": _TRADE_PAGE,
    }
    return RestQuestion("/fapi/v1/aggTrades", params, 20)


def latest_question(instrument: Instrument, interval: Interval | None) -> RestQuestion | None:
    """The newest candle (weight 1) or aggregated trade (20, however few are asked for)."""
    if interval is None:
        return RestQuestion("/fapi/v1/aggTrades", {"symbol": instrument.native, "limit": 1}, 20)
    return _klines(instrument, interval, 1, {})


def book_question(instrument: Instrument) -> RestQuestion | None:
    params: dict[str, str | int] = {"symbol": instrument.native, "limit": BOOK_SNAPSHOT_LEVELS or 0}
    return RestQuestion("/fapi/v1/depth", params, 20)


def open_interest_question(instrument: Instrument) -> RestQuestion | None:
    """Weight 1 a symbol; there is no list of all."""
    return RestQuestion("/fapi/v1/openInterest", {"symbol": instrument.native})
