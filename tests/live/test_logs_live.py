"""Where the service's log goes on bad days: the service goes on."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from test_service_live import ROOT, command

_PATIENCE_S = 30.0


@contextmanager
def started(tmp_path: Path, stdout: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A service, and its port; answers ``/health`` when this is entered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        command(tmp_path, f"server.port={port}"), cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE
    )
    try:
        assert answers(process, port, "/health")
        yield process, port
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def answers(process: subprocess.Popen[bytes], port: int, path: str) -> str:
    end = time.monotonic() + _PATIENCE_S
    while True:
        assert time.monotonic() < end, "nobody listens"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as page:
                return page.read().decode()
        except urllib.error.URLError as error:
            if process.poll() is not None:
                raise AssertionError(process.stderr.read().decode()) from None
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.02)  # it is starting


def full_pipe() -> tuple[int, int, int]:
    """Its reading end, its writing end, and how many bytes of ``x`` are in it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(write, b"x" * 1024)
    os.set_blocking(write, True)
    return read, write, filled


def loses_lines(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until it does."""
    end = time.monotonic() + _PATIENCE_S
    while not lost(process, port):
        assert time.monotonic() < end, "no line was lost"


def lost(process: subprocess.Popen[bytes], port: int) -> float:
    page = answers(process, port, "/metrics")
    (line,) = [row for row in page.splitlines() if row.startswith("trio_feed_log_lines_lost_total")]
    return float(line.split()[1])


def ends_in_order(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0, process.stderr.read().decode()


def test_a_closed_pipe_is_survived(tmp_path: Path) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        with started(tmp_path, write) as (process, port):
            os.close(write)
            assert json.loads(pipe.readline())["event"]
            pipe.close()  # as `| head -1` does
            process.send_signal(signal.SIGHUP)  # has something to say
            loses_lines(process, port)
            assert answers(process, port, "/health")
            ends_in_order(process)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full, started(tmp_path, full) as (process, port):
        loses_lines(process, port)
        ends_in_order(process)


def test_stdout_that_is_closed_from_the_start(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = command(tmp_path, f"server.port={port}")
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *words], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        assert answers(process, port, "/health")
        ends_in_order(process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_reader_that_is_stuck_holds_up_nothing(tmp_path: Path) -> None:
    read, write, _ = full_pipe()
    with started(tmp_path, write) as (process, port):
        os.close(write)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status", timeout=20) as page:
            assert json.load(page)["venues"]
        ends_in_order(process)
    os.close(read)


def test_what_waited_is_written_when_the_reader_goes_on(tmp_path: Path) -> None:
    read, write, filled = full_pipe()
    with started(tmp_path, write) as (process, _), os.fdopen(read, "rb") as pipe:
        os.close(write)
        assert pipe.read(filled) == b"x" * filled
        process.send_signal(signal.SIGTERM)
        events = [json.loads(line)["event"] for line in pipe]
        assert process.wait(timeout=30) == 0
    assert "service.ready" in events
    assert events[-1] == "service.stopped"
