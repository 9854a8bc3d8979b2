"""Clients that this project did not write speak to us as to OKX, told one URL only.

The service runs in a process of its own with a simulated OKX behind it.  Run by ``scripts/judges``,
which installs the clients; without them every test here is skipped.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.judges import WITHIN_S, judge, node_judge, run
from support.turned import CA, documented, passed_on, says, trusted_certificate, turned

from trio_feed.simulator.okx.accounts import API_KEY, PASSPHRASE, SECRET

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
SYMBOLS = ("BTC/USDT", "BTC/USDT:USDT")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    judge("ccxt")  # without the judges no service is started
    with turned("okx", tmp_path_factory.mktemp("okx"), passed_on("okx")) as found:
        yield found


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a service that speaks TLS, and the file of whom to trust."""
    judge("ccxt")
    folder = tmp_path_factory.mktemp("okx-tls")
    with trusted_certificate(folder) as settings, turned("okx", folder, *settings) as found:
        yield found, folder / CA


# --- ccxt -----------------------------------------------------------------------------------------


def ccxt_client(address: str) -> Any:
    """As docs/dialects.md says it."""
    told = documented("ccxt, ccxt.pro `okx`", address)
    return judge("ccxt.pro").okx({**told, "enableRateLimit": False})


async def eventually(ask: Any, *words: Any) -> Any:
    """Its answer once there is one."""
    while True:
        try:
            return await ask(*words)
        except judge("ccxt").OperationFailed:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_ccxt_rest(symbol: str, address: str) -> None:
    judge("ccxt.pro")

    async def main() -> None:
        client = ccxt_client(address)
        try:
            markets = await client.load_markets()
            assert len(markets) == 4
            market = markets[symbol]
            assert market["active"]
            assert market["precision"]["price"] == 0.1
            assert (market["linear"], market["contractSize"]) in [(None, None), (True, 0.01)]
            rows = await client.fetch_ohlcv(symbol, "1m", limit=300)
            assert {b[0] - a[0] for a, b in pairwise(rows)} == {60_000}
            page = await client.fetch_ohlcv(symbol, "1m", since=rows[10][0], limit=20)
            assert [row[0] for row in page] == [row[0] for row in rows[10:30]]
            paged = await client.fetch_ohlcv(
                symbol, "1m", since=rows[-1][0] - 450 * 60_000, params={"paginate": True}
            )
            assert {b[0] - a[0] for a, b in pairwise(paged)} == {60_000}
            assert len(paged) > 400
            book = await client.fetch_order_book(symbol, limit=400)
            assert book["bids"][0][0] < book["asks"][0][0]
            assert len(book["bids"]) == 400
            trades = await eventually(client.fetch_trades, symbol)
            assert all(trade["amount"] > 0 for trade in trades)
            for ticker in (
                await eventually(client.fetch_ticker, symbol),
                (await client.fetch_tickers([symbol]))[symbol],
            ):
                assert ticker["low"] <= ticker["last"] <= ticker["high"]
            if market["swap"]:
                assert (await client.fetch_mark_price(symbol))["markPrice"] > 0
                funding = await client.fetch_funding_rate(symbol)
                assert funding["fundingTimestamp"] > client.milliseconds()
            assert await client.fetch_time()
            with pytest.raises(judge("ccxt").BadSymbol):
                await client.public_get_market_ticker({"instId": "XYZ-USDT"})
            with pytest.raises(judge("ccxt").BadRequest):
                await client.fetch_ohlcv(symbol, "1d")
            client.apiKey = client.secret = client.password = "x"
            with pytest.raises(judge("ccxt").AuthenticationError):
                await client.fetch_balance()
        finally:
            await client.close()

    run(main)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_ccxt_pro(symbol: str, address: str) -> None:
    judge("ccxt.pro")

    async def main() -> None:
        client = ccxt_client(address)
        try:
            await client.load_markets()
            await asyncio.gather(*(watch(client) for watch in (candles, trades, books, tickers)))
            if symbol.endswith(":USDT"):
                await marks(client)  # ccxt keeps them among the tickers
                await fundings(client)
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
        assert seen == sorted(set(seen))

    async def books(client: Any) -> None:
        """It checks the ids of every update itself and raises where they do not follow."""
        for _ in range(40):
            book = await client.watch_order_book(symbol)
            assert book["bids"][0][0] < book["asks"][0][0]
        assert len(book["bids"]) == len(book["asks"]) == 400

    async def tickers(client: Any) -> None:
        for watch in (client.watch_tickers, client.watch_bids_asks):
            ticker = (await watch([symbol]))[symbol]
            assert ticker["bid"] < ticker["ask"]
        ticker = await client.watch_ticker(symbol)
        assert ticker["low"] <= ticker["last"] <= ticker["high"]

    async def marks(client: Any) -> None:
        assert (await client.watch_mark_price(symbol))["markPrice"] > 0

    async def fundings(client: Any) -> None:
        funding = await client.watch_funding_rate(symbol)
        assert funding["fundingTimestamp"] > client.milliseconds()

    run(main)


