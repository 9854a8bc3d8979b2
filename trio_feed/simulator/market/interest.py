"""How much of a simulated contract is open: a pure function of the market, in base currency."""

from decimal import Decimal

from .market import Market


def held(market: Market, symbol: str, now_ms: int) -> Decimal:
    """Some thousands of the smallest quantity, more and less as trades come."""
    step, trades = market.listings[symbol].step, market.first_id(symbol, now_ms + 1)
    return step * (1_000_000 + trades * 7919 % 100_000)
