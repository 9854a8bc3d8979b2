"""Clients that this project did not write ask for a symbol that nobody configured.

The service runs in a process of its own with a simulated exchange behind it, and no symbol is named
in its settings.  Run by ``scripts/judges``, which installs the clients; without them every test
here is skipped.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.judges import judge, run
from test_judges_dialects import VENUES, _environ, ccxt_client, first

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@contextmanager
def serving(venue: str, tmp_path: Path) -> Iterator[str]:
    """host:port of a service that feeds nothing yet."""
    table = f"exchanges.{venue}"
    settings = (
        "simulator.enabled=true",
        f"simulator.venue={venue}",
        "simulator.trades_per_minute=600",
        "simulator.symbols=['BTCUSDT','ETHUSDT','SOLUSDT']",
        f"{table}.symbols=on_demand",
        f"{table}.intervals=['1m','5m','1h']",
        f"{table}.channels=['kline','trade','ticker','book']",
        f"{table}.book_levels=1000",
        f"dialects.{venue}.simulated_ok=true",
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
            yield ready["urls"]["http"].removeprefix("http://")
        finally:
            process.kill()


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

    with serving(venue, tmp_path) as address:
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

    with serving(venue, tmp_path) as address:
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
            async with binance.DepthCacheManager(client, "SOLUSDT", bm=sockets, limit=1000) as own:
                for _ in range(5):
                    cache = await own.recv()
                    assert cache.get_bids()[0][0] < cache.get_asks()[0][0]
            with pytest.raises(binance.exceptions.BinanceAPIException, match="Invalid symbol"):
                await client.get_klines(symbol="NOPEUSDT", interval="1m")
        finally:
            await client.close_connection()

    with serving("binance", tmp_path) as address:
        run(main)
