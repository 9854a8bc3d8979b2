"""Everything about ONE symbol of one venue: evidence in, effects out.  Pure.

A message of its streams, an answer of the exchange, the state of its connections and the time go
in; what to publish, store, ask, load, resubscribe and report comes out, in order.  Nothing calls
back, nothing waits, and no clock is read: every method takes ``now``.

The way of a message: :meth:`SymbolEngine.take` -> candles :mod:`.series`, trades
:mod:`.from_trades`, prices :mod:`.from_prices`, the other channels :mod:`.market_channels`; whether
streams deliver :mod:`.upstream`.

The driver calls :meth:`SymbolEngine.wake` when ``wake_at`` has come, performs the effects, and
brings what was asked for back with :meth:`answer`, :meth:`failed` or :meth:`loaded`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from attrs import evolve

from ..instants import Mono, Now
from ..model import BookUpdate, Channel, Interval, Kline, Price, Source, StreamKey, Trade
from ..settings import ExchangeSettings
from .effects import Effect, Fetch, Load
from .from_prices import PriceCandles
from .from_trades import TradeCandles
from .market_channels import MarketChannels, ignored
from .monitored import Flows
from .opening import End
from .questions import (
    BookQuestion,
    CandleQuestion,
    LatestQuestion,
    Need,
    Question,
    Rules,
    TradeQuestion,
)
from .scope import Alarm, Scope
from .series import CandleSeries
from .streams import Data, Kind, KlineUpdate, Stream
from .symbol_questions import SymbolQuestions
from .trades import ODD_TIME_MS
from .upstream import Upstream


class SymbolEngine:
    """``wake_at`` only becomes earlier between two wakes.  ``trading``: the venue lists the symbol
    as trading; what does not trade is not asked for.

    ``trades`` and ``prices``: what candles are made of here, None where none are.  ``alarm``: when
    its driver is to wake it.
    """

    __slots__ = (
        "_liveness", "_questions", "_scope", "alarm", "candles", "channels", "prices", "symbol",
        "trades", "trading", "upstream",
    )  # fmt: skip

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
        self.symbol = symbol
        self.trading = False
        self.candles = CandleSeries(rules, settings, symbol, ends, now, simulated=simulated)
        source = Source.SIMULATED if simulated else Source.EXCHANGE
        self.alarm = Alarm(now.mono, now.mono)
        self._scope = scope = Scope(
            rules, settings, symbol, source, self.candles, self.alarm, float(now.exchange)
        )
        scope.status.go_on(self.candles.ledgers[interval].series for interval in ends)
        priced = rules.trade_kind is Kind.PRICE
        wanted = bool(settings.trade_intervals) or Channel.TRADE in settings.channels
        self.trades = TradeCandles(scope, ends) if wanted and not priced else None
        self.upstream = Upstream(scope, self.trades)
        self.prices = PriceCandles(scope, self.upstream, ends, now) if priced else None
        self._liveness = self.upstream.liveness
        self.channels = MarketChannels(scope)
        self._questions = SymbolQuestions(scope, self.trades, self._liveness, self.channels)

    def __repr__(self) -> str:
        return f"<SymbolEngine {self._scope.rules.venue}:{self.symbol}>"

    @property
    def wake_at(self) -> Mono:
        """When it has something to do."""
        return self.alarm.at

    @property
    def stream_keys(self) -> list[StreamKey]:
        """Everything of the symbol that one can subscribe to."""
        series = (ledger.series for ledger in self.candles.ledgers.values())
        return [*series, *self._scope.channel_keys.values()]

    @property
    def priced(self) -> PriceCandles:
        """Its candles of prices; only where the venue sends prices."""
        assert self.prices is not None, "the venue sends trades"
        return self.prices

    def broke_off(self, reason: str) -> list[Effect]:
        """It is given up: its subscribers get to know."""
        return [*self._scope.status.broke_off(self.stream_keys, reason)]

    def time_moved(self, now: Now) -> None:
        """The exchange's time is another one than we thought: every plan is made anew."""
        self.candles.questions.time_moved(now)
        self.alarm.want(now.mono)

    def take_over(self, old: "SymbolEngine") -> None:
        """It takes the place of another one that ended: subscribers know that nothing came since,
        and which trades did before."""
        self._scope.status.interrupted(self.stream_keys)
        if self.trades is not None and old.trades is not None:
            self.trades.take_over(old.trades)

    def go_on(self, trade: Trade) -> None:
        """Somebody else told the trades up to this one; subscribers know that nothing came
        since."""
        if self.trades is not None:
            key = self._scope.channel_keys.get(Channel.TRADE)
            self._scope.status.interrupted([] if key is None else [key])
            self.trades.go_on(trade)

    def use(self, streams: Iterable[Stream], now: Now, *, problem: str = "") -> list[Effect]:
        """These are its streams from now on.  ``problem``: why it does not trade."""
        self.trading = not problem
        out = self.upstream.use(streams, problem)
        self.alarm.want(now.mono)
        return out

    # What comes in.

    def take(self, events: Iterable[Data], now: Now) -> list[Effect]:
        """What the streams said, in the order in which it came."""
        out: list[Effect] = []
        began: list[Flows] = []
        trades, liveness = self.trades, self._liveness
        for kind, alike in groupby(events, type):
            several = list(alike)
            if kind is Trade:  # by the thousand: what can be done once for all of them is
                if trades is not None:
                    trades.take(several, now, out)  # type: ignore[arg-type]
                several = several[-1:]
            for event in several:
                if kind is not Trade:
                    self._take_one(event, now, out)
                first = liveness.heard(event, now.mono)
                if first is not None:
                    began.append(first)
        if trades is not None and trades.built:
            trades.collect(now, out)
            # To see what is quiet since.
            self.alarm.want(now.mono + self._scope.settings.close_grace_s)
            trades.told_to = trades.trades.sequence.last_id
        for flows in began:
            out += self.upstream.flows(flows, now)
        if liveness.wake_at < self.alarm.beside:
            self.alarm.want(liveness.wake_at)
        return out

    def _take_one(self, event: Data, now: Now, out: list[Effect]) -> None:
        kind = type(event)
        if kind is KlineUpdate:
            self._kline(event, now, out)  # type: ignore[arg-type]
        elif kind is Price and self.prices is not None:
            self.prices.take(event, now, out)  # type: ignore[arg-type]
        else:
            out += self.channels.take(event, now)

    def hear(self, price: Price, now: Now) -> list[Effect]:
        """A price whose time is only estimated (:mod:`.chain_placing`)."""
        out: list[Effect] = []
        self.priced.hear(price, now, out)
        first = self._liveness.heard(price, now.mono)
        if first is not None:
            out += self.upstream.flows(first, now)
        return out

    def up(self, stream: Stream, now: Now) -> list[Effect]:
        """Its connection delivers from now on: whatever closed meanwhile is due."""
        out = self.upstream.up(stream, now)
        self.alarm.want(now.mono)
        if self.prices is not None:
            self.prices.up(now, out)
        return out

    def down(self, stream: Stream, reason: str, now: Now) -> list[Effect]:
        """Nothing carries it any more."""
        out = self.upstream.down(stream, reason)
        if self.prices is not None:
            self.prices.lost(now)
        return out + self.channels.lost([stream], now)

    def _kline(self, event: KlineUpdate, now: Now, out: list[Effect]) -> None:
        """A state of the exchange's own candle."""
        interval, kline, trades = event.interval, event.kline, self.trades
        ledger = self.candles.ledgers.get(interval)
        if ledger is None:
            out.append(ignored("other series"))
            return
        if trades is not None and trades.built:
            trades.collect(now, out)  # what came before it is older
        if kline.event_ms and abs(kline.event_ms - float(now.exchange)) > ODD_TIME_MS:
            # One frame's time is not believed: it orders nothing and proves nothing.
            kline = evolve(kline, event_ms=0)
        made = self.candles.observe(interval, kline, now)
        if ledger.holding:
            self.alarm.want(ledger.due(now))
        if trades is not None:
            made += trades.seen(interval, kline, now)
        if kline.closed or len(made) > 1:  # nothing follows from a running state alone
            self._follow(made, now)
        out += made

    # Questions and answers.

    def wake(self, now: Now, *, held: bool = False) -> list[Effect]:
        """What is due by now.  ``held``: messages wait for us, so a silence is our own doing."""
        if now.mono < self.alarm.beside:
            return self._show(now)
        out, dead = self.upstream.wake(now, held=held)
        out += self.channels.lost(dead, now)
        if self.prices is not None:
            self.prices.wake(now, out)
        if self.trades is not None and self.trades.open_due <= now.mono:
            self.trades.collect(now, out)
        if self.trading:
            out += self._questions.wants(now)
        else:
            out += self.candles.loads(now)
        self._questions.note(out)
        self._plan(now)
        return out

    def _show(self, now: Now) -> list[Effect]:
        """Nothing is due but, perhaps, running candles: what is to be asked is not gone through."""
        out: list[Effect] = []
        alarm, trades = self.alarm, self.trades
        alarm.at = alarm.beside
        if trades is not None:
            if trades.open_due <= now.mono:
                trades.collect(now, out)
                alarm.want(now.mono + self._scope.settings.close_grace_s)
            alarm.show(trades.open_due)
        return out

    def ask(self, fetch: Fetch, now: Now) -> Question | None:
        """The question as it stands now; None: there is nothing to ask after all."""
        return self._questions.ask(fetch, now)

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
        self._questions.asked.discard(fetch)
        out: list[Effect] = []
        match question:
            case TradeQuestion():
                if self.trades is not None:
                    self.trades.refilled((r for r in rows if isinstance(r, Trade)), now, out)
                    self.trades.told_to = self.trades.trades.sequence.last_id
            case BookQuestion():
                out += self.channels.snapshot(rows, self.upstream.streams_of(Kind.BOOK), now)
            case LatestQuestion(interval):
                self._latest(fetch, interval, rows, now, date_ms, out)
            case CandleQuestion(interval):
                klines = [row for row in rows if isinstance(row, Kline)]
                if fetch.need is Need.CANDLES:
                    out += self.candles.fill(interval, klines, now, until_ms=until_ms, whole=whole)
                else:
                    out += self.candles.answered(fetch.need, interval, klines, now)
                self._follow(out, now)
        self.alarm.want(now.mono)
        return out

    def failed(self, fetch: Fetch, now: Now) -> list[Effect]:
        """There was no answer, or one that cannot be used."""
        self._questions.asked.discard(fetch)
        out: list[Effect] = []
        if fetch.need is Need.PROBE:
            out += self._probed(fetch, None, now)
        else:
            self._questions.failed(fetch, now, out)
        self.alarm.want(now.mono)
        return out

    def loaded(self, load: Load, minutes: list[Kline], now: Now) -> list[Effect]:
        """Stored minutes that were asked for."""
        out = self.candles.loaded(load, minutes, now)
        self._scope.follow(out)
        self.alarm.want(now.mono)
        return out

    def recall(self, stored: Mapping[Interval, Sequence[Kline]], now: Now) -> list[Effect]:
        """See :meth:`.series.CandleSeries.recall`."""
        out: list[Effect] = []
        for interval, rows in stored.items():
            if interval in self.candles.ledgers:
                out += self.candles.recall(interval, rows, now)
        self.alarm.want(now.mono)
        return out

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
            self.trades.latest(latest if isinstance(latest, Trade) else None, date_ms, now, out)
        if fetch.need is Need.PROBE:
            out += self._probed(fetch, None if isinstance(latest, BookUpdate) else latest, now)

    def _probed(self, fetch: Fetch, latest: Kline | Trade | None, now: Now) -> list[Effect]:
        out, dead = self.upstream.probed(fetch, latest, now)
        out += self.channels.lost(dead, now)
        self._questions.note(out)
        return out

    def _follow(self, effects: list[Effect], now: Now) -> None:
        """What candles of the exchange mean for clients and for those that were made here."""
        official = [] if self.trades is None else self.trades.official(effects, now)
        self._scope.follow(effects)
        effects += official

    # When it wants to be woken.

    def _plan(self, now: Now) -> None:
        times = [self._liveness.wake_at]
        if self.prices is not None:
            times.append(self.prices.due(now))
        if self.trading:
            times.append(self._questions.due(now))
        self.alarm.at = self.alarm.beside = min(times)
        if self.trades is not None:
            self.alarm.show(self.trades.open_due)
