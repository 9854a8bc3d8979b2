"""The dialects that there are: of each its name, its venue, and what makes its mount."""

from collections.abc import Callable, Mapping
from functools import partial

from ..push.mounts import Mount
from .binance.mount import binance_mount
from .binance.profile import SPOT, USDM
from .market import MarketData

DIALECTS: Mapping[str, Callable[[MarketData], Mount]] = {
    "binance": partial(binance_mount, SPOT),
    "binance_usdm": partial(binance_mount, USDM),
}
"""By the name in the settings, which is the venue's."""
