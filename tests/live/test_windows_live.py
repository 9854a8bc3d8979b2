"""The service where what Windows does not have is missing from the standard library.

Nothing here can run Windows; that shows at least that nothing of it is used, at import or later.
"""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_feed.client import CandleUpdate, History, TradeUpdate, open_client

ROOT = Path(__file__).parent.parent.parent
RUN = [sys.executable, str(ROOT / "tests/support/windows.py")]


async def test_the_service_serves_keeps_and_ends(tmp_path: Path) -> None:
    sets = [
        "server.port=0", "logging.format=json", f"store.path={tmp_path / 'candles.db'}",
        "exchanges.binance_usdm.symbols=['BTCUSDT']",
    ]  # fmt: skip
    words = [*RUN, "--config", str(ROOT / "trio_feed/commands/demo.toml")]
    words += [word for each in sets for word in ("--set", each)]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process, words, cwd=tmp_path, stdout=subprocess.PIPE, check=False
            )
            process = await nursery.start(run)
            text = b""
            while b'"service.ready"' not in text:
                more = await process.stdout.receive_some()
                assert more, text.decode()
                text += more
            nursery.start_soon(drain, process.stdout)
            ready = next(
                json.loads(line) for line in text.splitlines() if b'"service.ready"' in line
            )
            seen = set()
            async with open_client(ready["urls"]["websocket"]) as client:
                await client.subscribe("BTCUSDT", "1m", history=20)
                await client.subscribe("BTCUSDT", channel="trade")
                async for message in client:
                    seen.add(type(message))
                    if seen >= {History, CandleUpdate, TradeUpdate}:
                        break
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    assert b"store.no_lock" in text, "said, as no lock is to be had"
    assert (tmp_path / "candles.db").stat().st_size > 0


async def drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


@pytest.mark.parametrize(
    "words", [["--help"], ["check"], ["key", "--user", "7"], ["exchange", "--faults", "list"]]
)
def test_commands_run(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*RUN, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_init_writes_its_file(tmp_path: Path) -> None:
    words = [*RUN, "init", "--venue", "okx", "--proxy", "http://127.0.0.1:7890"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trio_feed.toml").exists()
