"""HTTP routes beside the WebSocket endpoint: probes, metrics, status, candles and symbols."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from math import ceil
from typing import Any, Protocol

from attrs import frozen
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ...errors import StoreError
from ...metrics import Metrics
from ...model import Series, StreamKey
from ...store import CandleReader
from .. import parsing, protocol
from ..fanout import history
from ..fanout.hub import Hub
from ..fanout.topics import Topic
from ..portions import in_portions
from ..problems import problem
from ..protocol import RequestError, Target
from .clients import ALIVE
from .error_boundary import ClientGone
from .turns import Asker, asker_at
from .work import Busy, WorkGate

_JSON_TYPE = "application/json"
_PAGE_ROWS = 500
"""What an operators' page costs, which is one piece of work of some milliseconds."""
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@frozen
class ServiceReport:
    """``status`` returns the status page; ``not_ready`` why the data is not fresh, ``clock`` what
    is wrong with our clock, both empty if nothing is."""

    status: Callable[[], dict[str, Any]]
    not_ready: Callable[[], str]
    clock: Callable[[], str]

    def readiness(self) -> tuple[int, str]:
        """Status and JSON of ``/ready``."""
        problem, clock = self.not_ready(), self.clock()
        more = {"clock": clock} if clock else {}
        if problem:
            return 503, json.dumps({"ready": False, "reason": problem, **more})
        return 200, json.dumps({"ready": True, **more})


class Listed(Protocol):
    """A connected client, as the status page lists it."""

    def statistics(self) -> dict[str, Any]: ...


class OperatorPages(Protocol):
    """What the pages for operators say.  Both raise StoreError where that cannot be had now."""

    async def metrics(self) -> bytes:
        """The text of ``/metrics``."""

    async def status(self) -> str:
        """The JSON of ``/api/v1/status``."""


@frozen
class OwnPages:
    """Those of one process."""

    registry: Metrics
    report: ServiceReport
    clients: Callable[[], Sequence[Listed]]

    async def metrics(self) -> bytes:
        return self.registry.exposition()

    async def status(self) -> str:
        clients = self.clients()
        entries = [json.dumps(c.statistics()) async for c in in_portions(clients)]
        return with_list(self.report.status(), "clients", entries)


