"""HTTP routes beside the WebSocket endpoint: probes, metrics, status, candles and symbols."""

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ...errors import StoreError
from ...metrics import Metrics
from ...model import Series, StreamKey
from ...store import KlineStore
from .. import parsing, protocol
from ..fanout import history
from ..fanout.hub import Hub
from ..protocol import RequestError

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@frozen
class ServiceReport:
    """``status`` returns the status page; ``not_ready`` why the data is not fresh, ``clock`` what
    is wrong with our clock, both empty if nothing is."""

    status: Callable[[], dict[str, Any]]
    not_ready: Callable[[], str]
    clock: Callable[[], str]


@frozen
class HttpRoutes:
    """``history_rows`` is the default limit."""

    hub: Hub
    store: KlineStore
    history_rows: int
    metrics: Metrics
    report: ServiceReport

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
        return _json({"status": "alive"})

    async def _ready(self, _request: Request) -> Response:
        problem, clock = self.report.not_ready(), self.report.clock()
        more = {"clock": clock} if clock else {}
        if problem:
            return _json({"ready": False, "reason": problem, **more}, 503)
        return _json({"ready": True, **more})

    async def _metrics_page(self, _request: Request) -> Response:
        return Response(self.metrics.exposition(), media_type=_METRICS_TYPE)

    async def _status_page(self, _request: Request) -> Response:
        return _json(self.report.status())

    async def _symbols(self, _request: Request) -> Response:
        return _json(
            {
                "symbols": self.hub.symbols,
                "series": [_entry(topic.stream_key) for topic in self.hub.topics],
            }
        )

    async def _klines(self, request: Request) -> Response:
        try:
            question = parsing.parse_query(request.query_params)
            target = question.target
            topic = self.hub.find(target, code=protocol.HISTORY_FAILED)
            own = target.splice()
            limit = question.limit or self.history_rows
            body = await history.answer(self.store, topic.stream, own, question, limit)
        except RequestError as error:
            return _json({"code": error.code, "message": str(error)}, 400)
        except StoreError as error:
            return _json({"code": protocol.HISTORY_FAILED, "message": str(error)}, 503)
        return Response(body, media_type="application/json")


def _entry(stream_key: StreamKey) -> dict[str, str]:
    what = (
        {"channel": "kline", "interval": stream_key.interval.value}
        if isinstance(stream_key, Series)
        else {"channel": stream_key.channel.value}
    )
    return {"exchange": stream_key.venue, "symbol": stream_key.symbol, **what}


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return PlainTextResponse(json.dumps(value), status, media_type="application/json")
