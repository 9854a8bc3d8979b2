"""Symbols on demand: between clients that ask (:mod:`.push.demand`) and the feeds that take them.

Who is let in and who goes is decided by :mod:`.core.on_demand`, at once.  What follows from it is
done by one task, which brings the feeds to what is held: two clients that ask for the same symbol
start it once, one that leaves meanwhile ends nothing, and a symbol that is dropped and wanted again
at the same moment is there for certain before anybody hears that it is.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Never

import structlog
import trio
from attrs import define, field

from .core.on_demand import Let, Limits, OnDemand
from .environment import mono
from .errors import StoreError
from .feeds import Feeds
from .ingest.rules import problem_of
from .ingest.troubles import Troubles
from .ingest.venue import VenueFeed
from .metrics import Metrics
from .model import Instrument
from .model.demand import ANSWER_S, SUBSCRIBE, Granted, Refused, Wish
from .push.sampling import SampledLines
from .settings import ExchangeSettings
from .venues import Instruments

log = structlog.get_logger()

Wanted = Callable[[str, str], int]
"""Venue and symbol -> how many subscriptions there are to it."""

_SWEEP_S = 5.0
_LOOK_S = 0.05
_AGAIN_S = 5.0


@define(eq=False)
class _VenueDemand:
    """Of one venue.  ``on``: more than its settings name may be asked for; ``fed``: what is held
    and there; ``named``: what they name."""

    book: OnDemand
    on: bool = False
    named: Collection[str] = ()
    fed: set[str] = field(factory=set)

    def names(self, symbol: str) -> str:
        """The named symbol that is meant, which needs no list of the venue; empty: none is."""
        return next((name for name in (symbol, symbol.upper()) if name in self.named), "")


class Demands:
    """A :class:`.push.demand.Demand`; :meth:`run` once.

    ``default_venue`` is asked first where a client names none.  ``watch`` is called for each node
    that has clients."""

    def __init__(self, feeds: Feeds, metrics: Metrics, default_venue: str) -> None:
        self._feeds, self._metrics, self._default = feeds, metrics, default_venue
        self._venues: dict[str, _VenueDemand] = {}
        self._nodes: list[Wanted] = []
        self._due, self._passed = trio.Event(), trio.Event()
        self._lines = SampledLines()
        self._troubles = Troubles(log, "demand.failed")
        feeds.demanded = self._demanded

    def __repr__(self) -> str:
        return f"<Demands {' '.join(f'{n}: {len(v.fed)}' for n, v in self._venues.items())}>"

    def watch(self, wanted: Wanted) -> None:
        """What this node's clients are subscribed to counts from now on."""
        self._nodes.append(wanted)

    # From the push side

    def serves(self, venue: str | None) -> bool:
        return any(True for _ in self._asked_of(venue))

    def fed(self, wish: Wish) -> Granted | None:
        for name, own in self._asked_of(wish.venue):
            feed = self._feeds.feed_of(name)
            if feed is None:
                continue
            if named := own.names(wish.symbol):
                return Granted(name, named)
            found = _find(feed.table, wish.symbol)
            if found is not None:
                there = self._is_fed(name, found.symbol)
                settled = there and feed.is_settled(found.symbol, wish.kind)
                return Granted(name, found.symbol) if settled else None
        return None

    async def ask(self, wish: Wish) -> Granted | Refused:
        deadline = trio.current_time() + min(wish.within_s, ANSWER_S)
        answer: Granted | Refused | None = None
        with trio.move_on_at(deadline):
            answer = await self._start(wish)
        if isinstance(answer, Granted):
            with trio.move_on_at(deadline):
                await self._settle(answer, wish.kind)
            feed = self._feeds.feed_of(answer.venue)
            # What is stored is served, even if nobody can be asked what came since.
            if feed is not None and feed.is_begun(answer.symbol, wish.kind):
                return answer
        if isinstance(answer, Refused):
            self._note_refused(wish, answer)
            return answer
        what = "it is being started" if wish.kind == SUBSCRIBE else f"its {wish.kind} is on its way"
        late = Refused("starting", f"{what}; try again in {_AGAIN_S:.0f} s", _AGAIN_S)
        self._note_refused(wish, late)
        return late

    async def _start(self, wish: Wish) -> Granted | Refused:
        """Waits for as long as it takes."""
        found, problem = None, ""
        for name, own in self._asked_of(wish.venue):
            if named := own.names(wish.symbol):
                return Granted(name, named)
            table = await self._table(name)
            found = _find(table, wish.symbol)
            if found is not None and not (problem := problem_of(found)):
                break
        else:
            where = wish.venue or "any venue"
            what = problem or f"not listed by {where}"
            return Refused("unlisted", f"{wish.symbol[:64]!r} is {what}")
        answer = self._let(name, found.symbol, wish.asker)
        if isinstance(answer, Refused):
            return answer
        while not self._is_fed(name, found.symbol):
            await self._passed.wait()
            if not self._is_held(name, found.symbol):
                return Refused("no_room", "its place was needed for another one", _AGAIN_S)
        return Granted(name, found.symbol)

    async def _settle(self, granted: Granted, kind: str) -> None:
        while (feed := self._feeds.feed_of(granted.venue)) is not None:
            if feed.is_settled(granted.symbol, kind):
                return
            await trio.sleep(_LOOK_S)

    def _note_refused(self, wish: Wish, refused: Refused) -> None:
        venue = wish.venue or ""
        self._metrics.demands.labels(venue, refused.reason).inc()
        self._lines.say(
            log.info, "symbol.refused", trio.current_time(), venue=venue,
            symbol=wish.symbol[:64], asker=wish.asker, problem=refused.problem,
        )  # fmt: skip

    def _let(self, name: str, symbol: str, asker: str) -> Let | Refused:
        """What is decided at once."""
        own = self._of(name)
        if own is None or symbol in own.named:
            return Let()
        book, now_s = own.book, float(mono())
        new = symbol not in book.held  # else who is wanted does not matter
        answer = book.ask(symbol, asker, self._wanted(name) if new else (), now_s)
        if isinstance(answer, Refused) or not answer.new:
            return answer
        if answer.gone:
            own.fed.discard(answer.gone)
            self._note_gone(name, answer.gone, "its place was needed")
        log.info("symbol.demanded", venue=name, symbol=symbol, asker=asker, held=len(book.held))
        self._metrics.demands.labels(name, "started").inc()
        self._due.set()
        return answer

    # The task

    async def run(self) -> Never:
        """Bring the feeds to what is held, until cancelled."""
        while True:
            with trio.move_on_after(_SWEEP_S):
                await self._due.wait()
            self._due = trio.Event()
            for name, _ in [*self._asked_of(None)]:
                await self._pass(name)
            self._passed.set()
            self._passed = trio.Event()

    async def _pass(self, name: str) -> None:
        own = self._of(name)
        if own is None:
            return
        for symbol in own.book.sweep(self._wanted(name), float(mono())):
            own.fed.discard(symbol)
            self._note_gone(name, symbol, "nobody wanted it any more")
        feed = self._feeds.feed_of(name)
        there = set() if feed is None else set(feed.settings.symbols)
        if there.difference(own.named) != set(own.book.held).difference(own.named):
            try:
                there = set(await self._feeds.refresh(name))
            except StoreError as error:  # who waits has to come again
                self._troubles.say(error, venue=name)
                return
            self._troubles.over()
        own.fed = there.intersection(own.book.held)
        self._metrics.demanded_symbols.labels(name).set(len(own.fed))

    def _demanded(self, name: str, exchange: ExchangeSettings) -> Collection[str]:
        """From the feeds: what is to be fed beside what these settings of a venue name."""
        limits = limits_of(exchange)
        own = self._venues.setdefault(name, _VenueDemand(OnDemand(limits)))
        own.book.limits, own.on = limits, exchange.on_demand
        if not own.on:
            own.book.held.clear()
            own.fed.clear()
            own.named = exchange.named
            return ()
        for symbol in set(own.named).difference(exchange.named):
            if self._count(name, symbol):  # it goes on for those who have it
                own.book.adopt(symbol, float(mono()))
        own.named = exchange.named
        return list(own.book.held)

    def status(self, name: str) -> dict[str, Any] | None:
        """Of one venue, for the status page; None: nothing of it is on demand."""
        own, now_s = self._of(name), float(mono())
        if own is None:
            return None
        limits, held = own.book.limits, own.book.held
        return {
            "max_symbols": limits.most,
            "symbols": {
                symbol: {
                    "fed": symbol in own.fed,
                    "subscriptions": self._count(name, symbol),
                    "since_s": round(now_s - each.since_s, 1),
                    "idle_s": round(now_s - each.last_s, 1),
                }
                for symbol, each in held.items()
            },
        }

    def _asked_of(self, venue: str | None) -> Iterator[tuple[str, _VenueDemand]]:
        """The venues that a wish may be about, the default one first."""
        for name in sorted(self._venues, key=lambda each: each != self._default):
            own = self._of(name)
            if own is not None and venue in (None, name):
                yield name, own

    def _of(self, name: str) -> _VenueDemand | None:
        own = self._venues.get(name)
        there = own is not None and own.on and self._feeds.feed_of(name) is not None
        return own if there else None

    def _is_held(self, name: str, symbol: str) -> bool:
        own = self._of(name)
        return own is not None and (symbol in own.book.held or symbol in own.named)

    def _is_fed(self, name: str, symbol: str) -> bool:
        """There, and to stay; it counts as asked for."""
        own = self._of(name)
        if own is None:
            return False
        if symbol in own.fed and own.book.touch(symbol, float(mono())):
            return True
        feed: VenueFeed | None = self._feeds.feed_of(name)
        return symbol in own.named and feed is not None and symbol in feed.settings.symbols

    async def _table(self, name: str) -> Instruments | None:
        """The venue's list, as soon as it is known; None: the venue is gone."""
        feed = self._feeds.feed_of(name)
        if feed is None:
            return None
        await feed.listed.wait()
        return feed.table

    def _wanted(self, name: str) -> set[str]:
        own = self._of(name)
        held = () if own is None else own.book.held
        return {symbol for symbol in held if self._count(name, symbol)}

    def _count(self, name: str, symbol: str) -> int:
        return sum(wanted(name, symbol) for wanted in self._nodes)

    def _note_gone(self, name: str, symbol: str, why: str) -> None:
        log.info("symbol.dropped", venue=name, symbol=symbol, why=why)
        self._metrics.demands.labels(name, "dropped").inc()


def limits_of(exchange: ExchangeSettings) -> Limits:
    """As its settings say."""
    most = exchange.most_symbols
    share = exchange.max_symbols_per_client or max(1, most // 2)
    return Limits(most, share, exchange.linger_s)


def _find(table: Instruments | None, name: str) -> Instrument | None:
    """By the unified name or the venue's own, in any case."""
    if table is None:
        return None
    return table.find(name) or table.find(name.upper()) or table.of_lower(name.lower())
