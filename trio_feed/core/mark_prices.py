"""A contract's mark price, completed by its funding where those come apart.  Pure."""

from attrs import define, evolve

from ..instants import Now
from ..model import ChannelKey, Funding, MarkPrice, Source
from .effects import ChannelNews, Effect


@define(eq=False)
class MarkPriceChannel:
    """The last mark price and the last funding."""

    key: ChannelKey
    source: Source
    _last: MarkPrice | None = None
    _funding: Funding | None = None

    def take(self, news: MarkPrice | Funding, now: Now) -> list[Effect]:
        """A mark price, or a funding; before the first mark price that says nothing."""
        if isinstance(news, Funding):
            self._funding = news
        else:
            self._last = news
        mark, funding = self._last, self._funding
        if mark is None:
            return []
        if funding is not None:
            mark = evolve(
                mark, funding_rate=funding.rate, next_funding_ms=funding.time_ms, funding=funding
            )
        return [ChannelNews(self.key, mark, self.source, float(now.wall))]
