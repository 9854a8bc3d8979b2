"""Recordings of a real exchange, served again over a WebSocket.

A recording is a text file (exchanges.md section 7, cryptofeed's format): the first line is
``wss://url <-> <unix s>``, then ``wss://url <- <unix s>: <json>`` is what the client sent and
``<unix s>: <json>`` what it received; received texts may be Python bytes literals.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio
from attrs import frozen

from ..errors import BadMessage, ConnectionLost
from .machinery.wire import Limits, OnOpen, Request, Response, WebSocketPeer, serve_stream

_LINE = re.compile(
    r"(?:(?P<url>wss?://\S+) (?P<way><->|<-) )?(?P<ts>\d+(?:\.\d+)?)(?:: (?P<payload>.*))?"
)
_BASES = ("/market", "/public", "/private")
_LIMITS = Limits(silence_s=24 * 3600.0)  # a paced replay has long pauses and no pings


class _Wrapped(msgspec.Struct):
    stream: str | None = None


@frozen
class Recording:
    """One recorded connection.  Times are unix seconds; payloads the texts of the frames."""

    url: str
    sent: list[tuple[float, str]]
    received: list[tuple[float, str]]

    @property
    def streams(self) -> frozenset[str]:
        """The streams in the URL, combined or raw (Binance); empty where they were sent later."""
        target = urlsplit(self.url)
        return frozenset(_streams(target.path, parse_qs(target.query).get("streams", [""])[-1]))


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


async def serve_replay(
    recording: Recording,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    speed: float | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a recording to every client, each from the beginning, until cancelled.

    A client names recorded streams in its URL, all or some (it gets only theirs), under any of
    the paths ``/ws`` and ``/stream`` with or without ``/market``, ``/public``; where the recording
    has none in its URL, the path must be the recorded one and the replay begins with the
    client's first message.  The form (raw, combined) is as recorded, so ``/ws`` for ``/stream``
    is refused with 404.  ``speed`` None: at once; 1.0: as recorded; 60.0: a minute in a second.
    Ends each connection with close 1000.  Closes the listeners.
    """

    def on_upgrade(request: Request) -> Response | OnOpen:
        names = _admitted(recording, request)
        if names is None:
            return Response(404)

        async def opened(peer: WebSocketPeer) -> None:
            await _replay(recording, names, peer, speed)

        return opened

    async def handle(stream: trio.abc.Stream) -> None:
        await serve_stream(stream, lambda _request: Response(404), on_upgrade, _LIMITS)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, [*listeners], name="replay.listen")
        task_status.started()


def _admitted(recording: Recording, request: Request) -> frozenset[str] | None:
    """The streams that this client gets (empty: everything), None: not this recording."""
    recorded, asked = _form(urlsplit(recording.url).path), _form(request.path)
    if recorded != asked:
        return None
    names = frozenset(_streams(request.path, request.query.get("streams", "")))
    if asked == "stream":
        return names if names and names <= recording.streams else None
    return frozenset() if names == recording.streams else None


def _form(path: str) -> str:
    """``ws`` or ``stream``, whatever base is before it; any other path is its own form."""
    _, bare = _without_base(path).split("/", 1) if path.startswith("/") else ("", path)
    return bare.split("/")[0] if bare.split("/")[0] == "ws" or bare == "stream" else path


def _without_base(path: str) -> str:
    base = next((base for base in _BASES if path.startswith(base + "/")), "")
    return path.removeprefix(base)


def _streams(path: str, query: str) -> Iterable[str]:
    path = _without_base(path)
    text = query if path == "/stream" else path.removeprefix("/ws") if path[:4] == "/ws/" else ""
    return (name for name in text.split("/") if name)


async def _replay(
    recording: Recording, names: frozenset[str], peer: WebSocketPeer, speed: float | None
) -> None:
    begun = trio.Event()
    if not recording.sent:
        begun.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, peer, begun, nursery.cancel_scope)
        with trio.move_on_after(peer.limits.idle_s):
            await begun.wait()
        with suppress(ConnectionLost):  # the client had enough
            await _play(recording, names, peer, speed)
        nursery.cancel_scope.cancel()


async def _listen(peer: WebSocketPeer, begun: trio.Event, everything: trio.CancelScope) -> None:
    """Answer pings, note the first message, notice the end."""
    try:
        while True:
            incoming = await peer.receive()
            if incoming.kind == "text":
                begun.set()
    except ConnectionLost:
        everything.cancel()


async def _play(
    recording: Recording, names: frozenset[str], peer: WebSocketPeer, speed: float | None
) -> None:
    started = trio.current_time()
    for at, payload in recording.received:
        if speed is not None:
            await trio.sleep_until(started + (at - recording.received[0][0]) / speed)
        if not names or (stream := _stream_of(payload)) is None or stream in names:
            await peer.send_text(payload)
    await peer.close(1000, "end of the recording")
    await trio.sleep(peer.limits.close_s)


def _stream_of(payload: str) -> str | None:
    """The stream of a combined frame; None for acks and errors, which are everybody's."""
    try:
        return msgspec.json.decode(payload, type=_Wrapped).stream
    except msgspec.DecodeError:
        return None
