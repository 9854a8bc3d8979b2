"""Symbols as other exchanges and programs write them: ``BTC-USDT``, ``BTC_USDT``.  Pure."""

import re

_QUOTES = "USDT|USDC|FDUSD|TUSD|USD|BTC|ETH|BNB|EUR|TRY|JPY|BRL"
_PARTS = re.compile(rf"([A-Z0-9]+)([-_])({_QUOTES})(?:[-_](SWAP|PERP))?")
"""Only what ends in a known quote currency: an exchange may use these signs for something else
(``BTCUSDT_260327`` is a future)."""


def joined(symbol: str) -> str:
    """For venues that write ``BTCUSDT``.  A name that fits comes back as it is."""
    found = _PARTS.fullmatch(symbol)
    return symbol if found is None else found[1] + found[3]


def dashed(symbol: str) -> str:
    """For venues that write ``BTC-USDT`` and ``BTC-USDT-SWAP``."""
    found = _PARTS.fullmatch(symbol)
    if found is None or ("_" not in symbol and found[4] != "PERP"):
        return symbol
    return "-".join([found[1], found[3], *(["SWAP"] if found[4] else [])])