@frozen
class HttpRoutes:
    """``history_rows`` is the default limit; ``clients`` are those of this process.  ``find``
    gives the topic that is asked for; it raises RequestError and Busy.

    What takes work waits for its turn (``work``), and a HEAD does none of it."""

    hub: Hub
    store: CandleReader
    history_rows: int
    metrics: Metrics
    work: WorkGate
    report: ServiceReport
    find: Callable[[Target, Asker], Awaitable[Topic]]
    clients: Callable[[], Sequence[Listed]]
    pages: OperatorPages

    def probes(self) -> list[Route]:
        """Alive and ready, for load balancers and supervisors."""
        return [Route("/health", self._health), Route("/ready", self._ready)]

    def admin(self) -> list[Route]:
        """Metrics and status, for operators."""
        return [
            Route("/metrics", self._metrics_page),
            Route("/api/v1/status", self._status_page),
        ]

    def data(self) -> list[Route]:
        """Candles and symbols, for clients."""
        return [
            Route("/api/v1/klines", self._klines),
            Route("/api/v1/symbols", self._symbols),
        ]

    async def _health(self, _request: Request) -> Response:
        status, text = ALIVE["/health"]()
        return PlainTextResponse(text, status, media_type=_JSON_TYPE)

    async def _ready(self, _request: Request) -> Response:
        status, text = self.report.readiness()
        return PlainTextResponse(text, status, media_type=_JSON_TYPE)

    async def _metrics_page(self, request: Request) -> Response:
        _check_parameters(request)

        async def page() -> Response:
            return Response(await self.pages.metrics(), media_type=_METRICS_TYPE)

        return await self._ordered(request, _PAGE_ROWS, page, _METRICS_TYPE)

    async def _status_page(self, request: Request) -> Response:
        _check_parameters(request)

        async def page() -> Response:
            return Response(await self.pages.status(), media_type=_JSON_TYPE)

        return await self._ordered(request, _PAGE_ROWS + len(self.clients()), page)

    async def _symbols(self, request: Request) -> Response:
        _check_parameters(request)
        keys = [topic.stream_key for topic in self.hub.topics]

        async def page() -> Response:
            entries = [json.dumps(_entry(key)) async for key in in_portions(keys)]
            text = with_list({"symbols": self.hub.symbols}, "series", entries)
            return Response(text, media_type=_JSON_TYPE)

        return await self._ordered(request, len(keys), page)

    async def _klines(self, request: Request) -> Response:
        try:
            _check_parameters(request, *parsing.HISTORY_PARAMETERS)
            question = parsing.parse_query(request.query_params)
            target = question.target
            topic = await self.find(target, _asker(request))
            own = target.splice()
            limit = question.limit or self.history_rows

            async def page() -> Response:
                body = await history.answer(self.store, topic.stream, own, question, limit)
                return Response(body, media_type=_JSON_TYPE)

            return await self._ordered(request, limit, page)
        except Busy as busy:
            return _again(busy)
        except StoreError as error:
            return problem_response(503, str(error), protocol.HISTORY_FAILED)

    async def _ordered(
        self,
        request: Request,
        rows: int,
        page: Callable[[], Awaitable[Response]],
        media_type: str = _JSON_TYPE,
    ) -> Response:
        """The page, when its turn has come; 429 where it does not."""
        if request.method == "HEAD":
            head = Response(media_type=media_type)
            del head.headers["content-length"]  # only the work would tell
            return head
        try:
            with getattr(request.state, "while_there", nullcontext)():
                async with self.work.turn(_asker(request), rows):
                    return await page()
            raise ClientGone("the client has gone")
        except Busy as busy:
            return _again(busy)


def _asker(request: Request) -> Asker:
    client = request.client
    return asker_at(client.host, str(client.port)) if client else asker_at("", "")


def _again(busy: Busy) -> Response:
    again = {"Retry-After": str(ceil(busy.retry_after_s))}
    return problem_response(429, str(busy), headers=again)


def problem_response(
    status: int, message: str, code: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """See :func:`..problems.problem`."""
    return Response(problem(status, message, code), status, headers, "application/json")


async def refused(_request: Request, error: Exception) -> Response:
    """The answer to a question that cannot be served."""
    assert isinstance(error, RequestError), "it is registered for no other"
    return problem_response(400, str(error), error.code)


async def unavailable(_request: Request, error: Exception) -> Response:
    """The answer where what a page is made of cannot be had now."""
    return problem_response(503, str(error))


async def crashed(_request: Request, _error: Exception) -> Response:
    """The answer where a bug comes out of a route; Starlette raises it again behind the answer."""
    return problem_response(500, "a bug of the server; its log says which")


async def no_route(request: Request, error: Exception) -> Response:
    """The answer to a path or a method that is none of ours."""
    assert isinstance(error, HTTPException), "it is registered for no other"
    what = {404: f"{request.url.path[:100]}: no such page", 405: f"{request.method}: not here"}
    message = what.get(error.status_code, error.detail)
    return problem_response(error.status_code, message, headers=error.headers)


def _check_parameters(request: Request, *known: str) -> None:
    """Probes take any, for what a load balancer adds to keep caches out.  Raises RequestError."""
    parsing.check_parameters(request.query_params.multi_items(), known)


def _entry(stream_key: StreamKey) -> dict[str, str]:
    what = (
        {"channel": "kline", "interval": stream_key.interval.value}
        if isinstance(stream_key, Series)
        else {"channel": stream_key.channel.value}
    )
    return {"exchange": stream_key.venue, "symbol": stream_key.symbol, **what}


def with_list(value: dict[str, Any], name: str, entries: Sequence[str]) -> str:
    """``value`` as JSON with one list more, whose entries are JSON already."""
    text = json.dumps({**value, name: []}).removesuffix("]}")
    return f"{text}{', '.join(entries)}]}}"
