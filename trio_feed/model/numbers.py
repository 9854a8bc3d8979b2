"""Money and times as the exchange writes them.  Pure."""

import re
from decimal import Context, Decimal
from functools import lru_cache

from ..errors import BadMessage

_DECIMAL = re.compile(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,2})?", re.ASCII)
_EXPONENT_MAX = 40
_KNOWN = 8192
"""Markets say the same prices and sizes again and again: those seen last are looked up."""
INT_MAX = 2**63 - 1
"""Ids, times and counts above it cannot be stored; parsers refuse them."""


EXACT = Context(prec=100)
"""For sums and products of money: the default 28 digits would round 18-decimal tokens."""


def parse_decimal(text: str) -> Decimal:
    """An exchange's decimal string -> Decimal, digit by digit; ``1E-8`` is a number as well.

    Raises BadMessage for anything else (NaN, Infinity, an exponent beyond 40, endless digits).
    """
    if type(text) is not str:
        raise BadMessage("not a decimal number", repr(text)[:200])
    return _parse(text)


@lru_cache(_KNOWN)
def _parse(text: str) -> Decimal:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise BadMessage("not a decimal number", repr(text)[:200])
    exponent = found[2]
    if exponent is None:
        return Decimal(text)
    if abs(int(exponent[1:])) > _EXPONENT_MAX:
        raise BadMessage("not a decimal number", repr(text))
    return Decimal(plain(Decimal(text)))


@lru_cache(_KNOWN)
def parse_price(text: str) -> Decimal:
    """The price of a trade, above 0.  Raises BadMessage."""
    price = parse_decimal(text)
    if price <= 0:
        raise BadMessage(f"a trade at a price of {plain(price)[:40]}")
    return price


@lru_cache(_KNOWN)
def parse_quantity(text: str) -> Decimal:
    """The quantity of a trade, not below 0.  Raises BadMessage."""
    quantity = parse_decimal(text)
    if quantity < 0:
        raise BadMessage(f"a trade of {plain(quantity)[:40]}")
    return quantity


def parse_time_ms(value: int) -> int:
    """Unix milliseconds between 2001 and 2096, or BadMessage (seconds and microseconds are not)."""
    if not 10**12 <= value <= 4 * 10**12:
        raise BadMessage(f"{value} is not a time in unix milliseconds")
    return value


def plain(value: Decimal) -> str:
    """Decimal -> its digits without exponent: ``0.00000001``, never ``1E-8``."""
    text = str(value)  # three times as fast, and the same but for an exponent
    return format(value, "f") if "E" in text else text
