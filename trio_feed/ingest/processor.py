"""From what a venue's readers read to its driver, in order."""

from types import NoneType
from typing import TYPE_CHECKING, Never

from attrs import define

from ..core.streams import Data
from ..store import KlineStore
from ..transactions import Transaction
from .driver import EVERY, Driver
from .intake import Incoming, Intake
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

    async def run(self, intake: Intake) -> Never:
        """Until cancelled.  Nothing is taken while the store has no room."""
        driver = self.driver
        while True:
            driver.held = True  # what comes meanwhile is not missing, it waits for room
            await self.store.wait_capacity()
            driver.held = intake.waiting > 0
            await self._take(await intake.receive())
            intake.done()

    def take_now(self, incoming: Incoming) -> bool:
        """What the messages of one read said; False, and nothing, where it may have to wait."""
        if self.chain is not None or EVERY in self.driver.settings.symbols:
            return False
        self.driver.take(_of_exchanges(incoming), incoming.mono, incoming.wall)
        return True

    async def _take(self, incoming: Incoming) -> None:
        """What the messages of one read said."""
        if self.take_now(incoming):
            return
        mono, wall = incoming.mono, incoming.wall
        if self.chain is not None:
            for event in incoming.events:
                if isinstance(event, Transaction):
                    self.chain.heard(event, mono, wall)
                elif event is None:
                    self.chain.confirmed(mono, wall)
                await self.chain.prices.apply()
            return
        events = _of_exchanges(incoming)
        for symbol in dict.fromkeys(event.symbol for event in events):
            await self.newcomers.meet(symbol)
        self.driver.take(events, mono, wall)


def _of_exchanges(incoming: Incoming) -> list[Data]:
    return [each for each in incoming.events if not isinstance(each, _OF_CHAINS)]
