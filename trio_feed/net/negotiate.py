"""NTLM and Negotiate credentials (RFC 4559) for a proxy, by the optional package pyspnego.

This file is its only importer, and only where a proxy asks: without it such a proxy is refused with
a line that names what to install.
"""

import base64
import binascii
import re
import struct
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Literal

from ..errors import ProxyAuthRequired
from .proxy import Proxy

Scheme = Literal["NTLM", "Negotiate"]

INSTALL = "NTLM and Negotiate want the extra trio_feed[ntlm]"
MOST_ROUNDS = 4
_MOST_TOKEN = 64 * 1024
_BROKEN = (
    ArithmeticError, AttributeError, LookupError, NotImplementedError, RecursionError, struct.error,
    TypeError, ValueError,
)  # fmt: skip
"""What pyspnego's parsers raise beside its own errors, by 5,000 changed tokens (0.12.4)."""


def scheme_of(offers: Iterable[str]) -> Scheme | None:
    """Which of them some ``Proxy-Authenticate`` headers ask for; NTLM where both, as it needs no
    ticket."""
    words = {offer.strip().partition(" ")[0].lower() for offer in offers}
    return "NTLM" if "ntlm" in words else "Negotiate" if "negotiate" in words else None


def is_installed() -> bool:
    try:
        import_module("spnego")
    except ImportError:
        return False
    return True


class Conversation:
    """The steps of one log-in, on one connection."""

    def __init__(self, scheme: Scheme, proxy: Proxy, where: str) -> None:
        """Raises ProxyAuthRequired."""
        self._scheme, self._where = scheme, where
        self._spnego: Any = import_module("spnego")
        self._context = self._of_theirs(
            lambda: self._spnego.client(
                proxy.username,
                proxy.password.reveal(),
                hostname=proxy.host,
                service="HTTP",
                protocol=scheme.lower(),
            )
        )

    def first(self) -> str:
        """The first value of ``Proxy-Authorization``.  Raises ProxyAuthRequired."""
        return self._step(None)

    def next(self, offers: Iterable[str]) -> str | None:
        """The answer to the proxy's token; None: it sent none, which is a refusal.  Raises
        ProxyAuthRequired."""
        for offer in offers:
            scheme, _, text = offer.strip().partition(" ")
            if scheme.lower() != self._scheme.lower() or not text.strip():
                continue
            try:
                token = base64.b64decode(text[:_MOST_TOKEN].strip(), validate=True)
            except (binascii.Error, ValueError):
                return None
            return self._step(token)
        return None

    def _step(self, token: bytes | None) -> str:
        answer = self._of_theirs(lambda: self._context.step(token))
        return f"{self._scheme} {base64.b64encode(answer or b'').decode()}"

    def _of_theirs(self, call: Any) -> Any:
        """The one edge for what comes out of pyspnego, which parses what the proxy says."""
        broken: tuple[type[Exception], ...] = (self._spnego.exceptions.SpnegoError, *_BROKEN)
        try:
            return call()
        except broken as error:
            words = re.sub(r"\W+", " ", str(error))[:100].strip()
            problem = f"{self._where}: {self._scheme} does not work ({words})"
        raise ProxyAuthRequired(problem)
