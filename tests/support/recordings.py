"""Recordings of real exchanges: parsing, and serving one over a WebSocket.

A recording is a text file (exchanges.md section 7, cryptofeed's format): the first line is
``wss://url <-> <unix s>``, then ``wss://url <- <unix s>: <json>`` is what the client sent and
``<unix s>: <json>`` what it received; received texts may be Python bytes literals.
"""

import ast
import re
from collections.abc import Sequence

import trio
from attrs import frozen

from trio_feed.errors import BadMessage
from trio_feed.simulator.machinery.wire import Response, WebSocketPeer, serve_stream, text_frame

_LINE = re.compile(
    r"(?:(?P<url>wss?://\S+) (?P<way><->|<-) )?(?P<ts>\d+(?:\.\d+)?)(?:: (?P<payload>.*))?"
)


@frozen
class Recording:
    """One recorded connection.  Times are unix seconds; payloads the texts of the frames."""

    url: str
    sent: list[tuple[float, str]]
    received: list[tuple[float, str]]


def parse_recording(text: str) -> Recording:
    """The text of a recording file -> Recording.  Raises BadMessage with the line's number."""
    url = ""
    sent: list[tuple[float, str]] = []
    received: list[tuple[float, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None or (found["way"] != "<->" and found["payload"] is None):
            raise BadMessage(f"line {number} of the recording is of no known form", line)
        if found["way"] == "<->":
            if url:
                raise BadMessage(f"line {number} begins a second connection", line)
            url = found["url"]
            continue
        into = sent if found["way"] else received
        into.append((float(found["ts"]), _text(found["payload"], number)))
    if not url:
        raise BadMessage("the recording has no connection line", text)
    return Recording(url, sent, received)


def _text(payload: str, number: int) -> str:
    if not payload.startswith(("b'", 'b"')):
        return payload
    try:
        return bytes(ast.literal_eval(payload)).decode()
    except (ValueError, SyntaxError, TypeError) as error:
        raise BadMessage(f"line {number} is not a bytes literal", payload) from error


async def serve_recording(
    recording: Recording,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Every WebSocket gets all that was received, at once, and close 1000.  Until cancelled."""

    async def opened(peer: WebSocketPeer) -> None:
        for _, payload in recording.received:
            await peer.send_frames(text_frame(payload.encode()))
        await peer.close(1000, "end of the recording")
        await trio.sleep(peer.limits.close_s)

    async def handle(stream: trio.abc.Stream) -> None:
        await serve_stream(stream, lambda _request: Response(404), lambda _request: opened)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, [*listeners])
        task_status.started()
