"""From what a venue's readers read to its driver, in order."""

from types import NoneType
from typing import TYPE_CHECKING, Never

import trio
from attrs import define

from ..core.streams import Data
from ..store import KlineStore
from ..transactions import Transaction
from .connection import Incoming
from .driver import EVERY, Driver
from .newcomers import Newcomers

if TYPE_CHECKING:
    from .chain import ChainFeed

_OF_CHAINS = (Transaction, NoneType)


@define(eq=False)
class Processor:
    """``chain``: what repairs a venue of transactions; None: it is an exchange.  ``newcomers``:
    symbols that came by themselves, where the settings want every one."""

    driver: Driver
    store: KlineStore
    newcomers: Newcomers
    chain: "ChainFeed | None"

    async def run(self, receive_channel: trio.MemoryReceiveChannel[Incoming]) -> Never:
        """Until cancelled.  Nothing is taken while the store has no room."""
        driver = self.driver
        while True:
            driver.held = True  # what comes meanwhile is not missing, it waits for room
            await self.store.wait_capacity()
            driver.held = receive_channel.statistics().current_buffer_used > 0
            await self._take(await receive_channel.receive())

    async def _take(self, incoming: Incoming) -> None:
        """What the messages of one read said."""
        mono, wall = incoming.mono, incoming.wall
        if self.chain is not None:
            for event in incoming.events:
                if isinstance(event, Transaction):
                    self.chain.heard(event, mono, wall)
                elif event is None:
                    self.chain.confirmed(mono, wall)
                await self.chain.prices.apply()
            return
        events: list[Data] = [e for e in incoming.events if not isinstance(e, _OF_CHAINS)]
        if EVERY in self.driver.settings.symbols:
            for symbol in dict.fromkeys(event.symbol for event in events):
                await self.newcomers.meet(symbol)
        self.driver.take(events, mono, wall)
