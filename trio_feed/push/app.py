"""The ASGI application: the WebSocket endpoint with its sessions, and the HTTP routes beside it."""

from collections.abc import Callable, Mapping
from math import inf
from typing import Never

import structlog
import trio
from attrs import define, field
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import StoreError
from ..settings import AuthSettings, PublisherSettings
from . import parsing, protocol
from .edge.clients import ALIVE, Probes
from .edge.pages import Dashboard
from .edge.routes import (
    HttpRoutes,
    OperatorPages,
    OwnPages,
    ServiceReport,
    crashed,
    no_route,
    problem_response,
    refused,
    unavailable,
)
from .edge.throttle import RequestLimits, Verdict
from .edge.work import WorkGate, WorkLimits
from .fanout.sender import ClientTimeouts
from .fanout.transport import TextTransport, Transport
from .fanout.waiting import WaitingBytes
from .mounted import MountedRoutes
from .mounts import Conversation, Mount, Opening
from .private.auth import names_token
from .private.settlement_endpoint import SettlementEndpoint
from .protocol import RequestError
from .session import Receive, Session, SessionContext

log = structlog.get_logger()

_SWEPT_AT_ONCE = 128
_PROBE_KEPT_S = 0.25
_OF_A_BODY = ("content-length", "content-type")
_HANDLERS = {
    RequestError: refused,
    StoreError: unavailable,
    HTTPException: no_route,
    Exception: crashed,
}


