"""``[dialects.<name>]``: our data in the forms of exchanges, for clients that exist already."""

import re

from attrs import field, frozen

from .fields import FieldError
from .fields import between as _between

_METHODS = ("GET", "POST", "PUT", "DELETE", "WS")
_ENTRY = re.compile(rf"({'|'.join(_METHODS)}) (/[A-Za-z0-9_.-]+)+(/<listenKey>)?")


@frozen
class DialectSettings:
    """One dialect, under the path of its name on the push server (``/binance``)."""

    enabled: bool = True
    """Only where the venue of that name is fed (``udf``: any); admission and limits as for our own
    endpoint."""
    host: str = ""
    """A bind of its own beside, without the path, for clients that take host and port only."""
    port: int = field(default=0, validator=_between(0, 65535))
    """With host.  0 = any free port."""
    simulated_ok: bool = False
    """Also serve simulated data, which these forms cannot label; a header says so."""
    passthrough: tuple[str, ...] = ()
    """What goes to the exchange as the client signed it, such as "GET /api/v3/account", "POST
    /api/v3/order" or "WS /ws-api/v3"; clients of this machine and those with a token of ours."""
    websocket_api_url: str = field(default="", repr=False)
    """Base URL of the WebSocket that takes signed requests; empty: the exchange's own."""

    def __attrs_post_init__(self) -> None:
        if self.port and not self.host:
            raise FieldError("port", "needs host, e.g. 127.0.0.1")
        for number, entry in enumerate(self.passthrough):
            if not _ENTRY.fullmatch(entry):
                known = ", ".join(_METHODS)
                problem = f"{entry!r} is not a method ({known}) and a path without query"
                raise FieldError(f"passthrough.{number}", problem)

    def passed_on(self) -> frozenset[tuple[str, str]]:
        """Method and path of each entry."""
        found = (entry.partition(" ") for entry in self.passthrough)
        return frozenset((method, path) for method, _, path in found)


@frozen
class DialectsSettings:
    """``[dialects]``."""

    binance: DialectSettings = DialectSettings()
    binance_usdm: DialectSettings = DialectSettings()
    okx: DialectSettings = DialectSettings()
    udf: DialectSettings = DialectSettings()
    """TradingView's charts; of every venue."""

    def __attrs_post_init__(self) -> None:
        if self.udf.passthrough:
            raise FieldError("udf.passthrough", "charts have nothing that a client signs")
