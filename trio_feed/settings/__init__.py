"""Settings: typed tables, and loading them from files, environment and command line."""

from .fields import Secret, masked_url
from .load import load, masked
from .private import (
    ApiKeySettings,
    AuthSettings,
    JwtSettings,
    PublisherSettings,
    SettlementSettings,
)
from .tables import (
    ConnectionSettings,
    EgressSettings,
    ExchangeSettings,
    KlineSettings,
    LoggingSettings,
    ProxyEnvSettings,
    ProxySettings,
    ServerSettings,
    ServiceSettings,
    Settings,
    SimulatorSettings,
    SolanaEndpointSettings,
    SolanaSettings,
    StoreSettings,
    WebSocketSettings,
    split_address,
)

__all__ = [
    "ApiKeySettings",
    "AuthSettings",
    "ConnectionSettings",
    "EgressSettings",
    "ExchangeSettings",
    "JwtSettings",
    "KlineSettings",
    "LoggingSettings",
    "ProxyEnvSettings",
    "ProxySettings",
    "PublisherSettings",
    "Secret",
    "ServerSettings",
    "ServiceSettings",
    "Settings",
    "SettlementSettings",
    "SimulatorSettings",
    "SolanaEndpointSettings",
    "SolanaSettings",
    "StoreSettings",
    "WebSocketSettings",
    "load",
    "masked",
    "masked_url",
    "split_address",
]
