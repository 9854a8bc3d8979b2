"""The judges turned round: the whole service in a process of its own, a simulated exchange behind
it, for clients that connect to its dialects."""

import ast
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from attrs import frozen

from .judges import WITHIN_S

ROOT = Path(__file__).parent.parent.parent
VENUES = ("binance", "binance_usdm")
CA = "ca.pem"
_START_S = 90
"""Of a service with its market, also on a busy machine."""
_PAIRS = ("BTCUSDT", "ETHUSDT")
_SHARED = ("kline", "trade", "ticker", "book", "bbo")


@frozen
class _Market:
    """What of a venue is fed, and the questions whose answers come last."""

    symbols: tuple[str, ...]
    channels: tuple[str, ...]
    book_levels: int
    last: tuple[str, ...]


_MARKETS: Mapping[str, _Market] = {
    "binance": _Market(
        _PAIRS, _SHARED, 1000,
        ("api/v3/depth?symbol={pair}", "api/v3/ticker/24hr?symbol={pair}"),
    ),
    "binance_usdm": _Market(
        _PAIRS, (*_SHARED, "mark_price", "liquidation", "open_interest"), 1000,
        ("fapi/v1/depth?symbol={pair}", "fapi/v1/ticker/24hr?symbol={pair}"),
    ),
    "okx": _Market(
        (*_PAIRS, *(f"{pair}SWAP" for pair in _PAIRS)), (*_SHARED, "mark_price"), 400,
        tuple(
            f"api/v5/market/{what}?instId={{coin}}-USDT{kind}"
            for what in ("books", "ticker")
            for kind in ("", "-SWAP")
        ),
    ),
}  # fmt: skip
PASSTHROUGH: Mapping[str, tuple[str, ...]] = {
    "binance": (
        "GET /api/v3/account",
        "POST /api/v3/order",
        "GET /api/v3/openOrders",
        "GET /sapi/v1/asset/tradeFee",
        "WS /ws-api/v3",
    ),
    "binance_usdm": ("GET /fapi/v2/account", "GET /fapi/v3/account", "POST /fapi/v1/order"),
    "okx": ("GET /api/v5/account/balance", "POST /api/v5/trade/order", "WS /ws/v5/private"),
}
"""What judges ask for that sign."""


def passed_on(venue: str) -> str:
    """The setting that passes it on."""
    return f"dialects.{venue}.passthrough={json.dumps(PASSTHROUGH[venue])}"


@contextmanager
def turned(venue: str, folder: Path, *more: str) -> Iterator[str]:
    """host:port of a service with this venue, simulated, synchronised and 500 minutes old.
    ``more``: settings beside these."""
    market = _MARKETS[venue]
    questions = [f"api/v1/klines?symbol={name}&interval=1m&limit=500" for name in market.symbols]
    for pair in _PAIRS:
        names = {"pair": pair, "coin": pair.removesuffix("USDT")}
        questions += [f"{venue}/{question.format(**names)}" for question in market.last]
    with _service(venue, folder, more) as (url, log):
        for question in questions:
            _until_whole(f"{url}/{question}", log)
        yield url.partition("://")[2]


@contextmanager
def turned_on_demand(venue: str, folder: Path, *more: str) -> Iterator[str]:
    """host:port of a service that feeds nothing of this venue until it is asked for."""
    symbols = "simulator.symbols=['BTCUSDT','ETHUSDT','SOLUSDT']"
    own = symbols, f"exchanges.{venue}.symbols=on_demand", *more
    with _service(venue, folder, own) as (url, _):
        yield url.partition("://")[2]


