"""The clients of scripts/bench_faults, each as its manual shows it, each a process of its own.

    python scripts/bench_clients.py NAME HOST:PORT TLS-HOST:PORT

follows the trades and the 1s candles of BTCUSDT at Binance spot, and prints, a line each, for ever,
the id of each trade and ``k OPEN_MS CLOSE VOLUME`` of each candle as they are handed to the user.
Told are addresses (cryptofeed's WebSocket speaks TLS only; it trusts SSL_CERT_FILE) and nothing
else: deadlines, retries and queues are what the library ships with.  Where a library raises, its
user asks again, as its examples do.  An address with a path is that of trio_feed's dialect.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn


def told(trade_id: Any) -> None:
    sys.stdout.write(f"{trade_id}\n")
    sys.stdout.flush()


def candle(open_ms: Any, close: Any, volume: Any) -> None:
    sys.stdout.write(f"k {int(open_ms)} {close} {volume}\n")
    sys.stdout.flush()


def event(message: Any) -> None:
    """One of a stream."""
    if message.get("e") == "aggTrade":
        told(message["a"])
    elif message.get("e") == "kline":
        candle(message["k"]["t"], message["k"]["c"], message["k"]["v"])
    else:
        complain(message)


def ccxt(address: str, _tls: str) -> NoReturn:
    import ccxt.pro as pro

    async def main() -> NoReturn:
        client = pro.binance({"enableRateLimit": False})
        client.options["fetchMarkets"] = {"types": ["spot"]}
        # What comes at once after an outage: of more than 1000 trades it forgets the older ones.
        client.options["tradesLimit"] = 100_000
        client.urls["api"]["public"] = f"http://{address}/api/v3"
        behind = "/stream" if "/" in address else ""
        client.urls["api"]["ws"]["spot"] = f"ws://{address}/ws{behind}"
        await client.load_markets()

        async def trades() -> None:
            for trade in await client.watch_trades("BTC/USDT"):
                told(trade["id"])

        async def candles() -> None:
            for row in await client.watch_ohlcv("BTC/USDT", "1s"):
                candle(row[0], row[4], row[5])

        async def forever(watch: Callable[[], Awaitable[None]]) -> NoReturn:
            while True:
                try:
                    await watch()
                except pro.NetworkError as error:
                    complain(error)

        await asyncio.gather(forever(trades), forever(candles))
        raise AssertionError

    asyncio.run(main())
    raise AssertionError


def python_binance(address: str, _tls: str) -> NoReturn:
    import binance

    async def main() -> NoReturn:
        client = binance.AsyncClient()
        client.API_URL = f"http://{address}/api"
        sockets = binance.BinanceSocketManager(client)
        sockets.STREAM_URL = f"ws://{address}/"

        async def forever(open_socket: Callable[[], Any]) -> NoReturn:
            while True:
                try:
                    async with open_socket() as socket:
                        while True:
                            event(await socket.recv())
                except (OSError, binance.exceptions.BinanceWebsocketUnableToConnect) as error:
                    complain(error)
                    await asyncio.sleep(1)

        await asyncio.gather(
            forever(lambda: sockets.aggtrade_socket("BTCUSDT")),
            forever(lambda: sockets.kline_socket("BTCUSDT", "1s")),
        )
        raise AssertionError

    asyncio.run(main())
    raise AssertionError


def cryptofeed(address: str, tls: str) -> NoReturn:
    from cryptofeed import FeedHandler
    from cryptofeed.connection import WebsocketEndpoint
    from cryptofeed.exchanges import Binance

    async def on_trade(trade: Any, _received: float) -> None:
        told(trade.raw["a"])

    Binance.rest_endpoints[0].address = f"{'https' if address == tls else 'http'}://{address}"
    Binance.websocket_endpoints = [WebsocketEndpoint(f"wss://{tls}")]
    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
    handler.add_feed(
        Binance(symbols=["BTC-USDT"], channels=["trades"], callbacks={"trades": on_trade})
    )
    handler.run()
    raise AssertionError


def unicorn(address: str, _tls: str) -> NoReturn:
    from unicorn_binance_websocket_api import BinanceWebSocketApiManager

    manager = BinanceWebSocketApiManager(
        exchange="binance.com",
        websocket_base_uri=f"ws://{address}/",
        restful_base_uri=f"http://{address}/",
        warn_on_update=False,
        disable_colorama=True,
        output_default="dict",
    )
    manager.create_stream(["aggTrade", "kline_1s"], ["btcusdt"])
    while True:
        message = manager.pop_stream_data_from_stream_buffer()
        if not message:
            time.sleep(0.002)
        elif "data" in message:
            event(message["data"])


def ours(address: str, _tls: str) -> NoReturn:
    import trio

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from trio_feed import client

    async def main() -> None:
        async with client.open_client(f"ws://{address}/ws") as connection:
            await connection.subscribe("BTCUSDT", channel="trade")
            await connection.subscribe("BTCUSDT", "1s", history=0)
            async for message in connection:
                match message:
                    case client.TradeUpdate(trade=trade):
                        for number in range(trade.first_id, trade.last_id + 1):
                            told(number)
                    case client.CandleUpdate(kline=kline):
                        candle(kline.open_ms, kline.close, kline.volume)
                    case client.ConnectionChange():
                        complain(message)

    trio.run(main)
    raise AssertionError


def complain(problem: object) -> None:
    print(str(problem)[:200], file=sys.stderr, flush=True)


CLIENTS: dict[str, tuple[str, Callable[[str, str], NoReturn]]] = {
    "ccxt": ("ccxt", ccxt),
    "cryptofeed": ("cryptofeed", cryptofeed),
    "python-binance": ("python-binance", python_binance),
    "unicorn-binance-websocket-api": ("unicorn-binance-websocket-api", unicorn),
}
"""By name: the distribution, and the program."""
OURS = "trio_feed"
"""The client of our own push endpoint."""


WITHOUT_SECONDS = {"cryptofeed"}
"""They know no 1s candles."""


def installed(name: str) -> str:
    """Its version; empty: it is not here."""
    try:
        return version(CLIENTS[name][0])
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    found = ours if sys.argv[1] == OURS else CLIENTS[sys.argv[1]][1]
    found(*sys.argv[2:4])
