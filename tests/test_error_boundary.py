"""What is said of an error that one client provoked."""

from typing import Any

import pytest
import structlog
import trio

from trio_feed.metrics import Metrics
from trio_feed.push.edge.error_boundary import ClientGone, ErrorBoundary, first_of, last_line, place
from trio_feed.push.edge.refusals import Refusals


def test_an_error_is_named_by_its_last_line_and_its_place() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        raise ExceptionGroup("all", [ValueError("one\ntwo\n"), KeyError("x")])
    error = first_of(caught.value)
    assert place(caught.value).startswith("test_error_boundary.py:")
    assert last_line(error) == "two"
    assert last_line("") == ""
    assert len(last_line("x" * 1_000)) == 200
    assert place(error) == ""  # it was never raised by itself


def lines_of(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


async def test_a_crash_is_counted_and_ten_a_minute_are_said(
    autojump_clock: trio.abc.Clock,
) -> None:
    crashes: list[int] = []
    boundary = ErrorBoundary(lambda: crashes.append(1))

    def crash(times: int) -> None:
        for _ in range(times):
            with boundary.around("1.2.3.4:5"):
                raise ValueError("secret traceback\nwhat it was")

    with structlog.testing.capture_logs() as logs:
        crash(12)
        await trio.sleep(59.9)
        crash(1)
        await trio.sleep(0.1)
        crash(1)
    assert len(crashes) == 14
    said = lines_of(logs, "client.crashed")
    assert [line["left_out"] for line in said] == [0] * 10 + [3]
    first = said[0]
    assert (first["peer"], first["error"], first["message"]) == (
        "1.2.3.4:5", "ValueError", "what it was",
    )  # fmt: skip
    assert first["at"].startswith("test_error_boundary.py:")


async def test_a_client_that_has_gone_is_no_crash() -> None:
    crashes: list[int] = []
    with structlog.testing.capture_logs() as logs:
        with ErrorBoundary(lambda: crashes.append(1)).around("x"):
            raise ClientGone("x: gone")
    assert (crashes, lines_of(logs, "client.crashed")) == ([], [])


async def test_cancellation_goes_through() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with ErrorBoundary(lambda: None).around("x"):
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_three_refusals_of_a_reason_are_said_in_a_minute(
    autojump_clock: trio.abc.Clock,
) -> None:
    metrics = Metrics()
    refusals = Refusals(metrics)
    with structlog.testing.capture_logs() as logs:
        for n in range(5):
            refusals.note("host", f"evil{n}")
            refusals.note("tls", "x")
        await trio.sleep(60)
        refusals.note("host", "again")
    said = lines_of(logs, "client.refused")
    hosts = [line for line in said if line["reason"] == "host"]
    assert [(line["what"], line["left_out"]) for line in hosts] == [
        ("evil0", 0), ("evil1", 0), ("evil2", 0), ("again", 2),
    ]  # fmt: skip
    assert hosts[0]["hint"] == "name it in server.allowed_hosts"
    assert [line["hint"] for line in said if line["reason"] == "tls"] == [""] * 3
    assert metrics.refused.labels("host")._value.get() == 6


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("origin", "server.allowed_origins"),
        ("connections", "websocket.max_connections are"),
        ("connections_per_ip", "websocket.max_connections_per_ip are"),
    ],
)
async def test_what_the_operator_may_do(reason: str, hint: str) -> None:
    with structlog.testing.capture_logs() as logs:
        Refusals(Metrics()).note(reason, "x")
    assert hint in logs[0]["hint"]
