"""One symbol's trades as clients get them, and the candles that are made of them.  Pure.

Order, holes and proofs are :mod:`.trades`; here their results become candles of the symbol's lines,
messages, and comparisons with the exchange's own minutes.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve

from ..instants import NEVER, Mono, Now
from ..model import Channel, Interval, Kline, Trade
from .early import EarlyClose
from .effects import CandleNews, Effect, Fetch, Report, TradeNews
from .health import Span
from .opening import End
from .questions import LatestQuestion, Need, TradeQuestion
from .scope import Scope
from .trades import ODD_TIME_MS, Difference, Match, OneSided, SymbolTrades, Taken, Verdict


class TradeCandles:
    """Of one symbol.  ``built``: something was taken since the last :meth:`collect`.

    ``told_to``: id of the last trade that was given on as news.  ``known_to``: up to this one they
    were by the engine before this one; they come again for the candles only.
    """

    __slots__ = (
        "_early", "_key", "_next_open_at", "_publish_interval_s", "_scope", "built", "known_to",
        "told_to", "trades",
    )  # fmt: skip

    def __init__(self, scope: Scope, ends: Mapping[Interval, End]) -> None:
        settings = scope.settings
        self._scope = scope
        self._early = EarlyClose(settings.close == "proven")
        self._key = scope.channel_keys.get(Channel.TRADE)
        self.built = False
        self.told_to: int | None = None
        self.known_to: int | None = None
        self._publish_interval_s = settings.publish_interval_ms / 1000
        self._next_open_at = Mono(0.0)
        intervals = settings.trade_intervals
        checks = Interval.M1 in settings.intervals and (
            (settings.reconcile and bool(intervals)) or self._early.on
        )
        self.trades = SymbolTrades(intervals, checks, settings.close_grace_s, scope.rules.refill)
        self.trades.resume((i, ends[i].kline) for i in intervals if i in ends)

    def take_over(self, old: "TradeCandles") -> None:
        """Go on where the engine before this one was, also where no stored candle says which trade
        was the last: what was traded since then shows as missing, and is fetched."""
        self.known_to, before = old.told_to, old.trades.sequence
        if self.trades.sequence.last_id is None and before.last_id is not None:
            self.trades.go_on(before.last_id, before.reached_ms)

    def go_on(self, trade: Trade) -> None:
        """The same behind a trade that was told elsewhere; those that stored candles have and
        nobody was told are told."""
        self.known_to = trade.trade_id
        self.trades.go_on(trade.trade_id, trade.time_ms)

    @property
    def gap_ms(self) -> Span | None:
        """What of the trades is missing now (unix ms)."""
        return self.trades.sequence.gap_ms

    @property
    def open_due(self) -> Mono:
        """When the running candles are to be shown; NEVER: no trade came since they were."""
        return self._next_open_at if self.trades.bars.touched else NEVER

    def take(self, trades: Sequence[Trade], now: Now, out: list[Effect]) -> None:
        """Live trades, in the order in which they came."""
        if self._publish_interval_s or len(trades) == 1:
            self._take(trades, now, out)
        else:  # every state of a candle is shown
            for trade in trades:
                self._take((trade,), now, out)
                self.collect(now, out)
        due = self.trades.sequence.due
        if due is not None:
            self._scope.alarm.want(due)
        self.built = True

    def _take(self, trades: Sequence[Trade], now: Now, out: list[Effect]) -> None:
        while trades:
            plain = self.trades.take_plain(trades, now)
            if plain:
                self._tell(plain, now, out)
            else:
                trade = trades[0]
                if abs(trade.event_ms - float(now.exchange)) > ODD_TIME_MS and trade.event_ms:
                    trade = evolve(trade, event_ms=0)
                self._took(self.trades.take(trade, now), now, out)
            trades = trades[len(plain) or 1 :]

    def collect(self, now: Now, out: list[Effect]) -> None:
        """What the trades have made of the candles."""
        self.built = False
        scope, candles = self._scope, self._scope.candles
        due = now.mono >= self._next_open_at
        closed, revised, running = self.trades.collect(running=due)
        if running:
            self._next_open_at = now.mono + self._publish_interval_s
        elif not due:
            scope.alarm.show(self.open_due)
        own = self.trades.intervals
        made: list[Effect] = []
        for interval, kline in closed:
            if interval in own:
                made += candles.built(interval, kline, now)
            if interval is Interval.M1 and self.trades.checks and kline.complete:
                made += self._minute_built(kline, now)
        for interval, kline in revised:
            if interval in own:
                made += candles.revise(interval, kline, now)
        for interval, kline in running:
            if interval in own:
                made += candles.built(interval, kline, now)
        if made:
            scope.follow(made)
            out += made

    def seen(self, interval: Interval, kline: Kline, now: Now) -> list[Effect]:
        """A state of the exchange's own candle, from its stream: it may prove that nothing is
        missing, and it confirms or corrects what closed early."""
        out: list[Effect] = []
        if interval is Interval.M1 and kline.closed and self._early.on:
            out += self._early.official(kline, now)
            out += self._judge(self.trades.compare_official(kline, now), now)
        self.trades.note_candle(interval, kline, now)
        self.built = True
        return out

    def official(self, effects: Iterable[Effect], now: Now) -> list[Effect]:
        """The exchange's own minutes among these are compared with those that were made here."""
        out: list[Effect] = []
        if self._early.on or not self.trades.checks:
            return out
        for each in effects:
            if (
                isinstance(each, CandleNews)
                and each.series.interval is Interval.M1
                and each.kline.closed
                and not each.revision
            ):
                out += self._judge(self.trades.compare_official(each.kline, now), now)
        return out

    def refilled(self, trades: Iterable[Trade], now: Now, out: list[Effect]) -> None:
        """The exchange's answer to what was missing."""
        before = self.trades.sequence.refilled
        self._took(self.trades.fill(trades, now), now, out)
        self.collect(now, out)
        fetched = self.trades.sequence.refilled - before
        if fetched:
            out.append(Report("", "", {}, "repaired", ("trade",), float(fetched)))
        self._repaired(out)

    def not_refilled(self, now: Now, out: list[Effect]) -> None:
        """There was no answer about what is missing."""
        self._took(self.trades.failed(now), now, out)
        self.collect(now, out)
        self._repaired(out)

    def latest(
        self, trade: Trade | None, date_ms: float | None, now: Now, out: list[Effect]
    ) -> None:
        """The exchange's newest trade; see :meth:`.trades.SymbolTrades.latest`."""
        self.trades.latest(trade, date_ms, now)
        self.collect(now, out)

    def dues(self, now: Now, *, up: bool, witnessed: bool) -> Iterable[tuple[Fetch, Mono]]:
        """What to ask, and when.  ``up``: the stream delivers; ``witnessed``: the exchange's own
        minutes do."""
        scope, sequence = self._scope, self.trades.sequence
        if sequence.due is not None:
            yield Fetch(Need.TRADES, scope.symbol), sequence.due
        elif up and scope.rules.refill:
            at = self.trades.proof_due(now, witnessed=witnessed and self.trades.checks)
            yield Fetch(Need.PROOF, scope.symbol), at

    def question(self, need: Need) -> TradeQuestion | LatestQuestion | None:
        if need is Need.PROOF:
            return LatestQuestion(None)
        wanted = self.trades.sequence.wanted_id
        return None if wanted is None else TradeQuestion(wanted)

    def _took(self, taken: Taken, now: Now, out: list[Effect]) -> None:
        scope, key = self._scope, self._key
        for each in taken.breaks:
            fields = {
                "symbol": scope.symbol,
                "from_ms": each.first_ms,
                "to_ms": each.last_ms,
                "problem": each.reason,
            }
            out.append(Report("trades.missing", "warning", fields))
            if key is not None:
                out += scope.status.hole(key, (each.first_ms, each.last_ms))
            self.known_to = None  # ids may have begun anew
        self._tell(taken.trades, now, out)

    def _tell(self, trades: Sequence[Trade], now: Now, out: list[Effect]) -> None:
        known_to = self.known_to
        if known_to is not None:
            trades = [trade for trade in trades if trade.trade_id > known_to]
            if trades:
                self.known_to = None
        if self._key is not None and trades:
            out.append(TradeNews(self._key, trades, self._scope.source, float(now.wall)))

    def _repaired(self, out: list[Effect]) -> None:
        """Nothing is missing any more, whatever times the trades of the gap had."""
        if self._key is not None and not self.trades.sequence.waiting:
            out += self._scope.status.repaired(self._key)

    def _minute_built(self, kline: Kline, now: Now) -> list[Effect]:
        out = self._judge(self.trades.compare_built(kline, now), now)
        candles = self._scope.candles
        ledger = candles.ledgers.get(Interval.M1)
        # Of a minute without a trade ids prove nothing: while trading is halted there is no candle.
        early = kline.trades > 0 and self._early.trusted(now)
        if ledger is not None and early and ledger.expected == kline.open_ms:
            self._early.closed(kline, now)
            out += candles.observe(Interval.M1, kline, now)
        return out

    def _judge(self, verdicts: Iterable[Verdict], now: Now) -> list[Effect]:
        """Minutes made here against the exchange's own."""
        scope = self._scope
        out: list[Effect] = []
        for verdict in verdicts:
            match verdict:
                case Match():
                    out.append(Report("", "", {}, "reconciled", ("equal",)))
                case OneSided():
                    out.append(Report("", "", {}, "reconciled", ("one_sided",)))
                case Difference():
                    fields = {
                        "stream": f"{scope.rules.venue}:{scope.symbol}:1m",
                        "time": verdict.open_ms,
                        "fields": list(verdict.fields),
                        "missing": verdict.missing_trades,
                    }
                    out.append(
                        Report("candle.differs", "warning", fields, "reconciled", ("different",))
                    )
                    audit = scope.candles.audits.get(Interval.M1)
                    if audit is not None:
                        audit.hurry(now)
                        scope.alarm.want(now.mono)
        return out
