"""The weight budget of Binance's REST side and its bans.  Pure."""

import msgspec
from attrs import define

from ..machinery.wire import Response
from .dialect import WeightRule

_BAN_AFTER = 5
"""Requests beyond the limit, in one minute, that turn 429 into a ban."""
_BAN_MS = 120_000
"""The shortest ban there is (exchanges.md section 4: 2 minutes to 3 days)."""
_MINUTE_MS = 60_000


@define
class Weight:
    """Request weight of the current minute: one budget, as there is one client."""

    rule: WeightRule
    minute: int = 0
    used: int = 0
    refused: int = 0
    banned_until_ms: int = 0
    total: int = 0
    """Of all requests, the refused ones as well."""

    def take(self, weight: int, now_ms: int) -> Response | None:
        """None, or the refusal: status 429, or 418 while banned."""
        if now_ms // _MINUTE_MS != self.minute:
            self.minute, self.used, self.refused = now_ms // _MINUTE_MS, 0, 0
        if now_ms < self.banned_until_ms:
            return self._banned(self.banned_until_ms, now_ms)
        self.used += weight
        self.total += weight
        if self.used <= self.rule.per_minute:
            return None
        self.refused += 1
        if self.refused > _BAN_AFTER:
            self.banned_until_ms = now_ms + _BAN_MS
            return self._banned(self.banned_until_ms, now_ms)
        return self._too_many(now_ms)

    def refusal(self, status: int, now_ms: int) -> Response | None:
        """The answer with a ``status`` that a fault asks for; None: it is not about weight."""
        if status == 429:
            return self._too_many(now_ms)
        return self._banned(now_ms + _BAN_MS, now_ms) if status == 418 else None

    def _too_many(self, now_ms: int) -> Response:
        left_ms = _MINUTE_MS - now_ms % _MINUTE_MS
        return self._response(429, self.rule.too_many, left_ms)

    def _banned(self, until_ms: int, now_ms: int) -> Response:
        return self._response(418, self.rule.banned.format(until_ms), until_ms - now_ms)

    def _response(self, status: int, msg: str, left_ms: int) -> Response:
        body = msgspec.json.encode({"code": -1003, "msg": msg})
        seconds = {"Retry-After": str(-(-left_ms // 1000))} if self.rule.retry_after else {}
        return Response(status, body, seconds)
