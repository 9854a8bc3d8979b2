"""What a client of a simulated service received."""

from collections import Counter
from typing import Any

from attrs import define, field, frozen

from ..model import Interval, Kline
from ..push.fanout.holes import REASON as UNSAID
from ..simulator.market.books import STEP_MS, BookPath

_VALUES = ("open", "high", "low", "close", "volume", "quote_volume")
"""Without the number of trades: OKX does not give it."""
_IDS_PER_STEP = 8
_ARRIVAL_S = 1.0
_ODD_MS = 3_600_000

Values = tuple[float, ...]


def values_of(row: Any) -> Values:
    """Of a candle in a message, or of one of ours."""
    read = row.__getitem__ if isinstance(row, dict) else lambda name: getattr(row, name)
    return tuple(float(read(name)) for name in _VALUES)


def stored_values(kline: Kline) -> Values:
    """Of a candle of the store."""
    return values_of(kline)


@frozen
class Word:
    """What was said of a closed candle."""

    values: Values
    complete: bool


@define
class SeriesRecord:
    """One series.  ``finals``: (open ms, word) in the order in which they came; ``revised``: what
    was said later, by open time; ``holes``: (first, last) open ms that were said not to exist, and
    ``unsaid`` those where only the line itself showed it, to who handed it out; ``arrivals``: when
    any message came, seconds of trio's clock, at most one a second."""

    finals: list[tuple[int, Word]] = field(factory=list)
    revised: dict[int, list[Word]] = field(factory=dict)
    holes: list[tuple[int, int]] = field(factory=list)
    unsaid: list[tuple[int, int]] = field(factory=list)
    arrivals: list[float] = field(factory=list)
    came: dict[int, float] = field(factory=dict)
    """When each final came that was not history, on trio's clock."""
    statuses: Counter[str] = field(factory=Counter)
    updates: int = 0
    last_ms: int = 0

    def rows(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            open_ms = row["time"] * 1000
            word = None
            if row["update_type"] == "revision" or row["is_final"]:
                word = Word(values_of(row), row.get("complete", True))
            if word is None:
                self.updates += 1
            elif row["update_type"] == "revision":
                self.revised.setdefault(open_ms, []).append(word)
            else:
                self.finals.append((open_ms, word))
                self.last_ms = max(self.last_ms, open_ms)

    def arrived(self, now_s: float) -> None:
        if not self.arrivals or now_s >= self.arrivals[-1] + _ARRIVAL_S:
            self.arrivals.append(now_s)

    def status(self, data: dict[str, Any]) -> None:
        self.statuses[data["status"]] += 1
        if data["status"] == "unrepairable" and "from" in data:
            into = self.unsaid if data.get("reason") == UNSAID else self.holes
            into.append((data["from"] * 1000, data.get("to", data["from"]) * 1000))


@frozen
class ToldTrade:
    """A trade, or several of one taker order."""

    first_id: int
    last_id: int
    price: float
    quantity: float
    time_ms: int


@define
class BookCheck:
    """Compares each book that is not stale with the one that stood at its update."""

    path: BookPath
    by_id: bool
    """Update ids say the step (Binance); else the event's time does (OKX)."""
    checked: int = 0
    mismatches: int = 0
    _last_ms: int = 0

    def note(self, message: dict[str, Any]) -> None:
        book = message["data"]
        if book["stale"]:
            return
        step = book["update_id"] // _IDS_PER_STEP
        if not self.by_id:
            at = message["event_time"]
            if self._last_ms and not 0 <= at - self._last_ms < _ODD_MS:
                return  # the exchange gave it an absurd time: which book it is cannot be told
            self._last_ms = at
            step = at // STEP_MS
        self.checked += 1
        most = max(len(book["bids"]), len(book["asks"]))
        bids, asks = self.path.levels(step, most)
        self.mismatches += not (_begins(bids, book["bids"]) and _begins(asks, book["asks"]))


def _begins(levels: Any, told: list[list[float]]) -> bool:
    """A book shows no more levels than it knows exactly, which may be few for a while."""
    return told == [[float(price), float(size)] for price, size in levels[: len(told)]]


@define
class Record:
    """Everything that a client received, by (symbol, interval)."""

    books: BookCheck | None
    """None: there are none."""
    symbol: str
    """The one whose trades are kept."""
    series: dict[tuple[str, Interval], SeriesRecord] = field(factory=dict)
    trades: list[ToldTrade] = field(factory=list)
    refused: dict[str, str] = field(factory=dict)
    messages: int = 0

    def of(self, symbol: str, interval: Interval) -> SeriesRecord:
        return self.series.setdefault((symbol, interval), SeriesRecord())

    def note(self, message: dict[str, Any], now_s: float) -> None:
        """One message of the endpoint, and when it came on trio's clock."""
        self.messages += 1
        kind, data = message["type"], message.get("data", {})
        if kind in ("kline_data", "history_data", "stream_status") and "interval" in data:
            series = self.of(data["symbol"], Interval.parse(data["interval"]))
            if kind == "stream_status":
                series.status(data)
            elif kind == "history_data":
                series.rows(data["data"])
            else:
                series.rows([data["data"]])
                series.arrived(now_s)
                if data["data"]["update_type"] == "final":
                    series.came[data["data"]["time"] * 1000] = now_s
        elif kind == "trade_data" and data["symbol"] == self.symbol:
            trade = data["data"]
            self.trades.append(
                ToldTrade(
                    trade["first_id"], trade["last_id"], float(trade["price"]),
                    float(trade["quantity"]), trade["time"],
                )
            )  # fmt: skip
        elif kind == "book_data" and self.books is not None:
            self.books.note(data)
