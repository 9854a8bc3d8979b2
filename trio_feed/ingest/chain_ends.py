"""Which symbols have a candle that ends first: so that a price looks at nobody else."""

import heapq
from collections.abc import Iterator
from itertools import count

from attrs import define, field

from ..core.symbol import SymbolEngine


@define
class CandleEnds:
    """Symbols by the end of their next candle."""

    _heap: list[tuple[int, int, SymbolEngine]] = field(factory=list)
    _waits: dict[SymbolEngine, int] = field(factory=dict)
    """The end for which a symbol is in the heap."""
    _numbers: Iterator[int] = field(factory=count)

    def plan(self, engine: SymbolEngine | None) -> None:
        """Be reminded of it when its next candle ends."""
        if engine is None or (end_ms := engine.priced.next_end_ms) is None:
            return
        known = self._waits.get(engine)
        if known is None or end_ms < known:
            self._waits[engine] = end_ms
            heapq.heappush(self._heap, (end_ms, next(self._numbers), engine))

    def over(self, until_ms: int) -> Iterator[SymbolEngine]:
        """Symbols with a candle that ended by then; :meth:`plan` them again."""
        while self._heap and self._heap[0][0] <= until_ms:
            end_ms, _, engine = heapq.heappop(self._heap)
            if self._waits.get(engine) == end_ms:  # else it is in the heap for another end
                del self._waits[engine]
                yield engine
