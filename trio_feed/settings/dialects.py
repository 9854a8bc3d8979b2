"""``[dialects.<name>]``: our data in the forms of exchanges, for clients that exist already."""

from attrs import field, frozen

from .fields import FieldError
from .fields import between as _between


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

    def __attrs_post_init__(self) -> None:
        if self.port and not self.host:
            raise FieldError("port", "needs host, e.g. 127.0.0.1")


@frozen
class DialectsSettings:
    """``[dialects]``."""

    binance: DialectSettings = DialectSettings()
    binance_usdm: DialectSettings = DialectSettings()
    okx: DialectSettings = DialectSettings()
    udf: DialectSettings = DialectSettings()
    """TradingView's charts; of every venue."""
