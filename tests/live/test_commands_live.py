"""The command line as a person meets it: a terminal, an empty folder, a server of its own."""

import http.client
import io
import json
import os
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from support.judges import binance_box

from trio_feed.commands.probe_report import connect_all
from trio_feed.settings import load

ROOT = Path(__file__).parent.parent.parent
RUN = [sys.executable, "-m", "trio_feed"]
END_S = 30


@contextmanager
def started(words: list[str], cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Killed on the way out if it still runs."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(
        words, cwd=cwd, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel puts into a machine's site-packages."""
    pytest.importorskip("setuptools", minversion="77", reason="scripts/test brings a newer one")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "trio_feed", folder / "trio_feed")
    build = "from setuptools import build_meta; build_meta.build_wheel('out')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_an_installed_wheel_runs_the_demo_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "trio-feed = trio_feed.__main__:main" in entry_points.read_text()
    words = [*RUN, "--set", "server.port=0", "--set", "logging.format=json"]
    with started(words, tmp_path, PYTHONPATH=str(installed)) as process:
        assert process.stdout is not None
        ready = next(e for e in map(json.loads, process.stdout) if e["event"] == "service.ready")
        assert ready["simulated"] is True
        with urllib.request.urlopen(f"{ready['urls']['http']}/api/v1/symbols", timeout=10) as page:
            assert json.load(page)["symbols"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
    assert list(tmp_path.iterdir()) == [], "it keeps nothing"


def imported_by(*words: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", *RUN[1:], *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_start_imports_rich_for_nobody() -> None:
    """Libraries do so where they find it; it is a tenth of a start, and for terminals only."""
    imported = imported_by("run", "--help")
    assert {"structlog.dev", "httpx", "trio_feed.service"} <= imported
    assert "rich.segment" not in imported  # names that were not found are among them, as "rich" is


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["run"], signal.SIGHUP, 7),
        (["run"], signal.SIGTERM, 0),
        ([], signal.SIGINT, 0),
        (["--config", "x.toml"], signal.SIGHUP, 7),
        (["status"], signal.SIGHUP, -signal.SIGHUP),
    ],
)
def test_a_signal_while_a_service_still_imports_ends_it_in_order_or_is_ignored(
    words: list[str], number: int, code: int, tmp_path: Path
) -> None:
    """What SIGHUP ends is for systemd ended in order, and not started again."""
    script = (
        "import os, sys; import trio_feed.__main__ as module\n"
        f"module._command_line = lambda: os.kill(os.getpid(), {int(number)}) or (lambda: 7)\n"
        "sys.exit(module.main())"
    )
    with started([sys.executable, "-c", script, *words], tmp_path) as process:
        said = process.communicate(timeout=END_S)
    assert (process.returncode, *said) == (code, "", "")


@pytest.mark.parametrize("command", ["exchange", "key", "status", "tail"])
def test_who_reads_no_settings_imports_nothing_that_checks_them(command: str) -> None:
    """That is a third to a half of a start."""
    imported = imported_by(command, "--help")
    assert "trio_feed.commands.options" in imported
    assert not {"trio_feed.validate", "trio_feed.ingest.driver"} & imported


def test_a_terminal_shows_a_box_and_one_line_of_history(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [*RUN, "--set", "server.port=0"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "100"}
    text = ""
    with subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=theirs) as process:
        try:
            os.close(theirs)
            while "history: " not in text:
                text += os.read(ours, 65536).decode()
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_S) == 0
        finally:
            process.kill()
            os.close(ours)
    assert re.search(r"page +http://127\.0\.0\.1:\d+/ ", text)
    assert "trio-feed init" in text
    assert re.search(r"history: 27 series, \d+,\d+ candles in \d+\.\d s", text)
    assert "history.filled" not in text
    assert "{" not in text
    assert len(text.splitlines()) < 15
    assert max(map(len, text.splitlines())) <= 100


def test_the_exchange_is_a_server_of_its_own(tmp_path: Path) -> None:
    words = [*RUN, "exchange", "--port", "0", "--faults", "tcp_reset", "--per-hour", "3600"]
    with started(words, tmp_path) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"(http://\S+),", first)
        assert found is not None, first
        with urllib.request.urlopen(f"{found[1]}/fapi/v1/exchangeInfo", timeout=10) as page:
            assert json.load(page)["symbols"][0]["symbol"] == "BTCUSDT"
        assert process.stdout.readline() == "fault: tcp_reset\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0


def test_the_proxy_beside_the_exchange_leads_to_it_and_to_nothing_else(tmp_path: Path) -> None:
    words = [*RUN, "exchange", "--port", "0", "--proxy-port", "0", "--json"]
    with started(words, tmp_path) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        handler = urllib.request.ProxyHandler({"https": ready["proxy_url"]})
        opener = urllib.request.build_opener(handler)
        host, port = ready["proxy_url"].removeprefix("http://").split(":")
        tunnel = http.client.HTTPConnection(host, int(port), timeout=10)
        tunnel.set_tunnel("127.0.0.1", int(ready["rest_url"].rpartition(":")[2]))
        tunnel.request("GET", "/fapi/v1/time")
        assert "serverTime" in json.load(tunnel.getresponse())
        tunnel.close()
        with pytest.raises(urllib.error.URLError, match="502"):
            opener.open("https://example.com/", timeout=10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0


def test_the_service_runs_against_outages(tmp_path: Path) -> None:
    words = [*RUN, "run", "--chaos", "tcp_reset", "--chaos-per-hour", "3600"]
    sets = ["--set", "server.port=0", "--set", "logging.format=json"]
    with started([*words, *sets], tmp_path) as process:
        assert process.stdout is not None
        events = map(json.loads, process.stdout)
        wanted = ["service.ready", "chaos.fault", "connection.lost", "connection.open"]
        for event in events:
            if event["event"] == wanted[0]:
                del wanted[0]
            if not wanted:
                break
        assert wanted == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_check_connect_names_who_signed_the_certificate(trusted: bool, tmp_path: Path) -> None:
    authority = trustme.CA(organization_name="Inspecting Proxy Ltd")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    out, table = io.StringIO(), "exchanges.binance_usdm"
    with binance_box("binance_usdm", tls=server) as box:
        assignments = [
            f"{table}.symbols=['BTCUSDT']",
            f"{table}.connection.websocket_url=wss://{box.tls_address}",
            f"{table}.connection.rest_url=https://{box.tls_address}",
            f"{table}.connection.ca_file={tmp_path / 'ca.pem' if trusted else ''}",
        ]
        code = connect_all(load(assignments=assignments), out, as_json=True)
    steps = [json.loads(line) for line in out.getvalue().splitlines()]
    if trusted:
        assert code == 0
        assert steps[1]["name"] == "TLS"
        assert "certificate by Inspecting Proxy Ltd" in steps[1]["detail"]
        assert steps[-1]["name"] == "first data"
    else:
        assert code == 2
        assert [step["ok"] for step in steps] == [True, False]
        assert "Inspecting Proxy Ltd" in steps[1]["detail"]
        assert f"{table}.connection.ca_file if you trust it" in steps[1]["advice"]
