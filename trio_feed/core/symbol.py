"""Everything about ONE symbol of one venue: evidence in, effects out.  Pure.

A message of its streams, an answer of the exchange, the state of its connections and the time go
in; what to publish, store, ask, load, resubscribe and report comes out, in order.  Nothing calls
back, nothing waits, and no clock is read: every method takes ``now``.

The way of a message: :meth:`SymbolEngine.take` -> candles :mod:`.series`, trades :mod:`.trades`,
books :mod:`.books`, liveness :mod:`.liveness`, status :mod:`.status`.

The driver calls :meth:`SymbolEngine.wake` when ``wake_at`` has come, performs the effects, and
brings what was asked for back with :meth:`answer`, :meth:`failed` or :meth:`loaded`.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve

from ..instants import NEVER, Mono, Now
from ..model import (
    BookTop,
    BookUpdate,
    Channel,
    Interval,
    Kline,
    Line,
    Price,
    Series,
    Source,
    Subject,
    Ticker,
    Trade,
)
from ..settings import ExchangeSettings
from .arbitration import Arbitration
from .bars import Built
from .books import BookLine
from .early import EarlyClose
from .effects import CandleNews, Effect, Fetch, LineNews, Load, Report, Resubscribe, StoreHole
from .health import Span
from .liveness import Action, Flows, Liveness, Probe, Rotate, Settled, Stale
from .prices import SymbolPrices
from .questions import (
    BookQuestion,
    CandleQuestion,
    LatestQuestion,
    Need,
    Question,
    Rules,
    TradeQuestion,
)
from .series import CandleLines, End
from .status import StreamStatus
from .streams import Data, Kind, KlineUpdate, Stream
from .tickers import TickerLine
from .trades import Difference, Match, OneSided, SymbolTrades, Taken, Verdict

_HOLD_BOOKS_S = 0.5
"""With redundancy: how much one connection may be ahead of the other."""
_ODD_TIME_MS = 60_000
"""An event's time that is further from the exchange's than this orders nothing."""
_CHANNELS = {
    Kind.TICKER: Channel.TICKER,
    Kind.TOP: Channel.TICKER,
    Kind.BOOK: Channel.BOOK,
}
"""What beside candles and trades is made of a stream."""


class SymbolEngine:
    """``wake_at`` only becomes earlier between two wakes.  ``trading``: the venue lists the symbol
    as trading; what does not trade is not asked for."""

    def __init__(
        self,
        rules: Rules,
        settings: ExchangeSettings,
        symbol: str,
        ends: Mapping[Interval, End],
        now: Now,
        *,
        simulated: bool = False,
    ) -> None:
        self.rules, self.settings, self.symbol = rules, settings, symbol
        self.wake_at: Mono = now.mono
        self.trading = False
        self.source = Source.SIMULATED if simulated else Source.EXCHANGE
        self._since_ms = float(now.exchange)
        self._asked: set[Fetch] = set()
        self._line = {c: Line(rules.venue, symbol, c) for c in settings.channels}
        self.candles = CandleLines(rules, settings, symbol, ends, now, simulated=simulated)
        self._arbitration = Arbitration(_HOLD_BOOKS_S if settings.connection.redundancy > 1 else 0)
        self.trades = self._make_trades(ends)
        self.prices = self._make_prices(ends, now)
        self._early = EarlyClose(settings.close == "proven")
        self._ticker = TickerLine(rules.venue, symbol, self.source)
        self.book: BookLine | None = None
        if Channel.BOOK in settings.channels and rules.book_rule is not None:
            self.book = BookLine(rules, symbol, settings.book_levels, self.source)
        connection = settings.connection
        self.liveness = Liveness(
            frozenset({Kind.KLINE, rules.trade_kind} - {Kind.PRICE}),
            connection.stall_factor,
            connection.stall_min_s,
            connection.silence_timeout_s,
        )
        self.status = StreamStatus()
        self._streams: dict[Stream, list[Interval]] = {}

    def __repr__(self) -> str:
        return f"<SymbolEngine {self.rules.venue}:{self.symbol}>"

    def _make_trades(self, ends: Mapping[Interval, End]) -> SymbolTrades | None:
        settings, rules = self.settings, self.rules
        built = settings.trade_intervals
        if rules.trade_kind is Kind.PRICE or not (built or Channel.TRADE in settings.channels):
            return None
        checks = Interval.M1 in settings.intervals and (
            (settings.reconcile and bool(built)) or settings.close == "proven"
        )
        trades = SymbolTrades(built, checks, settings.close_grace_s, rules.refill)
        trades.resume((i, ends[i].kline) for i in built if i in ends)
        return trades

    def _make_prices(self, ends: Mapping[Interval, End], now: Now) -> SymbolPrices | None:
        built = self.settings.trade_intervals
        if self.rules.trade_kind is not Kind.PRICE:
            return None
        last = {i: ends[i].kline for i in built if i in ends}
        return SymbolPrices(built, last, self.rules.chain, now.mono)

    @property
    def subjects(self) -> list[Subject]:
        """Everything of the symbol that one can subscribe to."""
        lines = [line for c, line in self._line.items() if c is not Channel.KLINE]
        return [*(ledger.series for ledger in self.candles.ledgers.values()), *lines]

    def use(self, streams: Iterable[Stream], *, trading: bool, now: Now) -> None:
        """These are its streams from now on."""
        self.trading = trading
        self._streams = {stream: self._intervals_of(stream) for stream in streams}
        self.liveness.keep(self._streams)
        self.status.subjects = {s: self._subjects_of(s) for s in self._streams}
        self._want(now.mono)

    # What comes in.

    def take(self, events: Iterable[Data], now: Now) -> list[Effect]:
        """What the streams said, in the order in which it came."""
        out: list[Effect] = []
        flows: list[Flows] = []
        built = False
        for event in events:
            kind = type(event)
            if kind is Trade:
                built = self._trade(event, now, out) or built  # type: ignore[arg-type]
            elif kind is KlineUpdate:
                if built:
                    self._collect(now, out)
                built = self._kline(event, now, out)  # type: ignore[arg-type]
            elif kind is BookUpdate:
                self._book_update(event, now, out)  # type: ignore[arg-type]
            elif kind is Ticker or kind is BookTop:
                self._ticker_event(event, now, out)  # type: ignore[arg-type]
            elif kind is Price and self.prices is not None:
                self._price(event, now, out)  # type: ignore[arg-type]
            else:
                out.append(_ignored(kind.__name__))
            first = self.liveness.heard(event, now.mono)
            if first is not None:
                flows.append(first)
        if built:
            self._collect(now, out)
            self._want(now.mono + self.settings.close_grace_s)  # to see what is quiet since
        for each in flows:
            self._flows(each, now, out)
        self._follow_liveness()
        return out

    def up(self, stream: Stream, now: Now) -> list[Effect]:
        """Its connection delivers from now on: whatever closed meanwhile is due."""
        self.liveness.up(stream, now.mono)
        self.candles.resumed(self._streams.get(stream, ()), now)
        self._want(now.mono)
        out: list[Effect] = [*self.status.up(stream, self._missing(stream, now))]
        if self.prices is not None:
            lost_ms = self.prices.lost_ms
            if lost_ms is not None and not self.rules.chain:
                self.candles.rollup.unsure(lost_ms, int(now.exchange))
            self._priced(self.prices.resumed(now), now, out)
        return out

    def down(self, stream: Stream, reason: str, now: Now) -> list[Effect]:
        """Nothing carries it any more."""
        self.liveness.lost(stream)
        if self.prices is not None:
            self.prices.lost(now)
        return self._lost(stream, reason, now)

    # What a chain of transactions says of prices (:mod:`.chain`); only with ``rules.chain``.

    @property
    def next_end_ms(self) -> int | None:
        """When the next candle made of prices ends; None: no such candle is open."""
        return None if self.prices is None else self.prices.next_end_ms

    @property
    def idle_since(self) -> Mono:
        """When the last price came, or it was opened.  NEVER: it is not one of prices, or a candle
        is still open."""
        idle = self.prices is not None and self.next_end_ms is None
        return self.prices.heard_at if idle and self.prices is not None else NEVER

    def known_since(self, time_ms: int) -> None:
        """No price after ``time_ms`` was missed, though none has come yet."""
        if self.prices is not None:
            self.prices.known_since(time_ms)

    def resume(
        self,
        before: Mapping[Interval, Kline],
        opens: Mapping[Interval, int],
        kept: Iterable[Built],
        known_ms: int,
    ) -> None:
        """Go on where an earlier run ended: see :meth:`.prices.SymbolPrices.resume`."""
        if self.prices is not None:
            self.prices.resume(before, opens, kept, known_ms)

    def retracted(self, keys: Iterable[str], now: Now) -> list[Effect]:
        """These prices are not in the chain."""
        out: list[Effect] = []
        if self.prices is not None:
            self._priced(self.prices.retract(keys), now, out)
        return out

    def passed(self, until_ms: int, now: Now) -> list[Effect]:
        """The chain goes on at ``until_ms``: what ended before is closed."""
        out: list[Effect] = []
        if self.prices is not None:
            self._priced(self.prices.proven(until_ms), now, out)
            rolled = self.candles.passed(until_ms, now)
            self._after(rolled, now)
            out += rolled
        return out

    def proven(self, until_ms: int, now: Now) -> list[Effect]:
        """No price before ``until_ms`` is missing, but for those that cannot be had."""
        out = self.passed(until_ms, now)
        if self.prices is None:
            return out
        self._priced(self.prices.whole(until_ms), now, out)
        for interval in (*self.prices.intervals, *self.candles.rollup.intervals):
            self.candles.silent_until(interval, until_ms)
            out += self._settled(self.candles.ledgers[interval].series)
        for stream in self._streams:
            if self.liveness.is_up(stream.kind):
                out += self.status.flows(stream, {})
        return out

    def missed(self, first_ms: int, until_ms: int, now: Now, *, final: bool) -> list[Effect]:
        """Prices between may be missing.  ``final``: they cannot be had."""
        out: list[Effect] = []
        if self.prices is None:
            return out
        self._priced(self.prices.missed(first_ms, until_ms, final=final), now, out)
        if not final:
            return out
        self.candles.rollup.unsure(first_ms, until_ms)
        for interval in self.prices.intervals:
            ledger = self.candles.ledgers[interval]
            rows = self.prices.silent_in(interval, first_ms, until_ms)
            out += self.candles.kept(interval, rows, now)
            span = ledger.grid.open_of(first_ms), ledger.grid.open_of(max(first_ms, until_ms - 1))
            out += self.status.hole(ledger.series, span)
        return out

    # Questions and answers.

    def wake(self, now: Now, *, held: bool = False) -> list[Effect]:
        """What is due by now.  ``held``: messages wait for us, so a silence is our own doing."""
        out: list[Effect] = []
        if self.liveness.wake_at <= now.mono:
            out += self._act(self.liveness.wake(now.mono, held=held), now)
        if self.prices is not None and self.prices.due(now) <= now.mono:
            self._priced(self.prices.advance(now), now, out)
        if self.trading:
            wanted = self.candles.wants(now, asked=self._asked)
            for fetch, at in self._other_dues(now):
                if at <= now.mono and fetch not in self._asked:
                    wanted.append(fetch)
            self._asked.update(each for each in wanted if isinstance(each, Fetch))
            out += wanted
        else:
            out += self.candles.loads(now)
        self._plan(now)
        return out

    def ask(self, fetch: Fetch, now: Now) -> Question | None:
        """The question as it stands now; None: there is nothing to ask after all."""
        question = self._question(fetch, now)
        if question is None:
            self._asked.discard(fetch)
        return question

    def _question(self, fetch: Fetch, now: Now) -> Question | None:
        match fetch.need:
            case Need.TRADES:
                wanted = None if self.trades is None else self.trades.sequence.wanted_id
                return None if wanted is None else TradeQuestion(wanted)
            case Need.BOOK:
                assert self.book is not None, "only books want snapshots"
                self.book.asked(now)
                return BookQuestion()
            case Need.PROBE | Need.PROOF:
                return LatestQuestion(fetch.interval)
        return self.candles.ask(fetch, now)

    def answer(
        self,
        fetch: Fetch,
        question: Question,
        rows: Sequence[Kline | Trade | BookUpdate],
        now: Now,
        *,
        until_ms: int | None = None,
        whole: bool = True,
        date_ms: float | None = None,
    ) -> list[Effect]:
        """The exchange's answer.  ``until_ms`` and ``whole``: see :meth:`.ledger.Ledger.fill`.
        ``date_ms``: the exchange's time of it, None where it says none."""
        self._asked.discard(fetch)
        out: list[Effect] = []
        klines = [row for row in rows if isinstance(row, Kline)]
        trades = [row for row in rows if isinstance(row, Trade)]
        match question:
            case TradeQuestion():
                self._refilled(trades, now, out)
            case BookQuestion():
                self._snapshot(rows, now, out)
            case LatestQuestion(interval):
                self._latest(fetch, interval, rows, now, date_ms, out)
            case CandleQuestion(interval):
                out = self._candle_rows(fetch, interval, klines, now, until_ms, whole)
                self._after(out, now)
        self._want(now.mono)
        return out

    def failed(self, fetch: Fetch, now: Now) -> list[Effect]:
        """There was no answer, or one that cannot be used."""
        self._asked.discard(fetch)
        out: list[Effect] = []
        if fetch.need is Need.TRADES and self.trades is not None:
            self._took(self.trades.failed(now), now, out)
            self._collect(now, out)
            out += self.status.reached(self._line_of(Channel.TRADE), self._trades_reached(now))
        elif fetch.need is Need.PROBE:
            out += self._probed(fetch, None, now)
        elif fetch.need is Need.PROOF and self.trades is not None:
            self.trades.not_answered(now)
        elif fetch.need is not Need.BOOK:
            self.candles.failed(fetch, now)
        self._want(now.mono)
        return out

    def loaded(self, load: Load, minutes: list[Kline], now: Now) -> list[Effect]:
        """Stored minutes that were asked for."""
        out = self.candles.loaded(load, minutes, now)
        self._after(out, now)
        self._want(now.mono)
        return out

    # Parts of take.

    def _trade(self, trade: Trade, now: Now, out: list[Effect]) -> bool:
        if self.trades is None:
            return False
        if abs(trade.event_ms - float(now.exchange)) > _ODD_TIME_MS and trade.event_ms:
            trade = evolve(trade, event_ms=0)
        self._took(self.trades.take(trade, now), now, out)
        due = self.trades.sequence.due
        if due is not None:
            self._want(due)
        return True

    def _took(self, taken: Taken, now: Now, out: list[Effect]) -> None:
        line = self._line.get(Channel.TRADE)
        for each in taken.breaks:
            fields = {
                "symbol": self.symbol,
                "from_ms": each.first_ms,
                "to_ms": each.last_ms,
                "problem": each.reason,
            }
            out.append(Report("trades.missing", "warning", fields))
            if line is not None:
                out += self.status.hole(line, (each.first_ms, each.last_ms))
        if line is not None:
            wall = float(now.wall)
            out += [LineNews(line, trade, self.source, wall) for trade in taken.trades]

    def _collect(self, now: Now, out: list[Effect]) -> None:
        """What the trades have made of the candles."""
        if self.trades is None:
            return
        closed, revised, running = self.trades.collect()
        own = self.trades.intervals
        made: list[Effect] = []
        for interval, kline in closed:
            if interval in own:
                made += self.candles.built(interval, kline, now)
            if interval is Interval.M1 and self.trades.checks and kline.complete:
                made += self._minute_built(kline, now)
        for interval, kline in revised:
            if interval in own:
                made += self.candles.revise(interval, kline, now)
        for interval, kline in running:
            if interval in own:
                made += self.candles.built(interval, kline, now)
        self._after(made, now)
        out += made

    def _minute_built(self, kline: Kline, now: Now) -> list[Effect]:
        assert self.trades is not None, "minutes are made of trades"
        out = self._judge(self.trades.compare_built(kline, now), now)
        ledger = self.candles.ledgers.get(Interval.M1)
        if ledger is not None and self._early.trusted(now) and ledger.expected == kline.open_ms:
            self._early.closed(kline, now)
            out += self.candles.observe(Interval.M1, kline, now)
        return out

    def _kline(self, event: KlineUpdate, now: Now, out: list[Effect]) -> bool:
        """True: something may have become of candles that are built."""
        interval, kline = event.interval, event.kline
        ledger = self.candles.ledgers.get(interval)
        if ledger is None:
            out.append(_ignored("other series"))
            return False
        if kline.event_ms and abs(kline.event_ms - float(now.exchange)) > _ODD_TIME_MS:
            # One frame's time is not believed: it orders nothing and proves nothing.
            kline = evolve(kline, event_ms=0)
        made = self.candles.observe(interval, kline, now)
        if interval is Interval.M1 and kline.closed and self._early.on and self.trades is not None:
            made += self._early.official(kline, now)
            made += self._judge(self.trades.compare_official(kline, now), now)
        if ledger.holding:
            self._want(ledger.due(now))
        self._after(made, now)
        out += made
        if self.trades is None:
            return False
        self.trades.witness(interval, kline, now)
        return True

    def _book_update(self, event: BookUpdate, now: Now, out: list[Effect]) -> None:
        if self.book is None:
            out.append(_ignored("other book"))
            return
        out += self.book.update(self._arbitration.in_order(event, now.mono), now)
        self._want(self.book.due())

    def _ticker_event(self, event: Ticker | BookTop, now: Now, out: list[Effect]) -> None:
        if Channel.TICKER in self._line and self._arbitration.is_new(event, now.mono):
            out += self._ticker.take(event, now)

    def _price(self, price: Price, now: Now, out: list[Effect]) -> None:
        assert self.prices is not None, "prices become candles"
        late = self.prices.late
        built = self.prices.take(price, now)
        if built is None:
            return
        if self.prices.late > late:
            fields = {"symbol": self.symbol, "time": price.time_ms}
            out.append(Report("price.too_late", "warning", fields))
            out += self.missed(price.time_ms, price.time_ms + 1, now, final=True)
        line = self._line.get(Channel.TRADE)
        if line is not None:
            out.append(LineNews(line, price, self.source, float(now.wall)))
        self._priced(built, now, out)
        self._want(self.prices.due(now))

    def _priced(self, built: Iterable[Built], now: Now, out: list[Effect]) -> None:
        """Candles made of prices, new ones and others again."""
        made: list[Effect] = []
        for interval, kline in built:
            made += self.candles.priced(interval, kline, now)
        self._after(made, now)
        out += made

    # Parts of answer.

    def _candle_rows(
        self,
        fetch: Fetch,
        interval: Interval,
        rows: list[Kline],
        now: Now,
        until_ms: int | None,
        whole: bool,
    ) -> list[Effect]:
        match fetch.need:
            case Need.AUDIT:
                return self.candles.compare(interval, rows, now)
            case Need.HISTORY:
                return self.candles.deepen(interval, rows, now)
            case Need.GRID:
                return self.candles.learn_grid(interval, rows, now)
        return self.candles.fill(interval, rows, now, until_ms=until_ms, whole=whole)

    def _refilled(self, trades: list[Trade], now: Now, out: list[Effect]) -> None:
        if self.trades is None:
            return
        before = self.trades.sequence.refilled
        self._took(self.trades.fill(trades, now), now, out)
        self._collect(now, out)
        number = self.trades.sequence.refilled - before
        if number:
            out.append(Report("", "", {}, "repaired", ("trade",), float(number)))
        if not self.trades.sequence.waiting and Channel.TRADE in self._line:
            out += self.status.reached(self._line_of(Channel.TRADE), self._trades_reached(now))

    def _snapshot(self, rows: Sequence[object], now: Now, out: list[Effect]) -> None:
        if self.book is None:
            return
        for row in rows:
            if isinstance(row, BookUpdate):
                out += self.book.snapshot(row, now)
        if self.book.renew:
            out += [Resubscribe(s, "renewed") for s in self._streams if s.kind is Kind.BOOK]

    def _latest(
        self,
        fetch: Fetch,
        interval: Interval | None,
        rows: Sequence[Kline | Trade | BookUpdate],
        now: Now,
        date_ms: float | None,
        out: list[Effect],
    ) -> None:
        """The newest candle or trade, whatever it was asked for."""
        latest = rows[-1] if rows else None
        if interval is None and self.trades is not None:
            trade = latest if isinstance(latest, Trade) else None
            self.trades.latest(trade, date_ms, now)
            self._collect(now, out)
        if fetch.need is Need.PROBE:
            out += self._probed(fetch, None if isinstance(latest, BookUpdate) else latest, now)

    def _probed(self, fetch: Fetch, latest: Kline | Trade | None, now: Now) -> list[Effect]:
        stream = next(
            (
                s
                for s in self._streams
                if s.interval == fetch.interval
                and s.kind is (Kind.KLINE if fetch.interval else self.rules.trade_kind)
            ),
            None,
        )
        if stream is None:
            return []
        return self._act(self.liveness.answered(stream, latest, now.mono), now)

    # Liveness and status.

    def _act(self, actions: Iterable[Action], now: Now) -> list[Effect]:
        out: list[Effect] = []
        for action in actions:
            match action:
                case Probe(stream):
                    fetch = Fetch(Need.PROBE, self.symbol, stream.interval)
                    self._asked.add(fetch)
                    out.append(fetch)
                case Stale(stream, silent_s):
                    silent = round(silent_s, 3)
                    fields = {"stream": stream.name, "silent_s": silent}
                    out.append(Report("stream.stale", "warning", fields))
                    reason = f"silent for {silent_s:.1f} s while the market moves"
                    out += self._lost(stream, reason, now)
                case Rotate(stream):
                    out.append(Resubscribe(stream, "stale"))
                case Settled(result):
                    out.append(Report("", "", {}, "probes", (result,)))
                case Flows():
                    self._flows(action, now, out)
        return out

    def _flows(self, flows: Flows, now: Now, out: list[Effect]) -> None:
        """A stream delivered for the first time (again), and that has been taken."""
        if flows.missed_s:
            out.append(Report("", "", {}, "gap_seconds", (), flows.missed_s))
        self.candles.resumed(self._streams.get(flows.stream, ()), now)
        out += self.status.flows(flows.stream, self._missing(flows.stream, now))
        self._want(now.mono)

    def _lost(self, stream: Stream, reason: str, now: Now) -> list[Effect]:
        out: list[Effect] = [*self.status.lost(stream, reason)]
        if stream.kind is Kind.BOOK and self.book is not None:
            self._arbitration.forget_book()
            out += self.book.lost(now)
        return out

    def _after(self, effects: list[Effect], now: Now) -> None:
        """What follows for clients and checks from candles that closed and holes that were found;
        it is added behind them."""
        for effect in list(effects):
            if isinstance(effect, StoreHole):
                hole = effect.hole
                effects += self.status.hole(effect.series, (hole.first_ms, hole.last_ms))
                effects += self._settled(effect.series)
            elif isinstance(effect, CandleNews) and effect.kline.closed and not effect.revision:
                effects += self._closed(effect, now)

    def _closed(self, news: CandleNews, now: Now) -> list[Effect]:
        series, kline = news.series, news.kline
        out: list[Effect] = []
        missing = self.status.missing(series)
        fetched = kline.source is Source.BACKFILL and kline.open_ms >= self._since_ms
        if fetched or (missing is not None and missing[0] <= kline.open_ms <= missing[1]):
            out.append(Report("", "", {}, "repaired", ("candle",)))
        if missing is not None and kline.open_ms >= missing[1]:
            out += self._settled(series)
        if (
            series.interval is Interval.M1
            and self.trades is not None
            and not self._early.on
            and series.interval in self.settings.intervals
        ):
            out += self._judge(self.trades.compare_official(kline, now), now)
        return out

    def _settled(self, series: Series) -> list[Effect]:
        ledger = self.candles.ledgers[series.interval]
        return [*self.status.reached(series, ledger.grid.previous(ledger.expected))]

    def _judge(self, verdicts: Iterable[Verdict], now: Now) -> list[Effect]:
        """Minutes made here against the exchange's own."""
        out: list[Effect] = []
        for verdict in verdicts:
            match verdict:
                case Match():
                    out.append(Report("", "", {}, "reconciled", ("equal",)))
                case OneSided():
                    out.append(Report("", "", {}, "reconciled", ("one_sided",)))
                case Difference():
                    fields = {
                        "stream": f"{self.rules.venue}:{self.symbol}:1m",
                        "time": verdict.open_ms,
                        "fields": list(verdict.fields),
                        "missing": verdict.missing_trades,
                    }
                    out.append(
                        Report("candle.differs", "warning", fields, "reconciled", ("different",))
                    )
                    audit = self.candles.audits.get(Interval.M1)
                    if audit is not None:
                        audit.hurry(now)
                        self._want(now.mono)
        return out

    def _missing(self, stream: Stream, now: Now) -> dict[Subject, Span | None]:
        found: dict[Subject, Span | None] = {}
        for subject in self.status.subjects.get(stream, ()):
            if isinstance(subject, Series):
                ledger = self.candles.ledgers[subject.interval]
                running = ledger.grid.open_of(int(now.exchange))
                last = ledger.grid.previous(running)
                found[subject] = (ledger.expected, last) if ledger.expected <= last else None
            elif subject.channel is Channel.TRADE and self.trades is not None:
                found[subject] = self.trades.sequence.gap_ms
        return found

    def _trades_reached(self, now: Now) -> int:
        return (
            int(now.exchange)
            if self.trades is None
            else max(int(now.exchange), self.trades.sequence.last_ms)
        )

    def _intervals_of(self, stream: Stream) -> list[Interval]:
        """The series that are taken or built from this stream."""
        if stream.interval is not None:
            return [stream.interval] if stream.interval in self.candles.ledgers else []
        if stream.kind is self.rules.trade_kind:
            return list(self.settings.trade_intervals)
        return []

    def _subjects_of(self, stream: Stream) -> list[Subject]:
        """What clients get from this stream."""
        intervals = self._intervals_of(stream)
        if Interval.M1 in intervals:
            intervals += self.settings.rollup_intervals
        subjects: list[Subject] = [self.candles.ledgers[i].series for i in intervals]
        is_trades = stream.kind is self.rules.trade_kind
        channel = Channel.TRADE if is_trades else _CHANNELS.get(stream.kind)
        if channel is not None and channel in self._line:
            subjects.append(self._line[channel])
        return subjects

    def _line_of(self, channel: Channel) -> Line:
        return Line(self.rules.venue, self.symbol, channel)

    # When it wants to be woken.

    def _other_dues(self, now: Now) -> Iterable[tuple[Fetch, Mono]]:
        trades = self.trades
        if trades is not None:
            if trades.sequence.due is not None:
                yield Fetch(Need.TRADES, self.symbol), trades.sequence.due
            elif self.liveness.is_up(self.rules.trade_kind) and self.rules.refill:
                witnessed = trades.checks and self.liveness.is_up(Kind.KLINE, Interval.M1)
                yield Fetch(Need.PROOF, self.symbol), trades.proof_due(now, witnessed=witnessed)
        if self.book is not None:
            yield Fetch(Need.BOOK, self.symbol), self.book.due()

    def _plan(self, now: Now) -> None:
        self.wake_at = self.liveness.wake_at
        if self.prices is not None:
            self.wake_at = min(self.wake_at, self.prices.due(now))
        if self.trading:
            times = [at for fetch, at in self._other_dues(now) if fetch not in self._asked]
            self.wake_at = min([self.wake_at, self.candles.due(now, asked=self._asked), *times])

    def _follow_liveness(self) -> None:
        if self.liveness.wake_at < self.wake_at:
            self.wake_at = self.liveness.wake_at

    def _want(self, at: Mono) -> None:
        if at < self.wake_at:
            self.wake_at = at


def _ignored(kind: str) -> Report:
    return Report("", "", {}, "ignored_messages", (kind,))
