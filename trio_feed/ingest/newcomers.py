"""Symbols that come by themselves, where every symbol of a venue is taken (``symbols = ["*"]``)."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Never

import structlog
import trio
from attrs import define

from ..bus.base import Publisher
from ..core.opening import End
from ..store import KlineStore
from .driver import Driver

if TYPE_CHECKING:
    from .chain_prices import ChainPrices

_RETIRE_S = 60.0


@define(eq=False)
class Newcomers:
    """Of one venue.  ``chain``: what proves its prices, once there is one."""

    driver: Driver
    store: KlineStore
    bus: Publisher
    chain: "ChainPrices | None" = None

    async def meet(self, symbol: str) -> None:
        """Make a symbol known that came by itself; it goes on where its stored series end."""
        driver = self.driver
        if not driver.is_stranger(symbol):
            return
        stored_ends = await self.store.stored_ends(driver.rules.venue, [symbol])
        if not driver.is_stranger(symbol):
            return
        ends = {
            s.interval: End(stored_end.kline, stored_end.settled_ms)
            for s, stored_end in stored_ends.items()
        }
        engine = driver.meet(
            symbol, ends, {s: stored_end.first_open_ms for s, stored_end in stored_ends.items()}
        )
        began_ms = None if self.chain is None else self.chain.began_ms
        if began_ms is not None and ends:
            newest = max(stored_end.kline.open_ms for stored_end in stored_ends.values())
            if newest >= began_ms:  # it was retired since, and all its prices are known
                engine.priced.known_since(began_ms)

    async def recall(self, symbols: Collection[str]) -> None:
        """Meet those of them that were retired, because something is to be said of them."""
        strangers = [symbol for symbol in symbols if self.driver.is_stranger(symbol)]
        if strangers:
            stored_ends = await self.store.stored_ends(self.driver.rules.venue, strangers)
            for symbol in dict.fromkeys(series.symbol for series in stored_ends):
                await self.meet(symbol)

    async def retire(self) -> Never:
        """Let go of symbols that came by themselves and are idle; they come back the same way."""
        log = structlog.get_logger().bind(venue=self.driver.rules.venue)
        while True:
            await trio.sleep(_RETIRE_S)
            for symbol in self.driver.idle(self.driver.settings.idle_s):
                for stream_key in self.driver.close(symbol):
                    self.bus.close(stream_key)
                log.info("symbol.retired", symbol=symbol)
