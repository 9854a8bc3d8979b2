"""Symbols on demand over the whole service: asked for, fed, backfilled, dropped; on virtual time
against the simulated exchanges."""

import json
from typing import Any

import pytest
import trio
from support.stack import PushClient, Stack, open_stack, push_client, settings_for_tests
from test_app import http
from test_dialect_binance import socket
from test_feeds import of_symbol, with_change

from trio_feed.model import Interval
from trio_feed.settings import Settings

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
MINUTE = 60


def on_demand(*more: str, venue: str = "binance_usdm") -> Settings:
    return settings_for_tests(".symbols='on_demand'", ".audit_after_s=0", *more, venue=venue)


def truth(stack: Stack, symbol: str, time_s: int) -> list[float | int]:
    k = stack.market.candle(symbol, Interval.M1, time_s * 1000)
    return [*(float(v) for v in (k.open, k.high, k.low, k.close, k.volume)), k.trades]


def check_whole(stack: Stack, symbol: str, rows: list[dict[str, Any]]) -> None:
    """Every minute once, in order, and equal to the exchange's."""
    times = [row["time"] for row in rows]
    assert times == list(range(times[0], times[0] + MINUTE * len(times), MINUTE))
    for row in rows:
        values = [row[key] for key in ("open", "high", "low", "close", "volume", "trades")]
        assert values == truth(stack, symbol, row["time"])


async def subscribe(client: PushClient, symbol: str, **more: Any) -> dict[str, Any]:
    """The confirmation, or the error."""
    before = len(client.messages)
    await client.ask(type="subscribe", symbol=symbol, interval="1m", id=before, **more)
    return await client.wait_for(
        lambda m: m.get("id") == before and m["type"] in ("subscription_confirmed", "error")
    )


async def history(client: PushClient, symbol: str, limit: int = 200) -> list[dict[str, Any]]:
    before = len(client.messages)
    await client.ask(type="history", symbol=symbol, interval="1m", limit=limit, id=before)
    answer = await client.wait_for(lambda m: m.get("id") == before)
    assert answer["type"] == "history_data", answer
    return list(answer["data"]["data"])


@pytest.mark.parametrize("venue", ["binance_usdm", "binance", "okx"])
async def test_a_symbol_that_a_client_asks_for_is_fed(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    with trio.fail_after(10_000):
        async with (
            open_stack(on_demand(venue=venue), symbols=SYMBOLS) as stack,
            push_client(stack) as client,
        ):
            await trio.sleep(30)
            assert stack.ready.feeds[0].not_ready(30) == ""
            assert stack.exchange.dials <= 1  # the list
            told = await subscribe(client, "ETHUSDT")
            print(told)
            await trio.sleep(3 * MINUTE)
            for m in client.messages:
                print({k: v for k, v in m.items() if k != "data"}, str(m.get("data"))[:150])
            check_whole(stack, "ETHUSDT", [r["data"] for r in of_symbol(client, "ETHUSDT") if r["data"]["is_final"]])
            rows = await history(client, "ETHUSDT")
            check_whole(stack, "ETHUSDT", rows)
