"""The clients of the user's documents, under Node with npm's ws, against the running service.

They are written anew to the flow of documents 004 (sections 8.1 and 9.2) and 003, and use nothing
but what stands there; only host and symbol are ours.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from test_service_live import NODE, ROOT, WS, page, running, wait_ready

from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange, spinpet_market

pytestmark = pytest.mark.skipif(
    NODE is None or not WS.exists(), reason="node or npm's ws is not installed"
)


@asynccontextmanager
async def serving(venue: str, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """A ready service; yields its WebSocket URL and a symbol."""
    async with AsyncExitStack() as stack:
        symbol, sets = "BTCUSDT", []
        if venue == "spinpet":
            symbol, sets = await stack.enter_async_context(spinpet())
        service = await stack.enter_async_context(running(tmp_path, *sets))
        urls = (await service.event("service.ready"))["urls"]
        with trio.fail_after(60):
            await wait_ready(service)
            while f'"{symbol}"' not in (await page(urls["http"], "/api/v1/symbols"))[1]:
                await trio.sleep(0.1)  # a mint becomes known with its first event
        yield urls["websocket"], symbol


@asynccontextmanager
async def spinpet() -> AsyncIterator[tuple[str, list[str]]]:
    """A Spin Pet box; yields a mint of it and the settings that point at it."""
    box = SimulatorSettings(venue="spinpet", seed=1, trades_per_minute=60)
    market = spinpet_market(box)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    table = "exchanges.spinpet"
    async with trio.open_nursery() as nursery:
        serve = partial(serve_exchange, box, listeners=listeners, now_ms=lambda: time.time() * 1000)
        await nursery.start(serve)
        yield (
            market.mints[0],
            [
                "simulator.enabled=false",
                "exchanges.binance_usdm.enabled=false",
                f"{table}.enabled=true",
                f"{table}.symbols=['*']",
                f"{table}.intervals=[]",
                f"{table}.trade_intervals=['1s','30s','5m']",
                f"{table}.channels=['kline']",
                f"{table}.solana.program_id={market.program_id}",
                f"{table}.connection.websocket_url=ws://127.0.0.1:{port}",
            ],
        )
        nursery.cancel_scope.cancel()


async def node(script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(60):
        return await trio.run_process(
            [str(NODE), script, *arguments],
            cwd=Path(__file__).parent / "js",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            **options,
        )


async def test_the_chart_page_of_document_004(tmp_path: Path) -> None:
    async with serving("binance", tmp_path) as (url, symbol):
        done = await node("kline_page.js", url, symbol)
        assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["opened"]
    assert told["kinds"][:4] == [
        "connection_success", "history_data", "subscription_confirmed", "kline_data"
    ]  # fmt: skip
    assert set(told["kinds"]) <= {*told["kinds"][:4], "unsubscribe_confirmed", "stream_status"}
    assert set(told["greeting"]) >= {
        "client_id", "server_time", "supported_symbols", "supported_intervals"
    }  # fmt: skip
    assert symbol in told["greeting"]["supported_symbols"]
    first, second = told["confirmed"]
    assert (first["symbol"], first["interval"]) == (symbol, "m5")
    assert (first["subscription_id"], first["success"]) == ("sub_1", True)
    assert second["subscription_id"] == told["second"]
    assert [(o["interval"], o["success"]) for o in told["unsubscribed"]] == [
        ("s30", True), ("m5", True)
    ]  # fmt: skip
    assert told["first"] == sorted(told["first"])
    bar = told["update"]["data"]
    assert (bar["symbol"], bar["interval"], bar["subscription_id"]) == (symbol, "m5", "sub_1")
    assert bar["data"]["time"] % 300 == 0
    assert told["updates"] >= 1
    assert told["closed"]["code"] in (1000, 1005)
    assert len(told["first"]) in (99, 100)  # the last may be the one that was updated
    assert told["asked"] == 3


@pytest.mark.parametrize("venue", ["binance", "spinpet"])
async def test_the_integration_test_of_document_004(venue: str, tmp_path: Path) -> None:
    """The document's own environment is that of Solana mints; most users have pairs."""
    async with serving(venue, tmp_path) as (url, symbol):
        done = await node("kline_check.js", url, symbol)
    assert done.returncode == 0, done.stderr
    assert b"passed" in done.stdout


