"""A request for a WebSocket that was admitted: the application lets the client in, or does not."""

import trio

from .admission_check import CheckedH11
from .question import Reply
from .shared import Shared
from .stream import ClientStream
from .upgrade import denial, question_of, switching
from .websocket import CLOSE_S, ClientWebSocket, Handler

_BUG = "a bug ended the WebSocket before it began; the log says which"
_EARLY = "too_early: frames before the 101"


async def switched(
    shared: Shared, stream: ClientStream, head: CheckedH11, *, early: bool
) -> ClientWebSocket | None:
    """What the connection goes on as; None: the client has been told why not, and has read it.

    ``head`` has the ``upgrade``.  ``early``: more has come behind it already, but a client waits
    for the 101 (RFC 6455, 4.1).  Raises what the stream does.
    """
    request = head.upgrade
    assert request is not None, "the caller looked"
    address = stream.socket.peer
    question = question_of(request, address[0] if address else "")
    opened: Handler | Reply = shared.app.refuse(question.path, 500, _BUG)
    if early:
        shared.refusals.note("too_early", stream.peer)
        opened = shared.app.refuse(question.path, 400, _EARLY)
    else:
        with shared.boundary.around(stream.peer):
            opened = shared.app.websocket(question)
    if isinstance(opened, Reply):
        await _deny(stream, denial(opened))
        return None
    return ClientWebSocket(
        stream,
        opened,
        switching=switching(dict(request.headers)[b"sec-websocket-key"], head.deflate),
        deflated=head.deflate is not None,
        limits=shared.limits,
        boundary=shared.boundary,
        refusals=shared.refusals,
        waiting=shared.waiting,
        limiter=shared.limiter,
    )


async def _deny(stream: ClientStream, response: bytes) -> None:
    with trio.move_on_after(CLOSE_S):
        await stream.send_all(response)
        await stream.send_eof()
        stream.finish(CLOSE_S)
        await stream.receive_some()
