"""What the service manager gets, under virtual time; ``live/test_notify_live.py``: sockets."""

import math
import os
import random

import pytest
import trio
from support.memory import MemoryNetwork
from support.stack import settings_for_tests, virtual_now_ms

from trio_feed import service
from trio_feed.environment import Environment
from trio_feed.notify import Manager, manager_of

SOCKET = {"NOTIFY_SOCKET": "/run/nowhere"}


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({}, math.inf),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, math.inf),
        ({"WATCHDOG_USEC": "0"}, math.inf),
        ({"WATCHDOG_USEC": "soon"}, math.inf),
    ],
)
def test_the_watchdog_is_for_the_process_that_is_named(
    variables: dict[str, str], watchdog_s: float
) -> None:
    assert manager_of(SOCKET | variables).watchdog_s == watchdog_s


@pytest.mark.parametrize("named", ["", "vsock:2:1234", "run/notify"])
def test_without_a_socket_nobody_is_told(named: str) -> None:
    assert manager_of({"NOTIFY_SOCKET": named, "WATCHDOG_USEC": "1000"}) == Manager()


async def test_it_is_ready_when_the_endpoint_answers_and_gives_signs_of_life(
    autojump_clock: trio.abc.Clock,
) -> None:
    network, told = MemoryNetwork(), list[tuple[float, str]]()

    def tell(state: str) -> None:
        told.append((trio.current_time(), state))

    environment = Environment(
        network.dial, network.listen, virtual_now_ms, random.Random(1), manager=Manager(tell, 30.0)
    )
    async with trio.open_nursery() as nursery:
        assert told == []
        await nursery.start(service.run, settings_for_tests(), environment)
        began, ready = told[0]
        assert ready.split("\n") == ["READY=1", "STATUS=serves http://push:80"]
        await (await network.dial("push", 80)).aclose()
        await trio.sleep(61)
        assert told[1:] == [(began + 15 * n, "WATCHDOG=1") for n in range(1, 5)]
        nursery.cancel_scope.cancel()
