"""Refusals of the REST side: error bodies, the weight budget and its bans, owed faults.  Pure."""

import msgspec
from attrs import define

from .wire import Response

WEIGHT_PER_MINUTE = 2400
_BAN_AFTER = 5
"""Requests beyond the limit, in one minute, that turn 429 into a ban."""
_BAN_MS = 120_000
"""The shortest ban there is (exchanges.md section 4: 2 minutes to 3 days)."""
_MINUTE_MS = 60_000
_PAGE = "<html><head><title>{0}</title></head><body>{0}</body></html>"


class Refused(Exception):
    """An error answer.  ``response`` has the exchange's JSON and HTTP ``status``."""

    def __init__(self, code: int, msg: str, status: int = 400) -> None:
        super().__init__(msg)
        self.response = Response(status, msgspec.json.encode({"code": code, "msg": msg}))


@define
class Weight:
    """Request weight of the current minute: one budget, as the box has one client."""

    minute: int = 0
    used: int = 0
    refused: int = 0
    banned_until_ms: int = 0

    def take(self, weight: int, now_ms: int) -> None:
        """Raises Refused with status 429, or 418 while banned."""
        if now_ms // _MINUTE_MS != self.minute:
            self.minute, self.used, self.refused = now_ms // _MINUTE_MS, 0, 0
        if now_ms < self.banned_until_ms:
            raise _banned(self.banned_until_ms)
        self.used += weight
        if self.used <= WEIGHT_PER_MINUTE:
            return
        self.refused += 1
        if self.refused > _BAN_AFTER:
            self.banned_until_ms = now_ms + _BAN_MS
            raise _banned(self.banned_until_ms)
        raise _too_many()


def owed_fault(status: int | None, now_ms: int) -> None:
    """Raises Refused for the ``status`` that a fault script asked for; None: nothing is owed."""
    if status == 429:
        raise _too_many()
    if status == 418:
        raise _banned(now_ms + _BAN_MS)
    if status is not None:
        refused = Refused(-1001, "owed fault", status)
        refused.response = front_end_page(status)
        raise refused


def front_end_page(status: int) -> Response:
    """What a gateway in front of the exchange answers: HTML, not JSON."""
    return Response(status, _PAGE.format(status).encode(), {"Content-Type": "text/html"})


def _too_many() -> Refused:
    return Refused(
        -1003,
        f"Too many requests; current limit of IP(127.0.0.1) is {WEIGHT_PER_MINUTE} requests per "
        "minute. Please use the websocket for live updates to avoid polling the API.",
        429,
    )


def _banned(until_ms: int) -> Refused:
    return Refused(
        -1003,
        f"Way too many requests; IP(127.0.0.1) banned until {until_ms}. "
        "Please use the websocket for live updates to avoid bans.",
        418,
    )
