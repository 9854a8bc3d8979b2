"""A symbol engine on hand-turned clocks: events in, effects out, all of them collected."""

from collections.abc import Sequence
from typing import Any

from trio_feed.core.effects import (
    CandleNews,
    ChannelNews,
    Effect,
    Fetch,
    Load,
    Report,
    Resubscribe,
    TradeNews,
)
from trio_feed.core.opening import End
from trio_feed.core.questions import Need, Question, Rules
from trio_feed.core.streams import Data, Kind, KlineUpdate, Stream
from trio_feed.core.symbol import SymbolEngine
from trio_feed.instants import Exchange, Mono, Now, Wall
from trio_feed.model import (
    BookUpdate,
    Channel,
    Interval,
    Kline,
    Source,
    StatusMessage,
    Trade,
)
from trio_feed.settings import ConnectionSettings, ExchangeSettings
from trio_feed.venues.binance import usdm

from .make import MINUTE, T0, kline

MONO_0 = 5_000.0
"""What the monotonic clock shows at T0."""
WALL_FAST_MS = 7_000.0
"""So much is our calendar ahead of the exchange's."""
USDM = Rules(
    "binance_usdm",
    frozenset(i for i in Interval if i not in (Interval.S1, Interval.S30)),
    Kind.AGG_TRADE,
    book_rule=usdm.BOOK_RULE,
    book_snapshot_levels=1000,
    page=1_500,
    began_ms=1_567_900_000_000,
)
SYMBOL = "BTCUSDT"
CANDLES = Stream("market", "btcusdt_perpetual@continuousKline_1m", SYMBOL, Kind.KLINE, Interval.M1)
TRADES = Stream("market", "btcusdt@aggTrade", SYMBOL, Kind.AGG_TRADE)
TICKERS = Stream("market", "btcusdt@ticker", SYMBOL, Kind.TICKER)
BOOKS = Stream("public", "btcusdt@depth@100ms", SYMBOL, Kind.BOOK)


def at(seconds: float, *, exchange_s: float | None = None) -> Now:
    """So long after T0, on clocks that agree on nothing but their pace.  ``exchange_s``: the
    exchange's calendar shows another time."""
    shown = seconds if exchange_s is None else exchange_s
    return Now(
        Mono(MONO_0 + seconds),
        Wall(T0 + seconds * 1000 + WALL_FAST_MS),
        Exchange(T0 + shown * 1000),
    )


def since_t0(mono: Mono) -> float:
    """An instant of the monotonic clock -> seconds after T0."""
    return round(float(mono) - MONO_0, 6)


def minute(n: int, *, closed: bool = True, **more: Any) -> Kline:
    return kline(T0 + n * MINUTE, closed=closed, **more)


def end_at(row: Kline, settled_ms: int | None = None) -> End:
    """A stored series that ends with ``row``."""
    return End(row, row.open_ms if settled_ms is None else settled_ms)


