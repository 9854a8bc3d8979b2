"""Settings: typed tables, and loading them from files, environment and command line."""

from .databases import DatabaseUrl
from .engine import EngineSettings, EngineUrl, NodeSettings
from .exchanges import (
    ChainEndpointSettings,
    ChainSettings,
    ConnectionSettings,
    ExchangeSettings,
    SimulatorSettings,
)
from .fields import Secret, masked_url
from .load import load, load_with_origins, masked
from .origins import Origins, misspelt
from .private import (
    ApiKeySettings,
    AuthSettings,
    JwtSettings,
    PublisherSettings,
    SettlementSettings,
)
from .proxies import EgressSettings, ProxySettings, split_address
from .reloaded import needing_restart
from .tables import (
    KlineSettings,
    LoggingSettings,
    OtelSettings,
    ProxyEnvSettings,
    ServerSettings,
    ServiceSettings,
    Settings,
    StoreSettings,
    WebSocketSettings,
)

__all__ = [
    "ApiKeySettings",
    "AuthSettings",
    "ConnectionSettings",
    "DatabaseUrl",
    "EgressSettings",
    "EngineSettings",
    "EngineUrl",
    "ExchangeSettings",
    "JwtSettings",
    "KlineSettings",
    "LoggingSettings",
    "NodeSettings",
    "OtelSettings",
    "ProxyEnvSettings",
    "ProxySettings",
    "PublisherSettings",
    "Secret",
    "ServerSettings",
    "ServiceSettings",
    "Settings",
    "SettlementSettings",
    "SimulatorSettings",
    "ChainEndpointSettings",
    "ChainSettings",
    "StoreSettings",
    "WebSocketSettings",
    "Origins",
    "load",
    "load_with_origins",
    "misspelt",
    "masked",
    "masked_url",
    "needing_restart",
    "split_address",
]
