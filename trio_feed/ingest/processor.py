"""From what a venue's readers read to its driver, in order."""

from typing import TYPE_CHECKING, Never

import structlog
import trio
from attrs import define

from ..errors import BadMessage
from ..store import KlineStore
from ..transactions import Transaction
from .connection import Incoming
from .driver import EVERY, Driver
from .newcomers import Newcomers

if TYPE_CHECKING:
    from .chain import ChainFeed


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
        for message in incoming.messages:
            if self.chain is not None:
                if isinstance(message, Transaction):
                    self.chain.heard(message, mono, wall)
                elif message is None:
                    self.chain.confirmed(mono, wall)
                await self.chain.prices.apply()
                continue
            if message is None or isinstance(message, Transaction):
                continue
            if EVERY in self.driver.settings.symbols:
                for event in message:
                    await self.newcomers.meet(event.symbol)
            try:
                self.driver.take(message, mono, wall)
            except BadMessage as error:
                self._bad(error)

    def _bad(self, error: BadMessage) -> None:
        metrics, name = self.driver.metrics, self.driver.rules.venue
        for counter in (metrics.failed, metrics.bad_messages):
            counter.labels(name).inc()
        structlog.get_logger().warning("message.bad", venue=name, problem=str(error))
