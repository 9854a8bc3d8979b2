"""An app's start and end: whatever it says, or does not say."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from trio_feed.push.edge.lifespan import Lifespan

App = Callable[[Any, Any, Any], Awaitable[None]]


async def life_of(app: App) -> tuple[Lifespan, list[Any], list[float]]:
    """Start, a second of service, stop; the lines and when each step was over."""
    life, times = Lifespan(app, startup_timeout_s=5, shutdown_grace_s=3), list[float]()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run)
            await life.start()
            times.append(trio.current_time())
            if life.failure is None:
                await trio.sleep(1)
            await life.stop()
            times.append(trio.current_time())
    times.append(trio.current_time())
    return life, [(line["event"], line.get("error")) for line in logs], times


def script(*steps: Any) -> App:
    """Sends texts (type and message), sleeps numbers, receives None, raises errors."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["left"] = "there"
        for step in steps:
            match step:
                case None:
                    received.append((await receive())["type"])
                case int() | float():
                    await trio.sleep(step)
                case Exception():
                    raise step
                case _:
                    kind, _, words = step.partition(" ")
                    await send({"type": f"lifespan.{kind}", "message": words})

    received.clear()
    return app


received: list[str] = []
UP, DOWN = "startup.complete", "shutdown.complete"


@pytest.mark.parametrize(
    ("steps", "failure", "lines", "times"),
    [
        ((None, UP, None, DOWN), None, [], [0, 1]),
        ((None, 2, UP, None, 1, DOWN), None, [], [2, 4]),
        ((), None, [], [0, 1]),  # it knows no lifespan
        ((KeyError("what\nnot"),), None, [("server.lifespan_ended", "'what\\nnot'")], [0, 1]),
        ((None, "startup.failed no\ndisk"), "disk", [], [0, 0]),
        ((None, "startup.failed"), "the app's start-up failed", [], [0, 0]),
        ((None, 9, UP), "Timeout: the app has not started in 5 s", [], [5, 5]),
        (
            (None, UP, None, 9, DOWN), None,
            [("server.lifespan_failed", "the app's shutdown took too long")], [0, 4],
        ),
        (
            (None, UP, None, "shutdown.failed a\nb"), None,
            [("server.lifespan_failed", "b")], [0, 1],
        ),
        ((None, UP, None, DOWN, None), None, [], [0, 1]),  # and waits for what never comes
    ],
)  # fmt: skip
async def test_lives(
    steps: tuple[Any, ...], failure: str | None, lines: list[Any], times: list[float],
    autojump_clock: trio.abc.Clock,
) -> None:  # fmt: skip
    life, logs, when = await life_of(script(*steps))
    assert (life.failure, logs) == (failure, lines)
    assert when == pytest.approx([*times, times[-1]])
    assert life.state == {"left": "there"}
    assert received == ["lifespan.startup", "lifespan.shutdown"][: steps.count(None)]
