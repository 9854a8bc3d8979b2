"""OKX v5: WebSocket and REST, spot and perpetual contracts."""
