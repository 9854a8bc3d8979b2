"""The REST side of Binance: which path is what and weighs how much is in the dialect's table.

What is answered is in :mod:`.history` and :mod:`.snapshots` (exchanges.md section 4).
"""

from collections.abc import Mapping
from functools import partial

from attrs import define, field

from ..machinery.rest import RestEndpoint, front_end_page
from ..machinery.wire import Request, Response
from .accounts import Accounts
from .dialect import MarketData
from .payloads import encode
from .query import BinanceError
from .weight import Weight

_SIGNED = 10
"""The weight of each request of an account, about what they weigh."""


@define
class BinanceRest(RestEndpoint):
    data: MarketData
    accounts: Accounts = field(factory=Accounts)
    _weight: Weight = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._weight = Weight(self.data.dialect.weights)

    @property
    def weight(self) -> int:
        return self._weight.total

    def headers(self) -> Mapping[str, str]:
        return {"X-MBX-USED-WEIGHT-1M": str(self._weight.used)}

    def respond(self, request: Request, now_ms: int) -> Response:
        status = self.faults.next_rest()
        if status is not None:
            return self._weight.refusal(status, now_ms) or front_end_page(status)
        signed = self.accounts.answer(request, now_ms)
        if signed is not None:
            return self._weight.take(_SIGNED, now_ms) or signed
        endpoint = self.data.dialect.endpoints.get(request.path)
        if endpoint is None or request.method != "GET":
            what = f"Path {request.path}, Method {request.method} is invalid"
            raise BinanceError(-5000, what, 404)
        weigh, handle = endpoint
        refusal = self._weight.take(weigh(request.query), now_ms)
        if refusal is not None:
            return refusal
        read = partial(handle, self.data, request.query)
        rows = self.faults.rows(request.path, now_ms, read, newest_first=False)
        return Response(200, encode(rows))
