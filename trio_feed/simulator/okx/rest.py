"""The REST side of OKX, pure: a request and a time in, a response out.

Endpoints, limits and budgets: exchanges.md 5.5 (www.okx.com/docs-v5, 2026-01 to 2026-07).  Every
answer is ``{"code":"0","msg":"","data":[...]}``; a wrong parameter is another code under HTTP 200.
Rows come newest first, between two exclusive bounds: older than ``after``, newer than ``before``.
A ``limit`` above the most is cut to it (freqtrade #6174 measured 301 -> 300).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from attrs import define, field

from ..machinery.rest import ApiError, RestEndpoint, front_end_page
from ..machinery.wire import Request, Response
from ..market.books import STEP_MS
from ..market.interest import held
from .accounts import Accounts
from .bars import BARS
from .book_sources import BOOK_LEVELS
from .data import MarketData
from .listing import OkxInstrument, digits, find_instrument, instruments_of
from .rows import book_row, candle_row, last_trade, single_row, ticker_row

_WINDOW_MS = 2_000
_RECENT_BARS = 1_440
_THREE_MONTHS_MS = 90 * 24 * 3_600_000
_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION")

Query = Mapping[str, str]
_Handle = Callable[[MarketData, Query, int], Iterator[object]]


class OkxError(ApiError):
    """OKX's code, text and HTTP status."""

    def __init__(self, code: int, msg: str, status: int = 200) -> None:
        body = {"code": str(code), "msg": msg, "data": list[object]()}
        super().__init__(Response(status, msgspec.json.encode(body)))


@define
class OkxRest(RestEndpoint):
    data: MarketData
    accounts: Accounts = field(factory=Accounts)
    weight: int = 0
    """Requests so far: OKX has no weights, each counts once."""
    _recent: dict[str, deque[int]] = field(factory=dict)

    def respond(self, request: Request, now_ms: int) -> Response:
        self.weight += 1
        status = self.faults.next_rest()
        if status is not None and status != 429:
            return front_end_page(status)
        if status == 429:
            raise _too_many()
        if (signed := self.accounts.answer(request)) is not None:
            return signed
        endpoint = _ENDPOINTS.get(request.path)
        if endpoint is None or request.method != "GET":
            return _not_found()
        most, handle = endpoint
        if not self._allowed(request.path, most, now_ms):
            raise _too_many()

        def read(at_ms: int) -> list[object]:
            return [*handle(self.data, request.query, at_ms)]

        rows = self.faults.rows(request.path, now_ms, read, newest_first=True)
        return Response(200, msgspec.json.encode({"code": "0", "msg": "", "data": rows}))

    def _allowed(self, path: str, most: int, now_ms: int) -> bool:
        """At most ``most`` answers of an endpoint in any 2 s."""
        recent = self._recent.setdefault(path, deque(maxlen=most))
        if len(recent) == most and now_ms - recent[0] < _WINDOW_MS:
            return False
        recent.append(now_ms)
        return True


def _too_many() -> OkxError:
    return OkxError(50011, "Too Many Requests", 429)