AUTH = importlib.util.find_spec("trio_feed.push.private.auth") is not None


def new_key(*arguments: str) -> tuple[str, str]:
    """A fresh key and its hash, as the command prints them."""
    printed = subprocess.run(
        [sys.executable, "-m", "trio_feed", "key", *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    key = re.search(r": (\S+)$", printed.splitlines()[0])
    digest = re.search(r'sha256 = "(\w+)"', printed)
    assert key is not None
    assert digest is not None
    return key[1], digest[1]


ORDER = {
    "order_id": 1001, "symbol": "BTC_USDT", "status": "FILLED", "filled_qty": "0.001",
    "avg_price": "85000.00", "updated_at": 1734533790000,
}  # fmt: skip
TRADE = {
    "trade_id": 5001, "symbol": "BTC_USDT", "price": "85000.00", "qty": "0.001",
    "traded_at": 1734533790000,
    "taker": {"user_id": 1001, "order_id": 1001, "side": "BUY", "fee": "0.00001"},
    "maker": {"user_id": 1002, "order_id": 1002, "side": "SELL", "fee": "0.00002"},
}  # fmt: skip
BALANCE = {
    "asset": "BTC", "avail": "1.501000", "frozen": "0.000000", "change": "+0.001000",
    "reason": "trade_settled",
}  # fmt: skip
EVENTS = [
    {"event_id": "e1", "type": "order.update", "user_id": 1001, "data": ORDER},
    {"event_id": "e2", "type": "trade", "data": TRADE},
    {"event_id": "e3", "type": "balance.update", "user_id": 1001, "data": BALANCE},
]


def report_events(base: str, key: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{base}/api/v1/settlement/events",
        json.dumps(EVENTS).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


@pytest.mark.skipif(not AUTH, reason="this build has no auth yet (trio_feed.push.auth)")
async def test_the_private_flow_of_document_003(tmp_path: Path) -> None:
    key, digest = new_key("--user", "1001")
    publisher, publisher_digest = new_key("--publisher")
    sets = (
        f"auth.api_keys=[{{name='test', user_id=1001, sha256='{digest}'}}]",
        f"settlement.publishers=[{{name='test', sha256='{publisher_digest}'}}]",
    )
    async with running(tmp_path, *sets) as service:
        urls = (await service.event("service.ready"))["urls"]
        wrong = await node("private_events.js", urls["websocket"], "1", env=environ("wrong"))
        assert wrong.returncode == 4, wrong.stderr
        assert json.loads(wrong.stderr)["code"] == 1004
        done: list[Any] = []

        async def listen() -> None:
            done.append(await node("private_events.js", urls["websocket"], "3", env=environ(key)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await service.event("client.authenticated")
            told = await trio.to_thread.run_sync(report_events, urls["http"], publisher)
            assert (told["accepted"], told["rejected"]) == (3, [])
        assert done[0].returncode == 0, done[0].stderr
    first, *events, last = [json.loads(line) for line in done[0].stdout.splitlines()]
    assert first == {"authenticated": 1001}
    assert last["pongs"] > 0
    assert [event["type"] for event in events] == ["order.update", "trade", "balance.update"]
    order, trade, balance = (event["data"] for event in events)
    assert order == ORDER
    common = {name: value for name, value in TRADE.items() if name not in ("taker", "maker")}
    mine = {"order_id": 1001, "side": "BUY", "fee": "0.00001", "role": "TAKER"}
    assert trade == common | mine
    assert balance == BALANCE


def environ(token: str) -> dict[str, str]:
    return {**os.environ, "TOKEN": token}
