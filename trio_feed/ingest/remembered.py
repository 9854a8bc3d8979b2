"""What the store remembers of a venue's series when its feed begins."""

from collections.abc import Mapping, Sequence

from attrs import define, evolve, field

from ..core.audit import waiting
from ..model import Kline, Series, StreamKey
from ..settings import ExchangeSettings
from ..store.base import KlineStore, StoredEnd
from ..venues import make_venue
from .driver import EVERY


@define(eq=False)
class Remembered:
    """``rows``: so many candles of each series are kept until :meth:`take`, for those who ask for
    its history."""

    store: KlineStore
    rows: int
    _kept: dict[StreamKey, tuple[Sequence[Kline], int | None]] = field(factory=dict)

    async def read(self, name: str, exchange: ExchangeSettings) -> Mapping[Series, StoredEnd]:
        """Where the stored series of these symbols end, with the candles that wait for their
        second look."""
        out = await self.ends(name, exchange)
        for series, end in out.items():
            self._kept[series] = end.recent[-self.rows :], end.first_open_ms
        return out

    async def ends(self, name: str, exchange: ExchangeSettings) -> dict[Series, StoredEnd]:
        """The same, and nothing is kept."""
        looked_at = make_venue(name, exchange).INTERVALS
        symbols = None if EVERY in exchange.symbols else exchange.symbols
        out = await self.store.stored_ends(name, symbols)
        for series, end in out.items():
            is_looked_at = series.interval in looked_at
            wait = waiting(series.interval, exchange.audit_after_s) if is_looked_at else 0
            recent = await self.store.history(series, limit=max(self.rows, wait))
            out[series] = evolve(end, recent=recent)
        return out

    def take(self, stream_key: StreamKey) -> tuple[Sequence[Kline], int | None]:
        """Its last candles, and the open time of its first; once."""
        return self._kept.pop(stream_key, ((), None))