@define
class PushApp:
    """The open sessions, and what they and the routes need.

    ``report`` tells the feeds' part of the status page, ``waiting`` are the bytes that wait for all
    clients.  ``klines`` False leaves out the WebSocket endpoint.  ``mounts``, by name, are
    what else is served, each under its prefix.  ``origins``: pages of others that
    may read answers (CORS); who else may ask at all is checked before.
    """

    context: SessionContext
    report: ServiceReport
    requests: RequestLimits
    settlement: SettlementEndpoint
    klines: bool = True
    mounts: Mapping[str, Mount] = field(factory=dict)
    waiting: WaitingBytes = field(factory=WaitingBytes)
    operators: OperatorPages | None = None
    """What the operators' pages say; None: of this process."""
    origins: tuple[str, ...] = ()
    sessions: set[Conversation] = field(factory=set)
    _left: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _unused_since: dict[Conversation, float] = field(factory=dict)

    def asgi(self, *, with_admin: bool = True) -> Starlette:
        """The ASGI application.  Every request is served until it ends or is cancelled.

        ``with_admin`` False: metrics and status are only where :meth:`admin_asgi` is served.
        """
        pages = self._pages(self.context.work)
        endpoint = (
            [WebSocketRoute("/ws", self._websocket), Route("/ws", _no_upgrade)]
            if self.klines
            else []
        )
        return Starlette(
            routes=[
                *endpoint,
                *Dashboard(klines=self.klines, operators=with_admin).routes(),
                *pages.probes(),
                *(pages.admin() if with_admin else []),
                *pages.data(),
                Route("/api/v1/settlement/events", self._settlement, methods=["POST"]),
                *(self._mounted(mount).under_prefix() for mount in self.mounts.values()),
                WebSocketRoute("/{path:path}", _no_endpoint),
            ],
            middleware=self._middleware(),
            exception_handlers=_HANDLERS,
        )

    def mount_asgi(self, mount: Mount) -> Starlette:
        """The ASGI application of one mount on a bind of its own, without its prefix."""
        routes = self._mounted(mount).at_root()
        middleware = self._middleware()
        return Starlette(routes=routes, middleware=middleware, exception_handlers=_HANDLERS)

    def _mounted(self, mount: Mount) -> MountedRoutes:
        return MountedRoutes(mount, self.context.work, self._converse)

    def _middleware(self) -> list[Middleware]:
        cors = Middleware(
            _Cors,
            allow_origins=self.origins,
            allow_methods=("GET", "HEAD"),
            expose_headers=("Retry-After",),
        )
        return [cors]

    def admin_asgi(self) -> Starlette:
        """The ASGI application of the operators' port: probes, metrics and status, which no client
        keeps from its turn, and the dashboard's part for operators."""
        pages = self._pages(WorkGate(WorkLimits(), self.context.metrics))
        dashboard = Dashboard(klines=False, operators=True)
        nowhere = WebSocketRoute("/{path:path}", _no_endpoint)
        routes = [*dashboard.routes(), *pages.probes(), *pages.admin(), nowhere]
        return Starlette(routes=routes, exception_handlers=_HANDLERS)

    def probes(self) -> Probes:
        """For the server, which answers them also where it has no place for a client: strangers may
        ask any number of times, so an answer serves for a moment."""
        kept: tuple[float, tuple[int, str]] = (-inf, (503, ""))

        def ready() -> tuple[int, str]:
            nonlocal kept
            if trio.current_time() - kept[0] >= _PROBE_KEPT_S:
                kept = trio.current_time(), self.report.readiness()
            return kept[1]

        return {**ALIVE, "/ready": ready}

    def _pages(self, work: WorkGate) -> HttpRoutes:
        context = self.context
        return HttpRoutes(
            context.hub,
            context.store,
            context.limits.history_rows,
            context.metrics,
            work,
            self.report,
            self._clients,
            self.operators or OwnPages(context.metrics, self.report, self._clients),
        )

    def _clients(self) -> list[Conversation]:
        return list(self.sessions)

    def disconnect_all(self, after_ms: Callable[[], int]) -> None:
        """Tell every client to come back (``after_ms`` from now) and close with 1012."""
        for session in list(self.sessions):
            session.restarting(after_ms())

    def replace_keys(self, auth: AuthSettings, publishers: tuple[PublisherSettings, ...]) -> None:
        """Who may come in from now on.  Connections of a key that is gone end at once.  Raises
        SettingsError for a key file that cannot be used; then nothing changes."""
        self.context.access.authenticator.replace_keys(auth)
        self.settlement.replace_publishers(publishers)
        for session in list(self.sessions):
            session.end_if_revoked()

    async def wait_empty(self) -> None:
        """Wait until the last session has ended; the caller bounds it."""
        while self.sessions:
            await self._left.park()

    async def sweep(self, timeouts: ClientTimeouts) -> None:
        """Ping, abort or disconnect each client whose timeouts have passed; measure the queues."""
        now, total, most = trio.current_time(), 0, 0
        for number, session in enumerate(list(self.sessions), 1):
            waiting = session.sweep(now, timeouts)
            total, most = total + waiting, max(most, waiting)
            if number % _SWEPT_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        self.context.metrics.queued_bytes.set(total)
        self.context.metrics.most_queued_bytes.set(most)

    async def close_unused(self, after_s: float) -> Never:
        """Close the connections that were for ``after_s`` of no use to their clients."""
        while True:
            await trio.sleep(after_s / 10)
            now = trio.current_time()
            for session in list(self.sessions):
                if session.engaged:
                    self._unused_since.pop(session, None)
                elif now - self._unused_since.setdefault(session, now) >= after_s:
                    session.unused(f"neither subscribed nor authenticated for {after_s:g} s")

    def _throttled(self, websocket: WebSocket, session: Conversation) -> Receive:
        """The client's messages within its rate limit; those beyond it are refused."""
        bucket = self.requests.bucket()

        async def receive() -> str | bytes | None:
            while (text := await _next(websocket)) is not None:
                verdict = bucket.take(trio.current_time())
                if verdict is Verdict.SERVE:
                    break
                problem = f"more than {self.requests.per_s:g} requests a second"
                if verdict is Verdict.REFUSE:
                    session.too_many(problem, text)
                else:
                    session.flooded(problem, text)
            return text

        return receive

    async def _websocket(self, websocket: WebSocket) -> None:
        if names_token(websocket.query_params):
            text = "a token does not belong into a URL; send it in an auth request"
            denial = problem_response(400, text, protocol.AUTH_FAILED)
            await websocket.send_denial_response(denial)
            return
        parsing.check_parameters(websocket.query_params.multi_items())
        await self._converse(websocket, self._native)

    def _native(self, opening: Opening) -> Session:
        return Session(
            self.context,
            opening.transport,
            deflated=opening.deflated,
            host=opening.host,
            account=opening.account,
        )

    async def _converse(
        self, websocket: WebSocket, make: Callable[[Opening], Conversation]
    ) -> None:
        """Accept, and serve the client until it has gone."""
        await websocket.accept()
        stream: Transport | None = getattr(websocket.state, "stream", None)
        opening = Opening(
            TextTransport(websocket.send_text) if stream is None else stream,
            deflated=stream is not None and getattr(websocket.state, "deflate", False),
            host=websocket.client.host if websocket.client else "",
            account=getattr(websocket.state, "account", None),
        )
        session = make(opening)
        receive = self._throttled(websocket, session)
        self.sessions.add(session)
        try:
            await session.run(receive, websocket.close)
        except* (WebSocketDisconnect, trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("client.broken", client_id=session.client_id)
        finally:
            self.sessions.discard(session)
            self._unused_since.pop(session, None)
            self._left.unpark_all()

    async def _settlement(self, request: Request) -> Response:
        headers = request.headers
        parsing.check_parameters(request.query_params.multi_items())
        try:
            reply = await self.settlement.answer(
                headers.get("authorization", ""), headers.get("content-length"), request.stream()
            )
        except ClientDisconnect:
            return Response(status_code=400)
        return Response(
            reply.text, reply.status, dict(reply.headers), media_type="application/json"
        )


class _Cors(CORSMiddleware):
    """A preflight that is refused is answered in JSON too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        headers = {name: value for name, value in answer.headers.items() if name not in _OF_A_BODY}
        return problem_response(answer.status_code, bytes(answer.body).decode(), headers=headers)


async def _no_upgrade(_request: Request) -> Response:
    """RFC 9110, 15.5.22."""
    text = "/ws is a WebSocket endpoint: connect to it with ws:// (under TLS wss://)"
    return problem_response(426, text, headers={"Upgrade": "websocket", "Connection": "Upgrade"})


async def _no_endpoint(websocket: WebSocket) -> None:
    text = f"{websocket.url.path[:100]}: no WebSocket endpoint; it is /ws on the clients' port"
    await websocket.send_denial_response(problem_response(404, text))


async def _next(websocket: WebSocket) -> str | bytes | None:
    """The client's next message; None: it has gone."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text: str | bytes | None = message.get("text")
    return text if text is not None else message.get("bytes") or b""
