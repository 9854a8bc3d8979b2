"""The client of a simulated service: it subscribes and notes what it receives."""

import json
from collections.abc import Callable
from typing import Any

import trio
import trio_websocket

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
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, "push", "/ws", message_queue_size=1000
        )
        left = dict(enumerate(later))
        try:
            for request in requests:
                await connection.send_message(json.dumps({"type": "subscribe", **request}))
            if left:
                nursery.start_soon(_ask_again, connection, left)
            while True:
                message = json.loads(await connection.get_message())
                record.note(message, trio.current_time())
                if message["type"] == "subscription_confirmed":
                    for number, asked in [*left.items()]:
                        if all(message["data"].get(k) == asked.get(k) for k in _NAMES):
                            del left[number]
                if is_complete():
                    complete.set()
        except trio_websocket.ConnectionClosed as error:
            nursery.cancel_scope.cancel()
            reason = str(error.reason)
    return reason


async def _ask_again(
    connection: trio_websocket.WebSocketConnection, left: dict[int, dict[str, Any]]
) -> None:
    while left:
        await trio.sleep(_ASK_AGAIN_S)
        for number, request in [*left.items()]:
            message = {"type": "subscribe", "id": number, **request}
            await connection.send_message(json.dumps(message))
