"""OKX v5: streams, subscriptions, REST questions and answers, limits, as of 2026-11.

Sources: www.okx.com/docs-v5 "Overview - WebSocket" (2026-07-11), "Market data" REST pages
(2026-07), changelog 2026-05-20 (REST host), notice of 2026-10-31 (port 443 only).  Candles and
single trades are on ``/business``; on ``/public`` they are refused (60018, 64001).

REST pages come newest first between two exclusive bounds, ``before`` (newer than) and ``after``
(older than); ``before`` alone is answered with the latest page, so both are always given.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec

from ...core.calendar import length_ms
from ...core.streams import POLLED, BookRule, Kind, Stream, TradeIds
from ...errors import BadMessage
from ...model import (
    BookUpdate,
    Instrument,
    Interval,
    Kline,
    OpenInterest,
    Source,
    Trade,
    parse_decimal,
)
from ...rest_dialects import MALFORMED, RestDialect
from ..base import Frame, Heartbeat, Plan, RestQuestion
from ..names import dashed
from ..rows import Rows, read_rows
from . import forms, messages
from .dialect import OkxDialect

NAME = "okx"
WEBSOCKET_URL = "wss://ws.okx.com"
REST_URL = "https://openapi.okx.com"
INTERVALS = frozenset(messages.BARS)
BOOK_RULE: BookRule | None = BookRule(streams_snapshots=True, may_lack_ids=True)
"""Source: "Order book channel" (2026-07-07).  Recordings from before 2023 have no ids."""
DIALECT: RestDialect = OkxDialect()
BOOK_SNAPSHOT_LEVELS: int | None = None
HIGH_RATES = True
HEARTBEAT: Heartbeat | None = Heartbeat("ping", 20.0)
"""OKX closes (4004) after 30 s without data."""
LISTED = True
BURST_S = 2.0
DIALS = (3, 1.2)
"""OKX counts 3 in a second; a fifth more for those that are longer on the way than the next."""
FRAMES = (4, 1.25)
"""No rate is documented but 60014 "too frequent"; 400 streams take 4 s of the 30 s allowed."""
OPERATIONS: tuple[int, float] | None = (480, 3600.0)
"""Subscribe, unsubscribe and login; every arg is counted, which is the stricter reading."""
SHARES = NAME
TRADE_KIND = Kind.TRADE
"""``trades-all``: its ids follow each other without a hole, those of ``trades`` do not."""
TRADE_IDS: TradeIds = "dense"
PAGE = 300
BEGAN_MS = 1_483_228_800_000
"""2017-01-01: the year of the first candles."""

_WITH_INTEREST = {"perpetual": "SWAP", "future": "FUTURES"}
_PUBLIC = "/ws/v5/public"
_BUSINESS = "/ws/v5/business"
_STREAMS = {
    Kind.KLINE: (_BUSINESS, "candle"),
    Kind.TRADE: (_BUSINESS, "trades-all"),
    Kind.AGG_TRADE: (_PUBLIC, "trades"),
    Kind.TICKER: (_PUBLIC, "tickers"),
    Kind.BOOK: (_PUBLIC, "books"),
    Kind.BOOK_LEVELS: (_PUBLIC, "books5"),
    Kind.TOP: (_PUBLIC, "bbo-tbt"),
    Kind.MARK_PRICE: (_PUBLIC, "mark-price"),
    Kind.FUNDING: (_PUBLIC, "funding-rate"),
}
KINDS = frozenset(_STREAMS) | POLLED

STREAMS_MAX = 400
"""Streams per connection: OKX allows 480 subscriptions an hour, and some are kept for repairs."""
BOOKS_MAX = 29
"""400-level books per connection; OKX advises fewer than 30."""
ARGS_MAX = 50
ARGS_BYTES_MAX = 3_900
"""Streams per subscribe frame, and bytes of them (OKX closes with 1009 above 64 KB)."""
_TRADE_PAGE = 100
_BOOK_LEVELS = 400
_RECENT_BARS = 1_400
"""``candles`` holds the latest 1440 bars; the rest is for the time a question waits its turn."""
_ONE_40TH, _ONE_20TH = 1, 2
"""Weights: OKX allows 40 or 20 requests in 2 s per endpoint, so 1200 a minute are its 40."""

_LONGEST_MONTH_MS = 31 * length_ms(Interval.D1)

parse = messages.parse


own_form = dashed


def stream(kind: Kind, instrument: Instrument, interval: Interval | None = None) -> Stream:
    """Raises ValueError for a kind or an interval that OKX does not have."""
    if kind not in _STREAMS:
        raise ValueError(f"{NAME} has no {kind} streams")
    path, channel = _STREAMS[kind]
    if kind is Kind.KLINE:
        if interval not in messages.BARS:
            raise ValueError(f"{NAME} has no {interval} candles")
        channel += messages.BARS[interval]
    name = messages.stream_name(channel, instrument.native)
    return Stream(path, name, instrument.symbol, kind, interval)


def plan(base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]:
    """Connections of at most ``limit`` streams of one path, ``BOOKS_MAX`` of them books."""
    size = min(limit, STREAMS_MAX)
    plans = []
    for path in sorted({stream.path for stream in streams}):
        group = (stream for stream in streams if stream.path == path)
        for chunk in _connections(group, size):
            plans.append(Plan(f"{base_url}{path}", chunk, tuple(_frames(chunk))))
    return plans


def _connections(streams: Iterable[Stream], size: int) -> Iterator[tuple[Stream, ...]]:
    chunk: list[Stream] = []
    books = 0
    for each in streams:
        is_book = each.kind is Kind.BOOK
        if chunk and (len(chunk) >= size or books + is_book > BOOKS_MAX):
            yield tuple(chunk)
            chunk, books = [], 0
        chunk.append(each)
        books += is_book
    if chunk:
        yield tuple(chunk)


def _frames(streams: Iterable[Stream]) -> Iterator[Frame]:
    number, length = 1, 0
    names: list[str] = []
    args: list[str] = []
    for each in streams:
        channel, _, native = each.name.partition(":")
        spec = {"channel": channel, "instId": native}
        arg = json.dumps(spec, separators=(",", ":"), ensure_ascii=False)
        size = len(arg.encode()) + 1
        if names and (len(names) == ARGS_MAX or length + size > ARGS_BYTES_MAX):
            yield _frame(number, names, args)
            number, length, names, args = number + 1, 0, [], []
        names.append(each.name)
        args.append(arg)
        length += size
    yield _frame(number, names, args)


def _frame(number: int, names: list[str], args: list[str]) -> Frame:
    """OKX acknowledges each arg by itself, under the name of its stream."""
    text = f'{{"id":"{number}","op":"subscribe","args":[{",".join(args)}]}}'
    return Frame(text, frozenset(names))


_DERIVATIVES = {"SWAP": "perpetual", "FUTURES": "future", "OPTION": "option"}


def instruments_questions() -> list[RestQuestion]:
    """Spot pairs and perpetual contracts."""
    path = "/api/v5/public/instruments"
    return [RestQuestion(path, {"instType": kind}, _ONE_20TH) for kind in ("SPOT", "SWAP")]


def parse_instruments(body: bytes) -> Rows[Instrument]:
    """Rows of any instType; those without names or contract size (not open yet) are left out.

    ``kind`` is spot, perpetual, future or option, with ``inverse_`` before it where a contract is
    so many units of the quote currency: there ``contract_size`` is quote currency per contract.
    Raises BadMessage.
    """
    return read_rows(_data(body), forms.decode_listed, forms.decode_listed_row, _instrument)


def _instrument(row: forms.Listed) -> Instrument | None:
    base, quote, kind, symbol = row.baseCcy, row.quoteCcy, "spot", row.baseCcy + row.quoteCcy
    size = Decimal(1)
    if row.instType in _DERIVATIVES:
        base, _, quote = (row.instFamily or row.uly).partition("-")
        quote = quote.partition("_")[0]  # BTC-USD_UM
        kind, symbol = _DERIVATIVES[row.instType], row.instId.replace("-", "")
        if row.ctValCcy != base:
            kind = f"inverse_{kind}"
        size = messages.times(_number(row.ctVal), _number(row.ctMult or "1"))
    elif row.instType != "SPOT":
        return None
    if not (base and quote and row.instId and size > 0):
        return None
    return Instrument(
        venue=NAME,
        symbol=symbol,
        native=row.instId,
        kind=kind,
        base=base,
        quote=quote,
        contract_size=size,
        tick_size=_number(row.tickSz),
        step_size=messages.times(_number(row.lotSz), size),
        trading=row.state == "live",
    )


def _number(text: str) -> Decimal:
    return parse_decimal(text or "0")


def klines_question(
    instrument: Instrument, interval: Interval, start_ms: int, bars: int, now_ms: float
) -> RestQuestion:
    """The window of ``bars`` candles from ``start_ms`` on and one more; none of them says nothing
    of later ones.

    A page that is fuller than ``limit`` loses its oldest rows, so the window bounds the answer and
    ``limit`` is always a whole page: it costs nothing, and rows that stand closer than their
    interval (after a halt) are not lost.
    """
    # Of a month the shortest: a longer one could put more than a page between the bounds, and a
    # page that is too full loses its oldest rows.
    length = length_ms(interval)
    longest = _LONGEST_MONTH_MS if interval is Interval.MO1 else length
    start_ms = max(start_ms, BEGAN_MS)
    width = min(max(bars, 1) * longest, (PAGE - 1) * length)
    until_ms = start_ms + width + 1  # no row lies on a bound
    recent = start_ms > now_ms - _RECENT_BARS * length
    params: dict[str, str | int] = {
        "instId": instrument.native,
        "bar": messages.BARS[interval],
        "before": start_ms - 1,
        "after": until_ms,
        "limit": PAGE,
    }
    if recent:
        return RestQuestion("/api/v5/market/candles", params, _ONE_40TH, until_ms)
    return RestQuestion("/api/v5/market/history-candles", params, _ONE_20TH, until_ms)


def parse_klines(body: bytes, instrument: Instrument) -> Rows[Kline]:
    """Ascending, closed as ``confirm`` says.  Raises BadMessage."""

    def make(row: forms.CandleRow) -> Kline:
        return messages.kline(instrument, row, Source.BACKFILL)

    return read_rows(
        _data(body),
        forms.decode_candles,
        forms.decode_candle,
        make,
        newest_first=True,
        key=lambda kline: kline.open_ms,
    )


def trades_question(instrument: Instrument, from_id: int) -> RestQuestion | None:
    """The hundred ids from ``from_id`` on, of the last three months (``type`` 1: bounds are ids).

    Sound because the ids of single trades are consecutive: the window holds one page at most.
    """
    params: dict[str, str | int] = {
        "instId": instrument.native,
        "type": 1,
        "before": from_id - 1,
        "after": from_id + _TRADE_PAGE,
        "limit": _TRADE_PAGE,
    }
    return RestQuestion("/api/v5/market/history-trades", params, _ONE_20TH)


def parse_trades(body: bytes, instrument: Instrument) -> Rows[Trade]:
    """Ascending by id.  Raises BadMessage."""

    def make(row: forms.TradeRow) -> Trade:
        return messages.trade(instrument, row)

    return read_rows(
        _data(body),
        forms.decode_trades,
        forms.decode_trade,
        make,
        newest_first=True,
        key=lambda trade: trade.trade_id,
    )


def latest_question(instrument: Instrument, interval: Interval | None) -> RestQuestion | None:
    """The newest candle or single trade."""
    params: dict[str, str | int] = {"instId": instrument.native, "limit": 1}
    if interval is None:
        return RestQuestion("/api/v5/market/trades", params, _ONE_40TH)
    bar = {"bar": messages.BARS[interval]}
    return RestQuestion("/api/v5/market/candles", params | bar, _ONE_40TH)


def book_question(instrument: Instrument) -> RestQuestion | None:
    """The same 400 levels that the stream keeps."""
    params: dict[str, str | int] = {"instId": instrument.native, "sz": _BOOK_LEVELS}
    return RestQuestion("/api/v5/market/books", params, _ONE_40TH)


def parse_book(body: bytes, instrument: Instrument) -> BookUpdate:
    """A snapshot; ``last_id`` 0 where the answer has no ``seqId``.  Raises BadMessage."""
    try:
        rows = forms.decode_books(_data(body))
    except MALFORMED as error:
        raise BadMessage(f"malformed answer: {error}", messages.sample(body)) from None
    if len(rows) != 1:
        raise BadMessage(f"{len(rows)} books in an answer", messages.sample(body))
    return messages.book(instrument, rows[0], snapshot=True)


def open_interest_question(instrument: Instrument) -> RestQuestion | None:
    """Of a contract; spot has none."""
    kind = _WITH_INTEREST.get(instrument.kind.removeprefix("inverse_"))
    if kind is None:
        return None
    params: dict[str, str | int] = {"instType": kind, "instId": instrument.native}
    return RestQuestion("/api/v5/public/open-interest", params, _ONE_20TH)


def parse_open_interest(body: bytes, instrument: Instrument) -> OpenInterest:
    """``oiCcy`` is an amount of coins, ``oiUsd`` its worth.  Raises BadMessage."""
    try:
        rows = forms.decode_open_interest(_data(body))
        if len(rows) != 1:
            raise BadMessage(f"{len(rows)} rows in an answer", messages.sample(body))
        (row,) = rows
        worth = parse_decimal(row.oiUsd) if row.oiUsd else None
        return OpenInterest(instrument.symbol, parse_decimal(row.oiCcy), worth, int(row.ts))
    except MALFORMED as error:
        raise BadMessage(f"malformed answer: {error}", messages.sample(body)) from None


def _data(body: bytes) -> msgspec.Raw:
    """The data of ``{"code":"0","msg":"","data":[...]}``; any other code is an error."""
    try:
        answer = forms.decode_answer(body)
    except MALFORMED as error:
        raise BadMessage(f"malformed answer: {error}", messages.sample(body)) from None
    if answer.code != "0":
        raise BadMessage(f"OKX says {answer.code[:20]} {answer.msg[:200]}", messages.sample(body))
    return answer.data