class Engine:
    """One engine; ``now_s`` seconds after T0; ``out`` is everything that it wanted done."""

    def __init__(
        self,
        *,
        rules: Rules = USDM,
        ends: dict[Interval, End] | None = None,
        streams: Sequence[Stream] = (CANDLES, TRADES),
        simulated: bool = False,
        trading: bool = True,
        now_s: float = 0.0,
        connection: dict[str, Any] | None = None,
        symbol: str = SYMBOL,
        **more: Any,
    ) -> None:
        self.now_s = now_s
        self.out: list[Effect] = []
        chosen: dict[str, Any] = {
            "symbols": (symbol,),
            "intervals": (Interval.M1,),
            "trade_intervals": (),
            "history_bars": 10,
            "channels": (Channel.KLINE,),
            "audit_after_s": 0.0,
        }
        self.settings = ExchangeSettings(
            **(chosen | more), connection=ConnectionSettings(**(connection or {}))
        )
        if ends is None:
            ends = {Interval.M1: end_at(minute(-1))}
        self.core = SymbolEngine(rules, self.settings, symbol, ends, self.now, simulated=simulated)
        self.streams = tuple(streams)
        self.core.use(self.streams, self.now, problem="" if trading else "not trading")

    @property
    def now(self) -> Now:
        return at(self.now_s)

    def go(self, seconds: float) -> "Engine":
        """It is so long after T0."""
        self.now_s = seconds
        return self

    def _keep(self, effects: list[Effect]) -> list[Effect]:
        self.out += effects
        return effects

    def take(self, *events: Data) -> list[Effect]:
        return self._keep(self.core.take(events, self.now))

    def candle(
        self, n: int, *, closed: bool = True, interval: Interval = Interval.M1, **more: Any
    ) -> list[Effect]:
        """The stream says this of the ``n``-th minute."""
        return self.take(KlineUpdate(self.core.symbol, interval, minute(n, closed=closed, **more)))

    def recall(self, **rows: Sequence[Kline]) -> list[Effect]:
        """Another node told these, by name of the interval (``M1``)."""
        stored = {Interval[name]: found for name, found in rows.items()}
        return self._keep(self.core.recall(stored, self.now))

    def wake(self, *, held: bool = False) -> list[Effect]:
        return self._keep(self.core.wake(self.now, held=held))

    def up(self, *streams: Stream) -> list[Effect]:
        return self._keep([e for s in streams or self.streams for e in self.core.up(s, self.now)])

    def down(self, stream: Stream, reason: str = "lost") -> list[Effect]:
        return self._keep(self.core.down(stream, reason, self.now))

    def ask(self, need: Need, interval: Interval | None = None) -> Question | None:
        return self.core.ask(Fetch(need, self.core.symbol, interval), self.now)

    def answer(
        self,
        need: Need,
        rows: Sequence[Kline | Trade | BookUpdate],
        interval: Interval | None = None,
        **more: Any,
    ) -> list[Effect]:
        """Ask what is wanted now, and answer with these rows."""
        fetch = Fetch(need, self.core.symbol, interval)
        question = self.core.ask(fetch, self.now)
        assert question is not None, fetch
        return self._keep(self.core.answer(fetch, question, rows, self.now, **more))

    def failed(self, need: Need, interval: Interval | None = None) -> list[Effect]:
        fetch = Fetch(need, self.core.symbol, interval)
        return self._keep(self.core.failed(fetch, self.now))

    def loaded(self, load: Load, rows: list[Kline]) -> list[Effect]:
        return self._keep(self.core.loaded(load, rows, self.now))

    @property
    def wakes_s(self) -> float:
        """When it wants to be woken."""
        return since_t0(self.core.wake_at)


def candles(effects: Sequence[Effect], interval: Interval = Interval.M1) -> list[CandleNews]:
    return [e for e in effects if isinstance(e, CandleNews) and e.series.interval is interval]


def closes(effects: Sequence[Effect], interval: Interval = Interval.M1) -> list[int]:
    """Closed candles that are no revision, in ms after T0."""
    found = candles(effects, interval)
    return [n.kline.open_ms - T0 for n in found if n.kline.closed and not n.revision]


def news(effects: Sequence[Effect], channel: Channel) -> list[Any]:
    """What of one channel is published."""
    found: list[Any] = []
    for each in effects:
        if isinstance(each, TradeNews) and each.key.channel is channel:
            found += each.trades
        elif isinstance(each, ChannelNews) and each.key.channel is channel:
            found.append(each.data)
    return found


def fetches(effects: Sequence[Effect]) -> list[tuple[Need, Interval | None]]:
    return [(e.need, e.interval) for e in effects if isinstance(e, Fetch)]


def loads(effects: Sequence[Effect]) -> list[Load]:
    return [e for e in effects if isinstance(e, Load)]


def reports(effects: Sequence[Effect], name: str = "") -> list[Report]:
    """Log lines, or counts of a metric, of this name."""
    found = [e for e in effects if isinstance(e, Report)]
    return [r for r in found if not name or name in (r.event, r.metric)]


def statuses(effects: Sequence[Effect]) -> list[StatusMessage]:
    return [e for e in effects if isinstance(e, StatusMessage)]


def rotations(effects: Sequence[Effect]) -> list[tuple[Stream, str]]:
    return [(e.stream, e.reason) for e in effects if isinstance(e, Resubscribe)]


def backfilled(n: int, **more: Any) -> Kline:
    """The ``n``-th minute as REST gives it."""
    return minute(n, source=Source.BACKFILL, **more)
