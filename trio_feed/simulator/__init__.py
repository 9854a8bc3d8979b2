"""Simulated exchanges, reached over the wire only: a seeded market, real dialects, faults."""

from .binance.exchange import BinanceExchange, binance_exchange
from .exchanges import VENUES, serve_exchange, spinpet_market
from .machinery.response_faults import ResponseFaults
from .machinery.server import serve
from .market.books import BookPath
from .market.market import Market
from .okx.exchange import OkxExchange, okx_exchange
from .solana.node import SolanaNode, solana_node

__all__ = [
    "BinanceExchange",
    "BookPath",
    "Market",
    "OkxExchange",
    "ResponseFaults",
    "SolanaNode",
    "VENUES",
    "binance_exchange",
    "okx_exchange",
    "serve",
    "serve_exchange",
    "solana_node",
    "spinpet_market",
]
