"""What one symbol wants asked, of candles (:mod:`.candle_questions`), trades, books and streams:
when, and each question as it stands.  Pure."""

from collections.abc import Iterable

from attrs import define, field

from ..instants import Mono, Now
from ..model import Interval
from .effects import Effect, Fetch
from .from_trades import TradeCandles
from .liveness import Liveness
from .market_channels import MarketChannels
from .questions import BookQuestion, LatestQuestion, Need, Question
from .scope import Scope
from .streams import Kind


@define(eq=False)
class SymbolQuestions:
    """Its parts are those of :class:`.symbol.SymbolEngine`, which takes the answers.  ``asked``:
    those that are under way."""

    scope: Scope
    trades: TradeCandles | None
    liveness: Liveness
    channels: MarketChannels
    asked: set[Fetch] = field(factory=set)

    def wants(self, now: Now) -> list[Effect]:
        """What is due and not asked yet, and stored minutes at the start."""
        out = self.scope.candles.wants(now, asked=self.asked)
        return out + [f for f, at in self._dues(now) if at <= now.mono and f not in self.asked]

    def due(self, now: Now) -> Mono:
        """When something will be due that is not asked for."""
        times = [at for fetch, at in self._dues(now) if fetch not in self.asked]
        return min([*times, self.scope.candles.due(now, asked=self.asked)])

    def note(self, effects: Iterable[Effect]) -> None:
        """These are going to be performed: what they ask is under way."""
        self.asked.update(each for each in effects if isinstance(each, Fetch))

    def ask(self, fetch: Fetch, now: Now) -> Question | None:
        """The question as it stands now; None: there is nothing to ask after all."""
        question = self._question(fetch, now)
        if question is None:
            self.asked.discard(fetch)
        return question

    def failed(self, fetch: Fetch, now: Now, out: list[Effect]) -> None:
        """There was no answer, or one that cannot be used; a probe is its stream's concern."""
        match fetch.need:
            case Need.TRADES if self.trades is not None:
                self.trades.not_refilled(now, out)
            case Need.PROOF if self.trades is not None:
                self.trades.trades.not_answered(now)
            case Need.CANDLES | Need.AUDIT | Need.GRID | Need.HISTORY:
                self.scope.candles.questions.failed(fetch, now)

    def _question(self, fetch: Fetch, now: Now) -> Question | None:
        match fetch.need:
            case Need.TRADES | Need.PROOF:
                return None if self.trades is None else self.trades.question(fetch.need)
            case Need.BOOK:
                assert self.channels.book is not None, "only books want snapshots"
                self.channels.book.asked(now)
                return BookQuestion()
            case Need.PROBE:
                return LatestQuestion(fetch.interval)
        return self.scope.candles.questions.ask(fetch, now)

    def _dues(self, now: Now) -> Iterable[tuple[Fetch, Mono]]:
        """What is to be asked beside candles, and when."""
        if self.trades is not None:
            liveness, kind = self.liveness, self.scope.rules.trade_kind
            witnessed = liveness.is_up(Kind.KLINE, Interval.M1)
            yield from self.trades.dues(now, up=liveness.is_up(kind), witnessed=witnessed)
        yield from self.channels.dues()
