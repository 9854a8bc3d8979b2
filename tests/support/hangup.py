"""A SIGHUP under virtual time: threads read the settings, for which that time does not wait."""

import math
import time
from collections.abc import Sequence
from typing import Any

import trio
import trio.testing


async def until_logged(
    clock: trio.testing.MockClock, lines: Sequence[dict[str, Any]], event: str
) -> None:
    """Until a line of the log says so; virtual time stands still meanwhile."""
    clock.autojump_threshold = math.inf
    for _ in range(2_000):
        if any(line["event"] == event for line in lines):
            break
        await trio.to_thread.run_sync(time.sleep, 0.01)
    clock.autojump_threshold = 0.0
    assert any(line["event"] == event for line in lines), event
