"""The clients of the user's documents, under Node with npm's ws, against the running service.

They are written anew to the flow of documents 004 (sections 8.1 and 9.2) and 003, and use nothing
but what stands there; only host and symbol are ours.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
from test_service_live import NODE, WS, page, running, wait_ready

from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.boxes import spinpet_market

pytestmark = pytest.mark.skipif(
    NODE is None or not WS.exists(), reason="node or npm's ws is not installed"
)

SPINPET = spinpet_market(SimulatorSettings(venue="spinpet", seed=1, trades_per_minute=60))
VENUES = {
    "binance": ("BTCUSDT", []),
    "spinpet": (
        SPINPET.mints[0],
        [
            "simulator.venue=spinpet",
            "simulator.trades_per_minute=60",
            "exchanges.binance_usdm.enabled=false",
            "exchanges.spinpet.enabled=true",
            "exchanges.spinpet.symbols=['*']",
            "exchanges.spinpet.intervals=[]",
            "exchanges.spinpet.trade_intervals=['1s','30s','5m']",
            "exchanges.spinpet.channels=['kline']",
        ],
    ),
}
"""The document's own world is that of Solana mints; most users have pairs."""


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


async def wait_symbol(base: str, symbol: str) -> None:
    """Mints become known when their first event comes."""
    with trio.fail_after(60):
        while f'"{symbol}"' not in (await page(base, "/api/v1/symbols"))[1]:
            await trio.sleep(0.1)


@pytest.mark.parametrize("venue", VENUES)
async def test_the_chart_page_of_document_004(venue: str, tmp_path: Path) -> None:
    symbol, sets = VENUES[venue]
    async with running(tmp_path, *sets) as service:
        urls = (await service.event("service.ready"))["urls"]
        await wait_ready(service)
        await wait_symbol(urls["http"], symbol)
        done = await node("kline_page.js", urls["websocket"], symbol)
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
    if venue == "binance":
        assert len(told["first"]) in (99, 100)  # the last may be the one that was updated
        assert told["asked"] == 3


@pytest.mark.parametrize("venue", VENUES)
async def test_the_integration_test_of_document_004(venue: str, tmp_path: Path) -> None:
    symbol, sets = VENUES[venue]
    async with running(tmp_path, *sets) as service:
        urls = (await service.event("service.ready"))["urls"]
        await wait_ready(service)
        await wait_symbol(urls["http"], symbol)
        done = await node("kline_check.js", urls["websocket"], symbol)
    assert done.returncode == 0, done.stderr
    assert b"passed" in done.stdout
