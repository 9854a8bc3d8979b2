"""The two-way table between unified symbols and a venue's own names.

Names are looked up, never taken apart: ``1000SHIBUSDT`` and ``USDTTRY`` cannot be guessed.
"""

from collections.abc import Iterable, Iterator

from ..model import Instrument


class Instruments:
    """One venue's instruments, immutable.  A later one of the same symbol replaces the earlier."""

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._by_symbol = {i.symbol: i for i in instruments}
        self._by_native = {i.native: i for i in self._by_symbol.values()}
        self._by_lower = {i.native.lower(): i for i in self._by_symbol.values()}

    def __len__(self) -> int:
        return len(self._by_symbol)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_symbol.values())

    def __repr__(self) -> str:
        return f"<{len(self)} instruments>"

    def of_symbol(self, symbol: str) -> Instrument | None:
        return self._by_symbol.get(symbol)

    def of_native(self, native: str) -> Instrument | None:
        return self._by_native.get(native)

    def of_lower(self, native: str) -> Instrument | None:
        """By the exchange's name in lower case; ``upper`` does not undo ``lower`` in every
        alphabet, so that names are lowered once more and never raised."""
        return self._by_lower.get(native)

    def find(self, name: str) -> Instrument | None:
        """By either name; the unified one wins."""
        return self._by_symbol.get(name) or self._by_native.get(name)


class AnyInstrument(Instruments):
    """A table for venues without a list: every name is an instrument of that very name."""

    def __init__(self, venue: str, kind: str) -> None:
        super().__init__()
        self._venue, self._kind = venue, kind

    def of_symbol(self, symbol: str) -> Instrument:
        return Instrument(self._venue, symbol, symbol, self._kind)

    def of_native(self, native: str) -> Instrument:
        return self.of_symbol(native)

    def find(self, name: str) -> Instrument:
        return self.of_symbol(name)
