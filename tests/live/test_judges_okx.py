"""Clients that this project did not write use the OKX box and find nothing to complain about.

Run by ``scripts/judges``, which installs them; without them every test here is skipped.  Real
sockets on loopback, real clock.  Where a judge has to be told an address, that is said; nothing
else of it is changed.
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from support.box import real_now_ms, running_box
from support.judges import judge, node_judge, run
from support.okx_box import BUSINESS, PUBLIC, running_okx
from support.turned import says

from trio_feed.settings import SimulatorSettings
from trio_feed.simulator import Market, okx_exchange
from trio_feed.simulator import serve as serve_exchange

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
CA = "ca.pem"


@contextmanager
def tls_okx(folder: Path) -> Iterator[str]:
    """The address of a box that speaks TLS only; whom to trust is in the folder's CA file."""
    authority = judge("trustme").CA()
    authority.cert_pem.write_to_path(str(folder / CA))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(*, listeners: Any, task_status: trio.TaskStatus[Any]) -> None:
        market = Market(7, ("BTCUSDT", "ETHUSDT"), 600)
        await serve_exchange(
            okx_exchange(market, real_now_ms, SimulatorSettings()),
            listeners=[trio.SSLListener(listener, context) for listener in listeners],
            task_status=task_status,
        )

    with running_box(serve) as box:
        yield box.address.replace("127.0.0.1", "localhost")


# --- ccxt -----------------------------------------------------------------------------------------


def ccxt_client(address: str) -> Any:
    """Told: REST and WebSocket addresses (its own are on port 443 already)."""
    client = judge("ccxt.pro").okx({"enableRateLimit": False})
    client.urls["api"] |= {"rest": f"http://{address}", "ws": f"ws://{address}/ws/v5"}
    return client


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT"])
def test_ccxt_rest(symbol: str) -> None:
    async def main() -> None:
        client = ccxt_client(address)
        try:
            markets = await client.load_markets()
            assert len(markets) == 6
            market = markets[symbol]
            assert market["active"]
            assert market["precision"]["price"] == 0.1
            assert (market["linear"], market["contractSize"]) in [(None, None), (True, 0.01)]
            for timeframe, apart in (("1m", 60_000), ("1d", 86_400_000)):
                candles = await client.fetch_ohlcv(symbol, timeframe, limit=300)
                assert len(candles) == 300
                assert {b[0] - a[0] for a, b in pairwise(candles)} == {apart}
            since = candles[0][0] - 300 * 86_400_000
            older = await client.fetch_ohlcv(symbol, "1d", since=since, limit=100)
            assert [row[0] for row in older] == [since + n * 86_400_000 for n in range(100)]
            book = await client.fetch_order_book(symbol, limit=400)
            assert len(book["bids"]) == len(book["asks"]) == 400
            assert book["bids"][0][0] < book["asks"][0][0]
            trades = await client.fetch_trades(symbol, limit=100)
            ids = [int(trade["id"]) for trade in trades]
            assert ids == list(range(ids[0], ids[0] + 100))
            ticker = await client.fetch_ticker(symbol)
            assert ticker["low"] <= ticker["last"] <= ticker["high"]
            assert await client.fetch_time()
        finally:
            await client.close()

    with running_okx() as box:
        address = box.address
        run(main)


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT"])
def test_ccxt_pro(symbol: str) -> None:
    async def main() -> None:
        client = ccxt_client(address)
        try:
            await client.load_markets()
            await asyncio.gather(*(watch(client) for watch in (candles, trades, books, tickers)))
            assert sorted(url.split("/")[-1] for url in client.clients) == ["business", "public"]
        finally:
            await client.close()

    async def candles(client: Any) -> None:
        for _ in range(3):
            rows = await client.watch_ohlcv(symbol, "1m")
        assert rows[-1][3] <= rows[-1][4] <= rows[-1][2]

    async def trades(client: Any) -> None:
        seen: list[int] = []
        while len(seen) < 20:
            seen += [int(trade["id"]) for trade in await client.watch_trades(symbol)]
        assert seen == sorted(seen)

    async def books(client: Any) -> None:
        """It checks the ids of every update itself and raises where they do not follow."""
        for _ in range(30):
            book = await client.watch_order_book(symbol)
            assert book["bids"][0][0] < book["asks"][0][0]
        assert len(book["bids"]) == len(book["asks"]) == 400

    async def tickers(client: Any) -> None:
        for watch in (client.watch_ticker, partial(client.watch_bids_asks, [symbol])):
            ticker = (
                await watch(symbol) if watch == client.watch_ticker else (await watch())[symbol]
            )
            assert ticker["bid"] < ticker["ask"]

    with running_okx() as box:
        address = box.address
        run(main)


def test_ccxt_sees_a_gap() -> None:
    """The lever breaks the chain: ccxt says so."""

    async def watch_many(client: Any) -> None:
        for _ in range(15):
            await client.watch_order_book("BTC/USDT")

    async def main() -> None:
        errors = judge("ccxt")
        client = ccxt_client(box.address)
        try:
            await watch_many(client)
            box.call(lambda: box.exchange.reset_books("BTC-USDT"))
            await watch_many(client)  # lower ids are no gap
            box.call(lambda: box.exchange.gap_books("BTC-USDT"))
            with pytest.raises(errors.InvalidNonce):
                await watch_many(client)
        finally:
            await client.close()

    with running_okx() as box:
        run(main)


# --- OKX's own ------------------------------------------------------------------------------------


