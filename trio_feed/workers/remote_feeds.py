"""What a worker has in the place of feeds: how they stand, as the parent said last, and symbols on
demand, which the parent is asked for."""

from collections.abc import Mapping, Sequence

import trio
from attrs import define, evolve, field

from ..ingest.fed import FedInstruments
from ..model.demand import Granted, Refused, Wish
from ..push.edge.routes import ServiceReport
from ..push.fanout.hub import Hub
from ..venues import Instruments
from ..wiring import OpenSymbols
from . import questions
from .frames import View, Wanted
from .pipe import NoAnswer, Pipe

_LATE_S = 1.0
"""The parent answers within the time of the question, and has so long to say so."""
_AGAIN_S = 5.0
_AT_ONCE = 128
"""Of the questions that may be under way; the others are for history, the journal and places."""
_LEASE_S = 20.0
"""So long the parent's word that a symbol is fed is taken again.  It lets none go that was asked
for within 60 s (:data:`.core.on_demand.RETURN_S`), and gets the subscriptions within a few."""
_MOST_LEASES = 4096

_NOTHING = Instruments()


@define(eq=False)
class KnownFeeds:
    """How the feeds stand, as the parent said last."""

    not_ready: str = "the worker has just begun"
    clock: str = ""
    why: Mapping[str, str] = field(factory=dict)
    on_demand: Sequence[str] = ()
    tables: dict[str, Instruments] = field(factory=dict)

    def take(self, view: View) -> list[tuple[str, str]]:
        """Returns the symbols that are listed from now on, with their venues."""
        self.not_ready, self.clock, self.why = view.not_ready, view.clock, view.why_not
        self.on_demand = view.on_demand
        fresh = []
        for venue, listed in view.listings.items():
            before = self.tables.get(venue, _NOTHING)
            fresh += [(venue, i.symbol) for i in listed if before.of_symbol(i.symbol) is None]
            self.tables[venue] = Instruments(listed)
        return fresh

    def why_not(self, venue: str) -> str:
        return self.why.get(venue, "")

    def listing(self, hub: Hub, venue: str) -> FedInstruments:
        """What is fed of a venue is what ``hub`` has streams of."""
        table = self.tables.get(venue, _NOTHING)
        return FedInstruments(table, OpenSymbols(hub, venue), every=venue in self.on_demand)

    @property
    def report(self) -> ServiceReport:
        return ServiceReport(dict, lambda: self.not_ready, lambda: self.clock)


@define(eq=False)
class RemoteDemand:
    """A :class:`~trio_feed.push.demand.Demand`.  Streams that were opened for an answer have been
    read off the pipe before it."""

    pipe: Pipe
    known: KnownFeeds
    hub: Hub
    _leases: dict[Wish, tuple[Granted, float]] = field(factory=dict)
    _served: set[tuple[str, str]] = field(factory=set)
    _told: Wanted = field(factory=lambda: Wanted([], []))
    _turns: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(_AT_ONCE))

    def serves(self, venue: str | None) -> bool:
        return bool(self.known.on_demand) if venue is None else venue in self.known.on_demand

    def fed(self, wish: Wish) -> Granted | None:
        granted, until_s = self._leases.get(evolve(wish, asker=""), (None, 0.0))
        if granted is None or trio.current_time() >= until_s:
            return None
        if not self.hub.has(granted.venue, granted.symbol):
            return None
        self._served.add((granted.venue, granted.symbol))
        return granted

    async def ask(self, wish: Wish) -> Granted | Refused:
        problem, began_s = "the service is busy", trio.current_time()
        with trio.move_on_after(wish.within_s + _LATE_S):
            async with self._turns:
                since_s = trio.current_time()
                within_s = max(0.0, wish.within_s - (since_s - began_s))
                question = evolve(wish, within_s=within_s)
                try:
                    body = await self.pipe.ask(
                        questions.DEMAND, questions.encode(question), within_s + _LATE_S
                    )
                except UnicodeEncodeError:  # half of a surrogate pair
                    return Refused("unlisted", f"{wish.symbol[:64]!r} is not listed by any venue")
                except NoAnswer as error:
                    problem = str(error)
                else:
                    answer = questions.granted_of(body)
                    if isinstance(answer, Granted):
                        self._note(wish, answer, since_s)
                    return answer
        return Refused("starting", f"{problem}; try again in {_AGAIN_S:.0f} s", _AGAIN_S)

    def _note(self, wish: Wish, granted: Granted, since_s: float) -> None:
        if len(self._leases) >= _MOST_LEASES:
            self._leases.clear()
        self._leases[evolve(wish, asker="")] = granted, since_s + _LEASE_S

    def report(self) -> None:
        """Tell the parent what this worker's clients want, if that has changed."""
        counts = [
            (venue, symbol, count)
            for venue in self.known.on_demand
            for symbol in self.hub.symbols_of(venue)
            if (count := self.hub.wanted(venue, symbol))
        ]
        told = Wanted(counts, sorted(self._served))
        self._served.clear()
        if told != self._told:
            self.pipe.put(told)
            self._told = Wanted(counts, [])
