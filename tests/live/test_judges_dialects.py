"""Clients that this project did not write speak to us as to their exchange, told one URL only.

The service runs in a process of its own with a simulated exchange behind it.  Run by
``scripts/judges``, which installs the clients; without them every test here is skipped.
"""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.judges import judge, run
from support.turned import VENUES, documented, passed_on, turned

from trio_feed.simulator.binance.accounts import API_KEY, SECRET

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


# --- ccxt -----------------------------------------------------------------------------------------


SYMBOL = {"binance": "BTC/USDT", "binance_usdm": "BTC/USDT:USDT"}


def ccxt_client(venue: str, address: str) -> tuple[Any, str]:
    """As docs/dialects.md says it."""
    pro = judge("ccxt.pro")
    spot = venue == "binance"
    name = "binance" if spot else "binanceusdm"
    told = documented(f"ccxt, ccxt.pro `{name}`", address)
    return getattr(pro, name)({**told, "enableRateLimit": False}), SYMBOL[venue]


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
            assert (await client.fetch_last_prices([symbol]))[symbol]["price"] > 0
            if venue == "binance_usdm":
                await derivatives(client, symbol)
            with pytest.raises(judge("ccxt").BadSymbol):
                await client.fetch_ohlcv("XYZ/USDT")
        finally:
            await client.close()

    async def derivatives(client: Any, symbol: str) -> None:
        """What a future has besides."""
        assert (await eventually(client.fetch_funding_rate, symbol))["fundingRate"]
        assert (await client.fetch_open_interest(symbol))["openInterestAmount"] > 0
        past = await client.fetch_funding_rate_history(symbol, limit=5)
        eight_hours = 8 * 3_600_000
        assert {b["timestamp"] - a["timestamp"] for a, b in pairwise(past)} == {eight_hours}
        rows = await client.fetch_ohlcv(symbol, "1h", limit=5, params={"price": "mark"})
        assert {b[0] - a[0] for a, b in pairwise(rows)} == {3_600_000}

    with turned(venue, tmp_path) as address:
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

    with turned(venue, tmp_path) as address:
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

    with turned(venue, tmp_path, passed_on(venue)) as address:
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

    with turned("binance", tmp_path, passed_on("binance")) as address:
        run(main)


# --- python-binance -------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch, client: Any, name: str) -> list[Any]:
    """What a method of the client is called with, from now on."""
    calls: list[Any] = []
    method = getattr(client, name)

    def noted(**words: Any) -> Any:
        calls.append(words)
        return method(**words)

    monkeypatch.setattr(client, name, noted)
    return calls


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
        """It keeps a book by the documented rules, and takes another snapshot where the ids do not
        follow; that of futures gets ten levels each time."""
        snapshots = counted(monkeypatch, manager._client, "get_order_book")
        async with manager as open_cache:
            for _ in range(40):
                cache = await open_cache.recv()
                assert cache.get_bids()[0][0] < cache.get_asks()[0][0]
        assert len(snapshots) == (venue == "binance")

    with turned(venue, tmp_path) as address:
        run(main)
