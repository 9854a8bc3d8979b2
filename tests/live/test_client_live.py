"""Our own client against the service as a process: killed, started anew, and no candle missing."""

import signal
import socket
from pathlib import Path

import trio
from test_service_live import running, wait_ready

from trio_feed.client import (
    CandleUpdate,
    Client,
    ConnectionChange,
    ConnectionState,
    History,
    TradeUpdate,
    open_client,
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def read(client: Client, told: list[int], *, until_resumed: bool, candles: int) -> None:
    """Note the open times of closed candles, and of the history; until so many more came."""
    resumed = not until_resumed
    more = 0
    async for message in client:
        match message:
            case History(candles=rows):
                told += [kline.open_ms for kline in rows]
            case CandleUpdate(kline=kline) if message.final:
                told.append(kline.open_ms)
                more += resumed
            case ConnectionChange(state=ConnectionState.RESUMED):
                resumed = True
        if resumed and more >= candles:
            return


async def test_the_service_is_killed_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    told: list[int] = []
    with trio.fail_after(120):
        async with open_client(f"ws://127.0.0.1:{port}/ws") as client:
            await client.subscribe("BTCUSDT", "1s", history=10)
            for number, end in enumerate([signal.SIGKILL, signal.SIGTERM, None]):
                async with running(tmp_path, f"server.port={port}") as service:
                    await read(client, told, until_resumed=number > 0, candles=4)
                    if end is None:
                        await client.history(
                            "BTCUSDT", "1s", start_s=told[0] // 1000, end_s=told[-1] // 1000 + 1,
                            limit=1000,
                        )  # fmt: skip
                        async for message in client:
                            if isinstance(message, History):
                                break
                    else:
                        service.process.send_signal(end)
                        await service.process.wait()
    assert told == sorted(set(told))
    kept = [kline.open_ms for kline in message.candles]
    assert set(kept) <= set(told)  # a kill may cost the server what this client already has


async def test_a_slow_consumer_holds_the_server_back_and_misses_no_candle(tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with running(tmp_path, "simulator.trades_per_minute=6000") as service:
            url = (await service.event("service.ready"))["urls"]["websocket"]
            await wait_ready(service)
            async with open_client(url, buffered=2) as client:
                await client.subscribe("BTCUSDT", "1s", history=1)
                await client.subscribe("BTCUSDT", channel="trade")
                kinds, told = set(), []
                while len(told) < 10:
                    message = await anext(client)
                    kinds.add(type(message))
                    if isinstance(message, CandleUpdate) and message.final:
                        told.append(message.kline.open_ms)
                        await trio.sleep(0.3)
                assert {CandleUpdate, TradeUpdate} <= kinds
                assert told == list(range(told[0], told[0] + 10_000, 1000))
