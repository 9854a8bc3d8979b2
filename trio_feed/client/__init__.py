"""A client of the push endpoint: typed messages, and no closed candle missing, whatever happens."""

from .connection import Client, open_client
from .conversation import AuthRefused
from .messages import (
    Authenticated,
    BookUpdate,
    CandleUpdate,
    ClientMessage,
    ConnectionChange,
    ConnectionState,
    History,
    LiquidationUpdate,
    MarkPriceUpdate,
    Origin,
    PrivateEvent,
    ServerError,
    Stream,
    StreamStatus,
    TickerUpdate,
    TokenExpires,
    TradeUpdate,
    UpdateKind,
)

__all__ = [
    "AuthRefused",
    "Authenticated",
    "BookUpdate",
    "CandleUpdate",
    "Client",
    "ClientMessage",
    "ConnectionChange",
    "ConnectionState",
    "History",
    "LiquidationUpdate",
    "MarkPriceUpdate",
    "Origin",
    "PrivateEvent",
    "ServerError",
    "Stream",
    "StreamStatus",
    "TickerUpdate",
    "TokenExpires",
    "TradeUpdate",
    "UpdateKind",
    "open_client",
]