def test_ccxt_pro_small_books_and_errors(address: str) -> None:
    errors = judge("ccxt")

    async def main() -> None:
        client = ccxt_client(address)
        try:
            await client.load_markets()
            for depth in (5, 1):
                for _ in range(3):
                    book = await client.watch_order_book("ETH/USDT", depth)
                assert len(book["bids"]) == depth
            with pytest.raises(errors.ExchangeError, match="60018"):
                await client.watch_ohlcv("BTC/USDT", "1d")
        finally:
            await client.close()

    run(main)


# --- OKX's own ------------------------------------------------------------------------------------


def test_ccxt_signed(address: str) -> None:
    """Balance, an order and its event, signed by ccxt, through us to the simulated exchange."""

    async def main() -> None:
        client = ccxt_client(address)
        client.apiKey, client.secret, client.password = API_KEY, SECRET, PASSPHRASE
        client.has["fetchCurrencies"] = False  # these ask an endpoint that is not passed on
        client.options["createOrder"] = "privatePostTradeOrder"
        try:
            await client.load_markets()
            assert (await client.fetch_balance())["USDT"]["total"] == 1000
            event = asyncio.ensure_future(client.watch_orders())
            await asyncio.sleep(0.5)  # nothing says that it has subscribed
            order = await client.create_order("BTC/USDT", "market", "sell", 1)
            assert order["id"]
            (told,) = await asyncio.wait_for(event, WITHIN_S)
            assert (told["id"], told["status"]) == (order["id"], "closed")
            client.secret = "wrong"
            with pytest.raises(judge("ccxt").AuthenticationError):
                await client.create_order("BTC/USDT", "market", "sell", 1)
        finally:
            await client.close()

    run(main)


def test_python_okx_signed(address: str) -> None:
    judge("okx")
    account = judge("okx.Account").AccountAPI(
        API_KEY, SECRET, PASSPHRASE, flag="0", domain=f"http://{address}/okx"
    )
    found = account.get_account_balance("USDT")
    assert (found["code"], found["data"][0]["totalEq"]) == ("0", "1000")
    refused = account.get_positions()  # is not passed on
    assert refused["code"] == "50111"
    assert "dialects.okx.passthrough" in refused["msg"]


def test_python_okx_rest(address: str) -> None:
    market = judge("okx.MarketData")
    public = judge("okx.PublicData")

    def good(answer: Any) -> Any:
        assert (answer["code"], answer["msg"]) == ("0", ""), answer
        return answer["data"]

    domain = f"http://{address}/okx"
    with market.MarketAPI(flag="0", domain=domain) as client:
        assert len(good(client.get_candlesticks("BTC-USDT", bar="1m", limit="300"))) == 300
        rows = good(client.get_history_candlesticks("BTC-USDT-SWAP", bar="1m"))
        assert {row[-1] for row in rows} == {"1"}
        (book,) = good(client.get_orderbook("ETH-USDT", sz="400"))
        assert len(book["bids"]) == 400
        assert len(good(client.get_tickers("SWAP"))) == 2
        (ticker,) = good(client.get_ticker("ETH-USDT"))
        assert ticker["instType"] == "SPOT"
        good(client.get_trades("BTC-USDT", limit="500"))
        while len(newest := good(client.get_history_trades("BTC-USDT"))) < 5:
            time.sleep(0.2)
        older = good(client.get_history_trades("BTC-USDT", after=newest[0]["tradeId"]))
        assert int(older[0]["tradeId"]) == int(newest[0]["tradeId"]) - 1
        assert client.get_ticker("BTCUSDT")["code"] == "51001"
    with public.PublicAPI(flag="0", domain=domain) as client:
        assert len(good(client.get_instruments("SPOT"))) == 2
        assert good(client.get_system_time())[0]["ts"].isdigit()
        assert good(client.get_funding_rate("BTC-USDT-SWAP"))[0]["fundingRate"]
        assert len(good(client.get_mark_price("SWAP"))) == 2


