"""What OKX's channels and its REST side are made from, and the sequence ids of the books.

Ids belong to the book and grow by ten per step of 100 ms, so that every channel, and REST, gives
the same id to the same book.
"""

from attrs import define, field, frozen

from ..market.books import STEP_MS, Books, Levels
from ..market.market import Market
from .bars import Candles
from .listing import OkxInstrument


@define
class Sequences:
    """Sequence ids of the books and faults to come in them, by instId."""

    gaps: dict[str, int] = field(factory=dict)
    resets: set[str] = field(factory=set)
    _offsets: dict[str, int] = field(factory=dict)

    def at(self, inst_id: str, step: int) -> int:
        """The id of the book at a step."""
        return 10 * step - self._offsets.get(inst_id, 0)

    def next(self, inst_id: str, step: int, previous: int) -> int:
        """The id of an update; lower than ``previous`` after a reset."""
        if inst_id in self.resets:
            self.resets.discard(inst_id)
            self._offsets[inst_id] = 10 * step - previous // 2
        return self.at(inst_id, step)

    def take_gap(self, inst_id: str) -> bool:
        """Whether this update is to be lost."""
        left = self.gaps.pop(inst_id, 0)
        if left > 1:
            self.gaps[inst_id] = left - 1
        return left > 0


@frozen
class MarketData:
    """What streams and REST answers are made from.  ``candle_push_ms``: an open candle is pushed
    at most this often; ``book_push_ms``: the changes of a book."""

    market: Market
    books: Books
    candles: Candles
    sequences: Sequences
    candle_push_ms: int
    book_push_ms: int = STEP_MS

    def seq_id(self, instrument: OkxInstrument, time_ms: int) -> int:
        """The id of the book that stands at ``time_ms``."""
        return self.sequences.at(instrument.inst_id, time_ms // STEP_MS)

    def levels(self, instrument: OkxInstrument, step: int, count: int) -> tuple[Levels, Levels]:
        return self.books[instrument.symbol].levels(step, count)