def test_python_okx_rest() -> None:
    """Told: address."""
    market = judge("okx.MarketData")
    public = judge("okx.PublicData")

    def good(answer: Any) -> Any:
        assert (answer["code"], answer["msg"]) == ("0", ""), answer
        return answer["data"]

    with running_okx() as box:
        domain = f"http://{box.address}"
        with market.MarketAPI(flag="0", domain=domain) as client:
            assert len(good(client.get_candlesticks("BTC-USDT", bar="1m", limit="300"))) == 300
            rows = good(client.get_history_candlesticks("BTC-USDT-SWAP", bar="1Dutc"))
            assert {row[-1] for row in rows} == {"1"}
            (book,) = good(client.get_orderbook("ETH-USDT", sz="400"))
            assert len(book["bids"]) == 400
            assert len(good(client.get_tickers("SWAP"))) == 3
            (ticker,) = good(client.get_ticker("SOL-USDT"))
            assert ticker["instType"] == "SPOT"
            assert len(good(client.get_trades("BTC-USDT", limit="500"))) == 500
            newest = good(client.get_history_trades("BTC-USDT", limit="10"))
            older = good(client.get_history_trades("BTC-USDT", after=newest[-1]["tradeId"]))
            assert int(older[0]["tradeId"]) == int(newest[-1]["tradeId"]) - 1
            assert client.get_ticker("BTCUSDT")["code"] == "51001"
        with public.PublicAPI(flag="0", domain=domain) as client:
            assert len(good(client.get_instruments("SPOT"))) == 3
            assert good(client.get_system_time())[0]["ts"].isdigit()


def test_python_okx_websocket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told: address and whom to trust: it speaks TLS only, so here the box does too."""
    sockets = judge("okx.websocket.WsPublicAsync")
    factory = judge("okx.websocket.WebSocketFactory")
    monkeypatch.setattr(factory.certifi, "where", lambda: str(tmp_path / CA))
    wanted = {
        PUBLIC: {"tickers", "trades", "books", "books5", "bbo-tbt"},
        BUSINESS: {"candle1m", "candle1H", "trades-all"},
    }

    async def talk(path: str) -> None:
        client = sockets.WsPublicAsync(f"wss://{address}{path}")
        messages: list[Any] = []
        args = [{"channel": name, "instId": "BTC-USDT"} for name in wanted[path]]

        def channels(key: str) -> set[str]:
            return {m["arg"]["channel"] for m in messages if key in m and "arg" in m}

        await client.start()
        await client.subscribe(args, lambda text: messages.append(json.loads(text)), id="7")
        while channels("data") != wanted[path]:
            await asyncio.sleep(0.05)
        assert not any(m.get("event") == "error" for m in messages)
        await client.unsubscribe(args, lambda text: messages.append(json.loads(text)))
        while sum(m.get("event") == "unsubscribe" for m in messages) < len(args):
            await asyncio.sleep(0.05)
        await client.websocket.close()

    async def main() -> None:
        await asyncio.gather(*map(talk, wanted))

    with tls_okx(tmp_path) as address:
        run(main)


# --- cryptofeed -----------------------------------------------------------------------------------


def test_cryptofeed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told: addresses and whom to trust (it too wants TLS); and that candles are on
    ``/business`` (2.4.1 asks ``/public`` for them, so with its own paths there are none)."""
    cryptofeed = judge("cryptofeed")
    from cryptofeed.connection import WebsocketEndpoint
    from cryptofeed.defines import BID, CANDLES, L2_BOOK, TICKER, TRADES
    from cryptofeed.exchanges import OKX

    symbols = ("BTC-USDT", "ETH-USDT-PERP")
    enough = {L2_BOOK: 30, TRADES: 30, TICKER: 5, CANDLES: 3}
    seen: dict[str, list[Any]] = {name: [] for name in enough}

    def keep(channel: str) -> Callable[[Any, float], Awaitable[None]]:
        async def callback(value: Any, _received: float) -> None:
            seen[channel].append(value)

        return callback

    async def main() -> None:
        handler = cryptofeed.FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
        feed = OKX(
            symbols=[*symbols], channels=[*seen], callbacks={name: keep(name) for name in seen},
            candle_closed_only=False,
        )  # fmt: skip
        handler.add_feed(feed)
        handler.run(start_loop=False, install_signal_handlers=False)
        while any(len(seen[name]) < count for name, count in enough.items()):
            await asyncio.sleep(0.05)
        for running in handler.feeds:
            await running.shutdown()
            running.stop()

    channels = OKX.websocket_channels
    public = tuple(channels[name] for name in (L2_BOOK, TRADES, TICKER))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / CA))
    with tls_okx(tmp_path) as address:
        trust = {"ssl": ssl.create_default_context(cafile=str(tmp_path / CA))}
        monkeypatch.setattr(OKX.rest_endpoints[0], "address", f"https://{address}")
        monkeypatch.setattr(
            OKX,
            "websocket_endpoints",
            [
                WebsocketEndpoint(f"wss://{address}{path}", channel_filter=names, options=trust)
                for path, names in ((PUBLIC, public), (BUSINESS, (channels[CANDLES],)))
            ],
        )
        run(main)
    assert {trade.symbol for trade in seen[TRADES]} == set(symbols)
    assert len(seen[L2_BOOK][-1].book[BID]) == 400
    assert isinstance(seen[CANDLES][-1].volume, Decimal)


# --- npm okx-api ----------------------------------------------------------------------------------


def test_npm_okx_api() -> None:
    node = node_judge("okx-api")
    with running_okx() as box:
        told = says("js/judge_okx.js", box.address, program=node)
    assert (told["candles"], told["history"], told["acks"]) == (300, 100, 8)
    assert Decimal(told["bid"]) < Decimal(told["ask"])
    assert len(told["channels"]) == 8
