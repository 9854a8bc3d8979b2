"""How the feeds stand, for the workers, and what their clients want of the feeds."""

from collections.abc import Mapping

from attrs import define

from ..dialects.market import Listing
from ..model import Instrument
from ..model.demand import Granted, Refused, Wish
from . import frames
from .link import Link, Sources


@define(eq=False)
class Views:
    """Of one service; ``links`` are those of now, by worker."""

    _links: Mapping[int, Link]
    _sources: Sources

    def now(self) -> frames.View:
        view, venues = self._sources.view, self._sources.venues()
        demand = view.demand
        return frames.View(
            view.report.not_ready(),
            view.report.clock(),
            {venue: why for venue in venues if (why := view.why_not(venue))},
            [venue for venue in venues if demand is not None and demand.serves(venue)],
            {venue: _listed(view.listing(venue)) for venue in venues},
        )

    def tell(self, link: Link, view: frames.View) -> None:
        """The view, with what has changed for this worker."""
        changed = link.changed(view.listings)
        link.pipe.put(
            frames.View(view.not_ready, view.clock, view.why_not, view.on_demand, changed)
        )

    def note_answer(self, link: Link, answer: Granted | Refused) -> None:
        """A worker is about to be told that; it is to find by name what it was granted."""
        if isinstance(answer, Granted) and answer.symbol not in link.listed.get(answer.venue, ()):
            self.tell(link, self.now())

    def note_wanted(self, link: Link, wanted: frames.Wanted) -> None:
        link.wanted = {(venue, symbol): n for venue, symbol, n in wanted.subscriptions}
        demand = self._sources.view.demand
        if demand is not None:
            for venue, symbol in wanted.served:
                demand.fed(Wish(venue, symbol))  # which counts as asked for

    def wanted(self, venue: str, symbol: str) -> int:
        """Subscriptions to anything of a symbol that is on demand, at all workers."""
        return sum(link.wanted.get((venue, symbol), 0) for link in self._links.values())


def _listed(listing: Listing) -> list[Instrument]:
    """What may be asked for, and what is fed and may not be."""
    found = list(listing)
    symbols = {each.symbol for each in found}
    return [*found, *(each for each in listing.fed() if each.symbol not in symbols)]
