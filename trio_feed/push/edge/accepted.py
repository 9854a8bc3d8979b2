"""An accepted connection up to its first request: TLS, and a head that says what it goes on as."""

import trio

from .admission_check import CheckedH11
from .connection import Connection
from .error_boundary import last_line
from .shared import Shared
from .stream import ClientStream
from .switching import switched
from .websocket import ClientWebSocket

_MAX_RECEIVE = 64 * 1024


class Accepted:
    """Used once; the caller closes ``stream``, unless the connection goes on.

    Nothing of it is worth to be finished when the server ends.
    """

    finishing = False

    def __init__(self, shared: Shared, stream: ClientStream) -> None:
        self.stream = stream
        deadline = trio.current_time() + shared.limits.handshake_timeout_s
        self.scope = trio.CancelScope(shield=True, deadline=deadline)
        self._shared = shared

    async def serve(self) -> Connection | ClientWebSocket | None:
        """What the connection goes on as; None: it does not."""
        with self.scope:
            try:
                await self.stream.secure()
            except trio.BrokenResourceError as error:
                what = f"{self.stream.peer}: {last_line(error.__cause__)}"
                self._shared.refusals.note("tls", what)
                return None
            try:
                return await self._first()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
        if trio.current_time() >= self.scope.deadline:
            self._shared.refusals.note("slow_head", self.stream.peer)
        return None

    async def _first(self) -> Connection | ClientWebSocket | None:
        shared = self._shared
        head = CheckedH11(shared.rules, shared.refusals.note, shared.limits)
        data, said = b"", False
        while not head.look():
            data = bytes(await self.stream.receive_some(_MAX_RECEIVE))
            if not data and not said:
                return None
            head.receive_data(data)
            said = True
        if head.upgrade is not None:
            return await switched(shared, self.stream, head, early=False)
        return Connection(shared, self.stream, head)
