"""How OKX refuses by REST: by its own codes, mostly in a 429.

Source: "Error Code" of www.okx.com/docs-v5 (2026-07-20).  It bans nobody and names no end: its
windows are two seconds long.
"""

import re
from collections.abc import Mapping

from ...rest_dialects import ExchangeDialect, Limited

_TOO_MANY = re.compile(rb'\s*\{\s*"code"\s*:\s*"500(?:11|61)"')
"""50011: of the address or user; 50061: of the sub-account.  The code stands first in an answer."""


class OkxDialect(ExchangeDialect):
    """A :class:`~trio_feed.rest_dialects.RestDialect`."""

    def limited(self, status: int, headers: Mapping[str, str], body: bytes) -> Limited | None:
        if limited := super().limited(status, headers, body):
            return limited
        return Limited() if _TOO_MANY.match(body) else None
