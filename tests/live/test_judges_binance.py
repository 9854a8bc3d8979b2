"""Clients that this project did not write use the Binance boxes and find nothing to complain about.

Run by ``scripts/judges``, which installs them; without them every test here is skipped.  Real
sockets on loopback, real clock.  Where a judge has to be told an address, that is said; nothing
else of it is changed.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from support.judges import TRADES_PER_MINUTE, binance_box, judge, run, trusted_tls

__all__ = ["trusted_tls"]
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
VENUES = ("binance", "binance_usdm")


# --- ccxt -----------------------------------------------------------------------------------------


def ccxt_client(venue: str, address: str) -> tuple[Any, str]:
    """Told: REST and WebSocket addresses, and to load this market only."""
    pro = judge("ccxt.pro")
    spot = venue == "binance"
    client = (pro.binance if spot else pro.binanceusdm)({"enableRateLimit": False})
    client.options["fetchMarkets"] = {"types": ["spot" if spot else "linear"]}
    client.urls["api"] |= {
        "public": f"http://{address}/api/v3",
        "fapiPublic": f"http://{address}/fapi/v1",
    }
    client.urls["api"]["ws"] |= {"spot": f"ws://{address}/ws", "future": f"ws://{address}/ws"}
    return client, "BTC/USDT" if spot else "BTC/USDT:USDT"


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_rest(venue: str) -> None:
    async def main() -> None:
        client, symbol = ccxt_client(venue, served.address)
        try:
            markets = await client.load_markets()
            assert markets[symbol]["precision"] == {
                **markets[symbol]["precision"], "price": 0.1, "amount": 0.001
            }  # fmt: skip
            candles = await client.fetch_ohlcv(symbol, "1m", limit=100)
            assert {b[0] - a[0] for a, b in pairwise(candles)} == {60_000}
            book = await client.fetch_order_book(symbol, limit=1000)
            assert len(book["bids"]) == len(book["asks"]) == 1000
            assert book["bids"][0][0] < book["asks"][0][0]
            trades = await client.fetch_trades(symbol, limit=50)
            assert len(trades) == 50
            ticker = await client.fetch_ticker(symbol)
            assert ticker["low"] <= ticker["last"] <= ticker["high"]
            assert ticker["close"] == pytest.approx(candles[-1][4], rel=0.01)
        finally:
            await client.close()

    with binance_box(venue) as served:
        run(main)


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_pro(venue: str) -> None:
    async def main() -> None:
        client, symbol = ccxt_client(venue, served.address)
        try:
            await client.load_markets()
            await asyncio.gather(
                *(watch(client, symbol) for watch in (candles, trades, books, day))
            )
            assert venue == "binance" or {u.split("/")[3] for u in client.clients} == {
                "public", "market"
            }  # fmt: skip
        finally:
            await client.close()

    async def candles(client: Any, symbol: str) -> None:
        for _ in range(3):
            rows = await client.watch_ohlcv(symbol, "1m")
        assert rows[-1][3] <= rows[-1][4] <= rows[-1][2]

    async def trades(client: Any, symbol: str) -> None:
        seen: list[int] = []
        while len(seen) < 20:
            seen += [int(t["id"]) for t in await client.watch_trades(symbol)]
        assert sorted(set(seen)) == list(range(min(seen), max(seen) + 1))

    async def books(client: Any, symbol: str) -> None:
        """It checks the ids of every update itself and raises where they do not follow."""
        for _ in range(30):
            book = await client.watch_order_book(symbol, 1000)
            assert book["bids"][0][0] < book["asks"][0][0]

    async def day(client: Any, symbol: str) -> None:
        ticker = await client.watch_ticker(symbol)
        assert ticker["low"] <= ticker["last"] <= ticker["high"]

    with binance_box(venue) as served:
        run(main)


# --- python-binance -------------------------------------------------------------------------------


async def python_binance(address: str) -> tuple[Any, Any]:
    """Told: REST and WebSocket addresses."""
    binance = judge("binance")
    client = binance.AsyncClient()
    client.API_URL, client.FUTURES_URL = f"http://{address}/api", f"http://{address}/fapi"
    sockets = binance.BinanceSocketManager(client)
    sockets.STREAM_URL = sockets.FSTREAM_URL = f"ws://{address}/"
    return client, sockets


async def first(socket: Any, count: int = 3) -> list[Any]:
    """The first messages of a python-binance socket, out of their envelopes."""
    async with socket as open_socket:
        messages = [await open_socket.recv() for _ in range(count)]
    assert not any(m.get("e") == "error" for m in messages), messages
    return [m.get("data", m) for m in messages]


def test_python_binance_spot() -> None:
    async def main() -> None:
        client, sockets = await python_binance(served.address)
        try:
            assert await client.ping() == {}
            assert (await client.get_symbol_info("BTCUSDT"))["permissionSets"] == [["SPOT"]]
            assert len(await client.get_klines(symbol="BTCUSDT", interval="1s", limit=1000)) == 1000
            assert len(await client.get_recent_trades(symbol="BTCUSDT")) == 500
            assert len((await client.get_order_book(symbol="BTCUSDT"))["bids"]) == 100
            assert (await client.get_orderbook_ticker(symbol="BTCUSDT"))["symbol"] == "BTCUSDT"
            assert (await client.get_ticker(symbol="BTCUSDT"))["count"] >= TRADES_PER_MINUTE * 1440
            got = await asyncio.gather(
                first(sockets.kline_socket("BTCUSDT"), 2),
                first(sockets.aggtrade_socket("BTCUSDT")),
                first(sockets.trade_socket("BTCUSDT")),
                first(sockets.symbol_ticker_socket("BTCUSDT")),
                first(sockets.depth_socket("BTCUSDT", depth="20")),
                first(sockets.multiplex_socket(["btcusdt@bookTicker", "ethusdt@miniTicker"]), 5),
            )
            assert [rows[0].get("e") for rows in got[:4]] == [
                "kline", "aggTrade", "trade", "24hrTicker"
            ]  # fmt: skip
            await depth_cache(client, sockets)
        finally:
            await client.close_connection()

    async def depth_cache(client: Any, sockets: Any) -> None:
        """It keeps a book by the documented rules."""
        manager = judge("binance").DepthCacheManager
        async with manager(
            client, "BTCUSDT", bm=sockets, ws_interval=100, limit=1000
        ) as open_cache:
            for _ in range(5):
                cache = await open_cache.recv()
                assert cache.get_bids()[0][0] < cache.get_asks()[0][0]

    with binance_box("binance") as served:
        run(main)


def test_python_binance_futures() -> None:
    async def main() -> None:
        client, sockets = await python_binance(served.address)
        try:
            assert len((await client.futures_exchange_info())["symbols"]) == 2
            assert len(await client.futures_klines(symbol="BTCUSDT", interval="1m")) == 500
            assert (
                len((await client.futures_order_book(symbol="BTCUSDT", limit=1000))["asks"]) == 1000
            )
            assert (await client.futures_mark_price(symbol="BTCUSDT"))["symbol"] == "BTCUSDT"
            got = await asyncio.gather(
                first(sockets.kline_futures_socket("BTCUSDT")),
                first(sockets.aggtrade_futures_socket("BTCUSDT")),
                first(sockets.futures_depth_socket("BTCUSDT")),
                first(sockets.symbol_mark_price_socket("BTCUSDT")),
                first(sockets.individual_symbol_ticker_futures_socket("BTCUSDT"), 2),
                first(sockets.symbol_ticker_futures_socket("BTCUSDT")),
            )
            assert [rows[0]["e"] for rows in got] == [
                "continuous_kline", "aggTrade", "depthUpdate", "markPriceUpdate", "24hrTicker",
                "bookTicker",
            ]  # fmt: skip
        finally:
            await client.close_connection()

    with binance_box("binance_usdm") as served:
        run(main)


# --- cryptofeed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", VENUES)
def test_cryptofeed(
    venue: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trusted_tls: ssl.SSLContext,
) -> None:
    """Told: addresses, and a CA, for its WebSocket speaks TLS only.  It checks the ids of every
    book update itself and says so in its log where they do not follow."""
    cryptofeed = judge("cryptofeed")
    seen: dict[str, list[Any]] = {"l2_book": [], "trades": [], "ticker": [], "candles": []}
    enough = {"l2_book": 30, "trades": 30, "ticker": 5, "candles": 2}

    async def main() -> None:
        handler = cryptofeed.FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
        for feed in cryptofeed_feeds(venue, f"wss://{served.tls_address}", seen):
            handler.add_feed(feed)
        handler.run(start_loop=False, install_signal_handlers=False)
        while any(len(seen[name]) < count for name, count in enough.items()):
            await asyncio.sleep(0.05)
        for running in handler.feeds:
            running.stop()
            await running.shutdown()

    with binance_box(venue, tls=trusted_tls) as served:
        rest = cryptofeed_class(venue).rest_endpoints[0]
        monkeypatch.setattr(rest, "address", f"http://{served.address}")
        run(main)
    ids = [trade.raw["a"] for trade in seen["trades"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(seen["l2_book"][-1].book["bid"]) > 900
    assert "Missing book update" not in caplog.text


def cryptofeed_class(venue: str) -> Any:
    exchanges = judge("cryptofeed.exchanges")
    return exchanges.Binance if venue == "binance" else exchanges.BinanceFutures


def cryptofeed_feeds(venue: str, url: str, seen: dict[str, list[Any]]) -> list[Any]:
    """It does not know USD-M's ``/public`` and ``/market`` (2.4.1): at its own address trades and
    candles would be silent, so each of its channels is given its path."""
    endpoint = judge("cryptofeed.connection").WebsocketEndpoint
    feed, symbol, split = cryptofeed_class(venue), "BTC-USDT", {"": [*seen]}
    if venue == "binance_usdm":
        symbol += "-PERP"
        split = {"/public": ["l2_book", "ticker"], "/market": ["trades", "candles"]}

    def keep(channel: str) -> Callable[[Any, float], Awaitable[None]]:
        async def callback(value: Any, _received: float) -> None:
            seen[channel].append(value)

        return callback

    return [
        type(feed.__name__, (feed,), {"websocket_endpoints": [endpoint(url + path)]})(
            symbols=[symbol],
            channels=names,
            callbacks={name: keep(name) for name in names},
            candle_closed_only=False,
            max_depth=1000,
        )
        for path, names in split.items()
    ]
