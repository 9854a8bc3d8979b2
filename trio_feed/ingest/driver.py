"""One venue's symbol engines, and the performing of what they want done.  Synchronous.

A message's way: :meth:`.connection.Connection._take` parses it, :meth:`Driver.take` gives it to
the engine of its symbol (:meth:`trio_feed.core.symbol.SymbolEngine.take`), and :meth:`perform`
does what came out, in order: publish, store, ask.  Nothing waits between parse and publish.

Questions go into a heap, the most urgent first, and :mod:`.fetcher` takes them out; engines that
want to be woken later are in another one, and :mod:`.venue` sleeps until the earliest.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import structlog
import trio

from ..core.clock import ExchangeClock
from ..core.effects import (
    CandleNews,
    ChannelNews,
    Effect,
    Fetch,
    Load,
    Report,
    Resubscribe,
    StoreHole,
    StoreRows,
    TradeNews,
)
from ..core.opening import End
from ..core.questions import Rules
from ..core.streams import Data, Kind, Stream
from ..core.symbol import SymbolEngine
from ..environment import mono
from ..errors import BadMessage
from ..instants import Mono, Now, Wall
from ..model import Interval, Kline, KlineMessage, Price, StatusMessage, StreamKey, StreamState
from ..net.rest import Answer
from ..settings import ExchangeSettings
from .context import FeedContext
from .queues import Queues, Wakes

EVERY = "*"
"""In ``symbols``: whatever the venue sends, made known as it comes."""


class Driver:
    """``held``: messages wait for us, so that a silence is our own doing."""

    def __init__(self, rules: Rules, settings: ExchangeSettings, context: FeedContext) -> None:
        self.rules, self.settings = rules, settings
        self.engines: dict[str, SymbolEngine] = {}
        self.queues = Queues()
        self.held = False
        self.demanded: Collection[str] = frozenset()
        """Symbols that are fed because clients asked: the others come first."""
        self._environment, self._bus, self._store = context.environment, context.bus, context.store
        self.metrics, self._simulated = context.metrics, context.simulated
        self.clock = ExchangeClock(mono(), self._environment.wall())
        self._log = structlog.get_logger().bind(venue=rules.venue)
        self._wakes = Wakes()
        self.prices_quiet: Callable[[], bool] | None = None
        """Whether the chain proves that there are no prices; None: nobody can say."""
        self._repairs: dict[StreamKey, Mono] = {}
        """Stream keys of which something is being fetched, and since when."""
        self._price_streams: dict[Stream, None] = {}
        """Those that are up: they carry every symbol."""

    def now(self) -> Now:
        """This moment on all three clocks."""
        return self._environment.now(self.clock.at)

    # Symbols

    def open(self, symbol: str, ends: Mapping[Any, End]) -> SymbolEngine:
        """An engine for a symbol, which goes on where its stored series end."""
        engine = SymbolEngine(
            self.rules, self.settings, symbol, ends, self.now(), simulated=self._simulated
        )
        self.engines[symbol] = engine
        return engine

    def close(self, symbol: str) -> list[StreamKey]:
        """Forget a symbol; what still comes of it is ignored.  Returns what it consisted of."""
        engine = self.engines.pop(symbol, None)
        if engine is None:
            return []
        self._wakes.forget(engine)
        return engine.stream_keys

    def use(self, symbol: str, streams: Iterable[Stream], *, problem: str = "") -> None:
        """These are the symbol's streams from now on.  ``problem``: why it does not trade."""
        engine = self.engines[symbol]
        self.perform(engine, engine.use(streams, self.now(), problem=problem))

    def recall(self, symbol: str, stored: Mapping[Interval, Sequence[Kline]]) -> None:
        """See :meth:`.core.series.CandleSeries.recall`."""
        if (engine := self.engines.get(symbol)) is not None:
            self.perform(engine, engine.recall(stored, self.now()))

    # What comes in

    def take(self, events: Sequence[Data], at: Mono, wall: Wall) -> None:
        """What the messages of one read said, in the order in which they came.

        It is put together by symbol: what there is to do once for all that a symbol said, is done
        once.  Between symbols there is no order.
        """
        by_symbol: dict[str, list[Data]] = {}
        events_ms: list[int] = []
        for event in events:
            own = by_symbol.get(event.symbol)
            if own is None:
                own = by_symbol[event.symbol] = []
            own.append(event)
            if event_ms := event.event_ms:
                events_ms.append(event_ms)
        if self.clock.note_all(events_ms, at):
            self._replan()
        now = Now(at, wall, self.clock.at(at))
        for symbol, own in by_symbol.items():
            self._take(symbol, own, now)

    def _take(self, symbol: str, events: Sequence[Data], now: Now) -> None:
        engine = self.engines.get(symbol) or self._welcome(symbol, events)
        if engine is None:
            ignored = self.metrics.ignored_messages.labels(self.rules.venue, "other symbol")
            ignored.inc(len(events))
            return
        try:
            effects = engine.take(events, now)
        except BadMessage as error:
            for counter in (self.metrics.failed, self.metrics.bad_messages):
                counter.labels(self.rules.venue).inc()
            self._log.warning("message.bad", problem=str(error))
            return
        self.perform(engine, effects)

    def hear(self, price: Price, at: Mono, wall: Wall) -> None:
        """A price whose time is only estimated: news of it, no part of a candle yet."""
        engine = self.engines.get(price.symbol)
        if engine is not None:
            self.perform(engine, engine.hear(price, Now(at, wall, self.clock.at(at))))

    def is_stranger(self, symbol: str) -> bool:
        """A symbol that is not known and may be :meth:`meet`: it came by itself, and there is
        room."""
        settings = self.settings
        if symbol in self.engines or EVERY not in settings.symbols:
            return False
        return len(self.engines) < settings.most_symbols

    def meet(
        self, symbol: str, ends: Mapping[Any, End], firsts: Mapping[StreamKey, int | None]
    ) -> SymbolEngine:
        """Make a symbol known that came by itself.  ``firsts``: open times of the oldest candles
        of its stored series."""
        engine = self.open(symbol, ends)
        for stream_key in engine.stream_keys:
            self._bus.open(stream_key, first_ms=firsts.get(stream_key), sparse=True)
        now = self.now()
        # It is on no list, so nothing is asked about it.
        self.perform(engine, engine.use(self._price_streams, now, problem="it came by itself"))
        for stream in self._price_streams:
            self.perform(engine, engine.up(stream, now))
        return engine

    def idle(self, for_s: float) -> list[str]:
        """Symbols that came by themselves and have had no price for so long."""
        if EVERY not in self.settings.symbols:
            return []
        before = float(mono()) - for_s
        named = self.settings.symbols
        return [
            symbol
            for symbol, engine in self.engines.items()
            if symbol not in named and float(engine.priced.idle_since) <= before
        ]

    def _welcome(self, symbol: str, events: Sequence[Data]) -> SymbolEngine | None:
        """A symbol that came by itself, while there is room."""
        if not isinstance(events[0], Price) or not self.is_stranger(symbol):
            return None
        return self.meet(symbol, {}, {})

    def up(self, streams: Iterable[Stream]) -> None:
        """These streams deliver from now on."""
        now = self.now()
        for stream in streams:
            if stream.kind is Kind.PRICE:
                self._price_streams[stream] = None
            for engine in self._engines_of(stream):
                self.perform(engine, engine.up(stream, now))

    def down(self, streams: Iterable[Stream], reason: str = "connection lost") -> None:
        """Nothing carries these streams any more."""
        now = self.now()
        for stream in streams:
            self._price_streams.pop(stream, None)
            for engine in self._engines_of(stream):
                self.perform(engine, engine.down(stream, reason, now))

    def _engines_of(self, stream: Stream) -> list[SymbolEngine]:
        """Whose stream it is; a stream of prices carries every symbol."""
        if stream.kind is Kind.PRICE:
            return list(self.engines.values())
        engine = self.engines.get(stream.symbol)
        return [] if engine is None else [engine]

    def is_quiet(self, streams: Iterable[Stream]) -> bool:
        """The exchange has confirmed that there is nothing to tell on any of these streams."""
        now, streams = mono(), list(streams)
        if self.prices_quiet is not None and any(s.kind is Kind.PRICE for s in streams):
            return self.prices_quiet()
        engines = ((stream, self.engines.get(stream.symbol)) for stream in streams)
        return all(e is None or e.upstream.liveness.is_quiet(s, now) for s, e in engines)

    # Time

    def wake_due(self) -> Mono:
        """Wake every engine whose time has come; returns when the next one wants to be woken."""
        now = self.now()
        while (engine := self._wakes.next_due(now.mono)) is not None:
            self.perform(engine, engine.wake(now, held=self.held))
        self.queues.earlier = trio.Event()
        return self._wakes.earliest

    def _schedule(self, engine: SymbolEngine) -> None:
        alarm = engine.alarm
        if alarm.planned <= alarm.at:
            return
        if self.engines.get(engine.symbol) is engine and self._wakes.plan(engine, alarm.at):
            self.queues.earlier.set()

    def _replan(self) -> None:
        """The exchange's time is another one than we thought."""
        for engine in self.engines.values():
            engine.time_moved(self.now())
            self._schedule(engine)

    # What is to be done

    def perform(self, engine: SymbolEngine, effects: Iterable[Effect]) -> None:
        """Do what an engine wants done, in order, and note when it wants to be woken."""
        for effect in effects:
            kind = type(effect)
            if kind is CandleNews:
                self._publish(effect)  # type: ignore[arg-type]
            elif kind is TradeNews or kind is ChannelNews:
                self._bus.publish(effect)  # type: ignore[arg-type]
            elif isinstance(effect, StatusMessage):
                self._bus.publish(effect)
                self._note_repair(effect)
            elif kind is Report:
                self.report(effect)  # type: ignore[arg-type]
            else:
                self._do(engine, effect)
        self._schedule(engine)

    def _note_repair(self, status: StatusMessage) -> None:
        """From the moment at which it is known what is missing to that at which it is there."""
        if status.state is StreamState.REPAIRING:
            self._repairs.setdefault(status.stream_key, mono())
        elif status.state in (StreamState.REPAIRED, StreamState.UNREPAIRABLE):
            since = self._repairs.pop(status.stream_key, mono())
            self.metrics.spans.add(
                "repair", mono() - since, stream=str(status.stream_key), state=status.state.value,
                error="unrepairable" if status.state is StreamState.UNREPAIRABLE else "",
                first_ms=status.first_ms or 0, last_ms=status.last_ms or 0,
            )  # fmt: skip

    def _publish(self, news: CandleNews) -> None:
        message = self._bus.publish(news)  # None of a provisional one, which nothing stores
        if news.kline.closed and isinstance(message, KlineMessage):
            self._store.put(message)

    def _do(self, engine: SymbolEngine, effect: Effect) -> None:
        match effect:
            case Fetch():
                self.put_fetch(effect, engine)
            case Load():
                self.queues.loads.append((effect, engine))
                self.queues.more_loads.set()
            case StoreHole(series, hole):
                self._store.put_hole(series, hole)
            case StoreRows(series, rows):
                for row in rows:  # published by nobody: no number
                    self._store.put(KlineMessage(series, row, self._store.epoch, 0, 1, 0.0))
                self._bus.deepen(series, rows[0].open_ms)
            case Resubscribe():
                self.queues.rotations.append(effect)
                self.queues.more_rotations.set()

    def put_fetch(self, fetch: Fetch, engine: SymbolEngine) -> None:
        """Ask it when its turn has come."""
        self.queues.put_fetch(fetch, engine, later=engine.symbol in self.demanded)

    def report(self, report: Report) -> None:
        """Log it and count it."""
        if report.metric:
            metric = getattr(self.metrics, report.metric)
            metric.labels(self.rules.venue, *report.labels).inc(report.amount)
        if report.event:
            getattr(self._log, report.level)(report.event, **report.fields)

    def note_answer(self, answer: Answer) -> None:
        """The exchange dated an answer."""
        if answer.date_ms is None:
            return
        if self.clock.note_date(answer.date_ms, answer.sent, answer.received):
            self._replan()

    def clock_stepped(self) -> None:
        """Our calendar and the monotonic clock have parted."""
        self.clock.invalidate()
        self._replan()

    # What operators see

    def holding(self) -> int:
        """Series whose live candles wait for a hole to be filled."""
        return sum(engine.candles.holding() for engine in self.engines.values())

    def behind(self, *, beside: Collection[str] = ()) -> int:
        """Series of which a closed candle is overdue that the exchange can supply; ``beside``:
        symbols that do not count."""
        now = self.now()
        return sum(
            engine.candles.behind(now)
            for symbol, engine in self.engines.items()
            if engine.trading and symbol not in beside
        )

    def stale_books(self) -> int:
        """Books that stand still."""
        books = (engine.channels.book for engine in self.engines.values())
        return sum(book is not None and book.book.stale for book in books)

    def series(self) -> int:
        return sum(len(engine.candles.ledgers) for engine in self.engines.values())

    def stream_keys(self) -> list[StreamKey]:
        """Everything that one can subscribe to."""
        return [stream_key for engine in self.engines.values() for stream_key in engine.stream_keys]

    def streams(self) -> dict[str, dict[str, object]]:
        """By stream name: how it stands."""
        now = mono()
        found: dict[str, dict[str, object]] = {}
        for engine in self.engines.values():
            found.update(engine.upstream.liveness.statistics(now))
        return found
