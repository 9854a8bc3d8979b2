"""Symbols on demand of the service as its users start it: a process, its demo market, a store on
disk, and a client that asks for what nobody configured."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio
from test_service_live import Running, running

from trio_feed.client import CandleUpdate, History, open_client

UNIX = pytest.mark.skipif(os.name == "nt", reason="no Unix sockets")
ASKED = "XRPUSDT"
WORDS = (
    'exchanges.binance_usdm.symbols=["BTCUSDT","on_demand"]',
    "exchanges.binance_usdm.max_symbols=1",
    "exchanges.binance_usdm.intervals=['1m']",
    'simulator.symbols=["BTCUSDT","ETHUSDT","XRPUSDT"]',
    "dialects.binance_usdm.simulated_ok=true",
)


async def ask(service: Running, target: str) -> tuple[int, Any]:
    base = (await service.event("service.ready"))["urls"]["http"]

    def asked() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"{base}{target}", timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await trio.to_thread.run_sync(asked)


async def fed(service: Running) -> set[str]:
    return set((await ask(service, "/api/v1/symbols"))[1]["symbols"])


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=UNIX)])
async def test_a_client_asks_for_what_nobody_configured_and_again_after_a_restart(
    workers: int, tmp_path: Path
) -> None:
    kept: list[int] = []
    with trio.fail_after(120):
        for _ in range(2):
            async with running(tmp_path, *WORDS, f"server.workers={workers}") as service:
                assert await fed(service) == {"BTCUSDT"}  # what was asked for before is not
                url = (await service.event("service.ready"))["urls"]["websocket"]
                async with open_client(url) as client:
                    await client.subscribe(ASKED, "1s", history=5)
                    closed = 0
                    async for message in client:
                        closed += isinstance(message, CandleUpdate) and message.final
                        if closed >= 3:
                            break
                    await client.history(ASKED, "1m", limit=500)
                    async for message in client:
                        if (
                            isinstance(message, History)
                            and message.candles
                            and not (message.candles[0].open_ms % 60_000)
                        ):
                            minutes = [kline.open_ms for kline in message.candles]
                            if len(minutes) == 500:
                                break
                assert minutes == [*range(minutes[0], minutes[-1] + 1, 60_000)]
                assert not kept or {*kept[1:]} <= {*minutes}
                kept = minutes
                assert await fed(service) == {"BTCUSDT", ASKED}
                path = "/binance_usdm/fapi/v1/klines?interval=1m&symbol="
                assert (await ask(service, f"{path}{ASKED}"))[0] == 200
                status, refused = await ask(service, f"{path}ETHUSDT")
                assert (status, refused["code"]) == (429, -1003)  # its one place was just asked for
                _, page = await ask(service, "/api/v1/status")
                assert set(page["venues"]["binance_usdm"]["on_demand"]["symbols"]) == {ASKED}
                events = [line["event"] for line in service.lines]
                assert events.count("symbol.demanded") == 1
                service.process.terminate()
                assert await service.process.wait() == 0
