"""The lists of instruments, for nodes that ask no exchange: who feeds says them, all read them."""

from collections.abc import Sequence
from typing import Never

import msgspec
import trio
from attrs import define, field

from ..bus.engine.base import Engine, EngineFault
from ..feeds import Feeds
from ..ingest.driver import EVERY
from ..model import Instrument
from ..settings import Settings
from ..venues import Instruments

LIST_S = 5.0

_instruments = msgspec.msgpack.Decoder(list[Instrument])


@define(eq=False)
class Listings:
    _engine: Engine
    _settings: Settings
    tables: dict[str, Instruments] = field(factory=dict)

    async def read(self) -> None:
        """Raises EngineFault."""
        for venue, exchange in self._settings.exchanges.items():
            if exchange.enabled and (body := await self._engine.value(_key(venue))) is not None:
                self.tables[venue] = Instruments(_read(body))

    async def tell(self, venues: Feeds) -> Never:
        """Until cancelled."""
        told: dict[str, bytes] = {}
        while True:
            for venue in venues.names:
                found = self._listed(venues, venue)
                body = msgspec.msgpack.encode(found)
                if not found:
                    continue
                try:
                    # One that was emptied lacks it, and nodes that come know no symbol then.
                    if told.get(venue) != body or await self._engine.value(_key(venue)) is None:
                        await self._engine.put_value(_key(venue), body)
                except EngineFault:
                    break
                told[venue] = body
            await trio.sleep(LIST_S)

    def _listed(self, venues: Feeds, venue: str) -> Sequence[Instrument]:
        """All of the settings, also what other nodes feed: each node says the same."""
        exchange, feed = venues.settings_of(venue), venues.feed_of(venue)
        table = None if feed is None else feed.table
        if exchange is None or table is None:
            return []
        if EVERY in exchange.symbols:
            return list(venues.listing(venue).fed())
        named = (table.of_symbol(symbol) for symbol in exchange.symbols)
        return [each for each in named if each is not None]


def _key(venue: str) -> str:
    return f"listing.{venue}"


def _read(body: bytes) -> list[Instrument]:
    """Empty where a node of another version wrote it."""
    try:
        return _instruments.decode(body)
    except msgspec.MsgspecError:
        return []
