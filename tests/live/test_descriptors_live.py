"""Few file descriptors, and strangers that want all of them."""

import resource
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

from test_logs_live import answers, ends_in_order
from test_service_live import ROOT, command

FILES = 256


def test_strangers_do_not_take_the_exchanges_descriptors(tmp_path: Path) -> None:
    """The exchange is a process of its own: it goes, 239 strangers come, it comes back."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        ports = []
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    port, admin, box = ports
    exchange = [
        *command(tmp_path / "box", "server.port=0", f"simulator.port={box}", "store.path=:memory:")
    ]
    venue = "exchanges.binance_usdm.connection."
    service = command(
        tmp_path, f"server.port={port}", "server.admin_host=127.0.0.1",
        f"server.admin_port={admin}", "simulator.enabled=false",
        f"{venue}websocket_url=ws://127.0.0.1:{box}", f"{venue}rest_url=http://127.0.0.1:{box}",
        'exchanges.binance_usdm.channels=["kline", "trade"]',  # one connection
    )  # fmt: skip

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))

    log = tmp_path / "log"
    with ExitStack() as stack:
        boxed = subprocess.Popen(exchange, cwd=ROOT, stdout=subprocess.DEVNULL)
        stack.callback(boxed.wait)
        stack.callback(boxed.kill)
        out = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            service, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, preexec_fn=few
        )
        stack.callback(process.stderr.close)
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert answers(process, port, "/health")
        assert '"clients": 128' in log.read_text()
        until(lambda: log.read_text().count("connection.open") == 1)
        boxed.send_signal(signal.SIGKILL)
        boxed.wait()
        until(lambda: "connection.lost" in log.read_text())
        for _ in range(239):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        boxed = subprocess.Popen(exchange, cwd=ROOT, stdout=subprocess.DEVNULL)
        stack.callback(boxed.wait)
        stack.callback(boxed.kill)
        began = time.monotonic()
        until(lambda: log.read_text().count("connection.open") == 2)
        print(f"redialled after {time.monotonic() - began:.1f} s, start of the exchange included")
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/health", timeout=10) as page:
            assert page.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as page:
            assert page.read() == b'{"status": "alive"}'  # although 111 strangers are being refused
        assert "server.accept_failed" not in log.read_text()
        ends_in_order(process)


def until(true: object) -> None:
    deadline = time.monotonic() + 90
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        with suppress(InterruptedError):
            time.sleep(0.1)
