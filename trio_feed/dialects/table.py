"""The dialects that there are: of each its name, whose data it serves, and what makes its mount."""

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from ..push.mounts import Mount
from .binance.mount import binance_mount
from .binance.profile import SPOT, USDM, Profile
from .market import MarketData
from .okx.mount import okx_mount
from .udf.mount import udf_mount


@frozen
class Dialect:
    """``venue``: whose data it serves; empty: that of every venue.  ``make`` gets a market for each
    of these that is fed, at least one."""

    venue: str
    make: Callable[[Sequence[MarketData]], Mount]


def _binance(profile: Profile) -> Dialect:
    return Dialect(profile.venue, lambda markets: binance_mount(profile, markets[0]))


DIALECTS: Mapping[str, Dialect] = {
    "binance": _binance(SPOT),
    "binance_usdm": _binance(USDM),
    "okx": Dialect("okx", lambda markets: okx_mount(markets[0])),
    "udf": Dialect("", udf_mount),
}
"""By the name in the settings, which is the path as well."""
