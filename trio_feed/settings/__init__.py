"""Settings: typed tables, and loading them from files, environment and command line."""

from .load import load, masked
from .tables import (
    ConnectionSettings,
    EgressSettings,
    ExchangeSettings,
    KlineSettings,
    LoggingSettings,
    ProxyEnvSettings,
    ProxySettings,
    Secret,
    ServerSettings,
    ServiceSettings,
    Settings,
    SimulatorSettings,
    SolanaSettings,
    StoreSettings,
    WebSocketSettings,
    split_address,
)

__all__ = [
    "ConnectionSettings",
    "EgressSettings",
    "ExchangeSettings",
    "KlineSettings",
    "LoggingSettings",
    "ProxyEnvSettings",
    "ProxySettings",
    "Secret",
    "ServerSettings",
    "ServiceSettings",
    "Settings",
    "SimulatorSettings",
    "SolanaSettings",
    "StoreSettings",
    "WebSocketSettings",
    "load",
    "masked",
    "split_address",
]
