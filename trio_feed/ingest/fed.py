"""The instruments of a venue that are fed, by the names that clients use."""

from collections.abc import Collection, Iterator

from attrs import frozen

from ..model import Instrument
from ..venues import Instruments
from .rules import problem_of


@frozen
class FedInstruments:
    """Of a venue's ``table`` those with a symbol in ``symbols``.  A view; each name is one look-up,
    so that a request with a thousand of them costs no walk through the list for each.

    ``every``: iterating gives all that trade, because a client may ask for each."""

    table: Instruments
    symbols: Collection[str]
    every: bool = False

    def __iter__(self) -> Iterator[Instrument]:
        if self.every:
            return (each for each in self.table if not problem_of(each))
        return self.fed()

    def fed(self) -> Iterator[Instrument]:
        found = map(self.table.of_symbol, self.symbols)
        return (each for each in found if each is not None)

    def of_native(self, native: str) -> Instrument | None:
        return self._fed(self.table.of_native(native))

    def of_lower(self, lower: str) -> Instrument | None:
        return self._fed(self.table.of_lower(lower))

    def of_symbol(self, symbol: str) -> Instrument | None:
        return self._fed(self.table.of_symbol(symbol))

    def _fed(self, found: Instrument | None) -> Instrument | None:
        return found if found is not None and found.symbol in self.symbols else None
