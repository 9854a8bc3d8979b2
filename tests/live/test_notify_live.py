"""The service under a service manager: a datagram socket, signals, a loop that stands still."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from trio_feed.notify import READY, manager_of

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 60


@contextmanager
def listening(address: str | bytes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(END_S)
        yield manager


@contextmanager
def serving(named: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Killed on the way out if it still runs."""
    words = [sys.executable, "-m", "trio_feed", "--set", "server.port=0"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": named, **variables}
    with subprocess.Popen(words, cwd=folder, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def until(manager: socket.socket, wanted: str) -> list[str]:
    """The datagrams up to the first that begins so."""
    found = [""]
    while not found[-1].startswith(wanted):
        found.append(manager.recv(4096).decode())
    return found[1:]


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_reloading_stopping(abstract: bool, tmp_path: Path) -> None:
    name = f"trio_feed-test-{os.getpid()}"
    path = str(tmp_path / "notify")
    address = b"\0" + name.encode() if abstract else path
    with listening(address) as manager:
        with serving(f"@{name}" if abstract else path, tmp_path) as process:
            (first,) = until(manager, "READY=1")
            assert "\nSTATUS=serves http://127.0.0.1:" in first
            process.send_signal(signal.SIGHUP)
            (reload,) = until(manager, "RELOADING=1")
            sent_us = int(reload.partition("MONOTONIC_USEC=")[2])
            assert 0 < sent_us <= time.monotonic_ns() // 1000
            assert until(manager, "READY=1") == ["READY=1"]
            process.send_signal(signal.SIGTERM)
            assert until(manager, "STOPPING=1") == ["STOPPING=1"]
            assert process.wait(END_S) == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_a_process_that_stands_still_gives_no_sign_of_life(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as manager:
        with serving(str(tmp_path / "notify"), tmp_path, WATCHDOG_USEC="200000") as process:
            until(manager, "READY=1")
            assert until(manager, "WATCHDOG=1") == until(manager, "WATCHDOG=1") == ["WATCHDOG=1"]
            process.send_signal(signal.SIGSTOP)
            manager.settimeout(1)
            with pytest.raises(TimeoutError):
                until(manager, "nothing: all that was sent before it stopped")
            process.send_signal(signal.SIGCONT)
            manager.settimeout(END_S)
            until(manager, "WATCHDOG=1")


def test_a_manager_that_is_gone_is_said_once_and_holds_nothing_up(tmp_path: Path) -> None:
    manager = manager_of({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with capture_logs() as logs:
        for _ in range(3):
            manager.tell(READY)
    assert [line["event"] for line in logs] == ["systemd.unreachable"]
    assert logs[0]["problem"] == "No such file or directory"


def test_a_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    path = str(tmp_path / "full")
    with listening(path), capture_logs() as logs:
        manager = manager_of({"NOTIFY_SOCKET": path})
        for _ in range(5000):
            manager.tell("STATUS=" + "x" * 1000)
    assert len(logs) == 1
