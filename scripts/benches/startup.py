"""``scripts/bench startup``: from the start of the process to the line ``service.ready``.

The service has 500 symbols x 4 intervals, of which a million candles are stored, and an exchange
that lists the symbols and answers everything else with nothing.  Rows beside it: the same without
stored candles, and what importing alone takes.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from trio_feed.metrics import Metrics
from trio_feed.model import Interval, KlineMessage, Series
from trio_feed.store import BufferedStore, open_store

from .core import candle
from .exchange import Exchange, symbols
from .processes import LOADING, MEASURED, ROOT, pin
from .result import Result, Target
from .store import settings_of

_INTERVALS = (Interval.M1, Interval.M5, Interval.M15, Interval.H1)
_BEYOND = "start to ready, stored candles, beyond import"
_IMPORT = "import of what a run uses"
_FULL, _EMPTY, _PYTHON = "start to ready, stored candles", "start to ready, empty", "python alone"


def run(quick: bool) -> Result:
    pin(LOADING)
    series, candles = (500, 50) if quick else (500, 500)
    rounds = 2 if quick else 5
    names = symbols(series)
    result = Result("startup", "s", {}, [Target(_BEYOND, 2.0, most=True)])
    result.notes.append(f"{series} symbols x {len(_INTERVALS)} intervals x {candles} candles")
    exchange = Exchange(names)
    ending = threading.Event()
    answering = threading.Thread(
        target=exchange.accept, args=(10_000, lambda: not ending.is_set()), daemon=True
    )
    answering.start()
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder, "full")
        full.mkdir()
        trio.run(_fill, str(full), names, candles)
        try:
            for number in range(rounds):
                result.add(_PYTHON, _run_s(["-c", "pass"]))
                result.add(_IMPORT, _run_s(["-c", "import trio_feed.commands.run"]))
                empty = Path(folder, f"empty{number}")
                empty.mkdir()
                result.add(_EMPTY, _ready_s(empty, exchange.port, names))
                result.add(_FULL, _ready_s(full, exchange.port, names))
                result.add(_BEYOND, result.rows[_FULL][-1] - result.rows[_IMPORT][-1])
        finally:
            ending.set()
            answering.join()
            exchange.close()
    return result


async def _fill(folder: str, names: Sequence[str], candles: int) -> None:
    """A store as it is after that many candles; the last of each is the newest closed one."""
    now_ms = time.time() * 1000
    settings = settings_of(folder)
    async with open_store(settings, simulated=False, now_ms=now_ms, metrics=Metrics()) as store:
        assert isinstance(store, BufferedStore)
        for interval in _INTERVALS:
            length = _LENGTHS_MS[interval]
            last = int(now_ms) // length * length - length
            for number, name in enumerate(names):
                key = Series("binance_usdm", name, interval)
                for back in range(candles, 0, -1):
                    kline = candle(last - (back - 1) * length, number, closed=True)
                    store.put(KlineMessage(key, kline, 1, candles - back + 1, 1, 0.0))
                if store.pending() > 20_000:
                    await store.flush()
            await store.flush()


_LENGTHS_MS = {
    Interval.M1: 60_000, Interval.M5: 300_000, Interval.M15: 900_000, Interval.H1: 3_600_000,
}  # fmt: skip


def _command(arguments: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(MEASURED), sys.executable, *arguments]


def _run_s(arguments: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(_command(arguments), cwd=ROOT, check=True)
    return time.perf_counter() - began


def _ready_s(folder: Path, port: int, names: Sequence[str]) -> float:
    """Seconds to the line; the process is ended then."""
    name = "exchanges.binance_usdm"
    quoted = ", ".join(f'"{symbol}"' for symbol in names)
    intervals = ", ".join(f'"{interval.value}"' for interval in _INTERVALS)
    sets = [
        f"{name}.enabled=true", f"{name}.symbols=[{quoted}]", f"{name}.intervals=[{intervals}]",
        f"{name}.trade_intervals=[]", f'{name}.channels=["kline"]', f"{name}.history_bars=10",
        f"{name}.connection.websocket_url=ws://127.0.0.1:{port}",
        f"{name}.connection.rest_url=http://127.0.0.1:{port}",
        "server.port=0", f"store.path={folder / 'bench.db'}", "logging.format=json",
    ]  # fmt: skip
    words = [word for assignment in sets for word in ("--set", assignment)]
    began = time.perf_counter()
    process = subprocess.Popen(
        _command(["-m", "trio_feed", *words]), stdout=subprocess.PIPE, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        return _when_ready(process, began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _when_ready(process: "subprocess.Popen[bytes]", began: float) -> float:
    assert process.stdout is not None
    rest = b""
    while time.perf_counter() - began < 60:
        if not select.select([process.stdout], [], [], 1)[0]:
            continue
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        if any(json.loads(line)["event"] == "service.ready" for line in lines):
            return time.perf_counter() - began
    raise RuntimeError("the service was never ready")
