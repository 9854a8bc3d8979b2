"""TradingView's Universal Data Feed, for its Charting Library and every other UDF client."""
