"""The judges turned round: the whole service in a process of its own, a simulated exchange behind
it, for clients that connect to its dialects."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from .judges import WITHIN_S

ROOT = Path(__file__).parent.parent.parent
VENUES = ("binance", "binance_usdm")
_SHARED = ["kline", "trade", "ticker", "book", "bbo"]
CHANNELS = {
    "binance": _SHARED,
    "binance_usdm": [*_SHARED, "mark_price", "liquidation", "open_interest"],
}


@contextmanager
def turned(venue: str, tmp_path: Path, *more: str) -> Iterator[str]:
    """host:port of a service with this venue, simulated, synchronised and 500 minutes old.
    ``more``: settings beside these."""
    table = f"exchanges.{venue}"
    settings = (
        "simulator.enabled=true",
        f"simulator.venue={venue}",
        "simulator.trades_per_minute=600",
        "simulator.symbols=['BTCUSDT','ETHUSDT']",
        f"{table}.symbols=['BTCUSDT','ETHUSDT']",
        f"{table}.intervals=['1m','5m','1h']",
        f"{table}.channels={json.dumps(CHANNELS[venue])}",
        f"{table}.book_levels=1000",
        f"dialects.{venue}.simulated_ok=true",
        "server.port=0",
        "store.path=:memory:",
        "logging.format=json",
        *more,
    )
    words = [word for each in settings for word in ("--set", each)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "trio_feed", *words]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            lines = map(json.loads, process.stdout)
            ready = next(line for line in lines if line["event"] == "service.ready")
            next(line for line in lines if line["event"] == "book.synced")
            url = ready["urls"]["http"]
            question = "api/v1/klines?symbol=BTCUSDT&interval=1m&limit=500"
            _until(lambda: len(_asked(f"{url}/{question}")["data"]) == 500)
            _until(lambda: len(_asked(f"{url}/{_tickers(venue)}")) == 2)
            yield url.partition("//")[2]
        finally:
            process.kill()


@pytest.fixture
def own_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, ...]:
    """Settings with a certificate that this process and its children trust, for a test's time."""
    authority, names = trustme.CA(), ("ca.pem", "own.pem", "own.key")
    ca, cert, key = (str(tmp_path / name) for name in names)
    own = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(ca)
    own.private_key_pem.write_to_path(key)
    own.cert_chain_pems[0].write_to_path(cert)
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, ca)
    return f"server.tls_cert_file={cert}", f"server.tls_key_file={key}"


def _tickers(venue: str) -> str:
    """Its last channel to come, 2 s after the others."""
    return (
        "binance/api/v3/ticker/24hr" if venue == "binance" else "binance_usdm/fapi/v1/ticker/24hr"
    )


def _asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
        return json.load(answer)


def _until(there: Any) -> None:
    end = time.monotonic() + WITHIN_S
    while not there():
        assert time.monotonic() < end, "the service does not get its market"
        time.sleep(0.05)


def says(
    script: str,
    *words: str,
    program: str = sys.executable,
    within_s: float = 60,
    never: str | None = None,
) -> Any:
    """What a client prints last that is a program of its own (in ``tests/live``): a JSON line.
    ``never``: what is not to be in the lines before."""
    answer = subprocess.run(
        [program, str(ROOT / "tests" / "live" / script), *words],
        capture_output=True, text=True, timeout=within_s, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-4000:] + answer.stdout[-4000:]
    *before, last = answer.stdout.splitlines()
    assert [line for line in before if never is not None and never in line] == []
    return json.loads(last)


def heavy(package: str) -> str:
    """The interpreter that has the clients of requirements-judges-heavy.lock, or a visible skip.
    ``JUDGES_HEAVY`` names another folder for it."""
    venv = Path(os.environ.get("JUDGES_HEAVY", ROOT / ".venv-judges-heavy"))
    for python in (venv / "bin" / "python", venv / "Scripts" / "python.exe"):
        if python.exists():
            return str(python)
    pytest.skip(f"the judge {package} is not installed: scripts/judges --heavy")
