"""What an exchange's REST answers say about limits and refusals, apart from what was asked.

:mod:`trio_feed.net.rest` is given the dialect of its venue, so it knows no venue's headers or
codes.  A dialect only reads: it may raise anything of :data:`MALFORMED`, which ``net.rest`` catches
in one place.  How long nothing is asked, whatever was named, is decided by ``net.limits``.
"""

import re
from collections.abc import Mapping, Set
from typing import Protocol

import msgspec
from attrs import frozen

MALFORMED = (
    msgspec.DecodeError,  # not JSON, or not of its form
    ValueError,  # UnicodeError; int() of more digits than Python converts; dates
    RecursionError,  # nested deeper than the stack
    OverflowError,  # a number beyond the range of what it is made into
)
"""What the parsers of remote text raise: the one table, for every edge where such text enters."""

MOST_WEIGHT = 1_000_000
"""No exchange allows as much in a minute; a larger number is a mistake, and taken as this."""
_MOST_NAMED_S = 10**20


@frozen
class Limited:
    """Too much was asked.

    ``ban``: not only this request is refused, and it gets longer for those who go on.  Its end:
    ``until_ms`` on the exchange's clock (unix ms), or ``after_s`` from the answer on; ``after_s``
    counts where the exchange's clock is not known, both None where nothing usable was named.
    """

    ban: bool = False
    until_ms: float | None = None
    after_s: float | None = None


@frozen
class Refusal:
    """The exchange's own error ``code``, None where it gave none, and its words in one line.
    ``blocked``: the code says that it shuts out the address that we come from."""

    code: int | None = None
    text: str = ""
    blocked: bool = False


class RestDialect(Protocol):
    """``headers`` are one string per name, in lower case.  Every method may raise MALFORMED."""

    @property
    def hints(self) -> Mapping[int, str]:
        """What to do about a status, where the venue means something else by it than HTTP."""

    @property
    def blocking(self) -> Set[int]:
        """The statuses, of REST and of an upgrade, by which it shuts out an address or a region:
        another way out may be let in."""

    def used_weight(self, headers: Mapping[str, str]) -> int | None:
        """What it counts for our address in this minute, None where it does not say."""

    def limited(self, status: int, headers: Mapping[str, str], body: bytes) -> Limited | None:
        """Of any answer, also a 200; None: no limit was hit."""

    def refusal(self, body: bytes) -> Refusal:
        """Of an answer that is no 200."""


class HttpDialect:
    """Plain HTTP: 429 with ``Retry-After`` (RFC 9110, 10.2.3; RFC 6585), JSON errors of any form
    with ``code`` and ``msg``.  The base of the venues' dialects."""

    hints: Mapping[int, str] = {}
    blocking: Set[int] = frozenset({451})

    def used_weight(self, headers: Mapping[str, str]) -> int | None:
        return None

    def limited(self, status: int, headers: Mapping[str, str], body: bytes) -> Limited | None:
        return Limited(after_s=retry_after_s(headers)) if status == 429 else None

    def refusal(self, body: bytes) -> Refusal:
        answer = _decode_refusal(body)
        digits = re.fullmatch(r"-?\d{1,9}", str(answer.code), re.ASCII)
        return Refusal(int(digits[0]) if digits else None, " ".join(answer.msg.split())[:200])


class ExchangeDialect(HttpDialect):
    """Of a large exchange: a 403 comes from the firewall in front of it and is about the address
    or its country (Binance, "LIMITS": "when the WAF Limit has been violated"; CloudFront's
    geographic restriction), not about credentials."""

    hints: Mapping[int, str] = {
        403: "its firewall refuses this IP: wait, or use another way out",
        451: "this region is blocked: use a proxy in another one",
    }
    blocking: Set[int] = frozenset({403, 451})


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds; None where there is none, a date, or not above 0."""
    text = headers.get("retry-after", "").strip()
    seconds = whole_number(text, most=_MOST_NAMED_S)
    return float(seconds) if seconds else None


def whole_number(text: str, *, most: int) -> int | None:
    """ASCII digits -> a number, ``most`` for any larger one however long; None: not digits."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    return most if len(digits) > len(str(most)) else min(int(digits or "0"), most)


class _Refused(msgspec.Struct):
    code: int | str | None = None
    msg: str = ""


_decode_refusal = msgspec.json.Decoder(_Refused).decode
