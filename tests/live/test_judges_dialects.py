"""Clients that this project did not write speak to us as to their exchange, told one URL only.

The service runs in a process of its own with a simulated exchange behind it.  Run by
``scripts/judges``, which installs the clients; without them every test here is skipped.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.judges import judge, run

from trio_feed.simulator.binance.accounts import API_KEY, SECRET

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
ROOT = Path(__file__).parent.parent.parent
VENUES = ("binance", "binance_usdm")
PASSED = {
    "binance": [
        "GET /api/v3/account",
        "POST /api/v3/order",
        "GET /api/v3/openOrders",
        "WS /ws-api/v3",
    ],
    "binance_usdm": ["GET /fapi/v2/account", "GET /fapi/v3/account", "POST /fapi/v1/order"],
}


@contextmanager
def served(venue: str, tmp_path: Path) -> Iterator[str]:
    """host:port of a service with this venue simulated."""
    channels = ["kline", "trade", "ticker", "book"]
    if venue == "binance_usdm":
        channels.append("mark_price")
    table = f"exchanges.{venue}"
    settings = (
        "simulator.enabled=true",
        f"simulator.venue={venue}",
        "simulator.trades_per_minute=600",
        "simulator.symbols=['BTCUSDT','ETHUSDT']",
        f"{table}.symbols=['BTCUSDT','ETHUSDT']",
        f"{table}.intervals=['1m','5m','1h']",
        f"{table}.channels={json.dumps(channels)}",
        f"{table}.book_levels=1000",
        f"dialects.{venue}.simulated_ok=true",
        f"dialects.{venue}.passthrough={json.dumps(PASSED[venue])}",
        "server.port=0",
        "store.path=:memory:",
        "logging.format=json",
    )
    words = [word for each in settings for word in ("--set", each)]
    command = [sys.executable, "-m", "trio_feed", *words]
    with subprocess.Popen(command, cwd=tmp_path, env=_environ(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            lines = map(json.loads, process.stdout)
            ready = next(line for line in lines if line["event"] == "service.ready")
            next(line for line in lines if line["event"] == "book.synced")
            address = ready["urls"]["http"].removeprefix("http://")
            question = "api/v1/klines?symbol=BTCUSDT&interval=1m&limit=500"
            while len(_asked(f"http://{address}/{question}")["data"]) < 500:
                time.sleep(0.05)
            yield address
        finally:
            process.kill()


def _asked(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


# --- ccxt -----------------------------------------------------------------------------------------


def ccxt_client(venue: str, address: str) -> tuple[Any, str]:
    """As docs/dialects.md says it."""
    pro = judge("ccxt.pro")
    base = f"{address}/{venue}"
    if venue == "binance":
        urls = {"public": f"http://{base}/api/v3", "ws": {"spot": f"ws://{base}/ws/stream"}}
        options = {"fetchMarkets": {"types": ["spot"]}}
        told = {"urls": {"api": urls}, "options": options, "enableRateLimit": False}
        return pro.binance(told), "BTC/USDT"
    urls = {
        "fapiPublic": f"http://{base}/fapi/v1",
        "fapiPublicV2": f"http://{base}/fapi/v2",
        "ws": {"linear": f"ws://{base}/ws", "future": f"ws://{base}/ws"},
    }
    options = {"fetchMarkets": {"types": ["linear"]}}
    told = {"urls": {"api": urls}, "options": options, "enableRateLimit": False}
    return pro.binanceusdm(told), "BTC/USDT:USDT"


async def eventually(ask: Any, *words: Any) -> Any:
    """Its answer once there is one: tickers come every 2 s."""
    while True:
        try:
            return await ask(*words)
        except judge("ccxt").OperationFailed:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_rest(venue: str, tmp_path: Path) -> None:
    judge("ccxt.pro")

    async def main() -> None:
        client, symbol = ccxt_client(venue, address)
        try:
            markets = await client.load_markets()
            assert markets[symbol]["precision"]["price"] > 0
            rows = await client.fetch_ohlcv(symbol, "1m", limit=100)
            assert {b[0] - a[0] for a, b in pairwise(rows)} == {60_000}
            since = rows[10][0]
            page = await client.fetch_ohlcv(symbol, "1m", since=since, limit=20)
            assert [row[0] for row in page] == [row[0] for row in rows[10:30]]
            since = rows[-1][0] - 249 * 60_000
            pages = {"paginate": True, "paginationCalls": 3, "maxEntriesPerRequest": 100}
            paged = await client.fetch_ohlcv(symbol, "1m", since=since, limit=250, params=pages)
            assert [row[0] for row in paged] == [since + n * 60_000 for n in range(250)]
            book = await client.fetch_order_book(symbol, limit=100)
            assert book["bids"][0][0] < book["asks"][0][0]
            assert len(await client.fetch_trades(symbol, limit=5))
            ticker = await eventually(client.fetch_ticker, symbol)
            assert ticker["low"] <= ticker["last"] <= ticker["high"]
            with pytest.raises(judge("ccxt").BadSymbol):
                await client.fetch_ohlcv("XYZ/USDT")
        finally:
            await client.close()

    with served(venue, tmp_path) as address:
        run(main)


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_pro(venue: str, tmp_path: Path) -> None:
    judge("ccxt.pro")

    async def main() -> None:
        client, symbol = ccxt_client(venue, address)
        try:
            await client.load_markets()
            await asyncio.gather(
                *(watch(client, symbol) for watch in (candles, trades, books, day, days))
            )
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
        assert seen == sorted(set(seen))

    async def books(client: Any, symbol: str) -> None:
        """It checks the ids of every update itself and raises where they do not follow."""
        for _ in range(30):
            book = await client.watch_order_book(symbol, 1000)
            assert book["bids"][0][0] < book["asks"][0][0]

    async def days(client: Any, symbol: str) -> None:
        """All that are fed, and those named."""
        named = [symbol, symbol.replace("BTC", "ETH")]
        for asked in (None, named):
            seen: set[str] = set()
            while not seen.issuperset(named):
                seen |= (await client.watch_tickers(asked)).keys()

    async def day(client: Any, symbol: str) -> None:
        ticker = await client.watch_ticker(symbol)
        assert ticker["low"] <= ticker["last"] <= ticker["high"]

    with served(venue, tmp_path) as address:
        run(main)


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_signed(venue: str, tmp_path: Path) -> None:
    """Balance and an order, signed by ccxt, through us to the simulated exchange."""
    judge("ccxt.pro")

    async def main() -> None:
        client, symbol = ccxt_client(venue, address)
        api = client.urls["api"]
        base = f"http://{address}/{venue}"
        if venue == "binance":
            api["private"] = f"{base}/api/v3"
        else:
            for version in ("", "V2", "V3"):
                number = version.lower() or "v1"
                api[f"fapiPrivate{version}"] = f"{base}/fapi/{number}"
        client.apiKey, client.secret = API_KEY, SECRET
        client.has["fetchCurrencies"] = False  # these ask endpoints that are not passed on
        client.options["fetchMargins"] = False
        try:
            await client.load_markets()
            balance = await client.fetch_balance()
            assert balance["USDT"]["total"] == 1000
            order = await client.create_order(symbol, "market", "buy", 1)
            assert order["status"] == "closed"
            client.secret = "wrong"
            with pytest.raises(judge("ccxt").AuthenticationError):
                await client.create_order(symbol, "market", "buy", 1)
        finally:
            await client.close()

    with served(venue, tmp_path) as address:
        run(main)


def test_python_binance_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge("binance")

    async def main() -> None:
        binance = judge("binance")
        monkeypatch.setattr(binance.AsyncClient, "API_URL", f"http://{address}/binance/api")
        client = binance.AsyncClient(API_KEY, SECRET)
        try:
            account = await client.get_account()
            assert account["balances"][0]["asset"] == "USDT"
            order = await client.create_order(
                symbol="BTCUSDT", side="BUY", type="MARKET", quantity=1
            )
            assert order["status"] == "FILLED"
            with pytest.raises(judge("binance.exceptions").BinanceAPIException) as refused:
                await client.get_my_trades(symbol="BTCUSDT")  # is not passed on
            assert refused.value.code == -1020
        finally:
            await client.close_connection()

    with served("binance", tmp_path) as address:
        run(main)


# --- python-binance -------------------------------------------------------------------------------


async def first(socket: Any, count: int = 3) -> list[Any]:
    async with socket as opened:
        rows = [await opened.recv() for _ in range(count)]
        return [row.get("data", row) for row in rows]


@pytest.mark.parametrize("venue", VENUES)
def test_python_binance(venue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge("binance")

    async def main() -> None:
        binance = judge("binance")
        base = f"{address}/{venue}"
        spot = venue == "binance"
        asynchronous, manager = binance.AsyncClient, binance.BinanceSocketManager
        if spot:
            monkeypatch.setattr(asynchronous, "API_URL", f"http://{base}/api")
            monkeypatch.setattr(manager, "STREAM_URL", f"ws://{base}/")
        else:
            monkeypatch.setattr(asynchronous, "API_URL", f"http://{base}/api")
            monkeypatch.setattr(asynchronous, "FUTURES_URL", f"http://{base}/fapi")
            monkeypatch.setattr(manager, "FSTREAM_URL", f"ws://{base}/")
        client = await asynchronous.create()  # asks ping and time of spot's API, here as well
        sockets = manager(client)
        try:
            if spot:
                assert len(await client.get_klines(symbol="BTCUSDT", interval="1m")) == 500
                got = await asyncio.gather(
                    first(sockets.kline_socket("BTCUSDT", interval="1m")),
                    first(sockets.trade_socket("BTCUSDT")),
                    first(sockets.symbol_ticker_socket("BTCUSDT"), 1),
                )
                assert [rows[0]["e"] for rows in got] == ["kline", "trade", "24hrTicker"]
                await depth_cache(
                    binance.DepthCacheManager(client, "BTCUSDT", bm=sockets, limit=1000)
                )
            else:
                assert len(await client.futures_klines(symbol="BTCUSDT", interval="1m")) == 500
                got = await asyncio.gather(
                    first(sockets.kline_futures_socket("BTCUSDT")),
                    first(sockets.aggtrade_futures_socket("BTCUSDT")),
                    first(sockets.symbol_mark_price_socket("BTCUSDT"), 1),
                )
                kinds = [rows[0]["e"] for rows in got]
                assert kinds == ["continuous_kline", "aggTrade", "markPriceUpdate"]
                await depth_cache(
                    binance.FuturesDepthCacheManager(client, "BTCUSDT", bm=sockets, limit=10)
                )
        finally:
            await client.close_connection()

    async def depth_cache(manager: Any) -> None:
        """It keeps a book by the documented rules; that of futures gets ten levels each time."""
        async with manager as open_cache:
            for _ in range(5):
                cache = await open_cache.recv()
                assert cache.get_bids()[0][0] < cache.get_asks()[0][0]

    with served(venue, tmp_path) as address:
        run(main)
