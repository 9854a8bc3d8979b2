"""A symbol that is not ASCII, alone on its connection: from the exchange to a client and store."""

import json

import pytest
import structlog
import trio
from support.stack import open_stack, push_client, settings_for_tests

from trio_feed.model import Interval, Series

SYMBOL = "币安人生USDT"


@pytest.mark.parametrize("venue", ["binance_usdm", "binance"])
@pytest.mark.parametrize(
    "channels", ["'kline'", "'kline','trade','ticker','book'"], ids=["alone", "all"]
)
async def test_from_the_exchange_to_a_client_and_the_store(
    venue: str, channels: str, autojump_clock: trio.abc.Clock
) -> None:
    settings = settings_for_tests(f".symbols=['{SYMBOL}']", f".channels=[{channels}]", venue=venue)
    with trio.fail_after(3_600), structlog.testing.capture_logs() as logs:
        async with (
            open_stack(settings, symbols=(SYMBOL,)) as stack,
            push_client(stack) as client,
        ):
            await client.ask(type="subscribe", symbol=SYMBOL, interval="1m", limit=5)
            history = await client.of_type("history_data")
            assert history["data"]["symbol"] == SYMBOL
            pushed = await client.wait_for(
                lambda m: m["type"] == "kline_data" and m["data"]["data"]["is_final"]
            )
            assert pushed["data"]["symbol"] == SYMBOL
            for channel in ("trade", "ticker", "book") if "trade" in channels else ():
                await client.ask(type="subscribe", symbol=SYMBOL, channel=channel)
                await client.wait_for(lambda m, c=channel: m.get("data", {}).get("channel") == c)
            await trio.sleep(120)
            stored = await stack.ready.store.history(Series(venue, SYMBOL, Interval.M1), limit=5)
            assert len(stored) == 5
            assert stack.exchange.dials >= 1
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []
    assert json.dumps(history)  # and nothing of it is half a surrogate
