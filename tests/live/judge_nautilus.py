"""nautilus_trader's Binance adapter in a live node with a service of ours as its exchange: a
program of its own, in a virtual environment of its own.
``judge_nautilus.py binance|binance_usdm host:port``

Prints one JSON line: what came of each kind, and which bars history had.  Told: addresses.
"""

import asyncio
import json
import os
import sys
import threading
from collections import Counter
from datetime import timedelta
from typing import Any

from nautilus_trader.adapters.binance import (
    BINANCE,
    BinanceAccountType,
    BinanceDataClientConfig,
    BinanceLiveDataClientFactory,
)
from nautilus_trader.config import InstrumentProviderConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import BookType
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

WITHIN_S = 80
WANTED = {"trades": 20, "quotes": 5, "deltas": 20, "bars": 1, "history": 100}


class Watcher(Strategy):
    """Subscribes to everything of one instrument."""

    def __init__(self, name: str, done: asyncio.Event) -> None:
        super().__init__()
        self.instrument_id = InstrumentId.from_str(name)
        self.bars = BarType.from_str(f"{name}-1-MINUTE-LAST-EXTERNAL")
        self.came: Counter[str] = Counter()
        self.history: list[int] = []
        self.trade_ids: list[int] = []
        self.kept = OrderBook(self.instrument_id, BookType.L2_MBP)
        self.done = done

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(self.instrument_id)
        self.request_bars(self.bars, start=self.clock.utc_now() - timedelta(minutes=200))
        self.subscribe_trade_ticks(self.instrument_id)
        self.subscribe_quote_ticks(self.instrument_id)
        self.subscribe_order_book_deltas(self.instrument_id, depth=1000)
        self.subscribe_bars(self.bars)

    def on_historical_data(self, data: Any) -> None:
        self.history.append(data.ts_event)
        self._note("history")

    def on_trade_tick(self, tick: Any) -> None:
        self.trade_ids.append(int(tick.trade_id.value))
        self._note("trades")

    def on_quote_tick(self, tick: Any) -> None:
        assert tick.bid_price < tick.ask_price
        self._note("quotes")

    def on_order_book_deltas(self, deltas: Any) -> None:
        self.kept.apply_deltas(deltas)
        self._note("deltas")

    def on_bar(self, bar: Any) -> None:
        self._note("bars")

    def _note(self, kind: str) -> None:
        self.came[kind] += 1
        if all(self.came[each] >= count for each, count in WANTED.items()):
            self.done.set()


async def main(venue: str, address: str) -> dict[str, Any]:
    """Runs the node until all of it has come."""
    spot = venue == "binance"
    name = "BTCUSDT.BINANCE" if spot else "BTCUSDT-PERP.BINANCE"
    kind = BinanceAccountType.SPOT if spot else BinanceAccountType.USDT_FUTURES
    config = BinanceDataClientConfig(
        account_type=kind,
        base_url_http=f"http://{address}/{venue}",
        base_url_ws=f"ws://{address}/{venue}",
        instrument_provider=InstrumentProviderConfig(load_all=True),
    )
    node = TradingNode(
        TradingNodeConfig(
            trader_id="TESTER-001",
            logging=LoggingConfig(log_level="WARNING", log_colors=False),
            data_clients={BINANCE: config},
            timeout_connection=20.0,
            timeout_disconnection=2.0,
            timeout_post_stop=0.5,
        )
    )
    done = asyncio.Event()
    watcher = Watcher(name, done)
    node.trader.add_strategy(watcher)
    node.add_data_client_factory(BINANCE, BinanceLiveDataClientFactory)
    node.build()
    running = asyncio.ensure_future(node.run_async())
    try:
        async with asyncio.timeout(WITHIN_S):
            await done.wait()
    except TimeoutError:
        sys.stderr.write(f"too little came: {watcher.came}\n")
        os._exit(1)
    book = watcher.kept
    told = {
        "instruments": sorted(str(each.id) for each in node.cache.instruments()),
        "tick": str(watcher.instrument.price_increment),
        "came": dict(watcher.came),
        "ids": watcher.trade_ids,
        "history": [at // 10**6 for at in watcher.history],
        "bid": str(book.best_bid_price()),
        "ask": str(book.best_ask_price()),
    }
    await node.stop_async()
    running.cancel()
    return told


if __name__ == "__main__":
    overdue = threading.Timer(WITHIN_S + 10, lambda: os._exit(2))
    overdue.daemon = True
    overdue.start()
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))), flush=True)
    os._exit(0)