def _instruments(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    kind = _kind(query)
    if kind == "OPTION" and not (query.get("uly") or query.get("instFamily")):
        raise OkxError(50015, "Either parameter uly or instFamily is required")
    for each in instruments_of(data.market):
        row = each.row(trading=data.market.is_trading(each.symbol, now_ms))
        asked = ("instId", "uly", "instFamily")
        if each.inst_type == kind and all(query.get(n, row[n]) in ("", row[n]) for n in asked):
            yield row


def _time(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    yield {"ts": str(now_ms)}


def _ticker(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    yield _ticker_row(data, _instrument(data, query), now_ms)


def _tickers(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    kind = _kind(query)
    for each in instruments_of(data.market):
        if each.inst_type == kind and data.market.is_trading(each.symbol, now_ms):
            yield _ticker_row(data, each, now_ms)


def _ticker_row(data: MarketData, instrument: OkxInstrument, now_ms: int) -> object:
    bids, asks = data.levels(instrument, now_ms // STEP_MS, 1)
    return ticker_row(instrument, data.candles, bids + asks, now_ms)


def _open_interest(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    """Of contracts; counted anew every 10 s."""
    kind = _kind(query)
    at_ms = now_ms - now_ms % 10_000
    for each in instruments_of(data.market):
        if each.inst_type == kind != "SPOT" and query.get("instId", each.inst_id) == each.inst_id:
            amount = held(data.market, each.symbol, at_ms)
            last = last_trade(data.market, each.symbol, now_ms)
            worth = "" if last is None else digits(amount * last.price)
            yield {
                "instType": kind, "instId": each.inst_id, "oi": each.size(amount),
                "oiCcy": digits(amount), "oiUsd": worth, "ts": str(at_ms),
            }  # fmt: skip


def _books(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    instrument = _instrument(data, query)
    size = _limit(query, 1, BOOK_LEVELS, "sz")
    step = now_ms // STEP_MS
    bids, asks = data.levels(instrument, step, size)
    row = book_row(instrument, bids, asks, step * STEP_MS)
    yield row | {"seqId": data.seq_id(instrument, now_ms)}


def _candles(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    """The latest 1,440 bars, the open one among them."""
    return _candle_rows(data, query, now_ms, recent=True)


def _history_candles(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    """Closed bars; those of 1s for three months only."""
    return _candle_rows(data, query, now_ms, recent=False)


def _candle_rows(data: MarketData, query: Query, now_ms: int, *, recent: bool) -> Iterator[object]:
    instrument = _instrument(data, query)
    bar = BARS.get(query.get("bar") or "1m")
    if bar is None:
        raise _wrong("bar")
    left = _limit(query, 100, 300)
    after, before = _bounds(query)
    at = newest = bar.open_of(now_ms)
    oldest = data.market.listed_of(instrument.symbol)
    if recent and bar.length_ms:
        oldest = max(oldest, newest - (_RECENT_BARS - 1) * bar.length_ms)
    elif not recent:
        at = bar.previous_open(newest)
        oldest = max(oldest, now_ms - _THREE_MONTHS_MS) if bar.name == "1s" else oldest
    at = min(at, bar.open_of(after - 1))
    while left > 0 and at > before and bar.next_open(at) > oldest:
        kline = data.candles.state(instrument.symbol, bar, at, now_ms)
        if kline is not None:
            yield candle_row(instrument, kline)
            left -= 1
        at = bar.previous_open(at)


def _trades(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    instrument = _instrument(data, query)
    end = data.market.first_id(instrument.symbol, now_ms + 1)
    return _trade_rows(data, instrument, end - _limit(query, 100, 500), end)


def _history_trades(data: MarketData, query: Query, now_ms: int) -> Iterator[object]:
    """Three months back; bounds are ids (``type`` 1) or, for ``after`` only, times (2)."""
    instrument, market = _instrument(data, query), data.market
    limit, kind = _limit(query, 100, 100), query.get("type") or "1"
    after, before = _bounds(query)
    end = market.first_id(instrument.symbol, now_ms + 1)
    if kind == "2":
        if after < now_ms:
            listed_ms = market.listed_of(instrument.symbol)
            end = market.first_id(instrument.symbol, max(after, listed_ms))
        before = -1
    elif kind == "1":
        end = min(end, market.index_of(instrument.symbol, min(after, 10**12)))
        before = market.index_of(instrument.symbol, before) if before > 0 else -1
    else:
        raise _wrong("type")
    oldest = market.first_id(instrument.symbol, now_ms - _THREE_MONTHS_MS)
    return _trade_rows(data, instrument, max(end - limit, before + 1, oldest), end)


def _trade_rows(
    data: MarketData, instrument: OkxInstrument, first: int, end: int
) -> Iterator[object]:
    trades = [*data.market.trades_from(instrument.symbol, first, max(0, end - first))]
    return (single_row(instrument, trade) for trade in reversed(trades))


def _instrument(data: MarketData, query: Query) -> OkxInstrument:
    instrument = find_instrument(data.market, _text(query, "instId"))
    if instrument is None:
        what = "Instrument ID, Instrument ID code, or Spread ID doesn't exist."
        raise OkxError(51001, what)
    return instrument


def _kind(query: Query) -> str:
    kind = _text(query, "instType")
    if kind not in _TYPES:
        raise _wrong("instType")
    return kind


def _text(query: Query, name: str) -> str:
    if not query.get(name):
        raise OkxError(50014, f"Parameter {name} can not be empty")
    return query[name]


def _limit(query: Query, default: int, most: int, name: str = "limit") -> int:
    limit = _integer(query, name)
    if limit == 0:
        raise _wrong(name)
    return default if limit is None else min(limit, most)


def _bounds(query: Query) -> tuple[int, int]:
    """``after`` and ``before``; beyond every row where they are not given."""
    after, before = _integer(query, "after"), _integer(query, "before")
    return 10**15 if after is None else after, -1 if before is None else before


def _integer(query: Query, name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _wrong(name)
    return int(text)


def _wrong(name: str) -> OkxError:
    return OkxError(51000, f"Parameter {name} error")


def _not_found() -> Response:
    body: dict[str, Any] = {"code": "404", "data": {}, "msg": "Not Found"}
    names = {"detailMsg": "", "error_code": "404", "error_message": "Not Found"}
    return Response(404, msgspec.json.encode(body | names))


_ENDPOINTS: dict[str, tuple[int, _Handle]] = {
    "/api/v5/public/time": (10, _time),
    "/api/v5/public/instruments": (20, _instruments),
    "/api/v5/public/open-interest": (20, _open_interest),
    "/api/v5/market/candles": (40, _candles),
    "/api/v5/market/history-candles": (20, _history_candles),
    "/api/v5/market/books": (40, _books),
    "/api/v5/market/ticker": (20, _ticker),
    "/api/v5/market/tickers": (20, _tickers),
    "/api/v5/market/trades": (100, _trades),
    "/api/v5/market/history-trades": (20, _history_trades),
}
"""Requests in 2 s, and who answers."""
