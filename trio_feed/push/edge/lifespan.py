"""The app's lifespan (ASGI 3): started before the first client, stopped after the last."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
import trio

from .error_boundary import first_of, last_line

log = structlog.get_logger()

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Any], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Lifespan:
    """``run`` it as a task, ``start`` it, and ``stop`` it in every case.

    ``state`` is what the app left there for its requests.  An app that knows no lifespan, and says
    so by returning or raising, is started.
    """

    def __init__(self, app: ASGIApp, *, startup_timeout_s: float, shutdown_grace_s: float) -> None:
        self.state: dict[str, Any] = {}
        self.failure: str | None = None
        self._app = app
        self._startup_timeout_s, self._shutdown_grace_s = startup_timeout_s, shutdown_grace_s
        self._started, self._stopping, self._stopped = trio.Event(), trio.Event(), trio.Event()
        self._told: list[str] = []
        # Shielded, so that the app gets a shutdown event, no cancellation; ``stop`` ends it.
        self._scope = trio.CancelScope(shield=True)

    async def run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"spec_version": "2.0", "version": "3.0"}}
        try:
            with self._scope:
                await self._app({**scope, "state": self.state}, self._receive, self._send)
        except* Exception as errors:  # noqa: BLE001  the way of saying "I know no lifespan"
            log.warning("server.lifespan_ended", error=last_line(first_of(errors)))
        finally:
            self._started.set()
            self._stopped.set()

    async def start(self) -> None:
        """Afterwards ``failure`` says why the app cannot start, or is None."""
        with trio.move_on_after(self._startup_timeout_s) as scope:
            await self._started.wait()
        if scope.cancelled_caught:
            self.failure = f"Timeout: the app has not started in {self._startup_timeout_s:g} s"

    async def stop(self) -> None:
        """Never raises; bounded by the grace."""
        self._stopping.set()
        grace = trio.CancelScope(shield=True, relative_deadline=self._shutdown_grace_s)
        if self.failure is None:
            with grace:
                await self._stopped.wait()
        if grace.cancelled_caught:
            log.error("server.lifespan_failed", error="the app's shutdown took too long")
        self._scope.cancel()

    async def _receive(self) -> Message:
        if not self._told:
            self._told.append("lifespan.startup")
        elif len(self._told) == 1:
            await self._stopping.wait()
            self._told.append("lifespan.shutdown")
        else:
            await trio.sleep_forever()
        return {"type": self._told[-1]}

    async def _send(self, message: Message) -> None:
        kind, said = message["type"], last_line(message.get("message", ""))
        if kind == "lifespan.startup.failed":
            self.failure = said or "the app's start-up failed"
        elif kind == "lifespan.shutdown.failed":
            log.error("server.lifespan_failed", error=said)
        (self._started if kind.startswith("lifespan.startup") else self._stopped).set()
