"""Binance USD-M futures: streams and their paths, REST questions, limits, as of 2026-11.

Sources: "Important WebSocket Change Notice" and "Websocket Market Streams" of the USD-M pages on
developers.binance.com (2026-05-28).  Since 2026-04-23 streams are split over ``/public`` and
``/market``: on the wrong path they are acknowledged and stay silent for ever.
"""

from collections.abc import Sequence

from ..model import Instrument, Interval
from . import binance_rest as rest
from . import binance_wire as wire
from .base import BookRule, Event, Heartbeat, Kind, Plan, RestQuestion, Stream
from .instruments import Instruments

NAME = "binance_usdm"
WEBSOCKET_URL = "wss://fstream.binance.com"
REST_URL = "https://fapi.binance.com"
INTERVALS = frozenset(Interval) - {Interval.S1, Interval.S30}
BOOK_RULE: BookRule | None = "binance_futures"
BOOK_SNAPSHOT_LEVELS: int | None = 1000
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
KINDS = frozenset(_STREAMS)
_PAGE = 1500
_PAGE_WEIGHT = 10
_TRADE_PAGE = 1000

parse_klines = rest.parse_klines
parse_trades = rest.parse_trades
parse_book = rest.parse_book


def stream(kind: Kind, instrument: Instrument, interval: Interval | None = None) -> Stream:
    """Raises ValueError for a kind that is not in the table."""
    if kind not in _STREAMS:
        raise ValueError(f"{NAME} has no {kind} streams")
    path, pattern = _STREAMS[kind]
    name = pattern.format(
        pair=instrument.native.lower(), contract=_contract(instrument), interval=interval
    )
    return Stream(path, name, instrument.symbol, kind, interval)


def _contract(instrument: Instrument) -> str:
    return "tradifi_perpetual" if instrument.kind == "tradifi_perpetual" else "perpetual"


def plan(base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
    """Streams -> connections; the two paths never share one."""
    plans: list[Plan] = []
    for path in (_MARKET, _PUBLIC):
        group = [stream for stream in streams if stream.path == path]
        plans += wire.plan(base_url, path, group, limit)
    return plans


def parse(raw: str | bytes, instruments: Instruments) -> Sequence[Event]:
    """One WebSocket message.  Raises BadMessage."""
    return wire.parse(raw, instruments)


def instruments_questions() -> list[RestQuestion]:
    return [RestQuestion("/fapi/v1/exchangeInfo", {}, 1)]


def parse_instruments(body: bytes) -> list[Instrument]:
    """Perpetuals; dated contracts have names of their own and are listed as well."""
    return rest.parse_instruments(body, NAME)


def klines_question(
    instrument: Instrument, interval: Interval, start_ms: int, now_ms: float
) -> RestQuestion:
    """Candles from ``start_ms`` on, oldest first, the running one last."""
    return RestQuestion(
        "/fapi/v1/continuousKlines",
        {
            "pair": instrument.native,
            "contractType": _contract(instrument).upper(),
            "interval": interval.value,
            "startTime": start_ms,
            "limit": _PAGE,
        },
        _PAGE_WEIGHT,
    )


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
    params: dict[str, str | int] = {
        "pair": instrument.native,
        "contractType": _contract(instrument).upper(),
        "interval": interval.value,
        "limit": 1,
    }
    return RestQuestion("/fapi/v1/continuousKlines", params, 1)


def book_question(instrument: Instrument) -> RestQuestion | None:
    params: dict[str, str | int] = {"symbol": instrument.native, "limit": BOOK_SNAPSHOT_LEVELS or 0}
    return RestQuestion("/fapi/v1/depth", params, 20)
