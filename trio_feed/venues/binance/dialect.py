"""How Binance counts and refuses by REST, spot and USD-M.

Source: the "LIMITS" sections of its general REST pages (spot 2026-07-21, USD-M 2026-05-28): the
weight used in this minute is in every answer; 429 asks to slow down, and going on earns 418, a ban
of 2 minutes to 3 days.  ``Retry-After`` (seconds) is documented for spot only; the text of a ban
(-1003) names its end.
"""

import re
from collections.abc import Mapping

from attrs import evolve

from ...rest_dialects import (
    MOST_WEIGHT,
    ExchangeDialect,
    Limited,
    Refusal,
    retry_after_s,
    whole_number,
)

_USED_WEIGHT = "x-mbx-used-weight-1m"
_WRONG_ADDRESS = -2015
"""REJECTED_MBX_KEY, "Invalid API-key, IP, or permissions for action": we send no key, so it is the
IP (Error Codes, 2026-07-21)."""
_BANNED_UNTIL = re.compile(rb"banned until (\d{13})(?!\d)")


class BinanceDialect(ExchangeDialect):
    """A :class:`~trio_feed.rest_dialects.RestDialect`."""

    hints: Mapping[int, str] = {
        **ExchangeDialect.hints,
        418: "this IP is banned for going on after 429: nothing may be sent until the ban ends",
    }

    def used_weight(self, headers: Mapping[str, str]) -> int | None:
        return whole_number(headers.get(_USED_WEIGHT, ""), most=MOST_WEIGHT)

    def limited(self, status: int, headers: Mapping[str, str], body: bytes) -> Limited | None:
        if status not in (418, 429):
            return None
        until = _BANNED_UNTIL.search(body)
        return Limited(
            ban=status == 418 or until is not None,
            until_ms=float(until[1]) if until else None,
            after_s=retry_after_s(headers),
        )

    def refusal(self, body: bytes) -> Refusal:
        refusal = super().refusal(body)
        return evolve(refusal, blocked=refusal.code == _WRONG_ADDRESS)
