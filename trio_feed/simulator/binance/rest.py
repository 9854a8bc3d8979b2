"""The REST side of the Binance box, pure: a request and a time in, a response out.

What is answered stands in ``binance_history`` and ``binance_snapshots``, which path is what and
weighs how much in the dialect's table (exchanges.md section 4).
"""

from typing import Any

from attrs import define, field

from ..machinery.response_faults import Faults
from ..machinery.wire import Request, Response, http_date
from .dialect import Box
from .payloads import encode
from .query import Refused
from .weight import Weight, front_end_page


@define
class BinanceRest:
    """``answer(request, now)``.  The only state is the weight budget."""

    box: Box
    faults: Faults
    _weight: Weight = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._weight = Weight(self.box.dialect.weights)

    @property
    def weight(self) -> int:
        """Of all requests so far."""
        return self._weight.total

    def answer(self, request: Request, now_ms: int) -> Response:
        """One request -> one response; every one carries X-MBX-USED-WEIGHT-1M and a Date."""
        try:
            response = self._answer(request, now_ms)
        except Refused as refused:
            response = refused.response
        headers = {
            "Date": http_date(now_ms),
            "X-MBX-USED-WEIGHT-1M": str(self._weight.used),
            **response.headers,
        }
        return Response(response.status, response.body, headers)

    def _answer(self, request: Request, now_ms: int) -> Response:
        status = self.faults.next_rest()
        if status is not None:
            return self._weight.owed(status, now_ms) or front_end_page(status)
        endpoint = self.box.dialect.endpoints.get(request.path)
        if endpoint is None or request.method != "GET":
            what = f"Path {request.path}, Method {request.method} is invalid"
            raise Refused(-5000, what, 404)
        weigh, handle = endpoint
        refusal = self._weight.take(weigh(request.query), now_ms)
        if refusal is not None:
            return refusal
        faults = self.faults
        if request.path.endswith("rades"):  # aggTrades, trades
            return Response(200, encode(handle(self.box, request.query, now_ms - faults.behind_ms)))
        if not request.path.endswith("lines"):  # klines, continuousKlines
            return Response(200, encode(handle(self.box, request.query, now_ms)))
        past_ms = now_ms - faults.behind_ms - faults.next_stale_ms()
        rows: Any = handle(self.box, request.query, past_ms)
        return Response(200, encode(faults.spoil(rows[1:] if faults.next_missing() else rows)))
