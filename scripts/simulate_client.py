"""The client of a simulated service: it subscribes and notes what it receives."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from scripts.simulate_wire import Ended, Wire
from trio_feed.testing.record import Record

_ASK_AGAIN_S = 60.0
_NAMES = ("symbol", "interval")


async def listen(
    stream: trio.abc.Stream,
    requests: list[dict[str, Any]],
    record: Record,
    *,
    later: list[dict[str, Any]],
    is_complete: Callable[[], bool],
    complete: trio.Event,
) -> str:
    """Subscribe and note until the connection ends; returns why it did.  ``complete`` is set when
    ``is_complete``.  ``later``: what is asked for each minute until it is confirmed."""
    async with trio.open_nursery() as nursery:
        left = dict(enumerate(later))
        try:
            wire = await Wire.open(stream, "push", "/ws")
            for request in requests:
                await wire.send(json.dumps({"type": "subscribe", **request}))
            if left:
                nursery.start_soon(_ask_again, wire, left)
            while True:
                for text in await wire.receive():
                    message = json.loads(text)
                    record.note(message, trio.current_time())
                    if left and message["type"] == "subscription_confirmed":
                        for number, asked in [*left.items()]:
                            if all(message["data"].get(k) == asked.get(k) for k in _NAMES):
                                del left[number]
                if is_complete():
                    complete.set()
        except Ended as error:
            nursery.cancel_scope.cancel()
            reason = str(error)
    return reason


async def _ask_again(wire: Wire, left: dict[int, dict[str, Any]]) -> None:
    while left:
        await trio.sleep(_ASK_AGAIN_S)
        for number, request in [*left.items()]:
            message = {"type": "subscribe", "id": number, **request}
            with suppress(Ended):  # who reads is told
                await wire.send(json.dumps(message))
