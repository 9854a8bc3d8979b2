"""The tables of :mod:`.mounts`: answers as starlette routes, and who serves a WebSocket."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial

from attrs import evolve, field, frozen
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.routing import Mount as StarletteMount

from .demand import Desk
from .edge.error_boundary import ClientGone
from .edge.turns import Asker, asker_at
from .edge.work import Busy, WorkGate
from .mounts import Answerer, Conversation, Errand, Mount, Opening, Question, Reply, Work

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def opened_at(
    mount: Mount, question: Question, prefix: str
) -> Callable[[Opening], Conversation] | Reply:
    """Who converses with the client that asks for a WebSocket of the mount, or why nobody does.
    ``prefix`` is what its paths stand behind."""
    path = question.path.removeprefix(prefix)
    for socket in mount.sockets:
        stem, any_rest, _ = socket.path.partition("*")
        if path == stem or (any_rest and path.startswith(stem)):
            target = question.target.removeprefix(prefix.encode())
            asked = evolve(question, rest=path.removeprefix(stem), target=target)
            refusal = socket.refusal(asked)
            if refusal is None:
                return partial(_opened, socket.open, asked)
            break
    else:
        refusal = mount.no_route(evolve(question, rest=path.removeprefix("/")), 404)
    return evolve(refusal, headers={**mount.headers(question.host), **refusal.headers})


def _opened(
    make: Callable[[Opening, Question], Conversation], question: Question, opening: Opening
) -> Conversation:
    return make(opening, question)


@frozen
class MountedRoutes:
    """The routes of one mount.  ``work`` is the gate that orders of all clients pass, ``desk``
    where symbols on demand are asked for."""

    mount: Mount
    work: WorkGate
    desk: Desk = field(factory=Desk)

    def under_prefix(self) -> list[BaseRoute]:
        """The prefix alone is a path of the mount, too, and not redirected."""
        prefix = self.mount.prefix
        bare = Route(prefix, self._no_route, methods=_METHODS)
        return [bare, StarletteMount(prefix, routes=self.at_root())]

    def on_own_bind(self) -> list[BaseRoute]:
        """Without its prefix, and with it, for who changed the port of a URL only."""
        return [*self.under_prefix(), *self.at_root()]

    def at_root(self) -> list[BaseRoute]:
        """Without its prefix."""
        found: list[BaseRoute] = [
            Route(path, partial(self._run_errand, errand), methods=[method])
            for (method, path), errand in self.mount.errands.items()
        ]
        found += [
            Route(path, partial(self._answer, answerer), methods=["GET"])
            for path, answerer in self.mount.answers.items()
        ]
        return [*found, Route("/{rest:path}", self._no_route, methods=_METHODS)]

    async def _answer(self, answerer: Answerer, request: Request) -> Response:
        question = _question(request)
        try:
            make = partial(answerer, question)
            work = await self.desk.serve(_asker(request), make, patient=True)
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
        asker = _asker(request)
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


def _asker(request: Request) -> Asker:
    client = request.client
    return asker_at(client.host, str(client.port)) if client else asker_at("", "")


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
        scope["method"],
        target + b"?" + query if query else target,
        scope["headers"],
    )
