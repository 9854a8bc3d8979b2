"""Clients that this project did not write ask for a symbol that nobody configured.

The service runs in a process of its own with a simulated exchange behind it, and no symbol is named
in its settings.  Run by ``scripts/judges``, which installs the clients; without them every test
here is skipped.
"""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.judges import judge, run
from support.turned import VENUES, turned_on_demand
from test_judges_dialects import ccxt_client, counted, first

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_rest_gets_all_candles_at_once(venue: str, tmp_path: Path) -> None:
    judge("ccxt.pro")

    async def main() -> None:
        client, _ = ccxt_client(venue, address)
        symbol = "ETH/USDT" if venue == "binance" else "ETH/USDT:USDT"
        try:
            assert symbol in await client.load_markets()
            rows = await client.fetch_ohlcv(symbol, "1m", limit=500)
            assert len(rows) == 500
            assert {b[0] - a[0] for a, b in pairwise(rows)} == {60_000}
            book = await client.fetch_order_book(symbol, limit=100)
            assert book["bids"][0][0] < book["asks"][0][0]
            ticker = await client.fetch_ticker(symbol)
            assert ticker["low"] <= ticker["last"] <= ticker["high"]
            assert len(await client.fetch_trades(symbol, limit=1))
        finally:
            await client.close()

    with turned_on_demand(venue, tmp_path) as address:
        run(main)


@pytest.mark.parametrize("venue", VENUES)
def test_ccxt_pro_watches_what_nobody_configured(venue: str, tmp_path: Path) -> None:
    judge("ccxt.pro")

    async def main() -> None:
        client, _ = ccxt_client(venue, address)
        symbol = "SOL/USDT" if venue == "binance" else "SOL/USDT:USDT"
        try:
            await client.load_markets()
            await asyncio.gather(candles(client, symbol), trades(client, symbol))
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

    with turned_on_demand(venue, tmp_path) as address:
        run(main)


def test_python_binance_keeps_a_book_of_what_nobody_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge("binance")

    async def main() -> None:
        binance = judge("binance")
        asynchronous, manager = binance.AsyncClient, binance.BinanceSocketManager
        monkeypatch.setattr(asynchronous, "API_URL", f"http://{address}/binance/api")
        monkeypatch.setattr(manager, "STREAM_URL", f"ws://{address}/binance/")
        client = asynchronous()
        sockets = manager(client)
        try:
            rows = await first(sockets.kline_socket("ETHUSDT", interval="1m"))
            assert [row["s"] for row in rows] == ["ETHUSDT"] * 3
            assert len(await client.get_klines(symbol="ETHUSDT", interval="1m")) == 500
            snapshots = counted(monkeypatch, client, "get_order_book")
            async with binance.DepthCacheManager(client, "SOLUSDT", bm=sockets, limit=1000) as own:
                for _ in range(40):
                    cache = await own.recv()
                    assert cache.get_bids()[0][0] < cache.get_asks()[0][0]
            assert len(snapshots) == 1  # its first: the ids followed
            with pytest.raises(binance.exceptions.BinanceAPIException, match="Invalid symbol"):
                await client.get_klines(symbol="NOPEUSDT", interval="1m")
        finally:
            await client.close_connection()

    with turned_on_demand("binance", tmp_path) as address:
        run(main)
