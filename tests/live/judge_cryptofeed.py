"""cryptofeed speaks to a service of ours: a program of its own, because what it trusts is decided
when aiohttp is imported.  ``judge_cryptofeed.py binance|binance_usdm host:port``

Prints one JSON line: what came on each channel, the trades' ids, the book's levels, and what it
logged.  Told: addresses, as docs/dialects.md says it; its WebSocket takes ``wss`` only.
"""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, WebsocketEndpoint
from cryptofeed.exchanges import Binance, BinanceFutures

WITHIN_S = 40
ENOUGH = {"l2_book": 30, "trades": 30, "ticker": 5, "candles": 2}


def feed_of(venue: str, address: str) -> Any:
    """Its class with our addresses."""
    feed = Binance if venue == "binance" else BinanceFutures
    feed.websocket_endpoints = [WebsocketEndpoint(f"wss://{address}/{venue}")]
    routes = feed.rest_endpoints[0].routes
    feed.rest_endpoints = [RestEndpoint(f"https://{address}/{venue}", routes=routes)]
    return feed


async def main(venue: str, address: str) -> dict[str, Any]:
    """One feed with all channels, USD-M's too: its path without ``/public`` and ``/market`` has
    everything here."""
    seen: dict[str, list[Any]] = {name: [] for name in ENOUGH}

    def keep(channel: str) -> Callable[[Any, float], Awaitable[None]]:
        async def callback(value: Any, _received: float) -> None:
            seen[channel].append(value)

        return callback

    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
    handler.add_feed(
        feed_of(venue, address)(
            symbols=["BTC-USDT" if venue == "binance" else "BTC-USDT-PERP"],
            channels=[*ENOUGH],
            callbacks={name: keep(name) for name in ENOUGH},
            candle_closed_only=False,
            max_depth=1000,
        )
    )
    handler.run(start_loop=False, install_signal_handlers=False)
    async with asyncio.timeout(WITHIN_S):
        while any(len(seen[name]) < count for name, count in ENOUGH.items()):
            await asyncio.sleep(0.05)
    for running in handler.feeds:
        running.stop()
        await running.shutdown()
    return {
        "came": {name: len(values) for name, values in seen.items()},
        "ids": [trade.raw["a"] for trade in seen["trades"]],
        "bids": len(seen["l2_book"][-1].book["bid"]),
    }


if __name__ == "__main__":
    logged = io.StringIO()
    logging.basicConfig(stream=logged, level=logging.WARNING)
    try:
        print(json.dumps({**asyncio.run(main(*sys.argv[1:])), "log": logged.getvalue()}))
    except TimeoutError:
        sys.exit(f"too little came within {WITHIN_S} s: {logged.getvalue()}")
