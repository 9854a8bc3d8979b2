"""The application: the WebSocket endpoint with its sessions, and the HTTP routes beside it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Never

import trio
from attrs import define, field
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..errors import StoreError
from ..settings import AuthSettings, PublisherSettings
from . import parsing, protocol
from .context import SessionContext
from .demand import find_topic
from .edge.clients import ALIVE, Probes
from .edge.pages import Dashboard
from .edge.question import Question, Reply
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
from .edge.shared import Application, refuse
from .edge.throttle import RequestLimits, Verdict
from .edge.turns import Asker
from .edge.websocket import ClientWebSocket, Handler
from .edge.work import WorkGate, WorkLimits
from .fanout.sender import ClientTimeouts
from .fanout.topics import Topic
from .fanout.waiting import WaitingBytes
from .mounted import MountedRoutes, opened_at
from .mounts import Conversation, Mount, Opening
from .portions import in_portions
from .private.auth import names_token
from .private.settlement_endpoint import SettlementEndpoint
from .problems import problem
from .protocol import HISTORY_FAILED, RequestError, Target
from .session import Receive, Session

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

    def whole(self, *, with_admin: bool = True) -> Application:
        """The clients' port.  Every request is served until it ends or is cancelled.

        ``with_admin`` False: metrics and status are only where :meth:`admin` is served.
        """
        pages = self._pages(self.context.work)
        routes = [
            *([Route("/ws", _no_upgrade)] if self.klines else []),
            *Dashboard(klines=self.klines, operators=with_admin).routes(),
            *pages.probes(),
            *(pages.admin() if with_admin else []),
            *pages.data(),
            Route("/api/v1/settlement/events", self._settlement, methods=["POST"]),
            *(each for m in self.mounts.values() for each in self._mounted(m).under_prefix()),
        ]
        asgi = self._starlette(routes, self._middleware())
        return Application(asgi, self._any_websocket, self._refuse)

    def alone(self, mount: Mount) -> Application:
        """One mount on a bind of its own, without its prefix or with it."""
        asgi = self._starlette(self._mounted(mount).on_own_bind(), self._middleware())

        def refused(_path: str, status: int, problem: str) -> Reply:
            return mount.refuse(status, problem)

        def websocket(question: Question) -> Handler | Reply:
            prefix = mount.prefix if _is_under(mount, question.path) else ""
            return self._mount_websocket(mount, question, prefix)

        return Application(asgi, websocket, refused)

    def admin(self) -> Application:
        """The operators' port: probes, metrics and status, which no client keeps from its turn,
        and the dashboard's part for operators."""
        pages = self._pages(WorkGate(WorkLimits(), self.context.metrics))
        dashboard = Dashboard(klines=False, operators=True)
        routes = [*dashboard.routes(), *pages.probes(), *pages.admin()]
        return Application(self._starlette(routes, []), _no_endpoint)

    def _starlette(self, routes: Sequence[BaseRoute], middleware: list[Middleware]) -> Starlette:
        return Starlette(routes=routes, middleware=middleware, exception_handlers=_HANDLERS)

    def _mounted(self, mount: Mount) -> MountedRoutes:
        return MountedRoutes(mount, self.context.work, self.context.desk)

    def _middleware(self) -> list[Middleware]:
        cors = Middleware(
            _Cors,
            allow_origins=self.origins,
            allow_methods=("GET", "HEAD"),
            expose_headers=("Retry-After",),
        )
        return [cors]

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
            self._find,
            self._clients,
            self.operators or OwnPages(context.metrics, self.report, self._clients),
        )

    async def _find(self, target: Target, asker: Asker) -> Topic:
        hub, desk = self.context.hub, self.context.desk
        return await find_topic(hub, desk, target, asker, HISTORY_FAILED, patient=True)

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
        async for session in in_portions(list(self.sessions), _SWEPT_AT_ONCE):
            waiting = session.sweep(now, timeouts)
            total, most = total + waiting, max(most, waiting)
        self.context.metrics.queued_bytes.set(total)
        self.context.metrics.most_queued_bytes.set(most)

    async def close_unused(self, after_s: float) -> Never:
        """Close the connections that were for ``after_s`` of no use to their clients."""
        while True:
            await trio.sleep(after_s / 10)
            now = trio.current_time()
            async for session in in_portions(list(self.sessions), _SWEPT_AT_ONCE):
                if session.engaged:
                    self._unused_since.pop(session, None)
                elif session not in self.sessions:  # it has gone meanwhile
                    continue
                elif now - self._unused_since.setdefault(session, now) >= after_s:
                    session.unused(f"neither subscribed nor authenticated for {after_s:g} s")

    def _any_websocket(self, question: Question) -> Handler | Reply:
        if self.klines and question.path == "/ws":
            return self._own_websocket(question)
        mount = self._mount_of(question.path)
        if mount is None:
            return _no_endpoint(question)
        return self._mount_websocket(mount, question, prefix=mount.prefix)

    def _mount_of(self, path: str) -> Mount | None:
        return next((each for each in self.mounts.values() if _is_under(each, path)), None)

    def _refuse(self, path: str, status: int, problem: str) -> Reply:
        mount = self._mount_of(path)
        return refuse(path, status, problem) if mount is None else mount.refuse(status, problem)

    def _own_websocket(self, question: Question) -> Handler | Reply:
        if names_token(dict(question.query)):
            text = "a token does not belong into a URL; send it in an auth request"
            return Reply(problem(400, text, protocol.AUTH_FAILED), 400)
        try:
            parsing.check_parameters(question.query)
        except RequestError as error:
            return Reply(problem(400, str(error), error.code), 400)
        return partial(self._converse, self._native, question.host)

    def _native(self, opening: Opening) -> Session:
        return Session(
            self.context,
            opening.transport,
            deflated=opening.deflated,
            host=opening.host,
            account=opening.account,
            inbox=opening.inbox,
        )

    def _mount_websocket(self, mount: Mount, question: Question, prefix: str) -> Handler | Reply:
        opened = opened_at(mount, question, prefix)
        if isinstance(opened, Reply):
            return opened
        return partial(self._converse, opened, question.host)

    async def _converse(
        self, make: Callable[[Opening], Conversation], host: str, websocket: ClientWebSocket
    ) -> None:
        """Serve the client until it has gone."""
        opening = Opening(
            websocket.stream,
            deflated=websocket.deflated,
            host=host,
            account=websocket.account,
            inbox=websocket,
        )
        session = make(opening)
        self.sessions.add(session)
        try:
            await session.run(self._throttled(websocket, session), websocket.close)
        finally:
            self.sessions.discard(session)
            self._unused_since.pop(session, None)
            self._left.unpark_all()

    def _throttled(self, websocket: ClientWebSocket, session: Conversation) -> Receive:
        """The client's messages within its rate limit; those beyond it are refused."""
        bucket = self.requests.bucket()

        async def receive() -> str | bytes | None:
            while (text := await websocket.receive()) is not None:
                verdict = bucket.take(trio.current_time())
                if verdict is Verdict.SERVE:
                    break
                why = f"more than {self.requests.per_s:g} requests a second"
                if verdict is Verdict.REFUSE:
                    session.too_many(why, text)
                else:
                    session.flooded(why, text)
            return text

        return receive

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


def _is_under(mount: Mount, path: str) -> bool:
    return f"{path}/".startswith(f"{mount.prefix}/")


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


def _no_endpoint(question: Question) -> Reply:
    text = f"{question.path[:100]}: no WebSocket endpoint; it is /ws on the clients' port"
    return Reply(problem(404, text), 404)
