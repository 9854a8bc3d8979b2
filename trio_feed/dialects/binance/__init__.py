"""Binance's dialect, spot and USD-M: WebSocket streams and REST."""