@contextmanager
def _service(venue: str, folder: Path, more: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Its URL and its log."""
    market, table = _MARKETS[venue], f"exchanges.{venue}"
    settings = (
        "simulator.enabled=true",
        f"simulator.venue={venue}",
        "simulator.trades_per_minute=600",
        "simulator.symbols=['BTCUSDT','ETHUSDT']",
        f"{table}.symbols={json.dumps(market.symbols)}",
        f"{table}.intervals=['1m','5m','1h']",
        f"{table}.channels={json.dumps(market.channels)}",
        f"{table}.book_levels={market.book_levels}",
        f"dialects.{venue}.simulated_ok=true",
        "server.port=0",
        "store.path=:memory:",
        "logging.format=json",
        *more,
    )
    words = [word for each in settings for word in ("--set", each)]
    command = [sys.executable, "-m", "trio_feed", *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = folder / "service.log"
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=out) as process,
    ):
        try:
            _until(lambda: _ready(log) or process.poll() is not None, log)
            ready = _ready(log)
            assert ready, f"the service does not start: {log.read_text()[-4000:]}"
            yield ready["urls"]["http"], log
        finally:
            process.kill()


def _ready(log: Path) -> Any:
    lines = log.read_text().splitlines(keepends=True)
    said = (json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n"))
    return next((event for event in said if event["event"] == "service.ready"), None)


def _until_whole(url: str, log: Path) -> None:
    """Candles: all of them.  What a dialect answers: no error."""

    def whole() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as problem:
            problem.close()
            return False
        return len(found["data"]) == 500 if "/api/v1/" in url else found.get("code", "0") == "0"

    _until(whole, log)


def _until(there: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + _START_S
    while not there():
        late = f"the service does not get its market: {log.read_text()[-4000:]}"
        assert time.monotonic() < end, late
        time.sleep(0.05)


@contextmanager
def trusted_certificate(folder: Path) -> Iterator[tuple[str, ...]]:
    """Settings with a certificate of 127.0.0.1 that this process and its children trust meanwhile;
    ``CA`` in the folder is the file of whom to trust."""
    authority, own, cert, key = trustme.CA(), "127.0.0.1", folder / "own.pem", folder / "own.key"
    issued = authority.issue_cert(own)
    authority.cert_pem.write_to_path(str(folder / CA))
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    with pytest.MonkeyPatch.context() as environment:
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            environment.setenv(variable, str(folder / CA))
        yield f"server.tls_cert_file={cert}", f"server.tls_key_file={key}"


@pytest.fixture
def own_certificate(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The same, for a test's time."""
    with trusted_certificate(tmp_path) as settings:
        yield settings


def documented(client: str, address: str) -> Any:
    """The setting in a client's row of docs/dialects.md, with this address."""
    rows = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8").splitlines()
    (row,) = [row for row in rows if row.startswith(f"| {client} |")]
    setting = row.split(" | ")[1].strip("`")
    return ast.literal_eval(setting.replace("://H/", f"://{address}/"))


def says(
    script: str,
    *words: str,
    program: str = sys.executable,
    within_s: float = 60,
    never: Sequence[str] = (),
) -> Any:
    """What a client prints last that is a program of its own (in ``tests/live``): a JSON line.
    ``never``: what is not to be in the lines before, nor in those of its log."""
    answer = subprocess.run(
        [program, str(ROOT / "tests" / "live" / script), *words],
        capture_output=True, text=True, timeout=within_s, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-4000:] + answer.stdout[-4000:]
    *before, last = answer.stdout.splitlines()
    said = [*before, *answer.stderr.splitlines()]
    assert [line for line in said if any(word in line for word in never)] == []
    return json.loads(last)


def heavy(package: str) -> str:
    """The interpreter that has the clients of requirements-judges-heavy.lock, or a visible skip.
    ``JUDGES_HEAVY`` names another folder for it."""
    venv = Path(os.environ.get("JUDGES_HEAVY", ROOT / ".venv-judges-heavy"))
    for python in (venv / "bin" / "python", venv / "Scripts" / "python.exe"):
        if python.exists():
            return str(python)
    pytest.skip(f"the judge {package} is not installed: scripts/judges --heavy")
