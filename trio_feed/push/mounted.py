"""The tables of :mod:`.mounts` as starlette routes."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial

from attrs import frozen
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.routing import Mount as StarletteMount
from starlette.websockets import WebSocket

from .edge.error_boundary import ClientGone
from .edge.turns import asker_at
from .edge.work import Busy, WorkGate
from .mounts import (
    Answerer,
    Conversation,
    Errand,
    Mount,
    Opening,
    Question,
    Reply,
    SocketPath,
    Work,
)

Converse = Callable[[WebSocket, Callable[[Opening], Conversation]], Awaitable[None]]
"""Accept the WebSocket and run a conversation over it."""


@frozen
class MountedRoutes:
    """The routes of one mount.  ``work`` is the gate that orders of all clients pass."""

    mount: Mount
    work: WorkGate
    converse: Converse

    def under_prefix(self) -> BaseRoute:
        return StarletteMount(self.mount.prefix, routes=self.at_root())

    def at_root(self) -> list[BaseRoute]:
        """For a bind of its own."""
        sockets: list[BaseRoute] = []
        for socket in self.mount.sockets:
            path = socket.path.replace("*", "{rest:path}")
            sockets.append(WebSocketRoute(path, partial(self._open, socket)))
        found: list[BaseRoute] = [
            Route(path, partial(self._run_errand, errand), methods=[method])
            for (method, path), errand in self.mount.errands.items()
        ]
        found += [
            Route(path, partial(self._answer, answerer), methods=["GET"])
            for path, answerer in self.mount.answers.items()
        ]
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        sockets.append(WebSocketRoute("/{rest:path}", self._no_socket))
        return [*sockets, *found, Route("/{rest:path}", self._no_route, methods=methods)]

    async def _open(self, socket: SocketPath, websocket: WebSocket) -> None:
        question = _question(websocket)
        refusal = socket.refusal(question)
        if refusal is not None:
            await websocket.send_denial_response(self._response(refusal, websocket))
        else:
            await self.converse(websocket, lambda opening: socket.open(opening, question))

    async def _no_socket(self, websocket: WebSocket) -> None:
        reply = self.mount.no_route(_question(websocket), 404)
        await websocket.send_denial_response(self._response(reply, websocket))

    async def _answer(self, answerer: Answerer, request: Request) -> Response:
        question = _question(request)
        try:
            work = answerer(question)
            reply = work if isinstance(work, Reply) else await self._in_turn(request, work)
        except Busy as busy:
            reply = self.mount.busy(busy)
        return self._response(reply, request)

    async def _run_errand(self, errand: Errand, request: Request) -> Response:
        if request.method == "HEAD":  # starlette's own addition to GET
            return await self._no_route(request)
        found = errand(_question(request))
        try:
            reply = found if isinstance(found, Reply) else await found(await request.body())
        except ClientDisconnect:
            reply = Reply(status=400)
        return self._response(reply, request)

    async def _in_turn(self, request: Request, work: Work) -> Reply:
        if request.method == "HEAD":
            return Reply()
        client = request.client
        asker = asker_at(client.host, str(client.port)) if client else asker_at("", "")
        with getattr(request.state, "while_there", nullcontext)():
            async with self.work.turn(asker, work.rows):
                return await work.answer()
        raise ClientGone("the client has gone")

    async def _no_route(self, request: Request) -> Response:
        known = request.url.path.removeprefix(self.mount.prefix) in self.mount.answers
        reply = self.mount.no_route(_question(request), 405 if known else 404)
        return self._response(reply, request)

    def _response(self, reply: Reply, connection: HTTPConnection) -> Response:
        host = connection.client.host if connection.client else ""
        headers: Mapping[str, str] = {**self.mount.headers(host), **reply.headers}
        if reply.fields is None:
            return Response(reply.body, reply.status, headers, reply.media_type)
        response = Response(reply.body, reply.status)
        response.raw_headers += reply.fields
        return response


def _question(connection: HTTPConnection) -> Question:
    scope = connection.scope
    target: bytes = scope.get("raw_path", b"")
    target = target.removeprefix(scope.get("root_path", "").encode())
    query: bytes = scope.get("query_string", b"")
    return Question(
        connection.url.path,
        connection.path_params.get("rest", ""),
        connection.query_params.multi_items(),
        dict(connection.headers.items()),
        connection.client.host if connection.client else "",
        scope.get("method", "WS"),
        target + b"?" + query if query else target,
        scope["headers"],
    )
