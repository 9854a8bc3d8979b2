"""trio_feed: market data you can trust, through a proxy, out of one WebSocket endpoint."""

__version__ = "0.1.0"
