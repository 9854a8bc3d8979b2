"""unicorn-binance-websocket-api and -local-depth-cache speak to a service of ours: a program of its
own, because their threads stay.  ``judge_unicorn.py binance|binance_usdm host:port``

Prints one JSON line: the events that streams brought, and a depth cache's best levels and how often
it fell out of step.  Told: addresses, as docs/dialects.md says it.
"""

import json
import os
import sys
import time
from typing import Any

from unicorn_binance_local_depth_cache import BinanceLocalDepthCacheManager
from unicorn_binance_rest_api import BinanceRestApiManager
from unicorn_binance_websocket_api import BinanceWebSocketApiManager

WITHIN_S = 40
KINDS = ["aggTrade", "kline_1m", "ticker"], ["depth"]
"""USD-M has two paths for them."""


def main(venue: str, address: str) -> dict[str, Any]:
    exchange = "binance.com" if venue == "binance" else "binance.com-futures"
    BinanceRestApiManager.API_URL = f"http://{address}/{venue}/api"
    BinanceRestApiManager.FUTURES_URL = f"http://{address}/{venue}/fapi"
    rest = BinanceRestApiManager(tld="com", warn_on_update=False)
    uri = f"ws://{address}/{venue}/"
    return {"events": streams(exchange, uri), **depth_cache(exchange, uri, rest)}


def streams(exchange: str, uri: str) -> list[str]:
    manager = BinanceWebSocketApiManager(
        exchange=exchange, websocket_base_uri=uri, output_default="dict", warn_on_update=False
    )
    for kinds in KINDS:
        manager.create_stream(kinds, ["btcusdt", "ethusdt"])
    seen: set[tuple[str, str]] = set()
    while len(seen) < 2 * sum(map(len, KINDS)):
        message = manager.pop_stream_data_from_stream_buffer()
        if not message:
            time.sleep(0.02)
        elif "data" in message:
            seen.add((message["data"]["e"], message["data"]["s"]))
        elif "error" in message:
            raise RuntimeError(str(message))
    manager.stop_manager()
    return sorted({kind for kind, _ in seen})


def depth_cache(exchange: str, uri: str, rest: BinanceRestApiManager) -> dict[str, Any]:
    manager = BinanceLocalDepthCacheManager(
        exchange=exchange, ubra_manager=rest, warn_on_update=False
    )
    manager.ubwa.websocket_base_uri = uri
    manager.create_depthcache("BTCUSDT")
    while not manager.is_depth_cache_synchronized("BTCUSDT"):
        time.sleep(0.05)
    first = manager.depth_caches["btcusdt"]["last_update_id"]
    steps = 0
    while steps < 10:
        now = manager.depth_caches["btcusdt"]["last_update_id"]
        steps, first = (steps + 1, now) if now != first else (steps, first)
        assert manager.is_depth_cache_synchronized("BTCUSDT"), "it fell out of step"
        time.sleep(0.01)
    bids, asks = (side("BTCUSDT", limit_count=2) for side in (manager.get_bids, manager.get_asks))
    return {"bid": bids[0][0], "ask": asks[0][0], "levels": len(manager.get_bids("BTCUSDT"))}


if __name__ == "__main__":
    import threading

    overdue = threading.Timer(WITHIN_S, lambda: os._exit(2))
    overdue.daemon = True
    overdue.start()
    print(json.dumps(main(*sys.argv[1:])), flush=True)
    os._exit(0)  # their threads would wait
