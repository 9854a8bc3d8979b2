"""What is listed in the box: symbols, their decimals, their scale of price and volume."""

from decimal import Decimal

from attrs import frozen

from . import prices

LISTED_MS = 1_567_296_000_000
"""2019-09-01 00:00 UTC: nothing was traded before."""


@frozen
class Listing:
    """One perpetual contract.  ``base_ticks`` is the price that history swings around."""

    symbol: str
    price_decimals: int
    quantity_decimals: int
    base_ticks: int
    units: int
    """Scale of volume: a mean minute trades ``units * prices.MEAN_LOTS_PER_UNIT`` lots."""

    @property
    def base_asset(self) -> str:
        return self.symbol.removesuffix(self.quote_asset)

    @property
    def quote_asset(self) -> str:
        return next((q for q in ("USDT", "USDC") if self.symbol.endswith(q)), self.symbol[-4:])

    @property
    def tick(self) -> Decimal:
        """The smallest step of a price."""
        return Decimal(1).scaleb(-self.price_decimals)

    @property
    def step(self) -> Decimal:
        """The smallest step of a quantity."""
        return Decimal(1).scaleb(-self.quantity_decimals)


def _listing(symbol: str, price: str, quantity_decimals: int, minute_volume: int) -> Listing:
    decimals = len(price.partition(".")[2])
    lots = minute_volume * 10**quantity_decimals
    units = max(1, lots // prices.MEAN_LOTS_PER_UNIT)
    return Listing(symbol, decimals, quantity_decimals, int(price.replace(".", "")), units)


_KNOWN = {
    listing.symbol: listing
    for listing in (
        _listing("BTCUSDT", "85000.0", 3, 120),
        _listing("ETHUSDT", "3000.00", 3, 2_500),
        _listing("SOLUSDT", "150.000", 0, 15_000),
        _listing("BNBUSDT", "600.000", 2, 500),
        _listing("XRPUSDT", "2.0000", 1, 500_000),
    )
}


def listing_of(symbol: str) -> Listing:
    """A symbol's contract; unknown symbols get four decimals and a price between 1 and 100."""
    known = _KNOWN.get(symbol)
    if known is not None:
        return known
    cents = 100 + prices.number("listing", symbol) % 9_900
    return _listing(symbol, f"{cents // 100}.{cents % 100:02d}00", 1, 20_000)