def test_python_okx_websocket(tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Told: URL and whom to trust, as it speaks TLS only."""
    address, trusted = tls
    sockets = judge("okx.websocket.WsPublicAsync")
    factory = judge("okx.websocket.WebSocketFactory")
    monkeypatch.setattr(factory.certifi, "where", lambda: str(trusted))
    wanted = {
        "public": {"tickers", "trades", "books", "books5", "bbo-tbt", "funding-rate"},
        "business": {"candle1m", "candle1H", "trades-all"},
    }

    async def talk(path: str) -> None:
        client = sockets.WsPublicAsync(f"wss://{address}/okx/ws/v5/{path}")
        messages: list[Any] = []
        args = [{"channel": name, "instId": "BTC-USDT-SWAP"} for name in wanted[path]]

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

    run(main)


# --- cryptofeed -----------------------------------------------------------------------------------


def test_cryptofeed(tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Told: URLs and whom to trust (it too wants TLS).  It asks ``/public`` for candles."""
    address, trusted = tls
    cryptofeed = judge("cryptofeed")
    from cryptofeed.connection import RestEndpoint, WebsocketEndpoint
    from cryptofeed.defines import BID, CANDLES, FUNDING, L2_BOOK, TICKER, TRADES
    from cryptofeed.exchanges import OKX

    symbols = ("BTC-USDT", "ETH-USDT-PERP")
    enough = {L2_BOOK: 30, TRADES: 30, TICKER: 5, CANDLES: 3, FUNDING: 1}
    seen: dict[str, list[Any]] = {name: [] for name in enough}

    def keep(channel: str) -> Callable[[Any, float], Awaitable[None]]:
        async def callback(value: Any, _received: float) -> None:
            seen[channel].append(value)

        return callback

    async def main() -> None:
        handler = cryptofeed.FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
        feeds = [
            OKX(
                symbols=[*names], channels=[*kinds], candle_closed_only=False,
                callbacks={name: keep(name) for name in kinds},
            )
            for names, kinds in (
                (symbols, [name for name in seen if name != FUNDING]),
                (symbols[1:], [FUNDING]),
            )
        ]  # fmt: skip
        for feed in feeds:
            handler.add_feed(feed)
        handler.run(start_loop=False, install_signal_handlers=False)
        while any(len(seen[name]) < count for name, count in enough.items()):
            await asyncio.sleep(0.05)
        for running in handler.feeds:
            await running.shutdown()
            running.stop()

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    trust = {"ssl": ssl.create_default_context(cafile=str(trusted))}
    (rest,) = OKX.rest_endpoints
    base = f"{address}/okx"
    monkeypatch.setattr(
        OKX, "rest_endpoints", [RestEndpoint(f"https://{base}", routes=rest.routes)]
    )
    monkeypatch.setattr(
        OKX, "websocket_endpoints", [WebsocketEndpoint(f"wss://{base}/ws/v5/public", options=trust)]
    )
    run(main)
    assert {trade.symbol for trade in seen[TRADES]} == set(symbols)
    assert len(seen[L2_BOOK][-1].book[BID]) == 400
    assert isinstance(seen[CANDLES][-1].volume, Decimal)


# --- npm okx-api ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["public", "business"])
def test_npm_okx_api(path: str, address: str) -> None:
    node = node_judge("okx-api")
    urls = f"http://{address}/okx", f"ws://{address}/okx/ws/v5/{path}"
    told = says("js/judge_okx_dialect.js", *urls, program=node)
    assert (told["candles"], told["history"], told["acks"]) == (300, 100, 10)
    assert Decimal(told["bid"]) < Decimal(told["ask"])
    assert len(told["channels"]) == 10
